package kernel

import (
	"net"
	"slices"
	"syscall"
	"testing"
)

// Who waits at a UNIX socket is told in order: a queue that stays as long has moved
// up where the first was accepted, and has not where he has only gone away.
func TestWaiting(t *testing.T) {
	path := t.TempDir() + "/socket"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var clients []net.Conn
	connect := func() {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	n, err := OpenNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	waiting := func() []uint32 {
		w, err := n.Waiting(inodeOf(t, l.(*net.UnixListener)))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if w := waiting(); len(w) != 0 {
		t.Errorf("before anybody has come: %v", w)
	}
	for range 3 {
		connect()
	}
	var inodes []uint32
	for _, c := range clients {
		inodes = append(inodes, uint32(inodeOf(t, c.(*net.UnixConn))))
	}
	if w := waiting(); !slices.Equal(w, inodes) {
		t.Errorf("got %v, want %v", w, inodes)
	}
	clients[1].Close()
	if w := waiting(); !slices.Equal(w, []uint32{inodes[0], 0, inodes[2]}) {
		t.Errorf("one has gone: %v, of %v", w, inodes)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if connect(); len(waiting()) != 3 || waiting()[1] != inodes[2] {
		t.Errorf("one was accepted, and another has come: %v, of %v", waiting(), inodes)
	}
	if w, err := n.Waiting(1); err == nil {
		t.Errorf("of no socket: %v", w)
	}
}

// inodeOf is the inode of a socket.
func inodeOf(t *testing.T, s syscall.Conn) (inode uint64) {
	t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	raw.Control(func(fd uintptr) { err = syscall.Fstat(int(fd), &st) })
	if err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
