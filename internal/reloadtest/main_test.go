//go:build reloadtest

package reloadtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/testbed"
	"qwatch/internal/testbed/container"
)

// What tells this program, started again, which scene to play and where to leave
// what came of it.
const (
	sceneEnv  = "QWATCH_RELOAD_SCENE"
	outEnv    = "QWATCH_RELOAD_OUT"
	binaryEnv = "QWATCH_RELOAD_BINARY"
	insideEnv = "QWATCH_RELOAD_INSIDE" // a container: no namespaces are to be made
)

// full runs every mode, and broken deploys ten times over.
var full = os.Getenv("FULL") != ""

// binary is the qwatch that TestMain built.
var binary string

func TestMain(m *testing.M) {
	switch name := os.Getenv(sceneEnv); {
	case name == "":
		var err error
		if binary, err = testbed.Build(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		status := m.Run()
		os.RemoveAll(filepath.Dir(binary))
		os.Exit(status)
	case os.Getenv(insideEnv) != "":
		os.Exit(scene(name).Run())
	default:
		testbed.MainAlone(scene(name))
	}
}

// scene is a mode's name; Run plays it.
type scene string

func (s scene) Run() int {
	for _, m := range everything() {
		if m.name != string(s) {
			continue
		}
		if !m.systemd && os.Getpid() != 1 {
			fmt.Fprintln(os.Stderr, "no namespaces of its own")
			return 1
		}
		r := play(m)
		text, err := json.Marshal(r)
		if err == nil {
			err = os.WriteFile(os.Getenv(outEnv), text, 0o600)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	fmt.Fprintf(os.Stderr, "no mode %q\n", string(s))
	return 1
}

// TestReload plays the modes, several at a time: most of a scene is waiting.
func TestReload(t *testing.T) {
	testbed.Needs(t, "root", "uwsgi", "ss")
	var tab table
	t.Run("modes", func(t *testing.T) {
		for _, m := range everything() {
			if !(m.quick || full) || m.systemd {
				continue
			}
			for range m.rounds() {
				t.Run(m.name, func(t *testing.T) {
					t.Parallel()
					tab.add(t, m, inNamespaces(t, m))
				})
			}
		}
		for i := range machines {
			t.Run(fmt.Sprint("systemd ", i+1), func(t *testing.T) {
				t.Parallel()
				booted(t, i, &tab)
			})
		}
	})
	tab.compare(t)
}

// inNamespaces plays a scene in a network, a mount and a process namespace of
// its own.
func inNamespaces(t *testing.T, m mode) result {
	t.Helper()
	runtime.LockOSThread() // Pdeathsig follows the thread (prctl(2))
	defer runtime.UnlockOSThread()
	out := filepath.Join(t.TempDir(), "result")
	cmd := exec.Command("/proc/self/exe", "-test.run", "^$")
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), sceneEnv+"="+m.name, outEnv+"="+out, binaryEnv+"="+binary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := cmd.CombinedOutput()
	return read(t, out, said, err)
}

// machines are as many containers as are booted; the modes of systemd are dealt
// out among them.
const machines = 3

// booted plays the scenes of one container, one after the other.
func booted(t *testing.T, which int, tab *table) {
	var modes []mode
	n := 0
	for _, m := range everything() {
		if m.systemd && (m.quick || full) {
			if n%machines == which {
				modes = append(modes, m)
			}
			n++
		}
	}
	if len(modes) == 0 {
		return
	}
	root := cmp.Or(os.Getenv("QWATCH_TEST_ROOT"), "/a root file system, as scripts/rootfs makes one")
	testbed.Needs(t, root)
	c := container.Boot(t, root)
	c.ShareSelf("reload.test")
	c.Share(binary, "qwatch")
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			const inside = "/mnt/result"
			name := filepath.Join(c.Shared, filepath.Base(inside))
			os.Remove(name)
			said, err := c.Within(5*time.Minute, fmt.Sprintf("%s=1 %s=%s %s=%s %s=/mnt/qwatch TMPDIR=/tmp /mnt/reload.test -test.run '^$'",
				insideEnv, sceneEnv, quote(m.name), outEnv, inside, binaryEnv))
			r := read(t, name, []byte(said), err)
			tab.add(t, m, r)
			if out, err := c.Try(m.stop); err != nil {
				t.Fatalf("%s: %v\n%s", m.stop, err, out)
			}
		})
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// read takes what a scene left.
func read(t *testing.T, name string, said []byte, err error) (r result) {
	t.Helper()
	if err != nil {
		t.Fatalf("the scene: %v\n%s", err, said)
	}
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return r
}
