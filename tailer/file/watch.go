package file

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/nxadm/tail/watch"
	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// wake is how an inode comes to be read.
type wake struct {
	armed  bool // nxadm/tail watches it
	polled bool // it is not to be armed, or could not be
	busy   bool // it is in Files.busy, and not armed

	first        time.Time // of the last wakes that brought text, count of them
	count        int
	reads, empty int // while busy; those in a row that found nothing

	queued, moved bool // guarded by watcher.mu
}

// watcher brings the kernel's events to the goroutine of Files.Run. All of
// them are hints: each only says where to look.
type watcher struct {
	f       *Files
	fs      *fsnotify.Watcher // nil if there is none
	watched map[string]directory
	failed  map[string]error // directories without a watch
	probed  bool             // an inotify instance could be had
	told    bool             // that a file has no watch

	news chan struct{} // there is something for takeEvents

	mu      sync.Mutex
	queue   []*inode
	changes []fsnotify.Event // of directories
	calls   []func()         // from other followers
	lost    bool             // events were dropped
}

type directory struct {
	dev, ino uint64
	born     int64
	linked   bool // names may lead here by symlinks: any change may be theirs
}

func newWatcher(f *Files) *watcher {
	w := &watcher{f: f, watched: map[string]directory{}, failed: map[string]error{}, news: make(chan struct{}, 1)}
	if err := w.open(); err != nil {
		f.event(Event{Kind: Polling, Source: "all directories", Err: err})
		f.pollSoon()
	}
	return w
}

// open begins to take the events of directories. Without an inotify instance it
// tries again now and then.
func (w *watcher) open() error {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		w.f.agenda.after(lastRetry, func() { _ = w.open() })
		return fmt.Errorf("no inotify instance (raise fs.inotify.max_user_instances): %w", err)
	}
	w.fs = fs
	w.f.surveyIn(0)
	w.f.group.Go(w.filter)
	w.f.group.Go(func() {
		// fsnotify may send an error while it holds its lock, so this
		// goroutine does nothing else.
		for err := range fs.Errors {
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				w.hint(nil, false)
			}
		}
	})
	return nil
}

func (w *watcher) close() {
	if w.fs != nil {
		w.fs.Close()
	}
}

// blind says whether some directory gives no events.
func (w *watcher) blind() bool { return w.fs == nil || len(w.failed) > 0 }

// filter passes on what happens to names. fsnotify cannot be asked to leave out
// the writes to a directory's files. They are dropped here; and after one that
// had nothing waiting before it, this goroutine rests, so that the kernel can
// merge those that follow.
//
// nxadm/tail does not tell when its queue overflows. This one gets all that
// goes into nxadm/tail's, and is emptied more slowly: it overflows first.
func (w *watcher) filter() {
	const gap, rest = 200 * time.Microsecond, 50 * time.Millisecond
	var last time.Time
	for ev := range w.fs.Events {
		before := last
		last = time.Now()
		if ev.Op == fsnotify.Write || ev.Name == "" {
			if last.Sub(before) > gap {
				time.Sleep(rest)
				last = time.Now()
			}
			continue
		}
		w.mu.Lock()
		if len(w.changes) < 4096 {
			w.changes = append(w.changes, ev)
		} else {
			w.lost = true // a Handler blocks
		}
		w.mu.Unlock()
		w.tell()
	}
}

// tell makes Run take what waits here.
func (w *watcher) tell() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// directories watches just these, and says whether one of them is new or
// another than before.
func (w *watcher) directories(dirs map[string]bool) (changed bool) {
	if w.fs == nil {
		clear(w.failed)
		for dir := range dirs {
			w.failed[dir] = errBlind
		}
		return false
	}
	want := map[string]directory{}
	for dir, linked := range dirs {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			w.f.surveyIn(gatherTime)
			continue
		}
		want[real] = directory{linked: linked || real != dir || want[real].linked}
	}
	for dir := range w.watched {
		if _, ok := want[dir]; !ok {
			w.fs.Remove(dir)
			delete(w.watched, dir)
		}
	}
	failed := map[string]error{}
	for dir, now := range want {
		if err := w.fs.Add(dir); err != nil {
			if gone(err) {
				w.f.surveyIn(gatherTime)
				continue
			}
			failed[dir] = fmt.Errorf("%w (raise fs.inotify.max_user_watches): %w", errBlind, err)
			if w.failed[dir] == nil {
				w.f.event(Event{Kind: Polling, Source: dir, Err: failed[dir]})
				w.f.pollSoon()
			}
			continue
		}
		st, _ := statPath(dir)
		now.dev, now.ino, now.born = st.dev, st.ino, st.born
		before := w.watched[dir]
		before.linked = now.linked
		changed = changed || before != now
		w.watched[dir] = now
	}
	w.failed = failed
	return changed
}

// directoryEvent handles one event of a watched directory.
func (f *Files) directoryEvent(ev fsnotify.Event) {
	s := f.names.sources[ev.Name]
	if _, ok := f.watch.watched[ev.Name]; ok {
		delete(f.watch.watched, ev.Name)
		f.surveyIn(0)
	}
	switch {
	case f.watch.watched[filepath.Dir(ev.Name)].linked:
		f.surveyIn(0)
	case s != nil || matches(f.opt.Globs, ev.Name):
		f.checkName(ev.Name)
		if s = f.names.sources[ev.Name]; s == nil {
			break // a name that was never followed has come and gone
		}
		if ev.Has(fsnotify.Create) {
			s.lineage.births++
			f.search(s)
		}
		if isSymlink(ev.Name) {
			f.surveyIn(0)
		}
	case ev.Has(fsnotify.Create):
		if st, err := statPath(ev.Name); err == nil && st.mode&unix.S_IFMT == unix.S_IFDIR {
			f.surveyIn(0)
		}
		if s := f.original(ev.Name); s != nil && !isCompressed(ev.Name) {
			f.search(s)
		}
	}
}

// hint has Run read in, all files if that is nil. moved says that its name may
// have changed, and that its watch has ended.
func (w *watcher) hint(in *inode, moved bool) {
	w.mu.Lock()
	switch {
	case in == nil:
		w.lost = true
	default:
		in.wake.moved = in.wake.moved || moved
		if !in.wake.queued {
			in.wake.queued = true
			w.queue = append(w.queue, in)
		}
	}
	w.mu.Unlock()
	w.tell()
}

// later has Run's goroutine call do. Any goroutine may call it, and it waits for
// nothing.
func (f *Files) later(do func()) {
	f.watch.mu.Lock()
	f.watch.calls = append(f.watch.calls, do)
	f.watch.mu.Unlock()
	f.watch.tell()
}

// takeEvents does what the events ask for.
func (f *Files) takeEvents() {
	w := f.watch
	w.mu.Lock()
	queue, changes, calls, lost := w.queue, w.changes, w.calls, w.lost
	w.queue, w.changes, w.calls, w.lost = nil, nil, nil, false
	moved := make([]bool, len(queue))
	for i, in := range queue {
		moved[i] = in.wake.moved
		in.wake.queued, in.wake.moved = false, false
	}
	w.mu.Unlock()
	for _, ev := range changes {
		f.directoryEvent(ev)
	}
	for _, do := range calls {
		do()
	}
	for i, in := range queue {
		if in.fd < 0 {
			continue
		}
		if moved[i] {
			w.disarm(in) // fsnotify has dropped the watch
			if s := in.src; s.inode == in {
				f.checkName(s.path)
			}
		}
		if in.fd >= 0 {
			f.checkFile(in)
		}
	}
	if lost {
		f.surveyIn(0)
		for _, in := range f.inodes {
			f.checkFile(in)
		}
	}
}

var errBlind = errors.New("no inotify watch, so it is looked at four times a second")

// arm has nxadm/tail watch the file by our own descriptor, so that no name
// can lead it astray. It uses the watch itself, not the follower around it:
// that one ends the process when stat(2) fails.
//
// The watch is one for all followers, so what may hang is not asked for it: such a
// file is looked at four times a second.
func (w *watcher) arm(in *inode) bool {
	if bounded.MayHang(in.fd) {
		in.wake.polled = true
		w.f.pollSoon()
		return false
	}
	err := w.probe()
	name := fmt.Sprintf("/proc/self/fd/%d", in.fd)
	if err == nil {
		// What inotify_add_watch(2) is about to ask of the file system is asked
		// here first: it is this follower that hangs then.
		err = unix.Access(name, unix.R_OK)
	}
	if err == nil {
		err = watch.Watch(name)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errBlind, err)
		if in.src.delay == 0 {
			in.src.err.Store(&err)
		}
		if !w.told {
			w.told = true
			w.f.event(Event{Kind: Polling, Source: in.src.path, Err: err})
		}
		in.wake.polled = true
		w.f.pollSoon()
		w.f.agenda.after(lastRetry, func() {
			if in.wake.polled = false; in.fd >= 0 {
				w.f.checkFile(in)
			}
		})
		return false
	}
	if !w.f.shared.watching(w.f, in.id, name) {
		removeWatch(name)
		return false
	}
	in.wake.armed = true
	if in.src.delay == 0 {
		in.src.err.Store(nil)
	}
	events := watch.Events(name)
	w.f.group.Go(func() {
		for ev := range events { // closed by disarm
			w.hint(in, ev.Has(fsnotify.Rename) || ev.Has(fsnotify.Remove))
		}
	})
	return true
}

func (w *watcher) disarm(in *inode) {
	if in.wake.armed {
		in.wake.armed = false
		w.f.shared.unwatch(w.f, in.id)
	}
}

// probe makes sure that an inotify instance can be had: without one
// nxadm/tail ends the process. It keeps its instance for good, so once is
// enough.
func (w *watcher) probe() error {
	if w.probed {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("no inotify instance (raise fs.inotify.max_user_instances): %w", err)
	}
	unix.Close(fd)
	w.probed = true
	return nil
}
