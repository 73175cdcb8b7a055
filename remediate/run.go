package remediate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"qwatch/remediate/facts"
)

// lockWait is how long a plan waits for another qwatch on this host.
const lockWait = 5 * time.Second

// Step is one action of a plan.
type Step struct {
	Plan   Plan
	Action Action
}

// Actor takes the steps of one pass in their order and leaves their mark in the
// audit trail. It answers with an Outcome for each. After one that is Stale
// nothing later of its plan is begun; after one that Failed neither, but for
// companions, whose failure stops nothing.
type Actor interface {
	Do(ctx context.Context, steps []Step) []Outcome
}

// Acting is the Actor that changes the host. It writes the trail once before
// and once after a pass, and without a trail it does nothing.
type Acting struct {
	Applier Applier
	Trail   Recorder
}

// errUnbegun is the error of a step that was not begun, since one before it in
// its plan had ended the plan.
var errUnbegun = errors.New("not begun")

// Do applies the actions.
func (d Acting) Do(ctx context.Context, steps []Step) []Outcome {
	if len(steps) == 0 {
		return nil
	}
	outcomes, events := make([]Outcome, len(steps)), make([]Event, len(steps))
	for i, s := range steps {
		events[i] = eventOf(s.Plan, s.Action, time.Now(), Outcome{Result: Started, Now: -1})
	}
	unrecorded := d.Trail.Append(events...)
	ended := map[string]string{} // by plan: what ended it
	for i, s := range steps {
		o := &outcomes[i]
		plan := s.Plan.ID + " of " + s.Plan.Name
		switch by := ended[plan]; {
		case by != "":
			*o = Outcome{Result: Skipped, Now: -1, Err: fmt.Errorf("%w: %s", errUnbegun, by)}
		case unrecorded != nil:
			*o = Outcome{Result: Failed, Now: -1, Err: fmt.Errorf("nothing is changed that cannot be recorded: %w", unrecorded)}
		default:
			*o = d.Applier.Apply(ctx, s.Action)
		}
		if o.Action = s.Action; left(ctx, s.Action, *o) {
			o.Result, o.Err = Started, ErrStopped
		}
		if o.ends() {
			ended[plan] = fmt.Sprintf("%s of %s was %s", s.Action.Describe().Kind, s.Action.Describe().Target, o.Result)
		}
		events[i] = eventOf(s.Plan, s.Action, time.Now(), *o)
	}
	// What is still under way has its line already.
	events = slices.DeleteFunc(events, func(e Event) bool { return e.Result == Started })
	if unrecorded != nil || len(events) == 0 {
		return outcomes
	}
	if err := d.Trail.Append(events...); err != nil {
		for i, o := range outcomes {
			if o.Err == nil {
				outcomes[i].Err = fmt.Errorf("%s, but it could not be recorded: %w", o.Result, err)
			}
		}
	}
	return outcomes
}

// ends reports whether nothing later of the plan is to be begun.
func (o Outcome) ends() bool {
	set, isSet := o.Action.(SetSysctl)
	return o.Result == Stale || o.Result == Failed && !(isSet && set.Companion)
}

// unbegun reports whether the action was not even begun.
func (o Outcome) unbegun() bool { return errors.Is(o.Err, errUnbegun) }

// DryRun is the Actor of a dry run: it has no way to change anything but the
// trail.
type DryRun struct{ Trail Recorder }

// Do answers Planned.
func (d DryRun) Do(_ context.Context, steps []Step) []Outcome {
	outcomes, events := make([]Outcome, len(steps)), make([]Event, len(steps))
	for i, s := range steps {
		outcomes[i] = Outcome{Action: s.Action, Result: Planned, Now: -1}
		events[i] = eventOf(s.Plan, s.Action, time.Now(), outcomes[i])
	}
	if err := d.Trail.Append(events...); err != nil {
		for i := range outcomes {
			outcomes[i].Err = err
		}
	}
	return outcomes
}

// Observer looks at the host.
type Observer interface {
	// Observe shows everything that a decision may depend on.
	Observe(ctx context.Context) (facts.Snapshot, error)
	// Sample looks at the accept queues only.
	Sample(ctx context.Context) ([]facts.Sample, error)
}

// Runner carries plans out. What it calls it may call from several goroutines.
type Runner struct {
	Actor Actor
	Trail Trail
	Host  Observer

	Acted  func(Plan, Outcome) // called after each action
	Judged func(Done)          // called by Run for each plan, when all is known of it
	Waits  func(Plan, Outlook) // called by Run when a verdict is put off
}

// Done is what became of a plan.
type Done struct {
	Plan     Plan
	Outcomes []Outcome // of the actions that were begun
	// Judgement is zero where there is none.
	Judgement Judgement
	// Err says why nothing was done, or what is missing after it; what became
	// of each action says its Outcome.
	Err error
}

// ErrUnjudged is the error of a plan of which no verdict can be said.
var ErrUnjudged = errors.New("what was done could not be judged: its queue could not be seen for long enough")

// ErrUnproven is the error of a plan of which nothing shows whether it has helped.
var ErrUnproven = errors.New("no verdict")

// Errors of what was not begun, since another qwatch was faster.
var (
	ErrOvertaken  = errors.New("nothing was done: another qwatch acted on this socket in the meantime")
	errReloadedBy = errors.New("no reload: another qwatch has asked for one in the meantime")
)

// slow reports whether an action may take minutes: it waits for other programs.
func slow(a Action) bool {
	switch a.(type) {
	case Reload, Start:
		return true
	}
	return false
}

// Left reports whether the plan has actions that Raise leaves to Finish.
func (d Done) Left() bool {
	return d.Err == nil && slices.ContainsFunc(d.Plan.Actions, slow) && !slices.ContainsFunc(d.Outcomes, Outcome.ends) &&
		!slices.ContainsFunc(d.Outcomes, func(o Outcome) bool { return slow(o.Action) })
}

// ToJudge reports whether the plan changed the host, so that the kernel's numbers
// tell whether it helped.
func (d Done) ToJudge() bool {
	return d.Plan.judged() && slices.ContainsFunc(d.Outcomes, func(o Outcome) bool { return o.Result == Applied || o.Served != nil })
}

// InPlace reports whether the running socket was raised.
func (d Done) InPlace() bool {
	return slices.ContainsFunc(d.Outcomes, func(o Outcome) bool {
		_, ok := o.Action.(Relisten)
		return ok && o.Result == Applied
	})
}

// Raise takes, in one pass, the actions of all plans that take milliseconds:
// the kernel parameters and the running sockets. A plan that is out of date by
// now is not begun.
func (r Runner) Raise(ctx context.Context, plans []Plan) []Done {
	done := make([]Done, len(plans))
	for i, p := range plans {
		done[i].Plan = p
	}
	unlock, err := r.lock(ctx, r.Trail.Lock)
	if err != nil {
		return withErr(done, fmt.Errorf("nothing was done: %w", err))
	}
	defer unlock()
	history, err := r.Trail.History()
	if err != nil {
		return withErr(done, fmt.Errorf("nothing was done, what was done before cannot be read: %w", err))
	}
	type task struct {
		Step
		of *Done
	}
	var tasks []task
	for i, p := range plans {
		if history.Stale(p) {
			done[i].Err = ErrOvertaken
			continue
		}
		for _, a := range p.Actions {
			if !slow(a) {
				tasks = append(tasks, task{Step{p, a}, &done[i]})
			}
		}
	}
	if len(plans) > 1 {
		sort.SliceStable(tasks, func(i, j int) bool { return before(tasks[i].Action, tasks[j].Action) })
	}
	steps := make([]Step, len(tasks))
	for i, t := range tasks {
		steps[i] = t.Step
	}
	for i, o := range r.Actor.Do(ctx, steps) {
		if o.Action = steps[i].Action; !o.unbegun() {
			tasks[i].of.Outcomes = append(tasks[i].of.Outcomes, o)
			r.Acted(steps[i].Plan, o)
		}
	}
	return done
}

func withErr(done []Done, err error) []Done {
	for i := range done {
		done[i].Err = err
	}
	return done
}

// before orders the actions of a pass: first the kernel parameters, because
// listen(2) is clamped to somaxconn, and of each the largest value: then the
// other plans, which were made from the same look, find it done.
func before(a, b Action) bool {
	rank := func(a Action) (int, int) {
		switch a := a.(type) {
		case SetSysctl:
			if a.Companion {
				return 1, -a.To
			}
			return 0, -a.To
		}
		return 2, 0
	}
	kind, to := rank(a)
	otherKind, otherTo := rank(b)
	return kind < otherKind || kind == otherKind && to < otherTo
}

// Finish takes the actions that Raise has left: it waits for uWSGI or systemd,
// and keeps nobody else waiting but who wants the same of them.
func (r Runner) Finish(ctx context.Context, d Done) Done {
	for _, a := range d.Plan.Actions {
		if !slow(a) {
			continue
		}
		o, err := r.finish(ctx, d.Plan, a)
		if err != nil {
			d.Err = fmt.Errorf("not done: %s: %w", a, err)
			break
		}
		if o.Result == Started {
			d.Err = fmt.Errorf("%s: %w", a, o.Err)
			break
		}
		d.Outcomes = append(d.Outcomes, o)
		if r.Acted(d.Plan, o); o.ends() {
			break
		}
	}
	return d
}

func (r Runner) finish(ctx context.Context, p Plan, a Action) (Outcome, error) {
	if err := ctx.Err(); err != nil { // it would be begun for nothing
		return Outcome{}, err
	}
	unlock, err := r.lock(ctx, func(ctx context.Context) (func(), error) { return r.Trail.Hold(ctx, whose(p, a)) })
	if err != nil {
		return Outcome{}, err
	}
	defer unlock()
	history, err := r.Trail.History()
	if err != nil {
		return Outcome{}, err
	}
	if _, reload := a.(Reload); reload && history.seenReload(p.Socket.Master) != p.SeenReload {
		return Outcome{}, errReloadedBy
	}
	o := r.Actor.Do(ctx, []Step{{p, a}})[0]
	o.Action = a
	return o, nil
}

// Late goes on waiting for a reload that was not done in time, and writes down how
// it ended then: what was called failed is put right by a second word. It reports
// whether there is one.
func (r Runner) Late(ctx context.Context, d Done) (Done, bool) {
	d.Outcomes = slices.Clone(d.Outcomes)
	i := slices.IndexFunc(d.Outcomes, func(o Outcome) bool { return o.Late != nil })
	if i < 0 {
		return d, false
	}
	a := d.Outcomes[i].Action
	o := d.Outcomes[i].Late(ctx)
	if o.Action = a; ctx.Err() != nil || o.Served == nil {
		return d, false
	}
	e := eventOf(d.Plan, a, time.Now(), o)
	e.Late = true
	if err := r.Trail.Append(e); err != nil && o.Err == nil {
		o.Err = fmt.Errorf("%s, but it could not be recorded: %w", o.Result, err)
	}
	d.Outcomes[i] = o
	r.Acted(d.Plan, o)
	return d, true
}

// whose names what a slow action keeps to itself: a master or a unit.
func whose(p Plan, a Action) string { return held(eventOf(p, a, time.Time{}, Outcome{Now: -1})) }

func held(e Event) string {
	if e.Action == actionReload {
		return fmt.Sprintf("uWSGI %d.%d", e.PID, e.Start)
	}
	return "unit " + e.Target
}

func (r Runner) lock(ctx context.Context, lock func(context.Context) (func(), error)) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	return lock(ctx)
}

// Run carries plans out, and where one changed the host judges from the
// kernel's numbers whether it helped. It returns when all is known.
func (r Runner) Run(ctx context.Context, plans []Plan) []Done {
	done := r.Raise(ctx, plans)
	var raised []*Done
	var wg sync.WaitGroup
	for i := range done {
		d := &done[i]
		if !d.Left() {
			raised = append(raised, d)
			continue
		}
		wg.Go(func() {
			looks := r.looksWhile(ctx, func() { *d = r.Finish(ctx, *d) })
			r.judge(ctx, looks, d)
		})
	}
	r.judge(ctx, nil, raised...)
	wg.Wait()
	return done
}

// looksWhile looks at the queues for as long as f takes, which watches a reload.
func (r Runner) looksWhile(ctx context.Context, f func()) (looks []facts.Sample) {
	ended, kept := make(chan struct{}), make(chan []facts.Sample)
	go func() {
		tick := time.NewTicker(waitEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				kept <- looks
				return
			case <-tick.C:
				if some, err := r.Host.Sample(ctx); err == nil {
					looks = append(looks, some...)
					looks = slices.Delete(looks, 0, max(0, len(looks)-keepLooks))
				}
			}
		}
	}()
	f()
	close(ended)
	return <-kept
}

// keepLooks bounds the looks that are kept beside a reload.
const keepLooks = 8192

// judge watches the queues of plans until there is a verdict of each. looks are
// those from before, in the order of time.
func (r Runner) judge(ctx context.Context, looks []facts.Sample, done ...*Done) {
	open := map[*Done]*Trial{}
	for _, d := range done {
		if d.Err == nil && d.ToJudge() {
			open[d] = d.Trial(time.Now())
		} else {
			r.Judged(*d)
		}
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for len(open) > 0 {
		snapshot, samples, err := r.see(ctx, open)
		samples, looks = append(looks, samples...), nil
		now := time.Now()
		for d, t := range open {
			d.Err = err
			if err == nil {
				var said bool
				d.Judgement, said = t.Judge(snapshot, samples, now)
				switch {
				case said:
					if err := r.Trail.Append(EventOfJudgement(d.Plan, d.Judgement, now)); err != nil {
						d.Err = fmt.Errorf("the judgement could not be recorded: %w", err)
					}
				case t.Over(now):
					d.Err = t.Unjudged()
				default:
					if t.Postponed() {
						r.Waits(d.Plan, t.Outlook())
					}
					continue
				}
			}
			r.Judged(*d)
			delete(open, d)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// see looks at the queues, and at the whole host where a verdict needs it.
func (r Runner) see(ctx context.Context, open map[*Done]*Trial) (f facts.Snapshot, samples []facts.Sample, err error) {
	if ctx.Err() != nil {
		return f, nil, fmt.Errorf("what was done was not judged: %w", ctx.Err())
	}
	if samples, err = r.Host.Sample(ctx); err == nil {
		for _, t := range open {
			if t.Whole(time.Now()) {
				f, err = r.Host.Observe(ctx)
				break
			}
		}
	}
	if err != nil {
		err = fmt.Errorf("what was done could not be judged: %w", err)
	}
	return f, samples, err
}
