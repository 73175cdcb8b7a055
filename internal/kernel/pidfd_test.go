package kernel

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

func TestMayWriteIn(t *testing.T) {
	testbed.Needs(t, "namespace")
	good, fixed := t.TempDir(), t.TempDir()
	if err := unix.Mount("testbed", fixed, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(fixed, 0)
	for dir, want := range map[string]string{
		good:                        "",
		"/proc":                     "", // has no O_TMPFILE, but root may write
		fixed:                       "read-only file system; mounted read-only, or not in ReadWritePaths= of the service",
		filepath.Join(good, "none"): "no such file or directory; make the directory",
	} {
		err := MayWriteIn(dir)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", dir, err, want)
		}
	}
	left, err := filepath.Glob(filepath.Join(good, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The times of a file are not set where its file system is mounted read-only.
func TestMayTouch(t *testing.T) {
	testbed.Needs(t, "namespace")
	dir := t.TempDir()
	if err := unix.Mount("testbed", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	file := filepath.Join(dir, "touch")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := MayTouch(file); err != nil {
		t.Error(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := MayTouch(file); err == nil || !strings.HasSuffix(err.Error(), "read-only file system; mounted read-only, or not in ReadWritePaths= of the service (the drop-in reload-by-file.conf)") {
		t.Errorf("read-only: %v", err)
	}
}

// A process that has ended lacks no right.
func TestMayOnEnded(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	pid := ended.ProcessState.Pid()
	for name, err := range map[string]error{
		"MayTakeDescriptor": MayTakeDescriptor(pid, 0), "MaySignal": MaySignal(pid),
	} {
		if !errors.Is(err, unix.ESRCH) || strings.Contains(err.Error(), "needs") {
			t.Errorf("%s: %v, want no such process", name, err)
		}
	}
}

// A filter against a call shows on qwatch's own process and socket, where no
// right is needed.
func TestFilteredCalls(t *testing.T) {
	all := func() string {
		take, signal := MayCallPidfd()
		var said []string
		for _, err := range []error{MayListen(), take, signal} {
			if err != nil {
				said = append(said, err.Error())
			}
		}
		return strings.Join(said, "\n")
	}
	for call, want := range map[string]string{
		"none":              "",
		"listen":            "listen of a socket of its own: operation not permitted; needs no seccomp filter against it",
		"pidfd_getfd":       "pidfd_getfd of qwatch itself: operation not permitted; needs no seccomp filter against it",
		"pidfd_send_signal": "pidfd_send_signal to qwatch itself: operation not permitted; needs no seccomp filter against it",
	} {
		number, filtered := map[string]uint32{"listen": unix.SYS_LISTEN, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL}[call]
		got := make(chan string)
		go func() {
			runtime.LockOSThread() // the thread, and its filter, end with the goroutine
			if filtered {
				if err := refuse(number); err != nil {
					got <- err.Error()
					return
				}
			}
			got <- all()
		}()
		if said := <-got; said != want {
			t.Errorf("%s: got %q, want %q", call, said, want)
		}
	}
}

// refuse makes a system call fail with EPERM in the calling thread (seccomp(2)).
func refuse(number uint32) error {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equals = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: 0}, // struct seccomp_data, nr
		{Code: equals, Jf: 1, K: number},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
