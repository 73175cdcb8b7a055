// Package lookup asks questions that may never be answered: a server that
// accepts and says nothing, a file on a file system that is gone. Each is asked
// in a goroutine of its own, and whoever wants the answer waits no longer than
// he has patience for.
package lookup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Slots bound how many questions are asked at a time over all tables that share
// them. One that hangs in the kernel holds a thread, and its slot, until it
// comes back.
type Slots struct {
	all, shared chan struct{}
	each        int

	mu     sync.Mutex
	shares map[any]*share
}

// share is one share's slots, as long as somebody has one or waits for it.
type share struct {
	slots chan struct{}
	users int
}

// NewSlots makes n of them, of which one share holds so many at most, and all
// shares together half: whoever can make questions that take long, and have many
// shares, keeps those of others waiting no longer.
func NewSlots(n, each int) *Slots {
	return &Slots{all: make(chan struct{}, n), shared: make(chan struct{}, (n+1)/2), each: each, shares: map[any]*share{}}
}

// take takes a slot, of a share where key is not nil, and gives it back.
func (s *Slots) take(ctx context.Context, key any) (back func(), err error) {
	slots := []chan struct{}{s.all}
	back = func() {}
	if key != nil {
		slots = []chan struct{}{s.enter(key), s.shared, s.all}
		back = func() { s.leave(key) }
	}
	for _, c := range slots {
		select {
		case c <- struct{}{}:
			before := back
			back = func() { <-c; before() }
		case <-ctx.Done():
			back()
			return nil, ctx.Err()
		}
	}
	return back, nil
}

func (s *Slots) enter(key any) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.shares[key]
	if of == nil {
		of = &share{slots: make(chan struct{}, s.each)}
		s.shares[key] = of
	}
	of.users++
	return of.slots
}

// leave forgets a share of which nobody has a slot: there are as many as there are
// users, who come and go.
func (s *Slots) leave(key any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shares[key].users--; s.shares[key].users == 0 {
		delete(s.shares, key)
	}
}

// Table holds the answers to one kind of question, by key. For each key one
// question at most is under way. Any number of goroutines may use it.
type Table[K comparable, V any] struct {
	// Ask finds the value of a key. It may not come back; where it can it gives
	// up when ctx ends, which is after Deadline.
	Ask      func(ctx context.Context, key K) (V, error)
	Deadline time.Duration
	// Good and Bad are how long an answer, or an error, serves before it is
	// asked for again; 0 is not at all.
	Good, Bad time.Duration
	// Serves says instead of Good how long the answer to a key serves that took so
	// long. It is called by Start and One; nil where Good is for all.
	Serves func(key K, took time.Duration) time.Duration
	// Slots is nil where any number may be asked at a time.
	Slots *Slots
	// Share says of whose slots a question takes one, nil for nobody's in
	// particular. It is nil where all are.
	Share func(key K) any

	table table
}

// Answer is what is known of a key.
type Answer[V any] struct {
	// Value is the last good answer, and At when it was asked for; both are
	// zero where there was none.
	Value V
	At    time.Time
	// Err says why there is no newer answer, nil where Value is the newest that
	// is wanted.
	Err error
	// Late is true where Err is that there was no answer in time.
	Late bool
}

// Within reports whether Value can stand for now: it is the newest answer, or
// the newest is late and Value no older than age.
func (a Answer[V]) Within(age time.Duration) bool {
	return a.Err == nil || a.Late && !a.At.IsZero() && time.Since(a.At) <= age
}

// Start asks for those of keys whose answer is due, and forgets all other keys.
// wait waits until they have answered, or ctx ends. It does not wait for a key
// that has kept somebody waiting in vain and has not answered since.
func (t *Table[K, V]) Start(keys []K) (wait func(ctx context.Context)) {
	all := make([]any, len(keys))
	for i, key := range keys {
		all[i] = key
	}
	return t.table.startAll(all, t.question())
}

// Get is what is known of a key that was in the last Start.
func (t *Table[K, V]) Get(key K) Answer[V] {
	value, a := t.table.get(key)
	v, _ := value.(V)
	return Answer[V]{Value: v, At: a.At, Err: a.Err, Late: a.Late}
}

// One asks for one key, whatever its last answer, and waits until it has
// answered or ctx ends. It asks nothing where the last question is still under
// way. A table that is asked so keeps no answers, and is not for Start.
func (t *Table[K, V]) One(ctx context.Context, key K) (V, error) {
	value, err := t.table.one(ctx, key, t.question())
	v, _ := value.(V)
	return v, err
}

func (t *Table[K, V]) question() question {
	share := func(any) any { return nil }
	if t.Share != nil {
		share = func(key any) any { return t.Share(key.(K)) }
	}
	good := func(any, time.Duration) time.Duration { return t.Good }
	if t.Serves != nil {
		good = func(key any, took time.Duration) time.Duration { return t.Serves(key.(K), took) }
	}
	return question{t.Deadline, good, t.Bad, t.Slots, share, func(ctx context.Context, key any) (any, error) { return t.Ask(ctx, key.(K)) }}
}

// question is a Table's without its types: the code of the tables is there once.
type question struct {
	deadline time.Duration
	good     func(key any, took time.Duration) time.Duration
	bad      time.Duration
	slots    *Slots
	share    func(key any) any
	ask      func(ctx context.Context, key any) (any, error)
}

// table holds the answers of a Table.
type table struct {
	mu      sync.Mutex
	entries map[any]*entry
}

// entry is one key.
type entry struct {
	value    any       // nil where there was none
	at       time.Time // when the question of value was asked
	err      error     // of the last answer
	finished time.Time // when the last question ended, with or without an answer

	asked   time.Time     // when the question under way was asked
	done    chan struct{} // closed at its end; nil where none is under way
	cancel  context.CancelFunc
	silent  time.Time // since when no question was answered, zero where one was
	overrun bool      // somebody has waited in vain, and no answer came since
}

func (t *table) startAll(keys []any, q question) (wait func(ctx context.Context)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := make(map[any]bool, len(keys))
	var started []*entry
	for _, key := range keys {
		if wanted[key] {
			continue
		}
		wanted[key] = true
		if e := t.start(key, q); e.done != nil && !e.overrun {
			started = append(started, e)
		}
	}
	maps.DeleteFunc(t.entries, func(key any, e *entry) bool {
		if !wanted[key] && e.done != nil {
			e.cancel()
		}
		return !wanted[key]
	})
	return func(ctx context.Context) {
		for _, e := range started {
			t.wait(ctx, e)
		}
	}
}

func (t *table) get(key any) (value any, a Answer[struct{}]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	if e == nil {
		return nil, Answer[struct{}]{Err: errors.New("it was not asked for")}
	}
	return e.known()
}

func (t *table) one(ctx context.Context, key any, q question) (any, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.entries, func(_ any, e *entry) bool { return e.done == nil })
	if e := t.entries[key]; e != nil {
		return nil, e.late()
	}
	e := t.start(key, q)
	t.mu.Unlock()
	t.wait(ctx, e)
	t.mu.Lock()
	value, a := e.known() // another question may have cleared the table by now
	return value, a.Err
}

// known is what is known of the key.
func (e *entry) known() (value any, a Answer[struct{}]) {
	a.At, a.Err = e.at, e.err
	if e.done != nil || !e.silent.IsZero() {
		a.Err, a.Late = e.late(), true
	}
	return e.value, a
}

// start asks for a key if it is due.
func (t *table) start(key any, q question) *entry {
	if t.entries == nil {
		t.entries = make(map[any]*entry)
	}
	e := t.entries[key]
	if e == nil {
		e = &entry{}
		t.entries[key] = e
	}
	serves := q.bad
	if e.err == nil && e.silent.IsZero() {
		serves = q.good(key, e.finished.Sub(e.at))
	}
	if e.done != nil || !e.finished.IsZero() && time.Since(e.finished) < serves {
		return e
	}
	ctx, cancel := context.WithTimeout(context.Background(), q.deadline)
	e.asked, e.done, e.cancel = time.Now(), make(chan struct{}), cancel
	go func() {
		defer cancel()
		value, err := q.answer(ctx, key)
		t.mu.Lock()
		defer t.mu.Unlock()
		e.finish(value, err, ctx.Err() != nil)
	}()
	return e
}

// answer asks when there is a slot.
func (q question) answer(ctx context.Context, key any) (any, error) {
	if q.slots != nil {
		back, err := q.slots.take(ctx, q.share(key))
		if err != nil {
			return nil, err
		}
		defer back()
	}
	return q.ask(ctx, key)
}

// finish takes in what a question has brought. late is true where that is no
// answer but the end of its time.
func (e *entry) finish(value any, err error, late bool) {
	asked := e.asked
	e.finished = time.Now()
	close(e.done)
	e.done = nil
	if late && err != nil {
		e.overrun = true
		if e.silent.IsZero() {
			e.silent = asked
		}
		return
	}
	e.overrun, e.silent, e.err = false, time.Time{}, err
	if err == nil {
		e.value, e.at = value, asked
	}
}

// late says for how long there was no answer.
func (e *entry) late() error {
	since := e.silent
	if since.IsZero() {
		since = e.asked
	}
	return fmt.Errorf("it has not answered for %s", time.Since(since).Round(100*time.Millisecond))
}

// wait waits for the question under way.
func (t *table) wait(ctx context.Context, e *entry) {
	t.mu.Lock()
	done := e.done
	t.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
		t.mu.Lock()
		e.overrun = e.overrun || e.done != nil
		t.mu.Unlock()
	}
}
