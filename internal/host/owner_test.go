package host

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/remediate/facts"
)

// Processes as their signals show them (/proc/PID/status of uWSGI 2.0.21).
var (
	aMaster   = kernel.Signals{Caught: bits(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGTERM, unix.SIGTSTP)}
	anEmperor = kernel.Signals{Caught: bits(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGTERM, unix.SIGURG, unix.SIGWINCH)}
	aWorker   = kernel.Signals{Caught: bits(unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM), Ignored: bits(unix.SIGQUIT)}
	aRouter   = kernel.Signals{Caught: bits(unix.SIGINT, unix.SIGQUIT, unix.SIGTERM),
		Ignored: bits(unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTSTP)}
	dumping = kernel.Signals{Caught: aMaster.Caught | bits(unix.SIGUSR2)}
	loading = kernel.Signals{Ignored: bits(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)}
	aMule   = kernel.Signals{Caught: bits(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM),
		Ignored: bits(unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM)}
)

func bits(signals ...unix.Signal) (set uint64) {
	for _, s := range signals {
		set |= 1 << (s - 1)
	}
	return set
}

func is(signals kernel.Signals, unit string, p kernel.Process) kernel.Process {
	p.Signals, p.Comm = signals, "uwsgi"
	if unit != "" {
		p.Cgroup = "0::/system.slice/" + unit + "\n"
	}
	return p
}

// Whose a socket is that several processes hold, and whom a reload would reach.
func TestCompany(t *testing.T) {
	h := &Host{}
	for _, c := range []struct {
		name   string
		procs  []kernel.Process
		master int // of inode 7
		want   facts.Ways
	}{
		{"alone in its unit, with a loading worker and a mule", []kernel.Process{
			is(aMaster, "a.service", holder(10, 1, 1, map[uint64]int{7: 3})),
			is(aWorker, "a.service", holder(11, 10, 2, map[uint64]int{7: 3})),
			is(loading, "a.service", holder(12, 10, 3, map[uint64]int{7: 3})),
			is(aMule, "a.service", holder(13, 10, 3, nil)),
			is(aMaster, "b.service", holder(20, 1, 1, map[uint64]int{8: 3})),
			is(aWorker, "b.service", holder(21, 20, 1, map[uint64]int{8: 3})),
		}, 10, facts.Ways{Sharers: facts.Absent[string]()}},
		{"a newborn looks like its master", []kernel.Process{
			is(aMaster, "a.service", holder(10, 1, 1, map[uint64]int{7: 3})),
			is(aMaster, "a.service", holder(11, 10, 2, map[uint64]int{7: 3})),
		}, 10, facts.Ways{Sharers: facts.Absent[string]()}},
		{"three apps in a unit", []kernel.Process{
			is(aMaster, "uwsgi.service", holder(10, 1, 1, map[uint64]int{7: 3})),
			is(aWorker, "uwsgi.service", holder(11, 10, 2, map[uint64]int{7: 3})),
			is(aMaster, "uwsgi.service", holder(20, 1, 1, map[uint64]int{8: 3})),
			is(aWorker, "uwsgi.service", holder(21, 20, 2, map[uint64]int{8: 3})),
			is(aMaster, "uwsgi.service", holder(30, 1, 1, nil)),
			is(aWorker, "uwsgi.service", holder(31, 30, 2, nil)),
		}, 10, facts.Ways{Sharers: facts.Absent[string](), Others: []string{"uwsgi 20 (127.0.0.1:8)", "uwsgi 30"}}},
		{"a router", []kernel.Process{
			is(aMaster, "", holder(10, 1, 1, map[uint64]int{7: 3, 8: 4})),
			is(aWorker, "", holder(11, 10, 2, map[uint64]int{7: 3})),
			is(aRouter, "", holder(12, 10, 2, map[uint64]int{8: 4})),
		}, 10, facts.Ways{Sharers: facts.Absent[string](), Router: "uwsgi 12"}},
		{"a vassal below its emperor", []kernel.Process{
			is(anEmperor, "e.service", holder(5, 1, 1, nil)),
			is(aMaster, "e.service", holder(10, 5, 2, map[uint64]int{7: 3})),
			is(aWorker, "e.service", holder(11, 10, 3, map[uint64]int{7: 3})),
			is(aMaster, "e.service", holder(20, 5, 2, map[uint64]int{8: 3})),
			is(aWorker, "e.service", holder(21, 20, 3, map[uint64]int{8: 3})),
		}, 10, facts.Ways{Sharers: facts.Absent[string](), Others: []string{"uwsgi 5", "uwsgi 20 (127.0.0.1:8)"}}},
		{"a vassal on demand: the socket is bound by its emperor", []kernel.Process{
			is(anEmperor, "", holder(5, 1, 1, map[uint64]int{7: 5, 8: 6})),
			is(aMaster, "", holder(10, 5, 2, map[uint64]int{7: 0})),
			is(aWorker, "", holder(11, 10, 3, map[uint64]int{7: 0})),
		}, 10, facts.Ways{Sharers: facts.Absent[string]()}},
		{"no vassal runs yet", []kernel.Process{
			is(anEmperor, "", holder(5, 1, 1, map[uint64]int{7: 5})),
			is(aMaster, "", holder(20, 5, 2, map[uint64]int{8: 3})),
			is(aWorker, "", holder(21, 20, 3, map[uint64]int{8: 3})),
		}, 5, facts.Ways{Sharers: facts.Absent[string](), Emperor: true, Vassals: []string{"uwsgi 20 (127.0.0.1:8)"}}},
		{"two vassals hold it", []kernel.Process{
			is(anEmperor, "", holder(5, 1, 1, map[uint64]int{7: 5})),
			is(aMaster, "", holder(10, 5, 2, map[uint64]int{7: 0})),
			is(aWorker, "", holder(11, 10, 3, map[uint64]int{7: 0})),
			is(aMaster, "", holder(20, 5, 2, map[uint64]int{7: 0})),
			is(aWorker, "", holder(21, 20, 3, map[uint64]int{7: 0})),
		}, 5, facts.Ways{Sharers: facts.Known("uwsgi 10, uwsgi 20"), Emperor: true, Vassals: []string{"uwsgi 10", "uwsgi 20"}}},
		{"an emperor below a master that serves itself", []kernel.Process{
			is(aMaster, "", holder(10, 1, 1, map[uint64]int{7: 3})),
			is(aWorker, "", holder(11, 10, 2, map[uint64]int{7: 3})),
			is(anEmperor, "", holder(12, 10, 2, nil)),
			is(aMaster, "", holder(20, 12, 2, map[uint64]int{8: 3})),
			is(aWorker, "", holder(21, 20, 3, map[uint64]int{8: 3})),
		}, 10, facts.Ways{Sharers: facts.Absent[string](), Vassals: []string{"uwsgi 20 (127.0.0.1:8)"}}},
		{"a zerg pool", []kernel.Process{
			is(aMaster, "", holder(10, 1, 1, map[uint64]int{7: 4})),
			is(aRouter, "", holder(12, 10, 1, map[uint64]int{7: 4})),
			is(aMaster, "", holder(20, 1, 2, map[uint64]int{7: 4})),
			is(aWorker, "", holder(21, 20, 3, map[uint64]int{7: 4})),
			is(aMaster, "", holder(30, 1, 2, map[uint64]int{7: 4})),
		}, 10, facts.Ways{Sharers: facts.Known("uwsgi 20, uwsgi 30"), Router: "uwsgi 12"}},
		{"what its application has forked twice", []kernel.Process{
			is(aMaster, "", holder(10, 1, 1, map[uint64]int{7: 3})),
			is(aWorker, "", holder(11, 10, 2, map[uint64]int{7: 3})),
			is(aWorker, "", holder(12, 1, 3, map[uint64]int{7: 3})),
		}, 10, facts.Ways{Sharers: facts.Absent[string]()}},
		{"masters whose application takes SIGUSR2", []kernel.Process{
			is(aMaster, "a.service", holder(10, 1, 1, map[uint64]int{7: 3})),
			is(aWorker, "a.service", holder(11, 10, 2, map[uint64]int{7: 3})),
			is(dumping, "a.service", holder(20, 1, 1, map[uint64]int{7: 4, 8: 3})),
			is(aWorker, "a.service", holder(21, 20, 2, map[uint64]int{8: 3})),
		}, 10, facts.Ways{Sharers: facts.Known("uwsgi 20 (127.0.0.1:8)"), Others: []string{"uwsgi 20 (127.0.0.1:8)"}}},
		{"a second master that the first has forked", []kernel.Process{
			is(aMaster, "", holder(10, 1, 1, map[uint64]int{7: 3})),
			is(aWorker, "", holder(11, 10, 2, map[uint64]int{7: 3})),
			is(aMaster, "", holder(20, 10, 5, map[uint64]int{7: 3})),
			is(aWorker, "", holder(21, 20, 6, map[uint64]int{7: 3})),
		}, 10, facts.Ways{Sharers: facts.Known("uwsgi 20")}},
	} {
		owned, _ := owners(c.procs)
		h.walked = walk{procs: c.procs, owned: owned}
		views := []view{{listeners: []kernel.Listener{{Family: kernel.TCP, Inode: 8, Addr: netip.MustParseAddrPort("127.0.0.1:8")}}}}
		got := h.company(views).ways(owned[7], h.identity(owned[7].master).Unit.Value)
		if diff := cmp.Diff(c.want, got); diff != "" || owned[7].master.PID != c.master {
			t.Errorf("%s: master %d, want %d, (-want +got):\n%s", c.name, owned[7].master.PID, c.master, diff)
		}
	}
	if got := h.company(nil).ways(owner{master: &h.walked.procs[0], fd: -1}, ""); got.Sharers.Unseen() == "" {
		t.Errorf("who shares a socket was told without a right to see it: %+v", got)
	}
}

// What could not be looked into may share a socket, where it is of the system, or of
// the master's user; what others run keeps no reload from anybody.
func TestCompanyUnseen(t *testing.T) {
	denied := func(uid int, p kernel.Process) kernel.Process {
		p.UID, p.Denied, p.Sockets = uid, unix.EACCES, nil
		return p
	}
	cut := func(uid int, p kernel.Process) kernel.Process {
		p.UID, p.Cut = uid, unix.E2BIG
		return p
	}
	homeless := func(p kernel.Process) kernel.Process {
		p.CgroupErr = unix.EIO
		return p
	}
	other := is(aMaster, "", holder(20, 1, 1, map[uint64]int{8: 3}))
	worker := is(aWorker, "", holder(21, 20, 1, map[uint64]int{8: 3}))
	dead := denied(0, other)
	dead.State = 'Z'
	for _, tt := range []struct {
		name            string
		uid             int // of the master
		more            []kernel.Process
		seen            kernel.Seen
		sharers, hidden bool // whether each is unknown
	}{
		{"all was seen", 1000, []kernel.Process{other, worker}, kernel.Seen{}, false, false},
		{"root's was not", 1000, []kernel.Process{denied(0, other)}, kernel.Seen{}, true, false},
		{"a system user's has more", 0, []kernel.Process{cut(33, other)}, kernel.Seen{}, true, false},
		{"one of its own user's", 1000, []kernel.Process{denied(1000, other)}, kernel.Seen{}, true, false},
		{"a stranger's", 0, []kernel.Process{denied(1001, other), cut(1002, worker)}, kernel.Seen{Left: map[int]int{1003: 99}}, false, false},
		{"one that has ended", 0, []kernel.Process{dead}, kernel.Seen{}, false, false},
		{"its own worker", 0, []kernel.Process{denied(33, is(aWorker, "", holder(12, 10, 2, nil)))}, kernel.Seen{}, false, false},
		{"its emperor", 33, []kernel.Process{denied(0, is(anEmperor, "", holder(5, 1, 1, nil)))}, kernel.Seen{}, false, false},
		{"hidepid", 0, nil, kernel.Seen{Hidden: true}, true, true},
		{"more of root's than are looked at", 1000, nil, kernel.Seen{Left: map[int]int{0: 3}}, true, true},
		{"more of its own user's", 1000, nil, kernel.Seen{Left: map[int]int{1000: 3}}, true, true},
		{"one of which nothing tells what it is", 0, []kernel.Process{is(kernel.Signals{Unknown: true}, "", holder(20, 1, 1, nil))}, kernel.Seen{}, true, true},
		{"one of which the unit is not known", 0, []kernel.Process{homeless(other), worker}, kernel.Seen{}, true, true},
	} {
		procs := append([]kernel.Process{is(aMaster, "", holder(10, 5, 1, map[uint64]int{7: 3})), is(aWorker, "", holder(11, 10, 2, map[uint64]int{7: 3}))}, tt.more...)
		for i := range 2 {
			procs[i].UID = tt.uid
		}
		owned, _ := owners(procs)
		h := &Host{walked: walk{procs: procs, owned: owned, seen: tt.seen}}
		got := h.company(nil).ways(owned[7], "")
		if (got.Sharers.Unseen() != "") != tt.sharers || !tt.sharers && !got.Sharers.IsAbsent() || (got.Hidden != "") != tt.hidden {
			t.Errorf("%s: sharers %+v, hidden %q", tt.name, got.Sharers, got.Hidden)
		}
	}
}

// Of many only some are named.
func TestNames(t *testing.T) {
	c := &company{}
	var procs []*kernel.Process
	for i := range maxNamed + 3 {
		p := is(aMaster, "", holder(i, 1, 1, nil))
		procs = append(procs, &p)
	}
	got := c.names(procs)
	if want := []string{fmt.Sprintf("uwsgi %d", maxNamed-1), "3 more"}; !slices.Equal(got[maxNamed-1:], want) {
		t.Errorf("%q", got)
	}
}
