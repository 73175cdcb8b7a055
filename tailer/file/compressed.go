package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"qwatch/internal/bounded"
)

// compressed are the endings of files that are never followed. Those of gzip
// and zstd are searched for text that a rotation put there.
var compressed = []string{".gz", ".zst", ".xz", ".bz2"}

func isCompressed(path string) bool { return slices.Contains(compressed, filepath.Ext(path)) }

// findCompressed finds p's text in a compressed file, hands over what follows
// it, and says where it was.
func (f *Files) findCompressed(p position, s *source) string {
	for _, path := range s.neighbours() {
		if !isCompressed(path) || !related(filepath.Base(s.path), filepath.Base(path)) {
			continue
		}
		if _, err := f.unpack(p, s, path); err == nil {
			f.event(Event{Kind: Recovered, Source: s.path, Detail: "read on in " + path})
			return path
		}
	}
	return ""
}

// unpackNew reads the generations of s that were compressed before they could
// be opened, and says how many there were.
func (f *Files) unpackNew(s *source, what string) (found int) {
	heads := slices.Clone(s.lineage.heads)
	for _, in := range f.inodes {
		if in.src == s {
			heads = append(heads, in.head)
		}
	}
	heads = append(heads, f.shared.finishedHeads(s.path)...)
	after := s.lineage.Packed
	for _, path := range s.neighbours() {
		st, err := statPath(path)
		if err != nil || !isCompressed(path) || st.changed <= after || !related(filepath.Base(s.path), filepath.Base(path)) {
			continue
		}
		seen := func(h head) bool {
			return len(h.Text) > 0 && f.packed(path, func(r io.Reader) error { return expect(r, h.At, h.Text) }) == nil
		}
		if slices.ContainsFunc(heads, seen) {
			continue
		}
		if begin, err := f.unpack(position{}, s, path); err == nil {
			found++
			s.lineage.Packed = max(s.lineage.Packed, st.changed)
			s.lineage.add(begin)
			heads = append(heads, begin)
			f.event(Event{Kind: Recovered, Source: s.path, Detail: what + ": " + path})
		}
	}
	return found
}

// unpack hands over the text of a compressed file from p's position on, if
// its text before is p's, and says how the text it handed over began.
func (f *Files) unpack(p position, s *source, path string) (begin head, err error) {
	if p.Off > 0 && len(p.Window) == 0 {
		return begin, fmt.Errorf("%s: no text is known by which to find %d in it", path, p.Off)
	}
	var stood time.Time
	if st, err := statPath(path); err == nil {
		stood = f.past.stood(st)
	}
	err = f.packed(path, func(r io.Reader) error { return expect(r, p.Head.At, p.Head.Text) })
	if err != nil {
		return begin, err
	}
	err = f.packed(path, func(r io.Reader) error {
		if err := expect(r, p.Off-int64(len(p.Window)), p.Window); err != nil {
			return err
		}
		fill := 0
		for {
			f.step()
			n, err := io.ReadFull(r, f.buf[fill:])
			text := f.buf[:fill+n]
			if begin.Text == nil {
				begin = head{p.Off, slices.Clone(text[:min(windowSize, len(text))])}
			}
			if err != nil { // the end, or as far as it can be read
				if len(text) > 0 {
					f.emit(s, text, false, stood)
				}
				if most := (*bounded.TooMuchError)(nil); errors.As(err, &most) || errors.Is(err, context.DeadlineExceeded) {
					f.event(Event{Kind: Lost, Source: s.path, Detail: fmt.Sprintf("%s was read no further: %v", path, err)})
				}
				return nil
			}
			k := f.opt.Cut(text, false)
			f.emit(s, text[:k], false, stood)
			fill = copy(f.buf, text[k:])
		}
	})
	return begin, err
}

// expect reads up to offset at, where text must stand.
func expect(r io.Reader, at int64, text []byte) error {
	if _, err := io.CopyN(io.Discard, r, at); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, text) {
		return fmt.Errorf("other text at offset %d", at)
	}
	return nil
}

// What text of compressed files may cost. Whoever may write to a log's folder may
// put one there that becomes a thousand times its size.
const (
	// maxRatio is how many times its size a file may become, maxSmall what one
	// of any size may: logs compress 10 to 100 times.
	maxRatio = 200
	maxSmall = 64 << 20
	// unpackTime is how long the files of one user are read in each unpackSpan,
	// and unpackTimeAll those of root, and those of all others together: the
	// files beside them wait meanwhile.
	unpackTime    = 4 * time.Second
	unpackTimeAll = 10 * time.Second
	unpackSpan    = 5 * time.Minute
	// everybody is the key of all users but root together.
	everybody = 1<<32 - 1
	// maxWindow is how much memory zstd(1) takes at most where nobody asks for
	// more.
	maxWindow = 128 << 20
)

// unpacked is what the compressed files of one user have cost.
type unpacked struct {
	since time.Time
	spent time.Duration
	said  bool
}

// packed reads a compressed file, going by its ending, as far as that goes in
// time and size.
func (f *Files) packed(path string, read func(io.Reader) error) error {
	file, err := bounded.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	st, err := statFD(int(file.Fd()))
	if err != nil {
		return err
	}
	left, took, why := f.shared.unpackBudget(st.uid)
	if why != nil {
		f.event(Event{Kind: Unreadable, Source: path, Err: why})
	}
	if left <= 0 {
		return context.DeadlineExceeded
	}
	defer took()
	ctx, cancel := context.WithTimeout(f.running, left)
	defer cancel()
	switch raw, most := bounded.Reader(ctx, file, st.size), maxSmall+maxRatio*st.size; filepath.Ext(path) {
	case ".gz":
		r, err := gzip.NewReader(raw)
		if err != nil {
			return err
		}
		return read(bounded.Reader(ctx, r, most))
	case ".zst":
		r, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return err
		}
		defer r.Close()
		return read(bounded.Reader(ctx, r, most))
	}
	return fmt.Errorf("%s: only .gz and .zst are searched", path)
}
