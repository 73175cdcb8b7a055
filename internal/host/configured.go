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
	dir := "/proc/" + strconv.Itoa(master.PID)
	args := arguments(master.PID)
	if len(args) == 0 || !slices.Contains(h.options.Processes, filepath.Base(args[0])) {
		return 0, "", errors.New("its command line is overwritten (procname, setproctitle)")
	}
	environ, _ := os.ReadFile(dir + "/environ")
	in := uwsgiconf.Input{Args: args, Environ: split(environ)}
	if cwd, err := os.Readlink(dir + "/cwd"); err == nil {
		in.Dirs = append(in.Dirs, cwd)
	}
	for _, v := range in.Environ {
		if pwd, ok := strings.CutPrefix(v, "PWD="); ok {
			in.Dirs = append(in.Dirs, pwd)
		}
	}
	if in.Hostname, err = os.Hostname(); err != nil {
		return 0, "", err
	}
	root, err := unix.Open(dir+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		defer unix.Close(root)
	case master.Container == "":
		// Without the right to that, a uWSGI outside of containers most likely
		// has our root.
		if root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return 0, "", err
		}
		defer unix.Close(root)
	default:
		return 0, "", fmt.Errorf("open %s/root: %w; needs CAP_SYS_PTRACE", dir, err)
	}
	in.Read = func(path string) ([]byte, error) { return readBelow(root, path) }
	setting, err := uwsgiconf.Find(in)
	if err != nil {
		return 0, "", err
	}
	return setting.Listen, setting.At, nil
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
