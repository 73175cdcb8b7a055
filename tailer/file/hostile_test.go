package file

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
	"qwatch/tailer"
)

// What anybody may put beside his log keeps nobody from being ready, nor from
// the end, and no more of it is read than its size is worth.
func TestHostileNeighbours(t *testing.T) {
	const unpacked = 300 << 20
	bomb := func(line string) func(string) error {
		return func(path string) error {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			text := []byte(strings.Repeat(line, 1<<20/len(line)))
			for range unpacked >> 20 {
				w.Write(text)
			}
			w.Close()
			return os.WriteFile(path, b.Bytes(), 0o644)
		}
	}
	for name, put := range map[string]func(path string) error{
		"fifo":   func(path string) error { return unix.Mkfifo(path, 0o644) },
		"device": func(path string) error { return os.Symlink("/dev/zero", path) },
		"zeros":  bomb("\x00"),
		"lines":  bomb("x\n"),
		"folder": func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log := filepath.Join(dir, "app.log")
			opt := Options{Globs: []string{filepath.Join(dir, "*.log")}, StateFile: filepath.Join(dir, "state"), FromStart: true}
			var s sink
			write(t, log, "one\n")
			_, stop := follow(t, opt, s.handle)
			until(t, "the first line", func() bool { return s.String() == "one\n" })
			stop()
			packed := filepath.Join(dir, "app.log.1.gz")
			if err := put(packed); err != nil {
				t.Fatal(err)
			}
			var bytes int64
			opt.Events = s.event
			_, stop = follow(t, opt, func(c tailer.Chunk) { bytes += int64(len(c.Text)) }) // waits until it is ready
			stop()
			most, told := int64(0), false
			if info, err := os.Lstat(packed); err == nil && info.Mode().IsRegular() {
				most = maxSmall + maxRatio*info.Size() + chunkSize
				told = strings.Contains(fmt.Sprint(s.events), packed+" was read no further: ")
			}
			if bytes > most || told != (bytes > 0) || most >= unpacked {
				t.Errorf("%d bytes were read of at most %d, which is told: %v", bytes, most, told)
			}
		})
	}
}

// The compressed files of one user have a budget over all followers, and what goes
// beyond is told once.
func TestUnpackBudget(t *testing.T) {
	r := NewRegistry("", nil)
	var told []error
	budget := func(uid uint32) time.Duration {
		left, took, why := r.unpackBudget(uid)
		took()
		if why != nil {
			told = append(told, why)
		}
		return left.Round(time.Second)
	}
	for range 3 {
		if left := budget(1000); left != unpackTime {
			t.Errorf("%s", left)
		}
	}
	r.unpacks[1000].spent = unpackTime
	for range 3 {
		if left := budget(1000); left > 0 {
			t.Errorf("%s", left)
		}
	}
	r.unpacks[everybody].spent = unpackTimeAll - time.Second
	if left := budget(1001); left != time.Second {
		t.Errorf("%s", left)
	}
	if left := budget(0); left != unpackTimeAll {
		t.Errorf("root has %s", left)
	}
	if len(told) != 1 || !strings.HasPrefix(told[0].Error(), "the compressed files of user 1000 have been read for 4s, ") {
		t.Errorf("%v", told)
	}
}

// Anybody may fill his folder with logs.
func TestFilesOfOneUser(t *testing.T) {
	testbed.Needs(t, "root")
	dir := t.TempDir()
	const more = 30
	for i := range maxOfUser + more {
		path := filepath.Join(dir, fmt.Sprintf("%d.log", i))
		write(t, path, "")
		if err := os.Chown(path, 4711, -1); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "zz.log"), "")
	var s sink
	f, stop := follow(t, Options{Globs: []string{filepath.Join(dir, "*.log")}, Events: s.event}, s.handle)
	defer stop()
	if n := len(f.Status()); n != maxOfUser+1 {
		t.Errorf("%d files are followed", n)
	}
	want := fmt.Sprintf("%d files are followed, %d more are not", maxOfUser, more)
	until(t, "the count", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(fmt.Sprint(s.events), want)
	})
}

// Nor may he have any number of them held open by calling them rotated logs.
func TestRotatedFilesOfOneUser(t *testing.T) {
	testbed.Needs(t, "root")
	dir := t.TempDir()
	log := filepath.Join(dir, "app.log")
	const user = 4711
	own := func(path, text string) {
		t.Helper()
		write(t, path, text)
		must(t, os.Chown(path, user, -1))
	}
	own(log, "")
	var s sink
	f, stop := follow(t, Options{Globs: []string{log}, Events: s.event}, s.handle)
	defer stop()
	for i := range maxRotated + 100 {
		own(fmt.Sprintf("%s.%d", log, i), fmt.Sprintf("generation %d\n", i))
	}
	want := fmt.Sprintf("user %d %d files are open, and no more that rotations may have left", user, maxRotated)
	until(t, "that there are too many", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.ContainsFunc(s.events, func(e Event) bool { return e.Kind == TooMany && e.Source+" "+e.Detail == want })
	})
	if n := f.shared.ofUser(user); n > maxRotated {
		t.Errorf("%d are open", n)
	}
}
