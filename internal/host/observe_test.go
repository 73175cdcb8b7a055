package host

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"qwatch/remediate/facts"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

var options = Options{
	Processes: []string{"uwsgi", "uwsgi-core"},
	Sysctls:   []string{"net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.core.no_such_key"},
	Patience:  time.Minute,
}

func newHost(t *testing.T, o Options) *Host {
	t.Helper()
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func observe(t *testing.T, h *Host) facts.Snapshot {
	t.Helper()
	snapshot, err := h.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// socketsOf are the sockets of these masters. Other tests may run other uWSGI on
// this machine at the same time, and they are seen too.
func socketsOf(snapshot facts.Snapshot, pids ...int) []facts.Socket {
	return slices.DeleteFunc(slices.Clone(snapshot.Sockets), func(s facts.Socket) bool {
		return !slices.Contains(pids, s.Master.PID)
	})
}

// whyNot says what is not possible, but for the journal: not every test machine
// has one.
func whyNot(f facts.Snapshot) (why string) {
	for _, step := range facts.Steps() {
		if step != facts.StepJournal {
			why += f.WhyNot(step)
		}
	}
	return why
}

// describe writes each socket as one line; who tells the names of the masters.
func describe(sockets []facts.Socket, who map[int]string) []string {
	lines := []string{}
	for _, s := range sockets {
		lines = append(lines, fmt.Sprintf("%s %s %d/%d of %s, %d workers, other netns %v, somaxconn %d, configured %d by %s",
			s.Family, s.Address, s.Length, s.Limit, who[s.Master.PID], len(s.Workers), s.OtherNetNS, s.Somaxconn.Value, s.Config.Listen.Value.Listen, s.Config.Listen.Value.At))
	}
	slices.Sort(lines)
	return lines
}

func TestObserve(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	path := filepath.Join(t.TempDir(), "app.sock")
	tcp := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5100", Listen: 64})
	many := testbed.Run(t, testbed.Options{Address: path, Workers: 3, Args: []string{
		"--http-socket", "@qwatch-app", "--http-socket", "[::1]:5101", "--http-socket", ":5102"}})
	router := testbed.Run(t, testbed.Options{Workers: 2, Args: []string{"--plugin", "http", "--http", "127.0.0.1:5103"}})
	other, err := net.Listen("tcp", "127.0.0.1:5104") // not of a uWSGI
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	h := newHost(t, options)
	snapshot := observe(t, h)
	found := socketsOf(snapshot, tcp.Pid, many.Pid, router.Pid)
	got := describe(found, map[int]string{tcp.Pid: "A", many.Pid: "B", router.Pid: "C"})
	want := []string{
		"tcp 0.0.0.0:5102 0/100 of B, 3 workers, other netns false, somaxconn 128, configured 100 by default",
		"tcp 127.0.0.1:5100 0/64 of A, 2 workers, other netns false, somaxconn 128, configured 64 by command line",
		"tcp 127.0.0.1:5103 0/100 of C, 1 workers, other netns false, somaxconn 128, configured 100 by default", // the router
		"tcp 127.0.0.1:HIDDEN 0/100 of C, 2 workers, other netns false, somaxconn 128, configured 100 by default",
		"tcp6 [::1]:5101 0/100 of B, 3 workers, other netns false, somaxconn 128, configured 100 by default",
		"unix " + path + " 0/100 of B, 3 workers, other netns false, somaxconn 128, configured 100 by default",
		"unix @qwatch-app 0/100 of B, 3 workers, other netns false, somaxconn 128, configured 100 by default",
	}
	for _, s := range found {
		// The backend of the http router listens on a port that the kernel chose.
		if s.Master.PID == router.Pid && s.Address != "127.0.0.1:5103" {
			for i := range got {
				got[i] = strings.Replace(got[i], s.Address, "127.0.0.1:HIDDEN", 1)
			}
		}
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.Master.PID, s.FD))
		if want := fmt.Sprintf("socket:[%d]", s.ID.Inode); err != nil || link != want {
			t.Errorf("%s: descriptor %d is %s, %v, want %s", s.Address, s.FD, link, err, want)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
	if whyNot(snapshot) != "" || slices.ContainsFunc(snapshot.Unseen, func(s string) bool { return !strings.Contains(s, "uWSGI") }) {
		t.Errorf("as root: cannot %v, unseen %q", whyNot(snapshot), snapshot.Unseen)
	}
	if slices.ContainsFunc(snapshot.Sockets, func(s facts.Socket) bool { return s.Address == "127.0.0.1:5104" }) {
		t.Error("the socket of another program is among them")
	}
	if snapshot.Sysctl["net.core.somaxconn"] != 128 || len(snapshot.Sysctl) != 2 {
		t.Errorf("sysctls: %v", snapshot.Sysctl)
	}

	s := socketsOf(snapshot, tcp.Pid)[0]
	if diff := cmp.Diff([]string{tcp.LogFile}, s.Logs); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
	pids, err := tcp.Workers()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { // a worker may still be awake
		s := socketsOf(observe(t, h), tcp.Pid)[0]
		if len(pids) != 2 || s.Workers[0].PID != pids[0] || s.Workers[1].PID != pids[1] || s.Workers[0].State != 'S' || s.Master.Comm != "uwsgi" || s.Master.UID != facts.Known(0) {
			return fmt.Sprintf("master %+v, workers %+v, want pids %v", s.Master, s.Workers, pids)
		}
		return ""
	})
}

// A full queue is shown as the kernel has it, with its overflows.
func TestObserveFull(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5110", Listen: 8, Workers: 1})
	h := newHost(t, options)
	before := sample(t, h)
	pids, err := u.Workers()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pids[0], unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(s)
		if err := unix.Connect(s, &unix.SockaddrInet4{Port: 5110, Addr: [4]byte{127, 0, 0, 1}}); err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	eventually(t, func() string {
		s := socketsOf(observe(t, h), u.Pid)[0]
		if s.Length != 9 || s.Limit != 8 || !s.Full() || s.Workers[0].State != 'T' {
			return fmt.Sprintf("%+v", s)
		}
		readings := sample(t, h)
		if len(readings) != 1 || readings[0].ID != s.ID || !readings[0].Full() || readings[0].Limit != 8 || readings[0].Overflows <= before[0].Overflows || readings[0].Opens == 0 {
			return fmt.Sprintf("%+v", readings)
		}
		return ""
	})
}

// An application may name its process as it likes, and a uWSGI may drop its
// rights, after which root owns its directory in /proc.
func TestObserveDisguised(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "root")
	u := testbed.Run(t, testbed.Options{
		Address: "127.0.0.1:5176",
		Args:    []string{"--drop-after-apps", "--uid", "1000", "--gid", "1000", "--procname-master", "a title of its own"},
		App: "open('/proc/self/comm', 'w').write('renamed')\n" +
			"def application(env, start):\n    start('200 OK', [])\n    return [b'']\n",
	})
	snapshot := observe(t, newHost(t, options))
	found := socketsOf(snapshot, u.Pid)
	if len(found) != 1 {
		t.Fatalf("got %+v", found)
	}
	s := found[0]
	if s.Master.Comm != "renamed" || s.Master.UID != facts.Known(1000) || len(s.Workers) != 2 {
		t.Errorf("master %+v, workers %+v", s.Master, s.Workers)
	}
	want := fmt.Sprintf("the configuration of uWSGI %d: its command line is overwritten (procname, setproctitle)", u.Pid)
	if s.Config.Listen.Unseen() == "" || !slices.Contains(snapshot.Unseen, want) {
		t.Errorf("configured %v, unseen %q, want %q", s.Config.Listen, snapshot.Unseen, want)
	}
}

// What the sysctl.d files say, now and at a boot; testbed.Main has put empty
// directories in their place.
func TestObserveFiles(t *testing.T) {
	testbed.Needs(t, "namespace")
	o := options
	o.SysctlFile = "/etc/sysctl.d/90-qwatch.conf"
	h := newHost(t, o)
	snapshot := observe(t, h)
	if snapshot.File != nil {
		t.Errorf("without the file: %v", snapshot.File)
	}
	if err := os.WriteFile(o.SysctlFile, []byte("# note\nnet.core.somaxconn = 1024\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(o.SysctlFile)
	snapshot = observe(t, h)
	if diff := cmp.Diff(map[string]int{"net.core.somaxconn": 1024}, snapshot.File); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	want := facts.Known(facts.BootValue{Value: 1024, File: o.SysctlFile, Line: 2})
	if got := snapshot.Boot["net.core.somaxconn"]; got != want {
		t.Errorf("boot: got %+v, want %+v", got, want)
	}
}

// eventually asks until the answer is "", for as long as the machine may need.
func eventually(t *testing.T, ask func() string) {
	t.Helper()
	answer := ""
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if answer = ask(); answer == "" {
			return
		}
	}
	t.Fatal("after 15 s still: ", answer)
}

// sample returns the readings of the own namespace.
func sample(t *testing.T, h *Host) []facts.Sample {
	t.Helper()
	readings, err := h.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(readings, func(r facts.Sample) bool { return r.ID.NetNS != h.own.ID })
}

// Sample notices by itself which uWSGI come and go.
func TestSample(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	h := newHost(t, options)
	if got := sample(t, h); len(got) != 0 {
		t.Fatalf("without a uWSGI: %+v", got)
	}
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5121"})
	h.walked.at = h.walked.at.Add(-walkGap) // so that the test need not wait
	if got := sample(t, h); len(got) != 1 || got[0].Limit != 100 || got[0].Full() {
		t.Fatalf("with a uWSGI: %+v", got)
	}
	u.Stop()
	eventually(t, func() string { // the workers end a little after the master
		if got := sample(t, h); len(got) != 0 {
			return fmt.Sprintf("after its end: %+v", got)
		}
		return ""
	})
}

func TestObserveEmperor(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	dir := t.TempDir()
	for _, port := range []string{"5131", "5132"} {
		ini := "[uwsgi]\nmaster = true\nprocesses = 1\nplugin = python3\nsocket = 127.0.0.1:" + port + "\n"
		if err := os.WriteFile(filepath.Join(dir, port+".ini"), []byte(ini), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	emperor := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5130", Workers: 1, Args: []string{"--emperor", dir}})
	h := newHost(t, options)
	eventually(t, func() string {
		snapshot := observe(t, h)
		masters := make(map[string]facts.Process)
		for _, s := range snapshot.Sockets {
			if s.OtherNetNS {
				continue
			}
			if len(s.Workers) != 1 {
				return fmt.Sprintf("%+v", s)
			}
			masters[s.Address] = s.Master
		}
		a, b := masters["127.0.0.1:5131"], masters["127.0.0.1:5132"]
		if masters["127.0.0.1:5130"].PID != emperor.Pid || a.PID == 0 || b.PID == 0 || a.Same(b) || a.PID == emperor.Pid || b.PID == emperor.Pid {
			return fmt.Sprintf("%+v, emperor %d", masters, emperor.Pid)
		}
		return ""
	})
}

// A graceful reload keeps the socket and the master; the workers are new.
func TestObserveReload(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5140"})
	h := newHost(t, options)
	before := socketsOf(observe(t, h), u.Pid)[0]
	if err := unix.Kill(u.Pid, unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		found := socketsOf(observe(t, h), u.Pid)
		if len(found) != 1 {
			return fmt.Sprintf("%+v", found)
		}
		after := found[0]
		if after.ID != before.ID || after.Key() != before.Key() {
			t.Fatalf("before %+v, after %+v", before, after)
		}
		if len(after.Workers) != 2 || after.Workers[0].PID == before.Workers[0].PID {
			return fmt.Sprintf("workers %+v", after.Workers)
		}
		return ""
	})
}
