package kernel

import (
	"net"
	"os"
	"testing"
)

func TestEstablished(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if n := Established(os.Getpid(), port); n != 0 {
		t.Errorf("%d before there is one", n)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := Established(os.Getpid(), port); n != 1 {
		t.Errorf("%d, want the accepted one", n)
	}
}
