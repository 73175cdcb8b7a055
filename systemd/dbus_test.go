package systemd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/google/go-cmp/cmp"
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

// TestManagerReal asks a real systemd about units made for it.
func TestManagerReal(t *testing.T) {
	needsSystemd(t)
	const mark = "/run/qwatch-test-reloaded"
	units := map[string]string{
		"qwatch-test-ok.service":   "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/sh -c 'sleep 0.3; touch " + mark + "'\n",
		"qwatch-test-bad.service":  "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/false\n",
		"qwatch-test-slow.service": "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/sleep 1000\n",
		"qwatch-test-none.service": "[Service]\nExecStart=/bin/sleep 1000\n",
		"qwatch-test-dies.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n",
		"qwatch-test-ok.socket":    "[Socket]\nListenStream=/run/qwatch-test.sock\nListenStream=127.0.0.1:5999\nBacklog=77\n",
		"qwatch-test-spare.socket": "[Socket]\nListenStream=5998\nBacklog=128\nService=qwatch-test-ok.service\n",
	}
	var names []string
	for name, text := range units {
		file := filepath.Join("/run/systemd/system", name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
		t.Cleanup(func() { os.Remove(file) })
	}
	command(t, "systemctl", "daemon-reload")
	t.Cleanup(func() {
		command(t, "systemctl", append([]string{"stop"}, names...)...)
		os.Remove(mark)
	})

	m := NewManager()
	defer m.Close()
	ctx := t.Context()
	for _, name := range []string{"ok", "spare"} {
		if err := m.Start(ctx, "qwatch-test-"+name+".socket"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ok", "bad", "slow", "none"} {
		if err := m.Start(ctx, "qwatch-test-"+name+".service"); err != nil {
			t.Fatal(err)
		}
		can, err := m.CanReload(ctx, "qwatch-test-"+name+".service")
		if err != nil || can != (name != "none") {
			t.Errorf("CanReload of %s: %v, %v", name, can, err)
		}
	}
	if _, err := m.CanReload(ctx, "qwatch-test-missing.service"); err == nil || !strings.Contains(err.Error(), "not-found") {
		t.Errorf("CanReload of a unit that is not there: %v", err)
	}

	os.Remove(mark)
	if err := m.Reload(ctx, "qwatch-test-ok.service"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("Reload has returned before the reload was done: %v", err)
	}
	short, stop := context.WithTimeout(ctx, 500*time.Millisecond)
	defer stop()
	for _, tt := range []struct {
		name string
		do   func() error
		want string
	}{
		{"a reload that fails", func() error { return m.Reload(ctx, "qwatch-test-bad.service") }, `its command failed; see systemctl status qwatch-test-bad\.service$`},
		{"no ExecReload", func() error { return m.Reload(ctx, "qwatch-test-none.service") }, `^reload unit qwatch-test-none\.service: .*not applicable`},
		{"not there", func() error { return m.Reload(ctx, "qwatch-test-missing.service") }, `not (found|loaded)`},
		{"bad name", func() error { return m.Reload(ctx, "no unit/name") }, `^reload unit no unit/name: `},
		{"a start that fails", func() error { return m.Start(ctx, "qwatch-test-dies.service") }, `its command failed`},
		{"a reload without end", func() error { return m.Reload(short, "qwatch-test-slow.service") }, `not finished it in time: context deadline exceeded$`},
	} {
		if err := tt.do(); err == nil || !regexp.MustCompile(tt.want).MatchString(err.Error()) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}

	got, err := m.SocketUnits(ctx, "qwatch-test-ok.service")
	slices.SortFunc(got, func(a, b SocketUnit) int { return strings.Compare(a.Unit, b.Unit) })
	want := []SocketUnit{
		{Unit: "qwatch-test-ok.socket", Listen: []string{"/run/qwatch-test.sock", "127.0.0.1:5999"}, Backlog: 77},
		{Unit: "qwatch-test-spare.socket", Listen: []string{"[::]:5998"}, Backlog: 128},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("SocketUnits: %v (-want +got):\n%s", err, diff)
	}
	if got, err := m.SocketUnits(ctx, "qwatch-test-none.service"); got != nil || err != nil {
		t.Errorf("SocketUnits of a service without: %v, %v", got, err)
	}

	// The bus loses its clients; the next question connects again.
	m.conn.Close()
	if _, err := m.CanReload(ctx, "qwatch-test-ok.service"); err != nil {
		t.Errorf("after a lost connection: %v", err)
	}
}
