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
// file that grows five times in 40 ms is taken off it and read every 1.6 ms,
// until 20 reads have found nothing. At 100,000 lines a second this
// takes 0.33 s of CPU for a million lines, and "tail -F | grep" 0.37 s in the
// same run (0.48 and 0.49 on a worse day); the last byte of a line is handed
// over within 0.57 ms (median) and 1.2 ms (p99). A thousand quiet files take
// 14 MiB and, in a minute, no CPU tick and 3 context switches.
//
// fsnotify watches the directories: births, renames, deletions and symlinks. To add
// a watch may hang, with fsnotify's lock held, so each Files has a watcher of its
// own. nxadm/tail's is one for all, and is not asked about file systems that may
// hang (watcher.arm).
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
// host, and the renaming of a directory two or more levels above a log's; the
// next event or start finds them.
package file

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
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
	gatherTime = 20 * time.Millisecond  // between two searches for what a rotation has left
	pollTime   = 250 * time.Millisecond // between two reads where the kernel gives no events
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// Options say what Files follows and how.
type Options struct {
	// Globs are absolute paths or patterns (*, ?, [a-z], {a,b}, **). Files
	// and directories may come later. Names that end in .gz, .zst, .xz or .bz2
	// never match.
	Globs []string
	// FromStart makes the very first start read files that are there from
	// their beginning, not from their end.
	FromStart bool
	// Registry is shared by all followers of a process. Where it is nil, this one
	// has one of its own, with StateFile.
	Registry *Registry
	// StateFile keeps the positions over restarts; "" keeps them nowhere.
	// Its directory must exist.
	StateFile string
	// Rest, where it is not nil, are the globs of all other followers; this one has
	// none then. It reads to their end the files of positions that stem from other
	// globs, of an earlier configuration (Registry.HasRest).
	Rest []string
	// Cut says how much of text, the newest part of a log, can be handed over,
	// 0 for nothing yet; settled says that nothing has come for a while. What
	// is left must be shorter than 64 KiB, so that no line needs more memory.
	Cut func(text []byte, settled bool) int
	// Continues says whether text stands inside a line of which before is the
	// end of what was handed over (see tailer.Chunk.Middle).
	Continues func(before, text []byte) bool
	// Events, if not nil, is told what an operator should know, each thing
	// once. It may be called from several goroutines, and must not call back.
	Events func(Event)
}

// Event is something other than a line that happened to a source.
type Event struct {
	Kind   EventKind
	Source string // the file's path, or that of a directory or of the state file
	Detail string // for people; "" if the kind says it all
	Err    error  // nil if nothing failed
}

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	Rotated    EventKind = "rotated"    // the name is gone or another file has it; the old one is read to its end
	Truncated  EventKind = "truncated"  // the file was cut in place; what was unread and in no copy is gone
	Recovered  EventKind = "recovered"  // text was found in a rotated, copied or compressed file
	Lost       EventKind = "lost"       // a file with unread text is nowhere to be found
	Unreadable EventKind = "unreadable" // cannot be read; tried again with growing pauses
	Readable   EventKind = "readable"   // can be read again
	Polling    EventKind = "polling"    // the kernel gives no events; looked at four times a second
	TooMany    EventKind = "too-many"   // more files of one user than are followed, or entries in a directory than are listed
	Unsaved    EventKind = "unsaved"    // positions cannot be read or written
)

// Files follows files, in one loop: a file system that hangs keeps all of its
// files waiting, and none of another Files. Make one with New. All of one process
// share a Registry, by which an inode is followed by one of them.
//
// Only the goroutine of Run uses the fields from names on, but for names, which
// has a lock.
type Files struct {
	opt    Options
	handle tailer.Handler
	ready  chan struct{}
	shared *Registry
	alone  bool // nobody else does

	stepped atomic.Int64 // when Run's goroutine did the last thing, in Unix nanoseconds
	rests   atomic.Bool  // it waits for something to do
	left    atomic.Bool  // it was left behind, see Leave

	names    names
	inodes   map[identity]*inode
	busy     []*inode
	past     past
	searches map[*source]int // for lost generations of these names, and the round
	agenda   agenda
	watch    *watcher
	buf      []byte          // one read of any file
	running  context.Context // Run's
	refused  map[uint32]int  // how many files of a user were not opened since the last survey, -1 where that was told
	group    sync.WaitGroup  // of all goroutines but Run's and the store's
}

// New checks the globs. It opens nothing yet but, where no Registry is given, the
// state file. The positions of earlier runs are given out here: all followers that
// start together are to be made before one of them runs.
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
	f := &Files{
		opt:      opt,
		handle:   h,
		ready:    make(chan struct{}),
		names:    names{sources: map[string]*source{}},
		inodes:   map[identity]*inode{},
		searches: map[*source]int{},
		buf:      make([]byte, chunkSize),
		refused:  map[uint32]int{},
		shared:   opt.Registry,
	}
	if f.shared == nil {
		f.alone, f.shared = true, NewRegistry(opt.StateFile, opt.Events)
	}
	f.past = f.shared.join(f)
	return f, nil
}

// Ready is closed when every file that was there at the start is open at its
// position: what is written from then on is handed over.
func (f *Files) Ready() <-chan struct{} { return f.ready }

// Pulse tells how the loop fares: step is another one each time that it has done
// something, unless it rests, as there is nothing to do. A loop that neither rests
// nor comes to another step hangs in a system call.
func (f *Files) Pulse() (step int64, rests bool) { return f.stepped.Load(), f.rests.Load() }

func (f *Files) step() { f.stepped.Store(time.Now().UnixNano()) }

func (f *Files) lastStep() time.Time { return time.Unix(0, f.stepped.Load()) }

// Leave leaves a Files behind whose Run hangs though its context has ended.
// Others may follow its files from then on, from where it was; and should it ever
// wake, it hands over nothing any more.
func (f *Files) Leave() {
	select {
	case <-f.shared.leave(f, true):
	case <-time.After(saveAfter): // the state file's own disk hangs
	}
}

// String names the task.
func (f *Files) String() string {
	if f.opt.Rest != nil {
		return "files of an earlier configuration"
	}
	return "files " + strings.Join(f.opt.Globs, " ")
}

// Status tells of each followed name, sorted by it, and of each directory that
// cannot be listed.
func (f *Files) Status() []tailer.Status {
	f.names.mu.Lock()
	defer f.names.mu.Unlock()
	var all []tailer.Status
	for _, s := range f.names.sources {
		st := tailer.Status{
			Name: s.path, Kind: "file",
			Lines: s.lines.Load(), Bytes: s.bytes.Load(), Truncations: s.truncations.Load(),
		}
		if err := s.err.Load(); err != nil {
			st.Error = *err
		}
		all = append(all, st)
	}
	for dir, err := range f.names.unlisted {
		all = append(all, tailer.Status{Name: dir, Kind: "file", Error: err})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

// Run follows the files until ctx ends, and returns nil then. It keeps the
// positions at most a second old, and writes them once more at the end.
func (f *Files) Run(ctx context.Context) error {
	f.running = ctx
	f.step()
	defer f.rests.Store(true)
	f.watch = newWatcher(f)
	defer f.stop()
	f.past.starting, f.past.began = true, time.Now()
	f.survey()
	f.resume()
	f.past.starting = false
	if ctx.Err() != nil {
		return nil
	}
	// Before anything is read: after a kill the next start must know which
	// files this one has seen.
	written := f.shared.put(f, f.snapshot())
	f.rests.Store(true) // of a slow disk the store tells
	<-written
	f.rests.Store(false)
	close(f.ready)
	for _, in := range f.inodes {
		f.checkFile(in)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := f.agenda.wait()
		if len(f.busy) > 0 {
			f.readBusy()
			wait = 0
		}
		timer.Reset(wait)
		f.rests.Store(true)
		select {
		case <-ctx.Done():
			return nil
		case <-f.watch.news:
		case <-timer.C:
		}
		f.agenda.now = time.Now()
		f.stepped.Store(f.agenda.now.UnixNano())
		f.rests.Store(false)
		f.takeEvents()
		f.agenda.run()
	}
}

// pause sleeps in the system call: each of the runtime's timers and thread
// wake-ups costs more than a read of a file. Where there is a processor for
// the other goroutines, the runtime is not even told of the call: its monitor
// thread would wake each time, and take half of all CPU time. The signal by
// which it stops goroutines ends the pause.
func pause(d time.Duration) {
	spec := unix.NsecToTimespec(int64(d))
	defer pausing.Add(-1)
	if int(pausing.Add(1)) < runtime.GOMAXPROCS(0) {
		unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&spec)), 0, 0)
	} else {
		unix.Nanosleep(&spec, nil)
	}
}

// pausing counts the followers that pause.
var pausing atomic.Int32

func (f *Files) stop() {
	for _, in := range f.inodes {
		f.watch.disarm(in)
	}
	f.watch.close()
	f.group.Wait()
	select {
	case <-f.ready:
		f.shared.put(f, f.snapshot())
	default: // nothing was read: all is as it was saved
	}
	<-f.shared.leave(f, false)
	for _, in := range f.inodes {
		unix.Close(in.fd)
	}
}

// emit hands over text, which stood there before this start where stood is not
// zero.
func (f *Files) emit(s *source, text []byte, middle bool, stood time.Time) {
	if f.left.Load() {
		return
	}
	s.lines.Add(uint64(bytes.Count(text, []byte{'\n'})))
	s.bytes.Add(uint64(len(text)))
	f.handle(tailer.Chunk{Source: s.path, Name: s.path, Time: time.Now(), Stood: stood, Text: text, Middle: middle})
}

func (f *Files) event(e Event) {
	if !f.left.Load() {
		f.opt.Events(e)
	}
}
