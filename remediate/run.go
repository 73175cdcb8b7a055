package remediate

import (
	"context"
	"fmt"
	"time"

	"qwatch/remediate/facts"
)

// Actor takes one action of a plan and leaves its mark in the audit trail.
type Actor interface {
	Do(ctx context.Context, p Plan, a Action) Result
}

// Acting is the Actor that changes the host. It writes the trail before and
// after each action, and without a trail it does nothing.
type Acting struct {
	Applier Applier
	Trail   Recorder
}

// Do applies the action.
func (d Acting) Do(ctx context.Context, p Plan, a Action) Result {
	if err := d.Trail.Append(eventOf(p, a, time.Now(), Result{Status: Started})); err != nil {
		return Result{Status: Failed, Was: -1, Now: -1, Err: fmt.Errorf("nothing is changed that cannot be recorded: %w", err)}
	}
	r := d.Applier.Apply(ctx, a)
	if err := d.Trail.Append(eventOf(p, a, time.Now(), r)); err != nil && r.Err == nil {
		r.Err = fmt.Errorf("%s, but it could not be recorded: %w", r.Status, err)
	}
	return r
}

// Rehearsing is the Actor of a dry run: it has no way to change anything but
// the trail.
type Rehearsing struct{ Trail Recorder }

// Do answers Planned.
func (d Rehearsing) Do(_ context.Context, p Plan, a Action) Result {
	r := Result{Status: Planned, Was: -1, Now: -1}
	r.Err = d.Trail.Append(eventOf(p, a, time.Now(), r))
	return r
}

// Outcome is one action of a plan and how it ended.
type Outcome struct {
	Action Action
	Result Result
}

// Run takes a plan's actions in their order: the kernel parameters first,
// because listen(2) is clamped to somaxconn and a reload under a somaxconn
// smaller than the configured listen is fatal to uWSGI; then the running
// socket; then the reload. After one that is Stale nothing later runs; after
// one that Failed neither, but for companions, whose failure stops nothing.
// done is called after each step.
func Run(ctx context.Context, p Plan, actor Actor, done func(Outcome)) []Outcome {
	var steps []Outcome
	for _, a := range p.Actions {
		s := Outcome{a, actor.Do(ctx, p, a)}
		steps = append(steps, s)
		done(s)
		set, isSet := a.(SetSysctl)
		if s.Result.Status == Stale || s.Result.Status == Failed && !(isSet && set.Companion) {
			break
		}
	}
	return steps
}

// Changed reports whether any step changed the host.
func Changed(steps []Outcome) bool {
	for _, s := range steps {
		if s.Result.Status == Applied {
			return true
		}
	}
	return false
}

// Judgement is what the kernel shows after a plan was carried out.
type Judgement struct {
	Result Status // Fixed, NoEffect or Worse
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
	e = e.Of(p.Socket)
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
		Action: "judge", Target: p.Name, From: &p.Socket.Limit, To: &j.Limit,
		DryRun: p.DryRun, Result: j.Result, Why: j.Why,
	}
}
