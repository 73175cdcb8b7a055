package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

// undo answers the question that `qwatch undo` asks, and compares its exit
// status.
func undo(t *testing.T, s settings, answer string, status int) (stdout, stderr string) {
	t.Helper()
	var out, words strings.Builder
	cmd := exec.Command(binary, "undo", "-c", s.file())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(answer+"\n"), &out, &words
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != status {
		t.Errorf("qwatch undo, answered %q: %v, want exit status %d\n%s%s", answer, err, status, &out, &words)
	}
	return out.String(), words.String()
}

// plannedUndo is the JSON of `qwatch undo`.
type plannedUndo struct {
	Verdict string
	Actions []event
	Stays   []struct{ What, Why string }
}

// targets are those of the actions in their order.
func (p plannedUndo) targets() (targets []string) {
	for _, a := range p.Actions {
		targets = append(targets, a.Target)
	}
	return targets
}

func undoJSON(t *testing.T, s settings, status int, args ...string) (p plannedUndo) {
	t.Helper()
	out, _ := command(t, s, status, append([]string{"undo", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("qwatch undo --json: %v in %q", err, out)
	}
	return p
}

const synBacklog = "net.ipv4.tcp_max_syn_backlog"

// setSynBacklog makes sure that somaxconn's companion has a raise before it,
// until the end of the test.
func setSynBacklog(t *testing.T) (file string) {
	t.Helper()
	file = "/proc/sys/net/ipv4/tcp_max_syn_backlog"
	was, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte("512"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(file, was, 0o644) })
	return file
}

// overflowed has a uWSGI raised from 100 to 1024, and no load any more.
func overflowed(t *testing.T, s settings) (*qwatch, *testbed.UWSGI) {
	t.Helper()
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	s.Source = u.LogFile
	q := start(t, s)
	end := flood(t, u, 400, 0)
	raised(t, u, 1024)
	q.waitFor("fixed at ")
	end()
	return q, u
}

// What was raised goes back, the newest first, after a question; twice is
// harmless.
func TestUndo(t *testing.T) {
	companion := setSynBacklog(t)
	q, u := overflowed(t, settings{})
	wantSomaxconn(t, 1024)

	_, words := undo(t, q.settings, "n", 1)
	if !strings.Contains(words, "Put it back? [y/N]") || !strings.Contains(words, "not confirmed") {
		t.Errorf("undo, not confirmed:\n%s", words)
	}
	wantLimit(t, u, 1024)
	wantSomaxconn(t, 1024)
	p := undoJSON(t, q.settings, 1) // nor is this
	if diff := cmp.Diff([]string{u.Address, synBacklog, "net.core.somaxconn"}, p.targets()); diff != "" || p.Verdict != "act" || len(p.Stays) != 0 {
		t.Errorf("undo --json: %+v (-want +got):\n%s", p, diff)
	}
	wantLimit(t, u, 1024)

	out, _ := undo(t, q.settings, "yes", 0)
	if !strings.Contains(out, "put back 3 changes of qwatch") {
		t.Errorf("undo says:\n%s", out)
	}
	wantLimit(t, u, 100)
	wantSomaxconn(t, testbed.StartSomaxconn)
	if text, err := os.ReadFile(companion); err != nil || string(text) != "512\n" {
		t.Errorf("%s = %s, %v; want 512", synBacklog, text, err)
	}
	if text, err := os.ReadFile("/etc/sysctl.d/90-qwatch.conf"); err == nil && strings.Contains(string(text), "\nnet.") {
		t.Errorf("sysctl.d file:\n%s", text)
	}

	if p = undoJSON(t, q.settings, 0, "--yes"); p.Verdict != "nothing" || len(p.Actions) != 0 {
		t.Errorf("a second undo: %+v", p)
	}
	// A new daemon does not take what was put back for a restart of uWSGI.
	q.stop(syscall.SIGTERM)
	q = start(t, q.settings)
	wantLimit(t, u, 100)
	if diff := cmp.Diff([]string{
		"sysctl 128→1024 started", "relisten 100→1024 started",
		"sysctl 128→1024 applied", "relisten 100→1024 applied", "judge fixed",
		"relisten 1024→100 started", "sysctl 1024→128 started",
		"relisten 1024→100 applied", "sysctl 1024→128 applied",
	}, actions(q.trail(t))); diff != "" {
		t.Errorf("audit trail (-want +got):\n%s", diff)
	}
}

// An administrator's later change wins: undo leaves it, and the daemon steps
// aside for that key and says so once.
func TestAdministratorWins(t *testing.T) {
	setSynBacklog(t)
	q, u := overflowed(t, settings{Cooldown: "1s"})
	if err := testbed.SetSomaxconn(600); err != nil {
		t.Fatal(err)
	}
	p := undoJSON(t, q.settings, 0, "--yes")
	if len(p.Stays) != 1 || p.Stays[0].What != "net.core.somaxconn" || !strings.Contains(p.Stays[0].Why, "it is 600, not the 1024 that qwatch set: somebody else's change stays") {
		t.Errorf("stays: %+v", p.Stays)
	}
	if diff := cmp.Diff([]string{u.Address, synBacklog}, p.targets()); diff != "" {
		t.Errorf("undone (-want +got):\n%s", diff)
	}
	wantSomaxconn(t, 600)
	wantLimit(t, u, 100)

	flood(t, u, 1000, 0)
	l := q.waitFor("leaving alone ")
	if l["code"] != "stepped-aside" || !strings.Contains(fmt.Sprint(l["reason"]), "somebody has set it to 600 since") {
		t.Errorf("verdict: %v: %v", l["code"], l["reason"])
	}
	n := records(u)
	until(t, "three more records", func() bool { return records(u) >= n+3 })
	wantSomaxconn(t, 600)
	if n := len(q.lines("leaving alone ")); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// Under a somaxconn below its listen no uWSGI comes up again: that is as far as
// an undo goes back.
func TestUndoStopsAtTheFatalLine(t *testing.T) {
	q, u := overflowed(t, settings{})
	other := uwsgi(t, testbed.Options{Listen: 512})
	p := undoJSON(t, q.settings, 0, "--yes")
	if len(p.Stays) != 1 || p.Stays[0].What != "net.core.somaxconn" || !strings.Contains(p.Stays[0].Why, "512; under a somaxconn of 128 it would not come up again") {
		t.Errorf("stays: %+v", p.Stays)
	}
	wantLimit(t, u, 100)
	wantLimit(t, other, 512)
	wantSomaxconn(t, 1024)
	if text, err := os.ReadFile("/etc/sysctl.d/90-qwatch.conf"); err != nil || !strings.Contains(string(text), "net.core.somaxconn = 1024") {
		t.Errorf("sysctl.d file, %v:\n%s", err, text)
	}
	// It is as was said: a restart with 512 works.
	other.Stop()
	other = uwsgi(t, testbed.Options{Listen: 512, Address: other.Address})
	wantLimit(t, other, 512)

	// When it is gone the rest goes back.
	other.Stop()
	if p = undoJSON(t, q.settings, 0, "--yes"); len(p.Stays) != 0 || len(p.Actions) != 1 {
		t.Errorf("undo without the other: %+v", p)
	}
	wantSomaxconn(t, testbed.StartSomaxconn)
	wantLimit(t, u, 100)
}
