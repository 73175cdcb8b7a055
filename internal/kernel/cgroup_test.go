package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCgroup2(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "system.slice", "app.service")
	if err := os.MkdirAll(app, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(app, "cgroup.procs"), []byte("12\n7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want, err := inode(app)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cgroup2{mount: dir, ids: map[string]uint64{}}
	for text, id := range map[string]uint64{
		"0::/system.slice/app.service\n":                                     want,
		"9:name=systemd:/system.slice/other\n0::/system.slice/app.service\n": want,
		"0::/system.slice/app.service (deleted)\n":                           want,
		"0::/system.slice/gone.service\n":                                    0,
		"0::/\n":                                                             0,
		"0::/../system.slice/app.service\n":                                  0,
		"0::/system.slice/../system.slice/app.service\n":                     0,
		"9:name=systemd:/system.slice/app.service\n":                         0,
		"": 0,
		"0::/system.slice/app.service/../../../../../../../../../../../etc\n": 0,
	} {
		if got := c.ID(text); got != id {
			t.Errorf("%q: %d, want %d", text, got, id)
		}
	}
	if pids, err := c.Processes("0::/system.slice/app.service\n"); err != nil || !slices.Equal(pids, []int{12, 7}) {
		t.Errorf("%v, %v", pids, err)
	}
	if pids, err := c.Processes("0::/\n"); err == nil {
		t.Errorf("of the root: %v", pids)
	}
	if id := (&Cgroup2{}).ID("0::/system.slice/app.service\n"); id != 0 {
		t.Errorf("without a hierarchy: %d", id)
	}
}

// A frozen cgroup says so, whichever of those above it was frozen.
func TestFrozen(t *testing.T) {
	c := &Cgroup2{mount: t.TempDir()}
	for name, text := range map[string]string{"ice": "populated 1\nfrozen 1\n", "water": "populated 1\nfrozen 0\n", "old": "populated 1\n"} {
		if err := os.Mkdir(filepath.Join(c.mount, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.mount, name, "cgroup.events"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]bool{
		"0::/ice\n": true, "0::/water\n": false, "0::/old\n": false, "0::/gone\n": false, "0::/\n": false, "": false,
		"7:freezer:/no/such\n": false, "7:freezer:/\n0::/ice\n": true,
	} {
		if got, err := c.Frozen(text); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"0::/../ice\n", "0::/..\n"} {
		if _, err := c.Frozen(text); err == nil {
			t.Errorf("%q: known", text)
		}
	}
}
