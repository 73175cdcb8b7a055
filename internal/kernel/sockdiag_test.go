package kernel

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

func TestListeners(t *testing.T) {
	testbed.Needs(t, "namespace", "ss")
	path := filepath.Join(t.TempDir(), "app.sock")
	sockets := []struct {
		sockaddr        unix.Sockaddr
		backlog, queued int
		want            string // family, address, length, limit
	}{
		{inet4("127.0.0.1:5000"), 5, 0, "tcp 127.0.0.1:5000 0/5"},
		{inet4("127.0.0.1:5001"), 4, 5, "tcp 127.0.0.1:5001 5/4"}, // full
		{inet4("127.0.0.1:5002"), 7, 2, "tcp 127.0.0.1:5002 "},    // SO_REUSEPORT: each with
		{inet4("127.0.0.1:5002"), 7, 0, "tcp 127.0.0.1:5002 "},    // a queue of its own
		{inet4("0.0.0.0:5003"), 9, 1, "tcp 0.0.0.0:5003 1/9"},
		{inet4("127.0.0.1:5004"), 1024, 0, "tcp 127.0.0.1:5004 0/128"}, // clamped by somaxconn
		{inet6("[::1]:5000"), 6, 3, "tcp6 [::1]:5000 3/6"},
		{inet6("[::]:5005"), 6, 1, "tcp6 [::]:5005 1/6"},
		{&unix.SockaddrUnix{Name: path}, 3, 4, "unix " + path + " 4/3"},
		{&unix.SockaddrUnix{Name: "@qwatch"}, 2, 1, "unix @qwatch 1/2"},
		{&unix.SockaddrUnix{Name: "@qwatch\x00b\x00"}, 2, 0, "unix @qwatch@b 0/2"}, // as uWSGI binds it
	}
	var want []string
	for _, s := range sockets {
		listen(t, s.sockaddr, s.backlog, s.queued)
		want = append(want, s.want)
	}

	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var found []Listener
	for _, family := range []Family{TCP, TCP6, Unix} {
		if found, err = listeners(c, family, found); err != nil {
			t.Fatal(err)
		}
	}
	var got, seen []string
	for _, l := range found {
		line := fmt.Sprintf("%s %s %d/%d", l.Family, l.Address(), l.Length, l.Limit)
		seen = append(seen, line)
		if l.UID != 0 {
			t.Errorf("%s: uid %d, want 0", line, l.UID)
		}
		if tcp := l.Family != Unix; l.Drops >= 0 != tcp || l.Cgroup > 0 != tcp {
			t.Errorf("%s: %d drops, cgroup %d", line, l.Drops, l.Cgroup)
		}
		if strings.Contains(line, ":5002") {
			line = "tcp 127.0.0.1:5002 " // which of the two got how many is the kernel's choice
		}
		got = append(got, line)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
	slices.Sort(seen)
	if diff := cmp.Diff(ss(t), seen); diff != "" {
		t.Errorf("listeners (-ss +got):\n%s", diff)
	}
}

// ss prints what ss(8) says in the same words.
func ss(t *testing.T) (lines []string) {
	t.Helper()
	for _, c := range []struct {
		family, args string
		column       int // of Recv-Q
	}{
		{"tcp", "-Hltn4", 1}, {"tcp6", "-Hltn6", 1}, {"unix", "-Hlxn", 2},
	} {
		out, err := exec.Command("ss", c.args).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			address := strings.TrimRight(f[c.column+2], "@")
			if c.family == "tcp6" {
				address = strings.Replace(address, "*:", "[::]:", 1)
			}
			lines = append(lines, fmt.Sprintf("%s %s %s/%s", c.family, address, f[c.column], f[c.column+1]))
		}
	}
	slices.Sort(lines)
	return lines
}

// listen opens a listening socket, and connects so often that its accept queue
// has that length.
func listen(t *testing.T, sa unix.Sockaddr, backlog, queued int) int {
	t.Helper()
	family := unix.AF_UNIX
	switch sa.(type) {
	case *unix.SockaddrInet4:
		family = unix.AF_INET
	case *unix.SockaddrInet6:
		family = unix.AF_INET6
	}
	open := func() int {
		s, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(s) })
		return s
	}
	s := open()
	if family != unix.AF_UNIX {
		if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(s, sa); err != nil {
		t.Fatalf("bind %v: %v", sa, err)
	}
	if err := unix.Listen(s, backlog); err != nil {
		t.Fatal(err)
	}
	for range queued {
		if err := unix.Connect(open(), sa); err != nil {
			t.Fatalf("connect %v: %v", sa, err)
		}
	}
	return s
}

func inet4(addr string) *unix.SockaddrInet4 {
	ap := netip.MustParseAddrPort(addr)
	return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
}

func inet6(addr string) *unix.SockaddrInet6 {
	ap := netip.MustParseAddrPort(addr)
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
}

// An older kernel has shorter attributes or none; one that is cut counts for
// nothing, nor does what stands behind it.
func TestInetAttributes(t *testing.T) {
	message := make([]byte, inetDiagMsgLen)
	message[0], message[1] = unix.AF_INET, tcpListen
	drops := append([]byte{40, 0, inetDiagSkmeminfo, 0}, make([]byte, 36)...)
	drops[4+4*skMeminfoDrops+3] = 0x80 // over 2³¹
	cgroup := []byte{12, 0, inetDiagCgroupID, 0, 7, 0, 0, 0, 1, 0, 0, 0}
	odd := []byte{5, 0, 1, 0, 'x', 0, 0, 0}
	for _, c := range []struct {
		name       string
		attributes []byte
		drops      int64
		cgroup     uint64
	}{
		{"none", nil, -1, 0},
		{"both", slices.Concat(odd, drops, cgroup), 1 << 31, 1<<32 + 7},
		{"no drops among the numbers", append([]byte{36, 0, inetDiagSkmeminfo, 0}, make([]byte, 32)...), -1, 0},
		{"cut", drops[:len(drops)-1], -1, 0},
		{"a length of nothing", slices.Concat([]byte{0, 0, 1, 0}, drops), -1, 0},
		{"longer than the message", slices.Concat([]byte{255, 255, 1, 0}, drops), -1, 0},
		{"short of a header", slices.Concat(cgroup, []byte{4, 0}), -1, 1<<32 + 7},
	} {
		l, ok, err := inetListener(slices.Concat(message, c.attributes))
		if !ok || err != nil || l.Drops != c.drops || l.Cgroup != c.cgroup {
			t.Errorf("%s: %d drops, cgroup %d, %v, %v; want %d, %d", c.name, l.Drops, l.Cgroup, ok, err, c.drops, c.cgroup)
		}
	}
}

// FuzzListener: no answer of a kernel, however broken, makes a decoder panic,
// and what it accepts has an address.
func FuzzListener(f *testing.F) {
	inet := inetRequest(TCP)
	f.Add(append(inet, make([]byte, inetDiagMsgLen-len(inet))...))
	f.Add(append(make([]byte, unixDiagMsgLen), 6, 0, 0, 0, 0, 'a', 0, 0, 12, 0, 4, 0, 1, 0, 0, 0, 2, 0, 0, 0))
	f.Add([]byte{})
	f.Add(slices.Concat([]byte{unix.AF_INET, tcpListen}, make([]byte, inetDiagMsgLen-2), []byte{40, 0, inetDiagSkmeminfo, 0}, make([]byte, 36), []byte{12, 0, inetDiagCgroupID, 0, 1, 2, 3, 4, 5, 6, 7, 8}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok, err := inetListener(b); ok && err == nil {
			if _, err := netip.ParseAddrPort(l.Address()); err != nil {
				t.Error(err)
			}
		}
		if l, ok, err := unixListener(b); ok && err == nil {
			if strings.Contains(l.Address(), "\x00") && l.Name[0] == 0 {
				t.Errorf("abstract name %s holds a NUL", strconv.Quote(l.Address()))
			}
		}
	})
}
