package remediate

import (
	"fmt"
	"time"

	"qwatch/remediate/advice"
	"qwatch/remediate/facts"
)

// Refusal is a uWSGI that did not start because its configured listen backlog
// is over somaxconn ("Listen queue size is greater than the system max
// net.core.somaxconn", uWSGI core/socket.c).
type Refusal struct {
	Unit   string // the systemd unit that would start it
	Listen int    // what it is configured with, in At
	At     string
	Lost   error // why Listen is not known, instead of it
}

// PlanStart plans to raise somaxconn to what the unit needs and to start it.
func PlanStart(p Policy, f facts.Snapshot, r Refusal, h History, now time.Time) Plan {
	plan := Plan{
		ID: fmt.Sprintf("start-%d.%d", now.Unix(), h.starts(r.Unit, now)+1), Name: r.Unit, DryRun: p.DryRun,
		Unit: r.Unit, Seen: h.newest(r.Unit),
	}
	say := func(v Verdict, code Code, format string, args ...any) Plan {
		plan.Verdict, plan.Code, plan.Reason = v, code, fmt.Sprintf(format, args...)
		return plan
	}
	if r.Lost != nil {
		plan.Advice = []string{"set net.core.somaxconn to at least the listen of that uWSGI (sysctl -w, and a file in /etc/sysctl.d), and start it"}
		return say(Refuse, CodeNotFound, "uWSGI would not start, its listen is over somaxconn %d; qwatch leaves it: %v", f.Sysctl[somaxconn], r.Lost)
	}
	live := f.Sysctl[somaxconn]
	down := fmt.Sprintf("%s would not start: it is configured to listen = %d (%s), and somaxconn is %d", r.Unit, r.Listen, r.At, live)
	switch {
	case r.Listen <= live:
		return say(Nothing, CodeNotFull, "%s can start: it is configured to listen = %d (%s), and somaxconn is %d", r.Unit, r.Listen, r.At, live)
	case r.Listen > p.MaxBacklog:
		plan.Advice = []string{advice.SetListen(facts.Socket{Configured: r.Listen, ConfiguredAt: r.At}, p.MaxBacklog) + ", or raise policy.max_backlog"}
		return say(Refuse, CodeCeiling, "%s; policy.max_backlog allows no more than %d", down, p.MaxBacklog)
	case !p.Sysctl:
		plan.Advice = advice.Somaxconn(facts.Socket{}, r.Listen, p.SysctlFile)
		return say(Refuse, CodePowerless, "%s; policy.sysctl is off", down)
	}
	if n := h.countedBy(p).starts(r.Unit, now); n >= p.GiveUpAfter {
		return say(Refuse, CodeGaveUp, "%s; %d starts within the hour did not help", down, n)
	}
	if cannot, code := p.whyNoSysctl(facts.Socket{}, f, h); cannot != "" {
		return say(Refuse, code, "%s; it cannot be raised here: %s", down, cannot)
	}
	plan.Target = r.Listen
	plan.Actions, _ = sysctls(p, facts.Socket{Somaxconn: live}, f, h, r.Listen, down)
	plan.Actions = append(plan.Actions, Start{Unit: r.Unit, Timeout: p.ReloadTimeout, Why: "it is down"})
	return say(Act, CodeStartRefused, "%s; raise it to %d and start the unit", down, r.Listen)
}

// starts counts how often the unit was started within the hour.
func (h History) starts(unit string, now time.Time) int {
	n := 0
	for _, e := range h {
		if e.Action == ActionStart && e.Target == unit && e.ended() && within(e.Time, now, time.Hour) {
			n++
		}
	}
	return n
}
