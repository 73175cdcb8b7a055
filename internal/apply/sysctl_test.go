package apply

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"qwatch/internal/sysctld"
	"qwatch/internal/testbed"
	"qwatch/remediate"
)

const key = "net.core.somaxconn"

func TestSetSysctl(t *testing.T) {
	const file = "/etc/sysctl.d/90-qwatch.conf"
	raise := remediate.SetSysctl{Key: key, From: 128, To: 1024, File: file, Why: "full"}
	fresh := string(sysctld.Set(nil, key, 1024, 128, "full"))
	with := func(change func(*remediate.SetSysctl)) remediate.SetSysctl {
		a := raise
		change(&a)
		return a
	}
	for _, tt := range []struct {
		name     string
		live     int
		file     string
		action   remediate.SetSysctl
		want     string
		wantLive int
		wantFile string
	}{
		{"raised", 128, "", raise, "applied 1024", 1024, fresh},
		{"live only", 128, "", with(func(a *remediate.SetSysctl) { a.File = "" }), "applied 1024", 1024, ""},
		{"other lines stay", 128, "# mine\nnet.core.rmem_max=5\n", raise, "applied 1024", 1024,
			"# mine\nnet.core.rmem_max=5\n" + strings.TrimPrefix(fresh, sysctld.Header)},
		{"file has more", 128, key + "=4096\n", with(func(a *remediate.SetSysctl) { a.FileFrom = 4096 }), "applied 1024", 1024, key + "=4096\n"},
		{"file only", 1024, "", with(func(a *remediate.SetSysctl) { a.From = 1024 }), "applied 1024", 1024, string(sysctld.Set(nil, key, 1024, 1024, "full"))},
		{"already, file too", 1024, fresh, with(func(a *remediate.SetSysctl) { a.From, a.FileFrom = 1024, 1024 }), "skipped 1024", 1024, fresh},
		{"raised by somebody else", 2048, "", raise, "skipped 2048 (net.core.somaxconn already is 2048)", 2048, ""},
		{"changed by somebody else", 512, "", raise, "stale 512: net.core.somaxconn is 512, not 128: changed since the plan", 512, ""},
		{"file changed by somebody else", 128, key + "=300\n", raise, "stale 128: " + file + " sets net.core.somaxconn to 300, not 0", 128, key + "=300\n"},
		{"lower", 1024, "", with(func(a *remediate.SetSysctl) { a.From, a.To = 1024, 128 }), "failed 1024: refuses to lower net.core.somaxconn from 1024 to 128", 1024, ""},
		{"undo", 1024, fresh, with(func(a *remediate.SetSysctl) { a.From, a.To, a.FileFrom, a.Undo = 1024, 128, 1024, true }), "applied 128", 128, ""},
		{"undo, done already", 128, fresh, with(func(a *remediate.SetSysctl) { a.From, a.To, a.FileFrom, a.Undo = 1024, 128, 1024, true }), "skipped 128", 128, fresh},
		{"undo, changed by somebody else", 2048, fresh, with(func(a *remediate.SetSysctl) { a.From, a.To, a.FileFrom, a.Undo = 1024, 128, 1024, true }), "stale 2048", 2048, fresh},
		{"refused by the kernel: file put back", 128, "# mine\n", with(func(a *remediate.SetSysctl) { a.To = 1 << 40 }),
			"failed 128: write /proc/sys/net/core/somaxconn: invalid argument; the kernel refuses 1099511627776", 128, "# mine\n"},
		{"refused by the kernel: no file before", 128, "", with(func(a *remediate.SetSysctl) { a.To = 1 << 40 }), "failed 128: write", 128, ""},
		{"companion that is not here", 128, "", with(func(a *remediate.SetSysctl) { a.Key, a.Companion = "net.core.no_such_key", true }),
			"skipped -1 (this kernel or namespace has no net.core.no_such_key)", 128, ""},
		{"key that is not here", 128, "", with(func(a *remediate.SetSysctl) { a.Key = "net.core.no_such_key" }), "failed -1: open /proc/sys/net/core/no_such_key: no such file", 128, ""},
		{"key outside net", 128, "", with(func(a *remediate.SetSysctl) { a.Key = "kernel.pid_max" }), `failed -1: sysctl "kernel.pid_max" is not`, 128, ""},
		{"key with dots", 128, "", with(func(a *remediate.SetSysctl) { a.Key = "net...kernel.pid_max" }), `failed -1: sysctl "net...kernel.pid_max" is not`, 128, ""},
		{"key with a slash", 128, "", with(func(a *remediate.SetSysctl) { a.Key = "net.core/../x" }), `failed -1: sysctl "net.core/../x" is not`, 128, ""},
		{"many numbers", 128, "", with(func(a *remediate.SetSysctl) { a.Key = "net.ipv4.tcp_rmem" }), "failed -1: /proc/sys/net/ipv4/tcp_rmem holds", 128, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			somaxconn(t, tt.live)
			os.Remove(file)
			if tt.file != "" {
				write(t, file, tt.file)
			}
			wantResult(t, do(t, tt.action), tt.want)
			if live, err := testbed.Somaxconn(); err != nil || live != tt.wantLive {
				t.Errorf("live value %d, %v, want %d", live, err, tt.wantLive)
			}
			got, _ := os.ReadFile(file)
			if d := cmp.Diff(tt.wantFile, string(got)); d != "" {
				t.Errorf("file (-want +got):\n%s", d)
			}
			if all, _ := os.ReadDir(filepath.Dir(file)); len(all) > 1 {
				t.Errorf("in the directory: %v", all)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestSetFileKeepsModeAndOwner(t *testing.T) {
	testbed.Needs(t, "root")
	somaxconn(t, 128)
	file := filepath.Join(t.TempDir(), "new", "90-qwatch.conf")
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	a := remediate.SetSysctl{Key: key, From: 128, To: 1024, File: file}
	wantResult(t, do(t, a), "applied 1024 (made the directory "+filepath.Dir(file)+")")
	stat := func(mode uint32, uid uint32) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil || st.Mode != unix.S_IFREG|mode || st.Uid != uid || st.Gid != uid {
			t.Errorf("mode %o, owner %d:%d, %v, want %o, %d", st.Mode, st.Uid, st.Gid, err, mode, uid)
		}
	}
	stat(0o644, 0)
	if err := os.Chown(file, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	a.From, a.To, a.FileFrom = 1024, 2048, 1024
	wantResult(t, do(t, a), "applied 2048")
	stat(0o644, 1234)
}

// Nothing but a regular file in a real directory is written to.
func TestSetFileRefusesLinks(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(dir string) (file string, err error)
	}{
		{"link to a file", func(dir string) (string, error) {
			return dir + "/90.conf", os.Symlink(dir+"/victim", dir+"/90.conf")
		}},
		{"link to nowhere", func(dir string) (string, error) {
			return dir + "/90.conf", os.Symlink(dir+"/none", dir+"/90.conf")
		}},
		{"link to the directory", func(dir string) (string, error) {
			return dir + "/link/90.conf", os.Symlink(dir, dir+"/link")
		}},
		{"hard link", func(dir string) (string, error) {
			return dir + "/90.conf", os.Link(dir+"/victim", dir+"/90.conf")
		}},
		{"FIFO", func(dir string) (string, error) {
			return dir + "/90.conf", unix.Mkfifo(dir+"/90.conf", 0o644)
		}},
		{"directory", func(dir string) (string, error) {
			return dir + "/90.conf", os.Mkdir(dir+"/90.conf", 0o755)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			somaxconn(t, 128)
			dir := t.TempDir()
			write(t, dir+"/victim", "safe\n")
			file, err := tt.make(dir)
			if err != nil {
				t.Fatal(err)
			}
			before := tree(t, dir)
			r := do(t, remediate.SetSysctl{Key: key, From: 128, To: 1024, File: file})
			wantResult(t, r, "failed 128: "+dir, "writes to regular files only")
			if d := cmp.Diff(before, tree(t, dir)); d != "" {
				t.Errorf("directory (-before +after):\n%s", d)
			}
			if live, _ := testbed.Somaxconn(); live != 128 {
				t.Errorf("live value %d, want it untouched", live)
			}
		})
	}
}

// tree lists a directory with the types and texts of its files.
func tree(t *testing.T, dir string) (lines []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		line := e.Type().String() + " " + e.Name()
		if e.Type().IsRegular() {
			text, _ := os.ReadFile(filepath.Join(dir, e.Name()))
			line += " " + string(text)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestSetSysctlErrors(t *testing.T) {
	raise := func(file string) remediate.SetSysctl {
		return remediate.SetSysctl{Key: key, From: 128, To: 1024, File: file}
	}
	mount := func(t *testing.T, data string, flags uintptr) string {
		t.Helper()
		testbed.Needs(t, "namespace")
		dir := t.TempDir()
		if err := unix.Mount("test", dir, "tmpfs", flags, data); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	check := func(t *testing.T, r remediate.Outcome, errno error, hint string) {
		t.Helper()
		wantResult(t, r, "failed 128", errno.Error(), hint)
		if live, _ := testbed.Somaxconn(); live != 128 {
			t.Errorf("live value %d, want it untouched", live)
		}
	}
	t.Run("read-only file system", func(t *testing.T) {
		somaxconn(t, 128)
		dir := mount(t, "", unix.MS_RDONLY)
		check(t, do(t, raise(dir+"/90.conf")), unix.EROFS, "ReadWritePaths=")
	})
	t.Run("full disk", func(t *testing.T) {
		somaxconn(t, 128)
		dir := mount(t, "size=8k", 0)
		write(t, dir+"/90.conf", "# mine\n")
		write(t, dir+"/ballast", strings.Repeat("x", 4096))
		before := tree(t, dir)
		check(t, do(t, raise(dir+"/90.conf")), unix.ENOSPC, "make room")
		if d := cmp.Diff(before, tree(t, dir)); d != "" {
			t.Errorf("directory (-before +after):\n%s", d)
		}
	})
	t.Run("no right to the directory", func(t *testing.T) {
		somaxconn(t, 128)
		as(t, 1000, []int{unix.CAP_NET_ADMIN}, func() {
			check(t, do(t, raise("/etc/sysctl.d/90-qwatch.conf")), unix.EACCES, "CAP_DAC_OVERRIDE")
		})
	})
	t.Run("no right to the value: file put back", func(t *testing.T) {
		somaxconn(t, 128)
		dir := t.TempDir()
		write(t, dir+"/90.conf", "# mine\n")
		// CAP_DAC_OVERRIDE does not open /proc/sys/net.
		as(t, 1000, []int{unix.CAP_DAC_OVERRIDE, unix.CAP_CHOWN}, func() {
			check(t, do(t, raise(dir+"/90.conf")), unix.EACCES, "CAP_NET_ADMIN")
		})
		if d := cmp.Diff([]string{"---------- 90.conf # mine\n"}, tree(t, dir)); d != "" {
			t.Errorf("directory (-want +got):\n%s", d)
		}
	})
	t.Run("as a user with just CAP_NET_ADMIN", func(t *testing.T) {
		somaxconn(t, 128)
		as(t, 1000, []int{unix.CAP_NET_ADMIN}, func() {
			wantResult(t, do(t, raise("")), "applied 1024")
		})
	})
	t.Run("ProtectKernelTunables", func(t *testing.T) {
		testbed.Needs(t, "root")
		somaxconn(t, 128)
		onThread(t, func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""); err != nil {
				return err
			}
			return unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}, func() {
			check(t, do(t, raise("")), unix.EROFS, "ProtectKernelTunables=yes")
		})
	})
}

// The file that somebody changes between read and write is not overwritten.
func TestWriteComparesAndSwaps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "90.conf")
	for _, tt := range []struct {
		name         string
		before, then string
	}{
		{"changed", "a=1\n", "a=22\n"}, {"made", "", "a=1\n"}, {"removed", "a=1\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := func(text string) {
				os.Remove(file)
				if text != "" {
					write(t, file, text)
				}
			}
			set(tt.before)
			f, _, err := openConf(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.close()
			old, err := f.read()
			if err != nil {
				t.Fatal(err)
			}
			set(tt.then)
			wantResult(t, failure(-1, f.write([]byte("ours\n"), old)), "stale")
			if got, _ := os.ReadFile(file); string(got) != tt.then {
				t.Errorf("file is %q, want %q", got, tt.then)
			}
		})
	}
}

// A writer that is killed at any point leaves the old file or the new one, and
// nothing that a sysctl reader would look at.
func TestKilledWriter(t *testing.T) {
	const file = "/etc/sysctl.d/90-qwatch.conf"
	raise := remediate.SetSysctl{Key: key, From: 128, To: 1024, File: file, Why: "full"}
	undo := remediate.SetSysctl{Key: key, From: 1024, To: 128, File: file, FileFrom: 1024, Undo: true}
	if os.Getenv("QWATCH_TEST_WRITER") != "" {
		for {
			for _, a := range []remediate.SetSysctl{raise, undo} {
				if r := do(t, a); r.Result != remediate.Applied {
					t.Fatal(show(r))
				}
			}
			fmt.Println("turned")
		}
	}
	somaxconn(t, 128)
	full := string(sysctld.Set(nil, key, 1024, 128, "full"))
	left := 0
	for range 50 {
		os.Remove(file)
		if err := testbed.SetSomaxconn(128); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestKilledWriter$")
		cmd.Args[0] = os.Args[0]
		cmd.Env = append(os.Environ(), "QWATCH_TEST_WRITER=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "turned\n" {
			t.Fatalf("the writer said %q, %v", line, err)
		}
		time.Sleep(rand.N(3 * time.Millisecond)) // the point to kill it at
		cmd.Process.Kill()
		cmd.Wait()

		got, _ := os.ReadFile(file)
		if s := string(got); s != "" && s != full {
			t.Fatalf("half a file: %q", s)
		}
		entries, err := os.ReadDir(filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if n := e.Name(); n != filepath.Base(file) {
				left++
				if n[0] != '.' || strings.HasSuffix(n, ".conf") {
					t.Fatalf("left behind: %s", n)
				}
			}
		}
	}
	t.Logf("%d temporary files left in 50 kills", left)
	os.Remove(file)
	somaxconn(t, 128)
	wantResult(t, do(t, raise), "applied 1024")
	if d := cmp.Diff([]string{"---------- 90-qwatch.conf " + full}, tree(t, filepath.Dir(file))); d != "" {
		t.Errorf("after the next write (-want +got):\n%s", d)
	}
	os.Remove(file)
}
