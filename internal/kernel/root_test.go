package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A container must not lead qwatch out of its root by a link, or make it wait.
func TestRootReadFile(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, err := range []error{
		os.Mkdir(root, 0o755),
		os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644),
		os.WriteFile(filepath.Join(root, "real.ini"), []byte("listen"), 0o644),
		os.Symlink("/real.ini", filepath.Join(root, "app.ini")),
		os.Symlink("../secret", filepath.Join(root, "up.ini")),
		os.Symlink(filepath.Join(dir, "secret"), filepath.Join(root, "out.ini")),
		unix.Mkfifo(filepath.Join(root, "fifo.ini"), 0o644),
		os.Mkdir(filepath.Join(root, "sites"), 0o755),
		os.WriteFile(filepath.Join(root, "sites", "web.ini"), []byte("listen"), 0o644),
		os.Symlink("/sites/../sites", filepath.Join(root, "enabled")),
		os.Symlink("../../../../sites/web.ini", filepath.Join(root, "sites", "up.ini")),
		os.Symlink("loop.ini", filepath.Join(root, "loop.ini")),
		os.MkdirAll(filepath.Join(root, strings.Repeat("d/", maxNested)), 0o755),
		os.WriteFile(filepath.Join(root, strings.Repeat("d/", maxNested-2), "deep.ini"), []byte("listen"), 0o644),
		os.WriteFile(filepath.Join(root, strings.Repeat("d/", maxNested-1), "deeper.ini"), []byte("listen"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := openRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for path, want := range map[string]string{
		"/real.ini": "listen", "/app.ini": "listen", "/../real.ini": "listen",
		"/enabled/web.ini": "listen", "/enabled/./..//sites/up.ini": "listen",
		"/up.ini": "", "/out.ini": "", "/fifo.ini": "", "/": "", "/none.ini": "", "/loop.ini": "", "/real.ini/x": "",
		"/" + strings.Repeat("d/", maxNested-2) + "deep.ini": "listen", "/" + strings.Repeat("d/", maxNested-1) + "deeper.ini": "",
	} {
		got, err := r.ReadFile(path)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	// Whatever a file is, its place says which one it is.
	for path, same := range map[string]string{"/app.ini": "/real.ini", "/enabled/../fifo.ini": "/fifo.ini", "/sites/up.ini": "/sites/web.ini"} {
		got, err := r.Find(path)
		want, failed := r.Find(same)
		if got != want || got == (FileID{}) || err != nil || failed != nil {
			t.Errorf("%s: %v, %v, want %v, %v", path, got, err, want, failed)
		}
	}
	for _, path := range []string{"/none.ini", "/out.ini", "/sites", "/fifo.ini/x"} {
		if id, err := r.Find(path); err == nil {
			t.Errorf("%s: found %v", path, id)
		}
	}
}
