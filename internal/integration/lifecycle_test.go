package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

// occupy keeps both workers of a uWSGI at work, so that a reload takes as
// many seconds.
func occupy(t *testing.T, u *testbed.UWSGI, seconds int) {
	t.Helper()
	for range 2 {
		// What is connected first is served first.
		c, err := net.Dial("tcp", u.Address)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			_, err = fmt.Fprintf(c, "GET /?ms=%d000 HTTP/1.0\r\n\r\n", seconds)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// reloading starts a flood and returns when qwatch waits for a reload.
func reloading(t *testing.T, s settings) (*qwatch, *testbed.UWSGI) {
	t.Helper()
	u := uwsgi(t, testbed.Options{})
	s.Source, s.Reload = u.LogFile, "always"
	q := start(t, s)
	occupy(t, u, 8)
	flood(t, u, 400, 0)
	until(t, "the reload is begun", func() bool {
		return q.recorded(t, "reload", "started") && strings.Contains(u.Log(), "gracefully killing workers")
	})
	return q, u
}

func TestStops(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run("idle/"+s.String(), func(t *testing.T) {
			fresh(t)
			u := uwsgi(t, testbed.Options{})
			start(t, settings{Source: u.LogFile, Probe: "1s", Metrics: "127.0.0.1:19920"}).stop(s)
		})
		t.Run("in a reload/"+s.String(), func(t *testing.T) {
			fresh(t)
			q, u := reloading(t, settings{})
			q.stop(s)
			// uWSGI goes on: nobody knows yet how it ends, and nothing is judged.
			begun := []string{
				"sysctl 128→1024 started", "relisten 100→1024 started",
				"sysctl 128→1024 applied", "relisten 100→1024 applied", "reload started",
			}
			if diff := cmp.Diff(begun, actions(q.trail(t))); diff != "" {
				t.Errorf("audit trail (-want +got):\n%s", diff)
			}
			until(t, "the reload has ended", func() bool { return reloads(u) > 0 && strings.Count(u.Log(), "spawned uWSGI worker") >= 4 })
			next := start(t, q.settings)
			next.waitFor("came since it was asked for, so it most likely took effect")
			next.stop(s)
		})
	}
}

// A qwatch that was killed in a reload leaves it to the next one to say so;
// that one does not do it again, even where the queue is full again.
func TestKilledInAReload(t *testing.T) {
	fresh(t)
	q, u := reloading(t, settings{})
	q.kill()
	before := []string{
		"sysctl 128→1024 started", "relisten 100→1024 started",
		"sysctl 128→1024 applied", "relisten 100→1024 applied", "reload started",
	}
	if diff := cmp.Diff(before, actions(q.trail(t))); diff != "" {
		t.Fatalf("audit trail (-want +got):\n%s", diff)
	}
	next := start(t, q.settings)
	next.waitFor("a former qwatch was interrupted at reload")
	flood(t, u, 4000, 500)
	until(t, "a record of the second flood", func() bool { return strings.Contains(u.Log(), "/1024) ***") })
	next.waitFor("waiting with ")
	until(t, "the reload has ended", func() bool { return reloads(u) > 0 })
	next.stop(syscall.SIGTERM)
	if diff := cmp.Diff(append(before, "reload failed"), actions(q.trail(t))); diff != "" {
		t.Errorf("audit trail (-want +got):\n%s", diff)
	}
	if events := q.trail(t); !strings.Contains(events[len(events)-1].Error, "interrupted") {
		t.Errorf("the reload's end: %+v", events[len(events)-1])
	}
	if n := reloads(u); n != 1 {
		t.Errorf("%d reloads, want 1", n)
	}
	wantLimit(t, u, 1024)
}

// A broken configuration leaves the old one in force, a good one takes over,
// by a signal or by itself.
func TestNewConfiguration(t *testing.T) {
	for _, signal := range []bool{true, false} {
		t.Run(fmt.Sprintf("signal %v", signal), func(t *testing.T) {
			fresh(t)
			u := uwsgi(t, testbed.Options{})
			s := settings{Source: u.LogFile, DryRun: true, Cooldown: "1s", dir: directory(t)}
			file := s.file()
			if signal {
				// Behind a link qwatch does not see the file change.
				file = filepath.Join(directory(t), "qwatch.toml")
				if err := os.Symlink(file, s.file()); err != nil {
					t.Fatal(err)
				}
			}
			replace(t, file, s.text(t))
			q := launch(t, s)
			q.waitFor("is ready")
			change := func(text []byte) {
				replace(t, file, text)
				if signal {
					if err := q.cmd.Process.Signal(syscall.SIGHUP); err != nil {
						t.Fatal(err)
					}
				}
			}
			before, _, _ := bytes.Cut(s.text(t), []byte("quiet"))
			change(bytes.Replace(s.text(t), []byte("quiet"), []byte("quite"), 1))
			refused := q.waitFor("the new configuration is refused")
			if text := fmt.Sprint(refused["error"]); !strings.Contains(text, fmt.Sprintf("%s:%d:1: unknown key \"quite\"", s.file(), 1+bytes.Count(before, []byte("\n")))) {
				t.Errorf("refused: %v", refused)
			}
			flood(t, u, 400, 0)
			q.waitFor("planned: ")
			wantLimit(t, u, 100)
			s.DryRun = false
			change(s.text(t))
			raised(t, u, 1024)
			if n := len(q.lines("the new configuration is in force (acting)")); n != 1 {
				t.Errorf("%d words about the new configuration, want 1", n)
			}
			q.stop(syscall.SIGTERM)
		})
	}
}

// mount covers a directory with a file system of so many bytes, until the end of
// the test.
func mount(t *testing.T, dir string, size int) {
	t.Helper()
	if err := syscall.Mount("testbed", dir, "tmpfs", 0, fmt.Sprintf("mode=0755,size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fill leaves no free byte in a directory.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Where the sysctl.d file cannot be written nothing is changed, that is said
// and not shouted, and qwatch lives to do it later.
func TestCannotWrite(t *testing.T) {
	const dir = "/etc/sysctl.d"
	remount := func(flags uintptr) error { return syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, "") }
	for _, c := range []struct {
		name       string
		spoil, fix func(t *testing.T) error
		words      string
		many       int // the most lines that may say it
	}{
		{
			"read-only",
			func(*testing.T) error { return remount(syscall.MS_RDONLY) },
			func(*testing.T) error { return remount(0) },
			"read-only file system", 2,
		},
		{
			"full",
			func(t *testing.T) error { mount(t, dir, 4096); fill(t, dir); return nil },
			func(*testing.T) error { return os.Remove(filepath.Join(dir, "filler")) },
			"no space left on device", 2,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			fresh(t)
			u := uwsgi(t, testbed.Options{})
			q := start(t, settings{Source: u.LogFile, Cooldown: "8s"})
			until(t, "the rights were tried", func() bool { return q.status()["cannot"] != nil })
			if err := c.spoil(t); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.fix(t) })
			before := names(t, dir)
			flood(t, u, 1200, 60)
			until(t, "qwatch says so", func() bool { return strings.Contains(q.text(), c.words) })
			until(t, "more records", func() bool { return strings.Count(u.Log(), " full !!! ") >= 5 })
			wantSomaxconn(t, testbed.StartSomaxconn)
			wantLimit(t, u, 100)
			if after := names(t, dir); !slices.Equal(before, after) {
				t.Errorf("%s holds %v, held %v", dir, after, before)
			}
			if n := strings.Count(q.text(), c.words); n > c.many {
				t.Errorf("said %d times", n)
			}
			if err := c.fix(t); err != nil {
				t.Fatal(err)
			}
			raised(t, u, 1024)
			q.stop(syscall.SIGTERM)
		})
	}
}

// What cannot be recorded is not done.
func TestFullStateDirectory(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	s := settings{Source: u.LogFile, Cooldown: "1s", dir: directory(t)}
	if err := os.Mkdir(s.StateDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, s.StateDir(), 16384)
	q := start(t, s)
	fill(t, s.StateDir())
	flood(t, u, 1200, 60)
	q.waitFor("failed: set net.core.somaxconn")
	until(t, "more records", func() bool { return strings.Count(u.Log(), " full !!! ") >= 4 })
	wantSomaxconn(t, testbed.StartSomaxconn)
	wantLimit(t, u, 100)
	if n := len(q.lines("failed: ")); n > 5 {
		t.Errorf("said %d times", n)
	}
	if err := os.Remove(filepath.Join(s.StateDir(), "filler")); err != nil {
		t.Fatal(err)
	}
	raised(t, u, 1024)
	q.stop(syscall.SIGTERM)
	q.trail(t) // every line is whole
}

// A log that is read from its start tells of another time: only what comes in since
// opens an incident, whatever its date says.
func TestOldRecords(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	log := filepath.Join(directory(t), "old.log")
	record := time.Now().Add(-time.Hour).Format(time.ANSIC) + fmt.Sprintf(" - *** uWSGI listen queue of socket %q (fd: 3) full !!! (101/100) ***\n", u.Address)
	if err := os.WriteFile(log, []byte(strings.Repeat(record, 50)), 0o644); err != nil {
		t.Fatal(err)
	}
	flood(t, u, 400, 0)
	metrics := "127.0.0.1:19916"
	q := start(t, settings{Source: log, Metrics: metrics}, func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, "--from-start") })
	until(t, "all records are counted", func() bool { return scrape(t, metrics)["qwatch_hits_total"] == 50 })
	if q.said("is full") {
		t.Errorf("an old record opened an incident: %s", q.text())
	}
	f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(record); err != nil {
		t.Fatal(err)
	}
	raised(t, u, 1024)
}
