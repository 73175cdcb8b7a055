package file

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"qwatch/tailer"
)

// A numbered line proves itself: its number says what else it must hold.
func numbered(n int) []byte {
	b := make([]byte, 9, 110)
	for i, left := 8, n; i >= 0; i, left = i-1, left/10 {
		b[i] = '0' + byte(left%10)
	}
	b = append(b, ' ')
	for i := range n * 7 % 90 {
		b = append(b, 'a'+byte((n+i)%26))
	}
	return append(b, " end\n"...)
}

// ledger counts numbered lines.
type ledger struct {
	mu      sync.Mutex
	seen    map[int]int
	mangled []string
	fence   string // a followed file aside
}

// follow runs a Files on a log and the fence.
func (l *ledger) follow(t *testing.T, path string, opt Options) *Files {
	l.fence = filepath.Join(t.TempDir(), "fence")
	must(t, os.WriteFile(l.fence, nil, 0o644))
	opt.Globs = []string{l.fence, path}
	f, _ := follow(t, opt, l.handle)
	return f
}

// pass waits until nothing else comes: all is searched that the rotations may
// have left, and behind it line n was read, which nobody but this writes.
func (l *ledger) pass(t *testing.T, f *Files, n int) {
	t.Helper()
	if !idle(f) {
		t.Fatal("the reader does not come to rest")
	}
	write(t, l.fence, string(numbered(n)))
	until(t, "the fence", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.seen[n] > 0
	})
}

// truncations adds up those of all names.
func truncations(f *Files) (n uint64) {
	for _, s := range f.Status() {
		n += s.Truncations
	}
	return n
}

func (l *ledger) handle(c tailer.Chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(c.Text) {
		l.add(line)
	}
}

func (l *ledger) add(line []byte) {
	if l.seen == nil {
		l.seen = map[int]int{}
	}
	n, err := strconv.Atoi(string(line[:min(9, len(line))]))
	if err != nil || !bytes.Equal(line, numbered(n)) {
		l.mangled = append(l.mangled, string(line))
		return
	}
	l.seen[n]++
}

// nightly says whether the tests have hours.
func nightly() bool { return os.Getenv("TAILER_NIGHTLY") != "" }

// verdict is what became of the lines 0 to n-1.
type verdict struct{ lost, destroyed, doubled, mangled int }

func (l *ledger) judge(n int, disk map[int]bool) (v verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range n {
		switch k := l.seen[i]; {
		case k > 1:
			v.doubled++
		case k == 0 && disk[i]:
			v.lost++
		case k == 0:
			v.destroyed++
		}
	}
	v.mangled = len(l.mangled)
	return v
}

// onDisk reads all numbered lines of a directory.
func onDisk(t *testing.T, dir string) map[int]bool {
	held := map[int]bool{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			data, _ = io.ReadAll(z)
		}
		for line := range bytes.Lines(bytes.TrimLeft(data, "\x00")) {
			if n, err := strconv.Atoi(string(line[:min(9, len(line))])); err == nil {
				held[n] = true
			}
		}
	}
	return held
}

// torment is one way to rotate a log. It is handed the writer's file and
// gives back the one to write to from then on.
type torment struct {
	name string
	flag int
	late bool // the writer keeps to the old file for a while
	turn func(t *testing.T, path string, round int, reopen func() *os.File) *os.File
	// destroys is true where the rotation itself can destroy lines before any
	// reader sees them.
	destroys bool
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o644))
}

var torments = []torment{
	{name: "rename, create at once", late: true, turn: func(t *testing.T, path string, round int, reopen func() *os.File) *os.File {
		must(t, os.Rename(path, fmt.Sprintf("%s.%d", path, round)))
		return reopen()
	}},
	{name: "rename, create later", late: true, turn: func(t *testing.T, path string, round int, reopen func() *os.File) *os.File {
		must(t, os.Rename(path, fmt.Sprintf("%s.%d", path, round)))
		return nil
	}},
	{name: "uWSGI log-maxsize", flag: os.O_TRUNC, turn: func(t *testing.T, path string, round int, reopen func() *os.File) *os.File {
		must(t, os.Rename(path, fmt.Sprintf("%s.%d", path, 1700000000+round)))
		return reopen()
	}},
	{name: "uWSGI log-maxsize, two turns at once", flag: os.O_TRUNC, turn: func(t *testing.T, path string, round int, reopen func() *os.File) *os.File {
		must(t, os.Rename(path, fmt.Sprintf("%s.%d", path, 1700000000+2*round)))
		return reopen()
	}},
	{name: "uWSGI log-backupname", flag: os.O_TRUNC, destroys: true, turn: func(t *testing.T, path string, round int, reopen func() *os.File) *os.File {
		must(t, os.Rename(path, filepath.Join(filepath.Dir(path), "the-backup")))
		return reopen()
	}},
	{name: "unlink", flag: os.O_APPEND, destroys: true, turn: func(t *testing.T, path string, round int, reopen func() *os.File) *os.File {
		must(t, os.Remove(path))
		return reopen()
	}},
	{name: "copytruncate", flag: os.O_APPEND, destroys: true, turn: func(t *testing.T, path string, round int, _ func() *os.File) *os.File {
		copyFile(t, path, fmt.Sprintf("%s.%d", path, round))
		must(t, os.Truncate(path, 0))
		return nil
	}},
	{name: "copytruncate, writer without O_APPEND", destroys: true, turn: func(t *testing.T, path string, round int, _ func() *os.File) *os.File {
		copyFile(t, path, fmt.Sprintf("%s.%d", path, round))
		must(t, os.Truncate(path, 0))
		return nil
	}},
	{name: "truncate", flag: os.O_APPEND, destroys: true, turn: func(t *testing.T, path string, round int, _ func() *os.File) *os.File {
		must(t, os.Truncate(path, 0))
		return nil
	}},
	{name: "symlink re-pointed", late: true, turn: func(t *testing.T, path string, round int, reopen func() *os.File) *os.File {
		if round == 0 { // no link yet: the file would be gone, though its birth may not have been seen
			must(t, os.Link(path, path+"-first"))
		}
		target := fmt.Sprintf("%s-%d", path, round)
		file, err := os.Create(target)
		must(t, err)
		must(t, os.Symlink(target, path+".new"))
		must(t, os.Rename(path+".new", path))
		return file
	}},
}

// TestTorture counts every line through every way of rotation.
func TestTorture(t *testing.T) {
	rotations, every := 100, 40*time.Millisecond
	if nightly() {
		rotations = 1000
	}
	for _, mode := range torments {
		t.Run(mode.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "app.log")
			var l ledger
			f := l.follow(t, path, Options{})
			n := torture(t, mode, path, func(round int) bool { return round < rotations }, every)
			disk := onDisk(t, dir)
			until(t, "all lines on disk", func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				for i := range disk {
					if l.seen[i] == 0 {
						return false
					}
				}
				return true
			})
			l.pass(t, f, n)
			v := l.judge(n, disk)
			if v.destroyed > 0 {
				until(t, "what was missed is told", func() bool { return truncations(f) > 0 })
			}
			t.Logf("%d lines, %d rotations: lost %d, doubled %d, mangled %d; destroyed by the rotation %d, truncations %d",
				n, rotations, v.lost, v.doubled, v.mangled, v.destroyed, truncations(f))
			if v.lost+v.doubled+v.mangled > 0 {
				t.Errorf("%+v; %.200q", v, l.mangled)
			}
			if v.destroyed > 0 && !mode.destroys {
				t.Errorf("%d lines are in no file", v.destroyed)
			}
		})
	}
}

// torture writes numbered lines, about 40 a millisecond, and rotates them
// while more says so.
func torture(t *testing.T, mode torment, path string, more func(round int) bool, every time.Duration) (lines int) {
	open := func() *os.File {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|mode.flag, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := open()
	var old *os.File // the writer's own until it reopens
	var oldUntil time.Time
	begin, next := time.Now(), time.Now().Add(every)
	for round := 0; more(round) || old != nil; {
		for range 40 {
			w := file
			if old != nil {
				w = old
			}
			w.Write(numbered(lines))
			lines++
		}
		now := time.Now()
		if old != nil && now.After(oldUntil) {
			old.Close()
			old = nil
			if file == nil {
				file = open()
			}
		}
		if more(round) && old == nil && now.After(next) {
			before := file
			file = mode.turn(t, path, round, open)
			round++
			next = now.Add(every/2 + rand.N(every))
			switch {
			case mode.late:
				old, oldUntil = before, now.Add(every/4)
			case file == nil:
				file = before
			default:
				before.Close()
			}
		}
		if ahead := time.Duration(lines)*25*time.Microsecond - time.Since(begin); ahead > 0 {
			time.Sleep(ahead)
		}
	}
	file.Close()
	return lines
}
