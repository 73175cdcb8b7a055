package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
	"qwatch/remediate"
)

var options = Options{
	Processes: []string{"uwsgi", "uwsgi-core"},
	Sysctls:   []string{"net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.core.no_such_key"},
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

func observe(t *testing.T, h *Host) remediate.Facts {
	t.Helper()
	facts, err := h.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// describe writes each socket as one line; who tells the names of the masters.
func describe(facts remediate.Facts, who map[int]string) []string {
	lines := []string{}
	for _, s := range facts.Sockets {
		lines = append(lines, fmt.Sprintf("%s %s %d/%d of %s, %d workers, foreign %v, somaxconn %d",
			s.Family, s.Address, s.Length, s.Limit, who[s.Master.PID], len(s.Workers), s.Foreign, s.Somaxconn))
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
	listen(t, inet4("127.0.0.1:5104"), 5, 0) // not of a uWSGI

	h := newHost(t, options)
	facts := observe(t, h)
	who := map[int]string{tcp.Pid: "A", many.Pid: "B", router.Pid: "C"}
	got := describe(facts, who)
	want := []string{
		"tcp 0.0.0.0:5102 0/100 of B, 3 workers, foreign false, somaxconn 128",
		"tcp 127.0.0.1:5100 0/64 of A, 2 workers, foreign false, somaxconn 128",
		"tcp 127.0.0.1:5103 0/100 of C, 1 workers, foreign false, somaxconn 128", // the router
		"tcp 127.0.0.1:HIDDEN 0/100 of C, 2 workers, foreign false, somaxconn 128",
		"tcp6 [::1]:5101 0/100 of B, 3 workers, foreign false, somaxconn 128",
		"unix " + path + " 0/100 of B, 3 workers, foreign false, somaxconn 128",
		"unix @qwatch-app 0/100 of B, 3 workers, foreign false, somaxconn 128",
	}
	for _, s := range facts.Sockets {
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
	if len(facts.Cannot)+len(facts.Unseen) != 0 {
		t.Errorf("as root: cannot %v, unseen %q", facts.Cannot, facts.Unseen)
	}
	if facts.Sysctl["net.core.somaxconn"] != 128 || len(facts.Sysctl) != 2 {
		t.Errorf("sysctls: %v", facts.Sysctl)
	}

	s := facts.Sockets[slices.IndexFunc(facts.Sockets, func(s remediate.Socket) bool { return s.Address == "127.0.0.1:5100" })]
	pids, err := tcp.Workers()
	if err != nil {
		t.Fatal(err)
	}
	if len(pids) != 2 || s.Workers[0].PID != pids[0] || s.Workers[1].PID != pids[1] || s.Workers[0].State != 'S' || s.Master.Comm != "uwsgi" || s.Master.UID != 0 {
		t.Errorf("master %+v, workers %+v, want pids %v", s.Master, s.Workers, pids)
	}
}

// A full queue is shown as the kernel has it, with its overflows.
func TestObserveFull(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5110", Listen: 8, Workers: 1})
	h := newHost(t, options)
	before := observe(t, h)
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
		if err := unix.Connect(s, inet4(u.Address)); err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	eventually(t, func() string {
		facts := observe(t, h)
		s := facts.Sockets[0]
		// A worker that poll(2)s when it is stopped may have taken one.
		if s.Length != 9 || s.Limit != 8 || !s.Full() || s.Workers[0].State != 'T' || s.Overflows <= before.Sockets[0].Overflows {
			return fmt.Sprintf("%+v", s)
		}
		readings, err := h.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(readings) != 1 || readings[0].ID != s.ID || !readings[0].Full() || readings[0].Limit != 8 || readings[0].Overflows < s.Overflows || readings[0].Opens == 0 {
			return fmt.Sprintf("%+v", readings)
		}
		return ""
	})
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

// Sample notices by itself which uWSGI come and go.
func TestSample(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	h := newHost(t, options)
	sample := func() []remediate.Reading {
		readings, err := h.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return readings
	}
	if got := sample(); len(got) != 0 {
		t.Fatalf("without a uWSGI: %+v", got)
	}
	first := h.walked
	h.walked = first.Add(-walkGap) // so that the test need not wait
	if sample(); h.walked.After(first) {
		t.Error("walked over /proc though no socket appeared")
	}

	other := listen(t, inet4("127.0.0.1:5120"), 5, 0)
	if sample(); !h.walked.After(first) {
		t.Error("did not walk over /proc though a socket appeared")
	}
	second := h.walked
	h.walked = second.Add(-walkGap)
	if sample(); h.walked.After(second) {
		t.Error("walked over /proc again for a socket that is nobody's")
	}
	unix.Close(other)

	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5121"})
	h.walked = h.walked.Add(-walkGap)
	got := sample()
	if len(got) != 1 || got[0].Limit != 100 || got[0].Full() {
		t.Fatalf("with a uWSGI: %+v", got)
	}
	u.Stop()
	eventually(t, func() string { // the workers end a little after the master
		if got := sample(); len(got) != 0 {
			return fmt.Sprintf("after its end: %+v", got)
		}
		return ""
	})
	h.walked = h.walked.Add(-rewalk)
	if third := h.walked; len(sample()) != 0 || !h.walked.After(third.Add(rewalk)) {
		t.Error("did not walk after the time for it")
	}
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
		facts := observe(t, h)
		masters := make(map[string]remediate.Process)
		for _, s := range facts.Sockets {
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
	before := observe(t, h).Sockets[0]
	if err := unix.Kill(u.Pid, unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		facts := observe(t, h)
		if len(facts.Sockets) != 1 {
			return fmt.Sprintf("%d sockets", len(facts.Sockets))
		}
		after := facts.Sockets[0]
		if after.ID != before.ID || after.Key() != before.Key() {
			t.Fatalf("before %+v, after %+v", before, after)
		}
		if len(after.Workers) != 2 || after.Workers[0].PID == before.Workers[0].PID {
			return fmt.Sprintf("workers %+v", after.Workers)
		}
		return ""
	})
}
