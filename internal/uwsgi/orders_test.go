package uwsgi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/internal/uwsgiconf"
	"qwatch/remediate/facts"
)

// What the options of a real uWSGI make of files, by whatever name.
func TestOrders(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "root")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ini := at("app.ini")
	err := errors.Join(
		os.Mkdir(at("etc"), 0o755), os.Symlink("etc", at("link")), os.Symlink("a.touch", at("touchlink")),
		os.WriteFile(ini, []byte(strings.Join([]string{"[uwsgi]", "chdir = " + dir, "lazy-apps = true",
			"touch-reload = a.touch", "touch-reload = " + at("link/b.touch"), "touch-workers-reload = %d/w.touch", "touch-chain-reload = $(CHAIN)",
			"touch-exec = " + at("both.touch") + " true", "touch-reload = " + at("both.touch"), "touch-logreopen = " + at("log.touch"),
			"master-fifo = fifo0", "master-fifo = " + at("fifo1"), "logto2 = " + at("logfifo"),
			"if-env = NOWHERE", "touch-reload = " + at("perhaps.touch"), "endif =",
		}, "\n")), 0o644))
	for _, name := range strings.Fields("a.touch etc/b.touch w.touch c.touch both.touch log.touch perhaps.touch other.touch") {
		err = errors.Join(err, os.WriteFile(at(name), nil, 0o644))
	}
	if err := errors.Join(err, unix.Mkfifo(at("otherfifo"), 0o600), unix.Mkfifo(at("logfifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(at("logfifo"), os.O_RDWR, 0) // somebody reads it
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	t.Setenv("CHAIN", at("c.touch"))
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5380", Args: []string{"--ini", ini}})
	st, err := kernel.ReadStat(u.Pid)
	if err != nil {
		t.Fatal(err)
	}
	known := func(option, line string) facts.Fact[facts.Trigger] {
		return facts.Known(facts.Trigger{Option: option, At: ini + ":" + line})
	}
	for name, want := range map[string]facts.Fact[facts.Trigger]{
		"a.touch": known("touch-reload", "4"), "etc/b.touch": known("touch-reload", "5"), "link/b.touch": known("touch-reload", "5"),
		"w.touch": known("touch-workers-reload", "6"), "c.touch": known("touch-chain-reload", "7"),
		"both.touch": known("touch-exec", "8"), "log.touch": known("touch-logreopen", "10"),
		"other.touch": facts.Unknown[facts.Trigger]("touch-reload (" + ini + ":15) stands in a condition, which is not evaluated"),
		"fifo0":       facts.Known(facts.Trigger{Option: "master-fifo"}),
		"logfifo":     facts.Absent[facts.Trigger](),
		"otherfifo":   facts.Absent[facts.Trigger](),
		"none":        facts.Unknown[facts.Trigger]("stat " + at("none") + ": no such file or directory"),
		"touchlink":   facts.Unknown[facts.Trigger](at("touchlink") + " is a symbolic link, and qwatch follows none; name the file behind it"),
	} {
		got := Running(Process{PID: u.Pid, Start: st.Start}, names, at(name)).Orders
		if got.Asked != want {
			t.Errorf("%s: %+v, want %+v", name, got.Asked, want)
		}
		if got.Asked = (facts.Fact[facts.Trigger]{}); got != (facts.Orders{LazyApps: ini + ":3", FIFO: facts.Known(facts.FIFO{Path: at("fifo0")})}) {
			t.Errorf("%+v", got)
		}
	}
}

// A configuration may name more files than are looked at.
func TestOrdersOfManyFiles(t *testing.T) {
	options := make([]uwsgiconf.Option, maxWatched+1)
	for i := range options {
		options[i] = uwsgiconf.Option{Name: "touch-reload", Text: "/none"}
	}
	var c reading
	c.orders(Process{PID: os.Getpid()}, options, "")
	if want := "it watches 65 files, of which no more than 64 are looked at"; c.Orders.FIFO.Unseen() != want || c.Orders.Asked.Unseen() != want {
		t.Errorf("%+v", c.Orders)
	}
}

// Which options make of a uWSGI what no reload serves.
func TestOrdersOfOthers(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	dir := t.TempDir()
	for i, c := range []struct {
		lines string
		want  facts.Orders
	}{
		{"lazy-apps = false\n", facts.Orders{}},
		{"lazy-apps =\n", facts.Orders{LazyApps: "2"}},
		{"if-env = NOWHERE\nlazy-apps = true\nendif =\n", facts.Orders{}}, // not for sure
		{"plugin = http\nhttp = 127.0.0.1:5391\n", facts.Orders{Router: "http, 3"}},
		{"emperor = " + dir + "\n", facts.Orders{Emperor: "emperor, 2"}},
		{"zerg-server = " + dir + "/zerg\n", facts.Orders{Zerg: "zerg-server, 2"}},
	} {
		ini := filepath.Join(dir, "app.ini")
		if err := os.WriteFile(ini, []byte("[uwsgi]\n"+c.lines), 0o644); err != nil {
			t.Fatal(err)
		}
		got := Running(Process{PID: testbed.Run(t, testbed.Options{Address: "127.0.0.1:0", Args: []string{"--ini", ini}}).Pid}, names, "").Orders
		for _, s := range []*string{&got.LazyApps, &got.Router, &got.Zerg, &got.Emperor} {
			*s = strings.Replace(*s, ini+":", "", 1)
		}
		c.want.FIFO, c.want.Asked = facts.Absent[facts.FIFO](), facts.Absent[facts.Trigger]()
		if got != c.want {
			t.Errorf("%d: %+v, want %+v", i, got, c.want)
		}
	}
}

// What each process of a uWSGI is shows in its signals.
func TestRoles(t *testing.T) {
	bits := func(signals ...unix.Signal) (set uint64) {
		for _, s := range signals {
			set |= 1 << (s - 1)
		}
		return set
	}
	const (
		hup, quit, usr1, usr2 = unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2
		alarm, term, urgent   = unix.SIGALRM, unix.SIGTERM, unix.SIGURG
	)
	for name, c := range map[string]struct {
		caught, ignored uint64
		want            string
	}{
		"master":                        {bits(hup, quit, usr1, term), 0, "master"},
		"emperor":                       {bits(hup, quit, usr1, term, urgent), 0, "emperor"},
		"worker of the first start":     {bits(hup, usr1, usr2, term), bits(quit), "worker"},
		"worker that was spawned later": {bits(hup, usr1, usr2, term), 0, "worker"},
		"worker that loads":             {bits(term), bits(hup, quit), ""},
		"newborn":                       {bits(hup, quit, usr1, term), 0, "master"},
		"application's own SIGQUIT":     {bits(hup, quit, usr1, usr2, term), 0, "master worker"}, // or a master's, with its own SIGUSR2
		"application's own SIGURG":      {bits(hup, usr1, usr2, term, urgent), 0, "worker"},
		"application ignores SIGUSR2":   {bits(hup, usr1, term), bits(usr2), "worker"},
		"mule":                          {bits(hup, quit, term), bits(usr1, usr2, alarm), ""},
		"spooler":                       {bits(usr1, term), bits(hup, usr2, alarm), ""},
		"router":                        {bits(quit, term), bits(hup, usr1, usr2, alarm), "router"},
	} {
		s := kernel.Signals{Caught: c.caught, Ignored: c.ignored}
		var got []string
		for _, r := range []struct {
			name string
			is   bool
		}{{"master", IsMaster(s)}, {"emperor", IsEmperor(s)}, {"router", IsRouter(s)}, {"worker", IsWorker(s)}} {
			if r.is {
				got = append(got, r.name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A master FIFO counts only where its path leads qwatch to the very file that uWSGI
// reads, without a link at its end.
func TestFIFOOfAnotherView(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "root")
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5381", Args: []string{"--master-fifo", fifo}})
	why := func() string {
		return Running(Process{PID: u.Pid}, names, "").Orders.FIFO.Unseen()
	}
	if got := why(); got != "" {
		t.Fatal(got)
	}
	if err := errors.Join(os.Rename(fifo, filepath.Join(dir, "there")), os.Symlink("there", fifo)); err != nil {
		t.Fatal(err)
	}
	if got := why(); !strings.Contains(got, fifo+" is a symbolic link") {
		t.Errorf("a link: %q", got)
	}
	if err := errors.Join(os.Remove(fifo), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := elsewhere(fifo, kernel.FileID{Dev: 1, Ino: 1}, uwsgiconf.Option{Name: masterFIFO, At: "app.ini:3"}); !strings.HasPrefix(got, "master-fifo (app.ini:3) is not the file "+fifo+" that qwatch sees") {
		t.Errorf("another file: %q", got)
	}
}

// The port of a stats server may be the kernel's choice; then it is told by what it
// is not.
func TestStatsAtAChosenPort(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5392", Args: []string{"--stats", "127.0.0.1:0"}})
	own, err := kernel.OpenNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	all, err := own.ListenersOf(kernel.TCP)
	if err != nil {
		t.Fatal(err)
	}
	held, err := kernel.Sockets(u.Pid)
	if err != nil {
		t.Fatal(err)
	}
	config, seen := Running(Process{PID: u.Pid}, names, ""), 0
	for _, l := range all {
		if _, ok := held[l.Inode]; !ok {
			continue
		}
		seen++
		s := facts.Socket{Family: facts.TCP, Address: l.Address(), Config: config}
		if got := s.Serves() != ""; got == (l.Address() == u.Address) {
			t.Errorf("%s: %q", l.Address(), s.Serves())
		}
	}
	if seen != 2 {
		t.Errorf("%d sockets", seen)
	}
}
