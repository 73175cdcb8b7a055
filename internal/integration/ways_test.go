package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"qwatch/internal/testbed"
)

// The raise goes on where a reload would reach another, or end what it must not; the
// plan says whom or what.
func TestReloadOfNobodyElse(t *testing.T) {
	dir := directory(t)
	touch, fifo := filepath.Join(dir, "touch"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(touch, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	zerg := filepath.Join(dir, "zerg")
	for name, c := range map[string]struct {
		how         string
		args, other []string // of the uWSGI that is full, and of one beside it
		want        string
	}{
		"another's touch-reload":    {"touch:" + touch, nil, []string{"--touch-reload", touch}, "is no file that uWSGI"},
		"another's master-fifo":     {"fifo:" + fifo, nil, []string{"--master-fifo", fifo}, "is not the master FIFO of uWSGI"},
		"a router":                  {"", []string{"--plugin", "http", "--http", "127.0.0.1:19923"}, nil, "has a router (http, command line)"},
		"a zerg server":             {"", []string{"--zerg-server", zerg}, nil, "is of a zerg pool (zerg-server, command line)"},
		"no systemd":                {"systemd", nil, nil, "belongs to no systemd unit"},
		"a chain without lazy-apps": {"chain", []string{"--master-fifo", fifo + "2"}, nil, "loads the application anew only with lazy-apps"},
	} {
		t.Run(name, func(t *testing.T) {
			fresh(t, "root")
			other := uwsgi(t, testbed.Options{Args: c.other})
			u := uwsgi(t, testbed.Options{Args: c.args})
			before := slices.Concat(workers(t, u), workers(t, other))
			q := start(t, settings{Source: u.LogFile, Reload: "always", How: c.how})
			flood(t, u, 400, 0)
			plan := q.waitFor("plan: ")["reason"].(string)
			if _, why, _ := strings.Cut(plan, "; no reload: "); !strings.Contains(why, c.want) {
				t.Errorf("plan: %s", plan)
			}
			q.waitFor("fixed at " + u.Address)
			wantLimit(t, u, 1024)
			q.stop(syscall.SIGTERM)
			if done := actions(q.trail(t)); slices.ContainsFunc(done, func(a string) bool { return strings.HasPrefix(a, "reload") }) {
				t.Errorf("audit trail: %q", done)
			}
			if after := slices.Concat(workers(t, u), workers(t, other)); !slices.Equal(before, after) {
				t.Errorf("workers %v, then %v", before, after)
			}
		})
	}
}

// What is stopped is said, and neither raised nor reloaded until it runs again.
func TestStopped(t *testing.T) {
	fresh(t, "root")
	u := uwsgi(t, testbed.Options{})
	q := start(t, settings{Source: u.LogFile, Reload: "always", Probe: "200ms", Threshold: 2})
	if err := u.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer u.Signal(syscall.SIGCONT)
	flood(t, u, 400, 0)
	q.waitFor("is stopped (SIGSTOP, SIGTSTP); nothing is done until it runs again")
	wantLimit(t, u, 100)
	wantSomaxconn(t, testbed.StartSomaxconn)
	if err := u.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	raised(t, u, 1024)
	q.waitFor("fixed at " + u.Address)
}
