package host

import (
	"context"
	"fmt"
	"qwatch/remediate/facts"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/matcher"
	"qwatch/remediate/diagnose"
)

// watch samples a socket as the daemon does and diagnoses it each time.
type watch struct {
	t     *testing.T
	h     *Host
	addr  string
	every time.Duration

	looks    []diagnose.Moment
	readings []facts.Sample
}

func newWatch(t *testing.T, u *testbed.UWSGI) *watch {
	return &watch{t: t, h: newHost(t, options), addr: u.Address, every: 250 * time.Millisecond}
}

// next takes one sample and one look, and diagnoses.
func (w *watch) next() diagnose.Diagnosis {
	w.t.Helper()
	r, err := w.h.Sample(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.readings = append(w.readings, r...)
	snapshot := observe(w.t, w.h)
	i := slices.IndexFunc(snapshot.Sockets, func(s facts.Socket) bool { return s.Address == w.addr })
	if i < 0 {
		w.t.Fatalf("no socket %s in %+v", w.addr, snapshot.Sockets)
	}
	s := snapshot.Sockets[i]
	s.SoleListener = true // of those that take connections
	w.looks = append(w.looks, diagnose.Moment{At: snapshot.At, Booted: snapshot.Booted, Socket: s})
	last := len(w.looks) - 1
	return diagnose.Diagnose(diagnose.Input{
		Now: w.looks[last], Earlier: w.looks[:last], Samples: w.readings,
		Bounds: diagnose.Bounds{MaxBacklog: 8192, MaxWait: 10 * time.Second, Target: 1024},
	})
}

// until waits for a diagnosis of this kind, and fails on one that is in never.
func (w *watch) until(kind diagnose.Kind, never ...diagnose.Kind) diagnose.Diagnosis {
	w.t.Helper()
	var d diagnose.Diagnosis
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(w.every) {
		if d = w.next(); d.Kind == kind {
			return d
		}
		if slices.Contains(never, d.Kind) {
			break
		}
	}
	w.t.Fatalf("want %s, got %+v\nof %+v", kind, d, w.looks[len(w.looks)-1].Socket)
	return d
}

func wantReason(t *testing.T, d diagnose.Diagnosis, part string) {
	t.Helper()
	if !strings.Contains(d.Reasons[0], part) {
		t.Errorf("reason %q, want %q in it", d.Reasons[0], part)
	}
}

// flood runs until the test ends.
func flood(t *testing.T, addr string, o testbed.FloodOptions) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		testbed.Flood(ctx, addr, o)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func workers(t *testing.T, u *testbed.UWSGI) []int {
	t.Helper()
	pids, err := u.Workers()
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

func TestDiagnoseStopped(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5150", Listen: 20})
	w := newWatch(t, u)
	w.until(diagnose.Idle)
	for _, pid := range workers(t, u) {
		if err := syscall.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	flood(t, u.Address, testbed.FloodOptions{Connections: 60})
	wantReason(t, w.until(diagnose.Stall), "all 2 workers are stopped")
}

const lockApp = `
import threading, time
lock = threading.Lock()
def application(environ, start_response):
    lock.acquire()
    lock.acquire()
`

func TestDiagnoseDeadlock(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	for i, args := range [][]string{nil, {"--threads", "2"}} {
		u := testbed.Run(t, testbed.Options{Address: fmt.Sprintf("127.0.0.1:%d", 5151+i), Listen: 20, Args: args, App: lockApp})
		w := newWatch(t, u)
		flood(t, u.Address, testbed.FloodOptions{Connections: 60, Request: "/", Timeout: time.Minute})
		wantReason(t, w.until(diagnose.Stall, diagnose.Overload), "(deadlock)")
	}
}

// A stopped worker that has the thunder lock keeps it from the other, which
// has nothing to do.
func TestDiagnoseThunderLock(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5153", Listen: 20, Args: []string{"--thunder-lock"}})
	var holds int
	eventually(t, func() string { // the other may not have come to the lock yet
		holder := slices.DeleteFunc(workers(t, u), func(pid int) bool { on, _ := kernel.Threads(pid); return on == kernel.WaitsOnSharedLock })
		if len(holder) != 1 {
			return fmt.Sprintf("workers %v do not wait for the lock", holder)
		}
		holds = holder[0]
		return ""
	})
	if err := syscall.Kill(holds, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w := newWatch(t, u)
	flood(t, u.Address, testbed.FloodOptions{Connections: 60})
	wantReason(t, w.until(diagnose.Stall, diagnose.Overload), "1 of 2 workers have waited")
}

// Workers that sleep in their requests look much like stuck ones, and are not.
func TestDiagnoseSlowRequests(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	for i, app := range []string{
		"", // time.sleep
		`
import threading
def application(environ, start_response):
    threading.Event().wait(5)
    start_response("200 OK", [("Content-Length", "0")])
    return []
`, `
import concurrent.futures, time
pool = None
def application(environ, start_response):
    global pool
    pool = pool or concurrent.futures.ThreadPoolExecutor()
    pool.submit(time.sleep, 5).result()
    start_response("200 OK", [("Content-Length", "0")])
    return []
`} {
		u := testbed.Run(t, testbed.Options{Address: fmt.Sprintf("127.0.0.1:%d", 5154+i), Listen: 20, App: app,
			Args: []string{"--thunder-lock", "--enable-threads"}})
		flood(t, u.Address, testbed.FloodOptions{Connections: 60, Request: "/?ms=5000", Timeout: time.Minute})
		w := newWatch(t, u)
		w.until(diagnose.Burst, diagnose.Stall, diagnose.Respawn)
		watched := 5 * time.Second
		if i == 0 {
			watched *= 2
		}
		for end := time.Now().Add(watched); time.Now().Before(end); time.Sleep(w.every) {
			if d := w.next(); d.Kind != diagnose.Burst && d.Kind != diagnose.Overload {
				t.Fatalf("app %d: %+v\nof %+v", i, d, w.looks[len(w.looks)-1].Socket)
			}
		}
	}
}

func TestDiagnoseOverload(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5160", Listen: 20, App: `
import time
def application(environ, start_response):
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    start_response("200 OK", [("Content-Length", "0")])
    return []
`})
	w := newWatch(t, u)
	w.next()
	answered := func() int { return strings.Count(u.Log(), "[pid: ") }
	flood(t, u.Address, testbed.FloodOptions{Connections: 20000, Rate: 150, Request: "/", Timeout: time.Minute})
	before, start := answered(), time.Now()
	d := w.until(diagnose.Overload, diagnose.Stall, diagnose.Respawn)
	rate := float64(answered()-before) / time.Since(start).Seconds()
	if d.AcceptRate < 0.7*rate || d.AcceptRate > 1.3*rate {
		t.Errorf("accept rate %.1f, the log shows %.1f", d.AcceptRate, rate)
	}
	if want := int(10 * d.AcceptRate); d.MaxTarget != want || d.Wait <= 0 {
		t.Errorf("target at most %d, want %d; wait %s", d.MaxTarget, want, d.Wait)
	}
}

func TestDiagnoseBurst(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5161", Listen: 20})
	w := newWatch(t, u)
	w.every = 20 * time.Millisecond
	w.until(diagnose.Idle)
	flood(t, u.Address, testbed.FloodOptions{Connections: 60, Request: "/?ms=100", Timeout: time.Minute})
	if d := w.until(diagnose.Burst, diagnose.Stall, diagnose.Respawn, diagnose.Overload); strings.HasPrefix(d.Reasons[0], "the queue drains again") {
		t.Errorf("drained at once: %+v", d)
	}
	// The moment in which it drains may be missed; there are more bursts.
	for end := time.Now().Add(40 * time.Second); !strings.HasPrefix(w.until(diagnose.Burst).Reasons[0], "the queue drains again"); {
		if time.Now().After(end) {
			t.Fatal("the queue is not seen to drain")
		}
		if w.looks[len(w.looks)-1].Socket.Length == 0 {
			flood(t, u.Address, testbed.FloodOptions{Connections: 60, Request: "/?ms=100", Timeout: time.Minute})
		}
	}
}

func TestDiagnoseReload(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5162", Listen: 20, Workers: 4, App: `
import time
time.sleep(3)
def application(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", [("Content-Length", "0")])
    return []
`})
	w := newWatch(t, u)
	// 100 a second are half of what 4 workers can do.
	flood(t, u.Address, testbed.FloodOptions{Connections: 20000, Rate: 100, Request: "/", Timeout: time.Minute})
	w.until(diagnose.Idle)
	if err := u.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	wantReason(t, w.until(diagnose.Respawn, diagnose.Stall, diagnose.Overload), "no worker is there yet")
}

// What matcher.ScanMarks looks for is what uWSGI writes.
func TestMarksOfRealUWSGI(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5163", Args: []string{"--harakiri", "1"}})
	if _, err := testbed.StartUWSGI(t.Context(), testbed.Options{Address: "127.0.0.1:5164", Listen: 1000, LogFile: u.LogFile}); err == nil {
		t.Fatal("uWSGI starts with a listen over somaxconn")
	}
	await := func(kinds ...matcher.MarkKind) {
		t.Helper()
		var got []matcher.MarkKind
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			got = nil
			matcher.ScanMarks([]byte(u.Log()), matcher.Meta{}, func(m matcher.Mark) { got = append(got, m.Kind) })
			if !slices.ContainsFunc(kinds, func(k matcher.MarkKind) bool { return !slices.Contains(got, k) }) {
				return
			}
		}
		t.Fatalf("marks %v, want %v among them", got, kinds)
	}
	await(matcher.MarkNoStart)
	// The reload comes first: it would hang on a worker that has just started.
	if err := u.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(matcher.MarkBuried, matcher.MarkReloaded)
	flood(t, u.Address, testbed.FloodOptions{Connections: 1, Request: "/?ms=60000"})
	await(matcher.MarkHarakiri, matcher.MarkDied)
}
