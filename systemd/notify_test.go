package systemd

import (
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// getenv makes an environment of NAME, value pairs.
func getenv(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// listen makes a datagram socket and a function that gives the next datagram.
func listen(t *testing.T, path string) func() string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return func() string {
		t.Helper()
		buf := make([]byte, 1<<18)
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	next := listen(t, path)
	n := NewNotifier(getenv("NOTIFY_SOCKET", path))
	usec := regexp.MustCompile(`[0-9]{3,}`)
	tests := []struct {
		name string
		send func() error
		want string
	}{
		{"ready", func() error { return n.Ready("following 3 sources") }, "READY=1\nSTATUS=following 3 sources\n"},
		{"status", func() error { return n.Status("1 incident") }, "STATUS=1 incident\n"},
		{"foreign text", func() error { return n.Status("a\nREADY=1\x00\x1b\xffé\u202e") }, "STATUS=a\uFFFDREADY=1\uFFFD\uFFFD\uFFFDé\uFFFD\n"},
		{"long", func() error { return n.Status(strings.Repeat("é", 1000)) }, "STATUS=" + strings.Repeat("é", 512) + "\n"},
		{"reloading", n.Reloading, "RELOADING=1\nMONOTONIC_USEC=N\n"},
		{"stopping", func() error { return n.Stopping("saving") }, "STOPPING=1\nSTATUS=saving\n"},
		{"watchdog", n.Watchdog, "WATCHDOG=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.send(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, usec.ReplaceAllString(next(), "N")); diff != "" {
				t.Errorf("datagram (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNotifierWithoutManager(t *testing.T) {
	if err := NewNotifier(getenv()).Ready("x"); err != nil {
		t.Errorf("without NOTIFY_SOCKET: %v", err)
	}
	if err := NewNotifier(getenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))).Ready("x"); err == nil {
		t.Error("no error for a socket that does not exist")
	}
}

func TestWatchdogInterval(t *testing.T) {
	tests := []struct {
		usec, pid string
		want      time.Duration
		err       bool
	}{
		{usec: "", want: 0},
		{usec: "30000000", want: 30 * time.Second},
		{usec: "30000000", pid: "42", want: 30 * time.Second},
		{usec: "30000000", pid: "41", want: 0},
		{usec: "0", err: true},
		{usec: "-5", err: true},
		{usec: "1m", err: true},
		{usec: "99999999999999999999", err: true},
	}
	for _, tt := range tests {
		got, err := WatchdogInterval(getenv("WATCHDOG_USEC", tt.usec, "WATCHDOG_PID", tt.pid), 42)
		if got != tt.want || (err != nil) != tt.err {
			t.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q: %v, %v; want %v", tt.usec, tt.pid, got, err, tt.want)
		}
	}
}
