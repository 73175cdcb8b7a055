package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"go.uber.org/goleak"
)

func TestReadSeveral(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"a.log": record(1) + "\nx",
		"b.log": "x\n" + record(2),
		"empty": "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	in := func(name string) string { return filepath.Join(dir, name) }
	totals := Read(t.Context(), []string{in("b.log"), in("none"), dir, Stdin, in("empty"), in("a.log")}, strings.NewReader(record(3)+"\n"),
		Options{Literal: literal}, func(path string, text []byte) {
			got = append(got, filepath.Base(path)+": "+string(text))
		})
	want := []string{"b.log: " + record(2), "-: " + record(3), "a.log: " + record(1)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
	unreadable := totals.Unreadable
	totals.Unreadable = nil
	if diff := cmp.Diff(Totals{Files: 4, Bytes: int64(4 + 3*len(record(1)) + 1), Lines: 5}, totals); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	if len(unreadable) != 2 || unreadable[0].Path != in("none") || !errors.Is(unreadable[0].Err, fs.ErrNotExist) || unreadable[1].Path != dir {
		t.Errorf("unreadable: %v, want %s and %s", unreadable, in("none"), dir)
	}
}

// TestReadShrunk cuts a file short after it was opened, where a mapping has no
// pages any more.
func TestReadShrunk(t *testing.T) {
	keep := record(1) + "\n" + strings.Repeat("x\n", 100)
	path := write(t, keep+strings.Repeat("y\n", 1<<20)+record(2))
	var got []string
	r := newReader(Options{Literal: literal, Workers: 2, sizes: sizes{mapped: 64 << 10, stream: 1, edge: 4096}},
		func(_ string, text []byte) { got = append(got, string(text)) })
	in, err := r.open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(keep))); err != nil {
		t.Fatal(err)
	}
	if err := r.scan(t.Context(), path, in.source, in.closed); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{record(1)}, got); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
	// What the last page holds behind the end is zeros, which are no lines.
	if r.totals.Lines < 101 || r.totals.Lines > 102 {
		t.Errorf("%d lines, want 101", r.totals.Lines)
	}
}

// TestReadProc reads a file of /proc, whose size is 0.
func TestReadProc(t *testing.T) {
	_, totals := read(t, Options{}, "/proc/self/status", nil)
	if totals.Lines < 10 || totals.Unreadable != nil {
		t.Errorf("totals: %+v, want some lines", totals)
	}
}

func TestReadStopsWhenDone(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("stdin blocks", func(t *testing.T) {
		stdin, writer := io.Pipe()
		defer writer.Close()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			// Two blocks: the first is handed over when the second is asked for.
			fmt.Fprint(writer, record(1)+"\n"+strings.Repeat("x\n", 3<<20))
		}()
		hits := 0
		totals := Read(ctx, []string{Stdin}, stdin, Options{Literal: literal}, func(string, []byte) {
			hits++
			cancel()
		})
		if hits != 1 || totals.Files != 1 || totals.Unreadable != nil {
			t.Errorf("%d hits, totals %+v, want what was found so far", hits, totals)
		}
		stdin.Close()
	})
	t.Run("file", func(t *testing.T) {
		path := write(t, strings.Repeat(record(1)+"\n", 100_000))
		ctx, cancel := context.WithCancel(t.Context())
		hits := int64(0)
		totals := Read(ctx, []string{path, path}, nil, Options{Literal: literal, sizes: sizes{mapped: 4096, stream: 1, edge: 4096}}, func(string, []byte) {
			hits++
			cancel()
		})
		if hits == 0 || hits > 100 || totals.Lines != hits-1 && totals.Lines != hits || totals.Files != 1 {
			t.Errorf("%d hits, totals %+v, want what one block holds", hits, totals)
		}
	})
	t.Run("FIFO without a writer", func(t *testing.T) {
		path := fifo(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		totals := Read(ctx, []string{path}, nil, Options{Literal: literal}, nil)
		if diff := cmp.Diff(Totals{}, totals); diff != "" {
			t.Errorf("totals (-want +got):\n%s", diff)
		}
	})
	t.Run("FIFO with a silent writer", func(t *testing.T) {
		path := fifo(t)
		before := goleak.IgnoreCurrent()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			writer, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { writer.Close() })
			cancel()
		}()
		totals := Read(ctx, []string{path}, nil, Options{Literal: literal}, nil)
		if totals.Bytes != 0 || totals.Unreadable != nil {
			t.Errorf("totals %+v, want none", totals)
		}
		goleak.VerifyNone(t, before) // though the writer is still there
	})
}

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadFIFO(t *testing.T) {
	path := fifo(t)
	go os.WriteFile(path, []byte("x\n"+record(1)+"\n"), 0)
	got, totals := read(t, Options{}, path, nil)
	if diff := cmp.Diff([]string{record(1)}, got); diff != "" || totals.Lines != 2 {
		t.Errorf("totals %+v, want 2 lines; candidates (-want +got):\n%s", totals, diff)
	}
}

func TestProgress(t *testing.T) {
	var packed strings.Builder
	w := gzip.NewWriter(&packed)
	fmt.Fprint(w, strings.Repeat("x\n", 1000))
	w.Close()
	plain, archive := write(t, strings.Repeat("y\n", 1000)), write(t, packed.String())
	type step struct{ Done, Total int64 }
	end := int64(2000 + packed.Len())
	for _, test := range []struct {
		paths []string
		want  step
	}{
		{[]string{plain, archive}, step{end, end}},
		{[]string{plain, filepath.Join(t.TempDir(), "none")}, step{2000, 2000}},
		{[]string{plain, Stdin}, step{2003, 0}},
	} {
		var last step
		Read(t.Context(), test.paths, strings.NewReader("abc"), Options{
			Literal: literal,
			Progress: func(done, total int64) {
				if done < last.Done {
					t.Errorf("progress goes back from %d to %d", last.Done, done)
				}
				last = step{done, total}
			},
		}, nil)
		if diff := cmp.Diff(test.want, last); diff != "" {
			t.Errorf("%v: the end (-want +got):\n%s", test.paths, diff)
		}
	}
}

// BenchmarkScan reads 64 MiB of uWSGI's request lines with a record in each
// 10,000, from the page cache.
func BenchmarkScan(b *testing.B) {
	var text strings.Builder
	for i := 0; text.Len() < 64<<20; i++ {
		fmt.Fprintf(&text, "[pid: %d|app: 0|req: %d/%d] 10.0.%d.%d () {%d vars in %d bytes} [Tue Nov 14 22:13:%02d 2023] GET /search/%d?page=%d => generated %d bytes in %d msecs (HTTP/1.1 200) %d headers in %d bytes (1 switches on core 0)\n",
			1000+i%32, i/8, i, i%256, i/7%256, 30+i%20, 400+i%500, i/50%60, i%100_000, i%40, i*7%50_000, i%300, 2+i%7, 60+i%340)
		if i%10_000 == 0 {
			text.WriteString(record(i) + "\n")
		}
	}
	path := filepath.Join(b.TempDir(), "app.log")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	for name, path := range map[string]string{"file": path, "stream": Stdin} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(text.Len()))
			for b.Loop() {
				Read(b.Context(), []string{path}, strings.NewReader(text.String()), Options{Literal: literal}, func(string, []byte) {})
			}
		})
	}
}
