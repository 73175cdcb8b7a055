// Package bulk reads logs that exist as fast as memory gives them, for
// "qwatch scan": plain files on all cores, archives unpacked while the last
// part is scanned.
//
// Most lines are of no interest, so none is looked at: newlines are counted,
// and a literal is searched for by its rarest byte, both at the speed of
// memory. Only lines that hold the literal are handed over.
package bulk

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"qwatch/internal/bounded"
)

// Options says what to look for.
type Options struct {
	// Literal is what every line of interest holds. It is 1 to 1024 bytes
	// long and holds no newline. The best one is what the record itself
	// begins with, since an endless text without any boundary is cut there.
	Literal string
	// Seam is where an endless line is cut best, behind its first byte; "" for
	// nowhere.
	Seam string
	// Workers is how many goroutines scan, 1 to 16; 0 stands for one a core.
	Workers int
	// Named, if not nil, tells which paths the user has named: those may be pipes
	// and devices, also without an end. Of others only regular files are read,
	// whatever they were when they were found.
	Named func(path string) bool
	// Progress, if not nil, is told at most ten times a second, and at the
	// end, how many bytes of input are done (of archives: compressed ones)
	// and how many there are in all; total is 0 if pipes are among the input.
	Progress func(done, total int64)

	sizes sizes // of tests; none stands for the right ones
}

// Totals is what was read.
type Totals struct {
	Files      int   // files and streams of which something could be read, or that are empty
	Bytes      int64 // bytes of text, of archives unpacked
	Lines      int64 // newlines, plus one for each file's last line without
	Unreadable []Unreadable
}

// Unreadable is a file that could not be read, or not to its end: what was
// read before counts.
type Unreadable struct {
	Path string
	Err  error
}

// Stdin is the path that stands for standard input.
const Stdin = "-"

// Read reads the files (Stdin: stdin) one after the other and calls emit for
// each line that holds the literal, in the files' order, without its newline
// (a "\r" before it stays). Of a line longer than 64 KiB it hands over
// pieces that together hold each literal once, cut at a seam where there is
// one, so that records which an encoder wrote without newlines are whole. The
// text is borrowed: emit copies what it keeps. emit and opt.Progress are
// called on the caller's goroutine.
//
// Plain files are read as long as they were when they were opened; one that is
// cut short meanwhile gives what is left. When ctx is done Read returns at once
// what was found so far; a read that stdin blocks ends when stdin gives
// something or is closed.
//
// Memory is bounded (about 30 MiB on two cores, 110 where every line holds the
// literal), save for what an archive's
// own window asks for (zstd: up to 128 MiB, xz: what it was made with).
func Read(ctx context.Context, paths []string, stdin io.Reader, opt Options, emit func(path string, text []byte)) Totals {
	r := newReader(opt, emit)
	if opt.Progress != nil {
		r.total, _ = patiently(ctx, func() (int64, error) { return sum(paths), nil })
	}
	for _, path := range paths {
		if ctx.Err() != nil {
			break
		}
		in, err := patiently(ctx, func() (input, error) { return r.open(path, stdin) })
		if err == nil {
			err = r.scan(ctx, path, in.source, in.closed)
		}
		if err != nil && ctx.Err() == nil {
			r.totals.Unreadable = append(r.totals.Unreadable, Unreadable{path, err})
		}
	}
	if r.opt.Progress != nil {
		r.opt.Progress(r.done, r.total)
	}
	return r.totals
}

// patiently waits for an answer of a file system, which may never come, until ctx
// is done.
func patiently[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		value, err := ask()
		answered <- answer{value, err}
	}()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

type reader struct {
	opt     Options
	emit    func(string, []byte)
	workers []*worker
	totals  Totals

	done, total int64     // bytes of input: of the files before this one, of all
	told        time.Time // when Progress was last called
}

func newReader(opt Options, emit func(string, []byte)) *reader {
	if opt.Workers == 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	opt.Workers = min(opt.Workers, 16)
	if opt.sizes == (sizes{}) {
		// A mapping is 2 MiB or more, so that huge pages fit in, and all of
		// them together stay small.
		opt.sizes = sizes{mapped: max(2<<20, (16<<20/int64(opt.Workers))&^(2<<20-1)), stream: 1 << 20, edge: 64 << 10}
	}
	if opt.Seam == "" {
		opt.Seam = "\n" // which no part of a line holds
	}
	r := &reader{opt: opt, emit: emit, told: time.Now()}
	for range opt.Workers {
		find := &finder{literal: opt.Literal}
		r.workers = append(r.workers, &worker{cut: cutter{find, []byte(opt.Seam), opt.sizes.edge}})
	}
	return r
}

// sum is how many bytes there are in all, 0 if pipes are among them.
func sum(paths []string) (total int64) {
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case path == Stdin || err == nil && !info.Mode().IsRegular():
			return 0
		case err == nil:
			total += info.Size()
		}
	}
	return total
}

// scan scans one file.
func (r *reader) scan(ctx context.Context, path string, src source, closed func()) error {
	if _, is := src.(*stream); is && path != Stdin {
		// A FIFO's read(2) may block for long; closing ends it.
		defer context.AfterFunc(ctx, closed)()
	}
	r.totals.Files++
	var (
		cut  int64 // end of the last candidate
		open bool
		done int64
		fail error
		find = finder{literal: r.opt.Literal}
	)
	run(ctx, src, r.workers, closed, func(res *result) {
		r.totals.Bytes += res.bytes
		r.totals.Lines += res.lines
		if res.bytes > 0 {
			open = res.open
		}
		rest := res.text
		for _, c := range res.candidates {
			text := rest[:c.end-c.start]
			rest = rest[len(text):]
			// Where a line goes on in the next block, both give it; of an
			// overlong one the second may give more.
			if c.start < cut {
				text = text[min(cut-c.start, c.end-c.start):]
				if find.index(text) < 0 {
					continue
				}
			}
			cut = c.end
			r.emit(path, text)
		}
		done = res.done
		if r.opt.Progress != nil && time.Since(r.told) >= 100*time.Millisecond {
			r.told = time.Now()
			r.opt.Progress(r.done+done, r.total)
		}
		fail = errors.Join(fail, res.err)
	})
	if open && ctx.Err() == nil {
		r.totals.Lines++
	}
	r.done += done
	return fail
}

// input is a source, and what is to be called when nobody reads it any more.
type input struct {
	source
	closed func()
}

// open finds out what the file is and returns how to read it.
func (r *reader) open(path string, stdin io.Reader) (in input, err error) {
	if path == Stdin {
		return input{r.stream(stdin), func() {}}, nil
	}
	var file *os.File
	if r.opt.Named == nil || r.opt.Named(path) {
		file, err = open(path)
	} else {
		file, err = bounded.Open(path)
	}
	if err != nil {
		return in, err
	}
	in.closed = func() { file.Close() }
	if in.source, err = r.source(file); err != nil {
		file.Close()
	}
	return in, err
}

func (r *reader) source(file *os.File) (source, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("it is a directory")
	}
	// Files in /proc are regular, and empty until they are read.
	if info.Mode().IsRegular() && info.Size() > 0 {
		head := make([]byte, magicLen)
		n, err := file.ReadAt(head, 0)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if unpacker(head[:n]) == nil {
			return &mapped{file: file, size: info.Size(), read: bounded.MayHang(int(file.Fd())), sizes: r.opt.sizes}, nil
		}
	}
	return r.stream(file), nil
}

func (r *reader) stream(raw io.Reader) *stream {
	input := &counter{Reader: raw}
	return &stream{raw: bufio.NewReaderSize(input, 256<<10), done: input.n.Load, sizes: r.opt.sizes}
}

// open opens what the user has named. A FIFO without a writer blocks open(2), and
// nothing ends that but a writer.
func open(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return bounded.Open(path)
	}
	return os.Open(path)
}

// counter counts what is read.
type counter struct {
	io.Reader
	n atomic.Int64
}

// Read counts what it gives.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}
