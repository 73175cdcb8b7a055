package advice

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qwatch/remediate/facts"
)

// Everybody gets the syntax of his own configuration, for every option.
func TestSyntax(t *testing.T) {
	ini := facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "/etc/uwsgi/app.ini:12"})}}
	tests := []struct {
		s    facts.Socket
		want []string
	}{
		{ini, []string{"set `listen = 1024` in /etc/uwsgi/app.ini:12 (now 100)", "set `harakiri = 30` in /etc/uwsgi/app.ini,",
			"set `thunder-lock-watchdog = true` in /etc/uwsgi/app.ini,", "set `lazy-apps = true` in", "set `stats = 127.0.0.1:9191` in /etc/uwsgi/app.ini,"}},
		{facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "/srv/app.yml:3"})}}, []string{"set `listen: 1024` in /srv/app.yml:3 (now 100)", "set `harakiri: 30` in /srv/app.yml,",
			"set `thunder-lock-watchdog: true` in /srv/app.yml,", "set `lazy-apps: true` in", "set `stats: 127.0.0.1:9191` in /srv/app.yml,"}},
		{facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "/srv/app.json:3"})}}, []string{"set `\"listen\": 1024` in /srv/app.json:3 (now 100)", "set `\"harakiri\": 30` in /srv/app.json,",
			"set `\"thunder-lock-watchdog\": true` in /srv/app.json,", "set `\"lazy-apps\": true` in", "set `\"stats\": \"127.0.0.1:9191\"` in /srv/app.json,"}},
		{facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "/srv/app.xml:3"})}}, []string{"set `<listen>1024</listen>` in /srv/app.xml:3 (now 100)", "set `<harakiri>30</harakiri>` in /srv/app.xml,",
			"set `<thunder-lock-watchdog>true</thunder-lock-watchdog>` in /srv/app.xml,", "set `<lazy-apps>true</lazy-apps>` in", "set `<stats>127.0.0.1:9191</stats>` in /srv/app.xml,"}},
		{facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "command line"})}}, []string{"start uWSGI with `--listen 1024` (now 100)", "start uWSGI with `--harakiri 30`,",
			"start uWSGI with `--thunder-lock-watchdog`,", "start uWSGI with `--lazy-apps`,", "start uWSGI with `--stats 127.0.0.1:9191`,"}},
		{facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "environment UWSGI_LISTEN"})}}, []string{"set `UWSGI_LISTEN=1024` in uWSGI's environment (now 100)", "set `UWSGI_HARAKIRI=30` in uWSGI's environment,",
			"set `UWSGI_THUNDER_LOCK_WATCHDOG=true` in uWSGI's environment,", "set `UWSGI_LAZY_APPS=true` in uWSGI's environment,", "set `UWSGI_STATS=127.0.0.1:9191` in uWSGI's environment,"}},
		// Its listen is on the command line, the rest in a file.
		{facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "command line"}), File: "/srv/app.yaml"}}, []string{"start uWSGI with `--listen 1024` (now 100)", "set `harakiri: 30` in /srv/app.yaml,"}},
		{facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "default"}), File: "/srv/app.yaml"}}, []string{"set `listen: 1024` in /srv/app.yaml", "set `harakiri: 30` in /srv/app.yaml,"}},
		{facts.Socket{Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "default"})}}, []string{"set `listen = 1024` in uWSGI's configuration", "set `harakiri = 30` in uWSGI's configuration,"}},
		{facts.Socket{}, []string{"set `listen = 1024` in uWSGI's configuration", "set `harakiri = 30` in uWSGI's configuration,"}},
	}
	for _, test := range tests {
		if test.s.Unit.Unseen() == "it was not looked at" {
			test.s.Unit = facts.Absent[facts.SocketUnit]()
		}
		got := []string{SetListen(test.s, 1024), Harakiri(test.s), ThunderLock(test.s), LazyApps(test.s), StatsServer(test.s)}
		for i, want := range test.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%q: %q, want %q in it", test.s.Config.Listen.Value.At, got[i], want)
			}
		}
	}
}

func TestPersist(t *testing.T) {
	tests := []struct {
		name          string
		s             facts.Socket
		persist, anew string // a limit of 1024
	}{
		{"raised", facts.Socket{Limit: 1024, Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "/a.ini:1"})}},
			"set `listen = 1024` in /a.ini:1 (now 100), or a restart brings 100 back",
			"set `listen = 1024` in /a.ini:1 (now 100) and restart uWSGI: a running socket keeps its limit, also over most reloads"},
		{"to be raised", facts.Socket{Limit: 100, Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "/a.ini:1"})}},
			"set `listen = 1024` in /a.ini:1 (now 100), so that it outlasts a restart",
			"set `listen = 1024` in /a.ini:1 (now 100) and restart uWSGI: a running socket keeps its limit, also over most reloads"},
		{"command line", facts.Socket{Limit: 100, Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "command line"})}},
			"start uWSGI with `--listen 1024` (now 100), so that it outlasts a restart",
			"start uWSGI with `--listen 1024` (now 100): a running socket keeps its limit, also over most reloads"},
		{"configured, but not listened with", facts.Socket{Limit: 100, Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 2048, At: "/a.ini:1"})}},
			"set `listen = 1024` in /a.ini:1 (now 2048), so that it outlasts a restart",
			"restart uWSGI to get the listen = 2048 that it is configured to: a reload does not do it, and before 2.0.18 `socket = :0` ignored it"},
		{"not known", facts.Socket{Limit: 100},
			"set `listen = 1024` in uWSGI's configuration, so that it outlasts a restart",
			"set `listen = 1024` in uWSGI's configuration and restart uWSGI: a running socket keeps its limit, also over most reloads"},
		{"systemd's, raised", facts.Socket{Limit: 1024, Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100})}, Unit: facts.Known(facts.SocketUnit{Name: "app.socket", Backlog: facts.Known(128)})},
			"set Backlog=1024 under [Socket] by `systemctl edit app.socket`, or a restart of that unit brings 128 back",
			"set Backlog=1024 under [Socket] by `systemctl edit app.socket` and restart that unit with its service: a running socket keeps its limit"},
		{"systemd's, Backlog= not known", facts.Socket{Limit: 100, Unit: facts.Known(facts.SocketUnit{Name: "app.socket"})},
			"set Backlog=1024 under [Socket] by `systemctl edit app.socket`, so that it outlasts a restart of that unit",
			"set Backlog=1024 under [Socket] by `systemctl edit app.socket` and restart that unit with its service: a running socket keeps its limit"},
		{"systemd's, Backlog= is enough", facts.Socket{Limit: 100, Unit: facts.Known(facts.SocketUnit{Name: "app.socket", Backlog: facts.Known(4096)})},
			"set Backlog=1024 under [Socket] by `systemctl edit app.socket`, so that it outlasts a restart of that unit",
			"restart app.socket with its service to get the Backlog=4096 that it has: a running socket keeps its limit"},
		{"perhaps systemd's", facts.Socket{Limit: 1024, Config: facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "/a.ini:1"})}, Unit: facts.Unknown[facts.SocketUnit]("no answer")},
			"set `listen = 1024` in /a.ini:1 (now 100), or Backlog=1024 under [Socket] if a .socket unit holds it, so that it outlasts a restart",
			"set `listen = 1024` in /a.ini:1 (now 100), or Backlog=1024 under [Socket] if a .socket unit holds it, and restart uWSGI: a running socket keeps its limit, also over most reloads"},
	}
	for _, test := range tests {
		if test.s.Unit.Unseen() == "it was not looked at" {
			test.s.Unit = facts.Absent[facts.SocketUnit]()
		}
		if diff := cmp.Diff([]string{test.persist, test.anew}, []string{Persist(test.s, 1024), Restart(test.s, 1024)}); diff != "" {
			t.Errorf("%s (-want +got)\n%s", test.name, diff)
		}
	}
}

func TestSomaxconn(t *testing.T) {
	far := facts.Socket{OtherNetNS: true, Master: facts.Process{PID: 7}}
	tests := []struct {
		s    facts.Socket
		file string
		want string
	}{
		{facts.Socket{}, "/etc/sysctl.d/50-mine.conf", "set net.core.somaxconn = 1024 in /etc/sysctl.d/50-mine.conf and load it: sysctl -p /etc/sysctl.d/50-mine.conf"},
		{facts.Socket{}, "", "set net.core.somaxconn = 1024 in /etc/sysctl.d/90-qwatch.conf and load it: sysctl -p /etc/sysctl.d/90-qwatch.conf"},
		{far, "/etc/sysctl.d/50-mine.conf", "set net.core.somaxconn = 1024 where its network namespace is made, which no file of the host reaches (for now: nsenter -t 7 -n sysctl -w net.core.somaxconn=1024)"},
	}
	for _, test := range tests {
		if test.s.Unit.Unseen() == "it was not looked at" {
			test.s.Unit = facts.Absent[facts.SocketUnit]()
		}
		if diff := cmp.Diff([]string{test.want}, Somaxconn(test.s, 1024, test.file)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	far.Master.Container = "web"
	if got := strings.Join(Somaxconn(far, 1024, ""), "\n"); !strings.Contains(got, "the container web ") || !strings.Contains(got, "docker run --sysctl net.core.somaxconn=1024") || !strings.Contains(got, "Kubernetes") {
		t.Errorf("%s", got)
	}
}
