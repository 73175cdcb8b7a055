package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/testbed"
)

// raises are the times at which sockets were raised in place, the first one first.
func raises(events []event) (at []time.Time) {
	for _, e := range events {
		if e.Action == "relisten" && e.Result == "applied" {
			at = append(at, e.Time)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// Six apps that overflow together are raised together, although the record of
// each comes in a second of its own.
func TestSixTogether(t *testing.T) {
	fresh(t)
	dir := directory(t)
	var apps []*testbed.UWSGI
	for i := range 6 {
		apps = append(apps, uwsgi(t, testbed.Options{LogFile: filepath.Join(dir, fmt.Sprintf("app%d.log", i))}))
	}
	for _, u := range apps {
		flood(t, u, 400, 0)
	}
	for _, u := range apps {
		full(t, u)
	}
	q := start(t, settings{Source: filepath.Join(dir, "*.log"), Threshold: 3, Probe: "1s"})
	for _, u := range apps {
		raised(t, u, 1024)
	}
	until(t, "all are judged", func() bool { return len(q.lines("fixed at ")) == 6 })
	at := raises(q.trail(t))
	if len(at) != 6 {
		t.Fatalf("%d raises: %v", len(at), actions(q.trail(t)))
	}
	wantAtMost(t, "from the first raise to the last", at[5].Sub(at[0]), 100*time.Millisecond)
}

// Thirty sockets are no more than six.
func TestThirtyTogether(t *testing.T) {
	fresh(t)
	var addresses, args []string
	for i := range 30 {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", 19100+i))
		args = append(args, "--http-socket", addresses[i])
	}
	u := uwsgi(t, testbed.Options{Address: "127.0.0.1:0", Listen: 20, Args: args})
	q := start(t, settings{Source: u.LogFile, Threshold: 3, Probe: "1s"})
	for _, address := range addresses {
		flood(t, &testbed.UWSGI{Address: address}, 80, 0)
	}
	until(t, "all are raised", func() bool { return len(raises(q.trail(t))) >= 30 })
	at := raises(q.trail(t))
	wantAtMost(t, "from the first raise to the last", at[29].Sub(at[0]), 100*time.Millisecond)
	for _, address := range addresses {
		wantLimit(t, &testbed.UWSGI{Address: address}, 1024)
	}
}

// A reload that waits for a request without an end keeps nobody else waiting, nor
// the end of qwatch.
func TestHangingReload(t *testing.T) {
	fresh(t)
	dir := directory(t)
	asked := filepath.Join(dir, "asked")
	stuck := uwsgi(t, testbed.Options{LogFile: filepath.Join(dir, "stuck.log"),
		App: fmt.Sprintf("import time\ndef application(e, start):\n    open(%q, 'w').close()\n    time.sleep(600)\n", asked)})
	other := uwsgi(t, testbed.Options{LogFile: filepath.Join(dir, "other.log")})
	q := start(t, settings{Source: filepath.Join(dir, "*.log"), Probe: "1s", Reload: "always"})
	ask(t, stuck, 1, 0, "/")
	until(t, "a worker has a request without an end", func() bool { _, err := os.Stat(asked); return err == nil })
	flood(t, stuck, 400, 0)
	raised(t, stuck, 1024)
	until(t, "the reload has begun", func() bool { return q.recorded(t, "reload", "started") })
	flood(t, other, 400, 150)
	full(t, other)
	took := stopwatch(q.cmd.Process.Pid)
	raised(t, other, 1024)
	wantAtMost(t, "the raise of a full queue", took(), 3*time.Second) // a record is a second late
	until(t, "the other's reload and verdict", func() bool { return q.said("fixed at " + other.Address) })
	if q.recorded(t, "reload", "failed") || q.said("fixed at "+stuck.Address) {
		t.Error("the reload has not hung")
	}
	q.stop(syscall.SIGTERM)
	if q.recorded(t, "reload", "failed") {
		t.Errorf("a reload that goes on was called failed: %v", actions(q.trail(t)))
	}
}

// A queue that goes on growing after its raise is not called fixed: it is full
// again soon. Where it holds, it is, after the time that filling it would take.
func TestGrowingQueue(t *testing.T) {
	for _, c := range []struct {
		name        string
		connections int
		verdict     string
	}{{"full again", 4000, "no-effect"}, {"holds", 700, "fixed"}} {
		t.Run(c.name, func(t *testing.T) {
			fresh(t)
			u := uwsgi(t, testbed.Options{})
			q := start(t, settings{Source: u.LogFile, Threshold: 2, Probe: "1s", Quiet: "2s"})
			flood(t, u, c.connections, 90)
			raised(t, u, 1024)
			q.waitFor("no verdict about " + u.Address + " yet: not full, growing by ")
			i := first(t, q.status(), "incidents")
			slope, _ := i["slope"].(float64)
			if words := fmt.Sprint(i["outlook"]); slope < 45 || slope > 400 || i["state"] != "open" || !strings.Contains(words, " a second, full again in ") {
				t.Errorf("incident: %v", i)
			}
			if q.recorded(t, "judge", "fixed") {
				t.Error("it was called fixed while it grew")
			}
			l := q.waitFor(c.verdict + " at ")
			t.Logf("%v", l["message"])
			events := q.trail(t)
			var verdicts []event
			for _, e := range events {
				if e.Action == "judge" {
					verdicts = append(verdicts, e)
				}
			}
			if len(verdicts) != 1 || verdicts[0].Result != c.verdict {
				t.Fatalf("verdicts: %v", verdicts)
			}
			if waited := verdicts[0].Time.Sub(raises(events)[0]); waited < 7*time.Second {
				t.Errorf("said after %v", waited)
			}
		})
	}
}
