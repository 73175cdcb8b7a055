package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/internal/uwsgi"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

func pidsOfWorkers(t *testing.T, u *testbed.UWSGI) []int {
	t.Helper()
	pids, err := u.Workers()
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// way reads a way to reload as the trail has it.
func way(s string) remediate.Way {
	kind, of, _ := strings.Cut(s, ":")
	return remediate.Way{Kind: remediate.WayKind(kind), Of: of}
}

func TestReload(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "ss")
	dir := t.TempDir()
	old := filepath.Join(dir, "touch")
	write(t, old, "")
	if err := os.Chtimes(old, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	for i, tt := range []struct {
		way  string
		args []string
	}{
		{"hup", nil},
		{"hup", []string{"--lazy-apps"}},
		{"fifo:" + fifo, []string{"--master-fifo", fifo}},
		{"touch:" + old, []string{"--touch-reload", old}},
		{"touch:" + old, []string{"--lazy-apps", "--touch-chain-reload", old}},
	} {
		t.Run(strings.Join(append(tt.args, tt.way), " "), func(t *testing.T) {
			// An old worker may hold the port of the one before still.
			u := testbed.Run(t, testbed.Options{Address: fmt.Sprintf("127.0.0.1:%d", 5300+i), Args: tt.args})
			before := pidsOfWorkers(t, u)
			r := do(t, remediate.Reload{Socket: socketOf(t, u.Address), Way: way(tt.way), Timeout: time.Minute})
			wantResult(t, r, "applied -1 (2 new workers after")
			after := pidsOfWorkers(t, u)
			if len(after) != 2 || slices.ContainsFunc(after, func(p int) bool { return slices.Contains(before, p) }) {
				t.Errorf("workers %v, then %v, want other ones", before, after)
			}
			wantLimit(t, u.Address, 100)
		})
	}
}

// In http mode the hidden backend socket is a new one after the reload.
func TestReloadHTTP(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Args: []string{"--plugin", "http", "--http", "127.0.0.1:5310"}})
	snapshot := observe(t)
	i := slices.IndexFunc(snapshot.Sockets, func(s facts.Socket) bool { return s.Master.PID == u.Pid && len(s.Workers) == 2 })
	if i < 0 {
		t.Fatalf("no backend socket in %+v", snapshot.Sockets)
	}
	r := do(t, remediate.Reload{Socket: snapshot.Sockets[i], Way: way("hup"), Timeout: time.Minute})
	wantResult(t, r, "failed -1: reload of uWSGI", "its socket is gone, and uWSGI listens on 127.0.0.1:", "127.0.0.1:5310")
	stats, err := testbed.Flood(t.Context(), "127.0.0.1:5310", testbed.FloodOptions{Connections: 1, Request: "/"})
	if err != nil || stats.Answered != 1 {
		t.Errorf("after the reload: %v, %v", stats, err)
	}
}

// Nothing is sent where a reload would do harm or go to somebody else.
func TestReloadRefuses(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	somaxconn(t, 128)
	dir := t.TempDir()
	fifo, other := filepath.Join(dir, "fifo"), filepath.Join(dir, "other")
	write(t, dir+"/file", "")
	write(t, dir+"/exec", "")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5320", Args: []string{"--master-fifo", fifo, "--touch-reload", dir + "/file", "--touch-exec", dir + "/exec false"}})
	testbed.Run(t, testbed.Options{Address: "127.0.0.1:5321", Args: []string{"--master-fifo", other}})
	write(t, dir+"/once.ini", "[uwsgi]\nexit-on-reload = true\n")
	once := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5322", Args: []string{"--ini", dir + "/once.ini"}})
	write(t, dir+"/gone.ini", "[uwsgi]\nexit-on-reload = true\n")
	gone := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5323", Args: []string{"--ini", dir + "/gone.ini"}})
	if err := os.Remove(dir + "/gone.ini"); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/more.ini", "[uwsgi]\nlisten = 90\n")
	more := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5324", Args: []string{"--ini", dir + "/more.ini"}})
	moreSocket := socketOf(t, more.Address)
	write(t, dir+"/more.ini", "[uwsgi]\nlisten = 1024\n") // after the plan
	for _, err := range []error{
		os.Symlink(fifo, dir+"/fifolink"), unix.Mkfifo(dir+"/unread", 0o600),
		os.Symlink(dir+"/file", dir+"/filelink"),
		os.WriteFile(dir+"/other.touch", nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sleep := exec.CommandContext(t.Context(), "sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { sleep.Process.Kill(); sleep.Wait() }()
	asleep, err := kernel.ReadStat(sleep.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s, onceSocket, goneSocket := socketOf(t, u.Address), socketOf(t, once.Address), socketOf(t, gone.Address)
	with := func(change func(*facts.Socket)) facts.Socket {
		c := s
		change(&c)
		return c
	}
	before := slices.Concat(pidsOfWorkers(t, u), pidsOfWorkers(t, once), pidsOfWorkers(t, gone), pidsOfWorkers(t, more))
	for _, tt := range []struct {
		name   string
		socket facts.Socket
		way    string
		want   string
	}{
		{"recycled pid", with(func(s *facts.Socket) { s.Master.Start++ }), "hup", "stale -1: process"},
		{"not a uWSGI", with(func(s *facts.Socket) { s.Master.PID, s.Master.Start = sleep.Process.Pid, asleep.Start }), "hup", fmt.Sprintf("stale -1: process %d is not one of uwsgi, uwsgi-core", sleep.Process.Pid)},
		{"listen over somaxconn", moreSocket, "hup",
			fmt.Sprintf("stale -1: uWSGI %d is not reloaded: uWSGI is configured to listen = 1024 (%s/more.ini:2), and with somaxconn 128 it would not come up again", more.Pid, dir)},
		{"exit-on-reload", onceSocket, "hup", fmt.Sprintf("stale -1: uWSGI %d is not reloaded: it would end uWSGI: exit-on-reload (%s/once.ini:2) (changed since the plan)", once.Pid, dir)},
		{"the configuration cannot be read", goneSocket, "hup", fmt.Sprintf("failed -1: uWSGI %d is not reloaded: uWSGI's configuration is not known (command line: reading %s/gone.ini: no such file", gone.Pid, dir)},
		{"a worker is no master", with(func(s *facts.Socket) { s.Master = s.Workers[0].Process }), "hup", fmt.Sprintf("stale -1: uWSGI %d is not reloaded: it would end uWSGI: it runs without a master process", s.Workers[0].PID)},
		{"another's FIFO", s, "fifo:" + other, fmt.Sprintf("stale -1: %s is not open in uWSGI %d", other, u.Pid)},
		{"nobody reads", s, "fifo:" + dir + "/unread", "stale -1: " + dir + "/unread: nobody reads from it"},
		{"no FIFO any more", s, "fifo:" + dir + "/none", "stale -1: " + dir + "/none is gone"},
		{"link to the FIFO", s, "fifo:" + dir + "/fifolink", "failed -1: " + dir + "/fifolink is a symbolic link"},
		{"not a FIFO", s, "fifo:" + dir + "/file", "stale -1: " + dir + "/file is not a FIFO"},
		{"touch of a link", s, "touch:" + dir + "/filelink", fmt.Sprintf("failed -1: it is not known what %s/filelink is to uWSGI %d: %[1]s/filelink is a symbolic link", dir, u.Pid)},
		{"touch of a directory", s, "touch:" + dir, fmt.Sprintf("stale -1: %s is no file that uWSGI %d watches for a reload alone", dir, u.Pid)},
		{"touch of another's", s, "touch:" + dir + "/other.touch", fmt.Sprintf("stale -1: %s/other.touch is no file that uWSGI %d watches for a reload alone", dir, u.Pid)},
		{"touch of what does more", s, "touch:" + dir + "/exec", fmt.Sprintf("stale -1: %s/exec is no file that uWSGI %d watches for a reload alone", dir, u.Pid)},
		{"touch of nothing", s, "touch:" + dir + "/none", fmt.Sprintf("failed -1: it is not known what %s/none is to uWSGI %d: stat %s/none: no such file", dir, u.Pid, dir)},
		{"no systemd", s, "systemd:app.service", "failed -1: no connection to systemd"},
		{"unknown way", s, "kill", `failed -1: no way "kill" to reload`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantResult(t, do(t, remediate.Reload{Socket: tt.socket, Way: way(tt.way), Timeout: time.Minute}), tt.want)
		})
	}
	if _, err := os.Stat(dir + "/none"); err == nil {
		t.Error("touch made a file")
	}
	if after := slices.Concat(pidsOfWorkers(t, u), pidsOfWorkers(t, once), pidsOfWorkers(t, gone), pidsOfWorkers(t, more)); !slices.Equal(before, after) {
		t.Errorf("workers %v, then %v, want the same", before, after)
	}
}

// SIGHUP ends the first process of a uWSGI without a master and leaves the
// others alone; from outside they look like a master and its workers.
func TestReloadWithoutMaster(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	ini := filepath.Join(t.TempDir(), "app.ini")
	write(t, ini, "[uwsgi]\nmaster = false\nprocesses = 3\n")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5325", Workers: 2, Args: []string{"--ini", ini}})
	r := do(t, remediate.Reload{Socket: socketOf(t, u.Address), Way: way("hup"), Timeout: time.Minute})
	wantResult(t, r, fmt.Sprintf("stale -1: uWSGI %d is not reloaded: it would end uWSGI: it runs without a master process", u.Pid))
}

// A worker that is busy holds the reload up.
func TestReloadTimeout(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5330"})
	connections := func() (n int) {
		for _, pid := range pidsOfWorkers(t, u) {
			held, _ := kernel.Sockets(pid)
			n += len(held)
		}
		return n
	}
	idle := connections()
	ctx, cancel := context.WithCancel(t.Context())
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		testbed.Flood(ctx, u.Address, testbed.FloodOptions{Connections: 1, Request: "/?ms=20000"})
	}()
	defer func() { cancel(); <-flooded }()
	s := socketOf(t, u.Address)
	eventually(t, func() string {
		if connections() > idle {
			return ""
		}
		return "no worker has accepted the connection"
	})
	r := quick(nil).Apply(t.Context(), remediate.Reload{Socket: s, Way: way("hup"), Timeout: 5 * time.Second})
	got := regexp.MustCompile(`\d+ \(`).ReplaceAllString(show(r), "PID (")
	want := "failed -1: reload of uWSGI PID (hup): not done after 5s; 1 old worker of 2 still at work (worker-reload-mercy gives them 60 seconds)"
	if got != want {
		t.Errorf("result %q, want %q", got, want)
	}
}

// A worker that has lost its master is no second master.
func TestReloadThatKillsTheMaster(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5341"})
	s := socketOf(t, u.Address)
	ctx, cancel := context.WithCancel(t.Context())
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		testbed.Flood(ctx, u.Address, testbed.FloodOptions{Connections: 1, Request: "/?ms=20000"})
	}()
	defer func() { cancel(); <-flooded }()
	workers := pidsOfWorkers(t, u)
	t.Cleanup(func() {
		for _, pid := range workers {
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	eventually(t, func() string {
		for _, pid := range workers {
			if held, _ := kernel.Sockets(pid); len(held) > 1 {
				return ""
			}
		}
		return "no worker has accepted the connection"
	})
	go func() {
		if err := testbed.Until(t.Context(), 15*time.Second, "no reload", func() bool { return len(alive(workers)) == 1 }); err == nil {
			unix.Kill(u.Pid, unix.SIGKILL)
		}
	}()
	r := do(t, remediate.Reload{Socket: s, Way: way("hup"), Timeout: 15 * time.Second})
	wantResult(t, r, "failed -1: reload of uWSGI", "the master has ended; its log says why")
}

// alive are those of the processes that have not ended.
func alive(pids []int) (left []int) {
	for _, pid := range pids {
		if st, err := kernel.ReadStat(pid); err == nil && st.State != 'Z' {
			left = append(left, pid)
		}
	}
	return left
}

// What the plan could not know ends the master, and the outcome says so.
func TestReloadEndsTheMaster(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	ini := filepath.Join(t.TempDir(), "app.ini")
	write(t, ini, "[uwsgi]\nstrict = true\n")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5340", Args: []string{"--ini", ini}})
	s := socketOf(t, u.Address)
	write(t, ini, "[uwsgi]\nstrict = true\nno-such-option = true\n")
	r := do(t, remediate.Reload{Socket: s, Way: way("hup"), Deploy: true, Timeout: time.Minute}) // the file is younger
	wantResult(t, r, "failed -1: reload of uWSGI", "the master has ended; its log says why")
}

// A configuration that cannot be read in time is not known.
func TestReloadOfHangingConfiguration(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5342"})
	s := socketOf(t, u.Address)
	before := pidsOfWorkers(t, u)
	hang := make(chan struct{})
	defer close(hang)
	a := quick(nil)
	var asked atomic.Int32
	a.configs.Ask = func(context.Context, uwsgi.Process) (facts.Config, error) {
		asked.Add(1)
		<-hang
		return facts.Config{}, nil
	}
	for range 2 {
		r := a.Apply(t.Context(), remediate.Reload{Socket: s, Way: way("hup"), Timeout: time.Minute})
		wantResult(t, r, fmt.Sprintf("failed -1: uWSGI %d is not reloaded: uWSGI's configuration is not known (it has not answered for ", u.Pid))
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("read %d times while the first one hangs", n)
	}
	if after := pidsOfWorkers(t, u); !slices.Equal(before, after) {
		t.Errorf("workers %v, then %v, want the same", before, after)
	}
}

func TestReloadRights(t *testing.T) {
	testbed.Needs(t, "root", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5350", User: "nobody"})
	s := socketOf(t, u.Address)
	defer visit(t, u.Address)()
	act := func() remediate.Outcome {
		a, read := quick(nil), uwsgi.Running(uwsgi.ProcessOf(s.Master), names, "") // the rights are this thread's only
		a.configs.Ask = func(context.Context, uwsgi.Process) (facts.Config, error) { return read, nil }
		return a.Apply(t.Context(), remediate.Reload{Socket: s, Way: way("hup"), Timeout: time.Minute})
	}
	// Whoever may not see how it is configured does not reload it.
	as(t, 1000, []int{unix.CAP_KILL}, func() {
		wantResult(t, act(), fmt.Sprintf("failed -1: uWSGI %d is not reloaded: uWSGI's configuration is not known (", u.Pid))
	})
	as(t, 1000, []int{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}, func() {
		wantResult(t, act(), "failed -1: SIGHUP to process", "operation not permitted; needs the same user or CAP_KILL")
	})
	as(t, 1000, []int{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_KILL}, func() {
		wantResult(t, act(), "applied -1 (2 new workers")
	})
}

// units stands in for systemd.
type units struct {
	can    bool
	fail   error
	log    []string
	master int   // whom a reload signals
	up     error // what Refused says
}

func (u *units) Main(context.Context, string) (int, bool, error) { return u.master, u.can, nil }

func (u *units) Reload(_ context.Context, unit string) error {
	u.log = append(u.log, "reload "+unit)
	if u.fail != nil {
		return u.fail
	}
	return unix.Kill(u.master, unix.SIGHUP)
}

func (u *units) Refused(context.Context, string) error { return u.up }

func (u *units) Start(_ context.Context, unit string) error {
	u.log = append(u.log, "start "+unit)
	return u.fail
}

func TestReloadSystemd(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	for _, tt := range []struct {
		name  string
		units units
		want  string
		log   []string
	}{
		{"done", units{}, "applied -1 (2 new workers", []string{"reload app.service"}},
		{"job failed", units{fail: errors.New("job failed")}, "failed -1: job failed", []string{"reload app.service"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:0"}) // an old worker may hold the last one's yet
			tt.units.master = u.Pid
			defer visit(t, u.Address)()
			wantResult(t, quick(&tt.units).Apply(t.Context(), remediate.Reload{Socket: socketOf(t, u.Address), Way: way("systemd:app.service"), Timeout: time.Minute}), tt.want)
			if !slices.Equal(tt.units.log, tt.log) {
				t.Errorf("systemd was asked %q, want %q", tt.units.log, tt.log)
			}
		})
	}
}

// unready tells whether a reload would hang on the worker: it has just been
// forked and has no signal handlers of its own.
func unready(w facts.Worker) bool {
	ok, err := kernel.Catches(w.PID, unix.SIGHUP)
	return err != nil || !ok || w.State != 'S'
}

// A vassal is reloaded, and not its emperor.
func TestReloadVassal(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.ini"), "[uwsgi]\nmaster = true\nprocesses = 2\nplugin = python3\nsocket = 127.0.0.1:5371\nwsgi-file = "+dir+"/a.py\n")
	write(t, filepath.Join(dir, "a.py"), "def application(e, s):\n    s('200 OK', [])\n    return [b'']\n")
	emperor := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5370", Args: []string{"--emperor", dir}})
	var s facts.Socket
	eventually(t, func() string {
		for _, s = range observe(t).Sockets {
			if s.Address == "127.0.0.1:5371" && len(s.Workers) == 2 && s.Master.PID != emperor.Pid && !slices.ContainsFunc(s.Workers, unready) {
				return ""
			}
		}
		return "no vassal"
	})
	r := do(t, remediate.Reload{Socket: s, Way: way("hup"), Timeout: time.Minute})
	wantResult(t, r, "applied -1 (2 new workers")
}

func TestStart(t *testing.T) {
	act := func(u Units) remediate.Outcome {
		return New(nil, u).Apply(t.Context(), remediate.Start{Unit: "app.service", Timeout: time.Minute})
	}
	u := &units{}
	wantResult(t, act(u), "applied -1")
	if !slices.Equal(u.log, []string{"start app.service"}) {
		t.Errorf("systemd was asked %q", u.log)
	}
	wantResult(t, act(&units{fail: errors.New("job failed")}), "failed -1: start app.service: job failed")
	stopped := &units{up: errors.New("it is inactive")}
	wantResult(t, act(stopped), "stale -1: app.service: it is inactive")
	if len(stopped.log) != 0 {
		t.Errorf("systemd was asked %q", stopped.log)
	}
	wantResult(t, act(nil), "failed -1: no connection to systemd")
}
