package facts

import (
	"testing"
	"time"
)

// What is known to be wrong is the reason, whatever else could not be seen.
func TestWhyNoDeploy(t *testing.T) {
	nine := time.Date(2026, 11, 25, 9, 15, 0, 0, time.UTC)
	file := func(name string, at time.Time) Fact[File] { return Known(File{Path: name, At: at}) }
	setup := func(protocol string, processes int) Fact[Setup] {
		return Known(Setup{Listens: []Listen{{"127.0.0.1:5000", protocol}}, Processes: processes})
	}
	const dark = "no right"
	is := func(change func(*Deploy)) Deploy {
		d := Deploy{
			Since: Known(nine), Loaded: Known(nine), Lost: Absent[string](), Program: Absent[File](),
			Config: file("/etc/app.ini", nine.Add(-time.Hour)), Source: file("/srv/shop/app.py", nine.Add(2*time.Second)),
			Asks: setup("socket", 4), Ran: setup("socket", 4),
		}
		change(&d)
		return d
	}
	const young = "a reload would bring /srv/shop/app.py of 10:32, which this uWSGI (since 09:15) has never loaded; reload by hand"
	late := file("/srv/shop/app.py", nine.Add(77*time.Minute))
	ini := file("/etc/app.ini", nine.Add(77*time.Minute))
	const youngIni = "a reload would bring /etc/app.ini of 10:32, which this uWSGI (since 09:15) has never loaded; reload by hand"
	for _, c := range []struct {
		name string
		Deploy
		want, deployed, chain string // without more, with deploy = true, and for a chain reload
	}{
		{"nothing new", is(func(*Deploy) {}), "", "", ""},
		{"nobody looked", Deploy{}, "whether a reload would find all that it needs is not known: it was not looked at; reload by hand", "same", "same"},
		{"a younger file", is(func(d *Deploy) { d.Source = late }), young, "", young},
		{"of the next day", is(func(d *Deploy) { d.Source = file("/srv/shop/app.py", nine.Add(24*time.Hour)) }),
			"a reload would bring /srv/shop/app.py of 2026-11-26 09:15, which this uWSGI (since 2026-11-25 09:15) has never loaded; reload by hand", "", "same"},
		{"of the same minute", is(func(d *Deploy) { d.Source = file("/srv/shop/app.py", nine.Add(3*time.Second)) }),
			"a reload would bring /srv/shop/app.py of 09:15:03, which this uWSGI (since 09:15:00) has never loaded; reload by hand", "", "same"},
		{"younger than what each worker has loaded", is(func(d *Deploy) { d.Source, d.Loaded = late, Known(nine.Add(2*time.Hour)) }), "", "", ""},
		{"a younger configuration", is(func(d *Deploy) { d.Config = ini }), youngIni, "", ""},
		{"that asks for more processes", is(func(d *Deploy) { d.Config, d.Asks = ini, setup("socket", 8) }),
			"a reload would make it another: its configuration now has 8 processes, and was started with 4; reload by hand", "same", ""},
		{"nobody knows what it asked for", is(func(d *Deploy) { d.Config, d.Ran = ini, Unknown[Setup](dark) }), youngIni,
			"what uWSGI's configuration said when it was read is not known, and so not whether it says the same now: no right; reload by hand", ""},
		{"nor what it asks for now", is(func(d *Deploy) { d.Config, d.Asks = ini, Unknown[Setup](dark) }),
			youngIni, "what uWSGI would serve after a reload is not known: no right; reload by hand", ""},
		{"the same file, and more processes run", is(func(d *Deploy) { d.Asks = setup("socket", 8) }), "", "", ""},
		{"another program", is(func(d *Deploy) { d.Program = Known(File{Path: "/opt/uwsgi", Instead: "/usr/bin/uwsgi"}) }),
			"a reload would execute /opt/uwsgi, and /usr/bin/uwsgi is what runs; start it anew by hand", "same", ""},
		{"no program", is(func(d *Deploy) { d.Program = Known(File{Path: "uwsgi", Gone: true}) }),
			"a reload would not find its program: uwsgi leads to nothing that it may execute; put it back first", "same", ""},
		{"an upgrade", is(func(d *Deploy) { d.Program = file("/usr/bin/uwsgi", nine.Add(-time.Hour)) }),
			"a reload would bring /usr/bin/uwsgi of 08:15, which this uWSGI (since 09:15) has never loaded; reload by hand", "", ""},
		{"something is lost", is(func(d *Deploy) { d.Lost, d.Source = Known("/srv/shop/app.py is gone"), Unknown[File](dark) }),
			"a reload would not find what it needs: /srv/shop/app.py is gone; put it back first", "same", "same"},
		{"no since", is(func(d *Deploy) { d.Since, d.Loaded = Unknown[time.Time](dark), Unknown[time.Time](dark) }),
			"when this uWSGI was last reloaded is not known, and so not whether a reload would bring what it has never loaded: no right; reload by hand", "",
			"when this uWSGI has loaded its application is not known, and so not whether a reload would bring what it has never loaded: no right; reload by hand"},
		{"no source", is(func(d *Deploy) { d.Source = Unknown[File](dark) }), "what a reload would load is not known: no right; reload by hand", "same", "same"},
		{"an application that is loaded by nobody", is(func(d *Deploy) { d.Source, d.Loaded = Absent[File](), Unknown[time.Time](dark) }), "", "", ""},
	} {
		s := Socket{Family: TCP, Address: "127.0.0.1:5000", Deploy: c.Deploy}
		same := func(s string) string {
			if s == "same" {
				return c.want
			}
			return s
		}
		for _, got := range [][2]string{
			{s.WhyNoDeploy(false, false), c.want}, {s.WhyNoDeploy(true, false), same(c.deployed)}, {s.WhyNoDeploy(false, true), same(c.chain)},
		} {
			if got[0] != got[1] {
				t.Errorf("%s: got\n%q, want\n%q", c.name, got[0], got[1])
			}
		}
	}
}
