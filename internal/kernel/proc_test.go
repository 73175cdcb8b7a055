package kernel

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const rest = " S 17 21 21 0 -1 4194560 900 0 0 0 40 2 0 0 20 0 1 0 5566 70000000 3000 18446744073709551615 1 1 0\n"
	want := Stat{State: 'S', PPID: 17, Ticks: 42, Start: 5566}
	for _, comm := range []string{"uwsgi", "a b", ") R 1 (", "(", ")", "", "uwsgi)\n9 (x"} {
		want.Comm = comm
		got, err := parseStat([]byte("21 (" + comm + ")" + rest))
		if err != nil {
			t.Errorf("comm %q: %v", comm, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("comm %q (-want +got):\n%s", comm, diff)
		}
	}
	for _, bad := range []string{"", "21 uwsgi S 1", "21 (uwsgi)", "21 (uwsgi) S 1 2", ")(", "21 (u) S x" + rest[5:], "21 (u) SS" + rest[2:]} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func TestArgsSize(t *testing.T) {
	args, err := os.ReadFile("/proc/self/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	st, err := ReadStat(os.Getpid())
	if err != nil || st.ArgsSize != uint64(len(args)) {
		t.Errorf("got %d, %v, want %d", st.ArgsSize, err, len(args))
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
		if err == nil && !strings.Contains(string(b), "("+st.Comm+")") {
			t.Errorf("comm %q is not in %q", st.Comm, b)
		}
	})
}

func TestUIDs(t *testing.T) {
	for status, want := range map[string][2]int{
		"Name:\tuwsgi\nUid:\t1000\t33\t33\t33\nGid:\t0\t0\t0\t0\n": {1000, 33},
		"Name:\tuwsgi\n": {-1, -1},
		"Uid:\t1000\n":   {-1, -1},
		"Uid:\tx\ty\n":   {-1, -1},
		"":               {-1, -1},
	} {
		if real, effective := uids([]byte(status)); [2]int{real, effective} != want {
			t.Errorf("%q: got %d and %d, want %d", status, real, effective, want)
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

func TestCounters(t *testing.T) {
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
		if got := counters([]byte(text), c.prefix, c.name)[0]; got != c.want {
			t.Errorf("%s %s: got %d, want %d", c.prefix, c.name, got, c.want)
		}
	}
	if got := counters([]byte("Tcp: A PassiveOpens\nTcp: 1"), "Tcp:", "PassiveOpens")[0]; got != 0 {
		t.Errorf("cut short: got %d, want 0", got)
	}
}

func TestAlternative(t *testing.T) {
	for comm, want := range map[string]bool{
		"uwsgi_python3": true, "uwsgi_rack-ruby": true, "uwsgi_psgi": true,
		"uwsgi_exporter": false, "uwsgi": false, "uwsgi_": false, "nginx_python3": false, "_python3": false,
	} {
		if alternative(comm, []string{"uwsgi", "uwsgi-core"}) != want {
			t.Errorf("%s: %v", comm, !want)
		}
	}
}

// Whoever looks at a part of the descriptors does not say that these are all.
func TestDescriptorsCut(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	all, count, err := sockets(os.Getpid(), maxEntries)
	if err != nil || len(all) == 0 {
		t.Fatalf("%v, %v", all, err)
	}
	st, err := ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for most, more := range map[int]bool{count + 100: false, count / 2: true, 1: true} {
		_, read, err := sockets(os.Getpid(), most)
		if cut(err) != more || more && read != most {
			t.Errorf("%d of %d: read %d, %v", most, count, read, err)
		}
		p, of := Process{PID: os.Getpid(), Stat: st}, budget{descriptors: most}
		p.hold(&of)
		if p.Denied != nil || (p.Cut != nil) != more || more && of.descriptors != 0 {
			t.Errorf("%d of %d: denied %v, cut %v, %d left", most, count, p.Denied, p.Cut, of.descriptors)
		}
	}
}
