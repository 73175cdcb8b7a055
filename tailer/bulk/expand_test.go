package bulk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/bounded"
)

func TestExpand(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"logs/app", "other"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"logs/a.log", "logs/a.log.1.gz", "logs/app/b.log", "other/c.log", "[x].log"} {
		if err := os.WriteFile(file, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"logs/link.log": "../other/c.log", "dir": "logs/app", "logs/loop": ".", "logs/dangling": "none"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link("logs/a.log", "same.log"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fifo(t), "logs/fifo"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, args, want, unreadable string
	}{
		{"nothing", "", "", ""},
		{"file and stdin", "other/c.log -", "other/c.log -", ""},
		{"dir", "logs", "logs/a.log logs/a.log.1.gz logs/app/b.log logs/link.log", "logs/dangling"},
		{"link to a directory", "dir/", "dir/b.log", ""},
		{"twice", "- same.log logs/a.log logs/*.log - ./same.log", "- same.log logs/link.log", ""},
		{"glob", "logs/a*", "logs/a.log logs/a.log.1.gz logs/app/b.log", ""},
		{"glob through directories", "**/*.log", "[x].log same.log logs/link.log logs/app/b.log", ""},
		{"a name like a glob", "[x].log", "[x].log", ""},
		{"missing", "none *.none other/[ same.log", "same.log", "none *.none other/["},
		{"FIFO by name", "logs/fifo", "logs/fifo", ""},
		{"FIFO by glob", "logs/fif?", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			paths, unreadable := Expand(t.Context(), strings.Fields(test.args))
			var bad []string
			for _, u := range unreadable {
				bad = append(bad, u.Path)
			}
			for i := range paths {
				paths[i] = filepath.Clean(paths[i])
			}
			if diff := cmp.Diff(test.want, strings.Join(paths, " ")); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.unreadable, strings.Join(bad, " ")); diff != "" {
				t.Errorf("unreadable (-want +got):\n%s", diff)
			}
		})
	}
}

// What was a file when it was found may be a pipe without an end by now.
func TestSwapped(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	if err := os.WriteFile(path, []byte("a needle\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	paths, _ := Expand(t.Context(), []string{dir})
	if err := errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)); err != nil {
		t.Fatal(err)
	}
	opt := Options{Literal: "needle", Named: func(path string) bool { return path == dir }}
	totals := Read(t.Context(), paths, nil, opt, func(string, []byte) { t.Error("a hit") })
	if len(totals.Unreadable) != 1 || !errors.Is(totals.Unreadable[0].Err, bounded.ErrNotRegular) {
		t.Errorf("%+v", totals)
	}
}
