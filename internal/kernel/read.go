// Package kernel shows what Linux tells of processes, sockets and network
// namespaces, through /proc and sock_diag, and says which right is missing where
// it tells nothing. It changes nothing, and knows nothing of uWSGI.
package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// SysctlDir is where the kernel parameters stand; those of net are those of the
// opening thread's network namespace.
const SysctlDir = "/proc/sys/"

// buffer is larger than the text of any file of /proc whose length no process
// chooses, but for the group list of /proc/PID/status.
type buffer [64 << 10]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// read reads a file of /proc.
func read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return readAt0(fd, path)
}

// readAt0 reads an open file of /proc from its start with one pread(2): each
// further one would make the kernel write the whole text again (seq_read_iter).
func readAt0(fd int, path string) ([]byte, error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return bytes.Clone(buf[:n]), nil
}

// ErrCut is the error of a text that is longer than what is read of it.
var ErrCut = fmt.Errorf("it is longer than %d bytes, of which no more are read", maxList)

// maxList is how much is read of a text whose length its process chooses
// (prctl(2), PR_SET_MM_MAP), and maxItems of how many pieces: uWSGI is not
// started with more, and there may be thousands of such processes.
const (
	maxList  = 256 << 10
	maxItems = 8192
)

// Args are the command line of a process, which the kernel shows to everybody.
// The process may have written over it. The read blocks while the process holds
// the lock of its memory.
func Args(pid int) ([]string, error) { return list(procPath(pid, "cmdline")) }

// Environ is the environment that a process was started with, "K=V". That of
// another user's process needs CAP_SYS_PTRACE. It blocks as Args does.
func Environ(pid int) ([]string, error) { return list(procPath(pid, "environ")) }

// list reads texts that each end in a NUL. The error is ErrCut where there are
// more of them than are read.
func list(path string) ([]string, error) {
	b, err := bounded.ReadFile(path, maxList)
	var more *bounded.TooMuchError
	switch {
	case errors.As(err, &more):
		return nil, fmt.Errorf("%s: %w", path, ErrCut)
	case err != nil:
		return nil, err
	}
	b = bytes.TrimSuffix(b, []byte{0})
	if bytes.Count(b, []byte{0}) >= maxItems {
		return nil, fmt.Errorf("%s: more than %d pieces: %w", path, maxItems, ErrCut)
	}
	if len(b) == 0 {
		return nil, nil
	}
	return strings.Split(string(b), "\x00"), nil
}

// Sysctl reads a kernel parameter that is one number, by its path below
// /proc/sys.
func Sysctl(path string) (int, error) {
	b, err := read(SysctlDir + path)
	if err != nil {
		return -1, err
	}
	b = bytes.TrimSpace(b)
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return -1, fmt.Errorf("%s holds %q, not one number", SysctlDir+path, b)
	}
	return n, nil
}

// field finds the value of a line "name:\tvalue", as /proc/PID/status and
// fdinfo have them.
func field(text []byte, name string) ([]byte, error) {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok && len(rest) > 0 && rest[0] == ':' {
			return bytes.TrimSpace(rest[1:]), nil
		}
	}
	return nil, errors.New("no line " + name)
}

func procPath(pid int, file string) string { return "/proc/" + strconv.Itoa(pid) + "/" + file }
