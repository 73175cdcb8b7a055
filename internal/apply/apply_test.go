package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/host"
	"qwatch/internal/testbed"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

var names = []string{"uwsgi", "uwsgi-core"}

func TestMain(m *testing.M) { testbed.Main(testbed.Shared(m, 5)) }

// quick is an Applier that watches for less long what a reload has made.
func quick(u Units) *Applier {
	a := New(names, u)
	a.leastWatch, a.moreWatch = 500*time.Millisecond, 5*time.Second
	return a
}

// do acts with nothing but what the action says. What is reloaded has a client
// meanwhile.
func do(t *testing.T, a remediate.Action) remediate.Outcome {
	t.Helper()
	if r, ok := a.(remediate.Reload); ok {
		defer visit(t, r.Socket.Address)()
	}
	return quick(nil).Apply(t.Context(), a)
}

// show is a result as one line.
func show(r remediate.Outcome) string {
	s := fmt.Sprintf("%s %d", r.Result, r.Now)
	if r.Note != "" {
		s += " (" + r.Note + ")"
	}
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s
}

// wantResult compares the beginning of show, and each further part with what
// is in it.
func wantResult(t *testing.T, r remediate.Outcome, begin string, parts ...string) {
	t.Helper()
	got := show(r)
	if !strings.HasPrefix(got, begin) {
		t.Errorf("result %q, want %q…", got, begin)
	}
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("result %q, want %q in it", got, p)
		}
	}
	if (r.Err != nil) != (r.Result == remediate.Stale || r.Result == remediate.Failed) {
		t.Errorf("result %q: status and error do not fit", got)
	}
}

// as runs f on a thread of its own with just these capabilities and this user.
// The thread ends with f.
func as(t *testing.T, uid int, capabilities []int, f func()) {
	t.Helper()
	testbed.Needs(t, "root")
	onThread(t, func() error {
		// Not unix.Setresuid: that changes all threads.
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return err
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			return e
		}
		var data [2]unix.CapUserData
		for _, c := range capabilities {
			data[c/32].Permitted |= 1 << (c % 32)
			data[c/32].Effective |= 1 << (c % 32)
		}
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
			return err
		}
		// As after the execve(2) of a service, /proc/self is its own.
		return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	}, f)
}

// onThread runs prepare and f on a thread that ends with them.
func onThread(t *testing.T, prepare func() error, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		defer close(done)
		if err := prepare(); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestApplyEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := New(nil, nil).Apply(ctx, remediate.SetSysctl{Key: "net.core.somaxconn", From: 128, To: 1024})
	if r.Result != remediate.Failed || !errors.Is(r.Err, context.Canceled) {
		t.Errorf("with an ended context: %s", show(r))
	}
	wantResult(t, do(t, nil), "failed -1: unknown action")
}

// observe is what the host shows.
func observe(t *testing.T) facts.Snapshot {
	t.Helper()
	h, err := host.New(host.Options{Processes: names, Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	snapshot, err := h.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// socketOf is the socket at addr as Observe shows it.
func socketOf(t *testing.T, addr string) facts.Socket {
	t.Helper()
	snapshot := observe(t)
	i := slices.IndexFunc(snapshot.Sockets, func(s facts.Socket) bool { return s.Address == addr })
	if i < 0 {
		t.Fatalf("no socket %s in %+v", addr, snapshot.Sockets)
	}
	return snapshot.Sockets[i]
}

// eventually asks until the answer is "", for as long as the machine may need.
func eventually(t *testing.T, ask func() string) {
	t.Helper()
	answer := ""
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if answer = ask(); answer == "" {
			return
		}
	}
	t.Fatal("after 15 s still: ", answer)
}

// inside runs f in a network namespace of its own and goes back. lo is down
// there, but a socket can listen.
func inside(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	defer func() {
		// Else the thread stays locked, and ends with the test.
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err == nil {
			runtime.UnlockOSThread()
		}
	}()
	f()
}

// somaxconn sets it for the time of the test.
func somaxconn(t *testing.T, n int) {
	t.Helper()
	testbed.Needs(t, "namespace")
	if err := testbed.SetSomaxconn(n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := testbed.SetSomaxconn(testbed.StartSomaxconn); err != nil {
			t.Error(err)
		}
	})
}
