package deploy

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/internal/uwsgi"
)

// without takes the right to see when a program was executed.
func without(t *testing.T) {
	real := executed
	executed = func(int) (time.Time, error) { return time.Time{}, errors.New("no right") }
	t.Cleanup(func() { executed = real })
}

// Whoever deploys by a reload is not refused afterwards, however it is known when
// that was.
func TestReloadedByHand(t *testing.T) {
	testbed.Needs(t, "uwsgi")
	const unseen = "when this uWSGI was last reloaded is not known, and so not whether a reload would bring what it has never loaded: " +
		"it was reloaded before qwatch looked, and its log does not say when; "
	cases := []struct {
		name, ini string
		right     bool // to see when it was executed
		watched   bool // qwatch was there
		want      string
	}{
		{name: "the kernel tells", ini: "max-requests = 100", right: true},
		{name: "qwatch was there", ini: "max-requests = 100", watched: true},
		{name: "its log tells", ini: "max-requests = 100\nlog-date = true\nlogto = DIR/app.log"},
		{name: "its log tells, by log-master", ini: "max-requests = 100\nlog-date = true\nlogto = DIR/app.log\nlog-master = true"},
		{name: "its workers tell"},
		{name: "nothing tells", ini: "max-requests = 100", want: unseen + "max-requests replaces its workers one by one; reload by hand"},
		{name: "nothing tells, with cheaper", ini: "cheaper = 1", want: unseen + "cheaper replaces its workers one by one; reload by hand"},
		{name: "each worker loads it", ini: "lazy-apps = true"},
	}
	sites, memories := make([]*site, len(cases)), make([]Memory, len(cases))
	for i, c := range cases {
		s := newSite(t)
		sites[i] = s
		s.write("app.py", appText)
		s.write("app.ini", ini+"wsgi-file = DIR/app.py\n"+c.ini+"\n")
		s.start("uwsgi --ini " + s.path("app.ini"))
		if c.watched {
			memories[i].Watch([]uwsgi.Process{s.process()})
		}
	}
	time.Sleep(2100 * time.Millisecond) // what follows is younger
	for _, s := range sites {
		s.sh("touch app.py")
	}
	without(t)
	for i, s := range sites { // none was reloaded: the start tells of all
		if got := s.why(&memories[i], false); got != brings("DIR/app.py") {
			t.Errorf("%s, before: %s", cases[i].name, got)
		}
	}
	for i, c := range cases {
		if c.watched {
			memories[i].Watch([]uwsgi.Process{sites[i].process()})
		}
		sites[i].reload()
		if c.watched {
			memories[i].Watch([]uwsgi.Process{sites[i].process()})
		}
	}
	time.Sleep(2100 * time.Millisecond) // what follows is younger
	for i, c := range cases {
		s := sites[i]
		see := func() string {
			if !c.right {
				return s.why(&memories[i], false)
			}
			without := executed
			defer func() { executed = without }()
			executed = kernel.Executed
			return s.why(&memories[i], false)
		}
		if got := see(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		s.sh("touch app.py")
		if got := see(); c.want == "" && got != brings("DIR/app.py") {
			t.Errorf("%s, deployed again: %q", c.name, got)
		}
	}
}

// A chain reload brings the application alone, and is a deploy by hand too.
func TestChainReload(t *testing.T) {
	testbed.Needs(t, "uwsgi")
	s := newSite(t)
	s.write("app.py", appText)
	s.write("app.ini", ini+"wsgi-file = DIR/app.py\nlazy-apps = true\nmaster-fifo = DIR/fifo\n")
	s.start("uwsgi --ini " + s.path("app.ini"))
	var m Memory
	time.Sleep(2100 * time.Millisecond) // what follows is younger
	s.sh("touch app.py")
	if got := s.why(&m, false); got != brings("DIR/app.py") {
		t.Error(got)
	}
	old := s.workers()
	if err := os.WriteFile(s.path("fifo"), []byte("c"), 0); err != nil {
		t.Fatal(err)
	}
	s.waitFor(func() bool {
		now := s.workers()
		for _, w := range now {
			for _, o := range old {
				if w.PID == o.PID {
					return false
				}
			}
		}
		return len(now) == len(old)
	})
	if got := s.why(&m, false); got != "" {
		t.Error(got)
	}
	s.sh("touch app.ini")
	at := s.at
	at.Deploy = Look(s.process(), names, &m)
	if got := at.WhyNoDeploy(false, false); !strings.Contains(got, "app.ini") {
		t.Errorf("whole: %q", got)
	}
	if got := at.WhyNoDeploy(false, true); got != "" {
		t.Errorf("chain: %q", got)
	}
}

// A log in which another master says that it was reloaded, or one of another time,
// tells nothing.
func TestReloadIn(t *testing.T) {
	const went, back = "Wed Nov 25 19:29:36 2026 - binary reloading uWSGI...\n", "Wed Nov 25 19:29:39 2026 - gracefully (RE)spawned uWSGI master process (pid: 7)\n"
	want := time.Date(2026, 11, 25, 19, 29, 36, 0, time.Local)
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"as it is", "x\n" + went + back, true},
		{"the last", strings.ReplaceAll(went+back, "19:", "18:") + went + back, true},
		{"no date", "binary reloading uWSGI...\ngracefully (RE)spawned uWSGI master process (pid: 7)\n", false},
		{"cut", back, false},
		{"another", strings.ReplaceAll(went+back, "pid: 7", "pid: 8"), false},
		{"several", went + strings.ReplaceAll(back, "pid: 7", "pid: 8") + back, false},
		{"not yet", back + went, false},
	} {
		if at, ok := reloadIn([]byte(c.text), 7); ok != c.ok || ok && !at.Equal(want) {
			t.Errorf("%s: %v, %v", c.name, at, ok)
		}
	}
	now := want.Add(4 * time.Second)
	if !inLocalTime([]byte(went+back+"a line of the application\n"), now) || inLocalTime([]byte(went+back), now.Add(time.Hour)) || inLocalTime([]byte(went+back), now.Add(-time.Hour)) {
		t.Error("the zone of the log")
	}
}

// A clock that is set forward makes no uWSGI younger.
func TestClock(t *testing.T) {
	var m Memory
	before := m.startOf(100)
	m.booted = m.booted.Add(-time.Hour) // as it was before
	if got := m.startOf(100); !got.Equal(before.Add(-time.Hour)) {
		t.Errorf("got %v, want %v", got, before.Add(-time.Hour))
	}
}

// A vassal is looked at by itself, with the paths that its emperor gave it.
func TestVassal(t *testing.T) {
	testbed.Needs(t, "uwsgi")
	s := newSite(t)
	s.write("app.py", appText)
	s.write("vassals/web.ini", "[uwsgi]\nplugin = python3\nmaster = true\nprocesses = 1\nsocket = DIR/sock\nwsgi-file = DIR/app.py\nini = common.part\n")
	s.write("vassals/common.ini", "[uwsgi]\nneed-app = true\n")
	s.sh("mkdir on; ln -s ../vassals/web.ini on/web.ini; mv vassals/common.ini on/common.part")
	s.start("uwsgi --emperor " + s.path("on"))
	var vassal *site
	s.waitFor(func() bool {
		for _, w := range s.workers() {
			v := *s
			if v.pid = w.PID; len(v.workers()) > 0 {
				vassal = &v
			}
		}
		return vassal != nil
	})
	vassal.at.Workers = vassal.at.Workers[:1]
	var m Memory
	if got := vassal.why(&m, false); got != "" {
		t.Error(got)
	}
	time.Sleep(2100 * time.Millisecond) // what follows is younger
	s.sh("touch on/common.part")
	if got := vassal.why(&m, false); got != brings("DIR/on/common.part") {
		t.Error(got)
	}
}

// A look that did not show which program a master executes is none: the master may
// have been executed anew before it.
func TestImageUnseen(t *testing.T) {
	var m Memory
	p, at := uwsgi.Process{PID: 7, Start: 1}, time.Unix(1000, 0)
	for i, image := range []uint64{1, 1, 0, 0, 2} {
		m.saw(p, image, at.Add(time.Duration(i)*time.Second))
	}
	if got, seen := m.since(p, 2); !seen || !got.Equal(at.Add(time.Second)) {
		t.Errorf("got %v, %v", got, seen)
	}
}
