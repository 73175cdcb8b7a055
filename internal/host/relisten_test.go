package host

import (
	"fmt"
	"os"
	"path/filepath"
	"qwatch/remediate/facts"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
	"qwatch/remediate"
)

func wantLimit(t *testing.T, addr string, want int) {
	t.Helper()
	if _, limit, err := testbed.Queue(addr); err != nil || limit != want {
		t.Errorf("limit of %s = %d, %v, want %d", addr, limit, err, want)
	}
}

func TestRelisten(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "ss")
	for _, addr := range []string{"127.0.0.1:5200", "[::1]:5200", filepath.Join(t.TempDir(), "app.sock"), "@qwatch-relisten"} {
		t.Run(addr, func(t *testing.T) {
			somaxconn(t, 128)
			u := testbed.Run(t, testbed.Options{Address: addr})
			s := socketOf(t, addr)
			act := func(from, to int, undo bool) remediate.Outcome {
				t.Helper()
				return apply(t, remediate.Relisten{Socket: s, From: from, To: to, Undo: undo})
			}
			wantResult(t, act(100, 1024, false), "failed 100: net.core.somaxconn of the socket's network namespace is 128")
			somaxconn(t, 4096)
			wantResult(t, act(128, 1024, false), "stale 100: the limit of "+addr+" is 100, not 128")
			wantResult(t, act(100, 64, false), "failed 100: refuses to lower")
			wantLimit(t, u.Address, 100)
			wantResult(t, act(100, 1024, false), "applied 1024")
			wantLimit(t, u.Address, 1024)
			wantResult(t, act(100, 1024, false), "skipped 1024")
			wantResult(t, act(1024, 100, true), "applied 100")
			wantLimit(t, u.Address, 100)

			s.FD = 2 // not the socket: it is found by its inode
			wantResult(t, act(100, 1024, false), "applied 1024")
			s.FD = -1
			wantResult(t, act(1024, 2048, false), "applied 2048")
			wantLimit(t, u.Address, 2048)
		})
	}
}

// Nothing is done to a socket that is another than the plan saw.
func TestRelistenStale(t *testing.T) {
	somaxconn(t, 4096)
	testbed.Needs(t, "uwsgi", "ss")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5210"})
	s := socketOf(t, u.Address)
	for _, tt := range []struct {
		name   string
		change func(*facts.Socket)
		want   string
	}{
		{"another inode", func(s *facts.Socket) { s.ID.Inode = 1 }, fmt.Sprintf("uWSGI %d no longer holds socket", u.Pid)},
		{"recycled pid", func(s *facts.Socket) { s.Master.Start-- }, fmt.Sprintf("process %d is no longer the uWSGI that it was", u.Pid)},
		{"no such process", func(s *facts.Socket) { s.Master.PID = 1 << 22 }, "uWSGI 4194304 has ended"},
		{"another namespace", func(s *facts.Socket) { s.ID.NetNS++ }, "network namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := s
			tt.change(&s)
			wantResult(t, apply(t, remediate.Relisten{Socket: s, From: 100, To: 1024}), "stale -1: "+tt.want)
			wantLimit(t, u.Address, 100)
		})
	}
	t.Run("uWSGI restarted", func(t *testing.T) {
		u.Stop()
		again := testbed.Run(t, testbed.Options{Address: u.Address})
		wantResult(t, apply(t, remediate.Relisten{Socket: s, From: 100, To: 1024}), "stale -1: uWSGI")
		wantLimit(t, again.Address, 100)
	})
}

func TestRelistenRights(t *testing.T) {
	testbed.Needs(t, "root", "uwsgi", "ss")
	somaxconn(t, 4096)
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5220", User: "nobody"})
	s := socketOf(t, u.Address)
	act := func() remediate.Outcome {
		return apply(t, remediate.Relisten{Socket: s, From: 100, To: 1024})
	}
	as(t, 1000, nil, func() {
		wantResult(t, act(), "failed -1: pidfd_getfd of process", "operation not permitted; needs CAP_SYS_PTRACE")
	})
	wantLimit(t, u.Address, 100)
	s.FD = -1 // where it may not be known
	as(t, 1000, []int{unix.CAP_SYS_PTRACE}, func() {
		wantResult(t, act(), "failed -1: find socket", "permission denied; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH")
	})
	as(t, 1000, []int{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}, func() {
		wantResult(t, act(), "applied 1024")
	})
	s = socketOf(t, u.Address)
	as(t, 1000, []int{unix.CAP_SYS_PTRACE}, func() {
		wantResult(t, apply(t, remediate.Relisten{Socket: s, From: 1024, To: 2048}), "applied 2048")
	})
	wantLimit(t, u.Address, 2048)
}

// A kernel or seccomp filter without the system calls is told from a missing
// right.
func TestExplainGetfd(t *testing.T) {
	for errno, want := range map[error]string{
		unix.ENOSYS: "pidfd_getfd: function not implemented; needs Linux 5.6, and no seccomp filter against it",
		unix.EPERM:  "pidfd_getfd of process 7: operation not permitted; needs CAP_SYS_PTRACE",
		unix.EBADF:  "the descriptor of uWSGI 7 is closed: changed since the plan",
		unix.ESRCH:  "uWSGI 7 has ended: changed since the plan",
		unix.EMFILE: "pidfd_getfd of process 7: too many open files",
	} {
		if got := explainGetfd(7, errno).Error(); !strings.HasPrefix(got, want) {
			t.Errorf("explainGetfd(%v) = %q, want %q", errno, got, want)
		}
	}
}

// A container's uWSGI: somaxconn of its own namespace counts.
func TestRelistenForeign(t *testing.T) {
	testbed.Needs(t, "root", "uwsgi")
	somaxconn(t, 128)
	runtime.LockOSThread() // uWSGI ends with this thread
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	back := func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
	}
	defer back()
	if err := testbed.SetSomaxconn(512); err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, testbed.Options{Address: "0.0.0.0:5230"})
	back()
	s := socketOf(t, "0.0.0.0:5230")
	if !s.OtherNetNS {
		t.Fatalf("not foreign: %+v", s)
	}
	wantResult(t, apply(t, remediate.Relisten{Socket: s, From: 100, To: 1024}), "failed 100: net.core.somaxconn of the socket's network namespace is 512")
	wantResult(t, apply(t, remediate.Relisten{Socket: s, From: 100, To: 512}), "applied 512")
}
