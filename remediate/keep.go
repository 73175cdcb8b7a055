package remediate

import (
	"cmp"
	"fmt"
	"time"

	"qwatch/remediate/advice"
	"qwatch/remediate/facts"
)

// PlanKeep plans to give a restarted uWSGI the limit that qwatch once gave its
// socket: a cold start falls back to the configured listen. It has nothing to
// do for a socket that was not raised, or whose limit was changed while its
// master lived on.
func PlanKeep(p Policy, f facts.Snapshot, s facts.Socket, h History, now time.Time) Plan {
	d := newDraft(p, f, h, now, fmt.Sprintf("keep-%d-%d", s.Master.PID, now.Unix()), s.Name())
	d.Socket = s
	if d.unseen() {
		return d.Plan
	}
	limit, raised := h.raisedTo(d.Name)
	limit = min(limit, p.MaxBacklog)
	switch {
	case limit == 0:
		return d.say(Nothing, codeKept, "qwatch has not raised its limit")
	case limit <= s.Limit:
		return d.say(Nothing, codeKept, "its limit is as it should be")
	case raised.Same(s.Master):
		return d.say(Nothing, codeKept, "its limit was set to %d by somebody else, and not by a restart, after qwatch had raised it to %d: that stays", s.Limit, limit)
	}
	why := fmt.Sprintf("uWSGI was restarted and listens with %d again, after qwatch had raised it to %d", s.Limit, limit)
	if not := whyNotKept(p, f, s); not != "" {
		return d.say(Nothing, codeKept, "%s; that stays: %s", why, not)
	}
	if why := p.Distrusts(s); why != "" {
		d.Advice = advice.Trust(s)
		return d.say(Refuse, CodeUntrusted, "%s", why)
	}
	if paused, is := s.Paused.Get(); is {
		return d.say(Wait, CodePaused, "%s; it gets it back when it runs: %s", why, paused)
	}
	soon := s.Somaxconn
	if cannot, _ := d.whyNoSysctl(s); p.Sysctl && cannot == "" {
		soon = d.raiseSysctls(s, limit, why)
	}
	if d.Target = limit; soon.State == facts.StateKnown {
		d.Target = min(limit, soon.Value)
	}
	if d.Target <= s.Limit {
		return d.say(Nothing, codeKept, "%s; somaxconn %d allows no more", why, s.Somaxconn.Value)
	}
	d.Actions = append(d.Actions, Relisten{Socket: s, From: s.Limit, To: d.Target, Why: why})
	if next, known := s.AfterRestart().Get(); !known || next < limit {
		d.Advice = []string{advice.Persist(s, limit)}
	}
	return d.say(Act, codeKept, "%s%s", why, unproven(s))
}

// whyNotKept says why the limit of a socket is not given back, "" where it may be.
func whyNotKept(p Policy, f facts.Snapshot, s facts.Socket) string {
	switch {
	case !p.Keep:
		return "policy.keep is off"
	case !p.Relisten:
		return "policy.relisten is off"
	}
	return cmp.Or(p.leavesContainer(s), f.WhyNot(facts.StepRelisten))
}

// raisedTo is the limit that qwatch last gave the socket with this name and the
// master that it had then, 0 if qwatch gave none or took it back.
func (h History) raisedTo(name string) (limit int, master facts.Process) {
	e, ok := h.latest(func(e Event) bool {
		return e.Action == actionRelisten && e.Target == name && e.Result == Applied && e.From != nil && e.To != nil
	})
	if !ok || *e.To < *e.From {
		return 0, facts.Process{}
	}
	return *e.To, facts.Process{PID: e.PID, Start: e.Start}
}
