package integration

import (
	"os"
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
	third := time.Now()
	raised(t, u, 1024)
	if took := time.Since(third); took > 2*time.Second {
		t.Errorf("the limit was up %v after the third record, want at most 2 s", took)
	} else {
		t.Logf("the limit was up %v after the third record", took.Round(time.Millisecond))
	}
	wantSomaxconn(t, 1024)
	text, err := os.ReadFile("/etc/sysctl.d/90-qwatch.conf")
	if err != nil || !regexp.MustCompile(`(?m)^net\.core\.somaxconn\s*=\s*1024$`).Match(text) {
		t.Errorf("sysctl.d file, %v:\n%s", err, text)
	}
	q.waitFor("fixed at ")
	want := []string{
		"sysctl 128→1024 started", "sysctl 128→1024 applied",
		"relisten 100→1024 started", "relisten 100→1024 applied",
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
	flood(t, u, 1500, 0)
	full(t, u)
	if line := q.waitFor("waiting with "); line["code"] != "cooldown" {
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
