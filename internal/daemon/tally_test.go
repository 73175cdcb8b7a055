package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"qwatch/internal/testbed"
	"qwatch/tailer/file"
)

// messages are those of a log, in order.
func messages(t *testing.T, log *bytes.Buffer) (all []string) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		var l struct{ Message string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		all = append(all, l.Message)
	}
	log.Reset()
	return all
}

// The first message of a kind from a source is said, then a number each minute.
func TestTally(t *testing.T) {
	var log bytes.Buffer
	y := newTally(zerolog.New(&log))
	a, b := topic{source: "/a/*", kind: "was cut"}, topic{source: "/b/*", kind: "was cut"}
	for i := range 1000 {
		if said := y.first(a, fmt.Sprint("/a/", i)); said != (i == 0) {
			t.Errorf("message %d is said: %v", i, said)
		}
	}
	if !y.first(b, "/b/0") || y.first(b, "/b/1") {
		t.Error("another source is not told apart")
	}
	for range 2 {
		y.tell()
	}
	if !y.first(a, "/a/x") {
		t.Error("after a minute without it is no news")
	}
	want := []string{
		"/a/*: 999 more within a minute: was cut; the last one: /a/999",
		"/b/*: 1 more within a minute: was cut; the last one: /b/1",
	}
	if diff := cmp.Diff(want, messages(t, &log)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// However many sources there are, the memory is bounded, and the messages.
	said := 0
	for i := range 100000 {
		if y.first(topic{source: fmt.Sprint("/c/", i), kind: "was cut"}, "x") {
			said++
		}
	}
	if y.tell(); said > maxTopics || len(y.heard) > maxTopics+1 {
		t.Errorf("%d said, %d remembered", said, len(y.heard))
	}
	if last := messages(t, &log); len(last) != 1 || !strings.HasPrefix(last[0], "other sources: 997") {
		t.Errorf("%q", last)
	}
}

// What a follower tells of files is told by the glob and the file's owner.
func TestFileEventsAreCounted(t *testing.T) {
	testbed.Needs(t, "root")
	dir := t.TempDir()
	var log bytes.Buffer
	core := newCore(nil, nil, nil, zerolog.New(&log))
	s := newSources(core, zerolog.New(&log))
	glob := filepath.Join(dir, "*.log")
	s.origins.configure([]string{glob})
	for i := range 300 {
		path := filepath.Join(dir, fmt.Sprint(i, ".log"))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 1000+i%2, 1000); err != nil {
			t.Fatal(err)
		}
		s.fileEvent(file.Event{Kind: file.Truncated, Source: path, Detail: "d"})
		s.fileEvent(file.Event{Kind: file.Lost, Source: filepath.Join(dir, "gone.log")})
	}
	core.report.tally.tell()
	lost, cut := fileEventWords[file.Lost], fileEventWords[file.Truncated]
	want := []string{
		dir + "/0.log " + cut, dir + "/gone.log " + lost, dir + "/1.log " + cut,
		glob + ", files of user 0: 299 more within a minute: " + lost + "; the last one: " + dir + "/gone.log",
		glob + ", files of user 1000: 149 more within a minute: " + cut + "; the last one: " + dir + "/298.log",
		glob + ", files of user 1001: 149 more within a minute: " + cut + "; the last one: " + dir + "/299.log",
	}
	if diff := cmp.Diff(want, messages(t, &log)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
