package file

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// searchRounds are the rounds (gatherTime apart) in which the directories are
// listed after a rotation: a listing may miss a file that is renamed meanwhile.
var searchRounds = map[int]bool{0: true, 1: true, 2: true, 4: true, 8: true, 16: true, 32: true}

// truncated handles a file that was cut in place: the rest of its text is
// looked for in a copy, then it is read from its beginning.
func (f *Files) truncated(in *inode) {
	s := in.src
	f.saveSoon()
	if len(in.head.Text) == 0 { // nothing but NULs was read yet
		in.restart()
		f.search(s)
		return
	}
	if in.copied {
		// The copy's place was used again. What is there now belongs to the
		// original, and is searched from there.
		f.close(in, nil)
		return
	}
	s.truncations.Add(1)
	at := positionOf(in)
	detail := "no copy holds its text"
	if copy := f.recoverCopy(s, at); copy != "" {
		detail = "read on in " + copy
	}
	f.shared.cut(f, in.id, at)
	in.restart()
	f.search(s)
	f.event(Event{Kind: Truncated, Source: s.path, Detail: detail})
}

// cutElsewhere handles that a file was cut which another Files follows: its copy
// may stand beside one of the names here.
func (f *Files) cutElsewhere(id identity, at position) {
	for _, s := range f.sourcesElsewhere(id) {
		at.Path = s.path
		if copy := f.recoverCopy(s, at); copy != "" {
			f.event(Event{Kind: Recovered, Source: s.path, Detail: "it was cut in place, and is read on in " + copy})
		}
	}
}

// recoverCopy has the rest read of what was cut in place under the name of s, at a
// position, and says in which copy it stands; "" if in none.
func (f *Files) recoverCopy(s *source, at position) (copy string) {
	copy = f.findCopy(s, at)
	f.passShortCopies(s, at)
	s.lineage.add(at.Head)
	return copy
}

// findCopy finds the file into which copytruncate put the text at a position, and
// has its rest read.
func (f *Files) findCopy(s *source, at position) string {
	for _, c := range f.inodes {
		if c.id != at.id() && c.copyOf != nil && f.holds(c.fd, at, c.src.path) {
			c.copyOf = nil
			at.apply(c)
			c.copied = true
			f.readLater(c)
			return c.src.path
		}
	}
	for _, path := range s.neighbours() {
		st, err := statPath(path)
		if err != nil || !st.regular() || isCompressed(path) || st.size < at.Off ||
			st.dev == at.Dev && st.ino == at.Ino {
			continue
		}
		c := f.adoptIf(path, s, func(fd int, _ identity) bool { return f.holds(fd, at, path) })
		if c == nil {
			continue
		}
		at.apply(c)
		c.copied = true
		f.drain(c)
		return path
	}
	return f.findCompressed(at, s)
}

// passShortCopies counts as read what holds less of the text than was handed
// over: a copy that was made before the last lines. It must not be taken for
// an unseen generation later: how the text began is forgotten, at the latest
// with this process.
func (f *Files) passShortCopies(s *source, at position) {
	short := func(fd int) bool {
		st, err := statFD(fd)
		return err == nil && at.Head.At < st.size && st.size < at.Off && at.Head.begins(fd)
	}
	var passed []*inode
	for _, c := range f.inodes {
		if c.id != at.id() && c.copyOf == s && short(c.fd) {
			c.copyOf = nil
			passed = append(passed, c)
		}
	}
	for _, path := range s.neighbours() {
		if !isCompressed(path) && s.mayLeave(filepath.Base(path)) {
			if c := f.adoptUnknown(path, s, short); c != nil {
				passed = append(passed, c)
			}
		}
	}
	for _, c := range passed {
		c.copied = true
		if st, err := statFD(c.fd); err != nil {
			f.failRead(c, err)
		} else if err = c.jump(min(st.size, at.Off)); err != nil {
			f.failRead(c, err)
		}
		f.drain(c)
	}
}

// directories are those that s and its file stand in.
func (s *source) directories() map[string]bool {
	dirs := map[string]bool{filepath.Dir(s.path): true}
	if s.inode != nil && s.inode.at != "" {
		dirs[filepath.Dir(s.inode.at)] = true
	}
	return dirs
}

// neighbours lists s's directories, and more of them.
func (s *source) neighbours(more ...string) []string {
	dirs := s.directories()
	for _, dir := range more {
		dirs[dir] = true
	}
	var paths []string
	for dir := range dirs {
		entries, _ := bounded.Entries(dir, maxEntries)
		for _, e := range entries {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// search begins to look for generations of s that have no name any more.
func (f *Files) search(s *source) {
	f.searches[s] = 0
	f.agenda.once(searchGenerations, 0, f.searchAll)
}

// searchAll searches for generations of rotated logs that came and went between
// two checks of the name.
func (f *Files) searchAll() {
	groups := map[string][]*source{}
	for s, round := range f.searches {
		if searchRounds[round] {
			for dir := range s.directories() {
				groups[dir] = append(groups[dir], s)
			}
		}
		if f.searches[s]++; round > 32 {
			delete(f.searches, s)
			f.missed(s)
		}
	}
	for dir, group := range groups {
		f.generations(dir, group)
	}
	if len(f.searches) > 0 {
		f.agenda.once(searchGenerations, gatherTime, f.searchAll)
	}
}

// missed tells of files that were born under s's name and are nowhere to be
// found: they were deleted before they could be opened.
func (f *Files) missed(s *source) {
	l := &s.lineage
	n := l.births - l.opened
	if n <= 0 {
		return // the event of a birth may come after the file was opened
	}
	l.births, l.opened = 0, 0
	n -= f.unpackNew(s, "a generation that came and went unseen")
	closed, err := f.closed(s)
	if n -= closed; closed > 0 && s.delay == 0 { // else that is told already
		f.event(Event{Kind: Unreadable, Source: s.path, Err: err})
	}
	if n > 0 {
		s.truncations.Add(uint64(n))
		f.event(Event{Kind: Lost, Source: s.path, Detail: fmt.Sprintf("generations deleted before they could be opened: %d", n)})
	}
}

// closed counts the files that a rotation may have left, or the name itself, that
// are there and cannot be opened: nothing of them is destroyed.
func (f *Files) closed(s *source) (n int, why error) {
	for _, path := range s.neighbours() {
		if isCompressed(path) || path != s.path && !s.mayLeave(filepath.Base(path)) {
			continue
		}
		fd, _, _, err := openFile(path)
		switch {
		case err == nil:
			unix.Close(fd)
		case !gone(err) && !errors.Is(err, errNotRegular):
			n, why = n+1, err
		}
	}
	return n, why
}

// generations finds the unknown generations in a directory and reads them in the
// order of their births.
func (f *Files) generations(dir string, group []*source) {
	entries, _ := bounded.Entries(dir, maxEntries)
	var found []*inode
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if isCompressed(path) || f.names.sources[path] != nil || matches(f.opt.Globs, path) {
			continue
		}
		for _, s := range group {
			if !s.mayLeave(e.Name()) {
				continue
			}
			if in := f.generation(s, path); in != nil {
				found = append(found, in)
			}
			break
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].id.Born < found[j].id.Born })
	for _, in := range found {
		f.event(Event{Kind: Recovered, Source: in.src.path, Detail: "a generation that came and went unseen: " + in.at})
		f.drain(in)
	}
}

// mayLeave says whether a rotation of s may leave a file of this name.
func (s *source) mayLeave(name string) bool {
	return name == s.lineage.backup || related(filepath.Base(s.path), name)
}

func (f *Files) generation(s *source, path string) *inode {
	in := f.adoptUnknown(path, s, func(fd int) bool { return !f.isCopy(fd, s) })
	if in != nil {
		s.lineage.opened++
	}
	return in
}

// adoptUnknown begins to follow a file with text that nothing was read of yet,
// if it is the right one.
func (f *Files) adoptUnknown(path string, s *source, right func(fd int) bool) *inode {
	f.step()
	st, err := statPath(path)
	if err != nil || !st.regular() || st.size == 0 || st.since() <= s.lineage.Low {
		return nil
	}
	return f.adoptIf(path, s, func(fd int, id identity) bool {
		return !f.shared.isFinished(id) && right(fd)
	})
}

// adoptIf begins to follow a file that is not open yet, if it is the right one.
func (f *Files) adoptIf(path string, s *source, right func(fd int, id identity) bool) *inode {
	f.step()
	fd, id, st, err := openFile(path)
	if err != nil {
		return nil
	}
	if f.inodes[id] == nil && right(fd, id) {
		switch f.shared.claim(f, id, st.uid, maxRotated) {
		case granted:
			return f.adopt(fd, id, st, s)
		case tooMany:
			f.refuseRotated(st.uid)
		}
	}
	unix.Close(fd)
	return nil
}

// resume finds the files of the run before that have lost their names since,
// and the generations that were born and rotated away meanwhile.
func (f *Files) resume() {
	if f.past.first {
		return
	}
	names, moved := map[string]bool{}, f.shared.unclaimed(f)
	for _, p := range moved {
		names[p.Path] = true
	}
	for _, in := range f.inodes {
		names[in.src.path] = true
	}
	sort.Slice(moved, func(i, j int) bool { return moved[i].Born < moved[j].Born })
	for _, p := range moved {
		if f.running.Err() != nil {
			return
		}
		s := f.source(p.Path)
		s.lineage.add(p.Head)
		f.findMoved(p, s)
		f.shared.settle(p.id())
		f.forget(s)
	}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		if f.running.Err() != nil {
			return
		}
		s := f.source(path)
		f.generations(filepath.Dir(path), []*source{s})
		f.unpackNew(s, "a generation that came and went while not running")
		f.forget(s)
	}
}

// findMoved finds the file of a position that is not behind its name any more.
func (f *Files) findMoved(p position, s *source) {
	var more []string
	if p.At != "" {
		more = append(more, filepath.Dir(p.At))
	}
	for _, path := range s.neighbours(more...) {
		f.step()
		st, err := statPath(path)
		if err != nil || st.ino != p.Ino || st.dev != p.Dev || !st.regular() {
			continue
		}
		in := f.adoptIf(path, s, func(_ int, id identity) bool { return id == p.id() })
		if in == nil {
			continue
		}
		p.apply(in)
		f.shared.began(f, in.id, in.head)
		f.event(Event{Kind: Rotated, Source: p.Path, Detail: "while not running, to " + path})
		f.drain(in)
		return
	}
	if p.Copy || p.Copied || f.shared.ofOthers(f, p.id()) {
		return
	}
	if f.findCompressed(p, s) == "" {
		f.event(Event{Kind: Lost, Source: p.Path, Detail: "what was written to it since the last run is gone with it"})
	}
}
