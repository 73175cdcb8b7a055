package integration

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

// Of these sockets uWSGI 2.0.21 says nothing, however full they are: only the
// probe sees them.
func TestSilentSockets(t *testing.T) {
	for name, address := range map[string]string{
		"path": filepath.Join(directory(t), "app.sock"), "abstract": "@qwatch-test", "tcp6": "[::1]:0",
	} {
		t.Run(name, func(t *testing.T) {
			fresh(t)
			u := uwsgi(t, testbed.Options{Address: address})
			q := start(t, settings{Source: u.LogFile, Probe: "250ms", Threshold: 3})
			flood(t, u, 600, 150) // whom a full UNIX socket turns away does not come again; all have room in the end
			raised(t, u, 1024)
			if strings.Contains(u.Log(), " full !!! ") {
				t.Error("uWSGI has written a record")
			}
			wantSomaxconn(t, 1024)
			if l := q.waitFor("is full: ")["source"]; l != "probe" {
				t.Errorf("the incident was opened by %v, want the probe", l)
			}
			q.waitFor("fixed at ")
		})
	}
}

// Behind uWSGI's own HTTP router lies the socket that overflows, on a port that
// nobody has chosen.
func TestHTTPRouter(t *testing.T) {
	fresh(t)
	front := "127.0.0.1:19080"
	u := testbed.Run(t, testbed.Options{Listen: 100, Args: []string{"--plugin", "http", "--http", front, "--http-timeout", "60"}})
	backend := regexp.MustCompile(`uwsgi socket 0 bound to TCP address (127\.0\.0\.1:\d+) \(port auto-assigned\)`)
	until(t, "the backend socket", func() bool { return backend.MatchString(u.Log()) })
	u.Address = backend.FindStringSubmatch(u.Log())[1]
	wantLimit(t, u, 100)

	q := start(t, settings{Source: u.LogFile, Threshold: 3})
	ctx := t.Context()
	go testbed.Flood(ctx, front, testbed.FloodOptions{Connections: 400, Rate: 400, Request: "/?ms=5000", Timeout: time.Minute})
	raised(t, u, 1024)
	if got := q.trail(t)[0].Socket; got != u.Address {
		t.Errorf("raised %s, want the backend %s", got, u.Address)
	}
	if _, limit, err := testbed.Queue(front); err != nil || limit != 100 {
		t.Errorf("limit of the front = %d, %v; want 100 as before", limit, err)
	}
}

// elsewhere is a uWSGI in a network namespace of its own, as in a container.
type elsewhere struct {
	*testbed.UWSGI
	t *testing.T
}

func inAnotherNamespace(t *testing.T) elsewhere {
	t.Helper()
	fresh(t, "root", "unshare", "nsenter")
	program := filepath.Join(directory(t), "contained")
	replace(t, program, []byte(`#!/bin/sh
exec unshare -n sh -c 'ip link set lo up && echo 128 > /proc/sys/net/core/somaxconn && exec uwsgi "$@"' sh "$@"
`))
	if err := syscall.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	u := testbed.Run(t, testbed.Options{Program: program, Address: "127.0.0.1:19090", Listen: 100, Args: []string{"--socket-timeout", "30"}})
	return elsewhere{u, t}
}

// run runs a command in the namespace.
func (e elsewhere) run(command ...string) string {
	e.t.Helper()
	out, err := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(e.Pid), "-n", "--"}, command...)...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("%v: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (e elsewhere) limit() int {
	e.t.Helper()
	f := strings.Fields(e.run("ss", "-H", "-ltn", "sport = :19090"))
	if len(f) < 4 {
		e.t.Fatalf("ss says %q", f)
	}
	n, err := strconv.Atoi(f[2])
	if err != nil {
		e.t.Fatal(err)
	}
	return n
}

func (e elsewhere) somaxconn() string { return e.run("cat", "/proc/sys/net/core/somaxconn") }

// hold begins connections inside the namespace and holds them.
func (e elsewhere) hold(connections int) {
	e.t.Helper()
	done := make(chan error)
	go func() {
		// The thread must not end with this goroutine: uWSGI may have been
		// forked from it, and would get its Pdeathsig (prctl(2)).
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer func() {
				if unix.Setns(home, unix.CLONE_NEWNET) == nil {
					runtime.UnlockOSThread()
				}
				unix.Close(home)
			}()
			var ns int
			if ns, err = unix.Open(fmt.Sprintf("/proc/%d/ns/net", e.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
				err = unix.Setns(ns, unix.CLONE_NEWNET)
				unix.Close(ns)
			}
		}
		for i := 0; i < connections && err == nil; i++ {
			var fd int
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
				break
			}
			e.t.Cleanup(func() { unix.Close(fd) })
			if err = unix.Connect(fd, &unix.SockaddrInet4{Port: 19090, Addr: [4]byte{127, 0, 0, 1}}); err == unix.EINPROGRESS {
				err = nil
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		e.t.Fatal(err)
	}
}

// A uWSGI in a container is seen and named; it is left alone unless the policy
// says otherwise, and then changed inside its own namespace only.
func TestAnotherNamespace(t *testing.T) {
	var ns unix.Stat_t
	t.Run("seen", func(t *testing.T) {
		u := inAnotherNamespace(t)
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", u.Pid), &ns); err != nil {
			t.Fatal(err)
		}
		q := start(t, settings{Source: u.LogFile, Threshold: 3})
		u.hold(400)
		l := q.waitFor("leaving alone ")
		if want := fmt.Sprintf("%s in netns:%d", u.Address, ns.Ino); l["code"] != "foreign" || l["socket"] != want {
			t.Errorf("verdict %v about %v, want foreign about %s", l["code"], l["socket"], want)
		}
		until(t, "more records", func() bool { return strings.Count(u.Log(), " full !!! ") >= 5 })
		if n := u.limit(); n != 100 || u.somaxconn() != "128" {
			t.Errorf("limit %d under somaxconn %s, want 100 under 128", n, u.somaxconn())
		}
		if events := q.trail(t); len(events) > 0 {
			t.Errorf("audit trail: %v", events)
		}
	})
	t.Run("changed", func(t *testing.T) {
		u := inAnotherNamespace(t)
		q := start(t, settings{Source: u.LogFile, Threshold: 3, Policy: "containers = true"})
		u.hold(400)
		until(t, "the limit there is 1024", func() bool { return u.limit() == 1024 })
		if got := u.somaxconn(); got != "1024" {
			t.Errorf("somaxconn there = %s, want 1024", got)
		}
		wantSomaxconn(t, testbed.StartSomaxconn)
		if left := names(t, "/etc/sysctl.d"); len(left) > 0 {
			t.Errorf("files were written that do not reach it: %v", left)
		}
		q.advised("which no file of the host reaches")
		q.waitFor("fixed at ")
	})
}

// limits of the sockets that listen on one address, by inode.
func limits(t *testing.T, address string) map[string]int {
	t.Helper()
	out, err := exec.Command("ss", "-H", "-ltne").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	inode := regexp.MustCompile(` ino:(\d+) `)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); f[3] == address {
			if found[inode.FindStringSubmatch(line)[1]], err = strconv.Atoi(f[2]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return found
}

// held is the inode of a listening socket of a process.
func held(t *testing.T, pid int, of map[string]int) string {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		var name [64]byte
		n, _ := unix.Readlink(link, name[:])
		inode := strings.TrimSuffix(strings.TrimPrefix(string(name[:max(n, 0)]), "socket:["), "]")
		if _, ok := of[inode]; ok {
			return inode
		}
	}
	t.Fatalf("process %d holds none of %v", pid, of)
	return ""
}

// Two masters on one address, each with a queue of its own: the full one is
// raised, the other is not; and when that is full too, its turn comes whatever
// cooldown the first is in.
func TestReusePort(t *testing.T) {
	fresh(t)
	small := uwsgi(t, testbed.Options{Listen: 40, Args: []string{"--reuse-port"}})
	large := uwsgi(t, testbed.Options{Listen: 128, Address: small.Address, Args: []string{"--reuse-port"}})
	of := limits(t, small.Address)
	a, b := held(t, small.Pid, of), held(t, large.Pid, of)
	if len(of) != 2 || of[a] != 40 || of[b] != 128 {
		t.Fatalf("limits: %v; want 40 of %s and 128 of %s", of, a, b)
	}
	q := start(t, settings{Source: filepath.Join(filepath.Dir(filepath.Dir(small.LogFile)), "testbed-*", "*.log"), Threshold: 3})
	flood(t, small, 160, 0) // about 80 for each
	flood(t, small, 200, 8) // and as many more as the workers take
	until(t, "the small one is raised", func() bool { return limits(t, small.Address)[a] == 1024 })
	if n := limits(t, small.Address)[b]; n != 128 {
		t.Errorf("limit of the other = %d, want 128", n)
	}
	flood(t, small, 2000, 100)
	until(t, "the large one is raised", func() bool { return limits(t, small.Address)[b] == 1024 })
	if got := limits(t, small.Address)[a]; got != 1024 {
		t.Errorf("limit of the small one = %d, want 1024 still", got)
	}
	var pids []int
	until(t, "both raises are recorded", func() bool { // after they are done
		pids = nil
		for _, e := range q.trail(t) {
			if e.Action == "relisten" && e.Result == "applied" {
				pids = append(pids, e.PID)
			}
		}
		return len(pids) >= 2
	})
	if len(pids) != 2 || pids[0] != small.Pid || pids[1] != large.Pid {
		t.Errorf("raised sockets of %v, want of %d and %d", pids, small.Pid, large.Pid)
	}
}
