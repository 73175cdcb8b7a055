package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
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

func idOf(st *unix.Stat_t) FileID { return FileID{st.Dev, st.Ino} }

// IDOf is that of a file as qwatch sees it, and whether it is a FIFO. A symbolic
// link is an error: qwatch would not write through it.
func IDOf(path string) (id FileID, fifo bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return id, false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return id, false, fmt.Errorf("%s is a symbolic link, and qwatch follows none; name the file behind it", path)
	}
	return idOf(&st), st.Mode&unix.S_IFMT == unix.S_IFIFO, nil
}

// Find finds a file of whatever kind below the root, and opens none.
func (r Root) Find(path string) (id FileID, err error) {
	err = r.walk(path, toNothing, nil, func(_ int, _ string, st *unix.Stat_t) error {
		id = idOf(st)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return unix.EISDIR
		}
		return nil
	})
	if err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return id, err
}

// open opens a regular file for reading.
func (r Root) open(path string) (int, error) {
	var end int
	err := r.walk(path, toRead, nil, func(fd int, _ string, st *unix.Stat_t) (err error) {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			return unix.EISDIR
		case unix.S_IFREG:
			end, err = bounded.Reopen(fd)
			return r.blind(err)
		}
		return bounded.ErrNotRegular
	})
	if err != nil {
		return -1, err
	}
	return end, nil
}

// walk goes along a path, by components, and follows links by itself, so that an
// absolute link and ".." stay below root. on is told of each folder and link on
// the way, and end what the path has led to, which the process must be allowed
// want of. openat2(2) would do that in one call, but systemd answers it with
// ENOSYS in a unit with RestrictSUIDSGID= (src/shared/seccomp-util.c).
func (r Root) walk(path string, want uint32, on func(name string, st, above *unix.Stat_t), end func(fd int, path string, st *unix.Stat_t) error) error {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// From root to where the walk is.
	dirs, stats, names := []int{r.fd}, make([]unix.Stat_t, 1), []string{}
	defer func() {
		for _, fd := range dirs[1:] {
			unix.Close(fd)
		}
	}()
	up := func(to int) {
		for _, fd := range dirs[to:] {
			unix.Close(fd)
		}
		dirs, stats, names = dirs[:to], stats[:to], names[:to-1]
	}
	here := func() string { return "/" + strings.Join(names, "/") }
	if err := r.check(r.fd, toSearch, &stats[0]); err != nil {
		return err
	}
	links := 0
	for left := parts(path); len(left) > 0; {
		name := left[0]
		left = left[1:]
		if name == ".." {
			up(max(1, len(dirs)-1))
			continue
		}
		fd, err := unix.Openat(dirs[len(dirs)-1], name, flags, 0)
		if err != nil {
			return r.blind(err)
		}
		dirs, stats, names = append(dirs, fd), append(stats, unix.Stat_t{}), append(names, name)
		st, above := &stats[len(stats)-1], &stats[len(stats)-2]
		if len(dirs) > maxNested {
			return unix.ENAMETOOLONG
		}
		last := want
		if len(left) > 0 {
			last = toSearch
		}
		if err := r.check(fd, last, st); err != nil {
			return err
		}
		switch kind := st.Mode & unix.S_IFMT; {
		case kind == unix.S_IFLNK:
			if links++; links > maxLinks {
				return unix.ELOOP
			}
			if on != nil {
				on(here(), st, above)
			}
			to, err := readLink(fd)
			if err != nil {
				return err
			}
			up(len(dirs) - 1)
			if strings.HasPrefix(to, "/") {
				up(1)
			}
			left = append(parts(to), left...)
		case kind == unix.S_IFDIR:
			if on != nil {
				on(here(), st, above)
			}
		case len(left) > 0:
			return unix.ENOTDIR
		}
	}
	return end(dirs[len(dirs)-1], here(), &stats[len(stats)-1])
}

// ErrBlind says that qwatch itself lacks the right to look, which is no word on what
// the process would find there.
var ErrBlind = errors.New("qwatch itself may not look there")

// blind is the error of a call of qwatch's own, before which it was checked that the
// process may do the same.
func (r Root) blind(err error) error {
	if r.as != nil && errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrBlind, err)
	}
	return err
}

// parts are the components of a path that lead anywhere.
func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// readLink reads where a link leads that is open as fd.
func readLink(fd int) (string, error) {
	to := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", to)
	return string(to[:max(0, n)]), err
}

// check looks at what the walk has come to: whether the process may search it, or
// do what is wanted with it where it is no folder, and whether it is a file at
// all. A link needs no right.
func (r Root) check(fd int, want uint32, st *unix.Stat_t) error {
	if err := unix.Fstat(fd, st); err != nil {
		return err
	}
	var mount unix.Statfs_t
	if err := unix.Fstatfs(fd, &mount); err != nil {
		return err
	}
	if kernelsOwn[int64(mount.Type)] {
		return errKernelsOwn
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case r.as == nil || kind == unix.S_IFLNK || kind != unix.S_IFDIR && want == toNothing:
		return nil
	case kind == unix.S_IFDIR:
		return r.as.may(toSearch, fd, st)
	case want == toRun && st.Mode&0o111 == 0: // nobody's right stands in for it
		return unix.EACCES
	default:
		return r.as.may(want, fd, st)
	}
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
