//go:build systemdtest

package systemdtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// sight are the applications of TestSight, each with its address and unit.
var sight = []struct{ addr, unit string }{
	{"127.0.0.1:6001", "sight-ini.service"},
	{"127.0.0.1:6002", "sight-emperor.service"},
	{"127.0.0.1:6003", "sight-emperor.service"},
	{"127.0.0.1:6004", "sight-procname.service"},
	{"127.0.0.1:6005", "sight-socket.service"},
	{"127.0.0.1:6006", "sight-python3.service"},
	{"/run/sight/app.sock", "sight-silent.service"},
}

// TestSight is what the audit service sees without any right.
func TestSight(t *testing.T) {
	t.Parallel()
	m := boot(t, env(t, "QWATCH_TEST_ROOT"))
	m.Share(env(t, "QWATCH_TEST_DEB"), "qwatch.deb")
	m.ShareSelf("flood")
	m.copyTestdata()
	m.Scene("applications", func() { m.startSight() })
	m.Scene("without rights", func() { m.seesAll() })
	m.Scene("a flood", func() { m.planned("127.0.0.1:6001") })
	m.Scene("logs", func() { m.closedLogs() })
	m.Scene("the audit service's eyes", func() { m.auditEyes() })
	m.Scene("drop-in", func() { m.readsAll() })
}

func (m *machine) startSight() {
	m.Sh(`set -e
		sysctl -q net.core.somaxconn=128
		useradd -r app; useradd -r stranger
		mkdir -p /srv/app /srv/stranger /etc/uwsgi/sight /var/log/uwsgi
		cp /mnt/app.py /srv/app/
		cp /bin/sh /srv/stranger/uwsgi
		cp /mnt/sight-*.service /mnt/sight-*.socket /etc/systemd/system/
		app='plugin = python3
master = true
need-app = true
processes = 1
listen = 64
pythonpath = /srv/app
module = app'
		printf '[uwsgi]\n%s\nport = 6001\nhttp-socket = 127.0.0.1:%%(port)\n' "$app" >/etc/uwsgi/sight.ini
		printf '[uwsgi]\n%s\nchdir = /tmp\nhttp-socket = 127.0.0.1:6002\n' "$app" >/etc/uwsgi/sight/blue.ini
		printf '[uwsgi]\n%s\nchdir = /tmp\nhttp-socket = 127.0.0.1:6003\n' "$app" >/etc/uwsgi/sight/green.ini
		printf '[uwsgi]\n%s\nhttp-socket = 127.0.0.1:6004\nprocname-prefix = shop\n' "$app" >/etc/uwsgi/sight-procname.ini
		printf '[uwsgi]\n%s\nhttp-socket = 127.0.0.1:6006\n' "$app" >/etc/uwsgi/sight-python3.ini
		printf '[uwsgi]\n%s\nhttp-socket = /run/sight/app.sock\n' "$app" >/etc/uwsgi/sight-silent.ini
		echo 'a log of root, as uWSGI makes it' >/var/log/uwsgi/rooted.log
		chown root:root /var/log/uwsgi/rooted.log; chmod 640 /var/log/uwsgi/rooted.log
		dpkg -i /mnt/qwatch.deb >/dev/null
		systemctl daemon-reload
		systemctl start sight-stranger sight-ini sight-emperor sight-procname sight-python3 sight-silent sight-socket.socket sight-socket`)
	for _, app := range sight {
		m.EventuallySays("ss -H -lnxt", app.addr+" ", 20*time.Second)
	}
	m.Sh("systemctl restart qwatch-audit")
}

// sockets are those that a status, or a report of doctor, tells of: address to
// unit.
func (m *machine) sockets(script string) (units map[string]string, text string) {
	m.T.Helper()
	text, _ = m.Try(script)
	var told struct {
		Sockets []struct {
			Socket string
			Unit   *string
		}
	}
	units = map[string]string{}
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		return units, fmt.Sprintf("%v: %s", err, text)
	}
	for _, s := range told.Sockets {
		units[s.Socket] = "none"
		if s.Unit != nil {
			units[s.Socket] = *s.Unit
		}
	}
	return units, text
}

// seesAll: each socket with its unit, and no stranger's claim.
func (m *machine) seesAll() {
	m.Eventually("status names each socket and its unit", 40*time.Second, func() (bool, string) {
		units, text := m.sockets("qwatch status --json")
		for _, app := range sight {
			if units[app.addr] != app.unit {
				notes, _ := m.Try("systemd-run -q --pipe -p DynamicUser=yes qwatch doctor")
				return false, fmt.Sprintf("%s: %q\n%s\n%s", app.addr, units[app.addr], text, notes)
			}
		}
		return len(units) == len(sight), text
	})
}

// planned: a real flood is an incident whose plan is whole.
func (m *machine) planned(addr string) {
	stop := m.flood(addr)
	defer stop()
	unit := "journalctl -u qwatch-audit -o cat QWATCH_SOCKET=" + addr
	m.EventuallySays(unit, "is full", 40*time.Second)
	m.Eventually("the plan tells of the queue and its drops", 40*time.Second, func() (bool, string) {
		text, _ := m.Try(unit + " | grep plan:")
		return strings.Contains(text, "the accept queue of "+addr+" holds") && strings.Contains(text, " overflows;"), text
	})
	m.Eventually("each step of it is planned", 40*time.Second, func() (bool, string) {
		text, _ := m.Try("grep -h " + addr + " /var/lib/private/qwatch-audit/audit.jsonl /var/lib/qwatch-audit/audit.jsonl")
		all, _ := m.Try("cat /var/lib/private/qwatch-audit/audit.jsonl")
		return !slices.ContainsFunc([]string{"sysctl", "relisten"}, func(action string) bool {
			return !strings.Contains(all, `"action":"`+action+`"`)
		}), text + all
	})
	m.limit(addr, small)
}

// closedLogs: what this service may not read is called that, with the cure.
func (m *machine) closedLogs() {
	m.Says("journalctl -u qwatch-audit -o cat", "/var/log/uwsgi/rooted.log is not readable for this service; ")
	m.Sh(`mv /var/log/uwsgi/rooted.log /var/log/uwsgi/rooted.log.1
		umask 027; echo new >/var/log/uwsgi/rooted.log; echo marker >/var/log/uwsgi/open.log; chmod 644 /var/log/uwsgi/open.log`)
	m.Eventually("the open log is followed", 20*time.Second, func() (bool, string) {
		text, _ := m.Try("qwatch status --json")
		return strings.Contains(text, "/var/log/uwsgi/open.log"), text
	})
	text := m.Sh("journalctl -u qwatch-audit -o cat")
	m.Is(!strings.Contains(text, "nowhere to be found") && !strings.Contains(text, "deleted"), "nothing is called lost", text)
}

// auditEyes: doctor as root tells what the audit service sees, too.
func (m *machine) auditEyes() {
	text, _ := m.Try("qwatch doctor")
	m.Is(strings.Contains(text, "qwatch-audit.service, without any right, would see all of these sockets") &&
		strings.Contains(text, "nor could it read /var/log/uwsgi/rooted.log"), "doctor tells what the audit service sees", text)
	text, _ = m.Try("qwatch doctor --json")
	m.Is(strings.Contains(text, `"audit":{"sees":["/run/sight/app.sock","127.0.0.1:6001"`), "and so in JSON", text)
}

// readsAll: with the drop-in it sees what root sees.
func (m *machine) readsAll() {
	before := m.Sh("systemd-analyze --no-pager security qwatch-audit.service | tail -n 1")
	m.Sh(`install -D -m 644 -t /etc/systemd/system/qwatch-audit.service.d /usr/share/doc/qwatch/examples/audit-reads-all.conf
		systemctl daemon-reload; systemctl restart qwatch-audit`)
	after := m.Sh("systemd-analyze --no-pager security qwatch-audit.service | tail -n 1")
	m.T.Logf("without: %s\nwith: %s", before, after)
	m.Eventually("the closed log is read", 20*time.Second, func() (bool, string) {
		text, _ := m.Try("qwatch status --json")
		return strings.Contains(text, "rooted.log") && !strings.Contains(text, `rooted.log: permission denied`), text
	})
	caps := m.Sh("grep CapEff /proc/$(systemctl show -p MainPID --value qwatch-audit)/status")
	m.Is(strings.HasSuffix(caps, "0000000000080004"), "it has CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH only", caps)
	m.seesAll()
}
