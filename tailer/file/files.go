// Package file follows log files and hands over whole lines.
//
// Files reads each inode itself: an open descriptor, the offset of the first
// byte that was not handed over, and the 256 bytes before it, which are read
// again after each read. If they have changed, the file was cut. Names only
// say which inodes to open; events, and whoever sends them, only say where to
// look. So no event that is lost, late or doubled can lose or double a line.
//
// Of nxadm/tail (v1.4.11) this uses package watch, on our own descriptor
// (/proc/self/fd/N): it tells when a quiet file has grown. Its line reader is
// left out. Measured over 20 rotations in 40,000 lines it loses 4,287 of them
// in rename+create, and 60 in copytruncate; without any rotation 50 of
// 200,000 lines get lost and 38 mangled, as it takes half a write for a line
// and seeks to the end; MaxLineSize does not bound its memory (208 MB for a
// line of 64 MB); it reads 0.8 million lines a second where large chunks give
// 13; and where stat(2) fails, or no inotify instance is left, it ends the
// process. The watch alone does none of that, as it is used here: an inode is
// armed once, an instance is probed for first, and ChangeEvents, which calls
// stat, is passed by.
//
// A watch costs most when a file is busy and nothing when it is quiet. So a
// file that wakes five times in 40 ms is taken off it and looked at every
// 1.6 ms, until 20 looks have found nothing. At 100,000 lines a second this
// takes 0.33 s of CPU for a million lines, and "tail -F | grep" 0.37 s in the
// same run (0.48 and 0.49 on a worse day); the last byte of a line is handed
// over within 0.57 ms (median) and 1.2 ms (p99). A thousand quiet files take
// 14 MiB and, in a minute, no CPU tick and 3 context switches.
//
// fsnotify watches the folders: births, renames, deletions and symlinks.
//
// What is promised: over rename, create, delete, a symlink's switch, uWSGI's
// own rotation and a restart of the reader, each line is handed over once, as
// long as the file that holds it exists, or is open here, when Files looks;
// over copytruncate, each line that the file or its copy still holds. Text
// that was destroyed before is counted (Status.Truncations) and told (Lost,
// Truncated). Lines that are written late to a file that was rotated away may
// come after lines of its successor. After kill -9, what was read since the
// last checkpoint (a second at most) is read again.
//
// What is not seen by itself: a change on a network file system by another
// host, and the renaming of a folder two or more levels above a log's; the
// next event or start finds them.
package file

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sys/unix"

	"qwatch/tailer"
)

const (
	// pace is how often a busy file is looked at.
	pace = 1600 * time.Microsecond
	// rounds of looks without new text end a file's busy time.
	coolRounds = 20
	// After so many looks its name is looked at as well.
	nameRounds = 8
	// A file that wakes hotWakes times within hotTime is busy.
	hotWakes = 5
	hotTime  = 40 * time.Millisecond

	settleTime   = 100 * time.Millisecond
	gatherTime   = 20 * time.Millisecond  // between two looks for what a rotation has left
	pollTime     = 250 * time.Millisecond // between two looks where the kernel gives no events
	checkpointIn = 900 * time.Millisecond
	quietTime    = 5 * time.Second // until a file that was rotated away may be let go
	longQuiet    = time.Hour       // the same, where its writers cannot be told
	firstRetry   = time.Second
	lastRetry    = time.Minute
	knownFiles   = 1024 // finished files that are remembered
)

// Options say what Files follows and how.
type Options struct {
	// Globs are absolute paths or patterns (*, ?, [a-z], {a,b}, **). Files
	// and folders may come later. Names that end in .gz, .zst, .xz or .bz2
	// never match.
	Globs []string
	// FromStart makes the very first start read files that are there from
	// their beginning, not from their end.
	FromStart bool
	// StateFile keeps the positions over restarts; "" keeps them nowhere.
	// Its folder must exist.
	StateFile string
	// Events is told what an operator should know, each thing once; nil for
	// nobody. It may be called from two goroutines, and must not call back.
	Events func(Event)
}

// Event is something that happened to a source and that is no line.
type Event struct {
	Kind   EventKind
	Source string // the file's path, or that of a folder or of the state file
	Detail string // for people; "" if the kind says it all
	Err    error  // nil if nothing failed
}

// EventKind says what happened.
type EventKind string

const (
	Rotated    EventKind = "rotated"    // the name is gone or another file has it; the old one is read to its end
	Truncated  EventKind = "truncated"  // the file was cut in place; what was unread and in no copy is gone
	Recovered  EventKind = "recovered"  // text was found in a rotated, copied or compressed file
	Lost       EventKind = "lost"       // a file with unread text is nowhere to be found
	Unreadable EventKind = "unreadable" // cannot be read; tried again with growing pauses
	Readable   EventKind = "readable"   // can be read again
	Polling    EventKind = "polling"    // the kernel gives no events; looked at four times a second
	Unsaved    EventKind = "unsaved"    // positions cannot be read or written
)

// Files follows files. Use it from New; one inode must not be followed by two
// Files of one process (nxadm/tail's watch is shared, and fsnotify knows one
// name for an inode).
type Files struct {
	opt    Options
	handle tailer.Handler
	ready  chan struct{}
	asked  chan chan struct{} // by Alive

	mu      sync.Mutex // guards sources and folderErr for Status
	sources map[string]*source
	folders map[string]error

	// What follows belongs to the goroutine of Run.
	buf, small []byte
	inodes     map[identity]*inode
	known      map[identity]position // finished files, so that none is read twice
	order      []identity            // of known, oldest first
	saved      map[identity]position // from the checkpoint, not found yet
	before     map[string]done       // names in the checkpoint
	since      int64                 // files born before (Unix ns) are not news
	starting   bool                  // until all files of the first survey are open
	first      bool                  // no checkpoint: the very first start
	hot        []*inode
	scanning   map[*source]int // sources whose lost generations are searched for, and the round
	scanNow    bool
	scanSoon   bool // a scan is in the agenda
	agenda     agenda
	watch      *watcher
	polled     bool // a poll is in the agenda
	resurvey   bool
	dirty      bool
	store      *store
	pipes      sync.WaitGroup
}

// source is a followed name.
type source struct {
	path   string
	inode  *inode // what the name leads to, nil if nothing or a pipe
	pipe   *pipe
	users  int    // inodes whose src this is
	backup string // the base name under which a rotation put the last file
	heads  []head // how its last generations began
	done
	births, opened int           // files that were born under the name, and those of them that were opened
	delay          time.Duration // until the next try to read it, 0 if all is well

	lines, bytes, truncations atomic.Uint64
	err                       atomic.Pointer[error]
}

// New checks the globs. It opens nothing yet.
func New(opt Options, h tailer.Handler) (*Files, error) {
	for i, g := range opt.Globs {
		if !filepath.IsAbs(g) {
			return nil, fmt.Errorf("file pattern %q is not an absolute path", g)
		}
		if !doublestar.ValidatePathPattern(g) {
			return nil, fmt.Errorf("file pattern %q is malformed: check its brackets and braces", g)
		}
		if i == 0 {
			opt.Globs = slices.Clone(opt.Globs)
		}
		opt.Globs[i] = filepath.Clean(g)
	}
	if opt.Events == nil {
		opt.Events = func(Event) {}
	}
	return &Files{
		opt:      opt,
		handle:   h,
		ready:    make(chan struct{}),
		asked:    make(chan chan struct{}),
		sources:  map[string]*source{},
		folders:  map[string]error{},
		buf:      make([]byte, chunkSize),
		small:    make([]byte, windowSize),
		inodes:   map[identity]*inode{},
		known:    map[identity]position{},
		saved:    map[identity]position{},
		scanning: map[*source]int{},
	}, nil
}

// Ready is closed when every file that was there at the start is open at its
// position: what is written from then on is handed over.
func (f *Files) Ready() <-chan struct{} { return f.ready }

// Alive returns nil when Run's loop answers, and ctx's error if it does not
// before that: it hangs in a read, or in the Handler.
func (f *Files) Alive(ctx context.Context) error {
	answer := make(chan struct{})
	select {
	case f.asked <- answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-answer // Run has the question and answers at once
	return nil
}

// String names the task.
func (f *Files) String() string { return "files " + strings.Join(f.opt.Globs, " ") }

// Status tells of each followed name, sorted by it, and of each folder that
// cannot be listed.
func (f *Files) Status() []tailer.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []tailer.Status
	for _, s := range f.sources {
		st := tailer.Status{
			Name: s.path, Kind: "file",
			Lines: s.lines.Load(), Bytes: s.bytes.Load(), Truncations: s.truncations.Load(),
		}
		if err := s.err.Load(); err != nil {
			st.Error = *err
		}
		all = append(all, st)
	}
	for dir, err := range f.folders {
		all = append(all, tailer.Status{Name: dir, Kind: "file", Error: err})
	}
	slices.SortFunc(all, func(a, b tailer.Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Run follows the files until ctx ends, and returns nil then. It keeps the
// positions at most a second old, and writes them once more at the end.
func (f *Files) Run(ctx context.Context) error {
	f.watch = newWatcher(f)
	defer f.stop()
	f.load()
	f.starting = true
	f.survey()
	f.recover()
	f.starting = false
	// Before anything is read: after a kill the next start must know which
	// files this one has seen.
	f.store.now(f.snapshot)
	close(f.ready)
	for _, in := range f.inodes {
		f.woken(in)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if len(f.hot) > 0 {
			began := time.Now()
			if !f.heatRound() {
				nap(max(pace, 2*time.Since(began)))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-f.watch.poked:
				f.woke()
			case answer := <-f.asked:
				close(answer)
			default:
			}
			f.agenda.run(time.Now())
			f.tidy()
			continue
		}
		timer.Reset(f.agenda.wait(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case <-f.watch.poked:
			f.woke()
		case answer := <-f.asked:
			close(answer)
		case <-timer.C:
			f.agenda.run(time.Now())
		}
		f.tidy()
	}
}

// nap sleeps in the system call: each of the runtime's timers and thread
// wake-ups costs more than a look at a file. Where there is a processor for
// the other goroutines, the runtime is not even told of the call: its monitor
// thread would wake each time, and take half of all CPU time. The signal by
// which it stops goroutines ends the nap.
func nap(d time.Duration) {
	spec := unix.NsecToTimespec(int64(d))
	if runtime.GOMAXPROCS(0) > 1 {
		unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&spec)), 0, 0)
	} else {
		unix.Nanosleep(&spec, nil)
	}
}

func (f *Files) stop() {
	for _, in := range f.inodes {
		f.watch.disarm(in)
	}
	f.watch.close()
	for _, s := range f.sources {
		if s.pipe != nil {
			s.pipe.close()
		}
	}
	f.pipes.Wait()
	f.store.close(f.snapshot)
	for _, in := range f.inodes {
		unix.Close(in.fd)
	}
}

// tidy does what several events may have asked for.
func (f *Files) tidy() {
	if f.resurvey {
		f.resurvey = false
		f.survey()
	}
	if f.scanNow {
		f.scanNow = false
		f.scan()
	}
}

// give hands over text.
func (f *Files) give(s *source, text []byte, middle bool) {
	s.lines.Add(uint64(bytes.Count(text, []byte{'\n'})))
	s.bytes.Add(uint64(len(text)))
	f.handle(tailer.Chunk{Source: s.path, Name: s.path, Time: time.Now(), Text: text, Middle: middle})
}

// woken looks at a file that may have changed.
func (f *Files) woken(in *inode) {
	grew, more := f.look(in, false)
	if in.wake.hot {
		return
	}
	if grew {
		if now := time.Now(); now.Sub(in.wake.first) > hotTime {
			in.wake.first, in.wake.count = now, 0
		}
		in.wake.count++
	}
	if more || in.wake.count >= hotWakes {
		f.watch.disarm(in)
		in.wake.hot, in.wake.empty, in.wake.count = true, 0, 0
		f.hot = append(f.hot, in)
		return
	}
	if !in.wake.armed && !in.wake.polled && f.watch.arm(in) {
		f.woken(in) // what came before the watch was set
	}
}

// heatRound looks at the busy files and says whether there is more at once.
func (f *Files) heatRound() (more bool) {
	hot := f.hot
	f.hot = nil
	for i, in := range hot {
		if in.fd < 0 {
			continue
		}
		grew, again := f.look(in, false)
		more = more || again
		if in.wake.empty++; grew {
			in.wake.empty = 0
		}
		// The folder's events lag behind while its files are busy (sift).
		if in.wake.looks++; in.wake.looks%nameRounds == 0 && in.src.inode == in {
			f.check(in.src.path)
		}
		if in.wake.empty > coolRounds {
			in.wake.hot = false
			f.woken(in)
		} else {
			f.hot = append(f.hot, hot[i])
		}
	}
	return more
}

// poll looks at everything that has no watch, four times a second, as long as
// there is such a thing.
func (f *Files) poll() {
	f.polled = false
	need := f.watch.blind()
	for _, in := range f.inodes {
		if in.wake.polled {
			need = true
			f.look(in, false)
		}
	}
	if f.watch.blind() {
		f.resurvey = true
	}
	if need {
		f.pollSoon()
	}
}

func (f *Files) pollSoon() {
	if !f.polled {
		f.polled = true
		f.after(pollTime, f.poll)
	}
}

// survey finds names that have come and gone, and watches their folders.
func (f *Files) survey() {
	var s scope
	for {
		s = survey(f.opt.Globs)
		if !f.watch.folders(s.dirs) {
			break // no folder is new: nothing was missed while the list was made
		}
	}
	f.mu.Lock()
	for dir, err := range s.errs {
		if f.folders[dir] == nil {
			f.event(Event{Kind: Unreadable, Source: dir, Err: err})
			f.after(firstRetry, f.retryFolders(firstRetry))
		}
	}
	maps.Copy(s.errs, f.watch.failed)
	f.folders = s.errs
	old := slices.Collect(maps.Keys(f.sources))
	f.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(s.names)) {
		f.check(path)
	}
	for _, path := range old {
		if !s.names[path] {
			f.check(path)
		}
	}
}

func (f *Files) retryFolders(delay time.Duration) func() {
	return func() {
		f.survey()
		if len(f.folders) > 0 {
			delay = min(2*delay, lastRetry)
			f.after(delay, f.retryFolders(delay))
		}
	}
}

// check compares a name with what it leads to now.
func (f *Files) check(path string) {
	st, err := statPath(path)
	s := f.sources[path]
	switch {
	case err != nil && gone(err):
		if s != nil {
			f.ok(s)
			f.attach(s, nil)
			f.attachPipe(s, nil)
			f.forget(s)
		}
		return
	case err != nil:
		f.fail(f.source(path), err)
		return
	case s != nil && s.inode != nil && s.inode.id.Dev == st.dev && s.inode.id.Ino == st.ino,
		s != nil && s.pipe != nil && s.pipe.dev == st.dev && s.pipe.ino == st.ino:
		return // an inode that is open keeps its number
	case st.pipe():
		f.openPipe(path)
		return
	case !st.regular():
		return
	}
	fd, id, st, err := openFile(path)
	if err != nil {
		if gone(err) {
			f.check(path)
			return
		}
		f.fail(f.source(path), err)
		return
	}
	s = f.source(path)
	f.ok(s)
	if in := f.inodes[id]; in != nil {
		unix.Close(fd)
		f.attach(s, in)
		return
	}
	in := f.adopt(fd, id, s)
	if !f.starting {
		s.opened++
	}
	f.place(in, st)
	f.attach(s, in)
	if !f.starting {
		f.woken(in)
	}
}

// adopt begins to follow an open file.
func (f *Files) adopt(fd int, id identity, s *source) *inode {
	in := &inode{id: id, fd: fd, src: s, moved: time.Now()}
	in.at = in.path()
	s.users++
	f.inodes[id] = in
	f.changed()
	return in
}

// place sets a new file's position.
func (f *Files) place(in *inode, st facts) {
	if p, ok := f.saved[in.id]; ok {
		delete(f.saved, in.id)
		p.apply(in)
		if p.Copy {
			in.suspect = f.original(in.src.path)
		}
		return
	}
	if p, ok := f.known[in.id]; ok {
		p.apply(in)
		return
	}
	// A name that was followed has another file now: that is news. A name
	// that was not is news only if the file is.
	old := f.starting && (f.first || st.since() < f.since && !f.wasFollowed(in.src.path))
	switch {
	case !old:
		in.suspect = f.original(in.src.path)
	case !f.opt.FromStart || !f.first:
		if err := in.jump(st.size); err != nil {
			f.fail(in.src, fmt.Errorf("read %s: %w", in.src.path, err))
		}
	}
}

func (f *Files) wasFollowed(path string) bool {
	_, ok := f.before[path]
	return ok
}

// attach makes a name lead to in, nil for nowhere.
func (f *Files) attach(s *source, in *inode) {
	old := s.inode
	if old == in {
		return
	}
	s.inode = in
	if in != nil {
		in.names++
	}
	if old == nil {
		return
	}
	if old.names--; old.names > 0 {
		return
	}
	f.retire(old)
}

// retire drains a file that has no followed name any more.
func (f *Files) retire(in *inode) {
	s := in.src
	if in.at = in.path(); in.at != "" {
		s.backup = filepath.Base(in.at)
	}
	s.began(in.head)
	f.woken(in) // its text comes before that of its successor
	f.search(s)
	f.event(Event{Kind: Rotated, Source: s.path})
	f.after(quietTime, func() { f.release(in, quietTime) })
	f.changed()
}

// release lets a rotated file go when it has been still for a while and no
// process can write to it any more.
func (f *Files) release(in *inode, wait time.Duration) {
	if in.fd < 0 || in.names > 0 {
		return
	}
	f.look(in, false)
	quiet := time.Since(in.moved)
	alone, known := in.abandoned()
	if quiet < quietTime || !alone && (known || quiet < longQuiet) {
		wait = min(2*wait, lastRetry)
		f.after(wait, func() { f.release(in, wait) })
		return
	}
	if in.tail > 0 && !in.copied && in.suspect == nil {
		f.rest(in)
	}
	f.drop(in)
}

// rest hands over half a line that no writer can end any more.
func (f *Files) rest(in *inode) {
	n, err := unix.Pread(in.fd, f.buf, in.off)
	if err == nil && n > 0 && in.intact(f.small) {
		f.give(in.src, f.buf[:n], in.middle(f.buf[:n]))
		in.advance(f.buf[:n])
	}
}

// drop closes a file and remembers how far it was read.
func (f *Files) drop(in *inode) {
	f.watch.disarm(in)
	if st, err := statFD(in.fd); err == nil {
		in.src.Low = max(in.src.Low, st.since())
	}
	unix.Close(in.fd)
	in.fd = -1
	delete(f.inodes, in.id)
	f.remember(in.id, positionOf(in))
	in.src.users--
	f.forget(in.src)
	f.changed()
}

func (f *Files) remember(id identity, p position) {
	if _, ok := f.known[id]; !ok {
		f.order = append(f.order, id)
	}
	f.known[id] = p
	if len(f.order) > knownFiles {
		delete(f.known, f.order[0])
		f.order = f.order[1:]
	}
}

// source finds or makes the source of a name.
func (f *Files) source(path string) *source {
	s := f.sources[path]
	if s == nil {
		s = &source{path: path, done: done{f.since, f.since}}
		if d, ok := f.before[path]; ok {
			s.done = done{d.Low, max(d.Packed, f.since)}
		}
		f.mu.Lock()
		f.sources[path] = s
		f.mu.Unlock()
	}
	return s
}

// forget removes a source that has no file left.
func (f *Files) forget(s *source) {
	if s.inode == nil && s.pipe == nil && s.users == 0 && s.delay == 0 && f.sources[s.path] == s {
		f.mu.Lock()
		delete(f.sources, s.path)
		f.mu.Unlock()
	}
}

// fail notes that a source cannot be read, and tries again later.
func (f *Files) fail(s *source, err error) {
	if s.delay == 0 {
		f.event(Event{Kind: Unreadable, Source: s.path, Err: err})
		s.delay = firstRetry / 2
		f.after(firstRetry, func() { f.retry(s) })
	}
	s.err.Store(&err)
}

func (f *Files) retry(s *source) {
	if s.delay == 0 {
		return
	}
	s.delay = min(2*s.delay, lastRetry)
	if s.inode != nil {
		var b [1]byte
		if _, err := unix.Pread(s.inode.fd, b[:], s.inode.off); err == nil {
			f.ok(s)
			f.woken(s.inode)
			return
		}
	}
	f.check(s.path)
	if s.delay > 0 {
		f.after(s.delay, func() { f.retry(s) })
	}
}

// ok takes fail back.
func (f *Files) ok(s *source) {
	if s.delay == 0 {
		return
	}
	s.delay = 0
	s.err.Store(nil)
	f.event(Event{Kind: Readable, Source: s.path})
}

func (f *Files) event(e Event) { f.opt.Events(e) }

// changed has the positions written within a second.
func (f *Files) changed() {
	if f.store != nil && !f.dirty {
		f.dirty = true
		f.after(checkpointIn, f.save)
	}
}

func (f *Files) after(d time.Duration, do func()) { f.agenda.add(time.Now().Add(d), do) }
