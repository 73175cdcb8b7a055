package remediate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"qwatch/remediate/facts"
)

// Actor takes one action of a plan and leaves its mark in the audit trail.
type Actor interface {
	Do(ctx context.Context, p Plan, a Action) Outcome
}

// Acting is the Actor that changes the host. It writes the trail before and
// after each action, and without a trail it does nothing.
type Acting struct {
	Applier Applier
	Trail   Recorder
}

// Do applies the action.
func (d Acting) Do(ctx context.Context, p Plan, a Action) Outcome {
	if err := d.Trail.Append(eventOf(p, a, time.Now(), Outcome{Result: Started, Now: -1})); err != nil {
		return Outcome{Result: Failed, Now: -1, Err: fmt.Errorf("nothing is changed that cannot be recorded: %w", err)}
	}
	o := d.Applier.Apply(ctx, a)
	if err := d.Trail.Append(eventOf(p, a, time.Now(), o)); err != nil && o.Err == nil {
		o.Err = fmt.Errorf("%s, but it could not be recorded: %w", o.Result, err)
	}
	return o
}

// DryRun is the Actor of a dry run: it has no way to change anything but the
// trail.
type DryRun struct{ Trail Recorder }

// Do answers Planned.
func (d DryRun) Do(_ context.Context, p Plan, a Action) Outcome {
	o := Outcome{Result: Planned, Now: -1}
	o.Err = d.Trail.Append(eventOf(p, a, time.Now(), o))
	return o
}

// Run takes a plan's actions in their order: the kernel parameters first,
// because listen(2) is clamped to somaxconn and a reload under a somaxconn
// smaller than the configured listen is fatal to uWSGI; then the running
// socket; then the reload. After one that is Stale nothing later runs; after
// one that Failed neither, but for companions, whose failure stops nothing.
// done is called after each action.
func Run(ctx context.Context, p Plan, actor Actor, done func(Outcome)) []Outcome {
	var outcomes []Outcome
	for _, a := range p.Actions {
		o := actor.Do(ctx, p, a)
		o.Action = a
		outcomes = append(outcomes, o)
		done(o)
		set, isSet := a.(SetSysctl)
		if o.Result == Stale || o.Result == Failed && !(isSet && set.Companion) {
			break
		}
	}
	return outcomes
}

// Changed reports whether any action changed the host.
func Changed(outcomes []Outcome) bool {
	return slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Result == Applied })
}

// Judgement is what the kernel shows after a plan was carried out.
type Judgement struct {
	Result Result // Fixed, NoEffect or Worse
	Limit  int    // the socket's limit now, 0 if it is gone
	Why    string
}

// Judge compares a plan with what the host shows after it. e is the evidence
// since the last action.
func Judge(p Plan, after facts.Snapshot, e facts.Evidence) Judgement {
	if p.Unit != "" {
		for _, s := range after.Sockets {
			if s.Master.Unit == p.Unit {
				return Judgement{Fixed, s.Limit, fmt.Sprintf("%s runs and listens on %s with %d", p.Unit, s.Name(), s.Limit)}
			}
		}
		return Judgement{NoEffect, 0, p.Unit + " does not listen yet"}
	}
	s, ok := after.Find(p.Socket.ID)
	if !ok {
		// In http mode a reload binds uWSGI's backend socket anew, and its
		// port changes: then it is the master's newest.
		for _, o := range after.Sockets {
			if o.Master.Same(p.Socket.Master) && o.Family == p.Socket.Family && o.ID.Inode > max(s.ID.Inode, p.Socket.ID.Inode) {
				s, ok = o, true
			}
		}
	}
	switch {
	case !ok:
		return Judgement{Worse, 0, fmt.Sprintf("no uWSGI listens on %s any more", p.Name)}
	case s.Limit < p.Socket.Limit:
		return Judgement{Worse, s.Limit, fmt.Sprintf("the limit fell from %d to %d", p.Socket.Limit, s.Limit)}
	case s.Limit == p.Socket.Limit:
		return Judgement{NoEffect, s.Limit, fmt.Sprintf("the running socket's limit still is %d", s.Limit)}
	case s.Limit < p.Target:
		return Judgement{NoEffect, s.Limit, fmt.Sprintf("the running socket's limit is %d and should be %d", s.Limit, p.Target)}
	case e.Corroborates():
		return Judgement{NoEffect, s.Limit, fmt.Sprintf("the limit is %d now, yet the queue is full again: %s", s.Limit, e)}
	}
	return Judgement{Fixed, s.Limit, fmt.Sprintf("the limit is %d now, was %d; %s", s.Limit, p.Socket.Limit, e)}
}

// EventOfJudgement is the audit line for a judgement.
func EventOfJudgement(p Plan, j Judgement, at time.Time) Event {
	return Event{
		Time: at.UTC(), Plan: p.ID, Incident: p.Incident, Socket: p.Name,
		PID: p.Socket.Master.PID, Start: p.Socket.Master.Start, Inode: p.Socket.ID.Inode,
		Action: ActionJudge, Target: p.Name, From: &p.Socket.Limit, To: &j.Limit,
		DryRun: p.DryRun, Result: j.Result, Why: j.Why,
	}
}
