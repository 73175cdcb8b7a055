package file

import (
	"bytes"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// lineage is what is known of the files that a name led to before.
type lineage struct {
	done
	backup         string // the base name under which a rotation put the last one
	heads          []head // how the last ones began
	births, opened int    // files that were born under the name, and those of them that were opened
}

// maxHeads is how many generations a lineage remembers.
const maxHeads = 8

// add remembers how one of the files began.
func (l *lineage) add(h head) {
	if len(h.Text) > 0 {
		l.heads = append(l.heads[max(0, len(l.heads)-maxHeads+1):], h)
	}
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

// isOriginal says whether a file that may be a copy is none, and so to be read.
// A copy in the making is empty, or the beginning of the original.
func (f *Files) isOriginal(in *inode) bool {
	if f.isCopy(in.fd, in.copyOf) {
		return false
	}
	in.copyOf = nil
	return true
}

// isCopy says whether the file begins like s does or did, or is still empty.
func (f *Files) isCopy(fd int, s *source) bool {
	if st, err := statFD(fd); err != nil || st.size == 0 {
		return true
	}
	heads := s.lineage.heads
	if o := s.inode; o != nil {
		now := readHead(o.fd)
		if len(o.head.Text) == 0 { // so that holds knows it, should o be cut now
			o.off, o.head, o.window = now.At, now, make([]byte, min(now.At, windowSize))
		}
		heads = append(heads[:len(heads):len(heads)], o.head, now)
	}
	if s.elsewhere != (identity{}) {
		heads = append(heads[:len(heads):len(heads)], f.shared.headsOf(s.elsewhere)...)
		if fd, id, _, err := openFile(s.path); err == nil {
			if id == s.elsewhere {
				heads = append(heads, readHead(fd))
			}
			unix.Close(fd)
		}
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
