package remediate

import (
	"fmt"
	"time"

	"qwatch/internal/text"
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
	starts := func(e Event) bool { return e.Action == actionStart && e.Target == r.Unit && e.ended() }
	d := newDraft(p, f, h, now, fmt.Sprintf("start-%d.%d", now.Unix(), h.recent(now, starts)+1), r.Unit)
	d.Unit = r.Unit
	live := f.Sysctl[somaxconn]
	if d.unseen() {
		return d.Plan
	}
	if r.Lost != nil {
		d.Advice = []string{"set net.core.somaxconn to at least the listen of that uWSGI (sysctl -w, and a file in /etc/sysctl.d), and start it"}
		return d.say(Refuse, CodeNotFound, "uWSGI would not start, its listen is over somaxconn %d; qwatch leaves it: %v", live, r.Lost)
	}
	configured := fmt.Sprintf("it is configured to listen = %d (%s), and somaxconn is %d", r.Listen, r.At, live)
	down := fmt.Sprintf("%s would not start: %s", r.Unit, configured)
	cannot, code := d.whyNoSysctl(facts.Socket{})
	switch n := d.history.recent(now, starts); {
	case r.Listen <= live:
		return d.say(Nothing, codeNotFull, "%s can start: %s", r.Unit, configured)
	case r.Listen > p.MaxBacklog:
		d.Advice = []string{advice.SetListen(facts.Socket{Configured: r.Listen, ConfiguredAt: r.At}, p.MaxBacklog) + ", or raise policy.max_backlog"}
		return d.say(Refuse, codeCeiling, "%s; policy.max_backlog allows no more than %d", down, p.MaxBacklog)
	case !p.Sysctl:
		d.Advice = advice.Somaxconn(facts.Socket{}, r.Listen, p.SysctlFile)
		return d.say(Refuse, codePowerless, "%s; policy.sysctl is off", down)
	case n >= p.GiveUpAfter:
		return d.say(Refuse, CodeGaveUp, "%s; %s within the hour did not help", down, text.Plural(n, "start", "starts"))
	case cannot != "":
		return d.say(Refuse, code, "%s; it cannot be raised here: %s", down, cannot)
	}
	d.Target = r.Listen
	d.raiseSysctls(facts.Socket{Somaxconn: live}, r.Listen, down)
	d.Actions = append(d.Actions, Start{Unit: r.Unit, Timeout: p.ReloadTimeout, Why: "it is down"})
	return d.say(Act, codeStartRefused, "%s; raise it to %d and start the unit", down, r.Listen)
}
