package file

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// identity tells one inode from every other one, also from a later one that
// was given the same number: ext4 gives a freed number out again at once, but
// never with the same birth time and handle. Where a file system has neither,
// both are zero, and the text around the position decides (inode.intact).
type identity struct {
	Dev, Ino uint64
	Born     int64  // birth time in Unix nanoseconds (statx), 0 if unknown
	Handle   string // name_to_handle_at(2), "" if unknown
}

// facts is what statx(2) says of a file.
type facts struct {
	dev, ino      uint64
	born, changed int64 // birth and last write in Unix nanoseconds
	size          int64
	mode          uint32
	uid           uint32 // whose it is
}

func (s facts) regular() bool { return s.mode&unix.S_IFMT == unix.S_IFREG }
func (s facts) pipe() bool    { return s.mode&unix.S_IFMT == unix.S_IFIFO }

// since is when the file's text began, as well as the file system knows.
func (s facts) since() int64 {
	if s.born != 0 {
		return s.born
	}
	return s.changed
}

func statPath(path string) (facts, error) { return statx(unix.AT_FDCWD, path, 0) }
func statFD(fd int) (facts, error)        { return statx(fd, "", unix.AT_EMPTY_PATH) }

func statx(dir int, path string, flags int) (facts, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, path, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return facts{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	s := facts{
		dev:     unix.Mkdev(st.Dev_major, st.Dev_minor),
		ino:     st.Ino,
		changed: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec),
		size:    int64(st.Size),
		mode:    uint32(st.Mode),
		uid:     st.Uid,
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		s.born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return s, nil
}

// identify names the inode behind fd.
func identify(fd int) (identity, facts, error) {
	s, err := statFD(fd)
	if err != nil {
		return identity{}, s, err
	}
	id := identity{Dev: s.dev, Ino: s.ino, Born: s.born}
	if h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH); err == nil {
		id.Handle = string(h.Bytes())
	}
	return id, s, nil
}

var errNotRegular = errors.New("not a regular file")

// openFile opens a regular file for reading without ever waiting, and names
// what it got. To open a device may do something (a watchdog starts, a tape
// rewinds), and path may lead to one by now: so it is held before it is opened.
func openFile(path string) (fd int, id identity, s facts, err error) {
	held, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, id, s, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(held)
	if s, err = statFD(held); err == nil && !s.regular() {
		err = &os.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return -1, id, s, err
	}
	fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(held), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, id, s, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if id, s, err = identify(fd); err != nil {
		unix.Close(fd)
		return -1, id, s, err
	}
	return fd, id, s, nil
}

// gone says that a path does not exist, as opposed to not being readable.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

func isSymlink(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&os.ModeSymlink != 0
}
