package apply

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"qwatch/internal/kernel"
)

// Of a log that never ends a line no more is read again and again than it has
// grown by, and a line is read when it is whole.
func TestTailOfALineWithoutAnEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "")
	f, err := kernel.OpenRegular(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	grow := func(text string) {
		t.Helper()
		w, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	l := &tail{OpenFile: f}
	want := func(text string) {
		t.Helper()
		if got := string(l.added()); got != text {
			t.Errorf("%d bytes, want %q", len(got), text)
		}
	}
	grow("one\ntw")
	want("one\n")
	grow("o")
	want("")
	grow("\n")
	want("two\n")
	const piece = 100 << 10
	for range 3 * maxAdded / piece {
		grow(strings.Repeat("x", piece))
		want("")
	}
	if l.read > maxAdded {
		t.Errorf("%d bytes are read again", l.read)
	}
	grow(strings.Repeat("x", maxAdded) + "\nthree\n")
	if got := string(l.added()); !strings.HasSuffix(got, "\nthree\n") {
		t.Errorf("%d bytes", len(got))
	}
}
