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
	m.Share(deb, "qwatch.deb")
	m.ShareSelf("flood")
	m.copyTestdata()

	m.Scene("applications", func() { m.startApplications() })
	m.Scene("install", func() { m.install() })
	m.Scene("audit", func() { m.auditOnly() })
	m.Scene("journal", func() { m.raiseNotify() })
	m.Scene("file", func() { m.raiseFile() })
	m.Scene("socket", func() { m.raiseSocket() })
	m.Scene("exit on reload", func() { m.exitOnReload() })
	m.Scene("killed", func() { m.killed() })
	m.Scene("watchdog", func() { m.watchdog() })
	m.Scene("configuration", func() { m.configuration() })
	m.Scene("failed units", func() { m.failedUnits() })
	m.Scene("documentation", func() { m.documentation() })
	m.Scene("boot order", func() { m.bootOrder() })
	m.Scene("reboot", func() { m.afterReboot() })
	m.Scene("drop-ins", func() { m.dropIns() })
	m.Scene("upgrade", func() { m.upgrade() })
	m.Scene("remove and purge", func() { m.removeAndPurge() })
	m.Scene("package tests", func() { m.packageTests() })
}

func (m *machine) copyTestdata() {
	files, err := filepath.Glob("testdata/*")
	if err != nil || len(files) == 0 {
		m.T.Fatalf("testdata: %v, %d files", err, len(files))
	}
	for _, f := range files {
		m.Share(f, filepath.Base(f))
	}
}

// flood begins to fill the queue of addr; the returned function ends that.
func (m *machine) flood(addr string) (stop func()) {
	m.T.Helper()
	unit := "flood-" + addr[strings.LastIndex(addr, ":")+1:]
	m.Sh(fmt.Sprintf("systemd-run -q --collect --unit %s -p LimitNOFILE=8192 -E QWATCH_TEST_FLOOD=%s /mnt/flood", unit, addr))
	return func() { m.Sh("systemctl stop " + unit) }
}

// limit asserts, from ss, the limit of the running socket.
func (m *machine) limit(addr string, want int) {
	m.T.Helper()
	got := strings.Fields(m.Sh("ss -H -ltn 'src " + addr + "'"))
	m.Is(len(got) > 2 && got[2] == fmt.Sprint(want), fmt.Sprintf("ss shows %s with the limit %d", addr, want), fmt.Sprint(got))
}

// somaxconn asserts the running value.
func (m *machine) somaxconn(want int) {
	m.T.Helper()
	got := m.Sh("sysctl -n net.core.somaxconn")
	m.Is(got == fmt.Sprint(want), fmt.Sprintf("sysctl shows net.core.somaxconn = %d", want), got)
}

// state asserts the state of a unit.
func (m *machine) state(unit, want string) {
	m.T.Helper()
	got := m.Sh("systemctl show -p ActiveState --value " + unit)
	m.Is(got == want, unit+" is "+want, got)
}

// entry is one of the journal's; values that are no text are left out.
type entry map[string]any

// entries are those of the journal with these fields.
func (m *machine) entries(matches ...string) []entry {
	m.T.Helper()
	var list []entry
	for line := range strings.Lines(m.Sh("journalctl --no-pager -o json " + strings.Join(matches, " "))) {
		if !strings.HasPrefix(line, "{") {
			continue // "-- No entries --"
		}
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			m.T.Fatalf("%v: %s", err, line)
		}
		list = append(list, e)
	}
	return list
}

// event waits for an event about a socket and gives its newest entry.
func (m *machine) event(name, addr string, more ...string) entry {
	m.T.Helper()
	matches := append([]string{"-u", "qwatch", "QWATCH_EVENT=" + name}, more...)
	if addr != "" {
		matches = append(matches, "QWATCH_SOCKET="+addr)
	}
	var list []entry
	m.Eventually("journalctl "+strings.Join(matches, " "), 40*time.Second, func() (bool, string) {
		list = m.entries(matches...)
		return len(list) > 0, "no such entry"
	})
	e := list[len(list)-1]
	m.Is(e["MESSAGE_ID"] == systemd.MessageID(name), "its MESSAGE_ID is that of "+name, fmt.Sprint(e))
	return e
}

// fromNow are the arguments to journalctl for what comes from now on.
func (m *machine) fromNow() string { return "--since @" + m.Sh("date +%s.%6N") }

func (m *machine) startApplications() {
	m.Sh(`set -e
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
		m.EventuallySays("ss -H -ltn 'src "+addr+"'", addr, 20*time.Second)
		m.limit(addr, small)
	}
}

func (m *machine) install() {
	m.Sh("dpkg -i /mnt/qwatch.deb")
	m.state("qwatch-audit", "active")
	m.Says("systemctl is-enabled qwatch-audit", "enabled")
	m.Says("systemctl is-enabled qwatch", "disabled")
	m.Says("systemctl show -p StatusText qwatch-audit", "dry run; ")
	for unit, most := range map[string]string{"qwatch-audit": "11", "qwatch": "23"} {
		out, err := m.Try("systemd-analyze --no-pager security --threshold=" + most + " " + unit + ".service")
		m.Is(err == nil, fmt.Sprintf("systemd-analyze security %s is at most %s tenths: %s", unit, most, out[strings.LastIndex(out, "\n")+1:]), out)
	}
	m.Says("systemctl show -p UnitFileState,LoadError,NeedDaemonReload qwatch", "NeedDaemonReload=no")
	m.Says("dpkg-query -W -f '${Conffiles}' qwatch", "/etc/qwatch/qwatch.toml")
	m.Says("ls /usr/share/man/man1 /usr/share/man/man5 /usr/share/bash-completion/completions /usr/share/doc/qwatch", "qwatch")
	m.Says("journalctl --list-catalog | grep "+systemd.MessageID(systemd.EventRaiseApplied), "qwatch: ")
}

func (m *machine) auditOnly() {
	m.Sh("cp /mnt/qwatch.toml /etc/qwatch/qwatch.toml && systemctl restart qwatch-audit")
	stop := m.flood("127.0.0.1:5001")
	defer stop()
	m.EventuallySays("journalctl -u qwatch-audit -o cat QWATCH_ACTION=relisten", "planned: ", 40*time.Second)
	m.Says("qwatch status", "dry run")
	m.limit("127.0.0.1:5001", small)
	m.somaxconn(low)
	m.Says("ls "+conf, "No such file")

	// What the dry run leaves out is tried by hand in the very same sandbox.
	tried := "journalctl -u qwatch-audit -o cat " + m.fromNow()
	m.Sh(`mkdir -p /run/systemd/system/qwatch-audit.service.d
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
		m.EventuallySays(tried, said, 10*time.Second)
	}
	m.limit("127.0.0.1:5001", small)
	m.somaxconn(low)
	m.Sh("rm -r /run/systemd/system/qwatch-audit.service.d; systemctl daemon-reload; systemctl restart qwatch-audit")
}

// raise floods a socket until qwatch has raised it, and asserts what it says.
func (m *machine) raise(addr string) {
	m.T.Helper()
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
		m.Is(done[field] == want, "field "+field+"="+want, fmt.Sprint(done))
	}
	incident, plan := fmt.Sprint(opened["QWATCH_INCIDENT"]), fmt.Sprint(done["QWATCH_PLAN"])
	m.Is(done["QWATCH_INCIDENT"] == incident && strings.HasPrefix(plan, incident), "QWATCH_PLAN="+plan+" belongs to QWATCH_INCIDENT="+incident, fmt.Sprint(done))
	stop() // of a queue that grows there is no verdict yet
	defer m.visit(addr)()
	m.event(systemd.EventVerdictFixed, addr)
}

// visit asks an application once a second, for a reload is proven by people served;
// the returned function ends that.
func (m *machine) visit(addr string) (stop func()) {
	m.T.Helper()
	port := addr[strings.LastIndex(addr, ":")+1:]
	m.Sh(fmt.Sprintf(`systemd-run -q --collect --unit visit-%s bash -c 'while sleep 1; do (exec 3<>/dev/tcp/127.0.0.1/%s && printf "GET / HTTP/1.0\r\n\r\n" >&3 && timeout 5 cat <&3); done'`, port, port))
	return func() { m.Sh("systemctl stop visit-" + port) }
}

func (m *machine) raiseNotify() {
	m.Sh("systemctl disable --now qwatch-audit && systemctl enable --now qwatch")
	m.Says("systemctl show -p StatusText qwatch", "source")
	before := m.Sh("systemctl show -p MainPID --value web-notify")
	m.raise("127.0.0.1:5001")
	m.event(systemd.EventRaiseApplied, "127.0.0.1:5001", "QWATCH_ACTION=reload")
	m.somaxconn(raised)
	m.Says("cat "+conf, fmt.Sprintf("net.core.somaxconn = %d", raised))
	m.Says("stat -c '%a %U' "+conf, "644 root")
	m.EventuallySays("journalctl -u web-notify -o cat _PID=1", "Reloaded web-notify.service", 20*time.Second)
	m.Says("grep '\"reload\"' "+audit, "web-notify.service")
	m.Is(m.Sh("systemctl show -p MainPID --value web-notify") == before, "it is the same uWSGI master", before)
	m.Says("journalctl --no-pager -x -u qwatch QWATCH_EVENT=raise-applied QWATCH_SOCKET=127.0.0.1:5001", "To put back what can safely be put back")
	m.Says("systemctl show -p StatusText qwatch", "open incident")
}

func (m *machine) raiseFile() {
	// In a new file from here on; the old one ends in whatever was there.
	m.Sh("apt-config dump >/dev/null; logrotate -f -s /tmp/logrotate.state /mnt/logrotate.conf")
	m.Says("ls /var/log/uwsgi/app", "web-5002.log.1")
	m.raise("127.0.0.1:5002")
	m.event(systemd.EventRaiseApplied, "127.0.0.1:5002", "QWATCH_ACTION=reload")
	m.Says("grep -c 'listen queue' /var/log/uwsgi/app/web-5002.log.1 || true", "0")
	m.Sh("logrotate -f -s /tmp/logrotate.state /mnt/logrotate.conf")
}

func (m *machine) raiseSocket() {
	before := m.Sh("systemctl show -p MainPID --value web-socket")
	m.raise("127.0.0.1:5003")
	// A uWSGI that got its socket from systemd loses it with a reload, and ends.
	m.Is(len(m.entries("QWATCH_SOCKET=127.0.0.1:5003", "QWATCH_ACTION=reload")) == 0, "its uWSGI was not reloaded", "")
	m.Is(m.Sh("systemctl show -p MainPID --value web-socket") == before, "it is the same uWSGI master", before)
	m.Says("qwatch plan --socket 127.0.0.1:5003; qwatch doctor", "Backlog=")
	failed := m.Sh("grep '\"failed\"' " + audit + " || true")
	m.Is(failed == "", "of all steps until here none has failed", failed)
	m.Says("cat "+conf, "net.ipv4.tcp_max_syn_backlog = 8192")
}

// exitOnReload raises two applications that a reload would end: one whose
// configuration says so, and one whose configuration has gone since its start.
func (m *machine) exitOnReload() {
	for port, unread := range map[string]bool{"5005": false, "5006": true} {
		addr, ini, unit := "127.0.0.1:"+port, "/etc/uwsgi/once-"+port+".ini", "web-once@"+port
		m.Sh(`mkdir -p /etc/uwsgi
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
		m.EventuallySays("ss -H -ltn 'src "+addr+"'", addr, 20*time.Second)
		why := "exit-on-reload (" + ini + ":10)"
		if unread {
			m.Sh("rm " + ini)
			why = "configuration is not known"
		}
		before := m.Sh("systemctl show -p MainPID --value " + unit)
		m.raise(addr)
		m.Says("journalctl --no-pager -o cat -u qwatch QWATCH_SOCKET="+addr, why)
		m.Is(m.Sh("systemctl show -p MainPID --value "+unit) == before, "it is the same uWSGI master", before)
		m.state(unit, "active")
		m.Sh("systemctl stop " + unit)
	}
}

// killed kills qwatch in the middle of a reload.
func (m *machine) killed() {
	m.Sh("systemctl start web-file@5004")
	m.EventuallySays("ss -H -ltn 'src 127.0.0.1:5004'", "5004", 20*time.Second)
	stop := m.flood("127.0.0.1:5004")
	m.Eventually("a reload has begun", 40*time.Second, func() (bool, string) {
		out, _ := m.Try("tail -n 1 " + audit)
		return strings.Contains(out, `"reload"`) && strings.Contains(out, `"started"`), out
	})
	m.Sh("systemctl kill -s KILL --kill-whom=main qwatch")
	stop()
	m.EventuallySays("systemctl show -p NRestarts,ActiveState qwatch", "NRestarts=1\nActiveState=active", 20*time.Second)
	m.event(systemd.EventActionRecovered, "")
	m.limit("127.0.0.1:5004", raised)
	m.state("web-file@5004", "active")

	// The new one may be at work itself.
	m.Eventually("every step that was started stands in the audit trail with its end", 40*time.Second, func() (bool, string) {
		open := map[string]int{}
		for line := range strings.Lines(m.Sh("cat " + audit)) {
			var e struct{ Plan, Action, Target, Result string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				m.T.Fatalf("audit trail: %v: %q", err, line)
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
	m.Says("qwatch status", "pipe.log")
	m.Sh(`mkdir -p /run/systemd/system/qwatch.service.d
printf '[Service]\nWatchdogSec=4s\nTimeoutAbortSec=2s\n' >/run/systemd/system/qwatch.service.d/watchdog.conf
systemctl daemon-reload; systemctl restart qwatch`)
	m.state("qwatch", "active")
	before := m.Sh("systemctl show -p MainPID --value qwatch")
	m.Eventually("qwatch answers the watchdog for more than twice its time", 30*time.Second, func() (bool, string) {
		var answered, active int64 // µs since the boot (org.freedesktop.systemd1(5))
		out := m.Sh("systemctl show -p WatchdogTimestampMonotonic --value qwatch; systemctl show -p ActiveEnterTimestampMonotonic --value qwatch")
		_, err := fmt.Sscan(out, &answered, &active)
		return err == nil && time.Duration(answered-active)*time.Microsecond > 8*time.Second, out
	})
	m.Is(m.Sh("systemctl show -p MainPID --value qwatch") == before, "over two WatchdogSec=, and with a pipe without writer, it was not restarted", before)
	m.Sh("systemctl kill -s STOP --kill-whom=main qwatch")
	m.EventuallySays("journalctl -u qwatch -o cat _PID=1", "Watchdog timeout", 20*time.Second)
	m.Eventually("systemd has started it again", 20*time.Second, func() (bool, string) {
		out, _ := m.Try("systemctl show -p MainPID,ActiveState --value qwatch | xargs")
		return strings.HasSuffix(out, " active") && !strings.HasPrefix(out, before+" "), out
	})
	m.Sh("rm -r /run/systemd/system/qwatch.service.d; systemctl daemon-reload; systemctl reset-failed qwatch; systemctl restart qwatch")
}

func (m *machine) configuration() {
	pid := m.Sh("systemctl show -p MainPID --value qwatch")
	m.Sh("sed -i 's/^window.*/window = \"soon\"/' /etc/qwatch/qwatch.toml")
	since := m.fromNow()
	m.Says("systemctl reload qwatch; echo status $?", "status 1")
	m.event(systemd.EventConfigRefused, "")
	m.EventuallySays("journalctl -u qwatch -o cat "+since, "qwatch.toml:", 10*time.Second)
	m.state("qwatch", "active")
	m.Sh("sed -i 's/^window.*/window = \"11s\"/' /etc/qwatch/qwatch.toml; systemctl reload qwatch")
	m.event(systemd.EventConfigReloaded, "")
	m.Is(m.Sh("systemctl show -p MainPID --value qwatch") == pid, "it is the same process", pid)
}

// failedUnits starts both services with a bad configuration, which fails them
// for good, and crashes one, which is started again.
func (m *machine) failedUnits() {
	m.Sh("sed -i 's/^window.*/window = \"soon\"/' /etc/qwatch/qwatch.toml")
	for _, unit := range []string{"qwatch-audit", "qwatch"} {
		since := m.fromNow()
		m.Says("systemctl restart "+unit+"; echo status $?", "status 1")
		m.Says("systemctl --failed --no-legend", unit+".service")
		m.Says("systemctl show -p Result,ExecMainStatus,NRestarts,SubState "+unit+" | sort | xargs",
			"ExecMainStatus=2 NRestarts=0 Result=exit-code SubState=failed")
		m.EventuallySays("journalctl -u "+unit+" -o cat "+since, "qwatch.toml:", 10*time.Second)
		m.Sh("systemctl reset-failed " + unit)
	}
	m.Sh("sed -i 's/^window.*/window = \"11s\"/' /etc/qwatch/qwatch.toml; systemctl start qwatch")
	since := m.fromNow()
	m.Sh("systemctl kill -s QUIT --kill-whom=main qwatch")
	m.EventuallySays("systemctl show -p NRestarts,ActiveState qwatch", "NRestarts=1\nActiveState=active", 30*time.Second)
	m.EventuallySays("journalctl -u qwatch -o cat "+since, "goroutine ", 10*time.Second)
	unknown := m.Sh("journalctl -b -o cat | grep -E 'qwatch.*(Unknown key|Unknown lvalue)' || true")
	m.Is(unknown == "", "systemd knows each key of the units", unknown)
}

// documentation runs every command of docs/systemd.md, in order.
func (m *machine) documentation() {
	text, err := os.ReadFile("../../docs/systemd.md")
	if err != nil {
		m.T.Fatal(err)
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
			out, err := m.Try(line)
			var exit *exec.ExitError
			// Status 3 of plan: there is something to do.
			ok := err == nil || strings.HasPrefix(line, "qwatch plan") && errors.As(err, &exit) && exit.ExitCode() == 3
			// Only what has not happened yet may show nothing.
			empty := strings.Contains(out, "-- No entries --")
			m.Is(ok && (!empty || strings.Contains(line, "boot-loses") || strings.Contains(line, "no-effect")), line, out)
			ran++
		}
	}
	m.Is(ran > 15, fmt.Sprintf("these were all %d", ran), "")
	m.Sh("rm -r /etc/systemd/system/qwatch.service.d; systemctl daemon-reload; systemctl restart qwatch")
}

func (m *machine) bootOrder() {
	m.Sh("echo 'net.core.somaxconn = 256' >/etc/sysctl.d/99-zz.conf; systemctl restart qwatch")
	e := m.event(systemd.EventBootLoses, "")
	m.Is(strings.Contains(fmt.Sprint(e["MESSAGE"]), "/etc/sysctl.d/99-zz.conf"), "it names the file that would win", fmt.Sprint(e))
	m.Says("qwatch doctor; echo status $?", "99-zz.conf")
	m.Sh("rm /etc/sysctl.d/99-zz.conf")
}

func (m *machine) afterReboot() {
	// Both enabled: the acting one must win.
	m.Sh("systemctl -q enable qwatch-audit")
	// One file was rotated after it was read, one is as it was.
	lines := m.Sh("cat /var/log/uwsgi/app/web-5002.log.1 /var/log/uwsgi/app/web-5004.log | grep -c 'listen queue of'")
	m.Says("grep 'listen queue of' /var/log/uwsgi/app/web-5004.log", "full !!!")
	m.Reboot()
	m.EventuallySays("systemctl show -p ActiveState qwatch", "ActiveState=active", 20*time.Second)
	m.state("qwatch-audit", "inactive")
	m.somaxconn(raised)
	m.Says("systemctl show -p Result systemd-sysctl", "success")
	m.Sh("systemctl -q disable qwatch-audit")
	for _, addr := range []string{"127.0.0.1:5001", "127.0.0.1:5002"} {
		m.EventuallySays("ss -H -ltn 'src "+addr+"'", fmt.Sprint(raised), 30*time.Second)
		m.event(systemd.EventLimitKept, addr, "-b")
	}
	// What is new comes behind what is old: a record in each file, and what the
	// applications have said in the journal since they were started.
	m.Sh(`for port in 5002 5004; do
		echo '*** uWSGI listen queue of socket "127.0.0.1:1" (fd: 3) full !!! (65/64) ***' >>/var/log/uwsgi/app/web-$port.log
	done`)
	var hits map[string]int
	m.Eventually("new lines are read of both files and of the journal", 20*time.Second, func() (bool, string) {
		var status struct {
			Sources []struct {
				Name, Kind string
				Lines      *int
				Hits       int
			}
		}
		if err := json.Unmarshal([]byte(m.Sh("qwatch status --json")), &status); err != nil {
			m.T.Fatal(err)
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
	m.Is(maps.Equal(hits, only), "of the "+lines+" old records in files, and of those in the journal, none was counted again", fmt.Sprint(hits))
	m.Is(len(m.entries("-b", "-u", "qwatch", "QWATCH_EVENT="+systemd.EventIncidentOpened)) == 0, "no incident since the boot", m.Sh("journalctl -b -u qwatch -o cat"))
	m.Is(len(m.entries("-b", "-u", "qwatch", "QWATCH_EVENT="+systemd.EventLinesLost)) == 0, "no line counts as lost", m.Sh("journalctl -b -u qwatch -o cat"))
	// And what comes now is seen.
	m.Sh("systemctl stop web-socket web-socket.socket && systemctl start web-socket.socket web-socket")
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
		m.Sh("mkdir -p /etc/uwsgi/reload; install -D -m 644 -t /etc/systemd/system/qwatch.service.d /usr/share/doc/qwatch/examples/" + x.file)
		m.Sh("systemctl daemon-reload; systemctl restart qwatch")
		m.state("qwatch", "active")
		caps := m.Sh("systemctl show -p CapabilityBoundingSet qwatch")
		m.Is(strings.Contains(caps, x.has) && !strings.Contains(caps, x.lacks), x.file+": "+caps, caps)
		if x.file == "no-relisten.conf" {
			m.cannotRelisten("pidfd_getfd of qwatch itself: operation not permitted; needs no seccomp filter against it")
		}
		m.Sh("rm -r /etc/systemd/system/qwatch.service.d")
	}
	m.Sh(`mkdir -p /run/systemd/system/qwatch.service.d
printf '[Service]\nSystemCallFilter=~listen\n' >/run/systemd/system/qwatch.service.d/listen.conf
systemctl daemon-reload; systemctl restart qwatch`)
	m.cannotRelisten("listen of a socket of its own: operation not permitted; needs no seccomp filter against it")
	m.Sh("rm -r /run/systemd/system/qwatch.service.d; systemctl daemon-reload; systemctl restart qwatch")
}

// cannotRelisten waits for what qwatch says of its rights since its last
// start.
func (m *machine) cannotRelisten(why string) {
	m.T.Helper()
	since := m.Sh("systemctl show -p InvocationID --value qwatch")
	m.EventuallySays("journalctl -o cat _SYSTEMD_INVOCATION_ID="+since, "qwatch cannot do relisten here: "+why, 20*time.Second)
}

func (m *machine) upgrade() {
	pid := m.Sh("systemctl show -p MainPID --value qwatch")
	m.Sh("dpkg -i /mnt/qwatch.deb")
	m.Is(m.Sh("systemctl show -p MainPID --value qwatch") != pid, "an upgrade restarts the service that runs", pid)
	m.state("qwatch", "active")
	m.state("qwatch-audit", "inactive")
	m.Says("systemctl is-enabled qwatch-audit", "disabled")
	m.Says("cat /etc/qwatch/qwatch.toml", `window = "11s"`)
}

func (m *machine) removeAndPurge() {
	m.Says("dpkg -r qwatch", conf+" stays")
	m.Says("ls "+conf+" /etc/qwatch/qwatch.toml /var/lib/qwatch", "audit.jsonl")
	m.state("qwatch", "inactive")
	m.state("qwatch-audit", "inactive")
	m.Says("systemctl --no-pager list-unit-files 'qwatch*'", "0 unit files")
	m.Says("dpkg -P qwatch", "removed "+conf)
	left := m.Sh(`find / -xdev \( -path /proc -o -path /mnt -o -path /var/log/journal \) -prune -o -iname '*qwatch*' -print`)
	m.Is(left == "", "a purge leaves nothing", left)
	left = m.Sh("journalctl --list-catalog | grep qwatch || true")
	m.Is(left == "", "no entry of the catalog is left", left)
}

// packageTests runs the tests of packages that need a real systemd, which are
// built for it only.
func (m *machine) packageTests() {
	for _, pkg := range []string{"systemd", "tailer/journal"} {
		out, err := exec.Command("go", "test", "-c", "-tags", "systemdtest", "-o", filepath.Join(m.Shared, "package.test"), "qwatch/"+pkg).CombinedOutput()
		if err != nil {
			m.T.Fatalf("%v\n%s", err, out)
		}
		if pkg == "systemd" {
			m.Share("../../systemd/qwatch.catalog", "qwatch.catalog")
		}
		got, err := m.Try("cd /mnt && ./package.test -test.v -test.run Real")
		m.Is(err == nil && strings.Contains(got, "--- PASS") && !strings.Contains(got, "--- SKIP"), "the tests of "+pkg+" against the real one pass", got)
	}
}
