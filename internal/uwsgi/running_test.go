package uwsgi

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/remediate/facts"
)

func TestMain(m *testing.M) { testbed.Main(m) }

var names = []string{"uwsgi", "uwsgi-core"}

// running reads the configuration of a real uWSGI.
func running(t *testing.T, u *testbed.UWSGI) facts.Config {
	t.Helper()
	st, err := kernel.ReadStat(u.Pid)
	if err != nil {
		t.Error(err)
	}
	c := Running(Process{PID: u.Pid, Start: st.Start}, names, "")
	c.Orders, c.Mode = facts.Orders{}, facts.Fact[facts.Mode]{} // TestOrders, TestModeOf
	return c
}

// In a unit with RestrictSUIDSGID= systemd answers openat2(2) with ENOSYS. The
// configuration is read all the same.
func TestRunningWithoutOpenat2(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	ini := filepath.Join(t.TempDir(), "once.ini")
	if err := os.WriteFile(ini, []byte("[uwsgi]\nexit-on-reload = true\nlisten = 90\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5326", Args: []string{"--ini", ini}})
	withoutOpenat2(t, func() {
		want := facts.Config{Listen: facts.Known(facts.Setting{Listen: 90, At: ini + ":3"}), File: ini, ReloadEnds: facts.Known("exit-on-reload (" + ini + ":2)")}
		if got := running(t, u); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// withoutOpenat2 runs f on a thread on which openat2(2) answers ENOSYS. The
// thread ends with it.
func withoutOpenat2(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_OPENAT2},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Errorf("no_new_privs: %v", err)
			return
		}
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
			t.Errorf("seccomp: %v", errno)
			return
		}
		if _, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH}); !errors.Is(err, unix.ENOSYS) {
			t.Errorf("openat2: %v, want ENOSYS", err)
			return
		}
		f()
	}()
	<-done
}

// Ways to write that a reload is the end. Each is tried: SIGHUP ends that uWSGI.
func TestReloadEnds(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	for name, c := range map[string]struct{ args, file, text, want string }{
		"the beginning of a name":   {"--exit-on", "", "", "exit-on-reload (command line)"},
		"a beginning without value": {"--vac --exit-on-reload", "", "", "exit-on-reload (command line)"},
		"a beginning, given":        {"--inh=INI", "a.ini", "[uwsgi]\nexit-on-reload = 1\n", "exit-on-reload (INI:2)"},
		"a custom option":           {"--ini INI", "a.ini", "[uwsgi]\ndeclare-option = once=exit-on-reload=$1;harakiri=20\nonce = true\n", "exit-on-reload (INI:3)"},
		"a custom option, late":     {"--ini INI", "a.ini", "[uwsgi]\nonce = true\ndeclare-option = well=exit-on-reload=$1\ndeclare-option = once=well=$1\n", "exit-on-reload (INI:2)"},
		"a custom option as flag":   {"--ini INI --once --vacuum", "a.ini", "[uwsgi]\ndeclare-option = once=exit-on-reload=true\n", "exit-on-reload (command line)"},
		"a custom option's file":    {"--ini INI", "a.ini", "[uwsgi]\ndeclare-option = more=ini=$1\nmore = :other\n[other]\nexit-on-reload = true\n", "exit-on-reload (INI:5)"},
		"yaml in yaml":              {"--yaml INI", "a.yaml", "uwsgi:\n  more:\n    exit-on-reload: true\n", ""},
		"yaml further down":         {"--yaml INI", "a.yaml", "web:\n  uwsgi:\n    exit-on-reload: true\n", ""},
		"yaml further on":           {"--yaml INI", "a.yaml", "web: 1\n---\nuwsgi:\n  exit-on-reload: true\n", ""},
		"a line that C ends":        {"--ini INI", "a.ini", "[uwsgi]\nexit-on-reload\x00 = x\n", ""},
		"a folder that is a link":   {"--ini DIR/current/../once.ini", "deep/er/once.ini", "[uwsgi]\nexit-on-reload = true\n", "exit-on-reload (DIR/current/../once.ini:2)"},
		"another signal's work":     {"--ini INI", "a.ini", "[uwsgi]\nhook-master-start = unix_signal:01 gracefully_kill_them_all\n", "SIGHUP does something else in it (unix_signal in hook-master-start, INI:2)"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			at := filepath.Join(dir, c.file)
			if c.file != "" {
				if err := errors.Join(os.MkdirAll(dir+"/deep/er/est", 0o755), os.Symlink("deep/er/est", dir+"/current"),
					os.WriteFile(dir+"/once.ini", []byte("[uwsgi]\n"), 0o644), os.WriteFile(at, []byte(c.text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			named := strings.NewReplacer("INI", at, "DIR", dir)
			u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:0", Workers: 1, Args: strings.Fields(named.Replace(c.args))})
			got := running(t, u).ReloadEnds
			if c.want != "" && got != facts.Known(named.Replace(c.want)) || c.want == "" && got.Unseen() == "" {
				t.Errorf("got %+v, want %q", got, named.Replace(c.want))
			}
			if err := unix.Kill(u.Pid, unix.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if err := testbed.Until(t.Context(), 10*time.Second, "SIGHUP ends it", func() bool {
				st, err := kernel.ReadStat(u.Pid)
				return err != nil || st.State == 'Z'
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

// How a master differs from what looks like one.
func TestRunningWithoutMaster(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	ini := filepath.Join(t.TempDir(), "app.ini")
	if err := os.WriteFile(ini, []byte("[uwsgi]\nmaster = false\nprocesses = 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5327", Workers: 2, Args: []string{"--ini", ini}})
	want := facts.Config{Listen: facts.Known(facts.Setting{Listen: 100, At: "default"}), File: ini, ReloadEnds: facts.Known("it runs without a master process")}
	if got := running(t, u); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := Running(Process{PID: 1 << 22}, names, ""); got.ReloadEnds.Unseen() == "" || got.Listen.Unseen() == "" {
		t.Errorf("of no process: %+v", got)
	}
}

func TestOverwritten(t *testing.T) {
	for _, c := range []struct {
		args []string
		exe  string
		want bool
	}{
		{[]string{"uwsgi", "--ini", "app.ini"}, "", false},
		{[]string{"/usr/bin/uwsgi-core", "app.ini"}, "", false},
		{[]string{"uwsgi_python3", "app.ini"}, "/usr/bin/uwsgi-core", false}, // Debian's other names
		{[]string{"/opt/shop/server", "--master"}, "/opt/shop/server", false},
		{[]string{"/opt/shop/server", "--master"}, "", true},             // not known to be one
		{[]string{"shop", "--master"}, "/opt/shop/uwsgi_python3", false}, // by a link, or exec -a
		{[]string{"/usr/bin/python3", "-m", "pyuwsgi"}, "/usr/bin/python3.11", true},
		{[]string{"/opt/my shop/uwsgi", "app.ini"}, "", false},
		{[]string{"uwsgi"}, "", false}, // configured by its environment
		{[]string{"uWSGI master"}, "/usr/bin/uwsgi", true},
		{[]string{"uwsgi worker 1"}, "/usr/bin/uwsgi", true},
		{[]string{"uwsgi", "          "}, "/usr/bin/uwsgi", true},
		{[]string{"uwsgi-shop", "", "", ""}, "/usr/bin/uwsgi", true}, // setproctitle
		{[]string{"a title of its own", "   "}, "/usr/bin/uwsgi", true},
		{nil, "/usr/bin/uwsgi", true},
	} {
		if got := overwritten(c.args, names, c.exe); got != c.want {
			t.Errorf("%q of %q: got %v", c.args, c.exe, got)
		}
	}
}

// A title that looks like a command line.
func TestRunningUnderTitle(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	for i, title := range []string{"uwsgi", "uwsgi master", "a title of its own"} {
		u := testbed.Run(t, testbed.Options{Address: fmt.Sprintf("127.0.0.1:%d", 5330+i), Args: []string{"--procname-master", title}})
		if got := running(t, u); got.Listen.Unseen() != got.Unread() || got.Unread() != "its command line is overwritten (procname, setproctitle)" {
			t.Errorf("%s: %+v", title, got)
		}
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.ini"), []byte("[uwsgi]\nlisten = 300\nexit-on-reload = $(OFF)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		listen int
		unread bool
	}{
		{[]string{"/usr/bin/uwsgi_python3", "--ini", "app.ini"}, 300, false},
		{[]string{"/usr/bin/uwsgi", "--ini", "none.ini"}, 0, true},
		{[]string{"/bin/sh", "-c", "uwsgi app.ini"}, 0, true},
		{nil, 0, true},
	} {
		got := Starting(Command{Args: c.args, Environ: []string{"A=b"}, Dir: dir}, names)
		if got.Listen.Value.Listen != c.listen || (got.Unread() != "") != c.unread {
			t.Errorf("%q: got %+v", c.args, got)
		}
	}
}

// A vassal's path begins in its emperor's folder, wherever the vassal has gone.
func TestRunningVassal(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	vassals, away := t.TempDir(), t.TempDir()
	ini := "[uwsgi]\nhttp-socket = 127.0.0.1:5336\nmaster = true\nprocesses = 1\nneed-app = false\nexit-on-reload = true\nlisten = 70\nchdir = " + away + "\n"
	for path, text := range map[string]string{filepath.Join(vassals, "web.ini"): ini, filepath.Join(away, "web.ini"): "[uwsgi]\nlisten = 3\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	emperor := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5335", Args: []string{"--emperor", vassals}})
	want := facts.Config{
		Listen: facts.Known(facts.Setting{Listen: 70, At: filepath.Join(vassals, "web.ini") + ":7"}), File: filepath.Join(vassals, "web.ini"),
		ReloadEnds: facts.Known("exit-on-reload (" + filepath.Join(vassals, "web.ini") + ":6)"),
	}
	var got facts.Config
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, pid := range below(t, emperor.Pid) {
			st, err := kernel.ReadStat(pid)
			args, _ := kernel.Args(pid)
			if err != nil || !slices.Contains(args, "web.ini") {
				continue
			}
			if cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); cwd != away {
				continue // it is not there yet
			}
			got = Running(Process{PID: pid, Start: st.Start}, names, "")
			if got.Orders, got.Mode = (facts.Orders{}), (facts.Fact[facts.Mode]{}); got == want {
				return
			}
		}
	}
	t.Errorf("got %+v, want %+v", got, want)
}

// below are the uWSGI processes below one, at any depth.
func below(t *testing.T, pid int) (pids []int) {
	children, err := kernel.Children(pid, names)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range children {
		pids = append(append(pids, c.PID), below(t, c.PID)...)
	}
	return pids
}

// What a uWSGI has read as root, and may read no more, is not known: a reload
// could not read it either.
func TestRunningDroppedRights(t *testing.T) {
	testbed.Needs(t, "namespace", "root", "uwsgi")
	dir, err := os.MkdirTemp("/tmp", "dropped-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	app := filepath.Join(dir, "app.py") // where nobody may read it
	if err := os.WriteFile(app, []byte("def application(e, s):\n    s('200 OK', [])\n    return [b'']\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		mode os.FileMode
		want string
	}{
		{0o644, ""},
		{0o600, "may not: permission denied"},
	} {
		ini := filepath.Join(dir, fmt.Sprintf("app%d.ini", i))
		if err := os.WriteFile(ini, []byte("[uwsgi]\nuid = nobody\ngid = nogroup\nlisten = 66\n"), test.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		u := testbed.Run(t, testbed.Options{Address: fmt.Sprintf("127.0.0.1:%d", 5337+i), Args: []string{"--ini", ini, "--wsgi-file", app}})
		got := running(t, u)
		if test.want == "" && (got.Listen.Value.Listen != 66 || !got.ReloadEnds.IsAbsent()) || test.want != "" && !strings.HasSuffix(got.Unread(), test.want) {
			t.Errorf("%o: got %+v", test.mode, got)
		}
	}
}

// The guards hold under every name that uWSGI runs under.
func TestRunningNames(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	exe, err := exec.LookPath("uwsgi-core")
	if err != nil {
		exe, _ = exec.LookPath("uwsgi") // which Needs has found
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"uwsgi_python3", "uwsgi_php", "shop", "uwsgi"} {
		link, dup := filepath.Join(dir, "l-"+name), filepath.Join(dir, name)
		if err := errors.Join(os.Symlink(exe, link), os.WriteFile(dup, text, 0o755)); err != nil {
			t.Fatal(err)
		}
		for j, program := range []string{link, dup} {
			u := testbed.Run(t, testbed.Options{Program: program, Address: fmt.Sprintf("127.0.0.1:%d", 5350+2*i+j), Args: []string{"--exit-on-reload"}})
			if got := running(t, u); got.ReloadEnds != facts.Known("exit-on-reload (command line)") {
				t.Errorf("%s: %+v", program, got)
			}
		}
	}
}

// What was handed its sockets, by whatever, does not find them after a reload.
func TestActivated(t *testing.T) {
	for _, c := range []struct {
		environ   string
		contained bool
		want      bool
	}{
		{"LISTEN_PID=7 LISTEN_FDS=1", false, true},
		{"LISTEN_PID=7 LISTEN_FDS=2", true, true},
		{"LISTEN_PID=6 LISTEN_FDS=1", false, false}, // meant for its parent
		{"LISTEN_PID=6 LISTEN_FDS=1", true, true},
		{"LISTEN_PID=7 LISTEN_FDS=0", false, false},
		{"LISTEN_PID=7", false, false},
		{"LISTEN_FDS=1", true, false},
		{"", true, false},
	} {
		if got := activated(strings.Fields(c.environ), Process{PID: 7, Contained: c.contained}); got != c.want {
			t.Errorf("%q, contained %v: %v", c.environ, c.contained, got)
		}
	}
}
