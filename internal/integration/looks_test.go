package integration

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/testbed"
)

// A plan that is made while another qwatch raises the queue does not go by what it
// saw before the raise.
func TestPlanDuringARaise(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	s := settings{dir: directory(t), Cooldown: "0s"}
	replace(t, s.file(), s.text(t))
	occupy(t, u, 60)
	flood(t, u, 400, 0)
	full(t, u)
	applied := make(chan struct{})
	go func() {
		defer close(applied)
		command(t, s, 0, "apply", "--yes")
	}()
	// A survey takes two seconds and a half: this one begins within the other's.
	time.Sleep(time.Second)
	out, _ := command(t, s, 0, "plan")
	<-applied
	wantLimit(t, u, 1024)
	if !strings.Contains(out, "wait: whether the queue is full is not known") && !strings.Contains(out, "nothing: the queue is not full") {
		t.Errorf("planned:\n%s", out)
	}
	if at := raises(s.trail(t)); len(at) != 1 {
		t.Errorf("%d raises", len(at))
	}
}

// The reload that qwatch itself asked for is not why the queue is full after it.
func TestFullAfterItsOwnReload(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	born := time.Now()
	q := start(t, settings{Source: u.LogFile, Probe: "1s", Reload: "always", Cooldown: "3s", Policy: "min_backlog = 150"})
	until(t, "the workers are no new ones", func() bool { return time.Since(born) > 11*time.Second })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		testbed.Flood(ctx, u.Address, testbed.FloodOptions{Connections: 4000, Rate: 300, Request: "/?ms=50", Timeout: time.Minute})
	}()
	t.Cleanup(func() { stop(); <-done })
	raised(t, u, 256)
	until(t, "the reload has ended", func() bool { return q.recorded(t, "reload", "applied") })
	raised(t, u, 512)
	if q.said("while workers were starting") {
		t.Errorf("its own reload is the reason:\n%s", q.text())
	}
	q.stop(syscall.SIGTERM)
}

// A full stats socket is no application's queue.
func TestFullStatsSocket(t *testing.T) {
	fresh(t)
	stats := testbed.UWSGI{Address: "127.0.0.1:19191"}
	u := uwsgi(t, testbed.Options{Args: []string{"--stats", stats.Address}})
	q := start(t, settings{Source: u.LogFile, Probe: "200ms", Reload: "always"})
	for range 20 {
		flood(t, &stats, 600, 0)
		if q.said("it is no application's queue") {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	q.waitFor("it is no application's queue: uWSGI")
	// One that is an application's is raised yet.
	occupy(t, u, 2)
	flood(t, u, 400, 0)
	raised(t, u, 1024)
	q.waitFor("applied: reload uWSGI")
	if touched := slices.DeleteFunc(q.trail(t), func(e event) bool { return e.Socket != stats.Address }); len(touched) > 0 {
		t.Errorf("%v", touched)
	}
	q.stop(syscall.SIGTERM)
}
