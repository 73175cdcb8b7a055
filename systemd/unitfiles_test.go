package systemd

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestSocketFiles(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	root := fstest.MapFS{
		"etc/systemd/system/app.socket":               file("[Unit]\nListenStream=9\n[Socket]\n# a comment\nListenStream=127.0.0.1:5000\nListenStream = /run/app.sock\nBacklog=64\n"),
		"usr/lib/systemd/system/app.socket":           file("[Socket]\nListenStream=1\n"), // of which the one in /etc takes the place
		"usr/lib/systemd/system/app.socket.d/10.conf": file("[Socket]\nListenStream=5001\n"),
		"etc/systemd/system/app.socket.d/20.conf":     file("[Socket]\nBacklog=128\n"),
		"usr/lib/systemd/system/other.socket":         file("[Socket]\nListenStream=@abstract\nService=app.service\n"),
		"usr/lib/systemd/system/each.socket":          file("[Socket]\nListenStream=1\nService=app.service\nAccept=yes\n"),
		"usr/lib/systemd/system/user.socket":          file("[Socket]\nListenStream=/run/%U\nService=app.service\n"),
		"usr/lib/systemd/system/reset.socket":         file("[Socket]\nListenStream=1\nListenStream=\nService=app.service\n"),
		"usr/lib/systemd/system/web.socket":           file("[Socket]\nListenStream=1\n"),
	}
	got, err := socketFiles(root, "app.service")
	if err != nil {
		t.Fatal(err)
	}
	want := []SocketUnit{
		{Unit: "app.socket", Listen: []string{"127.0.0.1:5000", "/run/app.sock", "[::]:5001"}, Backlog: 128},
		{Unit: "other.socket", Listen: []string{"@abstract"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got, err := socketFiles(root, "none.service"); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}
