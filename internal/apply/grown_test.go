package apply

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// A reload waits for a worker that would not hear of it, and no longer than it has.
func TestReloadOfNewborns(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	dir := t.TempDir()
	app := filepath.Join(dir, "app.py")
	write(t, app, "import os, time\nwhile not os.path.exists('"+dir+"/go'): time.sleep(0.05)\n"+
		"def application(e, s):\n    s('200 OK', [])\n    return [b'']\n")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5375", Args: []string{"--lazy-apps", "--wsgi-file", app}})
	s := socketOf(t, u.Address)
	before := pidsOfWorkers(t, u)
	reload := func(timeout time.Duration) remediate.Outcome {
		return do(t, remediate.Reload{Socket: s, Way: way("hup"), Timeout: timeout})
	}
	wantResult(t, reload(5*time.Second), "stale -1: uWSGI", "was not asked to reload: for 3s worker", "was still starting, and a reload would hang on it")
	write(t, dir+"/go", "")
	wantResult(t, reload(time.Minute), "applied -1 (2 new workers")
	if after := pidsOfWorkers(t, u); slices.ContainsFunc(after, func(p int) bool { return slices.Contains(before, p) }) {
		t.Errorf("workers %v, then %v", before, after)
	}
	// The workers are as young as can be now.
	began := time.Now()
	wantResult(t, reload(time.Minute), "applied -1 (2 new workers")
	if took := time.Since(began); took < time.Second {
		t.Errorf("the newborn were asked to end after %s", took)
	}
}

// What is no worker, and what does as it likes with its signals, keeps no reload
// waiting for ever.
func TestYoung(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	dir := t.TempDir()
	write(t, dir+"/other.ini", "[uwsgi]\nplugin = python3\nmaster = true\nprocesses = 1\nhttp-socket = 127.0.0.1:5379\n")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5378", Args: []string{"--attach-daemon", "exec uwsgi --ini " + dir + "/other.ini"}})
	var other facts.Socket
	eventually(t, func() string {
		for _, other = range observe(t).Sockets {
			if other.Address == "127.0.0.1:5379" && len(other.Workers) == 1 {
				return ""
			}
		}
		return "the daemon has not started"
	})
	s := socketOf(t, u.Address)
	eventually(t, func() string {
		young, err := quick(nil).young(u.Pid, s.ID.Inode)
		if err != nil {
			return err.Error()
		}
		return young
	})
	if all, err := quick(nil).children(u.Pid); err != nil || !slices.ContainsFunc(all, other.Master.Same) {
		t.Errorf("%v, %v: no child master among them", all, err)
	}
}

// A chain reload replaces the workers in turn, and leaves the master as it is.
func TestReloadByChain(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	fifo := filepath.Join(t.TempDir(), "fifo")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5376", Args: []string{"--lazy-apps", "--master-fifo", fifo}})
	wantResult(t, do(t, remediate.Reload{Socket: socketOf(t, u.Address), Way: way("chain:" + fifo), Timeout: time.Minute}), "applied -1 (2 new workers")
	if log := u.Log(); !strings.Contains(log, "chain reload starting") || strings.Contains(log, "(RE)spawned uWSGI master") {
		t.Errorf("log: %s", log)
	}
}

// What the plan went by is looked at again.
func TestReloadOfWhatHasChanged(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	touch := filepath.Join(t.TempDir(), "touch")
	write(t, touch, "")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5377", Args: []string{"--touch-reload", touch}})
	s := socketOf(t, u.Address)
	other := &units{master: 1}
	r := New(names, other).Apply(t.Context(), remediate.Reload{Socket: s, Way: way("systemd:app.service"), Timeout: time.Minute})
	wantResult(t, r, "stale -1: the main process of app.service is 1, and not uWSGI")
	if len(other.log) > 0 {
		t.Errorf("systemd was asked %q", other.log)
	}
	ahead := time.Now().Add(time.Hour)
	if err := os.Chtimes(touch, ahead, ahead); err != nil {
		t.Fatal(err)
	}
	wantResult(t, do(t, remediate.Reload{Socket: s, Way: way("touch:" + touch), Timeout: time.Minute}), "failed -1: "+touch+" is of a time that lies 1h0m0s ahead")
	if err := u.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer u.Signal(unix.SIGCONT)
	eventually(t, func() string {
		if err := awake(u.Pid); err == nil {
			return "it runs"
		}
		return ""
	})
	wantResult(t, do(t, remediate.Reload{Socket: s, Way: way("hup"), Timeout: time.Minute}), "stale -1: uWSGI", "is stopped (SIGSTOP, SIGTSTP)")
}
