package remediate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"qwatch/remediate/facts"
)

const (
	// WatchTime is how long the queue is watched after a change before it is
	// judged, watchEvery how often.
	WatchTime  = 3 * time.Second
	watchEvery = 200 * time.Millisecond
	// lockWait is how long a plan waits for another qwatch on this host.
	lockWait = 5 * time.Second
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

// Observer looks at the host.
type Observer interface {
	// Observe shows everything that a decision may depend on.
	Observe(ctx context.Context) (facts.Snapshot, error)
	// Sample looks at the accept queues only.
	Sample(ctx context.Context) ([]facts.Sample, error)
}

// Runner carries plans out.
type Runner struct {
	Actor Actor
	Trail Trail
	Host  Observer
	Acted func(Outcome) // called after each action
}

// ErrOvertaken is the error of a plan that was not begun, since another qwatch
// had done something about the same socket.
var ErrOvertaken = errors.New("nothing was done: another qwatch acted on this socket in the meantime")

// Run takes the actions of a plan, unless it is out of date by now, and where
// one changed the host judges from the kernel's numbers whether it helped. The
// Judgement is zero where there is none. The error says why nothing was done,
// or what is missing after it; what became of each action says its Outcome.
func (r Runner) Run(ctx context.Context, p Plan) ([]Outcome, Judgement, error) {
	outcomes, err := r.begin(ctx, p)
	changed := slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Result == Applied })
	if err != nil || !changed || !p.judged() {
		return outcomes, Judgement{}, err
	}
	j, err := r.watch(ctx, p)
	if err != nil {
		return outcomes, Judgement{}, fmt.Errorf("what was done could not be judged: %w", err)
	}
	if err := r.Trail.Append(eventOfJudgement(p, j, time.Now())); err != nil {
		return outcomes, j, fmt.Errorf("the judgement could not be recorded: %w", err)
	}
	return outcomes, j, nil
}

func (r Runner) begin(ctx context.Context, p Plan) ([]Outcome, error) {
	unlock, err := r.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("nothing was done: %w", err)
	}
	defer unlock()
	history, err := r.Trail.History()
	if err != nil {
		return nil, fmt.Errorf("nothing was done, what was done before cannot be read: %w", err)
	}
	if history.Stale(p) {
		return nil, ErrOvertaken
	}
	return r.take(ctx, p), nil
}

func (r Runner) lock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	return r.Trail.Lock(ctx)
}

// take takes a plan's actions in their order: the kernel parameters first,
// because listen(2) is clamped to somaxconn and a reload under a somaxconn
// smaller than the configured listen is fatal to uWSGI; then the running
// socket; then the reload. After one that is Stale nothing later runs; after
// one that Failed neither, but for companions, whose failure stops nothing.
func (r Runner) take(ctx context.Context, p Plan) (outcomes []Outcome) {
	for _, a := range p.Actions {
		o := r.Actor.Do(ctx, p, a)
		o.Action = a
		outcomes = append(outcomes, o)
		r.Acted(o)
		set, isSet := a.(SetSysctl)
		if o.Result == Stale || o.Result == Failed && !(isSet && set.Companion) {
			break
		}
	}
	return outcomes
}

// watch watches the queue for a while and judges.
func (r Runner) watch(ctx context.Context, p Plan) (Judgement, error) {
	var samples []facts.Sample
	begin := time.Now()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for ctx.Err() == nil && time.Since(begin) < WatchTime {
		s, err := r.Host.Sample(ctx)
		if err != nil {
			return Judgement{}, err
		}
		samples = append(samples, s...)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	after, err := r.Host.Observe(context.WithoutCancel(ctx))
	if err != nil {
		return Judgement{}, err
	}
	// The samples right after the change still see what came before it.
	return judge(p, after, facts.Weigh(p.Socket, samples, begin.Add(WatchTime/3))), nil
}

// Recover brings the actions that a former qwatch began and did not end to an
// end in the trail, from what the host shows now. told is called for each; the
// others are still tried where one cannot be recorded.
func (r Runner) Recover(ctx context.Context, told func(begun, end Event)) error {
	history, err := r.Trail.History()
	if err != nil || len(history.Unfinished()) == 0 {
		return err
	}
	// What another qwatch is doing just now is not interrupted.
	unlock, err := r.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	snapshot, err := r.Host.Observe(ctx)
	if err != nil {
		return err
	}
	if history, err = r.Trail.History(); err != nil {
		return err
	}
	var failed error
	for _, begun := range history.Unfinished() {
		end := recovered(begun, snapshot)
		if err := r.Trail.Append(end); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		told(begun, end)
	}
	return failed
}
