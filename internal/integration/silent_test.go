package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/testbed"
)

// silentServers accept on n addresses and say nothing, as the stats server of a
// uWSGI does whose master hangs.
func silentServers(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for i := range n {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:9191", i+1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// notifySocket is systemd's: it counts the messages of each kind.
type notifySocket struct {
	path string
	got  chan string
}

func newNotifySocket(t *testing.T) *notifySocket {
	t.Helper()
	n := &notifySocket{path: filepath.Join(directory(t), "notify"), got: make(chan string, 1024)}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			size, err := conn.Read(buf)
			if err != nil {
				return
			}
			n.got <- string(buf[:size])
		}
	}()
	return n
}

// await waits for a message with these words.
func (n *notifySocket) await(t *testing.T, words string) {
	t.Helper()
	for end := time.After(patience); ; {
		select {
		case message := <-n.got:
			if strings.Contains(message, words) {
				return
			}
		case <-end:
			t.Fatalf("no %q within %v", words, patience)
		}
	}
}

// Eight uWSGI hang: their stats servers accept and are silent. That delays no
// READY, no incident, no status and no watchdog. With one of them asked for in
// the core's own time, each would have taken three seconds.
func TestSilentStatsServers(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	notify := newNotifySocket(t)
	s := settings{DryRun: true, Source: u.LogFile, Threshold: 3, Probe: "1s", Stats: silentServers(t, 8)}
	q := start(t, s, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.path, "WATCHDOG_USEC=1000000")
	})
	notify.await(t, "READY=1")
	for range 4 {
		notify.await(t, "WATCHDOG=1")
	}

	log, err := os.OpenFile(u.LogFile, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	took := stopwatch(q.cmd.Process.Pid)
	if _, err := log.WriteString(strings.Repeat(record(u, 101, 100), 3)); err != nil {
		t.Fatal(err)
	}
	until(t, "an incident", func() bool { took(); return q.said("3 records say so") })
	wantAtMost(t, "hit to incident", took(), time.Second)
	for range 5 {
		took := stopwatch(q.cmd.Process.Pid)
		out, _ := command(t, q.settings, 0, "status", "--json")
		wantAtMost(t, "status", took(), time.Second)
		if !strings.Contains(out, u.Address) {
			t.Errorf("status without the socket:\n%s", out)
		}
	}
	notify.await(t, "WATCHDOG=1")
	if q.said("stands still") || q.said("has not answered for a second") {
		t.Errorf("a loop stood still:\n%s", q.text())
	}
	q.stop(syscall.SIGTERM)
}
