package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"qwatch/remediate"
	"qwatch/systemd"
)

// Act carries plans out, says each step, and what the kernel shows after it.
// `qwatch apply` and `qwatch undo` use it; the daemon says the same words.
func Act(ctx context.Context, plans []remediate.Plan, host remediate.Observer, actor remediate.Actor, trail remediate.Trail, log zerolog.Logger) []remediate.Done {
	r := newRunner(host, actor, trail, log)
	r.Judged = func(d remediate.Done) { logDone(log, d) }
	r.Waits = func(p remediate.Plan, o remediate.Outlook) { logWaits(log, p, o) }
	return r.Run(ctx, plans)
}

// newRunner is a Runner that says each step.
func newRunner(host remediate.Observer, actor remediate.Actor, trail remediate.Trail, log zerolog.Logger) remediate.Runner {
	set := map[string]bool{} // the kernel parameters of this pass
	return remediate.Runner{Actor: actor, Trail: trail, Host: host, Acted: func(p remediate.Plan, o remediate.Outcome) {
		level := zerolog.InfoLevel
		switch o.Result {
		case remediate.Failed:
			level = zerolog.ErrorLevel
		case remediate.Stale:
			level = zerolog.WarnLevel
		}
		if _, ok := o.Action.(remediate.SetSysctl); ok {
			// Of many plans in one pass all but one find it set, or plan the same.
			if o.Result == remediate.Skipped || o.Result == remediate.Planned && set[o.Action.String()] {
				level = zerolog.DebugLevel
			}
			set[o.Action.String()] = true
		}
		logOutcome(log, level, p, o)
	}}
}

// logDone says what is known of a plan in the end.
func logDone(log zerolog.Logger, d remediate.Done) {
	if d.Judgement.Result != "" {
		logJudgement(log, d.Plan, d.Judgement)
	}
	log = planLog(d.Plan, log)
	switch {
	case errors.Is(d.Err, remediate.ErrOvertaken), errors.Is(d.Err, remediate.ErrStopped):
		log.Warn().Msg(d.Err.Error())
	case d.Err != nil:
		log.Error().Msg(d.Err.Error())
	}
}

// logWaits says that the verdict about a plan has to wait.
func logWaits(log zerolog.Logger, p remediate.Plan, o remediate.Outlook) {
	log = planLog(p, log)
	log.Info().Float64("slope", o.Slope).Msgf("no verdict about %s yet: %s", p.Name, o)
}

func logJudgement(log zerolog.Logger, plan remediate.Plan, j remediate.Judgement) {
	log = planLog(plan, log)
	level, event := zerolog.InfoLevel, systemd.EventVerdictFixed
	switch j.Result {
	case remediate.NoEffect:
		level, event = zerolog.WarnLevel, systemd.EventVerdictNoEffect
	case remediate.Worse:
		level, event = zerolog.ErrorLevel, systemd.EventVerdictWorse
	}
	e := log.WithLevel(level).Str(eventField, event).Int("limit", j.Limit).Int("from", plan.Socket.Limit)
	if j.Slope != nil {
		e = e.Float64("slope", *j.Slope)
	}
	e.Str("result", string(j.Result)).Msgf("%s at %s: %s", j.Result, plan.Name, j.Why)
}

func planLog(plan remediate.Plan, log zerolog.Logger) zerolog.Logger {
	with := log.With().Str("plan", plan.ID)
	if plan.Name != "" {
		with = with.Str("socket", plan.Name).Int("target", plan.Target)
	}
	if plan.Incident != "" {
		with = with.Str("incident", plan.Incident)
	}
	return with.Logger()
}

func logOutcome(log zerolog.Logger, level zerolog.Level, plan remediate.Plan, o remediate.Outcome) {
	d := o.Action.Describe()
	log = planLog(plan, log)
	e := log.WithLevel(level)
	if o.Result == remediate.Applied {
		e = e.Str(eventField, systemd.EventRaiseApplied)
	}
	e = e.Str("action", string(d.Kind)).Str("result", string(o.Result)).Str("why", d.Why)
	if d.From != nil {
		e = e.Int("from", *d.From)
	}
	if d.To != nil {
		e = e.Int("to", *d.To)
	}
	if r, ok := o.Action.(remediate.Reload); ok {
		e = e.Str("way", r.Way.String())
	}
	if s := o.Served; s != nil {
		e = e.Int("workers_before", s.Before).Int("workers_after", s.After).
			Float64("unserved_seconds", s.Intake.Unserved.Round(100*time.Millisecond).Seconds()).Int("cut", s.Cut())
	}
	if o.Err != nil {
		e = e.Err(o.Err)
	}
	text := string(o.Result) + ": " + o.Action.String()
	if o.Note != "" {
		text += ": " + o.Note
	}
	e.Msg(text)
}
