package integration

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/kernel"
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
	plan := exec.CommandContext(t.Context(), binary, "plan", "-c", s.file())
	var out strings.Builder
	plan.Stdout, plan.Stderr = &out, &out
	if err := plan.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "it asks the kernel", func() bool {
		asks, err := kernel.Sockets(plan.Process.Pid)
		return err == nil && len(asks) > 0
	})
	time.Sleep(500 * time.Millisecond) // of the two seconds and a half of its survey
	signal := func(s syscall.Signal) {
		if err := plan.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	command(t, s, 0, "apply", "--yes")
	signal(syscall.SIGCONT)
	if err := plan.Wait(); err != nil {
		t.Error(err)
	}
	wantLimit(t, u, 1024)
	if !strings.Contains(out.String(), "wait: whether the queue is full is not known") && !strings.Contains(out.String(), "nothing: the queue is not full") {
		t.Errorf("planned:\n%s", &out)
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
	q.waitFor("backlog from 100 to 256")
	q.waitFor("backlog from 256 to 512") // its new workers are a second or two old
	until(t, "the reload has ended", func() bool { return q.recorded(t, "reload", "applied") })
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
	ctx, stop := context.WithCancel(t.Context())
	crowd := make(chan struct{})
	go func() { // each has its answer soon
		defer close(crowd)
		for ctx.Err() == nil {
			testbed.Flood(ctx, stats.Address, testbed.FloodOptions{Connections: 600, Timeout: time.Minute})
		}
	}()
	defer func() { stop(); <-crowd }()
	q.waitFor("it is no application's queue: uWSGI")
	stop()
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
