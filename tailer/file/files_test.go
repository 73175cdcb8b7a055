package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
	"qwatch/matcher"
	"qwatch/tailer"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	appendTo(func(err error) { must(t, err) }, path, text)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.Rename(from, to))
}

// TestEndlessLine reads a line without an end in pieces, records in it.
func TestEndlessLine(t *testing.T) {
	const record = `*** uWSGI listen queue of socket "127.0.0.1:5000" (fd: 3) full !!! (129/128) ***`
	path := filepath.Join(t.TempDir(), "app.log")
	var got sink
	var mu sync.Mutex
	records := 0
	_, stop := follow(t, Options{Globs: []string{path}}, func(c tailer.Chunk) {
		mu.Lock()
		defer mu.Unlock()
		got.handle(c)
		records += bytes.Count(c.Text, []byte(record))
	})
	var text strings.Builder
	for i := range 40 {
		part := strings.Repeat("x", 10_000+i*37) + record
		text.WriteString(part)
		write(t, path, part)
	}
	text.WriteString("\n")
	write(t, path, "\n")
	until(t, "the line", func() bool { return len(got.String()) >= text.Len() })
	stop()
	if diff := cmp.Diff(text.String(), got.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if records != 40 {
		t.Errorf("%d whole records, want 40", records)
	}
}

// TestStood tells what stood in a file before the start from what came since,
// also in one read.
func TestStood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	written := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
	write(t, path, "old\nolder\nhalf")
	must(t, os.Chtimes(path, time.Time{}, written))
	other := filepath.Join(filepath.Dir(path), "come.log") // is renamed to a name that is followed
	write(t, other+".new", "moved\n")
	must(t, os.Chtimes(other+".new", time.Time{}, written))
	var mu sync.Mutex
	var got []string
	follow(t, Options{Globs: []string{path, other}, FromStart: true}, func(c tailer.Chunk) {
		mu.Lock()
		defer mu.Unlock()
		for line := range bytes.Lines(c.Text) {
			age := "new"
			if !c.Stood.IsZero() {
				age = c.Stood.Sub(written).String()
			}
			got = append(got, filepath.Base(c.Source)+" "+age+" "+strings.TrimSpace(string(line)))
		}
	})
	wants := func(want ...string) {
		t.Helper()
		until(t, "the lines", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(got) >= len(want)
		})
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
		got = nil
	}
	wants("app.log 0s old", "app.log 0s older")
	write(t, path, " a line\nnew\n")
	wants("app.log new half a line", "app.log new new")
	rename(t, other+".new", other)
	wants("come.log 0s moved")
	must(t, os.Truncate(path, 0))
	write(t, path, "again\n")
	wants("app.log new again")
}

// TestManyFiles follows a thousand files, has each written to and rotated,
// and looks at what one idle file costs.
func TestManyFiles(t *testing.T) {
	dir := t.TempDir()
	const n = 1000
	name := func(i int) string { return filepath.Join(dir, fmt.Sprintf("app%d.log", i)) }
	for i := range n {
		write(t, name(i), "old\n")
	}
	var l ledger
	follow(t, Options{Globs: []string{filepath.Join(dir, "*.log")}}, l.handle)
	for i := range n {
		write(t, name(i), string(numbered(i)))
		rename(t, name(i), name(i)+".1")
		write(t, name(i), string(numbered(n+i)))
		write(t, name(i)+".1", string(numbered(2*n+i))) // a late line
	}
	until(t, "all lines", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.seen) == 3*n
	})
	if v := l.judge(3*n, nil); v != (verdict{}) {
		t.Errorf("%+v", v)
	}
}

// TestLongLine reads a line of a gigabyte that has no end yet.
func TestLongLine(t *testing.T) {
	size := int64(64 << 20)
	if nightly() {
		size = 1 << 30
	}
	path := filepath.Join(t.TempDir(), "app.log")
	var got int64
	var mu sync.Mutex
	follow(t, Options{Globs: []string{path}}, func(c tailer.Chunk) {
		mu.Lock()
		defer mu.Unlock()
		if bytes.Count(c.Text, []byte("x")) != len(c.Text) {
			t.Errorf("other text than was written")
		}
		got += int64(len(c.Text))
	})
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	block := strings.Repeat("x", 1<<20)
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	for range size >> 20 {
		io.WriteString(file, block)
	}
	until(t, "the line but for its last bytes", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got > size-matcher.LongLine
	})
	runtime.ReadMemStats(&now)
	if used := now.TotalAlloc - before.TotalAlloc; used > 256<<10 {
		t.Errorf("%d bytes were allocated, want less than 256 KiB", used)
	}
}

// TestLogrotate has the real logrotate rotate the log.
func TestLogrotate(t *testing.T) {
	testbed.Needs(t, "logrotate")
	for _, how := range []string{
		"create", "copytruncate", "create\ncompress", "create\ncompress\ndelaycompress",
		"create\ndateext\ndateformat -%s", "copytruncate\ncompress\ndelaycompress", "copytruncate\ndateext\ndateformat -%s",
	} {
		t.Run(strings.ReplaceAll(how, "\n", " "), func(t *testing.T) {
			dir, state := t.TempDir(), t.TempDir()
			path := filepath.Join(dir, "app.log")
			conf := filepath.Join(state, "conf")
			must(t, os.WriteFile(conf, fmt.Appendf(nil, "%s {\nrotate 100\nsu root root\n%s\n}\n", path, how), 0o644))
			var l ledger
			var told sink
			f := l.follow(t, path, Options{Events: told.event})
			mode := torment{flag: os.O_APPEND, late: !strings.Contains(how, "copytruncate")}
			mode.turn = func(t *testing.T, _ string, _ int, reopen func() *os.File) *os.File {
				if out, err := exec.Command("logrotate", "-f", "-s", filepath.Join(state, "status"), conf).CombinedOutput(); err != nil {
					t.Errorf("logrotate: %v\n%s", err, out)
				}
				if mode.late {
					return reopen()
				}
				return nil
			}
			every, rounds := 50*time.Millisecond, 20
			if strings.Contains(how, "%s") { // a name for each second
				every, rounds = 2500*time.Millisecond, 2
			}
			n := torture(t, mode, path, func(round int) bool { return round < rounds }, every)
			until(t, "the last line", func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.seen[n-1] > 0
			})
			l.pass(t, f, n)
			v := l.judge(n, onDisk(t, dir))
			t.Logf("%d lines, %d rotations: lost %d, doubled %d, mangled %d; destroyed by the rotation %d, truncations %d",
				n, rounds, v.lost, v.doubled, v.mangled, v.destroyed, truncations(f))
			if v.lost+v.doubled+v.mangled > 0 {
				t.Errorf("%+v %.200q", v, l.mangled)
			}
			// A generation that was compressed and deleted while this machine
			// stood still takes its late lines with it.
			if kinds := told.kinds(); v.destroyed > 0 && !strings.Contains(kinds, "truncated") &&
				!strings.Contains(kinds, "recovered") && !strings.Contains(kinds, "lost") {
				t.Errorf("%d lines were destroyed, and nothing was told", v.destroyed)
			}
		})
	}
}

// TestPolling takes inotify away from the reader, in a user namespace.
func TestPolling(t *testing.T) {
	testbed.Needs(t, "user namespace")
	for _, limit := range []string{"max_inotify_instances", "max_inotify_watches"} {
		t.Run(limit, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app.log")
			write(t, path, "old\n")
			out, state := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "positions")
			r := exec.Command(os.Args[0])
			r.Env = append(os.Environ(), "TAILER_TEST_FOLLOW="+path, "TAILER_TEST_OUT="+out,
				"TAILER_TEST_STATE="+state, "TAILER_TEST_LIMIT=/proc/sys/user/"+limit)
			r.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			}
			var log bytes.Buffer
			r.Stderr = &log
			if err := r.Start(); err != nil {
				t.Fatal(err)
			}
			until(t, "the first checkpoint", func() bool {
				_, err := os.Stat(state)
				return err == nil
			})
			write(t, path, "one\n")
			rename(t, path, path+".1")
			write(t, path, "two\n")
			until(t, "both lines", func() bool {
				data, _ := os.ReadFile(out)
				return string(data) == "one\ntwo\n"
			})
			r.Process.Signal(syscall.SIGTERM)
			if err := r.Wait(); err != nil {
				t.Errorf("reader: %v", err)
			}
			if n := strings.Count(log.String(), "{polling"); n == 0 || n > 2 {
				t.Errorf("polling was told %d times:\n%s", n, &log)
			}
		})
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(`{"version":1,"saved":"2026-11-22T16:00:00Z","files":[{"path":"/a","dev":1,"ino":2,"born":3,"handle":"AQ==","off":4,"window":"YWFhCg==","head":{"text":"YWFhCg=="}}]}`))
	f.Add([]byte(`{"version":1,"files":[{"path":"/a","off":-1}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeCheckpoint(data)
		if err != nil {
			return
		}
		for _, p := range c.Files {
			var in inode
			p.apply(&in)
			in.learn([]byte("more"))
			in.advance([]byte("more"))
			if in.off < 0 || len(in.window) > windowSize || len(in.head.Text) > windowSize {
				t.Errorf("%+v", in)
			}
		}
	})
}

func TestRelated(t *testing.T) {
	for name, want := range map[string]bool{
		"app.log": false, "app.log.1": true, "app.log-20261122": true, "app.log.1.gz": true, "app.log~": true,
		"app-20261122.log": true, "app-20261122.log.gz": true, "app.1.log": true, "app-error.log": false,
		"app2.log": false, "app.logs": false, "ap.log": false, "app": false,
	} {
		if got := related("app.log", name); got != want {
			t.Errorf("related(app.log, %s) = %v, want %v", name, got, want)
		}
	}
}

// Between the look at a name and its opening, whoever may write to the
// directory of logs can make it lead to a device.
func TestOpenFileOpensNoDevice(t *testing.T) {
	link := filepath.Join(t.TempDir(), "app.log")
	if err := os.Symlink("/dev/zero", link); err != nil {
		t.Fatal(err)
	}
	fd, _, _, err := openFile(link)
	if err == nil {
		unix.Close(fd)
	}
	if !errors.Is(err, errNotRegular) {
		t.Errorf("open a link to /dev/zero: %v, want: %v", err, errNotRegular)
	}
}

// Options.Cut leaves less than a pipe's buffer holds, with room to read.
func TestCutFits(t *testing.T) {
	if matcher.LongLine >= pipeSize {
		t.Errorf("matcher.LongLine is %d, a pipe's buffer %d", matcher.LongLine, pipeSize)
	}
}

// A file that is born right after the start is younger than it.
func TestBornAfterStart(t *testing.T) {
	for range 20 {
		since := beforeNow()
		path := filepath.Join(t.TempDir(), "app.log")
		write(t, path, "new\n")
		if st, err := statPath(path); err != nil || st.since() <= since {
			t.Fatalf("start %d, birth %d, %v", since, st.since(), err)
		}
	}
}
