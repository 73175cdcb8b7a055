package remediate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"qwatch/remediate/facts"
)

const (
	somaxconn = "net.core.somaxconn"
	// outdated is the age at which facts say nothing of the host any more. They
	// are half a second old where it can be looked at.
	outdated = 10 * time.Second
)

// draft is a plan in the making, and what it is made from.
type draft struct {
	Plan
	policy  Policy
	facts   facts.Snapshot
	history History // as far as it counts for the policy
	now     time.Time
}

// newDraft begins a plan about what has this name in the trail.
func newDraft(p Policy, f facts.Snapshot, h History, now time.Time, id, name string) draft {
	return draft{
		Plan:   Plan{ID: id, Name: name, DryRun: p.DryRun, Seen: h.seen(name)},
		policy: p, facts: f, history: h.countedBy(p), now: now,
	}
}

// say ends the plan. It carries actions only where they are to be taken.
func (d *draft) say(v Verdict, code Code, format string, args ...any) Plan {
	d.Verdict, d.Code, d.Reason = v, code, fmt.Sprintf(format, args...)
	if v != Act {
		d.Actions = nil
	}
	return d.Plan
}

// unseen ends the plan where the facts are out of date.
func (d *draft) unseen() bool {
	switch {
	case d.facts.At.IsZero():
		d.say(Wait, codeUnseen, "the host has not been looked at yet")
	case d.now.Sub(d.facts.At) > outdated:
		d.say(Wait, codeUnseen, "the host could not be looked at since %s", d.facts.At.UTC().Format(time.RFC3339))
	default:
		return false
	}
	return true
}

// raiseSysctls adds the kernel parameters for a limit of target: somaxconn
// first, since listen(2) is clamped to it, then its companions by name. It
// returns what somaxconn will be; one that is not known is left as it is. The
// companions come along with it and not alone, and for TCP only: a UNIX socket has
// neither half-open connections nor packets. No file reaches another network
// namespace, and its companions are the container's own affair.
func (d *draft) raiseSysctls(s facts.Socket, target int, why string) (soon facts.Fact[int]) {
	soon = s.Somaxconn
	if s.OtherNetNS {
		if now, ok := soon.Get(); ok && now < target {
			d.Actions = append(d.Actions, SetSysctl{Key: somaxconn, From: now, To: target, NetNSOf: s.Master, Why: why})
			soon = facts.Known(target)
		}
		return soon
	}
	if !d.raiseSysctl(somaxconn, target, false, why) {
		return soon
	}
	if soon = facts.Known(target); s.Family != facts.TCP && s.Family != facts.TCP6 {
		return soon
	}
	for _, key := range slices.Sorted(maps.Keys(d.policy.Also)) {
		d.raiseSysctl(key, d.policy.Also[key], true, "raised with somaxconn (policy.sysctl.also)")
	}
	return soon
}

// raiseSysctl adds one kernel parameter, if it is there and less.
func (d *draft) raiseSysctl(key string, to int, companion bool, why string) bool {
	from, known := d.facts.Sysctl[key]
	if !known || from >= to || d.steppedAside(key) != "" {
		return false
	}
	d.Actions = append(d.Actions, SetSysctl{
		Key: key, From: from, To: to, File: d.policy.SysctlFile, FileFrom: d.facts.File[key], Companion: companion, Why: why,
	})
	return true
}

func (d *draft) steppedAside(key string) string {
	return d.history.steppedAside(key, d.facts.Sysctl[key], d.facts.Booted)
}

// whyNoSysctl says why no kernel parameter of the socket's namespace can be
// set, "" if it can.
func (d *draft) whyNoSysctl(s facts.Socket) (string, Code) {
	if s.OtherNetNS {
		return "", "" // only trying can tell
	}
	if cannot := cmp.Or(d.facts.WhyNot(facts.StepSysctl), d.facts.WhyNot(facts.StepSysctlFile)); cannot != "" {
		return cannot, codePowerless
	}
	return d.steppedAside(somaxconn), codeSteppedAside
}
