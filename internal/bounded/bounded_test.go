package bounded

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// A FUSE is not polled: Go's poller would hang with it, and all goroutines with
// that.
func TestOpenPollsNothing(t *testing.T) {
	testbed.Needs(t, "fuse")
	dir := t.TempDir()
	fuse := testbed.MountFUSE(t, dir)
	fuse.Append("a", "text")
	if b, err := ReadFile(filepath.Join(dir, "a"), 10); string(b) != "text" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if fuse.Polled() {
		t.Error("it was polled")
	}
	for path, may := range map[string]bool{filepath.Join(dir, "a"): true, os.Args[0]: false} {
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if MayHang(int(f.Fd())) != may {
			t.Errorf("%s may hang: %v", path, !may)
		}
	}
	if !MayHang(-1) {
		t.Error("what cannot be asked does not hang")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Nothing that a stranger puts in the place of a file is waited for or opened.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	fifo, link, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "file")
	for _, err := range []error{unix.Mkfifo(fifo, 0o600), os.Symlink("/dev/zero", link), os.WriteFile(file, []byte("0123456789"), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{fifo, link, dir} {
		if f, err := Open(path); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v, %v", path, f, err)
		}
	}
	if _, err := OpenFile(fifo, os.O_RDWR, 0); !errors.Is(err, ErrNotRegular) {
		t.Errorf("%v", err)
	}
	var more *TooMuchError
	if b, err := ReadFile(file, 9); string(b) != "012345678" || !errors.As(err, &more) || more.Max != 9 {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := ReadFile(file, 10); string(b) != "0123456789" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := ReadFile("/proc/self/comm", 100); len(b) == 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	if names, err := Names(dir, 2); len(names) != 0 || err != nil {
		t.Errorf("of none: %v, %v", names, err)
	}
	for _, name := range []string{"b", "a", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var more *TooMuchError
	if names, err := Names(dir, 2); len(names) != 2 || !errors.As(err, &more) {
		t.Errorf("%v, %v", names, err)
	}
	if entries, err := Entries(dir, 2); len(entries) != 2 || !errors.As(err, &more) {
		t.Errorf("%v, %v", entries, err)
	}
	if entries, err := Entries(dir, 3); len(entries) != 3 || entries[0].Name() != "a" || err != nil {
		t.Errorf("%v, %v", entries, err)
	}
}

// What grows as it is read ends.
func TestReader(t *testing.T) {
	var more *TooMuchError
	if n, err := io.Copy(io.Discard, Reader(t.Context(), zeros{}, 1000)); n != 1000 || !errors.As(err, &more) {
		t.Errorf("%d, %v", n, err)
	}
	if b, err := io.ReadAll(Reader(t.Context(), strings.NewReader("1234"), 4)); string(b) != "1234" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := Reader(ctx, zeros{}, 1<<40)
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
