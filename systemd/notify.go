// Package systemd speaks with the service manager and the journal: readiness
// and watchdog (sd_notify), reloads over D-Bus, and entries in the journal's
// own protocol. The unit files and the message catalog lie beside it.
package systemd

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"qwatch/internal/text"
)

// maxStatus bounds a status line, in bytes. systemd itself stops at a page
// (src/core/manager.c, NOTIFY_BUFFER_MAX).
const maxStatus = 1024

// Notifier tells the service manager about the state of this process
// (sd_notify(3)). Without NOTIFY_SOCKET in the environment it does nothing.
type Notifier struct{ addr *net.UnixAddr }

// NewNotifier takes the manager's socket from NOTIFY_SOCKET.
func NewNotifier(getenv func(string) string) *Notifier {
	name := getenv("NOTIFY_SOCKET")
	if name == "" {
		return &Notifier{}
	}
	return &Notifier{addr: &net.UnixAddr{Name: name, Net: "unixgram"}}
}

// Ready says that the start, or a reload, is finished.
func (n *Notifier) Ready(status string) error {
	return n.send(daemon.SdNotifyReady + "\n" + statusLine(status))
}

// Status sets the line that systemctl status shows.
func (n *Notifier) Status(status string) error { return n.send(statusLine(status)) }

// Reloading says that the configuration is being read again. Ready must
// follow. The time lets a unit of Type=notify-reload tell this reload from an
// earlier one.
func (n *Notifier) Reloading() error {
	return n.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// Stopping says that the end has begun.
func (n *Notifier) Stopping(status string) error {
	return n.send(daemon.SdNotifyStopping + "\n" + statusLine(status))
}

// Watchdog says that the process is alive. It is due at least once in each
// WatchdogInterval.
func (n *Notifier) Watchdog() error { return n.send(daemon.SdNotifyWatchdog) }

func (n *Notifier) send(state string) error {
	if n.addr == nil {
		return nil
	}
	// daemon.SdNotify does the same, but takes the address from the process
	// environment. A connection for each message survives a restarted manager.
	conn, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// statusLine is the assignment of STATUS. The protocol has one assignment a
// line, and the text may quote a log.
func statusLine(status string) string {
	return "STATUS=" + cut(text.Line(status), maxStatus) + "\n"
}

// cut shortens s, which is valid UTF-8, to at most n bytes of it.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// WatchdogInterval is the time after which systemd takes this process, with
// number pid, for stuck (WatchdogSec=, sd_watchdog_enabled(3)); 0 if it does
// not watch. Half of it is a good time between two calls of Watchdog.
func WatchdogInterval(getenv func(string) string, pid int) (time.Duration, error) {
	text := getenv("WATCHDOG_USEC")
	if text == "" {
		return 0, nil
	}
	if p := getenv("WATCHDOG_PID"); p != "" && p != strconv.Itoa(pid) {
		return 0, nil // meant for a parent that let its environment through
	}
	d, err := time.ParseDuration(text + "us")
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("WATCHDOG_USEC=%q is not a number of microseconds above 0; the unit's environment is wrong", text)
	}
	return d, nil
}
