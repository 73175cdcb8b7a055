package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"qwatch/internal/testbed"
	"qwatch/matcher"
	"qwatch/tailer"
)

// TestMain is also the reader that TestRestarts kills.
func TestMain(m *testing.M) {
	if globs := os.Getenv("TAILER_TEST_FOLLOW"); globs != "" {
		if err := reader(globs); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testbed.Main(suite{m})
}

type suite struct{ m *testing.M }

// Run runs the tests, and ends the process.
func (s suite) Run() int {
	goleak.VerifyTestMain(s.m,
		// nxadm/tail's shared watch stays for good, with its fsnotify.
		goleak.IgnoreAnyFunction("github.com/nxadm/tail/watch.(*InotifyTracker).run"),
		goleak.IgnoreAnyFunction("github.com/fsnotify/fsnotify.(*inotify).readEvents"))
	return 0
}

// reader follows until SIGTERM and copies what it is handed to a file.
func reader(glob string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if limit := os.Getenv("TAILER_TEST_LIMIT"); limit != "" {
		if err := os.WriteFile(limit, []byte("0"), 0); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(os.Getenv("TAILER_TEST_OUT"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	f, err := New(Options{
		Globs:     []string{glob},
		StateFile: os.Getenv("TAILER_TEST_STATE"),
		Events:    func(e Event) { fmt.Fprintln(os.Stderr, e) },
		Cut:       matcher.Cut,
		Continues: matcher.Continues,
	}, func(c tailer.Chunk) { out.Write(c.Text) })
	if err != nil {
		return err
	}
	return f.Run(ctx)
}

// TestRestarts kills the reader again and again, half the time without a
// word, while the log is written and rotated.
func TestRestarts(t *testing.T) {
	restarts := 17
	if nightly() {
		restarts = 200
	}
	for _, mode := range torments {
		switch mode.name {
		case "rename, create at once", "uWSGI log-maxsize", "copytruncate":
		default:
			continue
		}
		t.Run(mode.name, func(t *testing.T) {
			dir, outs := t.TempDir(), t.TempDir()
			path := filepath.Join(dir, "app.log")
			must(t, os.WriteFile(path, nil, 0o644))
			var stop atomic.Bool
			var lines int
			var writer sync.WaitGroup
			finish := func() { stop.Store(true); writer.Wait() }
			t.Cleanup(finish) // also where a reader fails, so that the writer does not outlive the test
			var killed []bool
			for i := 0; i <= restarts; i++ {
				r := exec.Command(os.Args[0])
				out := filepath.Join(outs, fmt.Sprintf("%03d", i))
				var log bytes.Buffer
				r.Stderr = &log
				r.Env = append(os.Environ(), "TAILER_TEST_FOLLOW="+path, "TAILER_TEST_OUT="+out,
					"TAILER_TEST_STATE="+filepath.Join(outs, "state"))
				if err := r.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { r.Process.Kill(); r.Wait() })
				if i == 0 { // the very first start has its position
					until(t, "the first checkpoint", func() bool {
						_, err := os.Stat(filepath.Join(outs, "state"))
						return err == nil
					})
					writer.Go(func() {
						lines = torture(t, mode, path, func(int) bool { return !stop.Load() }, 150*time.Millisecond)
					})
				}
				if i == restarts {
					finish()
					judgeRestarts(t, dir, outs, killed, lines, func() {
						r.Process.Signal(syscall.SIGTERM)
						r.Wait()
					})
					return
				}
				killed = append(killed, rand.N(2) == 0)
				if !killed[i] {
					// Before it has its output it may not know the signal yet,
					// and die of it.
					until(t, "the reader has begun", func() bool {
						_, err := os.Stat(out)
						return err == nil
					})
				}
				time.Sleep(50*time.Millisecond + rand.N(400*time.Millisecond))
				if killed[i] {
					r.Process.Kill()
				} else {
					r.Process.Signal(syscall.SIGTERM)
				}
				if err := r.Wait(); err != nil && !killed[i] {
					t.Fatalf("reader: %v\n%s", err, &log)
				}
			}
		})
	}
}

func judgeRestarts(t *testing.T, dir, outs string, killed []bool, lines int, end func()) {
	disk := onDisk(t, dir)
	var l ledger
	read := func() (again, wrong int) {
		l = ledger{}
		first := map[int]int{} // line → the reader that had it first
		for i := 0; i <= len(killed); i++ {
			data, err := os.ReadFile(filepath.Join(outs, fmt.Sprintf("%03d", i)))
			if errors.Is(err, fs.ErrNotExist) { // killed before it had begun, or not begun yet
				continue
			}
			must(t, err)
			if i < len(killed) && killed[i] { // killed while it wrote a line
				data = data[:bytes.LastIndexByte(data, '\n')+1]
			}
			for line := range bytes.Lines(data) {
				l.add(line)
				n, _ := strconv.Atoi(string(line[:min(9, len(line))]))
				before, ok := first[n]
				if !ok {
					first[n] = i
					continue
				}
				again++
				for r := before; r < i || r == before; r++ {
					if r == i || !killed[r] {
						wrong++ // a clean stop lies between
						break
					}
				}
			}
		}
		return again, wrong
	}
	all := func() bool {
		read()
		for n := range disk {
			if l.seen[n] == 0 {
				return false
			}
		}
		return true
	}
	for stop := time.Now().Add(20 * time.Second); !all() && time.Now().Before(stop); {
		time.Sleep(500 * time.Millisecond)
	}
	end()
	again, wrong := read()
	v := l.judge(lines, disk)
	t.Logf("%d lines, %d restarts: lost %d, mangled %d, destroyed by the rotation %d; read again after kill -9 %d, after a clean stop %d",
		lines, len(killed), v.lost, v.mangled, v.destroyed, again, wrong)
	if v.lost+v.mangled+wrong > 0 {
		t.Errorf("%+v %.200q", v, l.mangled)
		for n := range lines {
			if missing := l.seen[n] == 0 && disk[n]; missing && (n == 0 || l.seen[n-1] > 0) {
				t.Logf("missing from %d", n)
			}
		}
	}
}

// A start that ends before it is ready leaves the next one the very first.
func TestEndedBeforeReady(t *testing.T) {
	opt := Options{Globs: []string{filepath.Join(t.TempDir(), "*.log")}, StateFile: filepath.Join(t.TempDir(), "positions")}
	run := func(ready bool) (first bool) {
		t.Helper()
		f, err := New(opt, func(tailer.Chunk) {})
		if err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(t.Context())
		defer end()
		if ready {
			go func() { <-f.Ready(); end() }()
		} else {
			end()
		}
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
		return f.past.first
	}
	for _, ready := range []bool{false, false, true} {
		if !run(ready) {
			t.Error("it was not the first")
		}
	}
	if run(false) {
		t.Error("it was the first, though one was ready before")
	}
}
