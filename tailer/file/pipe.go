package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pipeSize is what may wait of a pipe's text, and 16 KiB more to read it with:
// Options.Cut leaves less than 64 KiB.
const pipeSize = (64 + 16) << 10

// pipe is an open FIFO. It has no position, and what was read once is gone,
// so a goroutine of its own reads it.
type pipe struct {
	dev, ino uint64
	file     *os.File
	leaving  atomic.Bool // its name is gone: read what is there and end
}

func (p *pipe) close() {
	p.leaving.Store(true)
	p.file.SetReadDeadline(time.Now().Add(settleTime))
}

// openPipe opens a FIFO for reading and writing: so opening it never waits
// for a writer, and the last writer's end is no end of file.
func (f *Files) openPipe(path string) {
	failed := func(err error) { f.fail(f.source(path), &os.PathError{Op: "open", Path: path, Err: err}) }
	// Held before it is opened, as in openFile: by now it may be a device.
	held, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		failed(err)
		return
	}
	defer unix.Close(held)
	st, err := statFD(held)
	if err != nil || !st.pipe() {
		f.agenda.after(gatherTime, func() { f.checkName(path) })
		return
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(held), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		failed(err)
		return
	}
	s := f.source(path)
	f.readable(s)
	p := &pipe{dev: st.dev, ino: st.ino, file: os.NewFile(uintptr(fd), path)}
	f.attachPipe(s, p)
	f.attach(s, nil)
	// Also where Run's goroutine hangs.
	stop := context.AfterFunc(f.running, p.close)
	f.group.Go(func() {
		defer stop()
		f.readPipe(s, p)
	})
}

func (f *Files) attachPipe(s *source, p *pipe) {
	if s.pipe != nil {
		s.pipe.close()
	}
	s.pipe = p
}

func (f *Files) readPipe(s *source, p *pipe) {
	defer p.file.Close()
	buf := make([]byte, pipeSize)
	fill := 0          // bytes that wait in buf
	var before [1]byte // the one before them, 0 for none
	emit := func(text []byte) {
		f.emit(s, text, f.opt.Continues(before[:], text), time.Time{})
		before[0] = text[len(text)-1]
	}
	emitLines := func(settled bool) {
		text := buf[:fill]
		for k := f.opt.Cut(text, settled); k > 0; k = f.opt.Cut(text, settled) {
			emit(text[:k])
			text = text[k:]
		}
		fill = copy(buf, text)
	}
	for {
		n, err := p.file.Read(buf[fill:])
		fill += n
		switch {
		case err == nil:
			emitLines(false)
			if f.opt.Cut(buf[:fill], true) > 0 && !p.leaving.Load() {
				p.file.SetReadDeadline(time.Now().Add(settleTime))
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("read %s: %w", s.path, err)
			s.err.Store(&err)
			return
		case p.leaving.Load():
			if emitLines(true); fill > 0 && bytes.IndexByte(buf[:fill], 0) < 0 {
				emit(buf[:fill])
			}
			return
		default:
			emitLines(true)
			p.file.SetReadDeadline(time.Time{})
			if p.leaving.Load() {
				p.close()
			}
		}
	}
}
