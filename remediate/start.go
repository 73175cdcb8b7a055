package remediate

import (
	"cmp"
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
	Unit   string                    // the systemd unit that would start it
	Listen facts.Fact[facts.Setting] // what it is configured with
}

// PlanStart plans to raise somaxconn to what the unit needs and to start it.
func PlanStart(p Policy, f facts.Snapshot, r Refusal, h History, now time.Time) Plan {
	starts := func(e Event) bool { return e.Action == actionStart && e.Target == r.Unit && e.ended() }
	d := newDraft(p, f, h, now, fmt.Sprintf("start-%d.%d", now.Unix(), h.recent(now, starts)+1), r.Unit)
	d.Unit = r.Unit
	if d.unseen() {
		return d.Plan
	}
	live, seen := f.Sysctl[somaxconn]
	listen, known := r.Listen.Get()
	switch {
	case facts.RunsOthers(r.Unit):
		return d.say(Refuse, CodeUntrusted, "%s runs what others tell it, and qwatch does not start it for their uWSGI", r.Unit)
	case !seen:
		return d.say(Refuse, codePowerless, "%s would not start, and what somaxconn is could not be read", cmp.Or(r.Unit, "uWSGI"))
	case !known:
		d.Advice = []string{"set net.core.somaxconn to at least the listen of that uWSGI (sysctl -w, and a file in /etc/sysctl.d), and start it"}
		return d.say(Refuse, CodeNotFound, "uWSGI would not start, its listen is over somaxconn %d; qwatch leaves it: %v", live, r.Listen.Unseen())
	}
	configured := fmt.Sprintf("it is configured to listen = %d (%s), and somaxconn is %d", listen.Listen, listen.At, live)
	down := fmt.Sprintf("%s would not start: %s", r.Unit, configured)
	cannot, code := d.whyNoSysctl(facts.Socket{})
	switch n := d.history.recent(now, starts); {
	case listen.Listen <= live:
		return d.say(Nothing, codeNotFull, "%s can start: %s", r.Unit, configured)
	case listen.Listen > p.MaxBacklog:
		d.Advice = []string{advice.SetListen(facts.Socket{Config: facts.Config{Listen: r.Listen}}, p.MaxBacklog) + ", or raise policy.max_backlog"}
		return d.say(Refuse, codeCeiling, "%s; policy.max_backlog allows no more than %d", down, p.MaxBacklog)
	case !p.Sysctl:
		d.Advice = advice.Somaxconn(facts.Socket{}, listen.Listen, p.SysctlFile)
		return d.say(Refuse, codePowerless, "%s; policy.sysctl is off", down)
	case n >= p.GiveUpAfter:
		return d.say(Refuse, CodeGaveUp, "%s; %s within the hour did not help", down, text.Plural(n, "start", "starts"))
	case cannot != "":
		return d.say(Refuse, code, "%s; it cannot be raised here: %s", down, cannot)
	}
	d.Target = listen.Listen
	d.raiseSysctls(facts.Socket{}, listen.Listen, down)
	d.Actions = append(d.Actions, Start{Unit: r.Unit, Timeout: p.ReloadTimeout, Why: "it is down"})
	return d.say(Act, codeStartRefused, "%s; raise it to %d and start the unit", down, listen.Listen)
}
