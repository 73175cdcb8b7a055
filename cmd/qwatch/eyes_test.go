package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/config"
)

// Anybody may fill his folder: it is not looked through without an end, and that
// is said.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	list := func() []string {
		return unreadable(&config.Config{Sources: []config.Source{{Files: []string{dir + "/*/*.log"}}}})
	}
	mine, full := filepath.Join(dir, "mine"), filepath.Join(dir, "full")
	if err := errors.Join(os.Mkdir(mine, 0o755), os.WriteFile(filepath.Join(mine, "a.log"), nil, 0), os.Mkdir(full, 0o755)); err != nil {
		t.Fatal(err)
	}
	var want []string
	if unix.Access(filepath.Join(mine, "a.log"), unix.R_OK) != nil { // root reads all
		want = []string{filepath.Join(mine, "a.log")}
	}
	if got := list(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range maxLogs + 1 {
		if err := os.Link(filepath.Join(mine, "a.log"), fmt.Sprintf("%s/%d", full, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(); len(got) != 1 || !strings.Contains(got[0], "it has more than 4096 entries") {
		t.Errorf("%.3q", got)
	}
}
