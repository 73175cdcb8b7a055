package host

import (
	"os"
	"qwatch/remediate/facts"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/remediate"
)

// A process that calls listen(2) all the time works against the raise. That is
// no failure, after which a reload would be due.
func TestRelistenAgainstTheProcess(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil { // any abstract name
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	space, err := openNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer space.close()
	self, err := readStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var rivals sync.WaitGroup
	for range 4 {
		rivals.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					unix.Listen(fd, 1)
				}
			}
		})
	}
	defer rivals.Wait()
	defer close(stop)
	s := facts.Socket{
		ID: facts.SocketID{NetNS: space.id, Inode: st.Ino}, Family: facts.Unix, Address: "@any", FD: fd,
		Master: facts.Process{PID: os.Getpid(), Start: self.start},
	}
	for range 2000 {
		switch r := relisten(remediate.Relisten{Socket: s, From: 1, To: 100}); r.Result {
		case remediate.Failed:
			t.Fatalf("failed: %v", r.Err)
		case remediate.Stale:
			return
		}
	}
	t.Log("the process never came in between")
}
