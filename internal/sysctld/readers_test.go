package sysctld

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// TestRealReaders lets systemd-sysctl and procps read the boots of TestWinner
// and compares what they set with Winner. The directories are covered in a
// mount namespace, and the value is that of a network namespace.
func TestRealReaders(t *testing.T) {
	testbed.Needs(t, "namespace", "/lib/systemd/systemd-sysctl", "sysctl", "/etc/sysctl.conf")
	cover := func(dir string) {
		if err := unix.Mount("test", dir, "tmpfs", 0, "mode=0755"); err != nil {
			t.Fatalf("cover %s: %v", dir, err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	}
	cover("/run")
	cover("/usr/local/lib")
	cover("/usr/lib/sysctl.d")
	conf := filepath.Join(t.TempDir(), "sysctl.conf")
	if err := os.WriteFile(conf, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(conf, "/etc/sysctl.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("cover /etc/sysctl.conf: %v", err)
	}
	t.Cleanup(func() { unix.Unmount("/etc/sysctl.conf", unix.MNT_DETACH) })

	for _, tt := range boots {
		t.Run(tt.name, func(t *testing.T) {
			populate(t, tt.files)
			b, err := Load(os.DirFS("/"))
			if err != nil {
				t.Fatal(err)
			}
			for reader, command := range map[Reader][]string{
				Systemd: {"/lib/systemd/systemd-sysctl"},
				Procps:  {"sysctl", "--system"},
			} {
				const before = 111
				if err := testbed.SetSomaxconn(before); err != nil {
					t.Fatal(err)
				}
				out, _ := exec.Command(command[0], command[1:]...).CombinedOutput() // a glob that hits a directory fails
				got, err := testbed.Somaxconn()
				if err != nil {
					t.Fatal(err)
				}
				want := before
				if s, ok := b.Winner(reader, key); ok {
					want, _ = s.Int()
				}
				if got != want {
					t.Errorf("%s sets %d, Winner says %d\n%s", strings.Join(command, " "), got, want, out)
				}
			}
		})
	}
}

// populate makes the files, and nothing else, in the covered directories.
func populate(t *testing.T, files map[string]string) {
	t.Helper()
	if err := os.WriteFile("/etc/sysctl.conf", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs[:4] {
		dir = "/" + dir
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, text := range files {
		var err error
		if target, link := strings.CutPrefix(text, "-> "); link {
			err = os.Symlink(target, "/"+name)
		} else {
			err = os.WriteFile("/"+name, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
