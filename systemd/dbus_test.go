package systemd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

func TestManagerWithoutBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager()
		defer m.Close()
		refused := errors.New("connection refused")
		m.dial = func(context.Context) (*dbus.Conn, error) { return nil, refused }
		for name, ask := range map[string]func() error{
			"can reload": func() error { _, err := m.CanReload(t.Context(), "a.service"); return err },
			"reload":     func() error { return m.Reload(t.Context(), "a.service") },
			"socket":     func() error { _, err := m.SocketUnits(t.Context(), "a.service"); return err },
		} {
			if err := ask(); !errors.Is(err, ErrNoManager) || !errors.Is(err, refused) {
				t.Errorf("%s: %v", name, err)
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
