package file

import (
	"bytes"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunkSize is what one read takes at most. One buffer of this size
	// serves all files.
	chunkSize = 256 << 10
	// burst is how many chunks one file may hand over before others have
	// their turn.
	burst = 16

	// busyPace is how often a busy file is read.
	busyPace = 1600 * time.Microsecond
	// A file is busy that brings text at busyWakes wakes within busyTime,
	// until calmReads reads have found nothing.
	busyWakes = 5
	busyTime  = 40 * time.Millisecond
	calmReads = 20
	// After so many reads its name is looked at as well.
	nameReads = 8

	settleTime = 100 * time.Millisecond
	quietTime  = 5 * time.Second // until a file that was rotated away may be let go
	longQuiet  = time.Hour       // the same, where its writers cannot be told
)

// adopt begins to follow an open file that this Files has claimed.
func (f *Files) adopt(fd int, id identity, st facts, s *source) *inode {
	in := &inode{id: id, fd: fd, src: s, moved: time.Now()}
	if written := f.past.stood(st); !written.IsZero() {
		in.before = before{st.size, written}
	}
	in.at = in.path()
	s.users++
	f.inodes[id] = in
	f.saveSoon()
	return in
}

// place sets a new file's position.
func (f *Files) place(in *inode, st facts) {
	defer func() { f.shared.began(f, in.id, in.head) }()
	if p, ok := f.shared.known(in.id); ok {
		p.apply(in)
		if p.Copy {
			in.copyOf = f.original(in.src.path)
		}
		return
	}
	switch {
	case f.past.isNews(in.src.path, st):
		in.copyOf = f.original(in.src.path)
	case !f.opt.FromStart || !f.past.first:
		if err := in.jump(st.size); err != nil {
			f.failRead(in, err)
		}
	}
}

// checkFile reads a file that may have grown, and settles how the next growth
// will be noticed.
func (f *Files) checkFile(in *inode) {
	grew, more := f.read(in, false)
	w := &in.wake
	if w.busy {
		return
	}
	if grew {
		if now := time.Now(); now.Sub(w.first) > busyTime {
			w.first, w.count = now, 0
		}
		w.count++
	}
	if more || w.count >= busyWakes {
		f.watch.disarm(in)
		w.busy, w.empty, w.count = true, 0, 0
		f.busy = append(f.busy, in)
		return
	}
	if !w.armed && !w.polled && f.watch.arm(in) {
		f.checkFile(in) // what came before the watch was set
	}
}

// readBusy reads the busy files, and then pauses unless there is more at once.
func (f *Files) readBusy() {
	began, more := time.Now(), false
	busy := f.busy
	f.busy = nil
	for _, in := range busy {
		if in.fd < 0 {
			continue
		}
		grew, again := f.read(in, false)
		more = more || again
		w := &in.wake
		if w.empty++; grew {
			w.empty = 0
		}
		// The directory's events lag behind while its files are busy (filter).
		if w.reads++; w.reads%nameReads == 0 && in.src.inode == in {
			f.checkName(in.src.path)
		}
		if w.empty > calmReads {
			w.busy = false
			f.checkFile(in)
		} else {
			f.busy = append(f.busy, in)
		}
	}
	if !more {
		pause(max(busyPace, 2*time.Since(began)))
	}
}

// poll looks at everything that has no watch, four times a second, as long as
// there is such a thing.
func (f *Files) poll() {
	need := f.watch.blind()
	if need {
		f.surveyIn(0)
	}
	for _, in := range f.inodes {
		if in.wake.polled {
			need = true
			f.read(in, false)
		}
	}
	if need {
		f.pollSoon()
	}
}

func (f *Files) pollSoon() { f.agenda.once(pollUnwatched, pollTime, f.poll) }

// read hands over what the file holds behind its position. It says whether
// anything was new, and whether there is more to read at once.
func (f *Files) read(in *inode, settled bool) (grew, more bool) {
	if in.copyOf != nil && !f.isOriginal(in) {
		return false, false
	}
	whole := false // half a line will be whole if nothing follows it
	for range burst {
		f.step()
		n, err := unix.Pread(in.fd, f.buf, in.off)
		if err != nil {
			f.failRead(in, err)
			return grew, false
		}
		if !in.intact() {
			f.truncated(in)
			if in.fd < 0 {
				return true, false
			}
			grew = true
			continue
		}
		text := f.buf[:n]
		if n > 0 && text[0] == 0 {
			in.skip(text)
			grew = true
			continue
		}
		if in.learn(text) {
			f.shared.began(f, in.id, in.head)
		}
		from := in.off
		for k := f.opt.Cut(text, settled); k > 0; k = f.opt.Cut(text, settled) {
			f.hand(in, text[:k])
			text = text[k:]
			if n == len(f.buf) {
				break
			}
		}
		if in.off > from {
			f.shared.handed(f, in)
		}
		if len(text) != in.tail || len(text) != n {
			grew = true
			in.tail = len(text)
		}
		if more = n == len(f.buf); !more {
			whole = !settled && f.opt.Cut(text, true) > 0
			break
		}
	}
	if grew {
		in.moved = time.Now()
		f.saveSoon()
		if whole {
			f.readSettled(in)
		}
	}
	return grew, more
}

// readSettled reads half a line once more that is still the same after a while:
// it may be from an encoder that writes no newlines.
func (f *Files) readSettled(in *inode) {
	off, tail := in.off, in.tail
	f.agenda.after(settleTime, func() {
		if in.fd >= 0 && in.off == off && in.tail == tail {
			f.read(in, true)
		}
	})
}

// readLater reads a file when the present read is over.
func (f *Files) readLater(in *inode) { f.watch.hint(in, false) }

// retire drains a file that has lost its last followed name.
func (f *Files) retire(in *inode) {
	s := in.src
	if in.at = in.path(); in.at != "" {
		s.lineage.backup = filepath.Base(in.at)
	}
	s.lineage.add(in.head)
	f.checkFile(in) // its text comes before that of its successor
	f.search(s)
	f.event(Event{Kind: Rotated, Source: s.path})
	f.releaseLater(in)
	f.saveSoon()
}

// drain reads a file that has no followed name to its end.
func (f *Files) drain(in *inode) {
	f.readLater(in)
	f.releaseLater(in)
}

func (f *Files) releaseLater(in *inode) {
	f.agenda.after(quietTime, func() { f.release(in, quietTime) })
}

// release lets a rotated file go when it has been still for a while and no
// process can write to it any more.
func (f *Files) release(in *inode, wait time.Duration) {
	if in.fd < 0 || in.names > 0 {
		return
	}
	if f.read(in, false); in.fd < 0 {
		return
	}
	quiet := time.Since(in.moved)
	alone, known := in.abandoned()
	if quiet < quietTime || !alone && (known || quiet < longQuiet) {
		wait = min(2*wait, lastRetry)
		f.agenda.after(wait, func() { f.release(in, wait) })
		return
	}
	if in.tail > 0 && !in.copied && in.copyOf == nil {
		f.emitTail(in)
	}
	f.drop(in)
}

// emitTail hands over half a line that no writer can end any more.
func (f *Files) emitTail(in *inode) {
	n, err := unix.Pread(in.fd, f.buf, in.off)
	if err == nil && n > 0 && in.intact() {
		f.hand(in, f.buf[:n])
	}
}

// hand hands over text, which stands at in's position, and moves that behind it.
// What stood there before this start goes by itself; a line that was written in
// part since is new.
func (f *Files) hand(in *inode, text []byte) {
	for len(text) > 0 {
		n, stood := len(text), time.Time{}
		if old := in.before.size - in.off; old >= int64(n) {
			stood = in.before.written
		} else if old > 0 {
			if line := bytes.LastIndexByte(text[:old], '\n') + 1; line > 0 {
				n, stood = line, in.before.written
			}
		}
		f.emit(in.src, text[:n], f.opt.Continues(in.window, text), stood)
		in.advance(text[:n])
		text = text[n:]
	}
}

// drop closes a file and remembers how far it was read.
func (f *Files) drop(in *inode) {
	at := positionOf(in)
	f.close(in, &at)
}

// close closes a file that was read up to a position, nil for one that counts as
// not read.
func (f *Files) close(in *inode, at *position) {
	f.watch.disarm(in)
	if st, err := statFD(in.fd); err == nil {
		in.src.lineage.Low = max(in.src.lineage.Low, st.since())
	}
	unix.Close(in.fd)
	in.fd = -1
	delete(f.inodes, in.id)
	f.shared.release(f, in.id, at)
	in.src.users--
	f.forget(in.src)
	f.saveSoon()
}
