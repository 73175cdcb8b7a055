//go:build systemdtest

package systemd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// TestManagerReal asks a real systemd about units made for it.
func TestManagerReal(t *testing.T) {
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
		_, can, err := m.Main(ctx, "qwatch-test-"+name+".service")
		if err != nil || can != (name != "none") {
			t.Errorf("Main of %s: %v, %v", name, can, err)
		}
	}
	if _, _, err := m.Main(ctx, "qwatch-test-missing.service"); err == nil || !strings.Contains(err.Error(), "not-found") {
		t.Errorf("Main of a unit that is not there: %v", err)
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
		{"a reload that fails", func() error { return m.Reload(ctx, "qwatch-test-bad.service") }, `its reload ended with "exit-code"; see systemctl status qwatch-test-bad\.service$`},
		{"no ExecReload", func() error { return m.Reload(ctx, "qwatch-test-none.service") }, `^reload unit qwatch-test-none\.service: .*not applicable`},
		{"not there", func() error { return m.Reload(ctx, "qwatch-test-missing.service") }, `not (found|loaded)`},
		{"bad name", func() error { return m.Reload(ctx, "no unit/name") }, `^reload unit no unit/name: `},
		{"a start that fails", func() error { return m.Start(ctx, "qwatch-test-dies.service") }, `it is failed; see systemctl status`},
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
	if _, _, err := m.Main(ctx, "qwatch-test-ok.service"); err != nil {
		t.Errorf("after a lost connection: %v", err)
	}
}

// command runs one and gives its standard output.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, &stderr)
	}
	return string(out)
}

// TestJournalReal writes to journald, and lets journalctl explain it from the
// catalog.
func TestJournalReal(t *testing.T) {
	const installed = "/usr/lib/systemd/catalog/qwatch.catalog"
	if _, err := os.Stat(installed); err == nil {
		t.Fatalf("%s is installed, and would be changed", installed)
	}
	text, err := os.ReadFile("qwatch.catalog")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(installed, text, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove(installed)
		command(t, "journalctl", "--update-catalog")
	})
	command(t, "journalctl", "--update-catalog")
	if got := strings.Count(command(t, "journalctl", "--list-catalog"), " qwatch: "); got != len(messageIDs) {
		t.Errorf("%d entries in the catalog, want %d", got, len(messageIDs))
	}

	var fallback bytes.Buffer
	socket := fmt.Sprintf("@test\n%d", os.Getpid())
	l := zerolog.New(NewJournalWriter(&fallback))
	l.Warn().Str("event", EventIncidentOpened).Str("socket", socket).
		Str("incident", "i7").Str("long", strings.Repeat("x", 2*maxValue)).Msg("queue full\nindeed")
	if fallback.Len() > 0 {
		t.Fatalf("not sent: %s", &fallback)
	}
	command(t, "journalctl", "--sync")
	pid := fmt.Sprint("_PID=", os.Getpid())
	var got map[string]any
	if err := json.Unmarshal([]byte(command(t, "journalctl", "-o", "json", "--all", "-n", "1", pid, "SYSLOG_IDENTIFIER=qwatch")), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"MESSAGE": "queue full\nindeed", "PRIORITY": "4", "MESSAGE_ID": "96365996edb84089982bee6139865150",
		"QWATCH_EVENT": "incident-opened", "QWATCH_SOCKET": socket, "QWATCH_INCIDENT": "i7",
		"QWATCH_LONG": strings.Repeat("x", maxValue), "_TRANSPORT": "journal",
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			delete(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	explained := command(t, "journalctl", "-x", "-n", "1", pid, "QWATCH_INCIDENT=i7")
	for _, part := range []string{"Subject: The accept queue of @test", "journalctl QWATCH_INCIDENT=i7"} {
		if !strings.Contains(explained, part) {
			t.Errorf("journalctl -x does not say %q:\n%s", part, explained)
		}
	}
}
