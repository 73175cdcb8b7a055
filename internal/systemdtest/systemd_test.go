//go:build systemdtest

package systemdtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qwatch/internal/testbed"
	"qwatch/systemd"
)

// The test's program is also the clients that fill a queue: it runs inside as
// well.
func TestMain(m *testing.M) {
	if addr := os.Getenv("QWATCH_TEST_FLOOD"); addr != "" {
		// They begin a request and stay. New ones keep coming, for a worker takes one
		// out now and then. Silent ones would leave clients behind that nobody is:
		// uWSGI's TCP_DEFER_ACCEPT (bind_to_tcp, core/socket.c) keeps those half-open,
		// beyond its limit the kernel sends SYN cookies, and the last ACK of a closed
		// connection, sent twice, passes as the answer to one (cookie_v4_check,
		// net/ipv4/syncookies.c). A worker waits 4 s for each (socket-timeout).
		if _, err := testbed.Flood(context.Background(), addr, testbed.FloodOptions{
			Connections: 3000, Rate: 60, Say: "GET", Hold: 8 * time.Second, Timeout: 3 * time.Second,
		}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	low    = 128  // somaxconn as the host has it without qwatch
	small  = 64   // each uWSGI's limit
	raised = 1024 // what min_backlog makes of it
	audit  = "/var/lib/qwatch/audit.jsonl"
	conf   = "/etc/sysctl.d/90-qwatch.conf"
)

// env names what scripts/test-systemd has prepared.
func env(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run make test-systemd", name)
	}
	return value
}

func TestSystemd(t *testing.T) {
	t.Parallel()
	deb, base := env(t, "QWATCH_TEST_DEB"), env(t, "QWATCH_TEST_ROOT")
	m := boot(t, base)
	m.share(deb, "qwatch.deb")
	m.shareSelf()
	m.copyTestdata()

	m.scene("applications", func() { m.startApplications() })
	m.scene("install", func() { m.install() })
	m.scene("audit", func() { m.auditOnly() })
	m.scene("journal", func() { m.raiseNotify() })
	m.scene("file", func() { m.raiseFile() })
	m.scene("socket", func() { m.raiseSocket() })
	m.scene("exit on reload", func() { m.exitOnReload() })
	m.scene("killed", func() { m.killed() })
	m.scene("watchdog", func() { m.watchdog() })
	m.scene("configuration", func() { m.configuration() })
	m.scene("failed units", func() { m.failedUnits() })
	m.scene("documentation", func() { m.documentation() })
	m.scene("boot order", func() { m.bootOrder() })
	m.scene("reboot", func() { m.afterReboot() })
	m.scene("drop-ins", func() { m.dropIns() })
	m.scene("upgrade", func() { m.upgrade() })
	m.scene("remove and purge", func() { m.removeAndPurge() })
	m.scene("package tests", func() { m.packageTests() })
}

// shareSelf puts this program into /mnt, as the clients of a flood.
func (m *machine) shareSelf() {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	m.share(self, "flood")
}

// share puts a copy of a host's file into /mnt.
func (m *machine) share(path, name string) {
	m.t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.shared, name), b, 0o755)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) copyTestdata() {
	files, err := filepath.Glob("testdata/*")
	if err != nil || len(files) == 0 {
		m.t.Fatalf("testdata: %v, %d files", err, len(files))
	}
	for _, f := range files {
		m.share(f, filepath.Base(f))
	}
}

// flood begins to fill the queue of addr; the returned function ends that.
func (m *machine) flood(addr string) (stop func()) {
	m.t.Helper()
	unit := "flood-" + addr[strings.LastIndex(addr, ":")+1:]
	m.sh(fmt.Sprintf("systemd-run -q --collect --unit %s -p LimitNOFILE=8192 -E QWATCH_TEST_FLOOD=%s /mnt/flood", unit, addr))
	return func() { m.sh("systemctl stop " + unit) }
}

// limit asserts, from ss, the limit of the running socket.
func (m *machine) limit(addr string, want int) {
	m.t.Helper()
	got := strings.Fields(m.sh("ss -H -ltn 'src " + addr + "'"))
	m.is(len(got) > 2 && got[2] == fmt.Sprint(want), fmt.Sprintf("ss shows %s with the limit %d", addr, want), fmt.Sprint(got))
}

// somaxconn asserts the running value.
func (m *machine) somaxconn(want int) {
	m.t.Helper()
	got := m.sh("sysctl -n net.core.somaxconn")
	m.is(got == fmt.Sprint(want), fmt.Sprintf("sysctl shows net.core.somaxconn = %d", want), got)
}

// state asserts the state of a unit.
func (m *machine) state(unit, want string) {
	m.t.Helper()
	got := m.sh("systemctl show -p ActiveState --value " + unit)
	m.is(got == want, unit+" is "+want, got)
}

// entry is one of the journal's; values that are no text are left out.
type entry map[string]any

// entries are those of the journal with these fields.
func (m *machine) entries(matches ...string) []entry {
	m.t.Helper()
	var list []entry
	for line := range strings.Lines(m.sh("journalctl --no-pager -o json " + strings.Join(matches, " "))) {
		if !strings.HasPrefix(line, "{") {
			continue // "-- No entries --"
		}
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			m.t.Fatalf("%v: %s", err, line)
		}
		list = append(list, e)
	}
	return list
}

// event waits for an event about a socket and gives its newest entry.
func (m *machine) event(name, addr string, more ...string) entry {
	m.t.Helper()
	matches := append([]string{"-u", "qwatch", "QWATCH_EVENT=" + name}, more...)
	if addr != "" {
		matches = append(matches, "QWATCH_SOCKET="+addr)
	}
	var list []entry
	m.eventually("journalctl "+strings.Join(matches, " "), 40*time.Second, func() (bool, string) {
		list = m.entries(matches...)
		return len(list) > 0, "no such entry"
	})
	e := list[len(list)-1]
	m.is(e["MESSAGE_ID"] == systemd.MessageID(name), "its MESSAGE_ID is that of "+name, fmt.Sprint(e))
	return e
}

// fromNow are the arguments to journalctl for what comes from now on.
func (m *machine) fromNow() string { return "--since @" + m.sh("date +%s.%6N") }

func (m *machine) startApplications() {
	m.sh(`set -e
		echo 'net.core.somaxconn = 128' >/etc/sysctl.d/10-low.conf
		sysctl -q -p /etc/sysctl.d/10-low.conf
		useradd -r app
		mkdir -p /srv/app /var/log/uwsgi/app
		cp /mnt/app.py /srv/app/; touch /srv/app/reopen; chown app /srv/app/reopen
		chown app:adm /var/log/uwsgi/app
		mkfifo /var/log/uwsgi/app/pipe.log; chgrp adm /var/log/uwsgi/app/pipe.log
		cp /mnt/web-* /etc/systemd/system/
		systemctl daemon-reload
		systemctl -q enable --now web-notify web-file@5002 web-socket.socket web-socket`)
	for _, addr := range []string{"127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"} {
		m.eventuallySays("ss -H -ltn 'src "+addr+"'", addr, 20*time.Second)
		m.limit(addr, small)
	}
}

func (m *machine) install() {
	m.sh("dpkg -i /mnt/qwatch.deb")
	m.state("qwatch-audit", "active")
	m.says("systemctl is-enabled qwatch-audit", "enabled")
	m.says("systemctl is-enabled qwatch", "disabled")
	m.says("systemctl show -p StatusText qwatch-audit", "dry run; ")
	for unit, most := range map[string]string{"qwatch-audit": "11", "qwatch": "23"} {
		out, err := m.try("systemd-analyze --no-pager security --threshold=" + most + " " + unit + ".service")
		m.is(err == nil, fmt.Sprintf("systemd-analyze security %s is at most %s tenths: %s", unit, most, out[strings.LastIndex(out, "\n")+1:]), out)
	}
	m.says("systemctl show -p UnitFileState,LoadError,NeedDaemonReload qwatch", "NeedDaemonReload=no")
	m.says("dpkg-query -W -f '${Conffiles}' qwatch", "/etc/qwatch/qwatch.toml")
	m.says("ls /usr/share/man/man1 /usr/share/man/man5 /usr/share/bash-completion/completions /usr/share/doc/qwatch", "qwatch")
	m.says("journalctl --list-catalog | grep "+systemd.MessageID(systemd.EventRaiseApplied), "qwatch: ")
}

func (m *machine) auditOnly() {
	m.sh("cp /mnt/qwatch.toml /etc/qwatch/qwatch.toml && systemctl restart qwatch-audit")
	stop := m.flood("127.0.0.1:5001")
	defer stop()
	m.eventuallySays("journalctl -u qwatch-audit -o cat QWATCH_ACTION=relisten", "planned: ", 40*time.Second)
	m.says("qwatch status", "dry run")
	m.limit("127.0.0.1:5001", small)
	m.somaxconn(low)
	m.says("ls "+conf, "No such file")

	// What the dry run leaves out is tried by hand in the very same sandbox.
	tried := "journalctl -u qwatch-audit -o cat " + m.fromNow()
	m.sh(`mkdir -p /run/systemd/system/qwatch-audit.service.d
cat >/run/systemd/system/qwatch-audit.service.d/try.conf <<'END'
[Service]
ExecStartPre=-/bin/sh -c 'id -un; grep -E "^Cap(Eff|Bnd|Amb)" /proc/self/status'
ExecStartPre=-/bin/sh -c 'echo 1024 >/proc/sys/net/core/somaxconn'
ExecStartPre=-/bin/sh -c 'echo x >/etc/sysctl.d/90-qwatch.conf'
ExecStartPre=-/bin/sh -c 'echo x >/etc/qwatch/qwatch.toml'
ExecStartPre=-/bin/kill -HUP 1
ExecStartPre=-/usr/bin/qwatch apply --yes
END
systemctl daemon-reload; systemctl restart qwatch-audit`)
	for _, said := range []string{
		"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
		"/proc/sys/net/core/somaxconn: Read-only file system",
		"/etc/sysctl.d/90-qwatch.conf: Read-only file system",
		"cannot create /etc/qwatch/qwatch.toml",
		"127.0.0.1:5001: refuse: whether qwatch may act on the uWSGI could not be seen: ",
		"Operation not permitted", // the signal
	} {
		m.eventuallySays(tried, said, 10*time.Second)
	}
	m.limit("127.0.0.1:5001", small)
	m.somaxconn(low)
	m.sh("rm -r /run/systemd/system/qwatch-audit.service.d; systemctl daemon-reload; systemctl restart qwatch-audit")
}

// raise floods a socket until qwatch has raised it, and asserts what it says.
func (m *machine) raise(addr string) {
	m.t.Helper()
	m.limit(addr, small)
	stop := m.flood(addr)
	opened := m.event(systemd.EventIncidentOpened, addr)
	m.event(systemd.EventRaiseApplied, addr, "QWATCH_ACTION=relisten")
	m.limit(addr, raised)
	done := m.event(systemd.EventRaiseApplied, addr, "QWATCH_ACTION=relisten")
	for field, want := range map[string]string{
		"QWATCH_FROM": "64", "QWATCH_TO": "1024", "QWATCH_RESULT": "applied", "PRIORITY": "6",
		"SYSLOG_IDENTIFIER": "qwatch", "_SYSTEMD_UNIT": "qwatch.service",
	} {
		m.is(done[field] == want, "field "+field+"="+want, fmt.Sprint(done))
	}
	incident, plan := fmt.Sprint(opened["QWATCH_INCIDENT"]), fmt.Sprint(done["QWATCH_PLAN"])
	m.is(done["QWATCH_INCIDENT"] == incident && strings.HasPrefix(plan, incident), "QWATCH_PLAN="+plan+" belongs to QWATCH_INCIDENT="+incident, fmt.Sprint(done))
	stop() // of a queue that grows there is no verdict yet
	m.event(systemd.EventVerdictFixed, addr)
}

func (m *machine) raiseNotify() {
	m.sh("systemctl disable --now qwatch-audit && systemctl enable --now qwatch")
	m.says("systemctl show -p StatusText qwatch", "source")
	before := m.sh("systemctl show -p MainPID --value web-notify")
	m.raise("127.0.0.1:5001")
	m.event(systemd.EventRaiseApplied, "127.0.0.1:5001", "QWATCH_ACTION=reload")
	m.somaxconn(raised)
	m.says("cat "+conf, fmt.Sprintf("net.core.somaxconn = %d", raised))
	m.says("stat -c '%a %U' "+conf, "644 root")
	m.eventuallySays("journalctl -u web-notify -o cat _PID=1", "Reloaded web-notify.service", 20*time.Second)
	m.says("grep '\"reload\"' "+audit, "web-notify.service")
	m.is(m.sh("systemctl show -p MainPID --value web-notify") == before, "it is the same uWSGI master", before)
	m.says("journalctl --no-pager -x -u qwatch QWATCH_EVENT=raise-applied QWATCH_SOCKET=127.0.0.1:5001", "To put back what can safely be put back")
	m.says("systemctl show -p StatusText qwatch", "open incident")
}

func (m *machine) raiseFile() {
	// In a new file from here on; the old one ends in whatever was there.
	m.sh("apt-config dump >/dev/null; logrotate -f -s /tmp/logrotate.state /mnt/logrotate.conf")
	m.says("ls /var/log/uwsgi/app", "web-5002.log.1")
	m.raise("127.0.0.1:5002")
	m.event(systemd.EventRaiseApplied, "127.0.0.1:5002", "QWATCH_ACTION=reload")
	m.says("grep -c 'listen queue' /var/log/uwsgi/app/web-5002.log.1 || true", "0")
	m.sh("logrotate -f -s /tmp/logrotate.state /mnt/logrotate.conf")
}

func (m *machine) raiseSocket() {
	before := m.sh("systemctl show -p MainPID --value web-socket")
	m.raise("127.0.0.1:5003")
	// A uWSGI that got its socket from systemd loses it with a reload, and ends.
	m.is(len(m.entries("QWATCH_SOCKET=127.0.0.1:5003", "QWATCH_ACTION=reload")) == 0, "its uWSGI was not reloaded", "")
	m.is(m.sh("systemctl show -p MainPID --value web-socket") == before, "it is the same uWSGI master", before)
	m.says("qwatch plan --socket 127.0.0.1:5003; qwatch doctor", "Backlog=")
	failed := m.sh("grep '\"failed\"' " + audit + " || true")
	m.is(failed == "", "of all steps until here none has failed", failed)
	m.says("cat "+conf, "net.ipv4.tcp_max_syn_backlog = 8192")
}

// exitOnReload raises two applications that a reload would end: one whose
// configuration says so, and one whose configuration has gone since its start.
func (m *machine) exitOnReload() {
	for port, unread := range map[string]bool{"5005": false, "5006": true} {
		addr, ini, unit := "127.0.0.1:"+port, "/etc/uwsgi/once-"+port+".ini", "web-once@"+port
		m.sh(`mkdir -p /etc/uwsgi
cat >` + ini + ` <<'END'
[uwsgi]
master = true
need-app = true
http-socket = ` + addr + `
listen = 64
processes = 1
chdir = /srv/app
module = app
logto2 = /var/log/uwsgi/app/web-` + port + `.log
exit-on-reload = true
END
systemctl start ` + unit)
		m.eventuallySays("ss -H -ltn 'src "+addr+"'", addr, 20*time.Second)
		why := "exit-on-reload (" + ini + ":10)"
		if unread {
			m.sh("rm " + ini)
			why = "configuration is not known"
		}
		before := m.sh("systemctl show -p MainPID --value " + unit)
		m.raise(addr)
		m.says("journalctl --no-pager -o cat -u qwatch QWATCH_SOCKET="+addr, why)
		m.is(m.sh("systemctl show -p MainPID --value "+unit) == before, "it is the same uWSGI master", before)
		m.state(unit, "active")
		m.sh("systemctl stop " + unit)
	}
}

// killed kills qwatch in the middle of a reload.
func (m *machine) killed() {
	m.sh("systemctl start web-file@5004")
	m.eventuallySays("ss -H -ltn 'src 127.0.0.1:5004'", "5004", 20*time.Second)
	stop := m.flood("127.0.0.1:5004")
	m.eventually("a reload has begun", 40*time.Second, func() (bool, string) {
		out, _ := m.try("tail -n 1 " + audit)
		return strings.Contains(out, `"reload"`) && strings.Contains(out, `"started"`), out
	})
	m.sh("systemctl kill -s KILL --kill-whom=main qwatch")
	stop()
	m.eventuallySays("systemctl show -p NRestarts,ActiveState qwatch", "NRestarts=1\nActiveState=active", 20*time.Second)
	m.event(systemd.EventActionRecovered, "")
	m.limit("127.0.0.1:5004", raised)
	m.state("web-file@5004", "active")

	// The new one may be at work itself.
	m.eventually("every step that was started stands in the audit trail with its end", 40*time.Second, func() (bool, string) {
		open := map[string]int{}
		for line := range strings.Lines(m.sh("cat " + audit)) {
			var e struct{ Plan, Action, Target, Result string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				m.t.Fatalf("audit trail: %v: %q", err, line)
			}
			switch key := e.Plan + " " + e.Action + " " + e.Target; e.Result {
			case "started":
				open[key]++
			default:
				delete(open, key)
			}
		}
		return len(open) == 0, fmt.Sprint(open)
	})
}

// watchdog stops qwatch's loops, and lets it follow a pipe that nobody writes.
func (m *machine) watchdog() {
	m.says("qwatch status", "pipe.log")
	m.sh(`mkdir -p /run/systemd/system/qwatch.service.d
printf '[Service]\nWatchdogSec=4s\nTimeoutAbortSec=2s\n' >/run/systemd/system/qwatch.service.d/watchdog.conf
systemctl daemon-reload; systemctl restart qwatch`)
	m.state("qwatch", "active")
	before := m.sh("systemctl show -p MainPID --value qwatch")
	m.eventually("qwatch answers the watchdog for more than twice its time", 30*time.Second, func() (bool, string) {
		var answered, active int64 // µs since the boot (org.freedesktop.systemd1(5))
		out := m.sh("systemctl show -p WatchdogTimestampMonotonic --value qwatch; systemctl show -p ActiveEnterTimestampMonotonic --value qwatch")
		_, err := fmt.Sscan(out, &answered, &active)
		return err == nil && time.Duration(answered-active)*time.Microsecond > 8*time.Second, out
	})
	m.is(m.sh("systemctl show -p MainPID --value qwatch") == before, "over two WatchdogSec=, and with a pipe without writer, it was not restarted", before)
	m.sh("systemctl kill -s STOP --kill-whom=main qwatch")
	m.eventuallySays("journalctl -u qwatch -o cat _PID=1", "Watchdog timeout", 20*time.Second)
	m.eventually("systemd has started it again", 20*time.Second, func() (bool, string) {
		out, _ := m.try("systemctl show -p MainPID,ActiveState --value qwatch | xargs")
		return strings.HasSuffix(out, " active") && !strings.HasPrefix(out, before+" "), out
	})
	m.sh("rm -r /run/systemd/system/qwatch.service.d; systemctl daemon-reload; systemctl reset-failed qwatch; systemctl restart qwatch")
}

func (m *machine) configuration() {
	pid := m.sh("systemctl show -p MainPID --value qwatch")
	m.sh("sed -i 's/^window.*/window = \"soon\"/' /etc/qwatch/qwatch.toml")
	since := m.fromNow()
	m.says("systemctl reload qwatch; echo status $?", "status 1")
	m.event(systemd.EventConfigRefused, "")
	m.eventuallySays("journalctl -u qwatch -o cat "+since, "qwatch.toml:", 10*time.Second)
	m.state("qwatch", "active")
	m.sh("sed -i 's/^window.*/window = \"11s\"/' /etc/qwatch/qwatch.toml; systemctl reload qwatch")
	m.event(systemd.EventConfigReloaded, "")
	m.is(m.sh("systemctl show -p MainPID --value qwatch") == pid, "it is the same process", pid)
}

// failedUnits starts both services with a bad configuration, which fails them
// for good, and crashes one, which is started again.
func (m *machine) failedUnits() {
	m.sh("sed -i 's/^window.*/window = \"soon\"/' /etc/qwatch/qwatch.toml")
	for _, unit := range []string{"qwatch-audit", "qwatch"} {
		since := m.fromNow()
		m.says("systemctl restart "+unit+"; echo status $?", "status 1")
		m.says("systemctl --failed --no-legend", unit+".service")
		m.says("systemctl show -p Result,ExecMainStatus,NRestarts,SubState "+unit+" | sort | xargs",
			"ExecMainStatus=2 NRestarts=0 Result=exit-code SubState=failed")
		m.eventuallySays("journalctl -u "+unit+" -o cat "+since, "qwatch.toml:", 10*time.Second)
		m.sh("systemctl reset-failed " + unit)
	}
	m.sh("sed -i 's/^window.*/window = \"11s\"/' /etc/qwatch/qwatch.toml; systemctl start qwatch")
	since := m.fromNow()
	m.sh("systemctl kill -s QUIT --kill-whom=main qwatch")
	m.eventuallySays("systemctl show -p NRestarts,ActiveState qwatch", "NRestarts=1\nActiveState=active", 30*time.Second)
	m.eventuallySays("journalctl -u qwatch -o cat "+since, "goroutine ", 10*time.Second)
	unknown := m.sh("journalctl -b -o cat | grep -E 'qwatch.*(Unknown key|Unknown lvalue)' || true")
	m.is(unknown == "", "systemd knows each key of the units", unknown)
}

// documentation runs every command of docs/systemd.md, in order.
func (m *machine) documentation() {
	text, err := os.ReadFile("../../docs/systemd.md")
	if err != nil {
		m.t.Fatal(err)
	}
	ran := 0
	for i, block := range strings.Split(string(text), "```") {
		if i%2 == 0 {
			continue // the text between the blocks
		}
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' || strings.HasPrefix(line, "apt install ") {
				continue
			}
			out, err := m.try(line)
			var exit *exec.ExitError
			// Status 3 of plan: there is something to do.
			ok := err == nil || strings.HasPrefix(line, "qwatch plan") && errors.As(err, &exit) && exit.ExitCode() == 3
			// Only what has not happened yet may show nothing.
			empty := strings.Contains(out, "-- No entries --")
			m.is(ok && (!empty || strings.Contains(line, "boot-loses") || strings.Contains(line, "no-effect")), line, out)
			ran++
		}
	}
	m.is(ran > 15, fmt.Sprintf("these were all %d", ran), "")
	m.sh("rm -r /etc/systemd/system/qwatch.service.d; systemctl daemon-reload; systemctl restart qwatch")
}

func (m *machine) bootOrder() {
	m.sh("echo 'net.core.somaxconn = 256' >/etc/sysctl.d/99-zz.conf; systemctl restart qwatch")
	e := m.event(systemd.EventBootLoses, "")
	m.is(strings.Contains(fmt.Sprint(e["MESSAGE"]), "/etc/sysctl.d/99-zz.conf"), "it names the file that would win", fmt.Sprint(e))
	m.says("qwatch doctor; echo status $?", "99-zz.conf")
	m.sh("rm /etc/sysctl.d/99-zz.conf")
}

func (m *machine) afterReboot() {
	// Both enabled: the acting one must win.
	m.sh("systemctl -q enable qwatch-audit")
	// One file was rotated after it was read, one is as it was.
	lines := m.sh("cat /var/log/uwsgi/app/web-5002.log.1 /var/log/uwsgi/app/web-5004.log | grep -c 'listen queue of'")
	m.says("grep 'listen queue of' /var/log/uwsgi/app/web-5004.log", "full !!!")
	m.reboot()
	m.eventuallySays("systemctl show -p ActiveState qwatch", "ActiveState=active", 20*time.Second)
	m.state("qwatch-audit", "inactive")
	m.somaxconn(raised)
	m.says("systemctl show -p Result systemd-sysctl", "success")
	m.sh("systemctl -q disable qwatch-audit")
	for _, addr := range []string{"127.0.0.1:5001", "127.0.0.1:5002"} {
		m.eventuallySays("ss -H -ltn 'src "+addr+"'", fmt.Sprint(raised), 30*time.Second)
		m.event(systemd.EventLimitKept, addr, "-b")
	}
	// What is new comes behind what is old: a record in each file, and what the
	// applications have said in the journal since they were started.
	m.sh(`for port in 5002 5004; do
		echo '*** uWSGI listen queue of socket "127.0.0.1:1" (fd: 3) full !!! (65/64) ***' >>/var/log/uwsgi/app/web-$port.log
	done`)
	var hits map[string]int
	m.eventually("new lines are read of both files and of the journal", 20*time.Second, func() (bool, string) {
		var status struct {
			Sources []struct {
				Name, Kind string
				Lines      *int
				Hits       int
			}
		}
		if err := json.Unmarshal([]byte(m.sh("qwatch status --json")), &status); err != nil {
			m.t.Fatal(err)
		}
		hits = map[string]int{}
		journal := false
		for _, s := range status.Sources {
			if s.Hits > 0 {
				hits[s.Name] = s.Hits
			}
			journal = journal || s.Kind == "journal" && s.Lines != nil && *s.Lines > 0
		}
		return journal && len(hits) >= 2, fmt.Sprintf("%+v", status)
	})
	only := map[string]int{"/var/log/uwsgi/app/web-5002.log": 1, "/var/log/uwsgi/app/web-5004.log": 1}
	m.is(maps.Equal(hits, only), "of the "+lines+" old records in files, and of those in the journal, none was counted again", fmt.Sprint(hits))
	m.is(len(m.entries("-b", "-u", "qwatch", "QWATCH_EVENT="+systemd.EventIncidentOpened)) == 0, "no incident since the boot", m.sh("journalctl -b -u qwatch -o cat"))
	m.is(len(m.entries("-b", "-u", "qwatch", "QWATCH_EVENT="+systemd.EventLinesLost)) == 0, "no line counts as lost", m.sh("journalctl -b -u qwatch -o cat"))
	// And what comes now is seen.
	m.sh("systemctl stop web-socket web-socket.socket && systemctl start web-socket.socket web-socket")
	m.limit("127.0.0.1:5003", small)
}

// dropIns gives up what the examples give up.
func (m *machine) dropIns() {
	for _, x := range []struct{ file, has, lacks string }{
		{"no-relisten.conf", "cap_kill", "cap_sys_ptrace"},
		{"no-reload.conf", "cap_sys_ptrace", "cap_kill"},
		{"containers.conf", "cap_sys_admin", "cap_bpf"},
		{"reload-by-file.conf", "cap_fowner", "cap_sys_admin"},
	} {
		m.sh("mkdir -p /etc/uwsgi/reload; install -D -m 644 -t /etc/systemd/system/qwatch.service.d /usr/share/doc/qwatch/examples/" + x.file)
		m.sh("systemctl daemon-reload; systemctl restart qwatch")
		m.state("qwatch", "active")
		caps := m.sh("systemctl show -p CapabilityBoundingSet qwatch")
		m.is(strings.Contains(caps, x.has) && !strings.Contains(caps, x.lacks), x.file+": "+caps, caps)
		if x.file == "no-relisten.conf" {
			m.cannotRelisten("pidfd_getfd of qwatch itself: operation not permitted; needs no seccomp filter against it")
		}
		m.sh("rm -r /etc/systemd/system/qwatch.service.d")
	}
	m.sh(`mkdir -p /run/systemd/system/qwatch.service.d
printf '[Service]\nSystemCallFilter=~listen\n' >/run/systemd/system/qwatch.service.d/listen.conf
systemctl daemon-reload; systemctl restart qwatch`)
	m.cannotRelisten("listen of a socket of its own: operation not permitted; needs no seccomp filter against it")
	m.sh("rm -r /run/systemd/system/qwatch.service.d; systemctl daemon-reload; systemctl restart qwatch")
}

// cannotRelisten waits for what qwatch says of its rights since its last
// start.
func (m *machine) cannotRelisten(why string) {
	m.t.Helper()
	since := m.sh("systemctl show -p InvocationID --value qwatch")
	m.eventuallySays("journalctl -o cat _SYSTEMD_INVOCATION_ID="+since, "qwatch cannot do relisten here: "+why, 20*time.Second)
}

func (m *machine) upgrade() {
	pid := m.sh("systemctl show -p MainPID --value qwatch")
	m.sh("dpkg -i /mnt/qwatch.deb")
	m.is(m.sh("systemctl show -p MainPID --value qwatch") != pid, "an upgrade restarts the service that runs", pid)
	m.state("qwatch", "active")
	m.state("qwatch-audit", "inactive")
	m.says("systemctl is-enabled qwatch-audit", "disabled")
	m.says("cat /etc/qwatch/qwatch.toml", `window = "11s"`)
}

func (m *machine) removeAndPurge() {
	m.says("dpkg -r qwatch", conf+" stays")
	m.says("ls "+conf+" /etc/qwatch/qwatch.toml /var/lib/qwatch", "audit.jsonl")
	m.state("qwatch", "inactive")
	m.state("qwatch-audit", "inactive")
	m.says("systemctl --no-pager list-unit-files 'qwatch*'", "0 unit files")
	m.says("dpkg -P qwatch", "removed "+conf)
	left := m.sh(`find / -xdev \( -path /proc -o -path /mnt -o -path /var/log/journal \) -prune -o -iname '*qwatch*' -print`)
	m.is(left == "", "a purge leaves nothing", left)
	left = m.sh("journalctl --list-catalog | grep qwatch || true")
	m.is(left == "", "no entry of the catalog is left", left)
}

// packageTests runs the tests of packages that need a real systemd, which are
// built for it only.
func (m *machine) packageTests() {
	for _, pkg := range []string{"systemd", "tailer/journal"} {
		out, err := exec.Command("go", "test", "-c", "-tags", "systemdtest", "-o", filepath.Join(m.shared, "package.test"), "qwatch/"+pkg).CombinedOutput()
		if err != nil {
			m.t.Fatalf("%v\n%s", err, out)
		}
		if pkg == "systemd" {
			m.share("../../systemd/qwatch.catalog", "qwatch.catalog")
		}
		got, err := m.try("cd /mnt && ./package.test -test.v -test.run Real")
		m.is(err == nil && strings.Contains(got, "--- PASS") && !strings.Contains(got, "--- SKIP"), "the tests of "+pkg+" against the real one pass", got)
	}
}
