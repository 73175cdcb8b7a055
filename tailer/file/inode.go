package file

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// windowSize is how much text before the position is remembered and read again
// after each read, to see whether it is still the same file.
const windowSize = 256

// inode is one open file, whatever its names are. Only the goroutine of
// Files.Run uses it.
type inode struct {
	id  identity
	fd  int
	src *source // under whose name its text is handed over

	// names counts the followed names that lead here. At 0 the file has been
	// rotated away: it is read until it has no writer (release).
	names int

	off    int64  // start of the first byte that was not handed over
	window []byte // the windowSize bytes before off, or as many as there are
	head   head   // how its text begins, as far as it was seen
	tail   int    // bytes seen behind off
	before before // what it held before this start
	at     string // where it was seen last, "" if nowhere

	// copyOf is the source whose text this file may be a copy of (see
	// isOriginal), nil if it is none.
	copyOf *source
	// copied is true for a file made by copytruncate: half a line at its end
	// has lost its other half.
	copied bool

	moved time.Time // when text last came
	wake  wake
}

// before is what a file held before this start: so many bytes, the last of them
// written then. The zero one is nothing.
type before struct {
	size    int64
	written time.Time
}

// head is how a file's text begins: at an offset above 0 where a hole or NULs
// stand before it. Text is at most windowSize long.
type head struct {
	At   int64  `json:"at,omitempty"`
	Text []byte `json:"text,omitempty"`
}

// grewTo says whether now is h when more was seen of the same text.
func (h head) grewTo(now head) bool { return h.At == now.At && bytes.HasPrefix(now.Text, h.Text) }

// readHead finds how a file's text begins now.
func readHead(fd int) head {
	buf := make([]byte, 8<<10)
	at := int64(0)
	for range 128 { // 1 MiB of NULs that are no hole
		if data, err := unix.Seek(fd, at, unix.SEEK_DATA); err == nil {
			at = data
		}
		n, err := unix.Pread(fd, buf, at)
		if err != nil || n == 0 {
			break
		}
		text := bytes.TrimLeft(buf[:n], "\x00")
		at += int64(n - len(text))
		if len(text) > 0 {
			h := head{at, make([]byte, windowSize)}
			if n, err = unix.Pread(fd, h.Text, at); err != nil {
				n = 0
			}
			h.Text = h.Text[:n]
			return h
		}
	}
	return head{At: at}
}

// intact reads again what was read before. It fails when the file was cut,
// also when it has since grown past the old position.
func (in *inode) intact() bool {
	want, at := in.window, in.off-int64(len(in.window))
	if in.off == in.head.At && len(in.head.Text) > 0 {
		want, at = in.head.Text, in.off
	}
	if len(want) == 0 {
		return true
	}
	var buf [windowSize]byte
	n, err := unix.Pread(in.fd, buf[:len(want)], at)
	return err == nil && bytes.Equal(buf[:n], want)
}

// learn keeps the file's first bytes; text stands at off. It says whether it has
// learned something.
func (in *inode) learn(text []byte) bool {
	h := &in.head
	if have, at := int64(len(h.Text)), in.off-h.At; have < windowSize && at <= have && at+int64(len(text)) > have {
		h.Text = append(h.Text[:at:at], text[:min(int64(len(text)), windowSize-at)]...)
		return true
	}
	return false
}

// advance moves the position behind text, which stands at off.
func (in *inode) advance(text []byte) {
	in.off += int64(len(text))
	if len(text) >= windowSize {
		in.window = append(in.window[:0], text[len(text)-windowSize:]...)
		return
	}
	keep := min(len(in.window), windowSize-len(text))
	copy(in.window, in.window[len(in.window)-keep:])
	in.window = append(in.window[:keep], text...)
}

// jump sets the position to off without handing anything over.
func (in *inode) jump(off int64) error {
	start := max(0, off-windowSize)
	window := make([]byte, off-start)
	n, err := unix.Pread(in.fd, window, start)
	if err != nil {
		return err
	}
	in.head = readHead(in.fd)
	in.off, in.window = start+int64(n), window[:n]
	return nil
}

// restart sets the position to the beginning.
func (in *inode) restart() {
	in.off, in.window, in.head, in.tail, in.before = 0, nil, head{}, 0, before{}
}

// skip moves over the NULs that text begins with. A writer without O_APPEND
// (uWSGI's own rotation opens its log so) leaves a hole after copytruncate,
// which may be as large as the log was.
func (in *inode) skip(text []byte) {
	before := in.off == in.head.At
	n := len(text) - len(bytes.TrimLeft(text, "\x00"))
	in.advance(text[:n])
	if n == len(text) {
		if data, err := unix.Seek(in.fd, in.off, unix.SEEK_DATA); err == nil && data > in.off {
			in.off, in.window = data, make([]byte, windowSize)
		}
	}
	if before {
		in.head = head{At: in.off}
	}
}

// path is where the file stands now, which for one that was rotated away is
// another place than its source; "" if it stands nowhere.
func (in *inode) path() string {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", in.fd))
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return ""
	}
	return filepath.Clean(path)
}

// abandoned says whether no process has the file open for writing: only then
// does the kernel grant a read lease (fcntl(2), F_SETLEASE). known is false
// where the file is not ours and CAP_LEASE is missing.
func (in *inode) abandoned() (yes, known bool) {
	switch _, err := unix.FcntlInt(uintptr(in.fd), unix.F_SETLEASE, unix.F_RDLCK); err {
	case nil:
		unix.FcntlInt(uintptr(in.fd), unix.F_SETLEASE, unix.F_UNLCK)
		return true, true
	case unix.EAGAIN:
		return false, true
	default:
		return false, false
	}
}
