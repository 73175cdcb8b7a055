package deploy

import (
	"fmt"
	"os"
	"testing"
	"time"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
)

// A search is bounded by number, whatever lies below an application.
func TestBound(t *testing.T) {
	testbed.Needs(t, "root")
	dir := t.TempDir()
	for i := range 40 {
		in := fmt.Sprintf("%s/d%d", dir, i)
		if err := os.MkdirAll(in, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range 50 {
			if err := os.WriteFile(fmt.Sprintf("%s/f%d.py", in, j), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Links that lead back, and to each other, are gone along once.
	if err := os.Symlink("..", dir+"/d0/up"); err != nil {
		t.Fatal(err)
	}
	root, err := kernel.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	names := kernel.Names{Within: true, Files: func(string) bool { return true }, Leave: func(string) bool { return false }}
	search := func(entries int, d time.Duration) error {
		_, err := root.Newest(dir, names, &kernel.Bound{Entries: entries, Until: time.Now().Add(d)})
		return err
	}
	if err := search(4000, time.Minute); err != nil {
		t.Error(err)
	}
	if err := search(1000, time.Minute); err == nil {
		t.Error("1000 of 2041 entries are not all")
	}
	if err := search(4000, 0); err == nil {
		t.Error("no time at all is enough")
	}
	// What was made of the files counts too.
	made := dir + "/made/__pycache__"
	if err := os.MkdirAll(made, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if err := os.WriteFile(fmt.Sprintf("%s/f%d.cpython-311.pyc", made, i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir, names.Made, names.Source = dir+"/made", "__pycache__", func(string) string { return "" }
	names.Leave = func(string) bool { return true }
	if err := search(31, time.Minute); err != nil {
		t.Error(err)
	}
	if err := search(20, time.Minute); err == nil {
		t.Error("20 of 31 entries are not all")
	}
}
