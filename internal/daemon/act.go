package daemon

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"qwatch/remediate"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

const (
	// settle is how long the queue is watched after a change before it is
	// judged, settleEvery how often.
	settle      = 3 * time.Second
	settleEvery = 200 * time.Millisecond
	// lockWait is how long a plan waits for another qwatch on this host.
	lockWait = 5 * time.Second
)

// Act carries a plan out, says each step, and where the host was changed
// judges from the kernel's numbers whether it helped. `qwatch apply` and the
// daemon share it.
func Act(ctx context.Context, plan remediate.Plan, host Host, actor remediate.Actor, trail remediate.Trail, log zerolog.Logger) []remediate.Outcome {
	log = planLog(plan, log)
	outcomes := carryOut(ctx, plan, actor, trail, log)
	if !remediate.Changed(outcomes) {
		return outcomes
	}
	judgement, err := judge(ctx, plan, host)
	if err != nil {
		log.Error().Err(err).Msg("what was done could not be judged")
		return outcomes
	}
	if err := trail.Append(remediate.EventOfJudgement(plan, judgement, time.Now())); err != nil {
		log.Error().Err(err).Msg("the judgement could not be recorded")
	}
	level, event := zerolog.InfoLevel, systemd.EventVerdictFixed
	switch judgement.Result {
	case remediate.NoEffect:
		level, event = zerolog.WarnLevel, systemd.EventVerdictNoEffect
	case remediate.Worse:
		level, event = zerolog.ErrorLevel, systemd.EventVerdictWorse
	}
	log.WithLevel(level).Str(eventField, event).Int("limit", judgement.Limit).Int("from", plan.Socket.Limit).
		Str("result", string(judgement.Result)).Msgf("%s at %s: %s", judgement.Result, plan.Name, judgement.Why)
	return outcomes
}

// PutBack carries out the plan of an undo, which has no socket to judge by.
func PutBack(ctx context.Context, plan remediate.Plan, actor remediate.Actor, trail remediate.Trail, log zerolog.Logger) []remediate.Outcome {
	return carryOut(ctx, plan, actor, trail, planLog(plan, log))
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

// carryOut takes the actions of a plan, unless another qwatch acted meanwhile.
func carryOut(ctx context.Context, plan remediate.Plan, actor remediate.Actor, trail remediate.Trail, log zerolog.Logger) []remediate.Outcome {
	lock, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err := trail.Lock(lock)
	if err != nil {
		log.Error().Err(err).Msg("nothing was done")
		return nil
	}
	defer unlock()
	history, err := trail.History()
	if err != nil {
		log.Error().Err(err).Msg("nothing was done: what was done before cannot be read")
		return nil
	}
	if history.Stale(plan) {
		log.Warn().Msg("nothing was done: another qwatch acted on this socket in the meantime")
		return nil
	}
	return remediate.Run(ctx, plan, actor, func(o remediate.Outcome) { logOutcome(log, o) })
}

// judge watches the queue for a while and judges.
func judge(ctx context.Context, plan remediate.Plan, host Host) (remediate.Judgement, error) {
	var readings []facts.Sample
	begin := time.Now()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for ctx.Err() == nil && time.Since(begin) < settle {
		r, err := host.Sample(ctx)
		if err != nil {
			return remediate.Judgement{}, err
		}
		readings = append(readings, r...)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	after, err := host.Observe(context.WithoutCancel(ctx))
	if err != nil {
		return remediate.Judgement{}, err
	}
	// The looks right after the change still see what came before it.
	return remediate.Judge(plan, after, facts.Weigh(plan.Socket, readings, begin.Add(settle/3))), nil
}

func logOutcome(log zerolog.Logger, o remediate.Outcome) {
	d := remediate.Describe(o.Action)
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
