package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/systemd"
)

// refusedEvery is the least time between two looks at a uWSGI that would not
// start: systemd may try it again each second, and each try writes the line.
const refusedEvery = 5 * time.Second

// mark takes one of uWSGI's other lines.
func (c *core) mark(ctx context.Context, m matcher.Mark) {
	now := time.Now()
	c.heard(m, now)
	if m.Kind == matcher.MarkNoStart {
		c.refused(ctx, m, now)
	}
}

// refused deals with a uWSGI that says it would not start: the app is down.
func (c *core) refused(ctx context.Context, m matcher.Mark, now time.Time) {
	// All lines of one source that name no unit are one: strangers may write
	// them.
	key := m.Unit
	if key == "" {
		key = m.Source
	}
	if c.acting || now.Sub(c.down[key]) < refusedEvery {
		return
	}
	if len(c.down) >= keepClosed {
		clear(c.down)
		clear(c.downSaid)
	}
	c.down[key] = now
	c.observe(ctx, now, observeLeast)
	history, err := c.trail.History()
	if err != nil {
		c.log.Error().Err(err).Msg("cannot read what was done before; nothing is done now")
		return
	}
	refusal := remediate.Refusal{Unit: m.Unit, Lost: errors.New("the line names no systemd unit")}
	if m.Unit != "" {
		refusal.Listen, refusal.At, refusal.Lost = c.host.Refused(ctx, m.Unit)
	}
	plan := remediate.Revive(c.policy, c.facts, refusal, history, now)
	if plan.Name == "" {
		plan.Name = m.Source
	}
	if text := plan.Reason; plan.Verdict == remediate.Act || c.downSaid[key] != text {
		c.downSaid[key] = text
		e := c.log.WithLevel(zerolog.ErrorLevel).Str(eventField, systemd.EventStartRefused).Str("plan", plan.ID).Str("source", m.Source)
		logPlan(e, plan).Msg(sentence(plan))
		c.advise(plan)
	}
	if plan.Verdict == remediate.Act {
		c.begin(ctx, plan)
	}
}
