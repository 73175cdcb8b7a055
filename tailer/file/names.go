package file

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// source is a followed name.
type source struct {
	path  string
	inode *inode // what the name leads to, nil if nothing, a pipe, or what another Files follows
	// elsewhere is the inode that the name leads to and another Files follows, the
	// zero one if there is none.
	elsewhere identity
	pipe      *pipe
	users     int // inodes whose source this is
	lineage   lineage
	delay     time.Duration // until the next try to read it, 0 if all is well

	lines, bytes, truncations atomic.Uint64
	err                       atomic.Pointer[error]
}

// names holds the followed names. Only Run's goroutine changes them.
type names struct {
	mu       sync.Mutex // held to change them, and to read them elsewhere
	sources  map[string]*source
	unlisted map[string]error // directories that cannot be listed or watched
}

// survey finds names that have come and gone, and watches their directories.
func (f *Files) survey() {
	var s scope
	for {
		s = expand(f.opt.Globs, f.step)
		if !f.watch.directories(s.dirs) {
			break // no directory is new: nothing was missed while the list was made
		}
	}
	before := f.names.unlisted
	for dir, err := range s.errs {
		if before[dir] == nil {
			f.event(Event{Kind: Unreadable, Source: dir, Err: err})
			f.agenda.after(firstRetry, func() { f.retryDirectories(firstRetry) })
		}
	}
	maps.Copy(s.errs, f.watch.failed)
	f.names.mu.Lock()
	f.names.unlisted = s.errs
	f.names.mu.Unlock()
	old := slices.Collect(maps.Keys(f.names.sources))
	all := slices.Sorted(maps.Keys(s.names))
	for _, path := range old {
		if !s.names[path] {
			all = append(all, path)
		}
	}
	for _, path := range all {
		if f.running.Err() != nil {
			return // else each of them might hang once more
		}
		f.checkName(path)
	}
	for uid, n := range f.refused {
		if n > 0 {
			f.refused[uid] = -1
			f.event(Event{Kind: TooMany, Source: fmt.Sprintf("user %d", uid), Detail: fmt.Sprintf("%d files are followed, %d more are not", f.shared.ofUser(uid), n)})
		}
	}
}

const (
	// maxOfUser is how many files of one user but root are followed, each of which
	// costs a descriptor: anybody may fill his own folder.
	maxOfUser = 2048
	// maxRotated is how many of them are open where some are followed no more: a
	// rotation of all leaves as many again.
	maxRotated = 2 * maxOfUser
)

// surveyIn has survey done after d.
func (f *Files) surveyIn(d time.Duration) { f.agenda.once(surveyNames, d, f.survey) }

func (f *Files) retryDirectories(delay time.Duration) {
	f.survey()
	if len(f.names.unlisted) > 0 {
		delay = min(2*delay, lastRetry)
		f.agenda.after(delay, func() { f.retryDirectories(delay) })
	}
}

// checkName compares a name with what it leads to now.
func (f *Files) checkName(path string) {
	f.step()
	st, err := statPath(path)
	s := f.names.sources[path]
	most := maxOfUser
	if s != nil && s.inode != nil {
		most = maxRotated
	}
	switch {
	case err != nil && gone(err):
		if s != nil {
			f.readable(s)
			s.elsewhere = identity{}
			f.attach(s, nil)
			f.attachPipe(s, nil)
			f.forget(s)
		}
		return
	case err != nil:
		f.fail(f.source(path), err)
		return
	case s != nil && s.inode != nil && s.inode.id.Dev == st.dev && s.inode.id.Ino == st.ino,
		s != nil && s.pipe != nil && s.pipe.dev == st.dev && s.pipe.ino == st.ino,
		s != nil && s.elsewhere.Dev == st.dev && s.elsewhere.Ino == st.ino && f.shared.ofOthers(f, s.elsewhere):
		return // an inode that is open keeps its number
	case st.pipe():
		f.openPipe(path)
		return
	case !st.regular():
		return
	case !f.shared.hasRoom(st.uid, most):
		f.refuse(st.uid)
		return
	}
	fd, id, st, err := openFile(path)
	if err != nil {
		if gone(err) {
			f.checkName(path)
			return
		}
		f.fail(f.source(path), err)
		return
	}
	if in := f.inodes[id]; in != nil {
		unix.Close(fd)
		s = f.source(path)
		f.readable(s)
		if s.inode != in && !f.past.starting {
			s.lineage.opened++ // this name was born, too
		}
		f.attach(s, in)
		return
	}
	switch f.shared.claim(f, id, st.uid, most) {
	case others:
		unix.Close(fd)
		f.leaveToOthers(path, id)
		return
	case tooMany:
		unix.Close(fd)
		f.refuse(st.uid)
		return
	}
	s = f.source(path)
	f.readable(s)
	in := f.adopt(fd, id, st, s)
	if !f.past.starting {
		s.lineage.opened++
	}
	f.place(in, st)
	f.attach(s, in)
	if !f.past.starting {
		f.checkFile(in)
	}
}

// refuse counts a file that is one too many of its user. There may be room for it
// later.
func (f *Files) refuse(uid uint32) {
	if f.refused[uid] >= 0 {
		f.refused[uid]++
	}
	f.surveyIn(lastRetry)
}

// refuseRotated tells of a file that a rotation may have left, and that is one too
// many.
func (f *Files) refuseRotated(uid uint32) {
	if f.refused[uid] >= 0 {
		f.refused[uid] = -1
		f.event(Event{Kind: TooMany, Source: fmt.Sprintf("user %d", uid), Detail: fmt.Sprintf("%d files are open, and no more that rotations may have left", f.shared.ofUser(uid))})
	}
}

// leaveToOthers notes that a name leads to an inode that another Files follows,
// by a link to it there.
func (f *Files) leaveToOthers(path string, id identity) {
	s := f.source(path)
	f.readable(s)
	if s.elsewhere != id && !f.past.starting {
		s.lineage.opened++
	}
	s.elsewhere = id
	f.attach(s, nil)
	f.attachPipe(s, nil)
}

// released looks at the names again that lead to an inode which another Files has
// let go.
func (f *Files) released(id identity) {
	for _, s := range f.sourcesElsewhere(id) {
		f.checkName(s.path)
	}
}

func (f *Files) sourcesElsewhere(id identity) (all []*source) {
	for _, s := range f.names.sources {
		if s.elsewhere == id {
			all = append(all, s)
		}
	}
	return all
}

// attach makes a name lead to in, nil for nowhere.
func (f *Files) attach(s *source, in *inode) {
	if in != nil {
		s.elsewhere = identity{}
	}
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
	if old.names--; old.names == 0 {
		f.retire(old)
	}
}

// source finds or makes the source of a name.
func (f *Files) source(path string) *source {
	s := f.names.sources[path]
	if s == nil {
		s = &source{path: path, lineage: lineage{done: f.past.doneWith(path)}}
		f.names.mu.Lock()
		f.names.sources[path] = s
		f.names.mu.Unlock()
	}
	return s
}

// forget removes a source that has no file left.
func (f *Files) forget(s *source) {
	if s.inode == nil && s.pipe == nil && s.elsewhere == (identity{}) && s.users == 0 && s.delay == 0 && f.names.sources[s.path] == s {
		f.names.mu.Lock()
		delete(f.names.sources, s.path)
		f.names.mu.Unlock()
	}
}

// original finds the source that a new file may be a copy of, going by its
// name.
func (f *Files) original(path string) *source {
	for _, s := range f.names.sources {
		if (s.inode != nil || s.elsewhere != (identity{})) && filepath.Dir(s.path) == filepath.Dir(path) && related(filepath.Base(s.path), filepath.Base(path)) {
			return s
		}
	}
	return nil
}

// fail notes that a source cannot be read, and tries again later.
func (f *Files) fail(s *source, err error) {
	if s.delay == 0 {
		f.event(Event{Kind: Unreadable, Source: s.path, Err: err})
		s.delay = firstRetry / 2
		f.agenda.after(firstRetry, func() { f.retry(s) })
	}
	s.err.Store(&err)
}

func (f *Files) failRead(in *inode, err error) {
	f.fail(in.src, fmt.Errorf("read %s: %w", in.src.path, err))
}

func (f *Files) retry(s *source) {
	if s.delay == 0 {
		return
	}
	s.delay = min(2*s.delay, lastRetry)
	if s.inode != nil {
		var b [1]byte
		if _, err := unix.Pread(s.inode.fd, b[:], s.inode.off); err == nil {
			f.readable(s)
			f.checkFile(s.inode)
			return
		}
	}
	f.checkName(s.path)
	if s.delay > 0 {
		f.agenda.after(s.delay, func() { f.retry(s) })
	}
}

// readable takes fail back.
func (f *Files) readable(s *source) {
	if s.delay == 0 {
		return
	}
	s.delay = 0
	s.err.Store(nil)
	f.event(Event{Kind: Readable, Source: s.path})
}
