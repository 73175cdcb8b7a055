package file

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nxadm/tail/watch"
)

// Registry is what all followers of one process share: who follows which inode,
// what the files of one user may cost, and the positions, which are one file. Its
// lock is held over memory alone: a follower that hangs in a file system keeps
// nobody waiting here.
type Registry struct {
	path   string // the state file, "" for none
	events func(Event)

	mu      sync.Mutex
	owners  map[identity]*owner
	owned   map[uint32]int       // how many inodes of each user are followed
	unpacks map[uint32]*unpacked // by user

	// saved are the positions that no member has handed in: of the run before,
	// or of a member that has left.
	saved    map[identity]position
	finished map[identity]position // of files that were closed, so that none is read twice
	order    []identity            // of finished, oldest first
	members  map[*Files]*member
	left     []late    // members that have left, for those that come in their place
	asOf     time.Time // until when the saved positions are known; zero: there were none

	store store
}

// owner is who follows an inode. nxadm/tail's watch is shared by the process, and
// fsnotify knows one name for an inode; and a line is to be handed over once.
type owner struct {
	by      *Files
	uid     uint32
	watched string   // its name in nxadm/tail, "" for none
	at      position // how far it was handed over, where that is
	further bool     // further than in the positions that by has handed in
	heads   []head   // how its text began, before each cut, and now
	waiting []*Files
}

// NewRegistry reads the positions of the run before from path, "" for nowhere.
// events, if not nil, is told what Options.Events is of a follower.
func NewRegistry(path string, events func(Event)) *Registry {
	if events == nil {
		events = func(Event) {}
	}
	r := &Registry{
		path: path, events: events,
		owners: map[identity]*owner{}, owned: map[uint32]int{}, unpacks: map[uint32]*unpacked{},
		saved: map[identity]position{}, finished: map[identity]position{}, members: map[*Files]*member{},
	}
	r.load()
	return r
}

// claim is the answer to a follower that wants an inode.
type claim int

const (
	granted claim = iota
	others        // another one follows it; it is told when that lets it go
	tooMany       // its user has as many as are followed already
)

// claim makes a follower the owner of an inode, if nobody is and its user has fewer
// than most.
func (r *Registry) claim(f *Files, id identity, uid uint32, most int) claim {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.owners[id]
	switch {
	case f.left.Load():
		return others
	case o != nil:
		if !slices.Contains(o.waiting, f) {
			o.waiting = append(o.waiting, f)
		}
		return others
	case !r.room(uid, most):
		return tooMany
	}
	r.owners[id] = &owner{by: f, uid: uid}
	r.owned[uid]++
	return granted
}

// hasRoom says whether a user has fewer than most files that are followed.
func (r *Registry) hasRoom(uid uint32, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.room(uid, most)
}

func (r *Registry) room(uid uint32, most int) bool { return uid == 0 || r.owned[uid] < most }

// ofUser is how many inodes of a user are followed.
func (r *Registry) ofUser(uid uint32) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owned[uid]
}

// ofOthers says whether another one than f follows an inode.
func (r *Registry) ofOthers(f *Files, id identity) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.owners[id]
	return o != nil && o.by != f
}

// release lets an inode go that was read up to a position, nil for one that was
// not, and tells who waits for it.
func (r *Registry) release(f *Files, id identity, at *position) {
	r.mu.Lock()
	o := r.owners[id]
	if o == nil || o.by != f {
		r.mu.Unlock()
		return // it has left
	}
	r.disown(id, o)
	if at != nil {
		r.finish(id, *at)
	} else {
		delete(r.finished, id)
	}
	r.mu.Unlock()
	o.tell(id)
}

func (r *Registry) disown(id identity, o *owner) {
	delete(r.owners, id)
	if r.owned[o.uid]--; r.owned[o.uid] == 0 {
		delete(r.owned, o.uid)
	}
}

// tell has those look who wait for an inode.
func (o *owner) tell(id identity) {
	for _, g := range o.waiting {
		g.later(func() { g.released(id) })
	}
}

// maxFinished bounds Registry.finished.
const maxFinished = 1024

func (r *Registry) finish(id identity, at position) {
	if _, ok := r.finished[id]; !ok {
		r.order = append(r.order, id)
	}
	r.finished[id] = at
	if len(r.order) > maxFinished {
		delete(r.finished, r.order[0])
		r.order = r.order[1:]
	}
}

// known is the position up to which an inode was read before, by whomever.
func (r *Registry) known(id identity) (p position, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.position(id)
}

func (r *Registry) position(id identity) (p position, ok bool) {
	if p, ok = r.saved[id]; !ok {
		p, ok = r.finished[id]
	}
	return p, ok
}

func (r *Registry) isFinished(id identity) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, is := r.finished[id]
	return is
}

// finishedHeads are how the files began that were closed under a name.
func (r *Registry) finishedHeads(path string) (heads []head) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.finished {
		if p.Path == path {
			heads = append(heads, p.Head)
		}
	}
	return heads
}

// handed notes how far an inode was handed over: it may be the last thing that its
// owner does for a long time.
func (r *Registry) handed(f *Files, in *inode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.owners[in.id]; o != nil && o.by == f {
		o.at.set(in)
		o.further = true
	}
}

// began notes how an inode's text begins, as far as that was seen, for those who
// see a copy of it.
func (r *Registry) began(f *Files, id identity, h head) {
	if len(h.Text) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.owners[id]
	if o == nil || o.by != f {
		return
	}
	if n := len(o.heads); n > 0 && o.heads[n-1].grewTo(h) {
		o.heads[n-1] = h
	} else {
		o.heads = append(o.heads[max(0, n-maxHeads+1):], h)
	}
}

// headsOf are how the text of an inode began that another one follows.
func (r *Registry) headsOf(id identity) []head {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.owners[id]; o != nil {
		return append([]head(nil), o.heads...)
	}
	return nil
}

// cut tells those who wait for an inode that it was cut in place, and how far it
// was read before: they may have the copy.
func (r *Registry) cut(f *Files, id identity, at position) {
	r.mu.Lock()
	var waiting []*Files
	if o := r.owners[id]; o != nil && o.by == f {
		waiting = append(waiting, o.waiting...)
	}
	r.mu.Unlock()
	for _, g := range waiting {
		g.later(func() { g.cutElsewhere(id, at) })
	}
}

// watching notes by which name nxadm/tail watches an inode. It is false where the
// follower was left behind.
func (r *Registry) watching(f *Files, id identity, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.owners[id]
	if o == nil || o.by != f {
		return false
	}
	o.watched = name
	return true
}

// unwatch ends an inode's watch, if it has one.
func (r *Registry) unwatch(f *Files, id identity) {
	r.mu.Lock()
	name := ""
	if o := r.owners[id]; o != nil && o.by == f {
		name, o.watched = o.watched, ""
	}
	r.mu.Unlock()
	removeWatch(name)
}

func removeWatch(name string) {
	if name != "" {
		// The only error says that the kernel has ended the watch already.
		_ = watch.RemoveWatch(name)
	}
}

// unpackBudget says for how long a compressed file of this user may be read, and
// takes note of how long it was. why is told once where no time is left.
func (r *Registry) unpackBudget(uid uint32) (left time.Duration, took func(), why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	spent := func(key uint32) *unpacked {
		u := r.unpacks[key]
		if u == nil || time.Since(u.since) > unpackSpan {
			u = &unpacked{since: time.Now()}
			r.unpacks[key] = u
		}
		return u
	}
	his, all := spent(uid), &unpacked{}
	left = unpackTimeAll - his.spent
	if uid != 0 {
		all = spent(everybody)
		left = min(unpackTime-his.spent, unpackTimeAll-all.spent)
	}
	if left <= 0 {
		if !his.said {
			his.said = true
			why = fmt.Errorf("the compressed files of user %d have been read for %s, those of all users for %s; no more are before %s have gone",
				uid, his.spent.Round(time.Second), all.spent.Round(time.Second), unpackSpan)
		}
		return left, func() {}, why
	}
	began := time.Now()
	return left, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		his.spent += time.Since(began)
		all.spent += time.Since(began)
	}, nil
}
