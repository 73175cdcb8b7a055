package daemon

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// Host is what the daemon needs of the host. A look may take long, or never
// come back: the core calls none of these.
type Host interface {
	// Observe shows everything that a decision may depend on.
	Observe(ctx context.Context) (facts.Snapshot, error)
	// Sample looks at the accept queues only.
	Sample(ctx context.Context) ([]facts.Sample, error)
	// Refused finds with which listen backlog a unit that is down would start,
	// and where that is configured.
	Refused(ctx context.Context, unit string) facts.Fact[facts.Setting]
}

// observation is one look at the host, and what was done to it before.
type observation struct {
	begun    time.Time // nothing in it is older
	samples  []facts.Sample
	snapshot *facts.Snapshot // nil where only the queues were looked at
	err      error           // why samples, or an asked snapshot, are missing

	history    remediate.History
	historyErr error
}

// observer is the task that looks at the host for the core, when it is asked
// to. It looks once however often it was asked meanwhile.
type observer struct {
	host  Host
	trail remediate.Trail
	seen  chan observation

	asked chan struct{} // holds a token while a look is wanted
	mu    sync.Mutex
	whole bool // a snapshot is wanted too

	known map[facts.SocketID]bool // the sockets that the newest snapshot shows, or has left out
	blind bool                    // the newest snapshot that was tried failed
}

func newObserver(host Host, trail remediate.Trail) *observer {
	return &observer{host: host, trail: trail, seen: make(chan observation), asked: make(chan struct{}, 1)}
}

// ask wants a look at the queues, and a snapshot too where whole is true. It
// does not wait.
func (o *observer) ask(whole bool) {
	o.mu.Lock()
	o.whole = o.whole || whole
	o.mu.Unlock()
	select {
	case o.asked <- struct{}{}:
	default:
	}
}

// run looks until ctx ends.
func (o *observer) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.asked:
		}
		o.mu.Lock()
		whole := o.whole
		o.whole = false
		o.mu.Unlock()
		seen := o.look(ctx, whole)
		select {
		case <-ctx.Done():
			return nil
		case o.seen <- seen:
		}
	}
}

// look takes a sample of every queue, and a snapshot where one is wanted, a
// socket is new or the last one failed.
func (o *observer) look(ctx context.Context, whole bool) observation {
	seen := observation{begun: time.Now()}
	seen.samples, seen.err = o.host.Sample(ctx)
	for _, s := range seen.samples {
		whole = whole || !o.known[s.ID]
	}
	if (whole || o.blind) && seen.err == nil {
		snapshot, err := o.host.Observe(ctx)
		o.blind = err != nil
		if seen.err = err; err == nil {
			seen.snapshot = &snapshot
			o.known = make(map[facts.SocketID]bool, len(snapshot.Sockets))
			for _, s := range snapshot.Sockets {
				o.known[s.ID] = true
			}
			// Of one user's sockets a snapshot shows so many at most; for the
			// others it is not to be taken again with each sample.
			for _, s := range seen.samples {
				o.known[s.ID] = true
			}
		}
	}
	seen.history, seen.historyErr = o.trail.History()
	return seen
}

const (
	// sampleAge is how old samples may be, and snapshotAge how old a snapshot,
	// for a hit or a decision; they bound how often the host is looked at.
	sampleAge   = 100 * time.Millisecond
	snapshotAge = 500 * time.Millisecond
	// undecidedEvery is how often the queues are looked at while an incident
	// waits for what the kernel shows.
	undecidedEvery = 250 * time.Millisecond
	// silence is how long an answer of the observer may take before hits go on
	// without it, and the host is called unseen.
	silence = time.Second
)

// view is the newest that the core knows of the host.
type view struct {
	snapshot facts.Snapshot
	own      map[facts.SocketID]bool // the sockets in it on which qwatch may act
	tried    time.Time               // when the newest look was begun
	observed time.Time               // when the look that brought snapshot was
	history  remediate.History
	unread   bool   // the trail could not be read, and history is out of date
	err      string // why the host cannot be seen, "" where it can

	asked     time.Time // when the look under way was asked for, zero if none is
	whole     bool      // it is to bring a snapshot
	notBefore time.Time // what was seen before the end of an action decides nothing
	waiting   []func()  // called after the next look
}

// look asks the observer for a look unless one is under way that will do.
func (c *core) look(now time.Time, whole bool) {
	v := &c.view
	whole = whole || c.actions.wantWhole(now)
	if !v.asked.IsZero() && (v.whole || !whole) {
		return
	}
	if v.asked.IsZero() {
		v.asked = now
	}
	v.whole = v.whole || whole
	c.observer.ask(whole)
}

// afterLook calls f, which must not wait, in the core's goroutine when a look
// that was asked for now has come.
func (c *core) afterLook(now time.Time, f func()) {
	c.view.waiting = append(c.view.waiting, f)
	c.look(now, now.Sub(c.view.snapshot.At) >= snapshotAge)
}

// recent reports whether what is known is young enough for a hit, or no younger
// can be had.
func (v *view) recent(now time.Time) bool {
	if now.Sub(v.tried) >= sampleAge {
		return false
	}
	return v.err != "" || now.Sub(v.snapshot.At) < snapshotAge
}

// see takes a look at the host in, and does what has waited for it.
func (c *core) see(ctx context.Context, seen observation) {
	now, v := time.Now(), &c.view
	if seen.snapshot != nil || seen.err != nil || !v.whole {
		v.asked, v.whole = time.Time{}, false
	} else {
		v.asked = now // the snapshot is the next look's
	}
	v.tried = seen.begun
	v.err = c.report.unseen(ctx, seen.err, seen.historyErr)
	if v.unread = seen.historyErr != nil; !v.unread {
		if !slices.EqualFunc(tail(v.history), tail(seen.history), sameEvent) {
			c.report.refresh()
		}
		v.history = seen.history
		c.leftOpen(now)
	}
	if seen.snapshot != nil {
		v.observed = seen.begun
		c.newSnapshot(*seen.snapshot)
	}
	if seen.err == nil {
		c.record.AddSamples(c.ownFirst(seen.samples), now)
		c.queues.count(seen.samples, v.snapshot)
	}
	if v.asked.IsZero() {
		v.answer()
		c.drain(now)
	}
	if c.probe.due && seen.err == nil {
		c.probe.due = false
		c.probeHits(seen.samples, now)
	}
	c.tryAll(seen.samples, now)
	if seen.begun.Before(v.notBefore) {
		c.look(now, true)
	}
	c.keepLimits(ctx, now)
	c.consider(ctx, now)
}

// decides reports whether what is known may be decided on: it is no older than
// the end of the last action, and tells what was done before.
func (v *view) decides() bool { return !v.unread && !v.observed.Before(v.notBefore) }

func tail(h remediate.History) remediate.History { return h[max(0, len(h)-1):] }

func sameEvent(a, b remediate.Event) bool {
	return a.Time.Equal(b.Time) && a.Plan == b.Plan && a.Action == b.Action && a.Target == b.Target && a.Result == b.Result
}

// answer lets those go on who have waited for a look.
func (v *view) answer() {
	for _, f := range v.waiting {
		f()
	}
	v.waiting = nil
}

// ownFirst are the samples of the sockets on which qwatch may act, and of so many
// others as may have hits, those first that are at least half full: whoever makes
// thousands of sockets shall not drive the record of a real one out.
func (c *core) ownFirst(samples []facts.Sample) (own []facts.Sample) {
	var others []facts.Sample
	for _, s := range samples {
		if c.view.own[s.ID] {
			own = append(own, s)
		} else {
			others = append(others, s)
		}
	}
	sort.SliceStable(others, func(i, j int) bool {
		a, b := others[i], others[j]
		return facts.HalfFull(a.Length, a.Limit) && !facts.HalfFull(b.Length, b.Limit)
	})
	return append(own, others[:min(len(others), admitted)]...)
}

// newSnapshot takes a snapshot over.
func (c *core) newSnapshot(s facts.Snapshot) {
	c.view.snapshot, c.view.own = s, make(map[facts.SocketID]bool, len(s.Sockets))
	for _, socket := range s.Sockets {
		c.view.own[socket.ID] = c.settings.policy.Distrusts(socket) == ""
	}
	c.record.AddSnapshot(s)
	c.queues.retain(s)
	for _, loss := range remediate.BootLosses(c.settings.policy, s) {
		c.report.bootLoss(loss)
	}
}

// overdue goes on without the host where it does not answer.
func (c *core) overdue(ctx context.Context, now time.Time) {
	v := &c.view
	if v.asked.IsZero() || now.Sub(v.asked) < silence {
		return
	}
	v.err = c.report.silent(ctx, now.Sub(v.asked))
	v.answer()
	c.drain(now)
}
