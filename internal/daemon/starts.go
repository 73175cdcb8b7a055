package daemon

import (
	"context"
	"time"

	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

const (
	// refusedEvery is the least time between two looks at a uWSGI that would
	// not start: systemd may try it again each second, and each try writes the
	// line.
	refusedEvery = 5 * time.Second
	// refusedWait bounds one look.
	refusedWait = 10 * time.Second
	// maxRefused is how many of them are remembered.
	maxRefused = 50
)

// starts are the uWSGI that say that they would not start.
type starts struct {
	tried map[string]time.Time // when one was looked at, by unit or source
	found chan refusal
	busy  bool // one is looked at
	// waiting are lines of the others, at most maxRefused.
	waiting []matcher.Mark
}

// refusal is what was found out about one of them.
type refusal struct {
	mark    matcher.Mark
	refusal remediate.Refusal
	// snapshot and history are no older than the line.
	snapshot        facts.Snapshot
	history         remediate.History
	err, historyErr error // why one is missing
}

func newStarts() starts {
	return starts{tried: map[string]time.Time{}, found: make(chan refusal)}
}

// mark takes one of uWSGI's other lines.
func (c *core) mark(ctx context.Context, m matcher.Mark) {
	now := time.Now()
	c.record.AddMark(m, now)
	if m.Kind != matcher.MarkNoStart {
		return
	}
	// All lines of one source that name no unit are one: strangers may write
	// them.
	key := m.Unit
	if key == "" {
		key = m.Source
	}
	s := &c.starts
	if len(s.waiting) >= maxRefused || now.Sub(s.tried[key]) < refusedEvery {
		return
	}
	if len(s.tried) >= maxRefused {
		clear(s.tried)
	}
	s.tried[key] = now
	s.waiting = append(s.waiting, m)
}

// nextStart looks at the next one that waits, unless a pass of raises is under
// way.
func (c *core) nextStart(ctx context.Context) {
	s := &c.starts
	if s.busy || c.actions.raising || len(s.waiting) == 0 {
		return
	}
	m := s.waiting[0]
	s.waiting, s.busy = s.waiting[1:], true
	go func() {
		r := c.findRefusal(ctx, m)
		select {
		case s.found <- r:
		case <-ctx.Done():
		}
	}()
}

// findRefusal looks at a unit that is down. It runs in a goroutine of its own.
func (c *core) findRefusal(ctx context.Context, m matcher.Mark) refusal {
	ctx, cancel := context.WithTimeout(ctx, refusedWait)
	defer cancel()
	r := refusal{mark: m, refusal: remediate.Refusal{Unit: m.Unit, Listen: facts.Unknown[facts.Setting]("the line names no systemd unit")}}
	if m.Unit != "" {
		r.refusal.Listen = c.observer.host.Refused(ctx, m.Unit)
	}
	r.snapshot, r.err = c.observer.host.Observe(ctx)
	r.history, r.historyErr = c.observer.trail.History()
	return r
}

// refused deals with a uWSGI that would not start: the app is down.
func (c *core) refused(ctx context.Context, r refusal) {
	c.starts.busy = false
	if r.err != nil || r.historyErr != nil {
		c.report.unseen(ctx, r.err, r.historyErr)
		return
	}
	if c.actions.busy("unit "+r.mark.Unit, time.Now()) {
		return // it is being started just now; where that fails it says so again
	}
	if c.actions.raising { // what was seen is from before its end
		c.starts.waiting = append(c.starts.waiting, r.mark)
		return
	}
	plan := remediate.PlanStart(c.settings.policy, r.snapshot, r.refusal, r.history, time.Now())
	if plan.Name == "" {
		plan.Name = r.mark.Source
	}
	c.report.startRefused(r.mark.Source, plan)
	if plan.Verdict == remediate.Act {
		c.begin(ctx, []remediate.Plan{plan})
	}
}
