package bulk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// sizes says how a text is divided. Tests make them small.
type sizes struct {
	mapped int64 // bytes of a plain file that one worker takes at a time
	stream int   // the same for a stream
	edge   int   // bytes around a block that its first and last line may need
}

// page is where a mapping may begin. A larger page size of the kernel is a
// multiple of it, so it is asked.
var page = int64(os.Getpagesize())

// block is the part of a text that one worker has taken.
type block struct {
	start, end int64 // the part: offsets in the text
	done       int64 // bytes of input behind it, for the progress

	// Of a stream only: what was read, which is the part and its edges, and
	// the error that ended it.
	text     []byte
	from, to int // the part is text[from:to]
	err      error
}

// source divides a text into blocks.
type source interface {
	// claim takes the next block, false after the last. One worker at a time
	// calls it.
	claim(*block) bool
	// scan scans a block. Workers call it at the same time.
	scan(*block, *worker, *result)
}

// result is what a worker found in a block.
type result struct {
	index        int
	bytes, lines int64
	open         bool  // the last byte is not a newline
	done         int64 // as block.done
	err          error

	candidates []candidate
	text       []byte // of all candidates, in order; copied, as the file may shrink
}

// clear keeps what belongs to the block, and the memory.
func (r *result) clear() {
	*r = result{index: r.index, done: r.done, candidates: r.candidates[:0], text: r.text[:0]}
}

// candidate is where in the file's text a candidate stands.
type candidate struct{ start, end int64 }

// worker is what one goroutine reuses from block to block.
type worker struct {
	block block
	cut   cutter
	spans []span
}

const (
	// cached is how much is looked at twice, for newlines and for the
	// literal: it fits a core's second level cache, so that memory is read
	// once.
	cached = 256 << 10
	// sampled is how much of a block shows which bytes are rare in it.
	sampled = 8 << 10
)

// scan counts text[from:to], which is at offset at of the file's text, and
// adds the candidates in it.
func (w *worker) scan(res *result, text []byte, from, to int, at int64) {
	if from == to {
		return
	}
	base := at - int64(from)
	res.bytes = int64(to - from)
	res.open = text[to-1] != '\n'
	w.cut.find.learn(text[from:min(to, from+sampled)])
	w.spans = w.spans[:0]
	for ; from < to; from += cached {
		end := min(to, from+cached)
		res.lines += int64(bytes.Count(text[from:end], []byte{'\n'}))
		w.spans = w.cut.spans(w.spans, text, from, end)
	}
	length := 0
	for _, s := range w.spans {
		length += s.end - s.start
	}
	// Growing by and by would leave several times as much behind.
	res.text = slices.Grow(res.text, length)
	res.candidates = slices.Grow(res.candidates, len(w.spans))
	for _, s := range w.spans {
		res.text = append(res.text, text[s.start:s.end]...)
		res.candidates = append(res.candidates, candidate{base + int64(s.start), base + int64(s.end)})
	}
}

// mapped is a plain file, as long as it was when it was opened. It is mapped a
// block at a time, which costs half of what read(2) does, and keeps the
// resident memory at some blocks.
type mapped struct {
	file *os.File
	size int64
	next int64
	// read has it read, not mapped: a thread that hangs in a page fault stops all
	// others at the next collection of garbage, one in read(2) does not.
	read bool
	sizes
}

func (m *mapped) claim(b *block) bool {
	if m.next >= m.size {
		return false
	}
	b.start, b.end = m.next, min(m.next+m.mapped, m.size)
	b.done = b.end
	m.next = b.end
	return true
}

func (m *mapped) scan(b *block, w *worker, res *result) {
	low := max(0, b.start-int64(m.edge))
	high := min(m.size, b.end+int64(m.edge))
	if !m.read && m.scanMap(b, w, res, low, high) {
		return
	}
	// It cannot be mapped, was cut short under us, or the disk fails: read(2)
	// tells which, and gets what there is.
	res.clear()
	text := make([]byte, high-low)
	n, err := m.file.ReadAt(text, low)
	if err != nil && !errors.Is(err, io.EOF) {
		res.err = err
	}
	from := min(int(b.start-low), n)
	w.scan(res, text[:n], from, min(int(b.end-low), n), b.start)
}

// scanMap scans the block in a mapping of the file, false where that fails.
func (m *mapped) scanMap(b *block, w *worker, res *result, low, high int64) (ok bool) {
	start := low &^ (page - 1)
	text, err := unix.Mmap(int(m.file.Fd()), start, int(high-start), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return false
	}
	defer unix.Munmap(text)
	// A page that lies behind the file's end by now, or that the disk does
	// not give, raises SIGBUS (mmap(2)); like this it is a panic, here.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			if _, is := fault.(interface{ Addr() uintptr }); !is {
				panic(fault)
			}
			ok = false
		}
	}()
	text = text[low-start:]
	w.scan(res, text, int(b.start-low), int(b.end-low), b.start)
	return true
}

// stream is a text that comes in order only: a pipe or an archive. The worker
// that claims a block reads it while the others scan theirs.
type stream struct {
	raw  *bufio.Reader // the input, maybe an archive
	text io.Reader     // what raw gives, unpacked; nil before the first block
	done func() int64  // bytes of input read so far
	at   int64         // offset of kept's first fresh byte
	kept []byte        // the end of the last block's text: both edges
	new  int           // kept[new:] belongs to the next block
	end  bool
	sizes
}

func (s *stream) claim(b *block) bool {
	if s.end {
		return false
	}
	if b.text == nil {
		b.text = make([]byte, 2*s.edge+s.stream)
	}
	b.text = b.text[:cap(b.text)]
	n := copy(b.text, s.kept)
	got, err := 0, error(nil)
	if s.text == nil {
		s.text, err = unpack(s.raw)
	}
	if err == nil {
		got, err = io.ReadFull(s.text, b.text[n:])
	}
	b.text = b.text[:n+got]
	b.from, b.to, b.err = s.new, len(b.text)-s.edge, nil
	if err != nil {
		s.end, b.to = true, len(b.text)
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			b.err = err
		}
	}
	b.start, b.end = s.at, s.at+int64(b.to-b.from)
	b.done = s.done()
	s.at = b.end
	keep := max(0, b.to-s.edge)
	s.kept = append(s.kept[:0], b.text[keep:]...)
	s.new = b.to - keep
	return true
}

func (s *stream) scan(b *block, w *worker, res *result) {
	w.scan(res, b.text, b.from, b.to, b.start)
	res.err = b.err
}

// run scans a source with all workers and hands the results over in the
// source's order, on the caller's goroutine. It returns when all are handed
// over, or at once when ctx is done; closed is called when no worker uses the
// source any more.
func run(ctx context.Context, src source, workers []*worker, closed func(), take func(*result)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Workers may be ahead of the first unfinished block by one each.
	free := make(chan *result, 2*len(workers))
	scanned := make([]chan *result, cap(free)) // block i comes from the i-th, and they go round
	for i := range scanned {
		free <- new(result)
		scanned[i] = make(chan *result, 1)
	}
	var turn sync.Mutex
	claimed := 0
	claim := func(b *block) *result {
		turn.Lock()
		defer turn.Unlock()
		select {
		case res := <-free:
			if ctx.Err() == nil && src.claim(b) {
				res.index, res.done = claimed, b.done
				claimed++
				return res
			}
		case <-ctx.Done():
		}
		return nil
	}
	var group sync.WaitGroup
	for _, w := range workers {
		group.Go(func() {
			for res := claim(&w.block); res != nil; res = claim(&w.block) {
				res.clear()
				src.scan(&w.block, w, res)
				scanned[res.index%len(scanned)] <- res
			}
		})
	}
	go func() {
		group.Wait()
		closed()
		for _, ch := range scanned {
			close(ch)
		}
	}()
	for i := 0; ; i++ {
		select {
		case res := <-scanned[i%len(scanned)]:
			if res == nil || ctx.Err() != nil { // select takes either where both are there
				return
			}
			take(res)
			free <- res
		case <-ctx.Done():
			return
		}
	}
}
