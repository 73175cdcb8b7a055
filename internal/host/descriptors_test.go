package host

import (
	"net"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
	"qwatch/matcher"
)

// The processes of a user may have more descriptors than are looked at, and a
// socket behind them: nobody says then that no uWSGI listens there.
func TestManyDescriptors(t *testing.T) {
	testbed.Needs(t, "root")
	const many = 17000 // two times that is more than one user may have
	for range many {
		fd, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	start := func() {
		p := exec.Command("sleep", "600")
		p.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61009, Gid: 61009}, Pdeathsig: unix.SIGKILL}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	}
	start()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	last, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(last)
	start()

	s := observe(t, newHost(t, Options{Processes: []string{"sleep"}, Patience: time.Second}))
	const want = "all the sockets of 1 uWSGI of user 61009: more descriptors than are looked at"
	if s.HiddenOwners != want || !slices.Contains(s.Unseen, want) {
		t.Errorf("hidden %q, unseen %q", s.HiddenOwners, s.Unseen)
	}
	if _, err := s.Locate(matcher.Hit{Socket: listener.Addr().String()}); err == nil || !strings.Contains(err.Error(), "it could not be seen whether that is a uWSGI") {
		t.Errorf("%v", err)
	}
}
