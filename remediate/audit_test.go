package remediate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"qwatch/remediate/facts"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

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
		trail, err := OpenTrail(path)
		if err != nil {
			return err
		}
		if _, err := trail.Lock(context.Background()); err != nil {
			return err
		}
		host := newFakeHost()
		Run(context.Background(), wholePlan(), Acting{applierFunc(func(ctx context.Context, a Action) Result {
			if Describe(a).Target == target {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
			return host.Apply(ctx, a)
		}), trail}, func(Outcome) {})
		return nil
	}
}

// fullDisk appends a line for which there is no room but for its first bytes,
// and then, with room again, another.
func fullDisk(path string) error {
	trail, err := OpenTrail(path)
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ) // write(2) then answers EFBIG
	var whole unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &whole); err != nil {
		return err
	}
	if err := trail.Append(past(3*time.Second, "inc-1.1", "relisten", Started)); err != nil {
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
	host := newFakeHost()
	before, p := host.String(), wholePlan()
	r := Acting{host, trail}.Do(context.Background(), p, p.Actions[0])
	if r.Status != Failed || host.String() != before {
		return fmt.Errorf("acted without a record: %+v, %s", r, host)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &whole); err != nil {
		return err
	}
	return trail.Append(past(time.Second, "inc-1.1", "relisten", Applied))
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
	first := past(time.Minute, "inc-1.1", "relisten", Applied)
	first.From, first.To = &from, &to
	second := failed(past(time.Second, "inc-1.2", "relisten", Failed), "a\nb \u2028 </script> \x00")
	if err := a.Append(first); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(History{first}, history(t, b)); diff != "" {
		t.Errorf("b (-want +got)\n%s", diff)
	}
	if err := b.Append(second); err != nil {
		t.Fatal(err)
	}
	for name, trail := range map[string]*Trail{"a": a, "b": b} {
		for range 2 { // the second time nothing is new
			if diff := cmp.Diff(History{first, second}, history(t, trail)); diff != "" {
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
	if err := trail.Append(past(0, "inc-1.1", "relisten", Applied)); err != nil {
		t.Fatal(err)
	}
	history(t, trail)[0].Plan = "changed"
	if got := history(t, trail)[0].Plan; got != "inc-1.1" {
		t.Errorf("plan %s", got)
	}
}

func TestEventJSON(t *testing.T) {
	text, err := json.Marshal(eventOf(wholePlan(), wholePlan().Actions[4], now, Result{Status: Started}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-03-01T12:00:00Z","plan":"inc-1.1","incident":"inc-1","socket":"127.0.0.1:5000","pid":1234,"start":99,"inode":77,` +
		`"action":"reload","target":"uwsgi 1234 (app.service)","from":null,"to":null,"dry_run":false,"result":"started","why":"policy.reload.when is always"}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTrailTornAndGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	line, err := json.Marshal(past(time.Minute, "inc-1.1", "relisten", Applied))
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
	if err := trail.Append(past(0, "inc-1.2", "relisten", Applied)); err != nil {
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
	h, err := ReadHistory(path)
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
		line, err := json.Marshal(past(time.Hour, fmt.Sprint("inc-1.", n), "relisten", Applied))
		if err != nil {
			t.Fatal(err)
		}
		text.Write(append(line, '\n'))
	}
	if err := os.WriteFile(path, text.Bytes(), 0o640); err != nil {
		t.Fatal(err)
	}
	trail := openTrail(t, path)
	if least := int64(text.Len() - tailSize); trail.read < least {
		t.Errorf("reads from byte %d on, not %d", trail.read, least)
	}
	read, err := ReadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]History{"OpenTrail": history(t, trail), "ReadHistory": read} {
		if len(h) == 0 || len(h) > keepEvents || len(h) > n/2 {
			t.Fatalf("%s: %d of %d events", name, len(h), n)
		}
		for i, e := range h { // whole, in order, to the last
			if want := fmt.Sprint("inc-1.", n-len(h)+i); e.Plan != want {
				t.Fatalf("%s: event %d is of plan %s, want %s", name, i, e.Plan, want)
			}
		}
	}
	if got := Decide(defaults(), full(), read, now).ID; got != fmt.Sprint("inc-1.", n) {
		t.Errorf("next plan %s after inc-1.%d", got, n-1)
	}
}

// Memory stays bounded however many events come.
func TestTrailKeepsTheNewest(t *testing.T) {
	trail := &Trail{}
	for i := range keepEvents + 100 {
		if err := trail.Append(past(0, fmt.Sprint("inc-1.", i), "relisten", Applied)); err != nil {
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
		if err := a.Append(past(time.Hour, fmt.Sprint("inc-1.", i), "relisten", Applied)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(history(t, a)); n != 3 {
		t.Fatalf("%d events", n)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Append(past(0, "inc-1.3", "relisten", Applied)); err != nil {
		t.Fatal(err)
	}
	h := history(t, a)
	if len(h) != 4 || h[3].Plan != "inc-1.3" {
		t.Errorf("%v", results(h))
	}
}

func TestReadHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "audit.jsonl")
	h, err := ReadHistory(path)
	if h != nil || err != nil {
		t.Errorf("%v, %v", h, err)
	}
	if _, err := os.Stat(filepath.Dir(path)); err == nil {
		t.Error("reading made a folder")
	}
	if _, err := ReadHistory(t.TempDir()); err == nil {
		t.Error("a folder was read as a trail")
	}
}

func TestOpenTrailErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(file, "audit.jsonl")} {
		if trail, err := OpenTrail(path); err == nil {
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

// A kill between the two lines of an action: the next qwatch reads from the
// trail what was begun, and from the host how it ended.
func TestKilled(t *testing.T) {
	tests := []struct {
		child, action string
		host          func(f *facts.Snapshot)
		want          Status
		err, why      string
	}{
		{"killed at net.core.somaxconn", "sysctl", func(f *facts.Snapshot) {}, Failed, "interrupted before it took effect", ""},
		{"killed at net.core.somaxconn", "sysctl", func(f *facts.Snapshot) { f.Sysctl["net.core.somaxconn"] = 1024 }, Applied, "",
			" (qwatch was interrupted; the host shows that it took effect)"},
		{"killed at relisten", "relisten", func(f *facts.Snapshot) {}, Failed, "interrupted before it took effect", ""},
		{"killed at relisten", "relisten", func(f *facts.Snapshot) { f.Sockets = nil }, Failed, "interrupted before it took effect", ""},
		{"killed at relisten", "relisten", func(f *facts.Snapshot) { f.Sockets[0].Limit = 1024 }, Applied, "",
			" (qwatch was interrupted; the host shows that it took effect)"},
		{"killed at relisten", "relisten", func(f *facts.Snapshot) { f.Sockets[0].Limit, f.Sockets[0].ID.Inode = 1024, 5 }, Failed, "interrupted before it took effect", ""},
		{"killed at reload", "reload", func(f *facts.Snapshot) {}, Failed, "interrupted; it is not known whether it took effect", ""},
	}
	for i, test := range tests {
		t.Run(fmt.Sprint(i, " ", test.child), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			if err := runChild(t, test.child, path); err == nil {
				t.Fatal("the child lived")
			}
			trail := openTrail(t, path)
			unlock, err := trail.Lock(t.Context()) // the dead hold no lock
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
			open := history(t, trail).Unfinished()
			if len(open) != 1 || open[0].Action != test.action {
				t.Fatalf("unfinished: %v", results(open))
			}
			snapshot := full().Facts
			snapshot.At = open[0].Time.Add(time.Minute)
			if test.action != "sysctl" {
				snapshot.Sysctl["net.core.somaxconn"] = 1024 // that was done before
			}
			test.host(&snapshot)
			end := Settle(open[0], snapshot)
			want := open[0]
			want.Time, want.Result, want.Error, want.Why = snapshot.At.UTC(), test.want, test.err, want.Why+test.why
			if diff := cmp.Diff(want, end); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if err := trail.Append(end); err != nil {
				t.Fatal(err)
			}
			h := history(t, trail)
			if open := h.Unfinished(); len(open) > 0 {
				t.Errorf("still unfinished: %v", results(open))
			}
			// The next plan of the incident is another one, and raises in place
			// if that is left to do.
			next := full()
			next.Facts = snapshot
			if len(snapshot.Sockets) > 0 {
				next.Socket = snapshot.Sockets[0]
			}
			p := defaults()
			p.Reload = Always
			plan := Decide(p, next, h, snapshot.At.Add(time.Hour))
			inPlace := slices.ContainsFunc(plan.Actions, func(a Action) bool { _, ok := a.(Relisten); return ok })
			if plan.ID != "inc-1.2" || !inPlace {
				t.Errorf("next plan %s: %s: %s", plan.ID, plan.Verdict, plan.Reason)
			}
		})
	}
}

func FuzzParseTrail(f *testing.F) {
	line, err := json.Marshal(eventOf(wholePlan(), wholePlan().Actions[0], now, Result{Status: Applied}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add(append(append(line, '\n'), line[:30]...))
	f.Add([]byte("\n\n{}\n[]\nnull\n{\"action\":\"judge\",\"to\":null}\n"))
	f.Add([]byte(`{"action":"relisten","result":"started","socket":"127.0.0.1:5000","plan":"inc-1.9223372036854775807","incident":"inc-1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h := History(parseTrail(text))
		if len(h) > bytes.Count(text, []byte("\n"))+1 {
			t.Errorf("%d events in %q", len(h), text)
		}
		// Whatever stands in a trail, a decision can be made, and what was
		// begun can be brought to an end.
		plan := Decide(defaults(), full(), h, now)
		if (plan.Verdict == Act) != (len(plan.Actions) > 0) {
			t.Errorf("%+v", plan)
		}
		for _, e := range h.Unfinished() {
			h = append(h, Settle(e, full().Facts))
		}
		if open := h.Unfinished(); len(open) > 0 {
			t.Errorf("still unfinished: %v", open)
		}
		for _, e := range h {
			line, err := json.Marshal(e)
			if err != nil {
				continue // a year over 9999
			}
			again := parseTrail(line)
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
	trail, err := OpenTrail(path)
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	e := past(time.Second, "inc-1.1", "relisten", Failed)
	e.Error = "open /run/\u202egol.kcos\x1b\u009b\xff"
	if err := trail.Append(e); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.ContainsAny(string(text), "\u202e\x1b\u009b") || !strings.Contains(string(text), "/run/�gol.kcos") {
		t.Errorf("the trail holds %q, %v", text, err)
	}
}
