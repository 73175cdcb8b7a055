package apply

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"qwatch/internal/testbed"
	"qwatch/internal/uwsgi"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

const goodApp = `
def application(env, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'hi']
`

// site is a uWSGI whose deploy a test may spoil, with clients in a closed loop.
type site struct {
	*testbed.UWSGI
	ini, app string
	mu       sync.Mutex
	answers  []bool // whether each was a 200
}

// startSite starts one whose ini and app lie where a test can write them.
func startSite(t *testing.T, port int, options string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{ini: filepath.Join(dir, "app.ini"), app: filepath.Join(dir, "app.py")}
	write(t, s.app, goodApp)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	write(t, s.ini, fmt.Sprintf("[uwsgi]\nplugin = python3\nmaster = true\nprocesses = 2\nwsgi-file = %s\nhttp-socket = %s\nlogto = %s/log\n%s", s.app, address, dir, options))
	s.UWSGI = testbed.Run(t, testbed.Options{Bare: true, Address: address, LogFile: dir + "/log", Args: []string{"--ini", s.ini}})
	return s
}

// visit keeps three clients coming until the test ends.
func (s *site) visit(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	for range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				ok := get(ctx, s.Address)
				s.mu.Lock()
				s.answers = append(s.answers, ok)
				s.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	eventually(t, func() string {
		if n, _ := s.served(); n < 5 {
			return "no answers yet"
		}
		return ""
	})
}

// visit sends a client again and again, until end.
func visit(t *testing.T, address string) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var client sync.WaitGroup
	client.Go(func() {
		for ctx.Err() == nil {
			get(ctx, address)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return func() { cancel(); client.Wait() }
}

func get(ctx context.Context, address string) bool {
	c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
	b := make([]byte, 64)
	n, _ := c.Read(b)
	return strings.HasPrefix(string(b[:n]), "HTTP/1.0 200")
}

// served is how many clients were served, of so many.
func (s *site) served() (good, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ok := range s.answers {
		if ok {
			good++
		}
	}
	return good, len(s.answers)
}

// reloadAnyway reloads without a look at what the reload would bring.
func reloadAnyway(t *testing.T, s facts.Socket, timeout time.Duration) remediate.Outcome {
	t.Helper()
	a := New(names, nil)
	master, err := openProcess(s.Master)
	if err != nil {
		t.Fatal(err)
	}
	s.Config = uwsgi.Running(uwsgi.ProcessOf(s.Master), names, "")
	o := a.carryOut(t.Context(), remediate.Reload{Socket: s, Way: remediate.Way{Kind: remediate.WayHUP}, Timeout: timeout}, master)
	o.Action = remediate.Reload{Socket: s}
	return o
}

const (
	sleeping = "import time\ntime.sleep(%d)\n"
	exiting  = "import os\nos._exit(3)\n"
)

// However a deploy is broken, its reload is never called applied while clients
// are not served.
func TestReloadOfABrokenDeploy(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	lazyApps, lazy := "lazy-apps = true\n", "lazy = true\n"
	syntax := func(s *site) error { return os.WriteFile(s.app, []byte("def application(:\n"), 0o644) }
	code := func(text string) func(*site) error {
		return func(s *site) error { return os.WriteFile(s.app, []byte(text), 0o644) }
	}
	edit := func(old, now string) func(*site) error {
		return func(s *site) error {
			text, err := os.ReadFile(s.ini)
			if err != nil {
				return err
			}
			return os.WriteFile(s.ini, []byte(strings.ReplaceAll(string(text), old, now)), 0o644)
		}
	}
	unable := `the app could not be loaded ("unable to load app")`
	for i, tt := range []struct {
		name, options string
		spoil         func(*site) error
		timeout       time.Duration
		want          string
		worse         bool
	}{
		{"syntax error", "", syntax, time.Minute, unable, true},
		{"syntax error, lazy-apps", lazyApps, syntax, time.Minute, unable, true},
		{"syntax error, lazy", lazy, syntax, time.Minute, unable, true},
		{"missing file", "", func(s *site) error { return os.Remove(s.app) }, time.Minute, unable, true},
		{"another port", "", edit(":54", ":55"), time.Minute, "its socket is gone, and uWSGI listens on 127.0.0.1:55", true},
		{"another protocol", "", edit("http-socket", "socket"), time.Minute, "its socket speaks another protocol now", true},
		{"another protocol, without a request log", "disable-logging = true\n", edit("http-socket", "socket"), time.Minute, "its socket speaks another protocol now", true},
		{"fewer processes", "", edit("processes = 2", "processes = 1"), time.Minute, "there are 1 worker, where there were 2", true},
		{"an import of 30 s", "", code(fmt.Sprintf(sleeping, 30) + goodApp), 12 * time.Second, "not done after 12s; 0 of 2 new workers are there, nobody has been accepted for 1", true},
		{"an import of 30 s, lazy-apps", lazyApps, code(fmt.Sprintf(sleeping, 30) + goodApp), 12 * time.Second, "not done after 12s; 0 of 2 workers have loaded the app, nobody has been accepted for 1", true},
		{"an import that crashes after 8 s", "", code(fmt.Sprintf(sleeping, 8) + exiting), time.Minute, "the master has ended", true},
		{"an import that crashes after 8 s, lazy-apps", lazyApps, code(fmt.Sprintf(sleeping, 8) + exiting), 30 * time.Second, "has died", true},
		{"an import that fails after 8 s, lazy-apps", lazyApps, code(fmt.Sprintf(sleeping, 8) + "raise Exception('no')\n"), time.Minute, unable, true},
		{"a crash 8 s after the import", "", code(goodApp + "import threading, os, uwsgi\nuwsgi.post_fork_hook = lambda: threading.Timer(8, lambda: os._exit(3)).start()\n"), time.Minute, "within", true},
		{"every request fails", "", code("def application(env, start_response):\n    raise Exception('no')\n"), time.Minute, "was answered with a status of 500 or more", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startSite(t, 5400+i, tt.options+"enable-threads = true\n")
			socket := socketOf(t, s.Address)
			s.visit(t)
			if err := tt.spoil(s); err != nil {
				t.Fatal(err)
			}
			o := reloadAnyway(t, socket, tt.timeout)
			wantResult(t, o, "failed -1: reload of uWSGI", tt.want)
			if o.Served == nil {
				t.Fatal("nothing was seen of it")
			}
			if f, bad := o.Served.Verdict(); !bad || f.Worse != tt.worse {
				t.Errorf("%+v, %v", f, bad)
			}
		})
	}
}

// What merely takes long is put right by a second word, and an idle app is no
// broken one.
func TestReloadLate(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	s := startSite(t, 5430, "")
	socket := socketOf(t, s.Address)
	s.visit(t)
	write(t, s.app, fmt.Sprintf(sleeping, 6)+goodApp)
	o := reloadAnyway(t, socket, 2*time.Second)
	wantResult(t, o, "failed -1: reload of uWSGI", "not done after 2s")
	if o.Late == nil {
		t.Fatal("nobody looks again")
	}
	o = o.Late(t.Context())
	wantResult(t, o, "applied -1 (2 new workers after ", "gracefully, nobody accepted for ", "answered in 10s since")
	if gap := o.Served.Intake.Unserved; gap < 5*time.Second || gap > 12*time.Second {
		t.Errorf("nobody accepted for %s", gap)
	}
}

// That nobody has come proves nothing, and somebody who comes late does.
func TestReloadOfAnIdleApp(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	a := quick(nil)
	a.moreWatch = 3 * time.Second
	s := startSite(t, 5431, "")
	reload := remediate.Reload{Socket: socketOf(t, s.Address), Way: way("hup"), Timeout: time.Minute}
	o := a.Apply(t.Context(), reload)
	wantResult(t, o, "failed -1: reload of uWSGI", "(hup): not proven: nobody has connected in 4s since; 2 new workers after ", ", gracefully; ask it by hand")
	if f, bad := o.Served.Verdict(); !bad || f.Worse || !f.Unproven {
		t.Errorf("%+v, %v", f, bad)
	}
	a.moreWatch = time.Minute
	stood := strings.Count(s.Log(), "WSGI app 0")
	go func() {
		testbed.Until(t.Context(), time.Minute, "not reloaded", func() bool { return strings.Count(s.Log(), "WSGI app 0") > stood })
		time.Sleep(2 * time.Second) // beyond the ordinary watch
		get(t.Context(), s.Address)
	}()
	began := time.Now()
	o = a.Apply(t.Context(), reload)
	// That somebody was accepted is seen before uWSGI has written its line.
	wantResult(t, o, "applied -1 (2 new workers after ", ", gracefully; 1 ", " since)")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	socket := filepath.Join(t.TempDir(), "socket")
	u := testbed.Run(t, testbed.Options{Address: socket, Args: []string{"--disable-logging"}})
	a.moreWatch = time.Second
	o = a.Apply(t.Context(), remediate.Reload{Socket: socketOf(t, u.Address), Way: way("hup"), Timeout: time.Minute})
	wantResult(t, o, "failed -1: reload of uWSGI", "(hup): not proven: whether anybody was served could not be seen")
}
