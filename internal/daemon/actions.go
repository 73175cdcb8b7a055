package daemon

import (
	"context"
	"time"

	"qwatch/internal/config"
	"qwatch/remediate"
)

// actions carries plans out, one at a time, each in a goroutine of its own: a
// reload may take a minute, and hits go on meanwhile.
type actions struct {
	host     Host
	trail    remediate.Trail
	newActor func(*config.Config) remediate.Actor
	actor    remediate.Actor
	next     *config.Config // to be taken over when the action under way has ended
	running  bool
	done     chan acted
}

// acted is what an action's goroutine reports when it is done; of a recovery
// it is empty.
type acted struct {
	plan     remediate.Plan
	outcomes []remediate.Outcome
	// unrecorded says that the trail took no word of it, as on a full disk.
	unrecorded bool
}

// begin carries a plan out.
func (c *core) begin(ctx context.Context, plan remediate.Plan) {
	a := &c.actions
	a.running = true
	actor := a.actor
	go func() {
		outcomes := Act(ctx, plan, a.host, actor, a.trail, c.report.log)
		history, err := a.trail.History()
		// The core takes this also while it stops.
		a.done <- acted{plan, outcomes, err != nil || !history.Stale(plan)}
	}()
}

// finished takes the report of a plan that was carried out.
func (c *core) finished(a acted) {
	c.actions.running = false
	c.report.acted(a.outcomes)
	now := time.Now()
	// What could not be recorded leaves no cooldown in the history: without
	// this it would be tried again at once, for ever.
	if oc := c.open[a.plan.Incident]; oc != nil && a.unrecorded {
		oc.held = now.Add(max(c.settings.policy.Cooldown, remediate.WatchTime))
	}
	if c.actions.next != nil {
		c.configure(c.actions.next)
	}
	// Where raising in place failed, a reload may be next; only what is seen
	// from now on tells.
	c.view.notBefore = now
	c.look(now, true)
}

// recoverActions settles the actions that a former qwatch began and did not
// end. Nothing else is done meanwhile.
func (c *core) recoverActions(ctx context.Context) {
	a := &c.actions
	a.running = true
	go func() {
		runner := remediate.Runner{Trail: a.trail, Host: a.host}
		if err := runner.Recover(ctx, c.report.recovered); err != nil && ctx.Err() == nil {
			c.report.log.Warn().Err(err).Msg("not looked for interrupted actions")
		}
		a.done <- acted{}
	}()
}
