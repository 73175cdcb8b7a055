package file

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
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
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"qwatch/tailer"
)

// needs skips a test where a command is missing; in CI that is a failure.
func needs(t *testing.T, command string) {
	t.Helper()
	if _, err := exec.LookPath(command); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed, and CI must not skip", command)
		}
		t.Skipf("%s is not installed", command)
	}
}

// sink collects text and events.
type sink struct {
	mu     sync.Mutex
	text   bytes.Buffer
	events []Event
}

func (s *sink) handle(c tailer.Chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(c.Text)
}

func (s *sink) event(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// kinds lists the kinds of events, each once.
func (s *sink) kinds() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.events {
		if k := string(e.Kind); !strings.Contains(strings.Join(all, " "), k) {
			all = append(all, k)
		}
	}
	return strings.Join(all, " ")
}

// gets waits for the text and a little longer, so that a second reading shows.
func (s *sink) gets(t *testing.T, want string) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for len(s.String()) < len(want) && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(30 * time.Millisecond)
	if diff := cmp.Diff(want, s.String()); diff != "" {
		t.Fatalf("text (-want +got):\n%s\nevents: %v", diff, s.events)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.WriteString(file, text); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func lines(what string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %d of %d, and some words to make it long enough\n", what, i, n)
	}
	return b.String()
}

// scene is a folder with a log and a reader that can be stopped and started.
type scene struct {
	*testing.T
	sink
	dir, log string
	opt      Options
	files    *Files
	stop     func()
}

func newScene(t *testing.T, globs ...string) *scene {
	dir := t.TempDir()
	s := &scene{T: t, dir: dir, log: filepath.Join(dir, "app.log")}
	if len(globs) == 0 {
		globs = []string{"app.log"}
	}
	for _, g := range globs {
		s.opt.Globs = append(s.opt.Globs, filepath.Join(dir, g))
	}
	s.opt.Events = s.event
	s.opt.StateFile = filepath.Join(t.TempDir(), "positions")
	return s
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) start() { s.files, s.stop = follow(s.T, s.opt, s.handle) }

// saved gives the checkpoint another time.
func (s *scene) saved(at time.Time) {
	data, err := os.ReadFile(s.opt.StateFile)
	must(s.T, err)
	c, err := decodeCheckpoint(data)
	must(s.T, err)
	c.Saved = at
	data, err = json.Marshal(c)
	must(s.T, err)
	must(s.T, os.WriteFile(s.opt.StateFile, data, 0o600))
}

// TestFollow plays one scene after the other. What is written is told apart
// by who may see it.
func TestFollow(t *testing.T) {
	tests := []struct {
		name  string
		globs []string
		play  func(s *scene)
	}{
		{"first start at the end", nil, func(s *scene) {
			write(s.T, s.log, "old\nhalf ")
			s.start()
			write(s.T, s.log, "a line\nnew\n")
			s.gets(s.T, "a line\nnew\n")
		}},
		{"first start from the beginning", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.opt.FromStart = true
			s.start()
			s.gets(s.T, "old\n")
		}},
		{"born later", nil, func(s *scene) {
			s.start()
			write(s.T, s.log, "one\n")
			s.gets(s.T, "one\n")
		}},
		{"restart", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			write(s.T, s.log, "one\nhal")
			s.gets(s.T, "one\n")
			s.stop()
			write(s.T, s.log, "f\ntwo\n")
			s.start()
			s.gets(s.T, "one\nhalf\ntwo\n")
		}},
		{"half a line across a rename", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			file, err := os.OpenFile(s.log, os.O_APPEND|os.O_WRONLY, 0)
			must(s.T, err)
			defer file.Close()
			io.WriteString(file, "one ha")
			rename(s.T, s.log, s.path("app.log.1"))
			write(s.T, s.log, "two\n")
			s.gets(s.T, "two\n")
			io.WriteString(file, "lf\n")
			s.gets(s.T, "two\none half\n")
		}},
		{"three rotations between two looks", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			hold, held := make(chan struct{}), make(chan struct{}, 1)
			var once sync.Once
			h := s.handle
			_, _ = follow(s.T, s.opt, func(c tailer.Chunk) {
				h(c)
				once.Do(func() { held <- struct{}{}; <-hold })
			})
			write(s.T, s.log, "zero\n")
			<-held
			for i, text := range []string{"one\n", "two\n", "three\n"} {
				rename(s.T, s.log, s.path(fmt.Sprintf("app.log.%d", i)))
				write(s.T, s.log, text)
				time.Sleep(20 * time.Millisecond) // births must differ
			}
			close(hold)
			until(s.T, "all generations", func() bool { return len(s.String()) == len("zero\none\ntwo\nthree\n") })
			for _, text := range []string{"zero\n", "one\n", "two\n", "three\n"} {
				if strings.Count(s.String(), text) != 1 {
					s.Errorf("%q is not there once in %q", text, s.String())
				}
			}
		}},
		{"a generation deleted unseen is told", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			hold, held := make(chan struct{}), make(chan struct{}, 1)
			var once sync.Once
			f, _ := follow(s.T, s.opt, func(c tailer.Chunk) {
				once.Do(func() { held <- struct{}{}; <-hold })
			})
			write(s.T, s.log, "zero\n")
			<-held
			for range 2 {
				must(s.T, os.Remove(s.log))
				write(s.T, s.log, "lost or not\n")
			}
			close(hold)
			until(s.T, "the event", func() bool { return strings.Contains(s.kinds(), "lost") })
			if got := f.Status()[0].Truncations; got != 1 {
				s.Errorf("%d truncations, want 1", got)
			}
		}},
		{"truncated and grown past the old size", nil, func(s *scene) {
			write(s.T, s.log, lines("old", 5))
			s.start()
			write(s.T, s.log, lines("one", 10))
			s.gets(s.T, lines("one", 10))
			must(s.T, os.WriteFile(s.log, []byte(lines("new", 40)), 0o644))
			s.gets(s.T, lines("one", 10)+lines("new", 40))
			if got := s.files.Status()[0].Truncations; got != 1 {
				s.Errorf("%d truncations, want 1", got)
			}
		}},
		{"truncated while not running", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			write(s.T, s.log, lines("one", 10))
			s.gets(s.T, lines("one", 10))
			s.stop()
			must(s.T, os.WriteFile(s.log, []byte(lines("new", 40)), 0o644))
			s.start()
			s.gets(s.T, lines("one", 10)+lines("new", 40))
		}},
		{"copied and truncated while not running", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			write(s.T, s.log, lines("one", 10))
			s.gets(s.T, lines("one", 10))
			s.stop()
			write(s.T, s.log, "rest\n")
			copyFile(s.T, s.log, s.path("app.log.1"))
			must(s.T, os.WriteFile(s.log, []byte("new\n"), 0o644))
			s.start()
			until(s.T, "both", func() bool { return len(s.String()) == len(lines("one", 10))+9 })
		}},
		{"rotated twice while not running, to names that do not match", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			write(s.T, s.log, lines("one", 10))
			s.gets(s.T, lines("one", 10))
			s.stop()
			write(s.T, s.log, "rest\n")
			rename(s.T, s.log, s.path("somewhere-else"))
			write(s.T, s.log, "two\n")
			rename(s.T, s.log, s.path("app.log.1"))
			write(s.T, s.log, "three\n")
			s.saved(time.Now()) // as if that had been there, but not been seen
			s.start()
			until(s.T, "all", func() bool { return len(s.String()) >= len(lines("one", 10))+15 })
			for _, text := range []string{"rest\n", "two\n", "three\n"} {
				if strings.Count(s.String(), text) != 1 {
					s.Errorf("%q is not there once in %q", text, s.String())
				}
			}
		}},
		{"compressed while not running, .gz and .zst", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			write(s.T, s.log, lines("one", 10))
			s.gets(s.T, lines("one", 10))
			s.stop()
			write(s.T, s.log, "rest\n")
			compress(s.T, s.log, s.path("app.log.2.gz"), func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
			write(s.T, s.log, "two\n")
			compress(s.T, s.log, s.path("app.log.1.zst"), func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z })
			write(s.T, s.log, "three\n")
			s.start()
			s.gets(s.T, lines("one", 10)+"rest\ntwo\nthree\n")
			s.stop()
			s.start()
			write(s.T, s.log, "four\n")
			s.gets(s.T, lines("one", 10)+"rest\ntwo\nthree\nfour\n")
		}},
		{"another file on the same inode number", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			write(s.T, s.log, "one\n")
			s.gets(s.T, "one\n")
			s.stop()
			before, err := statPath(s.log)
			must(s.T, err)
			must(s.T, os.Remove(s.log))
			write(s.T, s.log, "old\none\ntwo\n") // the same text, further
			now, err := statPath(s.log)
			must(s.T, err)
			s.Logf("inode %d, then %d", before.ino, now.ino)
			s.start()
			s.gets(s.T, "one\nold\none\ntwo\n")
		}},
		{"rotated to a name that matches", []string{"app.log*"}, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			write(s.T, s.log, "one\n")
			s.gets(s.T, "one\n")
			rename(s.T, s.log, s.path("app.log.1"))
			write(s.T, s.log, "two\n")
			s.gets(s.T, "one\ntwo\n")
			s.stop()
			write(s.T, s.log, "three\n")
			rename(s.T, s.path("app.log.1"), s.path("app.log.2"))
			rename(s.T, s.log, s.path("app.log.1"))
			s.start()
			s.gets(s.T, "one\ntwo\nthree\n")
		}},
		{"copied to a name that matches", []string{"app.log*"}, func(s *scene) {
			write(s.T, s.log, "old\n")
			s.start()
			for i := range 5 {
				text := lines(fmt.Sprint("round ", i), 20)
				before := s.String()
				write(s.T, s.log, text)
				s.gets(s.T, before+text)
				copyFile(s.T, s.log, s.path(fmt.Sprint("app.log.", i)))
				must(s.T, os.Truncate(s.log, 0))
			}
			before := s.String()
			write(s.T, s.log, "end\n")
			s.gets(s.T, before+"end\n")
		}},
		{"a symlink and its target both match", []string{"*.log"}, func(s *scene) {
			must(s.T, os.Symlink(s.log, s.path("link.log")))
			s.start()
			write(s.T, s.log, "one\n")
			s.gets(s.T, "one\n")
		}},
		{"Kubernetes' ..data", []string{"app.log"}, func(s *scene) {
			for _, v := range []string{"..v1", "..v2"} {
				must(s.T, os.Mkdir(s.path(v), 0o755))
			}
			write(s.T, s.path("..v1/app.log"), "old\n")
			must(s.T, os.Symlink("..v1", s.path("..data")))
			must(s.T, os.Symlink("..data/app.log", s.log))
			s.start()
			write(s.T, s.path("..v1/app.log"), "one\n")
			s.gets(s.T, "one\n")
			write(s.T, s.path("..v2/app.log"), "two\n")
			must(s.T, os.Symlink("..v2", s.path("..tmp")))
			rename(s.T, s.path("..tmp"), s.path("..data"))
			s.gets(s.T, "one\ntwo\n")
			rename(s.T, s.path("..v2/app.log"), s.path("..v2/app.log.1"))
			write(s.T, s.path("..v2/app.log"), "three\n")
			s.gets(s.T, "one\ntwo\nthree\n")
		}},
		{"folders that come, vanish and return", []string{"a/*/x.log", "b/c/y.log"}, func(s *scene) {
			s.start()
			want := ""
			for i := range 3 {
				for _, path := range []string{"a/v1/x.log", "b/c/y.log"} {
					text := fmt.Sprintf("%s %d\n", path, i)
					want += text
					must(s.T, os.MkdirAll(filepath.Dir(s.path(path)), 0o755))
					write(s.T, s.path(path), text)
					s.gets(s.T, want)
				}
				must(s.T, os.RemoveAll(s.path("a")))
				if i == 0 {
					rename(s.T, s.path("b/c"), s.path("b/d"))
				} else {
					must(s.T, os.RemoveAll(s.path("b")))
				}
			}
		}},
		{"a FIFO", []string{"*.fifo"}, func(s *scene) {
			must(s.T, syscall.Mkfifo(s.path("a.fifo"), 0o600))
			s.start()
			want := ""
			for i := range 3 { // each time another writer
				text := lines(fmt.Sprint("writer ", i), 500)
				write(s.T, s.path("a.fifo"), text)
				want += text
				s.gets(s.T, want)
			}
			must(s.T, os.Remove(s.path("a.fifo")))
			must(s.T, syscall.Mkfifo(s.path("b.fifo"), 0o600))
			write(s.T, s.path("b.fifo"), `{"msg":"}{"}{"a":1}`)
			s.gets(s.T, want+`{"msg":"}{"}{"a":1}`)
		}},
		{"a hole after copytruncate", nil, func(s *scene) {
			file, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY, 0o644)
			must(s.T, err)
			defer file.Close()
			s.start()
			file.Seek(3<<30, io.SeekStart)
			io.WriteString(file, "one\n")
			s.gets(s.T, "one\n")
			must(s.T, os.Truncate(s.log, 0))
			io.WriteString(file, "two\n")
			s.gets(s.T, "one\ntwo\n")
		}},
		{"JSON objects without newlines", nil, func(s *scene) {
			s.start()
			write(s.T, s.log, `{"msg":"a}{b\"}{"}{"msg":`)
			s.gets(s.T, `{"msg":"a}{b\"}{"}`)
			write(s.T, s.log, `{"x":1}}`)
			s.gets(s.T, `{"msg":"a}{b\"}{"}{"msg":{"x":1}}`)
		}},
		{"a line without an end", nil, func(s *scene) {
			s.start()

			var text strings.Builder
			for i := range 40 {
				part := strings.Repeat("x", 10_000+i*37) + record
				text.WriteString(part)
				write(s.T, s.log, part)
			}
			write(s.T, s.log, "\n")
			s.gets(s.T, text.String()+"\n")
		}},
		{"unreadable, then readable", nil, func(s *scene) {
			must(s.T, os.Symlink(s.log, s.log)) // a loop: also root cannot read it
			s.start()
			until(s.T, "the event", func() bool { return s.kinds() == "unreadable" })
			if st := s.files.Status(); len(st) != 1 || st[0].Error == nil {
				s.Errorf("status: %+v", st)
			}
			must(s.T, os.Remove(s.log))
			write(s.T, s.log, "one\n")
			s.gets(s.T, "one\n")
			if st := s.files.Status(); len(st) != 1 || st[0].Error != nil {
				s.Errorf("status: %+v", st)
			}
		}},
		{"a broken state file", nil, func(s *scene) {
			write(s.T, s.log, "old\n")
			write(s.T, s.opt.StateFile, "{")
			s.start()
			write(s.T, s.log, "one\n")
			s.gets(s.T, "one\n")
			if s.kinds() != "unsaved" {
				s.Errorf("events: %v", s.events)
			}
		}},
		{"invalid UTF-8, CR and NUL stay", nil, func(s *scene) {
			s.start()
			write(s.T, s.log, "\xff\r\na\x00b\n")
			s.gets(s.T, "\xff\r\na\x00b\n")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.play(newScene(t, tt.globs...)) })
	}
}

func compress(t *testing.T, from, to string, writer func(io.Writer) io.WriteCloser) {
	data, err := os.ReadFile(from)
	must(t, err)
	var b bytes.Buffer
	w := writer(&b)
	w.Write(data)
	must(t, w.Close())
	must(t, os.WriteFile(to, b.Bytes(), 0o644))
	must(t, os.Remove(from))
}

// TestManyFiles follows a thousand files, has each written to and rotated,
// and looks at what one idle file costs.
func TestManyFiles(t *testing.T) {
	s := newScene(t, "*.log")
	const n = 1000
	name := func(i int) string { return s.path(fmt.Sprintf("app%d.log", i)) }
	for i := range n {
		write(t, name(i), "old\n")
	}
	var l ledger
	s.files, s.stop = follow(t, s.opt, l.handle)
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
	s := newScene(t)
	var got int64
	var mu sync.Mutex
	_, _ = follow(t, s.opt, func(c tailer.Chunk) {
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
	file, err := os.Create(s.log)
	must(t, err)
	defer file.Close()
	for range size >> 20 {
		io.WriteString(file, block)
	}
	until(t, "the line but for its last bytes", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got > size-longLine
	})
	runtime.ReadMemStats(&now)
	if used := now.TotalAlloc - before.TotalAlloc; used > 256<<10 {
		t.Errorf("%d bytes were allocated, want less than 256 KiB", used)
	}
}

// TestLogrotate has the real logrotate rotate the log.
func TestLogrotate(t *testing.T) {
	needs(t, "logrotate")
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
			f, _ := follow(t, Options{Globs: []string{path}, Events: told.event}, l.handle)
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
			time.Sleep(time.Second) // so that a second reading shows, and what was missed is told
			v := l.judge(n, onDisk(t, dir))
			t.Logf("%d lines, %d rotations: lost %d, doubled %d, mangled %d; destroyed by the rotation %d, truncations %d",
				n, rounds, v.lost, v.doubled, v.mangled, v.destroyed, f.Status()[0].Truncations)
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
	for _, limit := range []string{"max_inotify_instances", "max_inotify_watches"} {
		t.Run(limit, func(t *testing.T) {
			s := newScene(t)
			write(t, s.log, "old\n")
			out := filepath.Join(t.TempDir(), "out")
			r := exec.Command(os.Args[0])
			r.Env = append(os.Environ(), "TAILER_TEST_FOLLOW="+s.log, "TAILER_TEST_OUT="+out,
				"TAILER_TEST_STATE="+s.opt.StateFile, "TAILER_TEST_LIMIT=/proc/sys/user/"+limit)
			r.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			}
			var log bytes.Buffer
			r.Stderr = &log
			if err := r.Start(); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatalf("no user namespace: %v", err)
				}
				t.Skipf("no user namespace: %v", err)
			}
			until(t, "the first checkpoint", func() bool {
				_, err := os.Stat(s.opt.StateFile)
				return err == nil
			})
			write(t, s.log, "one\n")
			rename(t, s.log, s.path("app.log.1"))
			write(t, s.log, "two\n")
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
