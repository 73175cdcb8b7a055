package remediate

import (
	"fmt"
	"time"

	"qwatch/internal/text"
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

// Bounds are the numbers of the policy that a diagnosis of the socket needs.
func (p Policy) Bounds(s facts.Socket) diagnose.Bounds {
	return diagnose.Bounds{MaxBacklog: p.MaxBacklog, MaxWait: p.MaxWait, Target: p.target(s.Limit), SysctlFile: p.SysctlFile}
}

// decision is the draft of a plan about one case.
type decision struct {
	draft
	c     Case
	aimed string // why Target is what it is
}

// checks are what stands between a full queue and a raise, in their order. Each
// reports whether it has ended the plan.
var checks = []func(*decision) bool{
	(*decision).unseen,
	(*decision).lost,
	(*decision).elsewhere,
	(*decision).stranger,
	(*decision).service,
	(*decision).unproven,
	(*decision).paused,
	(*decision).fruitless,
	(*decision).incurable,
	(*decision).atCeiling,
}

// Decide makes the plan for one case. It is pure; the plan's Reason is one
// sentence that stands alone.
func Decide(p Policy, c Case, h History, now time.Time) Plan {
	id := fmt.Sprintf("%s.%d", c.Incident.ID, h.lastPlan(c.Incident.ID)+1)
	if c.Incident.ID == "" {
		id = fmt.Sprintf("asked-%d.%d", now.Unix(), c.Serial)
	}
	name := c.Incident.Socket
	if c.Lost == nil {
		name = c.Socket.Name()
	}
	d := &decision{newDraft(p, c.Facts, h, now, id, name), c, ""}
	if d.Incident = c.Incident.ID; c.Lost == nil {
		d.Socket, d.SeenReload = c.Socket, h.seenReload(c.Socket.Master)
	}
	for _, ends := range checks {
		if ends(d) {
			return d.Plan
		}
	}
	return d.raise()
}

// asked reports whether somebody asks for a plan, without an incident.
func (d *decision) asked() bool { return d.Incident == "" }

func (d *decision) lost() bool {
	switch {
	case d.c.Lost == nil:
		return false
	case d.Name == "":
		d.say(Nothing, CodeNotFound, "%v", d.c.Lost)
	default:
		d.say(Refuse, CodeNotFound, "the socket was not found: %v", d.c.Lost)
	}
	return true
}

func (d *decision) elsewhere() bool {
	why := d.policy.leavesContainer(d.Socket)
	if why != "" {
		d.say(Refuse, codeOtherNetNS, "%s", why)
	}
	return why != ""
}

// leavesContainer says why the policy leaves a socket that is a container's, ""
// where it does not, or the socket is none.
func (p Policy) leavesContainer(s facts.Socket) string {
	switch {
	case p.Containers || !s.Foreign():
		return ""
	case s.OtherNetNS:
		return fmt.Sprintf("the socket lives in another network namespace (%s), and policy.containers is off", s.Master)
	}
	return fmt.Sprintf("the socket is that of a container with the host's network (%s), and policy.containers is off", s.Master)
}

// stranger ends the plan where qwatch may not act on the uWSGI.
func (d *decision) stranger() bool {
	why := d.policy.Distrusts(d.Socket)
	if why == "" {
		return false
	}
	d.Advice = advice.Trust(d.Socket)
	d.say(Refuse, CodeUntrusted, "%s", why)
	return true
}

// service ends the plan about a queue where no application answers.
func (d *decision) service() bool {
	what := d.Socket.Serves()
	if what == "" {
		return false
	}
	d.Advice = []string{fmt.Sprintf("find out who connects to %s and does not go on: uWSGI answers one at a time there (ss -tnp, ss -xp)", d.Name)}
	d.say(Refuse, codeService, "it is no application's queue: uWSGI %d %s; it is neither raised, nor uWSGI reloaded for it", d.Socket.Master.PID, what)
	return true
}

func (d *decision) unproven() bool {
	switch {
	case d.c.Evidence.Corroborates():
		return false
	case d.asked() && d.c.Evidence.Samples == 0:
		d.say(Wait, CodeUncorroborated, "whether the queue is full is not known: %s", d.c.Evidence)
	case d.asked():
		d.say(Nothing, codeNotFull, "the queue is not full: %s", d.c.Evidence)
	case d.c.Incident.Peak == 0:
		d.say(Refuse, codeGarbage, "the log's numbers cannot be true, and the kernel does not show a full queue: %s", d.c.Evidence)
	case d.policy.Corroborate:
		d.say(Wait, CodeUncorroborated, "the kernel does not show what the log says: %s", d.c.Evidence)
	case d.c.Incident.Limit > 0 && d.c.Incident.Limit != d.Socket.Limit:
		d.say(Wait, CodeUncorroborated, "the newest record is of a limit of %d, which is %d by now, and the kernel does not show a full queue: %s", d.c.Incident.Limit, d.Socket.Limit, d.c.Evidence)
	case d.history.looksCount(d.facts, d.Socket, d.now).After(d.c.Incident.Last):
		d.say(Wait, CodeUncorroborated, "no record is newer than the last raise or reload, and the kernel does not show a full queue: %s", d.c.Evidence)
	default:
		return false
	}
	return true
}

// paused ends the plan where the master does not run: its queue is full since
// nobody accepts.
func (d *decision) paused() bool {
	why, is := d.Socket.Paused.Get()
	if is {
		d.say(Wait, CodePaused, "a longer queue is no cure: %s; nothing is done until it runs again", why)
	}
	return is
}

func (d *decision) fruitless() bool {
	s := d.Socket
	n, last := d.history.fruitless(d.facts, s, d.Incident)
	switch {
	case d.asked() || n < d.policy.GiveUpAfter:
		return false
	case last.Result == Failed:
		d.say(Refuse, CodeGaveUp, "gave up: %s failed, the last with: %s", text.Plural(n, "try", "tries"), last.Error)
	default:
		d.Advice = advice.Capacity(s)
		d.say(Refuse, CodeGaveUp, "gave up: %s did not end the incident, the limit is %d and %s", text.Plural(n, "raise", "raises"), s.Limit, d.c.Evidence)
	}
	return true
}

func (d *decision) incurable() bool {
	switch why := d.c.Diagnosis; {
	case why.Kind == diagnose.Respawn:
		d.Advice = why.Advice
		d.say(Wait, codeRespawn, "a longer queue is no cure yet: %s", why.Reasons[0])
	case why.Kind == diagnose.Stall || why.Kind == diagnose.FalseAlarm:
		d.Advice = why.Advice
		d.say(Refuse, codeStall, "a longer queue is no cure: %s", why.Reasons[0])
	case why.Doubt != "":
		d.say(Wait, codeUnproven, "a longer queue may be no cure: %s", why.Doubt)
	default:
		return false
	}
	return true
}

// atCeiling finds the limit that a raise aims at, and why it is that, and ends the
// plan where the socket cannot grow to it by a quarter at least: less would be
// full again before anybody has looked.
func (d *decision) atCeiling() bool {
	p, s, most := d.policy, d.Socket, d.c.Diagnosis.MaxTarget
	target, why := p.aim(s.Limit)
	slow := most > 0 && most < target
	if slow {
		target, why = most, "max_wait at the measured rate"
	}
	live, known := s.Somaxconn.Get()
	bound := !p.Sysctl && known && live < target
	if bound {
		target, why = live, "somaxconn, policy.sysctl is off"
	}
	switch {
	case target > s.Limit && 4*(target-s.Limit) >= s.Limit:
		d.Target, d.aimed = target, why
		return false
	case slow && !bound:
		d.Advice = d.c.Diagnosis.Advice
		d.say(Refuse, codeMaxWait, "a longer queue is no cure: %s; in more than %s the last would wait longer than policy.max_wait %s",
			d.c.Diagnosis.Reasons[0], text.Plural(most, "connection", "connections"), p.MaxWait)
		return true
	}
	d.Advice = advice.Capacity(s)
	switch {
	case target > s.Limit:
		d.say(Refuse, codeCeiling, "the limit is %d, and no more than %d is possible (%s): less than a quarter more is no raise", s.Limit, target, why)
	case bound:
		d.say(Refuse, codeCeiling, "the limit %d cannot grow: somaxconn is %d and policy.sysctl is off", s.Limit, target)
	default:
		d.say(Refuse, codeCeiling, "the limit is %d, and policy.max_backlog allows no more than %d", s.Limit, p.MaxBacklog)
	}
	return true
}

// raise plans the raise to Target: the kernel parameters, the running socket,
// and a reload where the policy has one.
func (d *decision) raise() Plan {
	p, s := d.policy, d.Socket
	reason := fmt.Sprintf("the accept queue of %s holds %d of %d", d.Name, max(d.c.Evidence.Peak, s.Length), s.Limit)
	soon := s.Somaxconn
	if p.Sysctl {
		cannot, code := d.whyNoSysctl(s)
		if cannot == "" {
			soon = d.raiseSysctls(s, d.Target, reason)
		} else if now, known := soon.Get(); known && now < d.Target {
			return d.say(Refuse, code, "somaxconn is %d and not raised to %d: %s", now, d.Target, cannot)
		}
	}
	failed := d.history.relistenFailed(d.Name, d.Incident, s.Master)
	noRelisten := d.whyNoRelisten(failed)
	way, noWay := p.way(s)
	noReload := d.whyNoReload(s, soon, way, noWay)
	if noRelisten != "" && noReload == "" {
		noReload = "a reload does not change the limit of a running socket"
	}
	if last, raised := d.history.raises(d.facts, s).last(); raised && within(last.Time, d.now, p.Cooldown) {
		planned := ""
		if last.Result == Planned {
			planned = "planned "
		}
		return d.say(Wait, CodeCooldown, "the last raise was %s%s ago; policy.cooldown leaves %s until the next",
			planned, max(0, d.now.Sub(last.Time)).Round(time.Second), last.Time.Add(p.Cooldown).Sub(d.now).Round(time.Second))
	}
	reason += fmt.Sprintf(" and %s; raise it to %d (%s)", d.c.Evidence, d.Target, d.aimed)
	// A sysctl is the whole host's, and a reload costs people their answers:
	// neither is for a socket that cannot use it.
	if noRelisten != "" {
		d.Advice = []string{advice.Restart(s, d.Target)}
		return d.say(Refuse, codePowerless, "nothing qwatch may do changes the running socket: no raise in place (%s), no reload (%s)", noRelisten, noReload)
	}
	d.Actions = append(d.Actions, Relisten{Socket: s, From: s.Limit, To: d.Target, Why: "a running socket keeps the limit of its last listen(2)"})
	if noReload == "" {
		why := "policy.reload.when is always" + p.noChain(s) + unseenSharers(s)
		d.Actions = append(d.Actions, Reload{Socket: s, Way: way, Deploy: p.ReloadDeploy, Timeout: p.ReloadTimeout, Why: why})
		reason += fmt.Sprintf("; then %s", s.Price(way.Wholly(s), way.InTurn(s)))
	} else if p.Reload == Always {
		reason += "; no reload: " + noReload
		if s.Sight.Unseen() != "" {
			d.Advice = append(d.Advice, advice.Sight(s))
		}
	}
	if s.OtherNetNS {
		d.Advice = append(d.Advice, advice.Somaxconn(s, d.Target, p.SysctlFile)...)
	}
	return d.say(Act, codeFull, "%s%s", reason, unproven(s))
}

// whyNoRelisten says why the running socket cannot be raised in place, "" if it
// can. failed is how that ended within this incident, if it was tried.
func (d *decision) whyNoRelisten(failed string) string {
	switch cannot := d.facts.WhyNot(facts.StepRelisten); {
	case !d.policy.Relisten:
		return "policy.relisten is off"
	case cannot != "":
		return cannot
	case failed != "":
		return "it failed before: " + failed
	}
	return ""
}

// whyNoReload says why a raise of the socket goes without a reload, "" if it
// goes with one. What applies it refuses for the same reasons, should they come
// up in between.
func (d *decision) whyNoReload(s facts.Socket, somaxconn facts.Fact[int], way Way, noWay string) string {
	p, master, harm := d.policy, s.Master, s.WhyNoReload(somaxconn)
	deploy := s.WhyNoDeploy(p.ReloadDeploy, !way.Wholly(s))
	last, reloaded := d.history.lastReload(master)
	reloads := d.history.reloads()
	all := reloads.recent(d.now, func(Event) bool { return true })
	own := reloads.recent(d.now, func(e Event) bool { return e.of(master) })
	switch {
	case p.Reload == Never:
		return "policy.reload.when is never"
	case p.Reload == Needed:
		return "a reload does not change the limit of a running socket, and policy.reload.when is needed"
	case harm != "":
		return harm
	case s.Paused.Unseen() != "":
		return fmt.Sprintf("it is not known whether uWSGI %d is stopped or frozen: %s", master.PID, s.Paused.Unseen())
	case s.Sight.Unseen() != "":
		return fmt.Sprintf("whether uWSGI %d has loaded its app after a reload could not be seen: %s", master.PID, s.Sight.Unseen())
	case len(s.Workers) == 0:
		return fmt.Sprintf("uWSGI %d has no workers: the end of a reload could not be seen", master.PID)
	case noWay != "":
		return noWay
	case deploy != "":
		return deploy
	case reloaded && last.Result == Started && within(last.Time, d.now, p.ReloadTimeout):
		return fmt.Sprintf("a reload of %s is under way", master)
	case reloaded && within(last.Time, d.now, p.ReloadCooldown):
		return fmt.Sprintf("%s was reloaded %s ago (policy.reload.cooldown %s)", master, max(0, d.now.Sub(last.Time)).Round(time.Second), p.ReloadCooldown)
	case all >= p.ReloadsPerHour:
		return text.Plural(all, "reload", "reloads") + " on this host within the hour (policy.reload.max_per_hour)"
	case own >= (p.ReloadsPerHour+1)/2:
		return fmt.Sprintf("%s of %s within the hour (one unit may use half of policy.reload.max_per_hour %d)", text.Plural(own, "reload", "reloads"), master, p.ReloadsPerHour)
	}
	return ""
}
