package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

// A file that uWSGI has never loaded is brought by no reload: the raise goes on
// alone, and says why.
func TestDeployed(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	app := filepath.Join(filepath.Dir(u.LogFile), "app.py")
	time.Sleep(2100 * time.Millisecond) // what follows is younger
	now := time.Now()
	if err := os.Chtimes(app, now, now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	q := start(t, settings{Source: u.LogFile, Threshold: 3, Quiet: "2s", Reload: "always"})
	flood(t, u, 600, 120)
	q.waitFor("fixed at ")
	want := []string{
		"sysctl 128→1024 started", "relisten 100→1024 started",
		"sysctl 128→1024 applied", "relisten 100→1024 applied", "judge fixed",
	}
	if diff := cmp.Diff(want, actions(q.trail(t))); diff != "" {
		t.Errorf("audit trail (-want +got):\n%s", diff)
	}
	reason, _ := q.lines("plan: ")[0]["reason"].(string)
	if !regexp.MustCompile(`; no reload: a reload would bring ` + app + ` of \d\d:\d\d(:\d\d)?, which this uWSGI \(since \d\d:\d\d(:\d\d)?\) has never loaded; reload by hand`).MatchString(reason) {
		t.Errorf("reason %q", reason)
	}
	if n := reloads(u); n != 0 {
		t.Errorf("%d reloads, want none", n)
	}
}
