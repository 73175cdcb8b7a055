package remediate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/advice"
	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

// Case is one incident with all that is known of it.
type Case struct {
	Incident matcher.Incident // zero where somebody asks without one
	Facts    facts.Snapshot
	Socket   facts.Socket // the socket that the incident is about
	Lost     error        // why there is none, instead of Socket
	Evidence facts.Evidence
	// Diagnosis says why the queue is full; the zero one says nothing.
	Diagnosis diagnose.Diagnosis
	// Serial tells plans apart that are asked for in one second; those of an
	// incident are numbered by the history.
	Serial int
}

// Decide makes the plan for one case. It is pure; the plan's Reason is one
// sentence that stands alone.
func Decide(p Policy, c Case, h History, now time.Time) Plan {
	plan := Plan{
		ID:       fmt.Sprintf("%s.%d", c.Incident.ID, h.lastPlan(c.Incident.ID)+1),
		Incident: c.Incident.ID,
		Name:     c.Incident.Socket,
		DryRun:   p.DryRun,
	}
	if c.Incident.ID == "" {
		plan.ID = fmt.Sprintf("asked-%d.%d", now.Unix(), c.Serial)
	}
	say := func(v Verdict, code Code, format string, args ...any) Plan {
		plan.Verdict, plan.Code, plan.Reason = v, code, fmt.Sprintf(format, args...)
		return plan
	}

	if c.Lost != nil && c.Incident.Socket == "" {
		return say(Nothing, CodeNotFound, "%v", c.Lost)
	}
	if c.Lost != nil {
		return say(Refuse, CodeNotFound, "the socket was not found: %v", c.Lost)
	}
	s := c.Socket
	plan.Socket, plan.Name = s, s.Name()
	plan.Seen = h.newest(plan.Name)
	h = h.countedBy(p)

	if s.OtherNetNS && !p.Containers {
		return say(Refuse, CodeOtherNetNS, "the socket lives in another network namespace (%s), and policy.containers is off", s.Master)
	}
	garbage := c.Incident.ID != "" && c.Incident.Peak == 0
	switch {
	case c.Evidence.Corroborates():
	case c.Incident.ID == "":
		return say(Nothing, CodeNotFull, "the queue is not full: %s", c.Evidence)
	case garbage:
		return say(Refuse, CodeGarbage, "the log's numbers cannot be true, and the kernel does not show a full queue: %s", c.Evidence)
	case p.Corroborate:
		return say(Wait, CodeUncorroborated, "the kernel does not show what the log says: %s", c.Evidence)
	}

	if n, last := h.fruitless(s, c.Incident.ID); c.Incident.ID != "" && n >= p.GiveUpAfter {
		if last.Result == Failed {
			return say(Refuse, CodeGaveUp, "gave up: %d tries failed, the last with: %s", n, last.Error)
		}
		plan.Advice = advice.Capacity(s)
		return say(Refuse, CodeGaveUp, "gave up: %d raises did not end the incident, the limit is %d and %s", n, s.Limit, c.Evidence)
	}
	switch d := c.Diagnosis; d.Kind {
	case diagnose.Respawn:
		plan.Advice = d.Advice
		return say(Wait, CodeRespawn, "a longer queue is no cure yet: %s", d.Reasons[0])
	case diagnose.Stall, diagnose.FalseAlarm:
		plan.Advice = d.Advice
		return say(Refuse, CodeStall, "a longer queue is no cure: %s", d.Reasons[0])
	}
	if c.Diagnosis.Doubt != "" {
		return say(Wait, CodeUnproven, "a longer queue may be no cure: %s", c.Diagnosis.Doubt)
	}
	target, code, cannotGrow := p.reach(s, c.Diagnosis)
	if cannotGrow != "" {
		plan.Advice = advice.Capacity(s)
		if code == CodeMaxWait {
			plan.Advice = c.Diagnosis.Advice
		}
		return say(Refuse, code, "%s", cannotGrow)
	}
	plan.Target = target

	why := fmt.Sprintf("the accept queue of %s holds %d of %d", plan.Name, max(c.Evidence.Peak, s.Length), s.Limit)
	soon := s.Somaxconn
	var actions []Action
	if p.Sysctl {
		cannot, code := p.whyNoSysctl(s, c.Facts, h)
		if cannot == "" {
			actions, soon = sysctls(p, s, c.Facts, h, target, why)
		} else if s.Somaxconn < target {
			return say(Refuse, code, "somaxconn is %d and not raised to %d: %s", s.Somaxconn, target, cannot)
		}
	}
	relistenFailed := h.relistenFailed(plan.Name, c.Incident.ID, s.Master)
	cannot := p.whyNoRelisten(c.Facts, relistenFailed)
	canRelisten := cannot == ""
	if canRelisten {
		actions = append(actions, Relisten{Socket: s, From: s.Limit, To: target,
			Why: "a running socket keeps the limit of its last listen(2)"})
	}
	noReload := p.whyNoReload(s, h, soon, canRelisten, now)
	last, raised := h.LastRaise(s)
	_, reloaded := h.lastReload(s.Master)
	// Where raising in place has just failed, the reload that the policy has
	// for this case is the rest of that raise, not a second one.
	rest := relistenFailed != "" && !reloaded && noReload == ""
	if raised && within(last, now, p.Cooldown) && !rest {
		return say(Wait, CodeCooldown, "the last raise was %s ago; policy.cooldown leaves %s until the next",
			max(0, now.Sub(last)).Round(time.Second), last.Add(p.Cooldown).Sub(now).Round(time.Second))
	}
	if noReload == "" {
		reloadWhy := "policy.reload.when is always"
		if !canRelisten {
			reloadWhy = "the socket cannot be raised in place: " + cannot
		}
		actions = append(actions, Reload{Socket: s, How: p.ReloadHow, Timeout: p.ReloadTimeout, Why: reloadWhy})
	}
	if !canRelisten {
		plan.Advice = []string{advice.Restart(s, target)}
		if len(actions) == 0 {
			return say(Refuse, CodePowerless, "nothing qwatch may do changes the running socket: no raise in place (%s), no reload (%s)", cannot, noReload)
		}
	}
	if s.OtherNetNS {
		plan.Advice = append(plan.Advice, advice.Somaxconn(s, target, p.SysctlFile)...)
	}
	reason := fmt.Sprintf("%s and %s; raise it to %d", why, c.Evidence, target)
	if cannot != "" {
		reason += "; not in place: " + cannot
	}
	if noReload != "" && p.Reload != Never && (p.Reload == Always || !canRelisten) {
		reason += "; no reload: " + noReload
	}
	plan.Actions = actions
	return say(Act, CodeFull, "%s", reason)
}

const somaxconn = "net.core.somaxconn"

// Bounds are the numbers of the policy that a diagnosis of the socket needs.
func (p Policy) Bounds(s facts.Socket) diagnose.Bounds {
	return diagnose.Bounds{MaxBacklog: p.MaxBacklog, MaxWait: p.MaxWait, Target: p.Target(s.Limit), SysctlFile: p.SysctlFile}
}

// reach is the limit that a raise of the socket aims at, or why it cannot grow.
func (p Policy) reach(s facts.Socket, d diagnose.Diagnosis) (target int, code Code, cannotGrow string) {
	target = p.Target(s.Limit)
	if target <= s.Limit {
		return 0, CodeCeiling, fmt.Sprintf("the limit is %d, and policy.max_backlog allows no more than %d", s.Limit, p.MaxBacklog)
	}
	if most := d.MaxTarget; most > 0 && most < target {
		target = most
		if target <= s.Limit {
			return 0, CodeMaxWait, fmt.Sprintf("a longer queue is no cure: %s; in more than %d connections the last would wait longer than policy.max_wait %s",
				d.Reasons[0], most, p.MaxWait)
		}
	}
	if !p.Sysctl && s.Somaxconn > 0 {
		target = min(target, s.Somaxconn)
	}
	if target <= s.Limit {
		return 0, CodeCeiling, fmt.Sprintf("the limit %d cannot grow: somaxconn is %d and policy.sysctl is off", s.Limit, s.Somaxconn)
	}
	return target, "", ""
}

// whyNoRelisten says why the running socket cannot be raised in place, "" if it
// can. failed is how that ended within this incident, if it was tried.
func (p Policy) whyNoRelisten(f facts.Snapshot, failed string) string {
	switch {
	case !p.Relisten:
		return "policy.relisten is off"
	case f.Cannot[facts.StepRelisten] != "":
		return f.Cannot[facts.StepRelisten]
	case failed != "":
		return "it failed before: " + failed
	}
	return ""
}

// whyNoSysctl says why no kernel parameter of the socket's namespace can be
// set, "" if it can.
func (p Policy) whyNoSysctl(s facts.Socket, f facts.Snapshot, h History) (string, Code) {
	if s.OtherNetNS {
		return "", "" // only trying can tell
	}
	if cannot := cmp.Or(f.Cannot[facts.StepSysctl], f.Cannot[facts.StepSysctlFile]); cannot != "" {
		return cannot, CodePowerless
	}
	return h.steppedAside(somaxconn, f.Sysctl[somaxconn], f.Booted), CodeSteppedAside
}

// sysctls plans the kernel parameters for a target: somaxconn first, since
// listen(2) is clamped to it, then its companions by name. soon is what
// somaxconn will be. No file reaches another network namespace, and its
// companions are the container's own affair.
func sysctls(p Policy, s facts.Socket, f facts.Snapshot, h History, target int, why string) (actions []Action, soon int) {
	if s.OtherNetNS {
		if s.Somaxconn >= target {
			return nil, s.Somaxconn
		}
		return []Action{SetSysctl{Key: somaxconn, From: s.Somaxconn, To: target, NetNSOf: s.Master, Why: why}}, target
	}
	soon = s.Somaxconn
	set := func(key string, to int, companion bool, why string) {
		from, known := f.Sysctl[key]
		if !known || from >= to || h.steppedAside(key, from, f.Booted) != "" {
			return
		}
		actions = append(actions, SetSysctl{
			Key: key, From: from, To: to, File: p.SysctlFile, FileFrom: f.File[key], Companion: companion, Why: why,
		})
	}
	if set(somaxconn, target, false, why); len(actions) > 0 {
		soon = target
	}
	for _, key := range slices.Sorted(maps.Keys(p.Also)) {
		set(key, p.Also[key], true, "company of somaxconn (policy.sysctl.also)")
	}
	return actions, soon
}

// whyNoReload says why a raise of the socket goes without a reload, "" if it
// goes with one.
func (p Policy) whyNoReload(s facts.Socket, h History, somaxconn int, inPlace bool, now time.Time) string {
	if p.Reload == Never {
		return "policy.reload.when is never"
	}
	if p.Reload == Needed && inPlace {
		return "the running socket is raised in place"
	}
	if s.SocketUnit != "" {
		// systemd's LISTEN_FDS are meant for one process id and gone after the
		// first start: "The -s/--socket option is missing", and uWSGI ends.
		return fmt.Sprintf("systemd holds the socket (%s), and uWSGI does not find it again after a reload", s.SocketUnit)
	}
	if s.Unread != "" {
		return fmt.Sprintf("uWSGI's configuration is not known (%s), and exit-on-reload or a listen over somaxconn in it would make the reload its end", s.Unread)
	}
	if s.Configured > somaxconn {
		return fmt.Sprintf("uWSGI is configured to listen = %d (%s), and with somaxconn %d it would not come up again", s.Configured, s.ConfiguredAt, somaxconn)
	}
	if last, ok := h.lastReload(s.Master); ok && within(last, now, p.ReloadCooldown) {
		return fmt.Sprintf("%s was reloaded %s ago (policy.reload.cooldown %s)", s.Master, max(0, now.Sub(last)).Round(time.Second), p.ReloadCooldown)
	}
	if n := h.reloadsWithin(now, time.Hour); n >= p.ReloadsPerHour {
		return fmt.Sprintf("%d reloads on this host within the hour (policy.reload.max_per_hour)", n)
	}
	return ""
}
