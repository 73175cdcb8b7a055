package integration

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

// configured starts a uWSGI whose listen stands in the second line of a file.
func configured(t *testing.T, file, address string, listen int) *testbed.UWSGI {
	t.Helper()
	replace(t, file, fmt.Appendf(nil, "[uwsgi]\nlisten = %d\n", listen))
	return testbed.Run(t, testbed.Options{Address: address, Args: []string{"--ini", file, "--socket-timeout", "1"}})
}

// raiseAnother waits until qwatch has raised another uWSGI. Nothing can be seen
// of a socket that is left alone, but when a younger one was raised, the older
// was there to be seen.
func raiseAnother(t *testing.T) {
	t.Helper()
	u := uwsgi(t, testbed.Options{})
	flood(t, u, 400, 0)
	raised(t, u, 1024)
}

// A cold start falls back to the configured listen. The limit that qwatch gave
// is back within two seconds, before anything overflows, over a restart of
// qwatch as well, and the very line to change is named.
func TestKept(t *testing.T) {
	fresh(t)
	ini := filepath.Join(directory(t), "app.ini")
	u := configured(t, ini, "127.0.0.1:0", 100)
	s := settings{Source: filepath.Join(filepath.Dir(filepath.Dir(u.LogFile)), "testbed-*", "*.log"), Probe: "1s", dir: directory(t)}
	q := start(t, s)
	end := flood(t, u, 400, 0)
	raised(t, u, 1024)
	q.waitFor("fixed at ")
	end()

	restart := func() {
		t.Helper()
		u.Stop()
		u = configured(t, ini, u.Address, 100)
	}
	back := func() {
		t.Helper()
		took := stopwatch(q.cmd.Process.Pid)
		raised(t, u, 1024)
		wantAtMost(t, "the way back to the limit", took(), 2*time.Second)
	}
	restart()
	back()
	if l := q.waitFor("uWSGI was restarted and listens with 100 again"); l["event"] != "limit-kept" || l["code"] != "kept" {
		t.Errorf("event: %v", l)
	}
	q.advised(fmt.Sprintf("set `listen = 1024` in %s:2 (now 100), so that it outlasts a restart", ini))
	until(t, "the second verdict", func() bool { return len(q.lines("fixed at ")) == 2 })

	// qwatch is down while uWSGI is restarted.
	q.stop(syscall.SIGTERM)
	restart()
	wantLimit(t, u, 100)
	q = launch(t, s)
	back()
	q.waitFor("uWSGI was restarted and listens with 100 again")
	q.waitFor("fixed at ")

	// The configured listen follows the advice: nothing is left to do.
	q.stop(syscall.SIGTERM)
	u.Stop()
	u = configured(t, ini, u.Address, 1024)
	q = start(t, s)
	raiseAnother(t)
	q.stop(syscall.SIGTERM)
	if q.said("uWSGI was restarted") {
		t.Error("a limit that is as it should be was kept")
	}
	var mine []event
	for _, e := range s.trail(t) {
		if e.Socket == u.Address {
			mine = append(mine, e)
		}
	}
	want := []string{
		"sysctl 128→1024 started", "relisten 100→1024 started",
		"sysctl 128→1024 applied", "relisten 100→1024 applied", "judge fixed",
		"relisten 100→1024 started", "relisten 100→1024 applied", "judge fixed",
		"relisten 100→1024 started", "relisten 100→1024 applied", "judge fixed",
	}
	if diff := cmp.Diff(want, actions(mine)); diff != "" {
		t.Errorf("audit trail (-want +got):\n%s", diff)
	}
}

// Policy may say no.
func TestNotKept(t *testing.T) {
	fresh(t)
	ini := filepath.Join(directory(t), "app.ini")
	u := configured(t, ini, "127.0.0.1:0", 100)
	q := start(t, settings{Source: u.LogFile, Probe: "250ms", Policy: "keep = false"})
	end := flood(t, u, 400, 0)
	raised(t, u, 1024)
	q.waitFor("fixed at ")
	end()
	u.Stop()
	u = configured(t, ini, u.Address, 100)
	raiseAnother(t)
	wantLimit(t, u, 100)
}
