package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

// runAs starts a real uWSGI as a user of this number, who need not be in
// /etc/passwd.
func runAs(t *testing.T, program, address string, uid int) (pid int) {
	t.Helper()
	cmd := exec.Command("setpriv", "--reuid", strconv.Itoa(uid), "--clear-groups", program, "--master", "--http-socket", address, "--plugin", "python3")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process.Pid
}

// standing waits for the master's socket and returns whether it is trusted.
func standing(t *testing.T, h *Host, pid int) (untrusted facts.Fact[string]) {
	t.Helper()
	eventually(t, func() string {
		sockets := socketsOf(observe(t, h), pid)
		if len(sockets) == 0 {
			return "it has no socket yet"
		}
		untrusted = sockets[0].Untrusted
		return ""
	})
	return untrusted
}

func TestTrustWithoutSystemd(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "root", "setpriv")
	uwsgi, err := exec.LookPath("uwsgi-core")
	if err != nil {
		uwsgi, err = exec.LookPath("uwsgi")
	}
	if err == nil {
		uwsgi, err = filepath.EvalSymlinks(uwsgi)
	}
	if err != nil {
		t.Fatal(err)
	}
	// A copy of uWSGI that belongs to a user.
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(uwsgi)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "uwsgi")
	if err := errors.Join(os.WriteFile(copied, text, 0o755), os.Chown(copied, 1001, 1001)); err != nil {
		t.Fatal(err)
	}

	h := newHost(t, options)
	for _, tt := range []struct {
		name, program, address string
		uid                    int
		users                  []string
		want                   string // "" for trusted
	}{
		{"root", uwsgi, "127.0.0.1:5181", 0, nil, ""},
		{"a system user", uwsgi, "127.0.0.1:5182", 33, nil, ""},
		{"a login user", uwsgi, "127.0.0.1:5183", 54321, nil, `uid 54321 is neither root nor a system user, and no systemd runs here that could have started it; [probe] users = ["54321"] trusts it`},
		{"a login user who is named", uwsgi, "127.0.0.1:5184", 54321, []string{"54321"}, ""},
		{"somebody's executable", copied, "127.0.0.1:5187", 33, nil, "no systemd runs here, and the executable is not root's alone: it is uid 1001's; [probe] users = [\""},
		{"somebody's executable, named", copied, "127.0.0.1:5188", 33, []string{"nobody-has-this-name", "33"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options
			o.Users = tt.users
			h.Configure(o)
			f := standing(t, h, runAs(t, tt.program, tt.address, tt.uid))
			if f.Unseen() != "" || tt.want == "" && !f.IsAbsent() || !strings.HasPrefix(f.Value, tt.want) {
				t.Errorf("untrusted: %s, want %q", f, tt.want)
			}
		})
	}
	o := options
	o.Users = []string{"nobody-has-this-name"}
	h.Configure(o)
	if said := strings.Join(observe(t, h).Unseen, "\n"); !strings.Contains(said, `[probe] users: user "nobody-has-this-name": user: unknown user`) {
		t.Errorf("unseen %q", said)
	}
}

// owned is a systemd that knows User= of some units.
type owned map[string]systemd.Service

func (owned) Main(context.Context, string) (int, bool, error) { return 0, false, nil }

func (o owned) Service(_ context.Context, unit string) (systemd.Service, error) {
	s, ok := o[unit]
	if !ok {
		return s, systemd.ErrNoManager
	}
	return s, nil
}

func TestTrustOfUnits(t *testing.T) {
	o := options
	o.Services = owned{
		"known.service":   {User: "whoever", UID: 1001},
		"number.service":  {User: "1001", UID: -1},
		"root.service":    {UID: -1},
		"unknown.service": {User: "nobody-has-this-name", UID: -1},
	}
	h := newHost(t, o)
	for unit, want := range map[string]string{
		"known.service":   "none",
		"number.service":  "none",
		"root.service":    "uid 1001 is neither root, nor a system user, nor User= of root.service",
		"unknown.service": `unknown: whether User= of unknown.service is uid 1001: user "nobody-has-this-name"`,
		"silent.service":  "unknown: whether User= of silent.service is uid 1001: systemd cannot be reached",
		"cron.service":    "it was started by cron.service",
	} {
		p := kernel.Process{PID: os.Getpid(), UID: 1001, RealUID: 1001, Cgroup: "0::/system.slice/" + unit}
		// This test is no uWSGI, but its process is alive.
		options := o
		options.Processes = []string{"host.test"}
		h.walked.owned = map[uint64]owner{7: {master: &p}}
		s := facts.Snapshot{Sockets: []facts.Socket{{ID: facts.SocketID{Inode: 7}, Master: h.identity(&p)}}}
		h.trust(t.Context(), &options, &budget{options.Patience}, &s)
		if got := s.Sockets[0].Untrusted.String(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", unit, got, want)
		}
		h.lookups.user.Start(nil)
	}
}

func TestSystemUIDs(t *testing.T) {
	for text, want := range map[string]int{
		"":                                     999,
		"#SYS_UID_MAX 499\nUID_MIN\t\t 1000\n": 999,
		"UID_MIN 500\n":                        499,
		"UID_MIN 1000\nSYS_UID_MIN 201\nSYS_UID_MAX 899\n": 899,
		"SYS_UID_MAX many\n":   999,
		"SYS_UID_MAX 100000\n": 999,
	} {
		if got := systemUIDsIn(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
