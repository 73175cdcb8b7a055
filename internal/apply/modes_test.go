package apply

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// In each mode the proof is another, and what the clients saw is told.
func TestReloadModes(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	for i, tt := range []struct {
		name, options string
		way           remediate.Way
		want          []string
		gap           bool // nobody was accepted for a while
	}{
		{"whole", "", remediate.Way{Kind: remediate.WayHUP}, []string{"applied -1 (2 new workers after ", ", gracefully"}, true},
		{"lazy", "lazy = true\n", remediate.Way{Kind: remediate.WayHUP}, []string{"applied -1 (2 new workers after ", ", gracefully"}, true},
		{"lazy-apps", "lazy-apps = true\n", remediate.Way{Kind: remediate.WayHUP}, []string{"applied -1 (2 new workers after ", ", gracefully"}, true},
		{"chain", "lazy-apps = true\nmaster-fifo = " + fifo + "\n", remediate.Way{Kind: remediate.WayChain, Of: fifo}, []string{"applied -1 (2 new workers after ", ", gracefully"}, false},
		{"threads", "threads = 4\n", remediate.Way{Kind: remediate.WayHUP}, []string{"applied -1 (2 new workers after "}, true},
		{"max-requests", "max-requests = 20\n", remediate.Way{Kind: remediate.WayHUP}, []string{"applied -1 (2 new workers after "}, true},
		{"stats alone", "stats = 127.0.0.1:5499\n", remediate.Way{Kind: remediate.WayHUP}, []string{"applied -1 (2 new workers after "}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startSite(t, 5450+i, tt.options)
			socket := socketOf(t, s.Address)
			if strings.Contains(tt.options, "stats") {
				socket.Sight = facts.Known(facts.Sight{Stats: "127.0.0.1:5499"})
			}
			s.visit(t)
			a := New(names, nil)
			a.leastWatch = 2 * time.Second
			o := a.Apply(t.Context(), remediate.Reload{Socket: socket, Way: tt.way, Timeout: time.Minute})
			wantResult(t, o, tt.want[0], tt.want[1:]...)
			if o.Served == nil {
				t.Fatal("nothing was seen of it")
			}
			if good, all := s.served(); good != all {
				t.Errorf("%d of %d clients were served", good, all)
			}
			if !tt.gap && o.Served.Intake.Unserved > 0 {
				t.Errorf("nobody accepted for %s", o.Served.Intake.Unserved)
			}
		})
	}
}

// Workers that max-requests replaces are no reload.
func TestNoReloadIsProvenByMaxRequests(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	s := startSite(t, 5470, "max-requests = 40\n")
	socket := socketOf(t, s.Address)
	s.visit(t)
	a := New(names, deaf{&units{master: s.Pid, can: true}})
	o := a.Apply(t.Context(), remediate.Reload{Socket: socket, Way: remediate.Way{Kind: remediate.WaySystemd, Of: "app.service"}, Timeout: 12 * time.Second})
	wantResult(t, o, "failed -1: reload of uWSGI", "not done after 12s; all old workers have ended, but nothing says that it was by a reload")
	if f, bad := o.Served.Verdict(); !bad || f.Worse {
		t.Errorf("%+v", f)
	}
}

// deaf is a systemd whose reload reaches nobody.
type deaf struct{ *units }

func (deaf) Reload(context.Context, string) error { return nil }

// A chain that cannot go on says which worker dies, and is put right when it goes
// on after all.
func TestChainStandsStill(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	fifo := filepath.Join(t.TempDir(), "fifo")
	s := startSite(t, 5473, "lazy-apps = true\nmaster-fifo = "+fifo+"\n")
	socket := socketOf(t, s.Address)
	s.visit(t)
	write(t, s.app, exiting)
	o := New(names, nil).Apply(t.Context(), remediate.Reload{Socket: socket, Way: remediate.Way{Kind: remediate.WayChain, Of: fifo}, Timeout: 6 * time.Second})
	wantResult(t, o, "failed -1: reload of uWSGI", "(chain): not done after 6s; 1 old worker of 2 still at work", "the chain waits for worker 1, worker 1 has died ")
	if f, bad := o.Served.Verdict(); !bad || f.Worse {
		t.Errorf("%+v, and worker 2 serves everybody", f)
	}
	write(t, s.app, goodApp)
	wantResult(t, o.Late(t.Context()), "applied -1 (2 new workers after ")
	if good, all := s.served(); good != all {
		t.Errorf("%d of %d clients were served", good, all)
	}
}

// The master may hand over to a second one.
func TestReloadBySecondMaster(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	fifo := filepath.Join(t.TempDir(), "fifo")
	s := startSite(t, 5472, "master-fifo = "+fifo+"\n")
	socket := socketOf(t, s.Address)
	s.visit(t)
	second := func() (master int, workers []facts.Process) {
		found := regexp.MustCompile(`\(RE\)spawned uWSGI master process \(pid: (\d+)\)`).FindStringSubmatch(s.Log())
		if found == nil {
			return 0, nil
		}
		master, _ = strconv.Atoi(found[1])
		workers, _ = New(names, nil).children(master)
		return master, workers
	}
	t.Cleanup(func() { // it is in a process group of its own
		master, workers := second()
		for _, w := range workers {
			syscall.Kill(w.PID, syscall.SIGKILL)
		}
		if master > 0 {
			syscall.Kill(master, syscall.SIGKILL)
		}
	})
	order := forking{&units{master: s.Pid, can: true}, func() error {
		if err := os.WriteFile(fifo, []byte("f"), 0); err != nil {
			return err
		}
		err := testbed.Until(t.Context(), 15*time.Second, "no second master", func() bool { _, workers := second(); return len(workers) == 2 })
		if err != nil {
			return err
		}
		return s.Signal(syscall.SIGINT)
	}}
	o := New(names, order).Apply(t.Context(), remediate.Reload{Socket: socket, Way: remediate.Way{Kind: remediate.WaySystemd, Of: "app.service"}, Timeout: time.Minute})
	wantResult(t, o, "applied -1 (2 new workers after ")
}

// forking is a systemd whose reload is a function.
type forking struct {
	*units
	reload func() error
}

func (f forking) Reload(context.Context, string) error { return f.reload() }

// A worker that does not end is killed, and what that cuts is counted.
func TestReloadCuts(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	s := startSite(t, 5471, "worker-reload-mercy = 3\n")
	write(t, s.app, strings.Replace(goodApp, "    start_response", "    if env['PATH_INFO'] == '/slow':\n        import time; time.sleep(30)\n    start_response", 1))
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if !strings.Contains(s.Log(), "(RE)spawned") {
			return "not reloaded"
		}
		return ""
	})
	socket := socketOf(t, s.Address)
	held := func() (n int) {
		for _, pid := range pidsOfWorkers(t, s.UWSGI) {
			sockets, _ := kernel.Sockets(pid)
			n += len(sockets)
		}
		return n
	}
	idle := held()
	var slow sync.WaitGroup
	t.Cleanup(slow.Wait)
	slow.Go(func() { testbed.Flood(t.Context(), s.Address, testbed.FloodOptions{Connections: 1, Request: "/slow"}) })
	eventually(t, func() string {
		if held() <= idle {
			return "no worker has taken the slow request"
		}
		return ""
	})
	s.visit(t)
	o := New(names, nil).Apply(t.Context(), remediate.Reload{Socket: socket, Way: remediate.Way{Kind: remediate.WayHUP}, Timeout: time.Minute})
	wantResult(t, o, "applied -1 (2 new workers after ", ", 1 request cut, nobody accepted for ")
	if gap := o.Served.Intake.Unserved; gap < 2*time.Second || gap > 9*time.Second {
		t.Errorf("nobody accepted for %s", gap)
	}
}
