package systemd

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"
)

func TestManagerWithoutBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager()
		defer m.Close()
		refused := errors.New("connection refused")
		m.dial = func(context.Context) (*dbus.Conn, error) { return nil, refused }
		for name, ask := range map[string]func() error{
			"main":   func() error { _, _, err := m.Main(t.Context(), "a.service"); return err },
			"reload": func() error { return m.Reload(t.Context(), "a.service") },
			"socket": func() error { _, err := m.SocketUnits(t.Context(), "a.service"); return err },
		} {
			if err := ask(); !errors.Is(err, ErrNoManager) || !errors.Is(err, refused) {
				t.Errorf("%s: %v", name, err)
			}
		}

		// Whichever call it is that finds the bus gone, the words are the same.
		for _, err := range []error{
			io.EOF, &net.OpError{Op: "write", Net: "unix", Err: os.NewSyscallError("write", unix.EPIPE)},
			&net.OpError{Op: "read", Net: "unix", Err: os.NewSyscallError("recvmsg", unix.ECONNRESET)},
		} {
			m.dial = func(context.Context) (*dbus.Conn, error) { return nil, err }
			_, _, got := m.Main(t.Context(), "a.service")
			const want = "systemd cannot be reached over D-Bus: the bus hung up, as it does before dbus 1.15 on a user who exists only while a service runs (DynamicUser=)"
			if !errors.Is(got, ErrNoManager) || got.Error() != want {
				t.Errorf("%v: %v", err, got)
			}
		}

		m.dial = func(ctx context.Context) (*dbus.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		began := time.Now()
		if err := m.Reload(t.Context(), "a.service"); !errors.Is(err, ErrNoManager) {
			t.Errorf("a bus that does not answer: %v", err)
		}
		if took := time.Since(began); took != connectTimeout {
			t.Errorf("gave up after %v, want %v", took, connectTimeout)
		}
	})
}

func TestRefused(t *testing.T) {
	tests := []struct {
		Service
		want string // "" where it has refused to start
	}{
		{Service{Active: "failed", Sub: "failed", Result: "exit-code", Status: 1}, ""},
		{Service{Active: "activating", Sub: "auto-restart", Result: "exit-code", Status: 1}, ""},
		{Service{Active: "activating", Sub: "auto-restart-queued", Result: "exit-code", Status: 1}, ""},
		{Service{Active: "failed", Sub: "failed", Result: "start-limit-hit", Status: 1}, ""},
		{Service{Active: "inactive", Sub: "dead", Result: "success"}, "it is inactive (dead), and only what has failed is started"},
		// Stopped while it waited for its next start.
		{Service{Active: "inactive", Sub: "dead", Result: "exit-code", Status: 1}, "it is inactive (dead)"},
		{Service{Active: "active", Sub: "running", Result: "success"}, "it is active (running)"},
		{Service{Active: "activating", Sub: "start", Result: "success"}, "it is activating (start)"},
		// Ended by a signal to stop it, or killed.
		{Service{Active: "failed", Sub: "failed", Result: "exit-code", Status: 30}, "the result exit-code, status 30"},
		{Service{Active: "failed", Sub: "failed", Result: "signal", Status: 9}, "the result signal, status 9"},
		{Service{Active: "failed", Sub: "failed", Result: "timeout", Status: 1}, "the result timeout, status 1"},
		{Service{}, "it is  ()"},
	}
	for _, tt := range tests {
		if err := tt.Refused(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.Service, err, tt.want)
		}
	}
}

func TestJobOf(t *testing.T) {
	for want, unit := range map[int]map[string]any{
		0: {"Job": []any{uint32(0), "/"}},
		7: {"Job": []any{uint32(7), "/org/freedesktop/systemd1/job/7"}},
	} {
		if got := jobOf(unit); got != want {
			t.Errorf("%v: job %d", unit, got)
		}
	}
	if got := jobOf(nil); got != 0 {
		t.Errorf("no properties: job %d", got)
	}
}
