package trail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func defaults() remediate.Policy {
	return remediate.Policy{
		Corroborate: true, Factor: 2, MinBacklog: 1024, MaxBacklog: 8192, Cooldown: time.Minute, GiveUpAfter: 3,
		Sysctl: true, SysctlFile: "/etc/sysctl.d/90-qwatch.conf", Relisten: true, Reload: remediate.Always, ReloadHow: remediate.How{Method: remediate.MethodAuto},
		ReloadTimeout: 90 * time.Second, ReloadCooldown: 10 * time.Minute, ReloadsPerHour: 4,
	}
}

// full is the case of one uWSGI whose queue overflows.
func full() remediate.Case {
	s := facts.Socket{
		ID: facts.SocketID{NetNS: 1, Inode: 77}, Family: facts.TCP, Address: "127.0.0.1:5000",
		Length: 129, Limit: 128, FD: 3, Somaxconn: facts.Known(128),
		Master:  facts.Process{PID: 1234, Start: 99, Comm: "uwsgi", Unit: facts.Known("app.service")},
		Workers: make([]facts.Worker, 4),
		Config:  facts.Config{Listen: facts.Known(facts.Setting{Listen: 128, At: "/etc/uwsgi/app.ini:3"}), ReloadEnds: facts.Absent[string](), Mode: facts.Known(facts.NewMode())},
		Sight:   facts.Known(facts.Sight{Files: true}),
		Deploy: facts.Deploy{
			Since: facts.Known(time.Unix(1, 0)), Loaded: facts.Known(time.Unix(1, 0)), Lost: facts.Absent[string](), Program: facts.Absent[facts.File](),
			Config: facts.Absent[facts.File](), Source: facts.Absent[facts.File](),
		},
		Unit:      facts.Absent[facts.SocketUnit](),
		Untrusted: facts.Absent[string](), Paused: facts.Absent[string](),
		Ways: facts.Ways{NoSignal: facts.Absent[string](), Sharers: facts.Absent[string]()},
	}
	return remediate.Case{
		Incident: matcher.Incident{ID: "inc-1", Socket: s.Address, Hits: 3, Peak: 129, Limit: 128},
		Facts:    facts.Snapshot{At: now, Sockets: []facts.Socket{s}, Sysctl: map[string]int{"net.core.somaxconn": 128}, Cannot: facts.Allowed()},
		Socket:   s,
		Evidence: facts.Evidence{Samples: 4, Full: 3, Peak: 129, Limit: 128},
	}
}

// wholePlan has an action of each kind.
func wholePlan() remediate.Plan { return remediate.Decide(defaults(), full(), nil, now) }

// past is an event about the socket of full, ago before now.
func past(ago time.Duration, plan string, action remediate.ActionKind, result remediate.Result) remediate.Event {
	s := full().Socket
	return remediate.Event{
		Time: now.Add(-ago), Plan: plan, Incident: "inc-1", Socket: s.Name(), Action: action, Target: s.Name(),
		PID: s.Master.PID, Start: s.Master.Start, Inode: s.ID.Inode, Result: result, Why: "test",
	}
}

// works is an Applier that has done everything, and counts it.
type works struct{ n int }

func (w *works) Apply(context.Context, remediate.Action) remediate.Outcome {
	w.n++
	return remediate.Outcome{Result: remediate.Applied, Now: -1}
}

// shows is a host as it looks.
type shows struct{ facts facts.Snapshot }

func (s shows) Observe(context.Context) (facts.Snapshot, error) { return s.facts, nil }
func (s shows) Sample(context.Context) ([]facts.Sample, error)  { return nil, nil }

func runner(actor remediate.Actor, trail *Trail) remediate.Runner {
	return remediate.Runner{Actor: actor, Trail: trail, Host: shows{full().Facts},
		Acted: func(remediate.Plan, remediate.Outcome) {}, Judged: func(remediate.Done) {}, Waits: func(remediate.Plan, remediate.Outlook) {}}
}

type applierFunc func(context.Context, remediate.Action) remediate.Outcome

func (f applierFunc) Apply(ctx context.Context, a remediate.Action) remediate.Outcome {
	return f(ctx, a)
}

func results(h remediate.History) (lines []string) {
	for _, e := range h {
		line := fmt.Sprintf("%s %s %s", e.Result, e.Action, e.Target)
		if e.Error != "" {
			line += ": " + e.Error
		}
		lines = append(lines, line)
	}
	return lines
}

func openTrail(t *testing.T, path string) *Trail {
	t.Helper()
	trail, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trail.Close() })
	return trail
}

func history(t *testing.T, trail *Trail) remediate.History {
	t.Helper()
	h, err := trail.History()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The test binary runs itself to be killed, or to run out of disk.
func TestMain(m *testing.M) {
	if path := os.Getenv("TRAIL_OF_CHILD"); path != "" {
		if err := children[os.Getenv("CHILD")](path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var children = map[string]func(path string) error{
	"killed at net.core.somaxconn": killedAt("net.core.somaxconn"),
	"killed at relisten":           killedAt("127.0.0.1:5000"),
	"killed at reload":             killedAt("uwsgi 1234 (app.service)"),
	"full disk":                    fullDisk,
}

// killedAt carries a plan out until the action with this target, and there is
// killed as by kill -9.
func killedAt(target string) func(string) error {
	return func(path string) error {
		trail, err := Open(path)
		if err != nil {
			return err
		}
		host := &works{}
		actor := remediate.Acting{Trail: trail, Applier: applierFunc(func(ctx context.Context, a remediate.Action) remediate.Outcome {
			if a.Describe().Target == target {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
			return host.Apply(ctx, a)
		})}
		return runner(actor, trail).Run(context.Background(), []remediate.Plan{wholePlan()})[0].Err
	}
}

// fullDisk appends a line for which there is no room but for its first bytes,
// and then, with room again, another.
func fullDisk(path string) error {
	trail, err := Open(path)
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ) // write(2) then answers EFBIG
	var whole unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &whole); err != nil {
		return err
	}
	if err := trail.Append(past(3*time.Second, "inc-1.1", "relisten", remediate.Started)); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	small := unix.Rlimit{Cur: uint64(info.Size()) + 20, Max: whole.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	host := &works{}
	p := wholePlan()
	r := remediate.Acting{Applier: host, Trail: trail}.Do(context.Background(), []remediate.Step{{Plan: p, Action: p.Actions[0]}})[0]
	if r.Result != remediate.Failed || host.n != 0 {
		return fmt.Errorf("acted without a record: %+v, %d actions", r, host.n)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &whole); err != nil {
		return err
	}
	return trail.Append(past(time.Second, "inc-1.1", "relisten", remediate.Applied))
}

// runChild returns when the child has ended, however it did.
func runChild(t *testing.T, child, path string) error {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "CHILD="+child, "TRAIL_OF_CHILD="+path)
	out, err := cmd.CombinedOutput()
	if len(out) > 0 {
		t.Errorf("child %q: %s", child, out)
	}
	return err
}

func TestTrailTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state", "audit.jsonl")
	a, b := openTrail(t, path), openTrail(t, path)
	from, to := 128, 1024
	first := past(time.Minute, "inc-1.1", "relisten", remediate.Applied)
	first.From, first.To = &from, &to
	second := past(time.Second, "inc-1.2", "relisten", remediate.Failed)
	second.Error = "a\nb \u2028 </script> \x00"
	if err := a.Append(first); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(remediate.History{first}, history(t, b)); diff != "" {
		t.Errorf("b (-want +got)\n%s", diff)
	}
	if err := b.Append(second); err != nil {
		t.Fatal(err)
	}
	for name, trail := range map[string]*Trail{"a": a, "b": b} {
		for range 2 { // the second time nothing is new
			if diff := cmp.Diff(remediate.History{first, second}, history(t, trail)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", name, diff)
			}
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n != 2 {
		t.Errorf("%d lines for 2 events: %s", n, text)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody may read the trail: %v", info.Mode())
	}
}

// What History returns is the caller's.
func TestHistoryIsACopy(t *testing.T) {
	trail := &Trail{}
	if err := trail.Append(past(0, "inc-1.1", "relisten", remediate.Applied)); err != nil {
		t.Fatal(err)
	}
	history(t, trail)[0].Plan = "changed"
	if got := history(t, trail)[0].Plan; got != "inc-1.1" {
		t.Errorf("plan %s", got)
	}
}

func TestTrailTornAndGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	line, err := json.Marshal(past(time.Minute, "inc-1.1", "relisten", remediate.Applied))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%s\n\nnot json\n[]\n{}\n{\"action\":7}\n\xff\xfe\n%s\n%s", line, line, line[:40])
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	trail := openTrail(t, path)
	if n := len(history(t, trail)); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
	if err := trail.Append(past(0, "inc-1.2", "relisten", remediate.Applied)); err != nil {
		t.Fatal(err)
	}
	h := history(t, trail)
	if len(h) != 3 || h[2].Plan != "inc-1.2" {
		t.Errorf("after the torn line: %v", results(h))
	}
	if now, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(now), text) {
		t.Errorf("what was there is no longer: %q (%v)", now, err)
	}
}

func TestTrailFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := runChild(t, "full disk", path); err != nil {
		t.Fatal(err)
	}
	h, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"started relisten 127.0.0.1:5000", "applied relisten 127.0.0.1:5000"}, results(h)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n != 3 {
		t.Errorf("%d lines, want 2 whole and 1 torn:\n%s", n, text)
	}
}

func TestTrailReadsTheTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var text bytes.Buffer
	n := 0
	for ; text.Len() < 3<<20; n++ {
		e := past(time.Hour, fmt.Sprint("inc-1.", n), "relisten", remediate.Applied)
		e.Error = strings.Repeat("x", 1000) // so that there are fewer than keepEvents
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(append(line, '\n'))
	}
	if err := os.WriteFile(path, text.Bytes(), 0o640); err != nil {
		t.Fatal(err)
	}
	trail := openTrail(t, path)
	read, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]remediate.History{"Open": history(t, trail), "Read": read} {
		if len(h) == 0 || len(h) > n/2 {
			t.Fatalf("%s: %d of %d events", name, len(h), n)
		}
		for i, e := range h { // whole, in order, to the last
			if want := fmt.Sprint("inc-1.", n-len(h)+i); e.Plan != want {
				t.Fatalf("%s: event %d is of plan %s, want %s", name, i, e.Plan, want)
			}
		}
	}
	if got := remediate.Decide(defaults(), full(), read, now).ID; got != fmt.Sprint("inc-1.", n) {
		t.Errorf("next plan %s after inc-1.%d", got, n-1)
	}
}

// Memory stays bounded however many events come.
func TestTrailKeepsTheNewest(t *testing.T) {
	trail := &Trail{}
	for i := range keepEvents + 100 {
		if err := trail.Append(past(0, fmt.Sprint("inc-1.", i), "relisten", remediate.Applied)); err != nil {
			t.Fatal(err)
		}
	}
	h := history(t, trail)
	if len(h) != keepEvents || h[0].Plan != "inc-1.100" {
		t.Errorf("%d events from %s on", len(h), h[0].Plan)
	}
}

// logrotate's copytruncate cuts the file under a qwatch that runs: what is
// written then is read, and what was read stays known.
func TestTrailCutShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	a, b := openTrail(t, path), openTrail(t, path)
	for i := range 3 {
		if err := a.Append(past(time.Hour, fmt.Sprint("inc-1.", i), "relisten", remediate.Applied)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(history(t, a)); n != 3 {
		t.Fatalf("%d events", n)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Append(past(0, "inc-1.3", "relisten", remediate.Applied)); err != nil {
		t.Fatal(err)
	}
	h := history(t, a)
	if len(h) != 4 || h[3].Plan != "inc-1.3" {
		t.Errorf("%v", results(h))
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "audit.jsonl")
	h, err := Read(path)
	if h != nil || err != nil {
		t.Errorf("%v, %v", h, err)
	}
	if _, err := os.Stat(filepath.Dir(path)); err == nil {
		t.Error("reading made a directory")
	}
	if _, err := Read(t.TempDir()); err == nil {
		t.Error("a directory was read as a trail")
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(file, "audit.jsonl")} {
		if trail, err := Open(path); err == nil {
			trail.Close()
			t.Errorf("opened %s", path)
		} else if !strings.Contains(err.Error(), "audit trail") || !strings.Contains(err.Error(), file) && !strings.Contains(err.Error(), dir) {
			t.Errorf("error %q", err)
		}
	}
}

func TestTrailLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	a, b := openTrail(t, path), openTrail(t, path)
	unlock, err := a.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Lock(ended); err == nil || err.Error() != "another qwatch is acting on this host: context canceled" {
		t.Errorf("second lock: %v", err)
	}
	// A trail that is locked can be read.
	if _, err := b.History(); err != nil {
		t.Error(err)
	}
	got := make(chan error)
	go func() {
		unlock, err := b.Lock(t.Context())
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	// Closing lets go as well.
	if _, err := a.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := b.Lock(t.Context()); err != nil {
		t.Error(err)
	}
	memory := &Trail{}
	if unlock, err := memory.Lock(t.Context()); err != nil {
		t.Error(err)
	} else {
		unlock()
	}
	if err := memory.Close(); err != nil {
		t.Error(err)
	}
}

// Several events are one write, and a pass that one holds keeps the other out, in
// one process too.
func TestTrailOfPasses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	a, b := openTrail(t, path), openTrail(t, path)
	if err := a.Append(past(2, "inc-1.1", "relisten", remediate.Started), past(1, "inc-2.1", "relisten", remediate.Started)); err != nil {
		t.Fatal(err)
	}
	if got := results(history(t, b)); len(got) != 2 {
		t.Errorf("%q", got)
	}
	soon, cancel := context.WithCancel(t.Context())
	cancel()
	for name, trails := range map[string][2]*Trail{"one process": {a, a}, "two": {a, b}, "memory": {{}, {}}} {
		unlock, err := trails[0].Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trails[1].Lock(soon); (err == nil) != (name == "memory") {
			t.Errorf("%s: %v", name, err)
		}
		// A pass and a reload do not wait for each other, nor two reloads.
		one, err := trails[0].Hold(soon, "uWSGI 1.1")
		if err != nil {
			t.Fatal(err)
		}
		other, err := trails[1].Hold(soon, "uWSGI 2.1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trails[1].Hold(soon, "uWSGI 1.1"); name != "memory" && (err == nil || err.Error() != "another qwatch is acting on uWSGI 1.1: context canceled") {
			t.Errorf("%s: %v", name, err)
		}
		one()
		if one, err = trails[1].Hold(soon, "uWSGI 1.1"); err != nil {
			t.Errorf("%s: not let go of: %v", name, err)
		} else {
			one()
		}
		other()
		unlock()
	}
}

// A reload that another qwatch is still at is not brought to an end.
func TestRecoverLeavesOthersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	a, b := openTrail(t, path), openTrail(t, path)
	held := remediate.Acting{Trail: a, Applier: applierFunc(func(context.Context, remediate.Action) remediate.Outcome {
		recover := remediate.Runner{Trail: b, Host: shows{full().Facts}}
		if err := recover.Recover(t.Context(), 0, func(_, _ remediate.Event) { t.Error("recovered") }); err != nil {
			t.Error(err)
		}
		return remediate.Outcome{Result: remediate.Failed, Now: -1, Err: errors.New("no")}
	})}
	p := wholePlan()
	p.Actions = slices.DeleteFunc(p.Actions, func(a remediate.Action) bool { _, reload := a.(remediate.Reload); return !reload })
	if done := runner(held, a).Run(t.Context(), []remediate.Plan{p}); len(done[0].Outcomes) != 1 || done[0].Err != nil {
		t.Errorf("%+v", done)
	}
	if open := history(t, b).Unfinished(); len(open) > 0 {
		t.Errorf("%v", results(open))
	}
}

// A kill between the two lines of an action: the next qwatch reads from the
// trail what was begun, and from the host how it ended.
func TestKilled(t *testing.T) {
	tests := []struct {
		child    string
		action   remediate.ActionKind
		begun    int // actions that were
		host     func(f *facts.Snapshot)
		want     remediate.Result
		now      int // what the host shows, -1 where it shows nothing
		err, why string
	}{
		{"killed at net.core.somaxconn", "sysctl", 2, func(f *facts.Snapshot) {}, remediate.Failed, 128, "interrupted before it took effect", ""},
		{"killed at net.core.somaxconn", "sysctl", 2, func(f *facts.Snapshot) { f.Sysctl["net.core.somaxconn"] = 1024 }, remediate.Applied, 1024, "",
			" (qwatch was interrupted; the host shows that it took effect)"},
		{"killed at relisten", "relisten", 2, func(f *facts.Snapshot) {}, remediate.Failed, 128, "interrupted before it took effect", ""},
		{"killed at relisten", "relisten", 2, func(f *facts.Snapshot) { f.Sockets = nil }, remediate.Failed, -1,
			"interrupted; it is not known whether it took effect: what it was about is not seen any more", ""},
		{"killed at relisten", "relisten", 2, func(f *facts.Snapshot) { f.Sockets[0].Limit = 1024 }, remediate.Applied, 1024, "",
			" (qwatch was interrupted; the host shows that it took effect)"},
		{"killed at relisten", "relisten", 2, func(f *facts.Snapshot) { f.Sockets[0].Limit, f.Sockets[0].ID.Inode = 1024, 5 }, remediate.Failed, -1,
			"interrupted; it is not known whether it took effect: what it was about is not seen any more", ""},
		{"killed at reload", "reload", 1, func(f *facts.Snapshot) {}, remediate.Failed, -1, "interrupted; it is not known whether it took effect", ""},
	}
	for i, test := range tests {
		t.Run(fmt.Sprint(i, " ", test.child), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			if err := runChild(t, test.child, path); err == nil {
				t.Fatal("the child lived")
			}
			trail := openTrail(t, path)
			unlock, err := trail.Lock(t.Context())
			if err != nil {
				t.Fatalf("the dead hold a lock: %v", err)
			}
			unlock()
			open := history(t, trail).Unfinished()
			i := slices.IndexFunc(open, func(e remediate.Event) bool { return e.Action == test.action })
			if i < 0 || len(open) != test.begun {
				t.Fatalf("unfinished: %v", results(open))
			}
			begun := open[i]
			snapshot := full().Facts
			snapshot.At = begun.Time.Add(time.Minute)
			if test.action != "sysctl" {
				snapshot.Sysctl["net.core.somaxconn"] = 1024 // that was done before
			}
			test.host(&snapshot)
			var told [][2]remediate.Event
			all := 0
			r := remediate.Runner{Trail: trail, Host: shows{snapshot}}
			if err := r.Recover(t.Context(), 0, func(begun, end remediate.Event) {
				if all++; begun.Action == test.action {
					told = append(told, [2]remediate.Event{begun, end})
				}
			}); err != nil || all != test.begun {
				t.Fatalf("%d told, %v", all, err)
			}
			want := begun
			want.Time, want.Result, want.Error, want.Why = snapshot.At.UTC(), test.want, test.err, want.Why+test.why
			if test.now >= 0 {
				want.Now = &test.now
			}
			if diff := cmp.Diff([][2]remediate.Event{{begun, want}}, told); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			h := history(t, trail)
			if open := h.Unfinished(); len(open) > 0 {
				t.Errorf("still unfinished: %v", results(open))
			}
			// The next plan of the incident is another one, and raises in place
			// if that is left to do.
			next := full()
			later := snapshot.At.Add(time.Hour)
			next.Facts, next.Facts.At = snapshot, later
			if len(snapshot.Sockets) > 0 {
				next.Socket = snapshot.Sockets[0]
			}
			p := defaults()
			p.Reload = remediate.Always
			plan := remediate.Decide(p, next, h, later)
			inPlace := slices.ContainsFunc(plan.Actions, func(a remediate.Action) bool { _, ok := a.(remediate.Relisten); return ok })
			if plan.ID != "inc-1.2" || !inPlace {
				t.Errorf("next plan %s: %s: %s", plan.ID, plan.Verdict, plan.Reason)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	from, to := 128, 1024
	applied := past(0, "inc-1.1", "sysctl", remediate.Applied)
	applied.From, applied.To = &from, &to
	line, err := json.Marshal(applied)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add(append(append(line, '\n'), line[:30]...))
	f.Add([]byte("\n\n{}\n[]\nnull\n{\"action\":\"judge\",\"to\":null}\n"))
	f.Add([]byte(`{"action":"relisten","result":"started","socket":"127.0.0.1:5000","plan":"inc-1.9223372036854775807","incident":"inc-1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h := remediate.History(parse(text))
		if len(h) > bytes.Count(text, []byte("\n"))+1 {
			t.Errorf("%d events in %q", len(h), text)
		}
		// Whatever stands in a trail, a decision can be made, and what was
		// begun can be brought to an end.
		plan := remediate.Decide(defaults(), full(), h, now)
		if (plan.Verdict == remediate.Act) != (len(plan.Actions) > 0) {
			t.Errorf("%+v", plan)
		}
		trail := &Trail{}
		for _, e := range h {
			if err := trail.Append(e); err != nil {
				t.Fatal(err)
			}
		}
		r := remediate.Runner{Trail: trail, Host: shows{full().Facts}}
		if err := r.Recover(t.Context(), 0, func(_, _ remediate.Event) {}); err != nil {
			t.Fatal(err)
		}
		if h = history(t, trail); len(h.Unfinished()) > 0 {
			t.Errorf("still unfinished: %v", results(h.Unfinished()))
		}
		for _, e := range h {
			line, err := json.Marshal(e)
			if err != nil {
				continue // a year over 9999
			}
			again := parse(line)
			if len(again) != 1 {
				t.Fatalf("%s is read as %v", line, again)
			}
			if diff := cmp.Diff(e, again[0]); diff != "" {
				t.Errorf("%s (-written +read)\n%s", line, diff)
			}
		}
	})
}

// The trail is read on terminals, too.
func TestTrailHoldsNoControlCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	trail, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	e := past(time.Second, "inc-1.1", "relisten", remediate.Failed)
	e.Error = "open /run/\u202egol.kcos\x1b\u009b\xff"
	if err := trail.Append(e); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.ContainsAny(string(text), "\u202e\x1b\u009b") || !strings.Contains(string(text), "/run/�gol.kcos") {
		t.Errorf("the trail holds %q, %v", text, err)
	}
}

// A trail that is rotated or removed during a pass, and written to anew, keeps
// others out until the end of the pass.
func TestTrailRotatedDuringAPass(t *testing.T) {
	for _, away := range []func(path string) error{
		os.Remove,
		func(path string) error { return os.Rename(path, path+".1") },
	} {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		daemon := openTrail(t, path)
		unlock, err := daemon.Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(away(path), daemon.Append(past(time.Second, "inc-1.1", "relisten", remediate.Started))); err != nil {
			t.Fatal(err)
		}
		apply := openTrail(t, path)
		soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if unlock, err := apply.Lock(soon); err == nil {
			unlock()
			t.Error("both act at once")
		}
		// One thing is held beside a pass.
		hold, err := apply.Hold(t.Context(), "uWSGI 7")
		if err != nil {
			t.Fatal(err)
		}
		hold()
		unlock()
		again, err := apply.Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again()
	}
}

// A trail that was rotated or removed while qwatch runs must still keep two of
// them from acting at once, and keep on recording.
func TestTrailRotatedWhileItRuns(t *testing.T) {
	for _, away := range []func(path string) error{
		os.Remove,
		func(path string) error { return os.Rename(path, path+".1") },
	} {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		daemon, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer daemon.Close()
		before := past(2*time.Second, "inc-1.1", "relisten", remediate.Applied)
		if err := daemon.Append(before); err != nil {
			t.Fatal(err)
		}
		if _, err := daemon.History(); err != nil {
			t.Fatal(err)
		}
		if err := away(path); err != nil {
			t.Fatal(err)
		}
		unlock, err := daemon.Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		apply, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer apply.Close()
		soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := apply.Lock(soon); err == nil {
			t.Error("both act at once")
		}
		if err := daemon.Append(past(time.Second, "inc-1.2", "relisten", remediate.Applied)); err != nil {
			t.Fatal(err)
		}
		unlock()
		if h, err := apply.History(); err != nil || len(h) != 1 {
			t.Errorf("the new trail holds %d events (%v), want 1", len(h), err)
		}
		if h, err := daemon.History(); err != nil || len(h) != 2 {
			t.Errorf("%d events are known (%v), want 2", len(h), err)
		}
	}
}
func TestActingWritesBeforeAndAfter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "audit.jsonl")
	trail := openTrail(t, path)
	// At the time of each action the trail on the disk says that it began.
	spy := applierFunc(func(_ context.Context, a remediate.Action) remediate.Outcome {
		h, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		target := a.Describe().Target
		if open := h.Unfinished(); !slices.ContainsFunc(open, func(e remediate.Event) bool { return e.Target == target }) {
			t.Errorf("at %s the trail has begun %v", a, results(open))
		}
		if target == "127.0.0.1:5000" {
			return remediate.Outcome{Result: remediate.Failed, Now: -1, Err: errors.New("the host says failed")}
		}
		return remediate.Outcome{Result: remediate.Applied, Now: -1}
	})
	synctest.Test(t, func(t *testing.T) {
		if done := runner(remediate.Acting{Applier: spy, Trail: trail}, trail).Run(t.Context(), []remediate.Plan{wholePlan()}); done[0].Err != nil {
			t.Error(done[0].Err)
		}
	})
	want := []string{
		"started sysctl net.core.somaxconn", "started relisten 127.0.0.1:5000",
		"applied sysctl net.core.somaxconn", "failed relisten 127.0.0.1:5000: the host says failed",
		"no-effect judge 127.0.0.1:5000",
	}
	if diff := cmp.Diff(want, results(history(t, trail))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestActingNeedsATrail(t *testing.T) {
	trail := openTrail(t, filepath.Join(t.TempDir(), "audit.jsonl"))
	trail.Close()
	host := &works{}
	p, actor := wholePlan(), remediate.Acting{Applier: host, Trail: trail}
	if o := actor.Do(t.Context(), []remediate.Step{{Plan: p, Action: p.Actions[0]}})[0]; o.Result != remediate.Failed || o.Err == nil || !strings.HasPrefix(o.Err.Error(), "nothing is changed that cannot be recorded: audit trail: ") {
		t.Errorf("%+v", o)
	}
	if got := runner(actor, trail).Run(t.Context(), []remediate.Plan{p})[0]; len(got.Outcomes) > 0 || got.Err == nil || !strings.HasPrefix(got.Err.Error(), "nothing was done: audit trail: ") {
		t.Errorf("%+v", got)
	}
	if host.n != 0 {
		t.Errorf("%d actions without a record", host.n)
	}
}

// A trail that fails between the two lines of an action: the action was done,
// and the error says that no record tells of it.
func TestActingTrailFailsUnderWay(t *testing.T) {
	trail := openTrail(t, filepath.Join(t.TempDir(), "audit.jsonl"))
	spy := applierFunc(func(context.Context, remediate.Action) remediate.Outcome {
		trail.Close()
		return remediate.Outcome{Result: remediate.Applied, Now: 1024}
	})
	p := wholePlan()
	r := remediate.Acting{Applier: spy, Trail: trail}.Do(t.Context(), []remediate.Step{{Plan: p, Action: p.Actions[0]}})[0]
	if r.Result != remediate.Applied || r.Err == nil || !strings.HasPrefix(r.Err.Error(), "applied, but it could not be recorded: ") {
		t.Errorf("%+v", r)
	}
}

func TestLockState(t *testing.T) {
	dir := t.TempDir()
	unlock, err := LockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockState(dir); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	again, err := LockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
	if _, err := LockState(filepath.Join(dir, "none")); err == nil || errors.Is(err, ErrRunning) {
		t.Errorf("a directory that is not there: %v", err)
	}
}
