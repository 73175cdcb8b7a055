package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

const (
	// evidenceSpan is how far back samples count as evidence.
	evidenceSpan = 15 * time.Second
	// joinSpan is how long ago a queue may have been full that joins a raise:
	// TCP's clients try again after a second (TCP_TIMEOUT_INIT).
	joinSpan = 2 * time.Second
	// admitted is how many sockets of one user may have hits at a time.
	admitted = 64
	// strangers is the user of all uWSGIs that qwatch only looks at: together
	// they have the place of one.
	strangers = -2
	// keepClosed is how many closed incidents status shows.
	keepClosed = 50
)

// incidents are the hits in groups, and what became of each group.
type incidents struct {
	book     *matcher.Book
	open     map[string]*openCase // by incident id
	closed   []matcher.Incident   // newest last
	lastPlan map[string]string    // plan id by incident id
	// raises counts the plans begun for each user since an incident was open.
	raises map[int]int
	// admitted are the sockets of each user that have hits, and when the last
	// one came.
	admitted   map[int]map[string]time.Time
	considered time.Time // when all open ones were
}

// openCase is an open incident.
type openCase struct {
	incident matcher.Incident
	found
	uid  int                     // who runs the uWSGI, -1 where there is none, or strangers
	said map[remediate.Code]bool // plans that were logged since the last action
	held time.Time               // no plan before: the trail took no word of the last one
	// opener is the record that opened it; proven says that the kernel has
	// confirmed it, and told that it was told of.
	opener       matcher.Hit
	proven, told bool
}

// found is the socket of a hit, or why there is none.
type found struct {
	key  string // under which hits are grouped
	id   facts.SocketID
	lost error
	// joins says that the hit opens an incident alone: others are raised just
	// now.
	joins bool
}

func newIncidents() incidents {
	return incidents{
		open:     map[string]*openCase{},
		lastPlan: map[string]string{},
		raises:   map[int]int{},
		admitted: map[int]map[string]time.Time{},
	}
}

// undecided reports whether an incident is open that looking again may decide.
func (c *core) undecided(now time.Time) bool {
	if c.actions.raising {
		return false
	}
	for _, oc := range c.open {
		if oc.lost == nil && !c.actions.busy(socketSubject(oc.id), now) {
			return true
		}
	}
	return false
}

// hit takes one record from a log. It waits for a look at the host where what
// is known is old.
func (c *core) hit(ctx context.Context, h matcher.Hit) {
	now := time.Now()
	c.report.counts.hits.Add(1)
	c.pending = append(c.pending, h)
	if !c.view.recent(now) {
		c.look(now, now.Sub(c.view.snapshot.At) >= snapshotAge)
		return
	}
	if opened := c.drain(now); opened || now.Sub(c.considered) >= sampleAge {
		c.consider(ctx, now)
	}
}

// drain finds the sockets of the hits that have waited. It reports whether an
// incident was opened.
func (c *core) drain(now time.Time) (opened bool) {
	hits := c.pending
	c.pending = c.pending[:0]
	for _, h := range hits {
		socket, err := c.view.snapshot.Locate(h)
		// All records that fit no socket share one incident for each source:
		// what strangers write must not fill the memory or the journal.
		f := found{key: "lost/" + h.Source, lost: err}
		if err != nil && c.view.err != "" {
			f.lost = fmt.Errorf("the host cannot be seen: %s", c.view.err)
		}
		if err == nil {
			f = found{key: socket.Key(), id: socket.ID}
			h.Socket = socket.Name()
			q := c.queues.get(socket.ID)
			q.lastRecord = now
			q.hits++
		}
		opened = c.enter(f, h, now) || opened
	}
	return opened
}

// enter puts a hit in the book. It reports whether an incident was opened.
func (c *core) enter(f found, h matcher.Hit, now time.Time) (opened bool) {
	// The book runs on the clock of this host: a record's own time can be
	// anything.
	h.At = now
	uid := -1
	if s, ok := c.view.snapshot.Find(f.id); ok {
		if v, known := s.Master.UID.Get(); known {
			uid = v
		}
		if c.settings.policy.Distrusts(s) != "" {
			uid = strangers
		}
	}
	if !c.admit(uid, f.key, now) {
		return false
	}
	add := c.book.Add
	if f.joins {
		add = c.book.Open
	}
	incident, event := add(f.key, h, now)
	switch event {
	case matcher.Opened:
		oc := &openCase{incident: incident, found: f, uid: uid, said: map[remediate.Code]bool{}}
		c.open[incident.ID] = oc
		oc.opener, oc.proven = h, c.evidence(oc, now).Corroborates()
		c.report.opened(oc, c.view.snapshot)
		return true
	case matcher.Updated:
		oc := c.open[incident.ID]
		oc.incident, oc.found, oc.uid = incident, f, uid // whether it is a stranger's may be seen by now
	}
	return false
}

// admit lets in only so many sockets of one user, so that nobody can fill the
// book and keep the loop busy with full queues that he makes himself.
func (c *core) admit(uid int, key string, now time.Time) bool {
	mine := c.admitted[uid]
	if _, ok := mine[key]; !ok && len(mine) >= admitted {
		maps.DeleteFunc(mine, func(_ string, last time.Time) bool { return now.Sub(last) > c.settings.quiet })
		if len(mine) >= admitted {
			return false
		}
	}
	if mine == nil {
		mine = map[string]time.Time{}
		c.admitted[uid] = mine
	}
	mine[key] = now
	return true
}

// expire closes the incidents that have been quiet.
func (c *core) expire(now time.Time) {
	for _, incident := range c.book.Expire(now) {
		oc := c.open[incident.ID]
		delete(c.open, incident.ID)
		if c.closed = append(c.closed, incident); len(c.closed) > keepClosed {
			delete(c.lastPlan, c.closed[0].ID)
			c.closed = slices.Delete(c.closed, 0, 1)
		}
		oc.incident = incident
		c.report.closed(oc, c.view.snapshot)
	}
	if len(c.open) == 0 {
		clear(c.raises)
	}
}

// consider decides about every open incident, and carries out in one pass what
// asks for it: the users in turn, and each user's incidents in the order in which
// they began. Any user may run a thousand processes called uwsgi with full queues;
// nobody else's uWSGI shall wait for all of them.
func (c *core) consider(ctx context.Context, now time.Time) {
	c.considered = now
	if !c.view.decides() || c.actions.raising || ctx.Err() != nil {
		return
	}
	var about []*openCase
	var proven []bool
	cases := func(some []*openCase) (out []remediate.Case) {
		for _, oc := range inTurn(some, c.raises) {
			cs := c.caseOf(oc, now)
			about, proven = append(about, oc), append(proven, cs.Evidence.Corroborates())
			out = append(out, cs)
		}
		return out
	}
	var open []*openCase
	for _, oc := range c.open {
		if !now.Before(oc.held) && !c.actions.busy(socketSubject(oc.id), now) {
			open = append(open, oc)
		}
	}
	join := func() []remediate.Case { return cases(c.join(now)) }
	var act []remediate.Plan
	for i, plan := range remediate.DecidePass(c.settings.policy, cases(open), join, c.view.history, now) {
		oc := about[i]
		if plan.Verdict == remediate.Act && c.view.err != "" {
			continue // what was seen before the host could be seen no more decides nothing
		}
		if plan.Verdict != remediate.Act {
			c.report.plan(oc, plan, c.view.snapshot, proven[i])
			continue
		}
		c.lastPlan[oc.incident.ID] = plan.ID
		c.raises[oc.uid]++
		clear(oc.said)
		c.report.plan(oc, plan, c.view.snapshot, proven[i])
		// After a raise it is no news that the queue is not full, nor that
		// the next raise must wait.
		oc.said[remediate.CodeUncorroborated], oc.said[remediate.CodeCooldown] = true, true
		act = append(act, plan)
	}
	if len(act) > 0 {
		c.begin(ctx, act)
	}
}

// inTurn orders incidents: the first of each user, then the second of each, and
// of the users those first who have had the fewest raises.
func inTurn(open []*openCase, raises map[int]int) []*openCase {
	sort.Slice(open, func(i, j int) bool {
		a, b := open[i].incident, open[j].incident
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.ID, b.ID)) < 0
	})
	turns, of := map[int]int{}, map[*openCase]int{}
	for _, oc := range open {
		of[oc] = turns[oc.uid]
		turns[oc.uid]++
	}
	sort.SliceStable(open, func(i, j int) bool {
		a, b := open[i], open[j]
		return cmp.Or(cmp.Compare(of[a], of[b]), cmp.Compare(raises[a.uid], raises[b.uid])) < 0
	})
	return open
}

// join opens an incident for each socket without one that the newest look shows
// full, or not much less than it was a moment ago: what overflows with others is
// raised with them. A worker that takes a connection makes a place, until a client
// that was turned away tries again.
func (c *core) join(now time.Time) (joined []*openCase) {
	known := map[facts.SocketID]bool{}
	for _, oc := range c.open {
		known[oc.id] = true
	}
	for _, sample := range c.record.Since(c.view.tried) {
		if known[sample.ID] || !facts.HalfFull(sample.Length, sample.Limit) {
			continue
		}
		s, ok := c.view.snapshot.Find(sample.ID)
		if !ok || c.actions.busy(socketSubject(s.ID), now) || c.settings.policy.Distrusts(s) != "" {
			continue
		}
		e := c.looks(now).Evidence(s, now.Add(-joinSpan))
		if !e.Corroborates() {
			continue
		}
		known[s.ID] = true
		q := c.queues.get(s.ID)
		q.silent = nil
		hit := matcher.Hit{FD: -1, Length: max(e.Peak, e.Limit+1), Limit: e.Limit, Source: "probe", Socket: s.Name(), PID: s.Master.PID, Unit: s.Master.Unit.Value}
		c.enter(found{key: s.Key(), id: s.ID, joins: true}, hit, now)
		for _, oc := range c.open {
			if oc.id == s.ID {
				q.hits++
				c.queues.probeHits++
				joined = append(joined, oc)
			}
		}
	}
	return joined
}

// evidence is what the kernel showed of the socket of an incident; nothing where
// there is none.
func (c *core) evidence(oc *openCase, now time.Time) facts.Evidence {
	socket, ok := c.view.snapshot.Find(oc.id)
	if oc.lost != nil || !ok {
		return facts.Evidence{}
	}
	return c.looks(now).Evidence(socket, now.Add(-evidenceSpan))
}

// looks is what decisions are made from.
func (c *core) looks(now time.Time) remediate.Looks {
	return remediate.Looks{Policy: c.settings.policy, Facts: c.view.snapshot, Record: &c.record, History: c.view.history, Now: now}
}

// caseOf is an incident with all that is known of it.
func (c *core) caseOf(oc *openCase, now time.Time) remediate.Case {
	snapshot := c.view.snapshot
	cs := remediate.Case{Incident: oc.incident, Facts: snapshot, Lost: oc.lost}
	if oc.lost == nil {
		var ok bool
		if cs.Socket, ok = snapshot.Find(oc.id); !ok {
			cs.Lost = fmt.Errorf("no uWSGI that qwatch may see listens on %s any more", oc.incident.Socket)
		}
		cs.Socket.Sight = followed(cs.Socket.Sight, oc.opener)
		cs.Evidence = c.evidence(oc, now)
		cs.Diagnosis = c.looks(now).Diagnose(cs.Socket, oc.incident.Peak == 0)
	}
	return cs
}

// followed adds to the sight of a uWSGI the file from which its records come, where
// nothing else tells what it says: what a container or a supervisor writes for it.
func followed(sight facts.Fact[facts.Sight], opener matcher.Hit) facts.Fact[facts.Sight] {
	if sight.Value.Words() || !strings.HasPrefix(opener.Source, "/") {
		return sight
	}
	with := sight.Value
	with.Followed = opener.Source
	return facts.Known(with)
}

// keepLimits gives restarted uWSGIs the limits that their sockets had, before the
// queues are full again. Each new socket is looked at once.
func (c *core) keepLimits(ctx context.Context, now time.Time) {
	if !c.view.decides() || c.view.err != "" || c.actions.raising || ctx.Err() != nil {
		return
	}
	var act []remediate.Plan
	for _, s := range c.view.snapshot.Sockets {
		q := c.queues.get(s.ID)
		if q.keepTried {
			continue
		}
		q.keepTried = true
		plan := remediate.PlanKeep(c.settings.policy, c.view.snapshot, s, c.view.history, now)
		if plan.Code == remediate.CodeUntrusted && s.Untrusted.Unseen() != "" || plan.Code == remediate.CodePaused {
			q.keepTried = false // it may be otherwise with the next look
		}
		if plan.Verdict == remediate.Act {
			c.report.kept(plan)
			act = append(act, plan)
		}
	}
	if len(act) > 0 {
		c.begin(ctx, act)
	}
}
