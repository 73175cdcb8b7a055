package matcher

import (
	"cmp"
	"container/list"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"sort"
	"time"
)

// Incident is a group of hits of one socket.
type Incident struct {
	// ID is "inc-" and eight hex digits, made of the key and the first hit's
	// time: the same log gives the same IDs.
	ID string
	// Key is what the caller told the socket apart by, Socket its name in
	// the first hit.
	Key, Socket string
	// First and Last are the earliest and the latest Hit.At. First is that
	// of the oldest hit in the window that opened the incident.
	First, Last time.Time
	Hits        int // since First, at least the threshold
	Peak        int // largest plausible length, 0 if there was none
	Limit       int // the newest plausible limit, 0 if there was none
}

// Event is what a hit did.
type Event int

const (
	// Pending: too few hits yet. The Incident beside it is empty.
	Pending Event = iota
	// Opened: this hit was the one that opened an incident.
	Opened
	// Updated: the hit belongs to an incident that was open already.
	Updated
)

func (e Event) String() string {
	return [...]string{"pending", "opened", "updated"}[e]
}

// maxKeys bounds how many keys a Book holds pending, and how many open.
// Socket names come from logs, where strangers can write.
const maxKeys = 1024

// Book groups hits into incidents, one at a time for each key. It knows two
// clocks. The dates of the hits say how close together they are; they come
// from logs, may be hours off where a container's zone is not the host's, and
// may run backwards. The caller's now says how long no hit has come. Someone
// who reads finished logs gives Hit.At for both.
//
// A Book has one owner; it does not lock.
type Book struct {
	window, quiet time.Duration
	threshold     int

	pending map[string]*list.Element // of *waiting
	touched *list.List               // pending, the one not hit for longest first
	open    map[string]*opened
	ended   []Incident // closed by Add, not yet told
}

type waiting struct {
	key  string
	hits []Hit // by At, within the window, fewer than the threshold
}

type opened struct {
	Incident
	due time.Time
	// held keeps it open until then, also without hits.
	held time.Time
}

func (o *opened) ends() time.Time { return later(o.due, o.held) }

// NewBook returns a Book that opens an incident at threshold hits (1 or more)
// of one key within window, and closes it when none came for quiet.
func NewBook(window, quiet time.Duration, threshold int) *Book {
	return &Book{
		window: window, quiet: quiet, threshold: threshold,
		pending: map[string]*list.Element{}, touched: list.New(),
		open: map[string]*opened{},
	}
}

// Configure sets new values for what NewBook was given. What is open stays
// open, and what is pending is held to the new values with its next hit.
func (b *Book) Configure(window, quiet time.Duration, threshold int) {
	b.window, b.quiet, b.threshold = window, quiet, threshold
}

// Add counts a hit that came at now for the socket that key names. It returns
// the incident as it now stands, and what the hit did to it. A hit dated more
// than quiet after the last one closes the open incident (see Expire) and is
// the first of the next.
func (b *Book) Add(key string, h Hit, now time.Time) (Incident, Event) {
	return b.add(key, h, now, b.threshold)
}

// Open counts a hit as Add does, and opens an incident however few there are.
func (b *Book) Open(key string, h Hit, now time.Time) (Incident, Event) {
	return b.add(key, h, now, 1)
}

// Hold keeps the open incident of key open until then, also without hits. A time
// that is past lets go of it.
func (b *Book) Hold(key string, until time.Time) {
	if inc := b.open[key]; inc != nil {
		inc.held = until
	}
}

func (b *Book) add(key string, h Hit, now time.Time, threshold int) (Incident, Event) {
	if inc := b.open[key]; inc != nil {
		if h.At.Sub(inc.Last) <= b.quiet || now.Before(inc.held) {
			inc.count(h)
			inc.due = later(inc.due, now.Add(b.quiet))
			return inc.Incident, Updated
		}
		b.ended = append(b.ended, b.close(inc))
	}
	w := b.wait(key)
	w.add(h, b.window)
	if len(w.hits) < threshold {
		return Incident{}, Pending
	}
	b.forget(key)
	if len(b.open) >= maxKeys {
		return Incident{}, Pending
	}
	first := w.hits[0]
	inc := &opened{due: now.Add(b.quiet), Incident: Incident{
		ID: incidentID(key, first.At), Key: key, Socket: first.Socket, First: first.At, Last: first.At,
	}}
	for _, h := range w.hits {
		inc.count(h)
	}
	b.open[key] = inc
	return inc.Incident, Opened
}

// count leaves First alone: it is part of the ID.
func (i *Incident) count(h Hit) {
	i.Hits++
	i.Last = later(i.Last, h.At)
	if h.Garbage {
		return
	}
	i.Peak = max(i.Peak, h.Length)
	i.Limit = h.Limit
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func incidentID(key string, first time.Time) string {
	h := fnv.New32a()
	h.Write([]byte(key))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(first.UnixNano())))
	return fmt.Sprintf("inc-%08x", h.Sum32())
}

// wait returns the pending entry of key, made room for if need be.
func (b *Book) wait(key string) *waiting {
	if e := b.pending[key]; e != nil {
		b.touched.MoveToBack(e)
		return e.Value.(*waiting)
	}
	if len(b.pending) >= maxKeys {
		b.forget(b.touched.Front().Value.(*waiting).key)
	}
	w := &waiting{key: key}
	b.pending[key] = b.touched.PushBack(w)
	return w
}

func (b *Book) forget(key string) {
	b.touched.Remove(b.pending[key])
	delete(b.pending, key)
}

// add keeps only what is within one window of the newest. A hit dated more
// than a window before all others means that the log's clock was set back.
func (w *waiting) add(h Hit, window time.Duration) {
	if n := len(w.hits); n > 0 && w.hits[n-1].At.Sub(h.At) > window {
		w.hits = w.hits[:0]
	}
	i, _ := slices.BinarySearchFunc(w.hits, h, func(a, b Hit) int {
		return cmp.Or(a.At.Compare(b.At), -1) // equal times: behind
	})
	w.hits = slices.Insert(w.hits, i, h)
	newest := w.hits[len(w.hits)-1].At
	w.hits = slices.DeleteFunc(w.hits, func(h Hit) bool { return newest.Sub(h.At) > window })
}

// Next returns when Expire has something to do next, false if nothing is open.
func (b *Book) Next() (due time.Time, ok bool) {
	if len(b.ended) > 0 {
		return b.ended[0].Last.Add(b.quiet), true
	}
	for _, inc := range b.open {
		if ends := inc.ends(); !ok || ends.Before(due) {
			due, ok = ends, true
		}
	}
	return due, ok
}

// Expire returns the incidents that ended: those without a hit for quiet at
// now, and those that Add closed. Each is returned once, the earliest first.
func (b *Book) Expire(now time.Time) []Incident {
	return b.end(func(inc *opened) bool { return !inc.ends().After(now) })
}

// Ended returns the incidents that Add closed, as Expire would.
func (b *Book) Ended() []Incident {
	return b.end(func(*opened) bool { return false })
}

// CloseAll ends all that is open and returns what Expire would.
func (b *Book) CloseAll() []Incident {
	return b.end(func(*opened) bool { return true })
}

func (b *Book) end(over func(*opened) bool) []Incident {
	ended := b.ended
	b.ended = nil
	for _, inc := range b.open {
		if over(inc) {
			ended = append(ended, b.close(inc))
		}
	}
	sort.Slice(ended, func(i, j int) bool {
		a, b := ended[i], ended[j]
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Key, b.Key)) < 0
	})
	return ended
}

func (b *Book) close(inc *opened) Incident {
	delete(b.open, inc.Key)
	return inc.Incident
}
