package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/uwsgiconf"
	"qwatch/remediate"
)

// configured finds the listen backlog that the configuration of a master asks
// for, as its next start would read it, and where that stands. The error says
// why it is not known; then the backlog is 0.
func (h *Host) configured(master remediate.Process) (backlog int, at string, err error) {
	in, done := inputOf(master)
	defer done()
	if len(in.Args) == 0 || !slices.Contains(h.options.Processes, filepath.Base(in.Args[0])) {
		return 0, "", errors.New("its command line is overwritten (procname, setproctitle)")
	}
	setting, err := uwsgiconf.Find(in)
	if err != nil {
		return 0, "", err
	}
	return setting.Listen, setting.At, nil
}

// inputOf is what the next start of a running uWSGI would be configured by.
// done is called when its Read is no longer needed.
func inputOf(master remediate.Process) (in uwsgiconf.Input, done func()) {
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

// readBelow reads a file of another process' root. Its links lead nowhere else
// (RESOLVE_IN_ROOT, openat2(2)), and it is a regular file: a container must not
// make us read the host's files, or wait on a FIFO.
func readBelow(root int, path string) ([]byte, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
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

// split cuts a list of /proc/PID/cmdline or environ.
func split(list []byte) []string {
	list = bytes.TrimSuffix(list, []byte{0})
	if len(list) == 0 {
		return nil
	}
	return strings.Split(string(list), "\x00")
}
