package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"qwatch/remediate/facts"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
)

// inside runs f in a network namespace of its own and goes back. lo is
// down there, but a socket can listen.
func inside(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	defer func() {
		// Else the thread stays locked, and ends with the test.
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err == nil {
			runtime.UnlockOSThread()
		}
	}()
	f()
}

// A uWSGI in a container's network namespace is seen with that one's limit,
// and forgotten with its end.
func TestObserveNamespaces(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "root")
	here := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5200"})
	var there *testbed.UWSGI
	inside(t, func() {
		if err := testbed.SetSomaxconn(256); err != nil {
			t.Fatal(err)
		}
		there = testbed.Run(t, testbed.Options{Address: "127.0.0.1:5200", Listen: 200, Workers: 1})
	})
	h := newHost(t, options)
	snapshot := observe(t, h)
	want := []string{
		"tcp 127.0.0.1:5200 0/100 of here, 2 workers, other netns false, somaxconn 128, configured 100 by default",
		"tcp 127.0.0.1:5200 0/200 of there, 1 workers, other netns true, somaxconn 256, configured 200 by command line",
	}
	elsewhere := socketsOf(snapshot, there.Pid)[0].ID
	if diff := cmp.Diff(want, describe(socketsOf(snapshot, here.Pid, there.Pid), map[int]string{here.Pid: "here", there.Pid: "there"})); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
	if snapshot.Sysctl["net.core.somaxconn"] != 128 {
		t.Errorf("sysctls %v are not those of the own namespace", snapshot.Sysctl)
	}
	readings, err := h.Sample(t.Context())
	if err != nil || !slices.ContainsFunc(readings, func(r facts.Sample) bool { return r.ID == elsewhere && r.Limit == 200 }) {
		t.Errorf("readings %+v, %v", readings, err)
	}

	there.Stop()
	eventually(t, func() string {
		snapshot := observe(t, h)
		if len(socketsOf(snapshot, there.Pid)) != 0 || slices.ContainsFunc(h.netns, func(n *kernel.NetNS) bool { return n.ID == elsewhere.NetNS }) {
			return fmt.Sprintf("%+v", snapshot.Sockets)
		}
		return ""
	})
}

var (
	anyProcess = regexp.MustCompile(`(^cannot .* process )\d+:`) // any of the three
	anyNetns   = regexp.MustCompile(`network namespace \d+:`)
)

const asOther = "QWATCH_TEST_CAPS"

// TestOther is not a test: it prints what a process without root's rights sees.
func TestOther(t *testing.T) {
	if _, ok := os.LookupEnv(asOther); !ok {
		return // run by TestObserveWithoutRights
	}
	o := options
	o.SysctlFile = "/etc/sysctl.d/90-qwatch.conf"
	h := newHost(t, o)
	snapshot := observe(t, h)
	for _, s := range snapshot.Sockets {
		fmt.Printf("= socket %s %d/%d of %d fd %d workers %d other netns %v\n", s.Address, s.Length, s.Limit, s.Master.PID, s.FD, len(s.Workers), s.OtherNetNS)
	}
	for _, step := range facts.Steps() {
		if why := snapshot.WhyNot(step); why != "" && step != facts.StepJournal { // not every test machine has one
			fmt.Printf("= cannot %s: %s\n", step, why)
		}
	}
	for _, what := range snapshot.Unseen {
		fmt.Printf("= unseen %s\n", what)
	}
}

// other runs this test binary as uid 4711 with just these capabilities, and
// returns what TestOther prints.
func other(t *testing.T, caps string) []string {
	t.Helper()
	args := []string{"--reuid", "4711", "--regid", "4711", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all"}
	if caps != "" {
		args = []string{"--reuid", "4711", "--regid", "4711", "--clear-groups", "--inh-caps", "-all," + caps, "--ambient-caps", caps}
	}
	cmd := exec.Command("setpriv", append(args, "/proc/self/fd/3", "-test.run=^TestOther$", "-test.v")...)
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Env = append(os.Environ(), asOther+"="+caps)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as uid 4711 with %q: %v\n%s", caps, err, out)
	}
	lines := []string{}
	for line := range strings.Lines(string(out)) {
		if line, ok := strings.CutPrefix(strings.TrimSpace(line), "= "); ok {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestObserveWithoutRights(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "root", "setpriv")
	named := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5210", Workers: 1})
	// Their addresses stand in files, one of which others may read.
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	from := func(address string, mode os.FileMode) *testbed.UWSGI {
		ini := filepath.Join(dir, address[len("127.0.0.1:"):]+".ini")
		if err := os.WriteFile(ini, []byte("[uwsgi]\nsocket = "+address+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		return testbed.Run(t, testbed.Options{Workers: 1, Args: []string{"--ini", ini}})
	}
	hidden, filed := from("127.0.0.1:5211", 0o600), from("127.0.0.1:5213", 0o644)
	var there *testbed.UWSGI
	inside(t, func() { there = testbed.Run(t, testbed.Options{Address: "127.0.0.1:5212", Workers: 1}) })

	seen := func(u *testbed.UWSGI, address, rest string) string {
		return fmt.Sprintf("socket %s 0/100 of %d %s", address, u.Pid, rest)
	}
	fds := func(u *testbed.UWSGI) string {
		return fmt.Sprintf("unseen the sockets of uWSGI %d (uid 0): open /proc/%d/fd: permission denied; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH", u.Pid, u.Pid)
	}
	const (
		noSysctl = "cannot sysctl: open /proc/sys/net/core/somaxconn: permission denied; needs root or CAP_NET_ADMIN, in the user namespace that owns the network namespace"
		noFile   = "cannot sysctl_file: open /etc/sysctl.d: permission denied; needs the owner of the directory, root, or CAP_DAC_OVERRIDE"
	)
	for _, c := range []struct {
		caps string
		want []string
	}{
		{"", []string{
			noSysctl, noFile,
			"cannot relisten: pidfd_getfd of process PID: operation not permitted; needs CAP_SYS_PTRACE, and no seccomp filter against it",
			"cannot reload: signal to process PID: operation not permitted; needs the same user or CAP_KILL, and no seccomp filter against it",
			seen(named, named.Address, "fd -1 workers 1 other netns false"),
			seen(filed, "127.0.0.1:5213", "fd -1 workers 1 other netns false"),
			fmt.Sprintf("unseen whose 127.0.0.1:5211 is: it was made in the cgroup of uWSGI %d, and whether uWSGI %d listens there cannot be read: command line: reading %s: qwatch itself may not look there: permission denied; %s",
				named.Pid, hidden.Pid, filepath.Join(dir, "5211.ini"), kernel.SeeAll),
			fds(named), fds(hidden), fds(filed), fds(there),
			fmt.Sprintf("unseen whether uWSGI %d is to be trusted: its executable: readlink /proc/%[1]d/exe: permission denied; needs CAP_SYS_PTRACE", named.Pid),
			fmt.Sprintf("unseen whether uWSGI %d is to be trusted: its executable: readlink /proc/%[1]d/exe: permission denied; needs CAP_SYS_PTRACE", filed.Pid),
			fmt.Sprintf("unseen the configuration of uWSGI %d: its environment: open /proc/%[1]d/environ: permission denied; "+kernel.SeeAll, named.Pid),
			fmt.Sprintf("unseen the configuration of uWSGI %d: its environment: open /proc/%[1]d/environ: permission denied; "+kernel.SeeAll, filed.Pid),
			fmt.Sprintf("unseen uWSGI %d: it lives in another network namespace; needs CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no RestrictNamespaces= of the service against it", there.Pid),
		}},
		{"+sys_ptrace,+dac_read_search", []string{
			noSysctl, noFile,
			"cannot reload: signal to process PID: operation not permitted; needs the same user or CAP_KILL, and no seccomp filter against it",
			seen(named, named.Address, "fd 3 workers 1 other netns false"),
			seen(hidden, "127.0.0.1:5211", "fd 3 workers 1 other netns false"),
			seen(filed, "127.0.0.1:5213", "fd 3 workers 1 other netns false"),
			fmt.Sprintf("unseen uWSGI %d: its network namespace NETNS: setns: operation not permitted; needs CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no RestrictNamespaces= of the service against it", there.Pid),
		}},
		{"+sys_ptrace,+dac_read_search,+sys_admin,+net_admin,+kill,+dac_override", []string{
			seen(named, named.Address, "fd 3 workers 1 other netns false"),
			seen(hidden, "127.0.0.1:5211", "fd 3 workers 1 other netns false"),
			seen(filed, "127.0.0.1:5213", "fd 3 workers 1 other netns false"),
			seen(there, there.Address, "fd 3 workers 1 other netns true"),
		}},
	} {
		t.Run("caps "+c.caps, func(t *testing.T) {
			ours := regexp.MustCompile(fmt.Sprintf(`^cannot|\b(%d|%d|%d|%d)\b`, named.Pid, hidden.Pid, filed.Pid, there.Pid))
			got := slices.DeleteFunc(other(t, c.caps), func(line string) bool { return !ours.MatchString(line) })
			for i, line := range got {
				line = anyProcess.ReplaceAllString(line, "${1}PID:")
				got[i] = anyNetns.ReplaceAllString(line, "network namespace NETNS:")
			}
			slices.Sort(c.want)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("as uid 4711 (-want +got):\n%s", diff)
			}
		})
	}
}
