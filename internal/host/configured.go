package host

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"qwatch/remediate/facts"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/uwsgiconf"
)

// configured finds the listen backlog that the configuration of a master asks
// for, as its next start would read it, and where that stands. The error says
// what of the configuration is not known; the backlog is 0 where it is that.
func (h *Host) configured(master facts.Process) (backlog int, at string, err error) {
	in, done := inputOf(master)
	defer done()
	if len(in.Args) == 0 || !slices.Contains(h.options.Processes, filepath.Base(in.Args[0])) {
		return 0, "", errors.New("its command line is overwritten (procname, setproctitle)")
	}
	setting, err := uwsgiconf.Find(in)
	if err != nil {
		return 0, "", err
	}
	return setting.Listen, setting.At, setting.Unread
}

// inputOf is what the next start of a running uWSGI would be configured by.
// done is called when its Read is no longer needed.
func inputOf(master facts.Process) (in uwsgiconf.Input, done func()) {
	dir := "/proc/" + strconv.Itoa(master.PID)
	environ, _ := os.ReadFile(dir + "/environ")
	in = uwsgiconf.Input{Args: arguments(master.PID), Environ: split(environ)}
	in.Hostname, _ = os.Hostname() // uname(2) does not fail
	if cwd, err := os.Readlink(dir + "/cwd"); err == nil {
		in.Dirs = append(in.Dirs, cwd)
	}
	for _, v := range in.Environ {
		if pwd, ok := strings.CutPrefix(v, "PWD="); ok {
			in.Dirs = append(in.Dirs, pwd)
		}
	}
	var err error
	in.Read, done, err = readerOf(dir + "/root")
	if err != nil && master.Container == "" {
		// Without the right to that, a uWSGI outside of containers most likely
		// has our root.
		in.Read, done, err = readerOf("/")
	}
	if err != nil {
		in.Read = func(string) ([]byte, error) { return nil, fmt.Errorf("%w; needs CAP_SYS_PTRACE", err) }
		done = func() {}
	}
	return in, done
}

// readerOf returns what reads files below a root, until done is called.
func readerOf(root string) (read func(path string) ([]byte, error), done func(), err error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	return func(path string) ([]byte, error) { return readBelow(fd, path) }, func() { unix.Close(fd) }, nil
}

// maxConfig is more than any uWSGI configuration has.
const maxConfig = 1 << 20

// readBelow reads a file of another process' root. Its links lead nowhere else,
// and it is a regular file: a container must not make us read the host's files,
// or wait on a FIFO.
func readBelow(root int, path string) ([]byte, error) {
	fd, err := openBelow(root, path)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfig {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("no regular file of a configuration's size")}
	}
	return io.ReadAll(io.LimitReader(f, maxConfig))
}

// maxLinks is how many symbolic links one path may hold, as in the kernel
// (MAXSYMLINKS, include/linux/namei.h).
const maxLinks = 40

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
		dirs = append(dirs, fd)
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

// split cuts a list of /proc/PID/cmdline or environ.
func split(list []byte) []string {
	list = bytes.TrimSuffix(list, []byte{0})
	if len(list) == 0 {
		return nil
	}
	return strings.Split(string(list), "\x00")
}
