package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

// ask lets clients come at a rate each second, each with one request, until the
// test or the returned function ends it.
func ask(t *testing.T, u *testbed.UWSGI, clients int, rate float64, request string) (stop func() testbed.FloodStats) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var stats testbed.FloodStats
	go func() {
		defer close(done)
		stats, _ = testbed.Flood(ctx, u.Address, testbed.FloodOptions{Connections: clients, Rate: rate, Request: request, Timeout: time.Minute})
	}()
	stop = func() testbed.FloodStats { cancel(); <-done; return stats }
	t.Cleanup(func() { stop() })
	return stop
}

// records is how many records of a full queue uWSGI has written.
func records(u *testbed.UWSGI) int { return strings.Count(u.Log(), " full !!! (") }

// leftAlone compares the host and the trail with nothing having been done.
func leftAlone(t *testing.T, q *qwatch, u *testbed.UWSGI, want int) {
	t.Helper()
	wantLimit(t, u, want)
	wantSomaxconn(t, testbed.StartSomaxconn)
	if events := q.trail(t); len(events) > 0 {
		t.Errorf("audit trail: %v", actions(events))
	}
}

// Stopped workers take nothing however long the queue: that is said before
// anything is raised. Once they run again it is a burst like any other.
func TestStoppedWorkers(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	pids := workers(t, u)
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	q := start(t, settings{Source: u.LogFile, Threshold: 3, Probe: "1s"})
	flood(t, u, 600, 600)
	l := q.waitFor("leaving alone ")
	if l["code"] != "stall" || !strings.Contains(fmt.Sprint(l["reason"]), "all 2 workers are stopped") {
		t.Errorf("verdict: %v: %v", l["code"], l["reason"])
	}
	q.advised(fmt.Sprintf("kill -CONT %d %d", pids[0], pids[1]))
	n := records(u)
	until(t, "three more records", func() bool { return records(u) >= n+3 })
	leftAlone(t, q, u, 100)
	if n := len(q.lines("leaving alone ")); n != 1 {
		t.Errorf("said %d times", n)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	raised(t, u, 1024)
}

// deadlocked is an app whose first request never gives its lock back.
const deadlocked = `
import threading
lock = threading.Lock()

def application(environ, start_response):
    lock.acquire()
    lock.acquire()
`

// A deadlocked app is a stall too, and that is known in time: nothing is
// raised, neither where it has been stuck for long nor where the flood itself
// sticks it.
func TestDeadlock(t *testing.T) {
	for name, before := range map[string]time.Duration{"before the flood": 3 * time.Second, "with the flood": 0} {
		t.Run(name, func(t *testing.T) {
			fresh(t)
			u := uwsgi(t, testbed.Options{App: deadlocked})
			q := start(t, settings{Source: u.LogFile, Threshold: 3, Probe: "1s"})
			ask(t, u, 2, 0, "/")
			time.Sleep(before)
			ask(t, u, 600, 600, "/")
			until(t, "a verdict", func() bool { return q.said("leaving alone ") || q.said("plan: ") })
			if l := q.lines("plan: "); len(l) > 0 {
				t.Fatalf("raised: %v", l[0]["reason"])
			}
			if l := q.waitFor("leaving alone "); l["code"] != "stall" || !strings.Contains(fmt.Sprint(l["reason"]), "deadlock") {
				t.Errorf("verdict: %v: %v", l["code"], l["reason"])
			}
			q.advised("a graceful reload would wait for the stuck workers")
			q.advised("`--harakiri 30`")
			n := records(u)
			until(t, "three more records", func() bool { return records(u) >= n+3 })
			leftAlone(t, q, u, 100)
		})
	}
}

// Slow is not stuck: where each request takes 5 s the limit is up within two
// seconds of the third record all the same, also where uWSGI has just begun.
func TestSlowApp(t *testing.T) {
	for _, c := range []struct {
		name        string
		age         time.Duration // of uWSGI at the flood
		qwatchFirst bool
	}{
		{"old", 11 * time.Second, false},
		{"young", 2500 * time.Millisecond, false},
		{"younger than qwatch", 2500 * time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fresh(t)
			s := settings{Source: filepath.Join(directory(t), "uwsgi.log"), Threshold: 3, Probe: "1s", dir: directory(t)}
			var q *qwatch
			if c.qwatchFirst {
				q = start(t, s)
			}
			u := uwsgi(t, testbed.Options{LogFile: s.Source})
			begun := time.Now()
			if !c.qwatchFirst {
				q = start(t, s)
			}
			time.Sleep(c.age - time.Since(begun))
			ask(t, u, 600, 200, "/?ms=5000")
			until(t, "the third record", func() bool { return records(u) >= 3 })
			took := stopwatch(q.cmd.Process.Pid)
			raised(t, u, 1024)
			wantAtMost(t, "the raise after the third record", took(), 2*time.Second)
			if l := q.lines("waiting with "); len(l) > 0 {
				t.Errorf("it waited: %v", l[0]["reason"])
			}
		})
	}
}

// busy is an app that computes for so many milliseconds.
func busy(ms int) string {
	return fmt.Sprintf(`
import time

def application(environ, start_response):
    end = time.process_time() + %d / 1000
    while time.process_time() < end:
        pass
    start_response("200 OK", [("Content-Length", "0")])
    return []
`, ms)
}

// Where more comes than the workers take, a queue helps as long as nobody
// waits in it for more than max_wait.
func TestOverload(t *testing.T) {
	for _, c := range []struct {
		name    string
		app     string
		wait    time.Duration
		refused bool
	}{
		{"refused", busy(200), time.Second, true},
		{"bounded", "", 5 * time.Second, false}, // 10 ms of sleep: at most 200 requests a second
	} {
		t.Run(c.name, func(t *testing.T) {
			fresh(t)
			u := uwsgi(t, testbed.Options{App: c.app, Listen: 64, Args: []string{"--disable-logging"}})
			q := start(t, settings{Source: u.LogFile, Threshold: 12, Probe: "1s", MaxWait: c.wait.String()})
			begun := time.Now()
			stop := ask(t, u, 12000, 400, "/?ms=30")
			if c.refused {
				l := q.waitFor("leaving alone ")
				if l["code"] != "max-wait" {
					t.Errorf("verdict: %v: %v", l["code"], l["reason"])
				}
				q.advised("a longer queue buys seconds, not capacity")
				leftAlone(t, q, u, 64)
				return
			}
			until(t, "a raise", func() bool { return limit(t, u) > 64 })
			got, took := limit(t, u), time.Since(begun)
			rate := float64(stop().Answered) / took.Seconds()
			t.Logf("%.0f answers a second; the limit is %d", rate, got)
			if most := rate * c.wait.Seconds(); float64(got) > 1.5*most || float64(got) < most/2 || got >= 1024 {
				t.Errorf("limit %d; %.0f answers a second for %v make %.0f", got, rate, c.wait, most)
			}
		})
	}
}

// slowStart is an app that takes its time to load.
const slowStart = `
import time
time.sleep(3)

def application(environ, start_response):
    time.sleep(0.2)
    start_response("200 OK", [("Content-Length", "0")])
    return []
`

// What piled up while uWSGI reloaded is no reason to raise: the new workers
// empty it.
func TestReloadUnderLoad(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{App: slowStart})
	q := start(t, settings{Source: u.LogFile, Threshold: 3, Probe: "1s"})
	if err := u.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	ask(t, u, 6000, 200, "/") // so many that it is full at each record, though workers take some
	until(t, "uWSGI has reloaded", func() bool { return reloads(u) == 1 })
	l := q.waitFor("waiting with ")
	if l["code"] != "respawn" {
		t.Errorf("verdict: %v: %v", l["code"], l["reason"])
	}
	until(t, "five records", func() bool { return records(u) >= 5 })
	leftAlone(t, q, u, 100)
	q.advised("the queue drains by itself")
}

// Numbers that cannot be true, as an emulated uWSGI writes them each second for
// ever, lead to one word and to nothing else.
func TestGarbage(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	q := start(t, settings{Source: u.LogFile, Threshold: 3, Probe: "1s"})
	log, err := os.OpenFile(u.LogFile, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	before := hostOf(t, u)
	for range 30 {
		if _, err := log.WriteString(record(u, 50125680, 64)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	l := q.waitFor("leaving alone ")
	if l["code"] != "garbage" {
		t.Errorf("verdict: %v: %v", l["code"], l["reason"])
	}
	until(t, "all records are counted", func() bool {
		return first(t, q.status(), "sources")["hits"] == float64(30)
	})
	if n := len(q.lines("leaving alone ")); n != 1 {
		t.Errorf("said %d times", n)
	}
	leftAlone(t, q, u, 100)
	if diff := cmp.Diff(before.Files, hostOf(t, u).Files); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
}

// Without systemd nobody can say which uWSGI it was that would not start. It is
// said once, however often it tries.
func TestStartRefused(t *testing.T) {
	fresh(t, "root")
	dir := directory(t)
	log, other := filepath.Join(dir, "app.log"), filepath.Join(dir, "other.log")
	q := start(t, settings{Source: filepath.Join(dir, "*.log"), Probe: "1s"})
	try := func(log string) {
		t.Helper()
		_, err := testbed.StartUWSGI(t.Context(), testbed.Options{Address: "127.0.0.1:19070", Listen: 2048, LogFile: log})
		if err == nil || !strings.Contains(err.Error(), "Listen queue size is greater than the system max net.core.somaxconn (128).") {
			t.Fatalf("uWSGI started, or said: %v", err)
		}
	}
	try(log)
	l := q.waitFor("would not start")
	if l["event"] != "start-refused" || l["verdict"] != "refuse" || l["level"] != "error" {
		t.Errorf("event: %v", l)
	}
	q.advised("set net.core.somaxconn to at least the listen of that uWSGI")
	for since := time.Now(); time.Since(since) < 6*time.Second; time.Sleep(500 * time.Millisecond) { // qwatch leaves such lines unread for 5 s
		try(log)
	}
	until(t, "all lines are read", func() bool {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return first(t, q.status(), "sources")["lines"] == float64(bytes.Count(text, []byte("\n")))
	})
	// What comes later in the log of another user is said; of the first one
	// nothing was in between.
	if err := errors.Join(os.WriteFile(other, nil, 0o644), os.Chown(other, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	try(other)
	until(t, "qwatch says that of the other log", func() bool { return len(q.lines("would not start")) > 1 })
	q.stop(syscall.SIGTERM)
	if said := q.lines("would not start"); len(said) != 2 || said[0]["source"] != log || said[1]["source"] != other {
		t.Errorf("said %d times: %v", len(said), said)
	}
	wantSomaxconn(t, testbed.StartSomaxconn)
	if events := q.trail(t); len(events) > 0 {
		t.Errorf("audit trail: %v", events)
	}
}
