package apply

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/remediate"
	"qwatch/remediate/facts"
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
				return do(t, remediate.Relisten{Socket: s, From: from, To: to, Undo: undo})
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
			wantResult(t, do(t, remediate.Relisten{Socket: s, From: 100, To: 1024}), "stale -1: "+tt.want)
			wantLimit(t, u.Address, 100)
		})
	}
	t.Run("uWSGI restarted", func(t *testing.T) {
		u.Stop()
		again := testbed.Run(t, testbed.Options{Address: u.Address})
		wantResult(t, do(t, remediate.Relisten{Socket: s, From: 100, To: 1024}), "stale -1: uWSGI")
		wantLimit(t, again.Address, 100)
	})
}

func TestRelistenRights(t *testing.T) {
	testbed.Needs(t, "root", "uwsgi", "ss")
	somaxconn(t, 4096)
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5220", User: "nobody"})
	s := socketOf(t, u.Address)
	act := func() remediate.Outcome {
		return do(t, remediate.Relisten{Socket: s, From: 100, To: 1024})
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
		wantResult(t, do(t, remediate.Relisten{Socket: s, From: 1024, To: 2048}), "applied 2048")
	})
	wantLimit(t, u.Address, 2048)
}

// A container's uWSGI: somaxconn of its own namespace counts.
func TestRelistenInAnotherNamespace(t *testing.T) {
	testbed.Needs(t, "root", "uwsgi")
	somaxconn(t, 128)
	inside(t, func() {
		if err := testbed.SetSomaxconn(512); err != nil {
			t.Fatal(err)
		}
		testbed.Run(t, testbed.Options{Address: "0.0.0.0:5230"})
	})
	s := socketOf(t, "0.0.0.0:5230")
	if !s.OtherNetNS {
		t.Fatalf("not in another namespace: %+v", s)
	}
	wantResult(t, do(t, remediate.Relisten{Socket: s, From: 100, To: 1024}), "failed 100: net.core.somaxconn of the socket's network namespace is 512")
	wantResult(t, do(t, remediate.Relisten{Socket: s, From: 100, To: 512}), "applied 512")
}

// A container's somaxconn is raised inside its namespace, and only there.
func TestRaiseInNamespace(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "root")
	var there *testbed.UWSGI
	inside(t, func() {
		if err := testbed.SetSomaxconn(256); err != nil {
			t.Fatal(err)
		}
		there = testbed.Run(t, testbed.Options{Address: "127.0.0.1:5201", Listen: 200, Workers: 1})
	})
	snapshot := observe(t)
	s := snapshot.Sockets[slices.IndexFunc(snapshot.Sockets, func(s facts.Socket) bool { return s.Master.PID == there.Pid })]
	set := remediate.SetSysctl{Key: "net.core.somaxconn", From: 256, To: 1024, NetNSOf: s.Master}
	for _, want := range []string{"applied 1024", "skipped 1024 (net.core.somaxconn already is 1024)"} {
		if got := show(do(t, set)); got != want {
			t.Errorf("%s: %s, want %s", set, got, want)
		}
	}
	if got := show(do(t, remediate.Relisten{Socket: s, From: 200, To: 1024})); got != "applied 1024" {
		t.Errorf("relisten: %s", got)
	}
	if n, err := testbed.Somaxconn(); n != testbed.StartSomaxconn || err != nil {
		t.Errorf("somaxconn of the own namespace is %d, %v", n, err)
	}
	there.Stop()
	if got := show(do(t, set)); !strings.HasPrefix(got, "stale") {
		t.Errorf("after its end: %s", got)
	}
}

// A process that calls listen(2) all the time works against the raise. That is
// no failure, after which a reload would be due.
func TestRelistenAgainstTheProcess(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil { // any abstract name
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	netns, err := kernel.OpenNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	self, err := kernel.ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var rivals sync.WaitGroup
	for range 4 {
		rivals.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					unix.Listen(fd, 1)
				}
			}
		})
	}
	defer rivals.Wait()
	defer close(stop)
	s := facts.Socket{
		ID: facts.SocketID{NetNS: netns.ID, Inode: st.Ino}, Family: facts.Unix, Address: "@any", FD: fd,
		Master: facts.Process{PID: os.Getpid(), Start: self.Start},
	}
	for range 2000 {
		switch r := relisten(remediate.Relisten{Socket: s, From: 1, To: 100}); r.Result {
		case remediate.Failed:
			t.Fatalf("failed: %v", r.Err)
		case remediate.Stale:
			return
		}
	}
	t.Log("the process never came in between")
}

// A process that has changed is told from a right that is missing.
func TestWhyNoDescriptor(t *testing.T) {
	for errno, want := range map[error]string{
		unix.ENOSYS: "pidfd_getfd: function not implemented; needs Linux 5.6, and no seccomp filter against it",
		unix.EPERM:  "pidfd_getfd of process 7: operation not permitted; needs CAP_SYS_PTRACE",
		unix.EBADF:  "the descriptor of uWSGI 7 is closed: changed since the plan",
		unix.ESRCH:  "uWSGI 7 has ended: changed since the plan",
		unix.EMFILE: "pidfd_getfd of process 7: too many open files",
	} {
		if got := whyNoDescriptor(7, errno).Error(); !strings.HasPrefix(got, want) {
			t.Errorf("%v: got %q, want %q", errno, got, want)
		}
	}
}
