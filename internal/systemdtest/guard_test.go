//go:build systemdtest

package systemdtest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"qwatch/systemd"
)

// guarded is an application of TestGuards.
type guarded struct {
	port   int
	unit   string // its systemd unit
	vassal string // its file, where an emperor of that unit has started it
	ini    string // what stands in its file beside the common lines
	after  string // what is done to the file when it runs
	// refused is why it is not reloaded, "" where it is; dark says that this cannot be
	// seen without rights.
	refused string
	dark    bool
}

const (
	guardDir  = "/etc/uwsgi/guard/"
	vassalDir = "/etc/uwsgi/guard-vassals/"
	// sightless is what the audit service says where it cannot see a guard's reason.
	sightless = "uWSGI's configuration is not known (its environment: "
)

// guards are applications to which a reload would be the end, or may be, and
// two to which it is none.
var guards = []guarded{
	{port: 7001, unit: "guard@plain", dark: true},
	{port: 7002, unit: "guard@once", ini: "exit-on-reload = true",
		refused: "it would end uWSGI: exit-on-reload (" + guardDir + "once.ini:10)"},
	{port: 7003, unit: "guard@listen", after: "sed -i 's/^listen.*/listen = 3000/' " + guardDir + "listen.ini",
		refused: "uWSGI is configured to listen = 3000 (" + guardDir + "listen.ini:6), and with somaxconn 1024 it would not come up again"},
	{port: 7004, unit: "guard@procname", ini: "procname = a shop",
		refused: "its command line is overwritten (procname, setproctitle)"},
	{port: 7005, unit: "guard@prefix", ini: "procname-prefix-spaced = shop\nauto-procname = true",
		refused: "its command line is overwritten (procname, setproctitle)"},
	{port: 7006, unit: "guard-python3", ini: "exit-on-reload = true",
		refused: "it would end uWSGI: exit-on-reload (" + guardDir + "python3.ini:10)"},
	{port: 7007, unit: "guard@gone", ini: "exit-on-reload = true", after: "rm " + guardDir + "gone.ini",
		refused: "reading " + guardDir + "gone.ini: no such file", dark: true},
	{port: 7008, unit: "guard-rooted", ini: "uid = www-data\ngid = www-data\nexit-on-reload = true",
		refused: "reading " + guardDir + "rooted.ini: user 33, as which it runs, may not: permission denied", dark: true},
	{port: 7009, unit: "guard-emperor", vassal: "blue", ini: "chdir = /tmp\nexit-on-reload = true",
		refused: "it would end uWSGI: exit-on-reload (" + vassalDir + "blue.ini:11)", dark: true},
	{port: 7010, unit: "guard-socket",
		refused: "systemd holds the socket (guard-socket.socket), and uWSGI does not find it again after a reload"},
	{port: 7011, unit: "guard-emperor", vassal: "green", ini: "chdir = /tmp", dark: true},
	{port: 7012, unit: "guard-handed",
		refused: "it would end uWSGI: the sockets that it was handed at its start (LISTEN_FDS) are not handed to it again", dark: true},
}

func (g guarded) addr() string { return fmt.Sprintf("127.0.0.1:%d", g.port) }

// file is the application's configuration.
func (g guarded) file() string {
	if g.vassal != "" {
		return vassalDir + g.vassal + ".ini"
	}
	return guardDir + g.unit[strings.LastIndexAny(g.unit, "@-")+1:] + ".ini"
}

// limit is that of its socket at first.
func (g guarded) limit() int {
	if g.unit == "guard-handed" {
		return low // systemd-socket-activate asks for the most there is
	}
	return small
}

// TestGuards floods applications that a reload would end, with a policy that has
// every one reloaded.
func TestGuards(t *testing.T) {
	t.Parallel()
	m := boot(t, env(t, "QWATCH_TEST_ROOT"))
	m.Share(env(t, "QWATCH_TEST_DEB"), "qwatch.deb")
	m.ShareSelf("flood")
	m.copyTestdata()
	m.Scene("applications", func() { m.startGuarded() })
	m.Scene("audit", func() {
		m.guardsPlanned(func(g guarded) bool { return !g.dark })
		m.EventuallySays("journalctl -u qwatch-audit -o cat", "which the drop-in audit-reads-all.conf gives to qwatch-audit.service", 10*time.Second)
	})
	m.Scene("audit that reads all", func() {
		m.Sh("install -D -m 644 -t /etc/systemd/system/qwatch-audit.service.d /usr/share/doc/qwatch/examples/audit-reads-all.conf; systemctl daemon-reload")
		m.guardsPlanned(func(guarded) bool { return true })
	})
	m.Scene("acting", func() { m.guardsHold() })
}

func (m *machine) startGuarded() {
	script := `set -e
		sysctl -q net.core.somaxconn=128
		useradd -r app
		mkdir -p /srv/app ` + guardDir + ` ` + vassalDir + `
		cp /mnt/app.py /srv/app/
		cp /mnt/guard*.service /mnt/guard*.socket /etc/systemd/system/
`
	var units []string
	for _, g := range guards {
		socket := "http-socket = " + g.addr()
		switch g.unit {
		case "guard-socket":
			units = append(units, "guard-socket.socket")
			fallthrough
		case "guard-handed":
			socket = "protocol = http"
		}
		script += fmt.Sprintf("cat >%s <<'END'\n[uwsgi]\nplugin = python3\nmaster = true\nneed-app = true\nprocesses = 1\nlisten = %d\npythonpath = /srv/app\nmodule = app\n%s\n%s\nEND\n",
			g.file(), small, socket, g.ini)
		units = append(units, g.unit)
	}
	m.Sh(script + `chmod 600 ` + guardDir + `rooted.ini
		dpkg -i /mnt/qwatch.deb >/dev/null
		cp /mnt/guard.toml /etc/qwatch/qwatch.toml
		systemctl daemon-reload
		systemctl start ` + strings.Join(units, " "))
	for _, g := range guards {
		m.answers(g)
		m.limit(g.addr(), g.limit())
		if g.after != "" {
			m.Sh(g.after)
		}
	}
}

// answers waits until a request is answered.
func (m *machine) answers(g guarded) {
	m.T.Helper()
	m.EventuallySays(fmt.Sprintf(`bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d && printf "GET / HTTP/1.0\r\n\r\n" >&3 && timeout 10 cat <&3'`, g.port), "200 OK", 30*time.Second)
}

// processes are the application's master and its workers.
func (m *machine) processes(g guarded) (master, workers string) {
	m.T.Helper()
	master = m.Sh("systemctl show -p MainPID --value " + g.unit)
	if g.vassal != "" {
		master = m.Sh("pgrep -P " + master + " -f ' " + g.vassal + ".ini'")
	}
	workers = m.Sh("pgrep -P " + master + " | xargs")
	return master, workers
}

// floodAll fills all queues at once; the returned function ends that.
func (m *machine) floodAll() (stop func()) {
	m.T.Helper()
	for _, g := range guards {
		m.flood(g.addr())
	}
	return func() { m.Sh("systemctl stop 'flood-*'") }
}

// planOf waits for the newest plan of a unit of qwatch's about a socket.
func (m *machine) planOf(unit string, g guarded) (plan string) {
	m.T.Helper()
	script := "journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value " + unit + ") QWATCH_SOCKET=" + g.addr() + " | grep ^plan: | tail -n 1"
	m.Eventually(unit+" has a plan for "+g.unit, time.Minute, func() (bool, string) {
		plan, _ = m.Try(script)
		return strings.Contains(plan, "raise it to 1024"), plan
	})
	return plan
}

// guardsPlanned: the audit service sees each full queue and its unit, and plans
// for each what the acting one would do, or says what it could not see.
func (m *machine) guardsPlanned(seen func(guarded) bool) {
	m.Sh("systemctl restart qwatch-audit")
	stop := m.floodAll()
	for _, g := range guards {
		plan, want := m.planOf("qwatch-audit", g), "; no reload: "+sightless
		if seen(g) {
			want = g.refused
		}
		m.Is(strings.Contains(plan, want) && (want != "" || !strings.Contains(plan, "no reload")), "its plan tells why there is no reload: "+want, plan)
	}
	stop()
	units, text := m.sockets("qwatch status --json")
	for _, g := range guards {
		m.Is(units[g.addr()] == strings.TrimSuffix(g.unit, ".service")+".service", g.addr()+" is "+g.unit+"'s", text)
		m.limit(g.addr(), g.limit())
	}
	said := m.Sh("journalctl -u qwatch-audit -o cat")
	for _, never := range []string{"no uWSGI listens on", "was not found", "is none that", "gone"} {
		m.Is(!strings.Contains(strings.ReplaceAll(said, guardDir+"gone.ini", ""), never), "what it could not see it does not call absent: "+never, said)
	}
	m.T.Log(said)
}

// guardsHold: the acting service raises all, and reloads those that it knows to
// survive it.
func (m *machine) guardsHold() {
	type of struct{ master, workers string }
	before := map[int]of{}
	for _, g := range guards {
		master, workers := m.processes(g)
		before[g.port] = of{master, workers}
	}
	m.Sh("systemctl disable -q --now qwatch-audit; systemctl enable -q --now qwatch")
	stop := m.floodAll()
	for _, g := range guards {
		plan := m.planOf("qwatch", g)
		m.event(systemd.EventRaiseApplied, g.addr(), "QWATCH_ACTION=relisten")
		m.limit(g.addr(), raised)
		if g.refused != "" {
			m.Is(strings.Contains(plan, "; no reload: ") && strings.Contains(plan, g.refused), "its plan tells why there is no reload: "+g.refused, plan)
			continue
		}
		m.Is(!strings.Contains(plan, "no reload"), "its plan has a reload", plan)
		m.event(systemd.EventRaiseApplied, g.addr(), "QWATCH_ACTION=reload")
	}
	stop()
	for _, g := range guards {
		m.answers(g)
		m.state(g.unit, "active")
		master, workers := m.processes(g)
		was := before[g.port]
		m.Is(master == was.master, g.unit+" has the same master", was.master+" "+master)
		m.Is((workers == was.workers) == (g.refused != ""), g.unit+" has the workers of before, or others after a reload", was.workers+" then "+workers)
		reloads, _ := m.Try("grep '\"reload\"' " + audit + " | grep -c '" + g.addr() + "\"'")
		m.Is((reloads == "0") == (g.refused != ""), "the trail of "+g.unit+" tells of a reload only where there was one", reloads)
	}
	m.T.Log(m.Sh("journalctl -u qwatch -o cat"))
}
