package facts

import "testing"

// What is seen to end a uWSGI is the reason, whatever else could not be seen.
func TestWhyNoReload(t *testing.T) {
	const end = ", and exit-on-reload or a listen over somaxconn in it would make the reload its end"
	own := Absent[SocketUnit]()
	at := Known(Setting{Listen: 3000, At: "/etc/app.ini:6"})
	small, dark := Known(Setting{Listen: 100, At: "default"}), Unknown[Setting]("no right")
	for _, c := range []struct {
		name string
		Socket
		somaxconn Fact[int]
		want      string
	}{
		{"nothing is known", Socket{}, Known(128), "it is not known whether systemd holds the socket (it was not looked at), and then uWSGI would not find it again after a reload"},
		{"a .socket unit", Socket{Unit: Known(SocketUnit{Name: "app.socket"})}, Known(128), "systemd holds the socket (app.socket), and uWSGI does not find it again after a reload"},
		{"an end that is known", Socket{Unit: own, Config: Config{Listen: at, ReloadEnds: Known("exit-on-reload (/etc/app.ini:7)")}}, Known(128),
			"it would end uWSGI: exit-on-reload (/etc/app.ini:7)"},
		{"listen over somaxconn", Socket{Unit: own, Config: Config{Listen: at, ReloadEnds: Absent[string]()}}, Known(1024),
			"uWSGI is configured to listen = 3000 (/etc/app.ini:6), and with somaxconn 1024 it would not come up again"},
		{"and the rest is not known", Socket{Unit: own, Config: Config{Listen: at, ReloadEnds: Unknown[string]("no right")}}, Known(1024),
			"uWSGI is configured to listen = 3000 (/etc/app.ini:6), and with somaxconn 1024 it would not come up again"},
		{"the rest is not known", Socket{Unit: own, Config: Config{Listen: at, ReloadEnds: Unknown[string]("no right")}}, Known(4096),
			"uWSGI's configuration is not known (no right)" + end},
		{"no somaxconn", Socket{Unit: own, Config: Config{Listen: at, ReloadEnds: Absent[string]()}}, Unknown[int]("no /proc"),
			"somaxconn is not known (no /proc), and with one below uWSGI's listen = 3000 (/etc/app.ini:6) it would not come up again"},
		{"no listen", Socket{Unit: own, Config: Config{Listen: Absent[Setting](), ReloadEnds: Absent[string]()}}, Known(1024),
			"uWSGI's configuration sets no listen that is known" + end},
		{"its emperor binds the socket with more", Socket{Unit: own, Config: Config{Listen: at, Own: &small, ReloadEnds: Absent[string]()}}, Known(1024), ""},
		{"and the emperor's is not known", Socket{Unit: own, Config: Config{Own: &small, ReloadEnds: Absent[string]()}}, Known(1024), ""},
		{"its emperor binds it with less", Socket{Unit: own, Config: Config{Listen: small, Own: &at, ReloadEnds: Absent[string]()}}, Known(1024),
			"uWSGI is configured to listen = 3000 (/etc/app.ini:6), and with somaxconn 1024 it would not come up again"},
		{"its own is not known", Socket{Unit: own, Config: Config{Listen: small, Own: &dark, ReloadEnds: Absent[string]()}}, Known(1024),
			"uWSGI's configuration is not known (no right)" + end},
		{"all is well", Socket{Unit: own, Config: Config{Listen: at, ReloadEnds: Absent[string]()}}, Known(4096), ""},
	} {
		if got := c.WhyNoReload(c.somaxconn); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
