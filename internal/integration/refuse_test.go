package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

// host is what a dry run must leave as it is.
type host struct {
	Files     map[string]string // all that qwatch could write, but its own state
	Somaxconn int
	Limit     int
	Workers   []int
	Reloads   int
}

func hostOf(t *testing.T, u *testbed.UWSGI) host {
	t.Helper()
	somaxconn, err := testbed.Somaxconn()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, root := range []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d",
		"/etc/sysctl.conf", "/etc/qwatch", "/run/qwatch", "/var/lib/qwatch", "/etc/uwsgi"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if path == root && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			files[path] = fmt.Sprintln(info.Mode(), info.Size(), info.ModTime())
			if info.Mode().IsRegular() {
				text, err := os.ReadFile(path)
				files[path] += string(text)
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return host{files, somaxconn, limit(t, u), workers(t, u), reloads(u)}
}

func TestDryRun(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	before := hostOf(t, u)
	q := start(t, settings{Source: u.LogFile, DryRun: true, Reload: "always"})
	flood(t, u, 400, 0)
	q.waitFor("planned: ")
	until(t, "all is planned", func() bool { return q.recorded(t, "reload", "planned") })
	q.stop(syscall.SIGTERM)
	if diff := cmp.Diff(before, hostOf(t, u)); diff != "" {
		t.Errorf("the host (-before +after):\n%s", diff)
	}
	for _, e := range q.trail(t) {
		if e.Result != "planned" || !e.DryRun {
			t.Errorf("audit trail: %+v", e)
		}
	}
	want := []string{"sysctl 128→1024 planned", "relisten 100→1024 planned", "reload planned"}
	if diff := cmp.Diff(want, actions(q.trail(t))); diff != "" {
		t.Errorf("audit trail (-want +got):\n%s", diff)
	}
}

// asNobody lets the command run as nobody, without any capability.
func asNobody(cmd *exec.Cmd) {
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
}

func TestDryRunWithoutPrivilege(t *testing.T) {
	fresh(t, "root")
	u := uwsgi(t, testbed.Options{LogFile: filepath.Join(directory(t), "uwsgi.log")})
	if err := os.Chmod(u.LogFile, 0o644); err != nil {
		t.Fatal(err)
	}
	before := hostOf(t, u)
	q := start(t, settings{Source: u.LogFile, DryRun: true, dir: directory(t)}, asNobody)
	q.waitFor("the dry run goes on without an audit trail on disk")
	flood(t, u, 400, 0)
	q.waitFor("planned: ")
	q.stop(syscall.SIGTERM)
	if diff := cmp.Diff(before, hostOf(t, u)); diff != "" {
		t.Errorf("the host (-before +after):\n%s", diff)
	}
}

// Whoever can write into the log cannot make qwatch act, nor flood its log.
func TestForged(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	before := hostOf(t, u)
	metrics := "127.0.0.1:19918"
	q := start(t, settings{Source: u.LogFile, Threshold: 3, Metrics: metrics})
	log, err := os.OpenFile(u.LogFile, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	const forged = 10000
	_, err = log.WriteString(strings.Repeat(record(u, 101, 100), forged/2))
	if err != nil {
		t.Fatal(err)
	}
	for i := range forged / 2 { // of sockets that are not there
		fmt.Fprintf(log, "*** uWSGI listen queue of socket \"127.0.0.1:%d\" (fd: 3) full !!! (101/100) ***\n", 20000+i)
	}
	log.Close()
	until(t, "all records are counted", func() bool { return scrape(t, metrics)["qwatch_hits_total"] == forged })
	q.stop(syscall.SIGTERM)
	if diff := cmp.Diff(before, hostOf(t, u)); diff != "" {
		t.Errorf("the host (-before +after):\n%s", diff)
	}
	if events := q.trail(t); events != nil {
		t.Errorf("audit trail: %v", events)
	}
	if n := strings.Count(q.text(), "\n"); n > 12 {
		t.Errorf("%d lines of log about %d forged records", n, forged)
	}
	if l := q.lines("the kernel does not show what the log says"); len(l) != 1 || l[0]["verdict"] != "wait" {
		t.Errorf("verdict: %v", l)
	}
}

// without starts the command without a capability, for ever.
func without(capability string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		path, err := exec.LookPath("setpriv")
		if err != nil {
			panic(err) // fresh has asked for it
		}
		cmd.Args = append([]string{path, "--bounding-set", "-" + capability, "--"}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
		cmd.Path = path
	}
}

// Where another's descriptor may not be taken, qwatch says so and what is left
// to do, and raises no sysctl for nothing. Nor does it reload then: whether other
// masters hold the socket cannot be seen either.
func TestRelistenNotPermitted(t *testing.T) {
	for _, reload := range []string{"never", "needed", "always"} {
		t.Run("reload "+reload, func(t *testing.T) {
			fresh(t, "root", "setpriv")
			u := uwsgi(t, testbed.Options{})
			// Without the right it cannot tell what others execute.
			q := start(t, settings{Source: u.LogFile, Reload: reload, Users: []string{"root"}}, without("sys_ptrace"))
			flood(t, u, 400, 0)
			q.waitFor("qwatch cannot do relisten here: pidfd_getfd of process")
			plan := q.waitFor("leaving alone")["reason"].(string)
			if !strings.Contains(plan, "no raise in place (pidfd_getfd") || !strings.Contains(plan, "needs CAP_SYS_PTRACE") {
				t.Errorf("plan: %s", plan)
			}
			q.advised("start uWSGI with `--listen 1024` (now 100): a running socket keeps its limit")
			wantLimit(t, u, 100)
			wantSomaxconn(t, 128)
			q.stop(syscall.SIGTERM)
			if done, n := actions(q.trail(t)), reloads(u); len(done) > 0 || n > 0 {
				t.Errorf("audit trail %q, %d reloads", done, n)
			}
		})
	}
}

// A system user's uWSGI is raised, nobody's is shown and advised; named, it is
// raised too.
func TestOtherUsers(t *testing.T) {
	fresh(t, "root")
	system, stranger := uwsgi(t, testbed.Options{User: "www-data"}), uwsgi(t, testbed.Options{User: "nobody"})
	s := settings{Source: filepath.Join(filepath.Dir(filepath.Dir(system.LogFile)), "testbed-*", "uwsgi.log"), Metrics: "127.0.0.1:19917"}
	q := start(t, s)
	flood(t, stranger, 400, 0)
	refusal := q.waitFor("leaving alone " + stranger.Address)
	const why = `uid 65534 (nobody) is neither root nor a system user, and no systemd runs here that could have started it; [probe] users = ["nobody"] trusts it`
	if refusal["code"] != "untrusted" || !strings.HasSuffix(refusal["reason"].(string), why) {
		t.Errorf("refusal: %v", refusal)
	}
	q.advised("name the user of")
	flood(t, system, 400, 0)
	raised(t, system, 1024)
	q.waitFor("fixed at " + system.Address)
	wantLimit(t, stranger, 100)
	page := scrape(t, "127.0.0.1:19917")
	series := func(u *testbed.UWSGI) bool { _, ok := page[`qwatch_queue_limit{socket="`+u.Address+`"}`]; return ok }
	if series(stranger) || !series(system) || page["qwatch_incidents_open"] != 1 {
		t.Errorf("metrics: %v", page)
	}
	s = q.settings
	s.Users = []string{"nobody"}
	replace(t, s.file(), s.text(t))
	raised(t, stranger, 1024)
}

func TestOnlyTheFullOne(t *testing.T) {
	fresh(t)
	u, other := uwsgi(t, testbed.Options{}), uwsgi(t, testbed.Options{Listen: 90})
	pids := workers(t, other)
	q := start(t, settings{Source: filepath.Join(filepath.Dir(u.LogFile), "*"), Reload: "always", Probe: "200ms"})
	flood(t, u, 400, 0)
	raised(t, u, 1024)
	q.waitFor("fixed at ")
	wantLimit(t, other, 90)
	if now := workers(t, other); !slices.Equal(now, pids) || reloads(other) != 0 || reloads(u) != 1 {
		t.Errorf("workers of the other %v, were %v; %d and %d reloads", now, pids, reloads(other), reloads(u))
	}
	for _, e := range q.trail(t) {
		if e.Socket != u.Address {
			t.Errorf("audit trail: %+v", e)
		}
	}
}

// Who may write a log cannot fill qwatch's: what he causes is said once, and
// then counted.
func TestMessagesOfAStranger(t *testing.T) {
	fresh(t, "root")
	u := uwsgi(t, testbed.Options{})
	logs := t.TempDir()
	const files = 100
	record := "*** uWSGI listen queue of socket \"127.0.0.1:%d\" (fd: 3) full !!! (65/64) ***\n"
	for i := range files {
		path := filepath.Join(logs, fmt.Sprint("loop", i, ".log"))
		if err := errors.Join(os.Symlink(path, path), os.Lchown(path, 12345, 12345)); err != nil {
			t.Fatal(err)
		}
	}
	q := start(t, settings{Source: filepath.Join(logs, "*.log"), Quiet: "200ms"})
	for i := range files {
		path := filepath.Join(logs, fmt.Sprint("forged", i, ".log"))
		text := fmt.Sprintf(record, 1+i) + "Listen queue size is greater than the system max net.core.somaxconn (128).\n"
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chown(path, 12345, 12345)); err != nil {
			t.Fatal(err)
		}
	}
	_, port, _ := strings.Cut(u.Address, ":")
	unconfirmed := filepath.Join(logs, "unconfirmed.log")
	if err := os.WriteFile(unconfirmed, []byte(strings.Replace(record, "%d", port, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	q.waitFor("the kernel does not show what the log says")
	q.stop(syscall.SIGTERM)
	for words, most := range map[string]int{
		"cannot be read":     2,
		"the socket was not": 1,
		"fit no socket":      1,
		"is full: ":          2, // one of them of root's file
		"would not start":    2,
		"":                   20,
	} {
		if said := q.lines(words); len(said) > most {
			t.Errorf("%q is said %d times:\n%v", words, len(said), said)
		}
	}
	want := fmt.Sprintf("*.log, files of user 12345: %d more within a minute: cannot be read", files-1)
	if !q.said(want) {
		t.Errorf("no %q:\n%s", want, q.text())
	}
}
