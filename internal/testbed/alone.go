package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// MainAlone is Main with a process table of their own for the tests, which are
// process 1 there: the sockets of every uWSGI on the host are qwatch's business,
// and other tests start some at the same time.
func MainAlone(m interface{ Run() int }) { Main(alone{m}) }

type alone struct{ m interface{ Run() int } }

func (a alone) Run() int {
	if os.Getpid() == 1 {
		if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, "mounting /proc:", err)
			return 1
		}
		return a.m.Run()
	}
	if os.Getenv(stateEnv) != entered {
		return a.m.Run() // every test is skipped and says why
	}
	runtime.LockOSThread() // Pdeathsig follows the thread (prctl(2))
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Args[0] = os.Args[0]
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := again.Run()
	if code := again.ProcessState.ExitCode(); code > 0 {
		return code // its tests have said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests in a process table of their own:", err)
		return 1
	}
	return 0
}

// Build builds qwatch where any user can start it. The caller deletes the
// folder that it is in.
func Build() (program string, err error) {
	dir, err := os.MkdirTemp("", "qwatch-built-")
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "qwatch")
	build := exec.Command("go", "build", "-o", program, "qwatch/cmd/qwatch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err = os.Chmod(dir, 0o755); err == nil {
		var out []byte
		if out, err = build.CombinedOutput(); err != nil {
			err = fmt.Errorf("building qwatch: %w\n%s", err, out)
		}
	}
	if err != nil {
		os.RemoveAll(dir)
	}
	return program, err
}
