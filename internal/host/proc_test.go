package host

import (
	"fmt"
	"net/netip"
	"os"
	"qwatch/remediate/facts"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const rest = " S 17 21 21 0 -1 4194560 900 0 0 0 40 2 0 0 20 0 1 0 5566 70000000 3000 18446744073709551615 1 1 0\n"
	want := stat{state: 'S', ppid: 17, ticks: 42, start: 5566}
	for _, comm := range []string{"uwsgi", "a b", ") R 1 (", "(", ")", "", "uwsgi)\n9 (x"} {
		want.comm = comm
		got, err := parseStat([]byte("21 (" + comm + ")" + rest))
		if err != nil {
			t.Errorf("comm %q: %v", comm, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(stat{})); diff != "" {
			t.Errorf("comm %q (-want +got):\n%s", comm, diff)
		}
	}
	for _, bad := range []string{"", "21 uwsgi S 1", "21 (uwsgi)", "21 (uwsgi) S 1 2", ")(", "21 (u) S x" + rest[5:], "21 (u) SS" + rest[2:]} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("1 ((sd-pam)) S 1 1 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseStat(b)
		if err == nil && !strings.Contains(string(b), "("+st.comm+")") {
			t.Errorf("comm %q is not in %q", st.comm, b)
		}
	})
}

func TestEffectiveUID(t *testing.T) {
	for status, want := range map[string]int{
		"Name:\tuwsgi\nUid:\t1000\t33\t33\t33\nGid:\t0\t0\t0\t0\n": 33,
		"Name:\tuwsgi\n": -1,
		"Uid:\t1000\n":   -1,
		"Uid:\tx\ty\n":   -1,
		"":               -1,
	} {
		if got := effectiveUID([]byte(status)); got != want {
			t.Errorf("%q: got %d, want %d", status, got, want)
		}
	}
}

func TestWritable(t *testing.T) {
	for fdinfo, want := range map[string]bool{
		"pos:\t0\nflags:\t0100000\nmnt_id:\t9\n": false,
		"pos:\t0\nflags:\t0102001\n":             true,
		"pos:\t0\nflags:\t0102002\n":             true,
		"flags:\tx\n":                            false,
		"":                                       false,
	} {
		if got := writable([]byte(fdinfo)); got != want {
			t.Errorf("%q: got %v, want %v", fdinfo, got, want)
		}
	}
}

func TestSocketInode(t *testing.T) {
	for link, want := range map[string]uint64{
		"socket:[4711]": 4711,
		"socket:[]":     0,
		"socket:[47":    0,
		"socket:[-1]":   0,
		"pipe:[4711]":   0,
		"/dev/null":     0,
		"":              0,
	} {
		got, ok := socketInode([]byte(link))
		if got != want || ok != (want != 0) {
			t.Errorf("%q: got %d, %v, want %d", link, got, ok, want)
		}
	}
}

func TestCounter(t *testing.T) {
	const text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\n" +
		"IpExt: ListenOverflows InNoRoutes\nIpExt: 4 5\n" +
		"Tcp: MaxConn PassiveOpens\nTcp: -1 18446744073709551615\n"
	for _, c := range []struct {
		prefix, name string
		want         uint64
	}{
		{"TcpExt:", "ListenOverflows", 2},
		{"TcpExt:", "ListenDrops", 3},
		{"IpExt:", "ListenOverflows", 4},
		{"Tcp:", "PassiveOpens", 1<<64 - 1},
		{"TcpExt:", "ListenOver", 0},
		{"Udp:", "PassiveOpens", 0},
	} {
		if got := counter([]byte(text), c.prefix, c.name); got != c.want {
			t.Errorf("%s %s: got %d, want %d", c.prefix, c.name, got, c.want)
		}
	}
	if got := counter([]byte("Tcp: A PassiveOpens\nTcp: 1"), "Tcp:", "PassiveOpens"); got != 0 {
		t.Errorf("cut short: got %d, want 0", got)
	}
}

// holder is a process with its parent and what it holds, as inode to fd.
func holder(pid, ppid int, start uint64, held map[uint64]int) process {
	return process{Process: facts.Process{PID: pid, Start: start}, ppid: ppid, state: 'S', sockets: held}
}

func TestOwners(t *testing.T) {
	zombie := holder(12, 10, 3, nil)
	zombie.state = 'Z'
	for _, c := range []struct {
		name  string
		procs []process
		want  []string
	}{
		{"none", nil, nil},
		{"without a master process", []process{holder(10, 1, 1, map[uint64]int{7: 3})}, []string{"7: 10 fd 3 []"}},
		{"workers, one of them dead, and a router that has closed the socket", []process{
			holder(13, 10, 4, map[uint64]int{8: 4}),
			holder(11, 10, 2, map[uint64]int{7: 3}),
			zombie,
			holder(10, 1, 1, map[uint64]int{7: 3, 8: 4}),
		}, []string{"7: 10 fd 3 [11 12]", "8: 10 fd 4 [12 13]"}},
		{"a vassal below its emperor", []process{
			holder(5, 1, 1, map[uint64]int{6: 3}),
			holder(10, 5, 2, map[uint64]int{7: 3}),
			holder(11, 10, 3, map[uint64]int{7: 3}),
		}, []string{"6: 5 fd 3 []", "7: 10 fd 3 [11]"}},
		{"two masters share a socket (zerg): the older one", []process{
			holder(10, 1, 9, map[uint64]int{7: 5}),
			holder(20, 1, 8, map[uint64]int{7: 3}),
			holder(11, 10, 9, map[uint64]int{7: 5}),
			holder(21, 20, 9, map[uint64]int{7: 3}),
		}, []string{"7: 20 fd 3 [21]"}},
	} {
		var got []string
		for inode, o := range owners(c.procs) {
			pids := []int{}
			for _, w := range o.workers {
				pids = append(pids, w.PID)
			}
			got = append(got, fmt.Sprintf("%d: %d fd %d %v", inode, o.master.PID, o.fd, pids))
		}
		slices.Sort(got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestGuess(t *testing.T) {
	tcp := listener{family: facts.TCP, uid: 33, addr: netip.MustParseAddrPort("127.0.0.1:5000")}
	byRoot := tcp
	byRoot.uid = 0
	path := listener{family: facts.Unix, uid: -1, name: []byte("/run/app.sock\x00")}
	abstract := listener{family: facts.Unix, uid: 33, name: []byte("\x00app\x00")}
	type proc struct {
		pid, ppid, uid int
		netns          uint64
		args           string
	}
	master := proc{10, 1, 33, 1, "uwsgi --socket 127.0.0.1:5000"}
	worker := proc{11, 10, 33, 1, master.args}
	for _, c := range []struct {
		name  string
		l     listener
		procs []proc
		want  int // the master's pid, 0 for none
	}{
		{"master and worker", tcp, []proc{worker, master}, 10},
		{"bound by root", byRoot, []proc{master, worker}, 10},
		{"port only", tcp, []proc{{10, 1, 33, 1, "uwsgi --http-socket=:5000"}}, 10},
		{"two fit", tcp, []proc{master, {20, 1, 33, 1, master.args}}, 0},
		{"another user", tcp, []proc{{10, 1, 34, 1, master.args}}, 0},
		{"another namespace", tcp, []proc{{10, 1, 33, 2, master.args}}, 0},
		{"another port", tcp, []proc{{10, 1, 33, 1, "uwsgi --socket 127.0.0.1:15000"}}, 0},
		{"configured elsewhere", tcp, []proc{{10, 1, 33, 1, "uwsgi --ini app.ini"}}, 0},
		{"path", path, []proc{{10, 1, 33, 1, "uwsgi --socket=/run/app.sock"}}, 10},
		{"longer path", path, []proc{{10, 1, 33, 1, "uwsgi -s /srv/run/app.sock"}}, 0},
		{"abstract", abstract, []proc{{10, 1, 33, 1, "uwsgi -s @app"}}, 10},
	} {
		var procs []process
		args := make(map[int][]string)
		for _, p := range c.procs {
			procs = append(procs, process{
				Process: facts.Process{PID: p.pid, UID: p.uid}, ppid: p.ppid, netns: p.netns, denied: os.ErrPermission,
			})
			args[p.pid] = strings.Fields(p.args)
		}
		got := 0
		if o, ok := guess(c.l, 1, procs, func(pid int) []string { return args[pid] }); ok {
			got = o.master.PID
			if o.fd != -1 {
				t.Errorf("%s: fd %d, want -1", c.name, o.fd)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}
