package kernel

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// Root is the directory that a process, or qwatch itself, takes for /.
type Root struct {
	fd int
	as *Credentials // whose rights count, nil for qwatch's
}

// As is the root as a process with these rights sees it: what that process may
// not read itself, nobody reads for it.
func (r Root) As(c Credentials) Root { return Root{r.fd, &c} }

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
		return Root{fd: -1}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return Root{fd: fd}, nil
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
	fd, err := r.open(path)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	b, err := bounded.ReadAll(f, maxFile)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return b, nil
}

const (
	// maxLinks is how many symbolic links one path may hold, as in the kernel
	// (MAXSYMLINKS, include/linux/namei.h).
	maxLinks = 40
	// maxNested is how many directories deep a file may lie: each is held open.
	maxNested = 128
)

// FileID tells files apart.
type FileID struct{ Dev, Ino uint64 }

// IDOf is that of a file as qwatch sees it, and whether it is a FIFO.
func IDOf(path string) (id FileID, fifo bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return id, false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return FileID{st.Dev, st.Ino}, st.Mode&unix.S_IFMT == unix.S_IFIFO, nil
}

// Find finds a file of whatever kind below the root, and opens none.
func (r Root) Find(path string) (id FileID, err error) {
	_, err = r.walk(path, func(_ int, st *unix.Stat_t) (int, error) {
		id = FileID{st.Dev, st.Ino}
		return -1, nil
	})
	if err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return id, err
}

// open opens a regular file for reading.
func (r Root) open(path string) (int, error) {
	return r.walk(path, func(fd int, st *unix.Stat_t) (int, error) {
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return -1, bounded.ErrNotRegular
		}
		if r.as != nil {
			if err := r.as.may(toRead, fd, st); err != nil {
				return -1, err
			}
		}
		return bounded.Reopen(fd)
	})
}

// walk hands the file at the end of a path over. It walks the path by components
// and follows links by itself, so that an absolute link and ".." stay below
// root. openat2(2) would do that in one call, but systemd answers it with ENOSYS
// in a unit with RestrictSUIDSGID= (src/shared/seccomp-util.c).
func (r Root) walk(path string, found func(fd int, st *unix.Stat_t) (int, error)) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dirs := []int{r.fd} // from root to where the walk is
	defer func() {
		for _, fd := range dirs[1:] {
			unix.Close(fd)
		}
	}()
	var st unix.Stat_t
	if err := r.check(r.fd, &st); err != nil {
		return -1, err
	}
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
		if err := r.check(fd, &st); err != nil {
			return -1, err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
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
			if len(left) > 0 {
				return -1, unix.ENOTDIR
			}
			return found(fd, &st)
		}
	}
	return -1, unix.EISDIR
}

// check looks at what the walk has come to: whether the process may search it, and
// whether it is a file at all. A link needs no right.
func (r Root) check(fd int, st *unix.Stat_t) error {
	if err := unix.Fstat(fd, st); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if kernelsOwn[int64(fs.Type)] {
		return errKernelsOwn
	}
	if r.as != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return r.as.may(toSearch, fd, st)
	}
	return nil
}

var errKernelsOwn = errors.New("it lies on a file system that the kernel writes, as /proc")

// kernelsOwn are the types of file systems whose files are the kernel's answers,
// some of which differ with who asks: no configuration is on them
// (include/uapi/linux/magic.h).
var kernelsOwn = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true,
	unix.SECURITYFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true, unix.BPF_FS_MAGIC: true,
	unix.SELINUX_MAGIC: true, unix.SMACK_MAGIC: true, unix.EFIVARFS_MAGIC: true, unix.PSTOREFS_MAGIC: true,
	unix.BINFMTFS_MAGIC: true, unix.DEVPTS_SUPER_MAGIC: true, unix.NSFS_MAGIC: true, 0x62656570: true, // configfs
}
