// Package container boots a Debian with a systemd of its own, for tests that need
// one. What a test says of it goes to the test's log as assertions.
package container

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Machine is a container with its own systemd, journald, D-Bus and network.
type Machine struct {
	T      *testing.T   // of the scene that runs
	dir    string       // its root file system and console
	Shared string       // a directory of the host's, /mnt inside
	shell  *exec.Cmd    // that runs systemd-nspawn
	ended  <-chan error // of shell
	leader string       // pid of its systemd, seen from outside
}

// enter makes the mount namespace that systemd-nspawn needs where the host has
// no cgroup2, and runs it in a cgroup of its own: with --keep-unit it would use
// the caller's, and two containers would meet there.
const enter = `set -e
if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
	umount -R /sys/fs/cgroup
	mount -t cgroup2 none /sys/fs/cgroup
fi
above=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
mkdir "$above/qwatch-test-$$"
echo $$ >"$above/qwatch-test-$$/cgroup.procs"
systemd-nspawn --quiet --register=no --keep-unit --private-network \
	--system-call-filter="pidfd_getfd pidfd_open pidfd_send_signal" \
	--bind="$1:/mnt" -D "$2" --boot </dev/null >"$3" 2>&1 || true
echo $$ >"$above/cgroup.procs"
find "$above/qwatch-test-$$" -depth -type d -exec rmdir {} +`

// Boot boots a copy of the root file system at base.
func Boot(t *testing.T, base string) *Machine {
	t.Helper()
	dir := t.TempDir()
	m := &Machine{T: t, dir: dir, Shared: filepath.Join(dir, "shared")}
	if err := os.Mkdir(m.Shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", "--reflink=auto", base, filepath.Join(dir, "root")).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", base, err, out)
	}
	t.Cleanup(func() {
		// systemd takes this for the order to power off.
		exec.Command("kill", "-s", "RTMIN+4", m.leader).Run()
		select {
		case <-m.ended:
		case <-time.After(20 * time.Second):
			exec.Command("kill", "-s", "KILL", m.leader).Run() // and all of the container with it
			<-m.ended
		}
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "console"))
			t.Logf("console:\n%s", b[max(0, len(b)-3000):])
		}
	})
	m.start()
	return m
}

// start boots the container.
func (m *Machine) start() {
	m.T.Helper()
	m.shell = exec.Command("unshare", "-m", "sh", "-c", enter, "enter", m.Shared, filepath.Join(m.dir, "root"), filepath.Join(m.dir, "console"))
	if err := m.shell.Start(); err != nil {
		m.T.Fatal(err)
	}
	ended := make(chan error, 1)
	m.ended = ended
	go func(shell *exec.Cmd) { ended <- shell.Wait() }(m.shell)
	m.wait()
}

// wait waits until the system is up.
func (m *Machine) wait() {
	m.T.Helper()
	m.Eventually("the container has booted", time.Minute, func() (bool, string) {
		// The shell's child is systemd-nspawn, and its child the container's systemd.
		pid := fmt.Sprint(m.shell.Process.Pid)
		for range 2 {
			children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
			if err != nil || len(bytes.TrimSpace(children)) == 0 {
				return false, "no process yet"
			}
			pid = strings.Fields(string(children))[0]
		}
		m.leader = pid
		out, err := m.Try("systemctl is-system-running")
		return err == nil || strings.Contains(out, "degraded"), out
	})
}

// Reboot boots the container again. Its files stay. With --keep-unit
// systemd-nspawn ends, for its own service manager to start it again.
func (m *Machine) Reboot() {
	m.T.Helper()
	m.Try("systemctl reboot")
	select {
	case <-m.ended:
	case <-time.After(time.Minute):
		m.T.Fatal("the container does not end")
	}
	m.start()
}

// Try runs a shell script inside, with what it says on both streams.
func (m *Machine) Try(script string) (string, error) { return m.Within(time.Minute, script) }

// Within is Try for what may take longer, or shall not.
func (m *Machine) Within(most time.Duration, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", m.leader, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "TERM=dumb", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-c", script)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Sh runs a script that must succeed.
func (m *Machine) Sh(script string) string {
	m.T.Helper()
	out, err := m.Try(script)
	if err != nil {
		m.T.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// Share puts a copy of a host's file into /mnt.
func (m *Machine) Share(path, name string) {
	m.T.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.Shared, name), b, 0o755)
	}
	if err != nil {
		m.T.Fatal(err)
	}
}

// ShareSelf puts this program into /mnt, to run inside as well.
func (m *Machine) ShareSelf(name string) {
	m.T.Helper()
	self, err := os.Executable()
	if err != nil {
		m.T.Fatal(err)
	}
	m.Share(self, name)
}

// Is prints an assertion and whether it holds.
func (m *Machine) Is(holds bool, what, got string) {
	m.T.Helper()
	if !holds {
		m.T.Errorf("NOT SO: %s\n%s", what, got)
		return
	}
	m.T.Logf("so: %s", what)
}

// Says asserts that the output of a script, which may fail, holds a text.
func (m *Machine) Says(script, text string) {
	m.T.Helper()
	out, _ := m.Try(script)
	m.Is(strings.Contains(out, text), fmt.Sprintf("%s: %s", oneLine(script), text), out)
}

// Eventually waits for something to become true and prints it as an assertion.
func (m *Machine) Eventually(what string, within time.Duration, ok func() (bool, string)) {
	m.T.Helper()
	began := time.Now()
	for {
		holds, got := ok()
		if holds {
			m.T.Logf("so after %.1f s: %s", time.Since(began).Seconds(), what)
			return
		}
		if time.Since(began) > within {
			log, _ := m.Try("journalctl --no-pager -o short-precise -n 40")
			m.T.Fatalf("NOT SO within %v: %s\n%s\n\n%s", within, what, got, log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// EventuallySays waits until the output of a script holds a text.
func (m *Machine) EventuallySays(script, text string, within time.Duration) {
	m.T.Helper()
	m.Eventually(fmt.Sprintf("%s: %s", oneLine(script), text), within, func() (bool, string) {
		out, _ := m.Try(script)
		return strings.Contains(out, text), out
	})
}

// Scene runs a part; the parts after a failed one would only fail as well.
func (m *Machine) Scene(name string, play func()) {
	outer := m.T
	ok := outer.Run(name, func(t *testing.T) {
		m.T = t
		play()
	})
	m.T = outer
	if !ok {
		outer.FailNow()
	}
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 100 {
		s = s[:100] + " ..."
	}
	return s
}
