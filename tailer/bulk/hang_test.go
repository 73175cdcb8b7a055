package bulk

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"qwatch/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// A scan of a file system that hangs ends when it is told to, wherever it is.
func TestHang(t *testing.T) {
	testbed.Needs(t, "fuse")
	dir := t.TempDir()
	path := filepath.Join(dir, "app.log")
	fuse := testbed.MountFUSE(t, dir)
	fuse.Append("app.log", record(1)+"\n"+strings.Repeat("x\n", 2<<20)+record(2)+"\n")
	ended := func(asked <-chan struct{}, scan func(ctx context.Context)) {
		t.Helper()
		defer fuse.Release()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { scan(ctx); close(done) }()
		<-asked
		cancel()
		<-done
	}
	ended(fuse.Hang(), func(ctx context.Context) {
		if paths, unreadable := Expand(ctx, []string{dir}); len(paths)+len(unreadable) > 0 {
			t.Errorf("%v, %v", paths, unreadable)
		}
	})
	opt := Options{Literal: literal, Progress: func(int64, int64) {}, sizes: sizes{mapped: 64 << 10, stream: 1, edge: 4096}}
	ended(fuse.Hang(), func(ctx context.Context) {
		if totals := Read(ctx, []string{path}, nil, opt, func(string, []byte) {}); totals.Bytes > 0 {
			t.Errorf("%+v", totals)
		}
	})
	// It hangs in the midst of the text.
	found := 0
	var asked <-chan struct{}
	ctx, cancel := context.WithCancel(t.Context())
	Read(ctx, []string{path}, nil, opt, func(string, []byte) {
		if found++; found == 1 {
			asked = fuse.Hang()
			go func() { <-asked; cancel() }()
		}
	})
	fuse.Release()
	if found != 1 {
		t.Errorf("%d found", found)
	}
	if _, totals := read(t, Options{}, path, nil); totals.Lines != 2<<20+2 {
		t.Errorf("%d lines", totals.Lines)
	}
}
