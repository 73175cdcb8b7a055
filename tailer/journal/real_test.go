//go:build systemdtest

package journal

import (
	"maps"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestReal follows a real journald: an instance of a template that first logs
// later, several lines, bytes, rotation, vacuuming, restart.
func TestReal(t *testing.T) {
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	// logs makes an instance say something. systemd-run's units are no
	// templates, but their names can be like those of one.
	logs := func(instance, printf string) {
		t.Helper()
		run("systemd-run", "--quiet", "--wait", "--collect", "--unit=qwatchtest@"+instance+".service", "printf", printf)
	}
	r := newRig(t)
	r.opts.Command = ""
	r.opts.Units = []string{"qwatchtest@*.service"}
	logs("old", `before\n`)
	r.start()
	logs("a", `one\n`)
	first := r.wants("one\n")
	if first.Unit != "qwatchtest@a.service" || first.PID <= 1 || time.Since(first.Time) > time.Minute {
		t.Errorf("chunk %+v", first)
	}
	logs("later", `two\nb\377\001\n`)
	r.wants("two\n", "b\xff\x01\n")
	r.stop()

	logs("a", `while stopped\n`)
	r.start()
	r.wants("while stopped\n")
	run("journalctl", "--rotate")
	logs("b", `after rotation\n`)
	r.wants("after rotation\n")
	r.stop()
	if len(r.reported()) > 0 {
		t.Errorf("reports: %q", r.reported())
	}

	run("journalctl", "--rotate")
	time.Sleep(1100 * time.Millisecond) // --vacuum-time counts in seconds
	run("journalctl", "--vacuum-time=1s")
	logs("c", `after vacuuming\n`)
	r.start()
	r.wants("after vacuuming\n")
	r.stop()
	if diff := cmp.Diff([]string{ErrGap.Error()}, r.reported()); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
	if known := slices.Collect(maps.Keys(r.journal.units)); len(known) == 0 {
		t.Error("no unit was seen")
	}
}
