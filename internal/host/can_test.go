package host

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

func TestTryFolder(t *testing.T) {
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
		filepath.Join(good, "none"): "no such file or directory; make the folder",
	} {
		err := tryFolder(dir)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", dir, err, want)
		}
	}
	left, err := filepath.Glob(filepath.Join(good, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAnyOf(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		fails []error // one for each target
		pid   int
		err   error
	}{
		{"works", []error{nil}, 0, nil},
		{"works for one", []error{syscall.EPERM, nil}, 0, nil},
		{"works for none", []error{syscall.EPERM, syscall.ENOSYS}, 1, syscall.ENOSYS},
		{"all have ended", []error{syscall.ESRCH, syscall.ESRCH}, 0, nil},
		{"one has ended", []error{syscall.EPERM, syscall.ESRCH}, 0, syscall.EPERM},
	} {
		var targets []target
		for i := range c.fails {
			targets = append(targets, target{pid: i})
		}
		pid, err := anyOf(targets, func(t target) error { return c.fails[t.pid] })
		if pid != c.pid || err != c.err {
			t.Errorf("%s: got %d, %v, want %d, %v", c.name, pid, err, c.pid, c.err)
		}
	}
	gone := target{pid: ended.ProcessState.Pid()}
	if pid, err := anyOf([]target{gone}, tryRelisten); err != nil {
		t.Errorf("relisten on ended process %d: %v", pid, err)
	}
}
