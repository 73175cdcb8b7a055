package file

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// truncated handles a file that was cut in place: the rest of its text is
// looked for in a copy, then it is read from its beginning.
func (f *Files) truncated(in *inode) {
	s := in.src
	f.changed()
	if len(in.head.Text) == 0 { // nothing but NULs was read yet
		in.restart()
		f.search(s)
		return
	}
	if in.copied {
		// The copy's place was used again. What is there now belongs to the
		// original, and is searched from there.
		f.drop(in)
		delete(f.known, in.id)
		return
	}
	s.truncations.Add(1)
	detail := "no copy holds its text"
	if copy := f.findCopy(in); copy != "" {
		detail = "read on in " + copy
	}
	s.began(in.head)
	in.restart()
	f.search(s)
	f.event(Event{Kind: Truncated, Source: s.path, Detail: detail})
}

// findCopy finds the file into which copytruncate put in's text, and has its
// rest read.
func (f *Files) findCopy(in *inode) string {
	at := positionOf(in)
	for _, c := range f.inodes {
		if c != in && c.suspect != nil && f.holds(c.fd, at, c.src.path) {
			c.suspect, c.copied = nil, true
			at.apply(c)
			c.copied = true
			f.later(c)
			return c.src.path
		}
	}
	for _, path := range f.neighbours(in.src) {
		st, err := statPath(path)
		if err != nil || !st.regular() || isCompressed(path) || st.size < in.off ||
			st.dev == in.id.Dev && st.ino == in.id.Ino {
			continue
		}
		fd, id, _, err := openFile(path)
		if err != nil {
			continue
		}
		if f.inodes[id] != nil || !f.holds(fd, at, path) {
			unix.Close(fd)
			continue
		}
		c := f.adopt(fd, id, in.src)
		at.apply(c)
		c.copied = true
		in.src.Low = max(in.src.Low, st.since())
		f.drain(c)
		return path
	}
	return f.findCompressed(at, in.src)
}

// holds says whether the file has p's text before p's position.
func (f *Files) holds(fd int, p position, path string) bool {
	text, at := p.Window, p.Off-int64(len(p.Window))
	if p.Off == p.Head.At && len(p.Head.Text) > 0 {
		text, at = p.Head.Text, p.Off
	}
	if len(text) == 0 || len(text) < 64 && !related(filepath.Base(p.Path), filepath.Base(path)) {
		return false
	}
	return same(fd, text, at) && same(fd, p.Head.Text, p.Head.At)
}

// same says whether the file has text at an offset.
func same(fd int, text []byte, at int64) bool {
	buf := make([]byte, len(text))
	n, err := unix.Pread(fd, buf, at)
	return err == nil && bytes.Equal(buf[:n], text)
}

// original finds the source that a new file may be a copy of, going by its
// name.
func (f *Files) original(path string) *source {
	for _, s := range f.sources {
		if s.inode != nil && filepath.Dir(s.path) == filepath.Dir(path) && related(filepath.Base(s.path), filepath.Base(path)) {
			return s
		}
	}
	return nil
}

// judge says whether a file that may be a copy is none, and so to be read. A
// copy in the making is empty, or the beginning of the original.
func (f *Files) judge(in *inode) bool {
	if f.isCopy(in.fd, in.suspect) {
		return false
	}
	in.suspect = nil
	return true
}

// isCopy says whether the file begins like s does or did, or is still empty.
func (f *Files) isCopy(fd int, s *source) bool {
	if st, err := statFD(fd); err != nil || st.size == 0 {
		return true
	}
	heads := s.heads
	if o := s.inode; o != nil {
		now := readHead(o.fd)
		if len(o.head.Text) == 0 { // so that holds knows it, should o be cut now
			o.off, o.head, o.window = now.At, now, make([]byte, min(now.At, windowSize))
		}
		heads = append(heads[:len(heads):len(heads)], o.head, now)
	}
	return slices.ContainsFunc(heads, func(h head) bool { return h.begins(fd) })
}

// begins says whether the file may be a copy, perhaps still in the making, of
// one that began with h.
func (h head) begins(fd int) bool {
	if len(h.Text) == 0 {
		return false
	}
	buf := make([]byte, len(h.Text))
	n, err := unix.Pread(fd, buf, h.At)
	if err == nil && n == 0 { // shorter than the hole: a copy has only NULs yet
		st, err := statFD(fd)
		return err != nil || same(fd, []byte{0}, st.size-1)
	}
	return err != nil || bytes.Equal(buf[:n], h.Text[:n])
}

// began remembers how a file of s began.
func (s *source) began(h head) {
	if len(h.Text) > 0 {
		s.heads = append(s.heads[max(0, len(s.heads)-7):], h)
	}
}

// drain reads a file that has no followed name to its end.
func (f *Files) drain(in *inode) {
	f.later(in)
	f.after(quietTime, func() { f.release(in, quietTime) })
}

// later looks at a file when the present look is over.
func (f *Files) later(in *inode) { f.watch.poke(in, false) }

// neighbours lists the folders that s's files stand in.
func (f *Files) neighbours(s *source, more ...string) []string {
	dirs := map[string]bool{filepath.Dir(s.path): true}
	if s.inode != nil && s.inode.at != "" {
		dirs[filepath.Dir(s.inode.at)] = true
	}
	for _, dir := range more {
		dirs[dir] = true
	}
	var paths []string
	for dir := range dirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// scanRounds are the looks (gatherTime apart) that follow a rotation: a
// listing may miss a file that is renamed meanwhile.
var scanRounds = map[int]bool{0: true, 1: true, 2: true, 4: true, 8: true, 16: true, 32: true}

// search begins to look for generations of s that have no name any more.
func (f *Files) search(s *source) { f.scanning[s], f.scanNow = 0, true }

// scan looks for generations of rotated logs that came and went between two
// looks at the name.
func (f *Files) scan() {
	groups := map[string][]*source{}
	for s, round := range f.scanning {
		if scanRounds[round] {
			groups[filepath.Dir(s.path)] = append(groups[filepath.Dir(s.path)], s)
			if s.inode != nil && s.inode.at != "" && filepath.Dir(s.inode.at) != filepath.Dir(s.path) {
				groups[filepath.Dir(s.inode.at)] = append(groups[filepath.Dir(s.inode.at)], s)
			}
		}
		if f.scanning[s]++; round > 32 {
			delete(f.scanning, s)
			f.missed(s)
		}
	}
	for dir, group := range groups {
		f.generations(dir, group)
	}
	if len(f.scanning) > 0 && !f.scanSoon {
		f.scanSoon = true
		f.after(gatherTime, func() {
			f.scanSoon = false
			f.scanNow = true
		})
	}
}

// missed tells of files that were born under s's name and are nowhere to be
// found: they were deleted before they could be opened.
func (f *Files) missed(s *source) {
	n := s.births - s.opened
	if n <= 0 {
		return // the event of a birth may come after the file was opened
	}
	s.births, s.opened = 0, 0
	if n -= f.unpackNew(s, "a generation that came and went between two looks"); n > 0 {
		s.truncations.Add(uint64(n))
		f.event(Event{Kind: Lost, Source: s.path, Detail: fmt.Sprintf("%d generations were deleted before they could be opened", n)})
	}
}

// generations finds the unknown generations in a folder and reads them in the
// order of their births.
func (f *Files) generations(dir string, group []*source) {
	entries, _ := os.ReadDir(dir)
	var found []*inode
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if isCompressed(path) || f.sources[path] != nil || matches(f.opt.Globs, path) {
			continue
		}
		for _, s := range group {
			if e.Name() != s.backup && !related(filepath.Base(s.path), e.Name()) {
				continue
			}
			if in := f.generation(s, path); in != nil {
				found = append(found, in)
			}
			break
		}
	}
	slices.SortFunc(found, func(a, b *inode) int { return cmp.Compare(a.id.Born, b.id.Born) })
	for _, in := range found {
		f.event(Event{Kind: Recovered, Source: in.src.path, Detail: "a generation that came and went between two looks: " + in.at})
		f.drain(in)
	}
}

func (f *Files) generation(s *source, path string) *inode {
	st, err := statPath(path)
	if err != nil || !st.regular() || st.size == 0 || st.since() <= s.Low {
		return nil
	}
	fd, id, _, err := openFile(path)
	if err != nil {
		return nil
	}
	if _, ok := f.known[id]; ok || f.inodes[id] != nil || f.isCopy(fd, s) {
		unix.Close(fd)
		return nil
	}
	s.opened++
	return f.adopt(fd, id, s)
}

// recover finds the files of the run before that have lost their names since,
// and the generations that were born and rotated away meanwhile.
func (f *Files) recover() {
	names := map[string]bool{}
	for _, p := range f.saved {
		names[p.Path] = true
	}
	for _, in := range f.inodes {
		names[in.src.path] = true
	}
	if f.first {
		return
	}
	rest := slices.SortedFunc(maps.Values(f.saved), func(a, b position) int { return cmp.Compare(a.Born, b.Born) })
	for _, p := range rest {
		s := f.source(p.Path)
		s.began(p.Head)
		f.reunite(p, s)
		f.forget(s)
	}
	clear(f.saved)
	for _, path := range slices.Sorted(maps.Keys(names)) {
		s := f.source(path)
		f.generations(filepath.Dir(path), []*source{s})
		f.unpackNew(s, "a generation that came and went while not running")
		f.forget(s)
	}
}

// reunite finds the file of a position that is not behind its name any more.
func (f *Files) reunite(p position, s *source) {
	var more []string
	if p.At != "" {
		more = append(more, filepath.Dir(p.At))
	}
	for _, path := range f.neighbours(s, more...) {
		st, err := statPath(path)
		if err != nil || st.ino != p.Ino || st.dev != p.Dev || !st.regular() {
			continue
		}
		fd, id, _, err := openFile(path)
		if err != nil {
			continue
		}
		if id != p.id() || f.inodes[id] != nil {
			unix.Close(fd)
			continue
		}
		in := f.adopt(fd, id, s)
		p.apply(in)
		f.event(Event{Kind: Rotated, Source: p.Path, Detail: "while not running, to " + path})
		f.drain(in)
		return
	}
	if p.Copy || p.Copied {
		return
	}
	if f.findCompressed(p, s) == "" {
		f.event(Event{Kind: Lost, Source: p.Path, Detail: "what was written to it since the last run is gone with it"})
	}
}

// findCompressed finds p's text in a compressed file, hands over what follows
// it, and says where it was.
func (f *Files) findCompressed(p position, s *source) string {
	for _, path := range f.neighbours(s) {
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
	heads := slices.Clone(s.heads)
	for _, in := range f.inodes {
		if in.src == s {
			heads = append(heads, in.head)
		}
	}
	for _, p := range f.known {
		if p.Path == s.path {
			heads = append(heads, p.Head)
		}
	}
	after := s.Packed
	for _, path := range f.neighbours(s) {
		st, err := statPath(path)
		if err != nil || !isCompressed(path) || st.changed <= after || !related(filepath.Base(s.path), filepath.Base(path)) {
			continue
		}
		seen := func(h head) bool {
			return len(h.Text) > 0 && packed(path, func(r io.Reader) error { return expect(r, h.At, h.Text) }) == nil
		}
		if slices.ContainsFunc(heads, seen) {
			continue
		}
		if begin, err := f.unpack(position{}, s, path); err == nil {
			found++
			s.Packed = max(s.Packed, st.changed)
			s.began(begin)
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
	err = packed(path, func(r io.Reader) error { return expect(r, p.Head.At, p.Head.Text) })
	if err != nil {
		return begin, err
	}
	err = packed(path, func(r io.Reader) error {
		if err := expect(r, p.Off-int64(len(p.Window)), p.Window); err != nil {
			return err
		}
		fill := 0
		for {
			n, err := io.ReadFull(r, f.buf[fill:])
			text := f.buf[:fill+n]
			if begin.Text == nil {
				begin = head{p.Off, slices.Clone(text[:min(windowSize, len(text))])}
			}
			if err != nil { // the end, or as far as it can be read
				if len(text) > 0 {
					f.give(s, text, false)
				}
				return nil
			}
			k := cut(text, false)
			f.give(s, text[:k], false)
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

// packed reads a compressed file, going by its ending.
func packed(path string, read func(io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	switch filepath.Ext(path) {
	case ".gz":
		r, err := gzip.NewReader(file)
		if err != nil {
			return err
		}
		return read(r)
	case ".zst":
		r, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return err
		}
		defer r.Close()
		return read(r)
	}
	return fmt.Errorf("%s: only .gz and .zst are searched", path)
}
