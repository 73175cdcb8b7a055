package remediate

import (
	"slices"
	"time"
)

// together is how far apart the signs of queues that overflow together come:
// uWSGI writes its records once a second.
const together = time.Second

// DecidePass makes the plans of one pass, in the order of its cases. Where one of
// them raises, or a socket was raised just before, join is asked for more: what the
// same look shows full beside them, and would overflow while it waits for its turn. Each plan knows of the reloads
// that those before it ask for.
func DecidePass(p Policy, cases []Case, join func() []Case, h History, now time.Time) []Plan {
	var plans []Plan
	decide := func(cases []Case) {
		for _, c := range cases {
			plan := Decide(p, c, h, now)
			plans = append(plans, plan)
			h = h.with(plan, now)
		}
	}
	decide(cases)
	last, raised := h.latest(Event.raised)
	if slices.ContainsFunc(plans, Plan.raises) || raised && within(last.Time, now, together) {
		decide(join())
	}
	return plans
}

// raises reports whether the plan is to raise a running socket.
func (p Plan) raises() bool { return p.Verdict == Act && p.Target > 0 && p.Unit == "" }

// raised reports whether the event is that a socket was raised in place, or would
// have been.
func (e Event) raised() bool {
	return e.Action == actionRelisten && (e.Result == Applied || e.Result == Planned) && e.From != nil && e.To != nil && *e.To > *e.From
}

// with is the history as if the plan's reload had begun. It stands under no
// socket's name: nothing was done to any yet.
func (h History) with(p Plan, now time.Time) History {
	for _, a := range p.Actions {
		if _, ok := a.(Reload); ok {
			e := eventOf(p, a, now, Outcome{Result: Started, Now: -1})
			e.Socket = ""
			h = append(slices.Clip(h), e)
		}
	}
	return h
}
