package daemon

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

// core owns what changes while qwatch runs: what was read of the host, the
// incidents, and what became of each. Only its own goroutine (loop) touches it,
// and that goroutine waits for nothing but its channels: the observer looks at
// the host, and an action runs in a goroutine of its own.
type core struct {
	in       inputs
	observer *observer
	settings settings
	view     view
	record   diagnose.Record
	queues   queues
	probe    probe
	incidents
	starts  starts
	actions actions
	report  report
	pending []matcher.Hit // that wait for a look at the host, oldest first
	// cannot says what this process may not do, as it was tried at the start.
	cannot map[facts.Step]string
}

// inputs are the channels by which others reach the core.
type inputs struct {
	hits  chan matcher.Hit
	marks chan matcher.Mark
	calls chan func(ctx context.Context)
}

// settings are what the configuration says.
type settings struct {
	policy  remediate.Policy
	probe   time.Duration
	quiet   time.Duration
	journal bool // one is followed
}

// maxPending bounds the hits that wait for a look: beyond it the sources wait,
// whose text is still in its file.
const maxPending = 4096

func newCore(host Host, newActor func(*config.Config) remediate.Actor, trail remediate.Trail, log zerolog.Logger) *core {
	return &core{
		in: inputs{
			hits:  make(chan matcher.Hit, 256),
			marks: make(chan matcher.Mark, 256),
			calls: make(chan func(context.Context)),
		},
		observer:  newObserver(host, trail),
		queues:    newQueues(),
		incidents: newIncidents(),
		starts:    newStarts(),
		actions:   newActions(host, trail, newActor),
		report:    newReport(log),
	}
}

// configure takes a new configuration over. Incidents, cooldowns and samples
// stay, and what is under way ends as it was begun.
func (c *core) configure(cfg *config.Config) {
	c.actions.actor = c.actions.newActor(cfg)
	c.settings = settings{cfg.Policy, cfg.Probe.Interval, cfg.Group.Quiet, followsJournal(cfg)}
	if c.book == nil {
		c.book = matcher.NewBook(cfg.Group.Window, cfg.Group.Quiet, cfg.Group.Threshold)
		return
	}
	c.book.Configure(cfg.Group.Window, cfg.Group.Quiet, cfg.Group.Threshold)
}

// loop runs until the sources are done, which end with ctx, and then until the
// actions under way have ended.
func (c *core) loop(ctx context.Context, sourcesDone <-chan struct{}) error {
	c.recoverActions(ctx)
	c.look(time.Now(), true)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		c.due(ctx, now)
		timer.Reset(c.idleFor(now))
		hits := c.in.hits
		if len(c.pending) >= maxPending {
			hits = nil
		}
		select {
		case <-sourcesDone:
			c.drain(time.Now())
			for c.actions.working > 0 {
				c.actions.ended(<-c.actions.done)
			}
			return nil
		case h := <-hits:
			c.hit(ctx, h)
		case m := <-c.in.marks:
			c.mark(ctx, m)
		case call := <-c.in.calls:
			call(ctx)
		case seen := <-c.observer.seen:
			c.see(ctx, seen)
		case r := <-c.starts.found:
			c.refused(ctx, r)
		case report := <-c.actions.done:
			c.actions.ended(report)
		case <-timer.C:
		}
	}
}

// due does what the time asks for.
func (c *core) due(ctx context.Context, now time.Time) {
	if every := c.settings.probe; every > 0 && !now.Before(c.probe.next) {
		c.probe.due, c.probe.next = true, now.Add(every)
		c.look(now, c.queues.anySilent())
	}
	c.expire(now)
	if c.undecided(now) && now.Sub(c.view.tried) >= undecidedEvery {
		c.look(now, now.Sub(c.view.snapshot.At) >= snapshotAge)
	}
	if at := c.actions.nextTrial(); !at.IsZero() && !now.Before(at) {
		c.look(now, false)
	}
	if at := c.actions.recover; !at.IsZero() && !now.Before(at) && !c.actions.raising && ctx.Err() == nil {
		c.recoverActions(ctx)
	}
	c.overdue(ctx, now)
	c.nextStart(ctx)
}

// idleFor is how long nothing needs to be done if nothing happens.
func (c *core) idleFor(now time.Time) time.Duration {
	at := now.Add(24 * time.Hour)
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if c.settings.probe > 0 {
		earlier(c.probe.next)
	}
	if t, ok := c.book.Next(); ok {
		earlier(t)
	}
	switch asked := c.view.asked; {
	case !asked.IsZero() && now.Sub(asked) < silence:
		earlier(asked.Add(silence))
	case !asked.IsZero() && len(c.pending) > 0:
		earlier(now)
	case asked.IsZero() && c.undecided(now):
		earlier(c.view.tried.Add(undecidedEvery))
	}
	if at := c.actions.recover; !at.IsZero() && !c.actions.raising {
		earlier(at)
	}
	if next := c.actions.nextTrial(); !next.IsZero() && c.view.asked.IsZero() {
		earlier(next)
	}
	return max(0, at.Sub(now))
}

// call runs f in the core's goroutine and waits for it.
func (c *core) call(ctx context.Context, f func(context.Context)) error {
	done := make(chan struct{})
	select {
	case c.in.calls <- func(ctx context.Context) { f(ctx); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
