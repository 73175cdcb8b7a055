package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/systemd"
)

const (
	initGroup  = 1
	appGroup   = 100
	otherGroup = 200
	userGroup  = 300
)

// uwsgiIn is a uWSGI of user 33 in a cgroup, with the addresses that it names.
func uwsgiIn(pid, ppid int, cgroup uint64, addresses ...string) suspect {
	return suspect{
		Process: &kernel.Process{
			PID: pid, UID: 33, NetNS: 1, Stat: kernel.Stat{PPID: ppid, State: 'S'}, Denied: os.ErrPermission,
			Cgroup: fmt.Sprintf("0::/%d", cgroup),
		},
		master: true, cgroup: cgroup, unit: fmt.Sprintf("%d.service", cgroup), claim: uwsgi.Claim{Addresses: addresses},
	}
}

func but(s suspect, change ...func(*suspect)) suspect {
	p := *s.Process
	s.Process = &p
	for _, f := range change {
		f(&s)
	}
	return s
}

// Whose a socket is when nobody's descriptors can be listed. A name proves
// nothing, whoever says it.
func TestAttribution(t *testing.T) {
	tcp := kernel.Listener{Family: kernel.TCP, UID: 33, Addr: netip.MustParseAddrPort("127.0.0.1:5000"), Cgroup: appGroup}
	activated, unknown, old, root := tcp, tcp, tcp, tcp
	activated.Cgroup, activated.UID, unknown.Cgroup, old.Cgroup, root.Cgroup = initGroup, 0, 999, 0, 5
	path := kernel.Listener{Family: kernel.Unix, UID: 33, Name: []byte("/run/app.sock\x00")}
	rootPath, abstract := path, kernel.Listener{Family: kernel.Unix, UID: 33, Name: []byte("\x00app\x00")}
	rootPath.UID = 0

	worker := func(s *suspect) { s.master, s.claim = false, uwsgi.Claim{} }
	unread := func(s *suspect) { s.claim = uwsgi.Claim{Unread: errors.New("its command line is overwritten")} }
	user := func(uid int) func(*suspect) { return func(s *suspect) { s.UID = uid } }
	nowhere := func(s *suspect) { s.cgroup, s.unit = 0, "" }
	elsewhere := func(s *suspect) { s.NetNS = 2 }
	unit := func(listen string) func(*suspect) {
		return func(s *suspect) { s.units = []systemd.SocketUnit{{Unit: "app.socket", Listen: []string{listen}}} }
	}
	app := uwsgiIn(10, 1, appGroup, "127.0.0.1:5000")
	appWorker := but(uwsgiIn(11, 10, appGroup), worker)
	for _, c := range []struct {
		name     string
		l        kernel.Listener
		suspects []suspect
		want     int    // the master's pid, 0 for none
		why      string // and what is said then
	}{
		{"its cgroup, and it names it", tcp, []suspect{appWorker, app}, 10, ""},
		{"a stranger names it too", tcp, []suspect{app, appWorker, uwsgiIn(20, 1, userGroup, "127.0.0.1:5000")}, 10, ""},
		{"only a stranger names it", tcp, []suspect{uwsgiIn(20, 1, userGroup, "127.0.0.1:5000")}, 0, "uWSGI 20 names it, but it was made in another cgroup"},
		{"another user in that cgroup names it", tcp, []suspect{but(app, user(0))}, 10, ""},
		{"nobody names it, one master is alone there", tcp, []suspect{but(app, unread), appWorker}, 10, ""},
		{"two masters, nobody names it", tcp, []suspect{but(app, unread), uwsgiIn(12, 1, appGroup)}, 0, "it was made in 100.service, and whether uWSGI 10 listens there cannot be read: its command line is overwritten"},
		{"an emperor and two vassals", tcp, []suspect{but(uwsgiIn(9, 1, appGroup), worker), but(app, func(s *suspect) { s.Stat.PPID = 9 }), uwsgiIn(12, 9, appGroup, ":5001")}, 10, ""},
		{"two name it", tcp, []suspect{app, uwsgiIn(12, 1, appGroup, "localhost:5000")}, 0, "it was made in 100.service, where 2 uWSGI name it"},
		{"something else runs there", kernel.Listener{Family: kernel.TCP, Addr: tcp.Addr, Cgroup: otherGroup}, []suspect{uwsgiIn(30, 1, otherGroup)}, 0, "it was made in 200.service, and no uWSGI there names it"},
		{"something else runs there, and it names it", kernel.Listener{Family: kernel.TCP, Addr: tcp.Addr, Cgroup: otherGroup}, []suspect{uwsgiIn(30, 1, otherGroup, ":1", "127.0.0.1:5000")}, 30, ""},
		{"nobody's", unknown, []suspect{uwsgiIn(10, 1, appGroup, ":1")}, 0, ""},
		{"another namespace", tcp, []suspect{but(app, elsewhere)}, 0, ""},
		{"a kernel without ids", old, []suspect{app}, 0, "uWSGI 10 names it, and this kernel does not say in which cgroup it was made (Linux 5.9)"},
		{"systemd's, and its unit says so", activated, []suspect{but(uwsgiIn(10, 1, appGroup), unit("127.0.0.1:5000")), appWorker}, 10, ""},
		{"systemd's, and nobody's unit", activated, []suspect{but(app, unit("127.0.0.1:5001"))}, 0, "uWSGI 10 names it, but it was made in another cgroup"},
		{"systemd's, for two masters of which one names it", activated, []suspect{but(app, unit("127.0.0.1:5000")), but(uwsgiIn(12, 1, appGroup), unit("127.0.0.1:5000"))}, 10, ""},
		{"systemd's, who cannot be asked", activated, []suspect{but(app, func(s *suspect) { s.unitsErr = errors.New("no bus") })}, 0, "systemd made it, and whether for 100.service is not known: no bus"},
		{"a path of systemd's", rootPath, []suspect{but(uwsgiIn(10, 1, appGroup), unit("/run/app.sock"))}, 10, ""},
		{"a path of its user", path, []suspect{uwsgiIn(10, 1, appGroup, "/run/app.sock")}, 10, ""},
		{"a path of another user", path, []suspect{but(uwsgiIn(10, 1, appGroup, "/run/app.sock"), user(1000))}, 0, "uWSGI 10 names it, but runs as another user (1000) than who made it (33)"},
		{"a path that root made", rootPath, []suspect{uwsgiIn(10, 1, appGroup, "/run/app.sock")}, 0, "uWSGI 10 names it, but runs as another user (33) than who made it (0)"},
		{"a path that two name", path, []suspect{uwsgiIn(10, 1, appGroup, "/run/app.sock"), uwsgiIn(20, 1, appGroup, "app.sock")}, 0, "2 uWSGI of the user 33 name it"},
		{"and a stranger", path, []suspect{uwsgiIn(10, 1, appGroup, "/run/app.sock"), but(uwsgiIn(20, 1, userGroup, "/run/app.sock"), user(1000))}, 10, ""},
		{"a path that nobody names", path, []suspect{app}, 0, ""},
		{"abstract", abstract, []suspect{uwsgiIn(10, 1, appGroup, "@app")}, 10, ""},
	} {
		a := attribution{suspects: c.suspects, init: initGroup, allUsers: true, inCgroup: func(text string) ([]int, error) {
			return map[string][]int{"0::/100": {10, 11}, "0::/200": {30, 31}}[text], nil
		}}
		for _, s := range c.suspects {
			a.all = append(a.all, *s.Process)
		}
		if len(a.all) == 1 {
			a.all = append(a.all, *appWorker.Process)
		}
		check(t, c.name, &a, c.l, c.want, c.why)
	}

	// Without cgroups of their own users are all that is known.
	a := attribution{suspects: []suspect{but(app, nowhere)}, allUsers: true}
	check(t, "no cgroups", &a, root, 10, "")
	a.suspects = append(a.suspects, but(uwsgiIn(20, 1, 0, ":5000"), nowhere, user(1000)))
	check(t, "no cgroups, and a stranger", &a, root, 10, "")
	root.UID = 0
	check(t, "no cgroups, made by root", &a, root, 0, "uWSGI 10 names it, but runs as another user (33) than who made it (0)")
	a.allUsers = false
	check(t, "no cgroups, in a user namespace", &a, root, 0, "uWSGI 10 names it, and in a user namespace (PrivateUsers=) users cannot be told apart")
	check(t, "a path, in a user namespace", &attribution{suspects: []suspect{uwsgiIn(10, 1, appGroup, "/run/app.sock")}}, path, 0,
		"uWSGI 10 names it, and in a user namespace (PrivateUsers=) users cannot be told apart")
}

// systemd makes sockets as root and in cgroups that are no service's; without
// both it is not known who has made one.
func TestMadeItself(t *testing.T) {
	text, err := kernel.CgroupOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cgroups := kernel.OpenCgroup2()
	master, own := &kernel.Process{Cgroup: text}, cgroups.ID(text)
	for _, c := range []struct {
		name     string
		l        kernel.Listener
		allUsers bool
		want     bool
	}{
		{"by its user", kernel.Listener{UID: 33}, true, true},
		{"in a user namespace", kernel.Listener{UID: 33}, false, false},
		{"by root", kernel.Listener{UID: 0}, true, false},
		{"by nobody that is told", kernel.Listener{UID: -1}, true, false},
		{"by root, in its cgroup", kernel.Listener{UID: 0, Cgroup: own}, true, own != 0},
		{"by root, in another one", kernel.Listener{UID: 0, Cgroup: own + 1}, true, false},
	} {
		if got := (makers{cgroups: cgroups, allUsers: c.allUsers}).itself(c.l, master); got != c.want {
			t.Errorf("made %s: %v", c.name, got)
		}
	}
}

func check(t *testing.T, name string, a *attribution, l kernel.Listener, want int, say string) {
	t.Helper()
	got := 0
	s, why := a.owner(l, 1)
	if s != nil {
		got = s.PID
	}
	if why = strings.TrimSuffix(why, "; "+kernel.SeeAll); got != want || why != say {
		t.Errorf("%s: uWSGI %d, want %d; says %q", name, got, want, why)
	}
}
