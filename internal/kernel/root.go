package kernel

import (
	"cmp"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is the directory that a process, or qwatch itself, takes for /.
type Root struct{ fd int }

// OpenRoot opens qwatch's own root.
func OpenRoot() (Root, error) { return openRoot("/") }

// OpenRootOf opens the root of a process; that of another user's needs
// CAP_SYS_PTRACE, as the error says.
func OpenRootOf(pid int) (Root, error) {
	r, err := openRoot(procPath(pid, "root"))
	return r, Explain(ReadRoot, "", err)
}

func openRoot(path string) (Root, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Root{-1}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return Root{fd}, nil
}

// Close gives the root back.
func (r Root) Close() error { return unix.Close(r.fd) }

// maxFile is more than any uWSGI configuration has.
const maxFile = 1 << 20

// ReadFile reads a file below the root, of 1 MiB at most. Its links lead nowhere
// else, and it is a regular file: a container must not make qwatch read the
// host's files, or wait on a FIFO. It blocks while the file system does not
// answer.
func (r Root) ReadFile(path string) ([]byte, error) {
	fd, err := openBelow(r.fd, path)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("not a regular file of a configuration's size")}
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

const (
	// maxLinks is how many symbolic links one path may hold, as in the kernel
	// (MAXSYMLINKS, include/linux/namei.h).
	maxLinks = 40
	// maxNested is how many directories deep a file may lie: each is held open.
	maxNested = 128
)

// openBelow opens a regular file for reading. It walks the path by components
// and follows links by itself, so that an absolute link and ".." stay below
// root. openat2(2) would do that in one call, but systemd answers it with ENOSYS
// in a unit with RestrictSUIDSGID= (src/shared/seccomp-util.c).
func openBelow(root int, path string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dirs := []int{root} // from root to where the walk is
	defer func() {
		for _, fd := range dirs[1:] {
			unix.Close(fd)
		}
	}()
	links := 0
	for left := strings.Split(path, "/"); len(left) > 0; {
		name, here := left[0], dirs[len(dirs)-1]
		left = left[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(dirs) > 1 {
				unix.Close(here)
				dirs = dirs[:len(dirs)-1]
			}
			continue
		}
		fd, err := unix.Openat(here, name, flags, 0)
		if err != nil {
			return -1, err
		}
		if dirs = append(dirs, fd); len(dirs) > maxNested {
			return -1, unix.ENAMETOOLONG
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return -1, err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
		case unix.S_IFREG:
			if len(left) > 0 {
				return -1, unix.ENOTDIR
			}
			return reopen(here, name, st)
		case unix.S_IFLNK:
			if links++; links > maxLinks {
				return -1, unix.ELOOP
			}
			to := make([]byte, unix.PathMax)
			n, err := unix.Readlinkat(fd, "", to)
			if err != nil {
				return -1, err
			}
			unix.Close(fd)
			dirs = dirs[:len(dirs)-1]
			if n > 0 && to[0] == '/' {
				for _, fd := range dirs[1:] {
					unix.Close(fd)
				}
				dirs = dirs[:1]
			}
			left = append(strings.Split(string(to[:n]), "/"), left...)
		default:
			return -1, errNotRegular
		}
	}
	return -1, unix.EISDIR
}

var errNotRegular = errors.New("not a regular file")

// reopen opens for reading what was found as name in a directory. What has that
// name by now may be something else.
func reopen(dir int, name string, found unix.Stat_t) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Dev != found.Dev || st.Ino != found.Ino {
		unix.Close(fd)
		return -1, cmp.Or(err, error(unix.ESTALE))
	}
	return fd, nil
}
