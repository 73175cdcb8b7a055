package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"qwatch/internal/bounded"
)

// store writes the positions of all followers in a goroutine of its own, as
// fsync(2) may take as long as it likes. There is one while something is to be
// written. Registry.mu guards all but failed, which is that goroutine's.
type store struct {
	next    time.Time     // when all are to hand in their positions next
	written chan struct{} // closed when what was handed in is written; nil: all is
	writing bool
	failed  bool
}

// member is a follower, and what it has handed in.
type member struct {
	part []position
	came bool      // there is a part; before, what it is to take over is in Registry.saved
	asOf time.Time // until when that was known; zero: never
}

// late says of the globs of a follower that does not answer, or has left, until when
// its part of the positions tells: a file that was born since is news.
type late struct {
	Globs []string  `json:"globs"`
	Saved time.Time `json:"saved,omitzero"` // zero: they were never followed

	whole bool // it told of all when it left: only who comes in its place looks back to then
}

const (
	// saveAfter is how old the saved positions may become.
	saveAfter = 900 * time.Millisecond
	// lateAfter is how long a follower may be at one thing before its part is
	// late. What happens in that time is news anyway (slack).
	lateAfter = 2 * time.Second
	// slack is how long before a checkpoint a file may have been born and not
	// been open in it. One that was dealt with has been still for quietTime.
	slack = quietTime / 2
	// maxState is more than the positions of all files that can be followed take.
	maxState = 64 << 20
)

// load reads the positions of the run before.
func (r *Registry) load() {
	data, err := bounded.ReadFile(r.path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var c checkpoint
	if err == nil {
		c, err = decodeCheckpoint(data)
	}
	if err != nil {
		r.events(Event{Kind: Unsaved, Source: r.path, Detail: "following as on a first start", Err: err})
		return
	}
	r.asOf, r.left = c.Saved, c.Late
	for _, p := range c.Files {
		r.saved[p.id()] = p
	}
}

// join makes a follower one of the members, and says what is known from earlier.
func (r *Registry) join(f *Files) past {
	r.mu.Lock()
	defer r.mu.Unlock()
	asOf, rest := r.asOf, []late(nil)
	for _, m := range r.members {
		if m.came {
			asOf = time.Now()
		}
	}
	for _, l := range r.left {
		if !slices.ContainsFunc(l.Globs, func(g string) bool { return slices.Contains(f.opt.Globs, g) }) {
			rest = append(rest, l)
		} else if l.Saved.Before(asOf) {
			asOf = l.Saved
		}
	}
	r.left = rest
	r.members[f] = &member{asOf: asOf}
	p := past{first: asOf.IsZero(), since: beforeNow()}
	if p.first {
		return p
	}
	p.since, p.names = asOf.Add(-slack).UnixNano(), map[string]done{}
	for _, at := range r.saved {
		if f.takes(at.Path) {
			p.names[at.Path] = at.done
		}
	}
	return p
}

// takes says whether a name that was followed before is this follower's.
func (f *Files) takes(path string) bool {
	switch {
	case f.alone:
		return true
	case f.opt.Rest != nil:
		return !matches(f.opt.Rest, path)
	}
	return matches(f.opt.Globs, path)
}

// unclaimed are the saved positions of f's names that nobody has taken.
func (r *Registry) unclaimed(f *Files) (all []position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, p := range r.saved {
		if r.owners[id] == nil && !p.hung && f.takes(p.Path) {
			all = append(all, p)
		}
	}
	return all
}

// settle forgets a saved position that nobody has taken: its file was looked for.
func (r *Registry) settle(id identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owners[id] == nil {
		delete(r.saved, id)
	}
}

// HasRest says whether there are positions of names that none of the globs
// matches: those of a configuration before, whose files are still to be read to
// their end (see Options.Rest).
func (r *Registry) HasRest(globs []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, p := range r.saved {
		if r.owners[id] == nil && !p.hung && !matches(globs, p.Path) {
			return true
		}
	}
	return false
}

// put hands a follower's positions in. What it returns is closed when they are
// written.
func (r *Registry) put(f *Files, part []position) (written <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[f]
	if m == nil { // it was left behind
		done := make(chan struct{})
		close(done)
		return done
	}
	for _, p := range part {
		id := p.id()
		delete(r.saved, id)
		if o := r.owners[id]; o != nil && o.by == f {
			o.further = false
		}
	}
	m.part, m.came = part, true
	return r.dirty()
}

// dirty has everything written, and says when it is.
func (r *Registry) dirty() (written <-chan struct{}) {
	if r.store.written == nil {
		r.store.written = make(chan struct{})
	}
	written = r.store.written
	if !r.store.writing {
		r.store.writing = true
		go r.writeAll()
	}
	return written
}

// untilSave is how long until the positions are to be handed in: all followers do
// it at the same time, so that they are written once.
func (r *Registry) untilSave() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !now.Before(r.store.next) {
		r.store.next = now.Add(saveAfter)
	}
	return r.store.next.Sub(now)
}

// leave ends a membership. Where the follower hangs, it is left behind: what it
// follows is anybody's, from where it was, and nothing that it does from now on is
// heard. What is returned is closed when that is written.
func (r *Registry) leave(f *Files, hangs bool) (written <-chan struct{}) {
	r.mu.Lock()
	var freed map[identity]*owner
	if m := r.members[f]; m != nil {
		delete(r.members, f)
		f.left.Store(true)
		freed = r.free(f, m, hangs)
		l := late{Globs: f.opt.Globs, Saved: m.asOf, whole: m.came && !hangs}
		switch {
		case l.whole:
			l.Saved = time.Now()
		case m.came:
			l.Saved = f.lastStep()
		}
		r.left = append(r.left, l)
		r.left = r.left[max(0, len(r.left)-maxLeft):]
	}
	written = r.dirty()
	r.mu.Unlock()
	for id, o := range freed {
		removeWatch(o.watched)
		o.tell(id)
	}
	return written
}

// free takes from a follower what it owns, and keeps how far that was read.
func (r *Registry) free(f *Files, m *member, hangs bool) (freed map[identity]*owner) {
	part := map[identity]position{}
	for _, p := range m.part {
		part[p.id()] = p
	}
	freed = map[identity]*owner{}
	for id, o := range r.owners {
		o.waiting = slices.DeleteFunc(o.waiting, func(g *Files) bool { return g == f })
		if o.by != f {
			continue
		}
		freed[id] = o
		r.disown(id, o)
		p, ok := part[id]
		if !ok {
			p, ok = r.position(id)
		}
		if o.further {
			p, ok = o.at, true
		}
		if ok {
			p.hung = hangs
			r.saved[id] = p
		}
	}
	if !hangs || m.came {
		return freed
	}
	for id, p := range r.saved { // what it was to take over
		if r.owners[id] == nil && f.takes(p.Path) {
			p.hung = true
			r.saved[id] = p
		}
	}
	return freed
}

// maxLeft bounds Registry.left.
const maxLeft = 256

// writeAll writes until nothing new is there.
func (r *Registry) writeAll() {
	for {
		r.mu.Lock()
		written := r.store.written
		if r.store.written = nil; written == nil {
			r.store.writing = false
			r.mu.Unlock()
			return
		}
		c := r.checkpoint(time.Now())
		r.mu.Unlock()
		r.write(c)
		close(written)
	}
}

// checkpoint is all that is known of all members.
func (r *Registry) checkpoint(now time.Time) checkpoint {
	c := checkpoint{Version: checkpointVersion, Saved: now, Files: []position{}}
	for _, l := range r.left {
		if !l.whole && len(l.Globs) > 0 {
			c.Late = append(c.Late, l)
		}
	}
	seen := make(map[identity]bool, len(r.owners))
	add := func(id identity, p position) {
		if !seen[id] {
			seen[id] = true
			c.Files = append(c.Files, p)
		}
	}
	for id, o := range r.owners {
		if o.further {
			add(id, o.at.clone())
		}
	}
	for f, m := range r.members {
		for _, p := range m.part {
			id := p.id()
			if o := r.owners[id]; o == nil || o.by == f {
				add(id, p)
			}
		}
		switch {
		case !m.came:
			c.Late = append(c.Late, late{Globs: f.opt.Globs, Saved: m.asOf})
		case !f.rests.Load() && now.Sub(f.lastStep()) > lateAfter:
			c.Late = append(c.Late, late{Globs: f.opt.Globs, Saved: f.lastStep()})
		}
	}
	for id := range r.owners {
		if p, ok := r.position(id); ok { // its owner has not handed it in yet
			add(id, p)
		}
	}
	for id, p := range r.saved {
		add(id, p)
	}
	return c
}

// write waits for the disk.
func (r *Registry) write(c checkpoint) {
	if r.path == "" {
		return
	}
	data, err := json.Marshal(c)
	if err == nil {
		err = renameio.WriteFile(r.path, data, 0o600)
	}
	if err != nil && !r.store.failed {
		r.events(Event{Kind: Unsaved, Source: r.path, Err: fmt.Errorf("write the positions: %w", err)})
	}
	r.store.failed = err != nil
}
