package kernel

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

func TestMayWriteIn(t *testing.T) {
	testbed.Needs(t, "namespace")
	good, fixed := t.TempDir(), t.TempDir()
	if err := unix.Mount("testbed", fixed, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(fixed, 0)
	for dir, want := range map[string]string{
		good:                        "",
		"/proc":                     "", // has no O_TMPFILE, but root may write
		fixed:                       "read-only file system; mounted read-only, or not in ReadWritePaths= of the service",
		filepath.Join(good, "none"): "no such file or directory; make the directory",
	} {
		err := MayWriteIn(dir)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", dir, err, want)
		}
	}
	left, err := filepath.Glob(filepath.Join(good, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A process that has ended lacks no right.
func TestMayOnEnded(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	pid := ended.ProcessState.Pid()
	for name, err := range map[string]error{
		"MayTakeDescriptor": MayTakeDescriptor(pid, 0), "MaySignal": MaySignal(pid),
	} {
		if !errors.Is(err, unix.ESRCH) || strings.Contains(err.Error(), "needs") {
			t.Errorf("%s: %v, want no such process", name, err)
		}
	}
}
