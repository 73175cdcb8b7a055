package apply

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/matcher"
	"qwatch/remediate/facts"
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

// Who writes to a file that somebody else writes for uWSGI is seen of nobody: where
// another uWSGI is there, it may.
func TestSharesFollowedLog(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5480"})
	testbed.Run(t, testbed.Options{Address: "127.0.0.1:5481"})
	s := socketOf(t, u.Address)
	netns, err := openNetNS(s)
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	for sight, want := range map[facts.Sight]bool{{Followed: "/var/log/app.log"}: true, {Files: true}: false} {
		if got := New(names, nil).sharesLog(netns, s.Master, sight); got != want {
			t.Errorf("%s: %v", sight, got)
		}
	}
}

// In a shared log only those lines count that name a process of this uWSGI, also of
// what stood there before.
func TestWordsOfASharedLog(t *testing.T) {
	const lines = "[pid: 7|app: 0|req: 1/1] 10.0.0.1 () {1 vars in 1 bytes} [now] GET / => generated 3 bytes in 1 msecs (HTTP/1.0 200) 1 headers in 1 bytes (1 switches on core 0)\n" +
		"[pid: 8|app: 0|req: 1/1] 10.0.0.1 () {1 vars in 1 bytes} [now] GET / => generated 3 bytes in 1 msecs (HTTP/1.0 500) 1 headers in 1 bytes (1 switches on core 0)\n"
	for shared, want := range map[bool]int{true: 1, false: 2} {
		w := newWords(shared)
		for _, in := range []map[int]facts.Words{w.said, w.prior} {
			w.hear(in, []byte(lines))
			if got := w.of(map[int]bool{7: true}, in); got.Of[matcher.WordAnswered] != want || got.Failed != want-1 {
				t.Errorf("shared %v: %+v", shared, got)
			}
		}
	}
}
