package kernel

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"qwatch/internal/testbed"
)

// sleeper runs a copy of sleep(1) from a path.
func sleeper(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func TestProgramOf(t *testing.T) {
	testbed.Needs(t, "root")
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	place := func(t *testing.T, dirMode os.FileMode) string {
		t.Helper()
		dir := t.TempDir()
		path := filepath.Join(dir, "uwsgi")
		if err := os.WriteFile(path, sleep, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, dirMode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(t *testing.T, pid int, path, loose string) {
		t.Helper()
		p, err := ProgramOf(pid)
		if err != nil || p.Path != path || !strings.HasPrefix(p.Loose, loose) || loose == "" && p.Loose != "" || p.Unseen != nil {
			t.Errorf("%+v, %v; want %s, %q", p, err, path, loose)
		}
	}
	t.Run("root's", func(t *testing.T) {
		path := place(t, 0o755)
		check(t, sleeper(t, path).Process.Pid, path, "")
	})
	t.Run("replaced", func(t *testing.T) {
		path := place(t, 0o755)
		cmd := sleeper(t, path)
		must(t, os.Rename(path, path+".old"))
		must(t, os.Remove(path+".old"))
		check(t, cmd.Process.Pid, path+".old", "")
	})
	t.Run("gone with its directory", func(t *testing.T) {
		path := place(t, 0o755)
		cmd := sleeper(t, path)
		must(t, os.RemoveAll(filepath.Dir(path)))
		if p, err := ProgramOf(cmd.Process.Pid); err != nil || p.Path != path || p.Loose != "" || !errors.Is(p.Unseen, fs.ErrNotExist) {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Run("a user's", func(t *testing.T) {
		path := place(t, 0o755)
		must(t, os.Chown(path, 1001, 0))
		check(t, sleeper(t, path).Process.Pid, path, "it is uid 1001's")
	})
	t.Run("writable", func(t *testing.T) {
		path := place(t, 0o755)
		must(t, os.Chmod(path, 0o757))
		check(t, sleeper(t, path).Process.Pid, path, "it may be written by others than root (mode 0757")
	})
	t.Run("in a directory that is writable", func(t *testing.T) {
		path := place(t, 0o777)
		check(t, sleeper(t, path).Process.Pid, path, "its directory "+filepath.Dir(path)+" may be written")
	})
	t.Run("none", func(t *testing.T) {
		if p, err := ProgramOf(1 << 22); err == nil {
			t.Errorf("%+v of nobody", p)
		}
	})
}
