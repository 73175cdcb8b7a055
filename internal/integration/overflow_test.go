package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

// actions are the trail's events in words, companions of somaxconn left out.
func actions(events []event) []string {
	var out []string
	for _, e := range events {
		if e.Action != "sysctl" || e.Target == "net.core.somaxconn" {
			out = append(out, e.String())
		}
	}
	return out
}

// The whole way, and that it is gone once: three records, and the limit is up
// within two seconds of the third.
func TestOverflow(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	before := workers(t, u)
	q := start(t, settings{Source: u.LogFile, Threshold: 3, Quiet: "2s", Reload: "always"})
	end := flood(t, u, 600, 120)

	until(t, "the third record", func() bool { return strings.Count(u.Log(), "/100) ***") >= 3 })
	took := stopwatch(q.cmd.Process.Pid)
	raised(t, u, 1024)
	wantAtMost(t, "the raise after the third record", took(), 2*time.Second)
	wantSomaxconn(t, 1024)
	text, err := os.ReadFile("/etc/sysctl.d/90-qwatch.conf")
	if err != nil || !regexp.MustCompile(`(?m)^net\.core\.somaxconn\s*=\s*1024$`).Match(text) {
		t.Errorf("sysctl.d file, %v:\n%s", err, text)
	}
	q.waitFor("fixed at ")
	want := []string{
		"sysctl 128→1024 started", "relisten 100→1024 started",
		"sysctl 128→1024 applied", "relisten 100→1024 applied",
		"reload started", "reload applied", "judge fixed",
	}
	if diff := cmp.Diff(want, actions(q.trail(t))); diff != "" {
		t.Errorf("audit trail (-want +got):\n%s", diff)
	}
	after := workers(t, u)
	if len(after) != len(before) || slices.ContainsFunc(after, func(pid int) bool { return slices.Contains(before, pid) }) {
		t.Errorf("workers %v, were %v; want new ones", after, before)
	}

	// A second flood within the cooldown.
	end()
	q.waitFor("is over")
	flood(t, u, 4000, 500)
	full(t, u)
	// For the cooldown, or since the workers are new.
	if line := q.waitFor("waiting with "); line["incident"] == q.lines("plan: ")[0]["incident"] {
		t.Errorf("the second flood: %v", line)
	}
	wantLimit(t, u, 1024)
	if diff := cmp.Diff(want, actions(q.trail(t))); diff != "" {
		t.Errorf("audit trail after the second flood (-want +got):\n%s", diff)
	}
	if n := reloads(u); n != 1 {
		t.Errorf("%d reloads, want 1", n)
	}
	if got := workers(t, u); !slices.Equal(got, after) {
		t.Errorf("workers %v after the second flood, were %v", got, after)
	}
}

// Where one raise does not end it, the next follows, up to max_backlog; then
// qwatch gives up and says what is left to do.
func TestStepwise(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	q := start(t, settings{Source: u.LogFile, Max: 4096, Cooldown: "1s"})
	flood(t, u, 12000, 600)
	line := q.waitFor("gave up: ")
	if !strings.Contains(line["reason"].(string), "3 raises did not end the incident, the limit is 4096") {
		t.Errorf("reason: %v", line["reason"])
	}
	wantLimit(t, u, 4096)
	wantSomaxconn(t, 4096)
	var raises []string
	for _, a := range actions(q.trail(t)) {
		if strings.HasPrefix(a, "relisten") && strings.HasSuffix(a, "applied") {
			raises = append(raises, a)
		}
	}
	want := []string{"relisten 100→1024 applied", "relisten 1024→2048 applied", "relisten 2048→4096 applied"}
	if diff := cmp.Diff(want, raises); diff != "" {
		t.Errorf("raises (-want +got):\n%s", diff)
	}
	q.advised("more workers (processes) than its 2")
	q.advised("harakiri")
	text, _ := os.ReadFile("/etc/sysctl.d/90-qwatch.conf")
	if got := regexp.MustCompile(`(?m)^net\.core\.somaxconn.*`).FindAllString(string(text), -1); !slices.Equal(got, []string{"net.core.somaxconn = 4096"}) {
		t.Errorf("sysctl.d file:\n%s", text)
	}
}

// A UNIX socket never writes a record: the probe sees it.
func TestUnixSocket(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{Address: filepath.Join(directory(t), "app.sock")})
	q := start(t, settings{Source: u.LogFile, Probe: "200ms", Threshold: 3})
	flood(t, u, 400, 200)
	raised(t, u, 1024)
	if strings.Contains(u.Log(), "listen queue of socket") {
		t.Error("uWSGI has written a record of a UNIX socket")
	}
	if hits := q.status()["sources"].([]any); len(hits) != 2 || hits[1].(object)["hits"].(float64) < 3 {
		t.Errorf("sources: %v", hits)
	}
}

// The old record names no address but a descriptor of the master. The file it
// stands in tells which master.
func TestOldFormat(t *testing.T) {
	fresh(t)
	dir := directory(t)
	mine, nobodys := filepath.Join(dir, "app.log"), filepath.Join(dir, "copy.log")
	u := uwsgi(t, testbed.Options{App: fmt.Sprintf("log = open(%q, 'a')\ndef application(e, start): start('200 OK', []); return []\n", mine)})
	other := uwsgi(t, testbed.Options{})
	q := start(t, settings{Source: filepath.Join(dir, "*.log")})
	flood(t, u, 400, 0)
	until(t, "a record", func() bool { return strings.Contains(u.Log(), " full !!! ") })
	_, rest, _ := strings.Cut(u.Log(), "(fd: ")
	fd, _, _ := strings.Cut(rest, ")")
	old := []byte("*** uWSGI listen queue of socket " + fd + " full !!! (101/100) ***\n")

	if err := os.WriteFile(nobodys, old, 0o644); err != nil {
		t.Fatal(err)
	}
	if line := q.waitFor("the socket was not found"); line["verdict"] != "refuse" {
		t.Errorf("a record that fits two: %v", line)
	}
	f, err := os.OpenFile(mine, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write(old)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	raised(t, u, 1024)
	wantLimit(t, other, 100)
}
