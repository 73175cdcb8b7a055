package daemon

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"qwatch/remediate"
	"qwatch/systemd"
)

// Act carries a plan out, says each step, and what the kernel shows after it.
// The daemon, `qwatch apply` and `qwatch undo` share it.
func Act(ctx context.Context, plan remediate.Plan, host remediate.Observer, actor remediate.Actor, trail remediate.Trail, log zerolog.Logger) []remediate.Outcome {
	log = planLog(plan, log)
	runner := remediate.Runner{Actor: actor, Trail: trail, Host: host, Acted: func(o remediate.Outcome) { logOutcome(log, o) }}
	outcomes, judgement, err := runner.Run(ctx, plan)
	if judgement.Result != "" {
		logJudgement(log, plan, judgement)
	}
	switch {
	case errors.Is(err, remediate.ErrOvertaken):
		log.Warn().Msg(err.Error())
	case err != nil:
		log.Error().Msg(err.Error())
	}
	return outcomes
}

func logJudgement(log zerolog.Logger, plan remediate.Plan, j remediate.Judgement) {
	level, event := zerolog.InfoLevel, systemd.EventVerdictFixed
	switch j.Result {
	case remediate.NoEffect:
		level, event = zerolog.WarnLevel, systemd.EventVerdictNoEffect
	case remediate.Worse:
		level, event = zerolog.ErrorLevel, systemd.EventVerdictWorse
	}
	log.WithLevel(level).Str(eventField, event).Int("limit", j.Limit).Int("from", plan.Socket.Limit).
		Str("result", string(j.Result)).Msgf("%s at %s: %s", j.Result, plan.Name, j.Why)
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

func logOutcome(log zerolog.Logger, o remediate.Outcome) {
	d := o.Action.Describe()
	e := log.Info()
	switch o.Result {
	case remediate.Applied:
		e = e.Str(eventField, systemd.EventRaiseApplied)
	case remediate.Failed:
		e = log.Error()
	case remediate.Stale:
		e = log.Warn()
	}
	e = e.Str("action", string(d.Kind)).Str("result", string(o.Result)).Str("why", d.Why)
	if d.From != nil {
		e = e.Int("from", *d.From)
	}
	if d.To != nil {
		e = e.Int("to", *d.To)
	}
	if o.Err != nil {
		e = e.Err(o.Err)
	}
	text := string(o.Result) + ": " + o.Action.String()
	if o.Note != "" {
		text += " (" + o.Note + ")"
	}
	e.Msg(text)
}
