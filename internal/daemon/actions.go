package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"qwatch/internal/config"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// actions carries plans out. A pass of raises takes milliseconds, and there is
// one at a time; a reload or a start may take a minute, and runs beside, in a
// goroutine of its own. What was raised is on trial until its verdict stands.
type actions struct {
	host     Host
	trail    remediate.Trail
	newActor func(*config.Config) remediate.Actor
	actor    remediate.Actor
	raising  bool             // a pass is under way
	slow     map[string]begun // whose reload or start is under way, by subject
	trials   map[string]*remediate.Trial
	recover  time.Time   // when to look for actions that another qwatch has left open, zero for never
	working  int         // goroutines of which done is to come
	done     chan func() // what the core does when one has ended
}

func newActions(host Host, trail remediate.Trail, newActor func(*config.Config) remediate.Actor) actions {
	return actions{
		host: host, trail: trail, newActor: newActor, done: make(chan func()),
		slow: map[string]begun{}, trials: map[string]*remediate.Trial{},
	}
}

// begun is a reload or a start that is under way.
type begun struct {
	at      time.Time
	inPlace bool // the socket has its new limit already
}

// subject is what a plan is about: one at a time is done about it.
func subject(p remediate.Plan) string {
	if p.Unit != "" {
		return "unit " + p.Unit
	}
	return socketSubject(p.Socket.ID)
}

func socketSubject(id facts.SocketID) string { return fmt.Sprint("socket ", id.NetNS, id.Inode) }

// busy reports whether something is being done about a subject, or is not
// judged yet. A socket that was raised in place is not kept waiting by the reload
// that comes after it.
func (a *actions) busy(subject string, now time.Time) bool {
	if slow, ok := a.slow[subject]; ok && (!slow.inPlace || now.Sub(slow.at) < remediate.WatchTime) {
		return true
	}
	trial := a.trials[subject]
	return trial != nil && trial.Open()
}

// work runs f in a goroutine of its own, and what it returns then in the core's.
// The core takes it also while it stops.
func (a *actions) work(f func() func()) {
	a.working++
	go func() { a.done <- f() }()
}

// ended takes the report of a goroutine.
func (a *actions) ended(report func()) {
	a.working--
	report()
}

// begin carries plans out, their raises in one pass.
func (c *core) begin(ctx context.Context, plans []remediate.Plan) {
	a := &c.actions
	a.raising = true
	for _, p := range plans {
		delete(a.trials, subject(p)) // what was fixed before is another matter now
	}
	runner := newRunner(a.host, a.actor, a.trail, c.report.log)
	a.work(func() func() {
		done := runner.Raise(ctx, plans)
		recorded := a.recorded(done)
		return func() { c.raised(ctx, runner, done, recorded) }
	})
}

// recorded tells of each plan whether the trail took a word of it, which it does
// not on a full disk.
func (a *actions) recorded(done []remediate.Done) []bool {
	history, err := a.trail.History()
	out := make([]bool, len(done))
	for i, d := range done {
		out[i] = err == nil && history.Stale(d.Plan)
	}
	return out
}

// raised takes the report of a pass.
func (c *core) raised(ctx context.Context, runner remediate.Runner, done []remediate.Done, recorded []bool) {
	a, now := &c.actions, time.Now()
	a.raising = false
	for i, d := range done {
		c.report.acted(d.Outcomes)
		if !d.Left() {
			c.carriedOut(d, recorded[i])
			continue
		}
		if ctx.Err() != nil {
			continue // qwatch stops
		}
		a.slow[subject(d.Plan)] = begun{now, d.InPlace()}
		before := len(d.Outcomes)
		a.work(func() func() {
			d := runner.Finish(ctx, d)
			recorded := a.recorded([]remediate.Done{d})[0]
			return func() {
				delete(a.slow, subject(d.Plan))
				c.report.acted(d.Outcomes[before:])
				c.carriedOut(d, recorded)
				c.awaitLate(ctx, runner, d)
			}
		})
	}
	c.lookAnew(now)
}

// awaitLate looks again at a reload that was not done in time.
func (c *core) awaitLate(ctx context.Context, runner remediate.Runner, d remediate.Done) {
	if ctx.Err() != nil || !slices.ContainsFunc(d.Outcomes, func(o remediate.Outcome) bool { return o.Late != nil }) {
		return
	}
	c.actions.work(func() func() {
		d, ended := runner.Late(ctx, d)
		return func() {
			if ended {
				c.report.acted(d.Outcomes[len(d.Outcomes)-1:])
				c.carriedOut(d, true)
			}
		}
	})
}

// carriedOut deals with a plan of which nothing is left to do.
func (c *core) carriedOut(d remediate.Done, recorded bool) {
	now := time.Now()
	logDone(c.report.log, d)
	// What could not be recorded leaves no cooldown in the history: without
	// this it would be tried again at once, for ever.
	if oc := c.open[d.Plan.Incident]; oc != nil && !recorded {
		oc.held = now.Add(max(c.settings.policy.Cooldown, remediate.WatchTime))
	}
	if errors.Is(d.Err, remediate.ErrStopped) {
		return // the next start looks how it ended
	}
	later := c.actions.trials[subject(d.Plan)] // of a raise beside the reload
	if d.ToJudge() && (later == nil || later.Plan.Target <= d.Plan.Target) {
		t := d.Trial(now)
		c.actions.trials[subject(d.Plan)] = t
		c.catchUp(t, now)
		c.hold(d.Plan, now.Add(2*remediate.JudgeWithin))
	}
	c.lookAnew(now)
}

// catchUp shows a trial the looks that were taken while its reload was watched.
func (c *core) catchUp(t *remediate.Trial, now time.Time) {
	if t.Begun().Before(now) {
		t.Judge(facts.Snapshot{}, c.record.Since(t.Begun()), now)
	}
}

// hold keeps the incident of a plan open until then.
func (c *core) hold(p remediate.Plan, until time.Time) {
	if oc := c.open[p.Incident]; oc != nil {
		c.book.Hold(oc.key, until)
	}
}

// lookAnew lets only what is seen from now on decide.
func (c *core) lookAnew(now time.Time) {
	c.view.notBefore = now
	c.look(now, true)
}

// tryAll shows the trials the newest look.
func (c *core) tryAll(samples []facts.Sample, now time.Time) {
	a := &c.actions
	for subject, t := range a.trials {
		wasOpen := t.Open()
		if now.Before(t.Next()) && !wasOpen {
			continue
		}
		j, said := t.Judge(c.view.snapshot, samples, now)
		if t.Postponed() {
			logWaits(c.report.log, t.Plan, t.Outlook())
			c.report.refresh()
		}
		if said {
			c.judged(t.Plan, j, now)
		}
		switch {
		case t.Over(now) && t.Open():
			c.report.log.Warn().Str("plan", t.Plan.ID).Str("socket", t.Plan.Name).Msg(t.Unjudged().Error())
			fallthrough
		case t.Over(now), said && j.Result != remediate.Fixed:
			delete(a.trials, subject)
		}
		if wasOpen && (said || t.Over(now)) {
			c.hold(t.Plan, time.Time{})
		}
	}
}

// judged says a verdict and writes it down.
func (c *core) judged(p remediate.Plan, j remediate.Judgement, now time.Time) {
	a, log := &c.actions, c.report.log
	a.work(func() func() {
		if err := a.trail.Append(remediate.EventOfJudgement(p, j, now)); err != nil {
			log.Error().Err(err).Str("plan", p.ID).Str("socket", p.Name).Msg("the judgement could not be recorded")
		}
		logJudgement(log, p, j)
		return func() { c.look(time.Now(), false) }
	})
}

// nextTrial is when the next look is due that a trial asks for, zero if none
// does.
func (a *actions) nextTrial() (at time.Time) {
	for _, t := range a.trials {
		if next := t.Next(); at.IsZero() || next.Before(at) {
			at = next
		}
	}
	return at
}

// wantWhole reports whether a trial needs the next look, whoever asks for it, to
// be at the whole host.
func (a *actions) wantWhole(now time.Time) bool {
	for _, t := range a.trials {
		if t.Whole(now) {
			return true
		}
	}
	return false
}

// recoverEvery is how often is looked whether what a former qwatch has left under
// way has ended.
const recoverEvery = 5 * time.Second

// leftOpen has what is left under way by another qwatch looked at soon.
func (c *core) leftOpen(now time.Time) {
	if a := &c.actions; a.recover.IsZero() && len(a.slow) == 0 && c.view.history.LeftOpen() {
		a.recover = now.Add(recoverEvery)
	}
}

// recoverActions settles the actions that a former qwatch began and did not
// end. Nothing else is done meanwhile.
func (c *core) recoverActions(ctx context.Context) {
	a := &c.actions
	a.raising, a.recover = true, time.Time{}
	patience := c.settings.policy.ReloadTimeout
	a.work(func() func() {
		runner := remediate.Runner{Trail: a.trail, Host: a.host}
		if err := runner.Recover(ctx, patience, c.report.recovered); err != nil && ctx.Err() == nil {
			c.report.log.Warn().Err(err).Msg("not looked for interrupted actions")
		}
		return func() {
			a.raising = false
			c.lookAnew(time.Now())
		}
	})
}
