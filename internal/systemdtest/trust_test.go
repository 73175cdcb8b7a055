//go:build systemdtest

package systemdtest

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"qwatch/systemd"
)

// TestTrust is about whom the installed qwatch acts on, and whose word it takes.
func TestTrust(t *testing.T) {
	t.Parallel()
	m := boot(t, env(t, "QWATCH_TEST_ROOT"))
	m.Share(env(t, "QWATCH_TEST_DEB"), "qwatch.deb")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.Share(self, "flood")
	m.copyTestdata()
	m.Scene("applications", func() { m.startStrangers() })
	m.Scene("install", func() {
		m.Sh("dpkg -i /mnt/qwatch.deb && cp /mnt/qwatch.toml /etc/qwatch/qwatch.toml && systemctl -q enable --now qwatch")
		m.state("qwatch", "active")
	})
	m.Scene("whom to act on", func() { m.actOnServices() })
	m.Scene("a named user", func() { m.nameUser() })
	m.Scene("a start that was refused", func() { m.refusedStart() })
	m.Scene("a forged unit", func() { m.forgedUnit() })
}

// The trusted one is a service of a system user, and one of a login user who
// stands in its User=; the others are a login user's own, and what only calls
// itself uwsgi in a service.
const (
	serviceOfApp   = "127.0.0.1:5021"
	serviceOfAlice = "127.0.0.1:5022"
	ownOfAlice     = "127.0.0.1:5023"
	onlyCalledSo   = "127.0.0.1:5024"
)

func (m *machine) startStrangers() {
	m.Sh(`set -e
		echo 'net.core.somaxconn = 128' >/etc/sysctl.d/10-low.conf
		sysctl -q -p /etc/sysctl.d/10-low.conf
		useradd -r app; useradd -u 1001 alice
		mkdir -p /srv/app /var/log/uwsgi/app /etc/uwsgi
		cp /mnt/app.py /srv/app/; touch /srv/app/reopen; chown app /srv/app/reopen
		chown app:adm /var/log/uwsgi/app
		for port in 5022 5023 5024; do touch /var/log/uwsgi/app/web-$port.log; chown alice /var/log/uwsgi/app/web-$port.log; done
		chown app /var/log/uwsgi/app/web-5024.log
		cp /mnt/web-file@.service /etc/systemd/system/
		mkdir /etc/systemd/system/web-file@5022.service.d
		printf '[Service]\nUser=alice\nGroup=alice\n' >/etc/systemd/system/web-file@5022.service.d/user.conf
		# The same program under another name, that calls itself uwsgi.
		cp /usr/bin/uwsgi-core /usr/local/bin/other
		mkdir /usr/local/lib/as; ln -s /usr/local/bin/other /usr/local/lib/as/uwsgi
		mkdir /etc/systemd/system/web-file@5024.service.d
		sed -n 's,^ExecStart=/usr/bin/uwsgi-core,[Service]\nExecStart=\nExecStart=/usr/local/lib/as/uwsgi,p' /mnt/web-file@.service >/etc/systemd/system/web-file@5024.service.d/exec.conf
		systemctl daemon-reload
		systemctl start web-file@5021 web-file@5022 web-file@5024
		systemd-run -q --scope -p KillSignal=SIGQUIT --slice user-1001.slice --uid alice $(sed -n 's/^ExecStart=//p' /mnt/web-file@.service | sed s/%i/5023/g) >/dev/null 2>&1 </dev/null &`)
	for _, addr := range []string{serviceOfApp, serviceOfAlice, ownOfAlice, onlyCalledSo} {
		m.EventuallySays("ss -H -ltn 'src "+addr+"'", addr, 20*time.Second)
		m.limit(addr, small)
	}
}

func (m *machine) actOnServices() {
	var report struct {
		Sockets []struct {
			Socket  string
			Trusted *bool
			Advice  []string
		}
	}
	out, _ := m.Try("qwatch doctor --json")
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	trusted := map[string]bool{}
	for _, s := range report.Sockets {
		m.Is(s.Trusted != nil, s.Socket+" is known", fmt.Sprint(s))
		trusted[s.Socket] = s.Trusted != nil && *s.Trusted
	}
	want := map[string]bool{serviceOfApp: true, serviceOfAlice: true, ownOfAlice: false, onlyCalledSo: false}
	for addr, yes := range want {
		got, seen := trusted[addr]
		m.Is(seen && got == yes, fmt.Sprintf("doctor says of %s trusted %v", addr, yes), out)
	}
	m.Says("qwatch doctor; true", "only its name (comm) says that it is a uWSGI, it executes /usr/local/bin/other")
	m.Says("qwatch doctor; true", `it is uid 1001 (alice)'s own process (run-`)
	for _, addr := range []string{ownOfAlice, serviceOfApp, serviceOfAlice} {
		defer m.flood(addr)()
	}
	for _, addr := range []string{serviceOfApp, serviceOfAlice} {
		m.event(systemd.EventRaiseApplied, addr, "QWATCH_ACTION=relisten")
		m.limit(addr, raised)
	}
	refused := m.event(systemd.EventPlanRefused, ownOfAlice)
	m.Is(strings.Contains(fmt.Sprint(refused["MESSAGE"]), `[probe] users = ["alice"] trusts it`), "it names the key", fmt.Sprint(refused))
	m.limit(ownOfAlice, small)
}

func (m *machine) nameUser() {
	m.Sh(`sed -i 's/^interval.*/&\nusers = ["alice"]/' /etc/qwatch/qwatch.toml; systemctl reload qwatch`)
	defer m.flood(ownOfAlice)()
	m.event(systemd.EventRaiseApplied, ownOfAlice, "QWATCH_ACTION=relisten")
	m.limit(ownOfAlice, raised)
}

func (m *machine) refusedStart() {
	m.Sh(`printf '[uwsgi]\nplugin = python3\nmaster = true\nhttp-socket = 127.0.0.1:5031\nlisten = 3000\nwsgi-file = /srv/app/app.py\n' >/etc/uwsgi/slow.ini
	printf '[uwsgi]\nplugin = python3\nmaster = true\nhttp-socket = 127.0.0.1:5032\nlisten = 4000\nwsgi-file = /srv/app/app.py\n' >/etc/uwsgi/still.ini
	for n in slow still; do
		printf '[Service]\nUser=app\nKillSignal=SIGQUIT\nExecStart=/usr/bin/uwsgi-core --ini /etc/uwsgi/%s.ini\n' $n >/etc/systemd/system/web-$n.service
	done
	systemctl daemon-reload; systemctl start web-slow`)
	m.event(systemd.EventStartRefused, "")
	// Active it is also for a moment before it fails.
	m.EventuallySays("ss -H -ltn 'src 127.0.0.1:5031'", " 3000 ", 40*time.Second)
	m.state("web-slow", "active")
	m.somaxconn(3000)
}

// forgedUnit has a stranger say, in a log that is followed, that a unit did not
// come up which its administrator has never started.
func (m *machine) forgedUnit() {
	m.Sh(`setpriv --reuid 1001 --clear-groups sh -c 'echo "{\"_SYSTEMD_UNIT\":\"web-still.service\",\"_PID\":\"1\",\"MESSAGE\":\"Listen queue size is greater than the system max net.core.somaxconn (3000).\"}" >>/var/log/uwsgi/app/web-5023.log'`)
	m.EventuallySays("journalctl -u qwatch -o cat QWATCH_EVENT="+systemd.EventStartRefused, "the line names no systemd unit", 40*time.Second)
	m.state("web-still", "inactive")
	m.somaxconn(3000)
}
