//go:build systemdtest

package systemdtest

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

// machine is a container with its own systemd, journald, D-Bus and network.
type machine struct {
	t      *testing.T   // of the scene that runs
	dir    string       // its root file system and console
	shared string       // a directory of the host's, /mnt inside
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

// boot boots a copy of the root file system at base.
func boot(t *testing.T, base string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, dir: dir, shared: filepath.Join(dir, "shared")}
	if err := os.Mkdir(m.shared, 0o755); err != nil {
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
func (m *machine) start() {
	m.t.Helper()
	m.shell = exec.Command("unshare", "-m", "sh", "-c", enter, "enter", m.shared, filepath.Join(m.dir, "root"), filepath.Join(m.dir, "console"))
	if err := m.shell.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan error, 1)
	m.ended = ended
	go func(shell *exec.Cmd) { ended <- shell.Wait() }(m.shell)
	m.wait()
}

// wait waits until the system is up.
func (m *machine) wait() {
	m.t.Helper()
	m.eventually("the container has booted", time.Minute, func() (bool, string) {
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
		out, err := m.try("systemctl is-system-running")
		return err == nil || strings.Contains(out, "degraded"), out
	})
}

// reboot boots the container again. Its files stay. With --keep-unit
// systemd-nspawn ends, for its own service manager to start it again.
func (m *machine) reboot() {
	m.t.Helper()
	m.try("systemctl reboot")
	select {
	case <-m.ended:
	case <-time.After(time.Minute):
		m.t.Fatal("the container does not end")
	}
	m.start()
}

// try runs a shell script inside, with what it says on both streams.
func (m *machine) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", m.leader, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "TERM=dumb", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-c", script)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// sh runs a script that must succeed.
func (m *machine) sh(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// is prints an assertion and whether it holds.
func (m *machine) is(holds bool, what, got string) {
	m.t.Helper()
	if !holds {
		m.t.Errorf("NOT SO: %s\n%s", what, got)
		return
	}
	m.t.Logf("so: %s", what)
}

// says asserts that the output of a script, which may fail, holds a text.
func (m *machine) says(script, text string) {
	m.t.Helper()
	out, _ := m.try(script)
	m.is(strings.Contains(out, text), fmt.Sprintf("%s: %s", oneLine(script), text), out)
}

// eventually waits for something to become true and prints it as an assertion.
func (m *machine) eventually(what string, within time.Duration, ok func() (bool, string)) {
	m.t.Helper()
	began := time.Now()
	for {
		holds, got := ok()
		if holds {
			m.t.Logf("so after %.1f s: %s", time.Since(began).Seconds(), what)
			return
		}
		if time.Since(began) > within {
			log, _ := m.try("journalctl --no-pager -o short-precise -n 40")
			m.t.Fatalf("NOT SO within %v: %s\n%s\n\n%s", within, what, got, log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// eventuallySays waits until the output of a script holds a text.
func (m *machine) eventuallySays(script, text string, within time.Duration) {
	m.t.Helper()
	m.eventually(fmt.Sprintf("%s: %s", oneLine(script), text), within, func() (bool, string) {
		out, _ := m.try(script)
		return strings.Contains(out, text), out
	})
}

// scene runs a part; the parts after a failed one would only fail as well.
func (m *machine) scene(name string, play func()) {
	outer := m.t
	ok := outer.Run(name, func(t *testing.T) {
		m.t = t
		play()
	})
	m.t = outer
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
