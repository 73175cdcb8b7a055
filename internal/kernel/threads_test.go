package kernel

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// The system calls in which Python 3.11 under uWSGI 2.0.21 was seen to wait.
func TestWaitIn(t *testing.T) {
	futex := strconv.Itoa(unix.SYS_FUTEX)
	tests := map[string]Waits{
		futex + " 0x559b47c5c480 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd 0x7f5d\n":           WaitsOnLock,       // Lock.acquire
		futex + " 0x55d68338ca18 0x80 0x2 0x0 0x0 0x0 0x7ffd 0x7f5d\n":                   WaitsOnLock,       // another thread accepts
		futex + " 0x7fb3fd29e000 0x6 0x0 0x0 0x0 0x0 0x7ffd 0x7f5d\n":                    WaitsOnSharedLock, // thunder lock
		futex + " 0x562ab754c430 0x89 0x0 0x7ffc7399ba80 0x0 0xffffffff 0x7ffd 0x7f5d\n": "",                // Event.wait(30)
		"230 0x1 0x1 0x7ffd60692fa0 0x0 0x0 0x0 0x7ffd 0x7f5d\n":                         "",                // time.sleep
		"45 0x7 0x7f5d1cbb3ef0 0x1 0x0 0x0 0x0 0x7ffd 0x7f5d\n":                          "",                // socket.recv
		"running\n":          "",
		"-1 0x7ffd 0x7f5d\n": "",
		"":                   "",
	}
	for call, want := range tests {
		if got := waitIn([]byte(call)); got != want {
			t.Errorf("%q: %q, want %q", call, got, want)
		}
	}
	if n := switchesIn([]byte("Name:\tuwsgi\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t7\n")); n != 157 {
		t.Errorf("%d switches, want 157", n)
	}
}
