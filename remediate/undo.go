package remediate

import (
	"fmt"
	"slices"
	"time"

	"qwatch/remediate/advice"
	"qwatch/remediate/facts"
)

// LeftAlone is something that qwatch changed and that PlanUndo leaves as it is.
type LeftAlone struct {
	What string `json:"what"` // the key or the socket
	Why  string `json:"why"`
}

// PlanUndo plans to put back what qwatch changed on this host, the newest change
// first, as far as the host still is as qwatch left it and going back is safe:
// never below the largest listen backlog that is configured or running, for
// uWSGI would not survive its next start (uWSGI core/socket.c: "Listen queue
// size is greater than the system max").
func PlanUndo(p Policy, f facts.Snapshot, h History, now time.Time) (Plan, []LeftAlone) {
	plan := Plan{
		ID: fmt.Sprintf("undo-%d", now.Unix()), DryRun: p.DryRun, Seen: h.newest(""),
		Verdict: Nothing, Code: CodeUndo, Reason: "qwatch has changed nothing that is still so",
	}
	var stays []LeftAlone
	stay := func(what, format string, args ...any) {
		stays = append(stays, LeftAlone{what, fmt.Sprintf(format, args...)})
	}
	running := map[facts.SocketID]int{} // limits as they will be
	for _, s := range f.Sockets {
		running[s.ID] = s.Limit
	}
	for _, c := range slices.Backward(h.changes()) {
		switch c.action {
		case ActionRelisten:
			i := slices.IndexFunc(f.Sockets, func(s facts.Socket) bool {
				return s.ID.Inode == c.inode && s.Name() == c.target
			})
			switch {
			case i < 0:
				stay(c.target, "the socket that was raised is gone, and its limit with it")
			case f.Sockets[i].Limit != c.to:
				stay(c.target, "its limit is %d, not the %d that qwatch set: somebody else's change stays", f.Sockets[i].Limit, c.to)
			default:
				s := f.Sockets[i]
				running[s.ID] = c.from
				plan.Actions = append(plan.Actions, Relisten{Socket: s, From: c.to, To: c.from, Undo: true,
					Why: fmt.Sprintf("qwatch raised it %s", c.last.Format(time.RFC3339))})
			}
		case ActionSysctl:
			live, known := f.Sysctl[c.target]
			switch {
			case !known:
				stay(c.target, "it cannot be read from qwatch's network namespace")
			case live != c.to:
				stay(c.target, "it is %d, not the %d that qwatch set: somebody else's change stays", live, c.to)
			default:
				plan.Actions = append(plan.Actions, SetSysctl{Key: c.target, From: c.to, To: c.from, File: p.SysctlFile,
					FileFrom: f.File[c.target], Undo: true, Companion: c.target != somaxconn,
					Why: fmt.Sprintf("qwatch raised it %s", c.last.Format(time.RFC3339))})
			}
		}
	}
	floor, unread := 0, ""
	for _, s := range f.Sockets {
		if s.OtherNetNS {
			continue
		}
		floor = max(floor, s.Configured, running[s.ID])
		if s.Unread != "" && unread == "" {
			unread = fmt.Sprintf("the configuration of %s is not known (%s); under a somaxconn below its listen it would not come up again", s.Master, s.Unread)
		}
	}
	plan.Actions = slices.DeleteFunc(plan.Actions, func(a Action) bool {
		set, ok := a.(SetSysctl)
		if !ok || set.Key != somaxconn || unread == "" && set.To >= floor {
			return false
		}
		if unread != "" {
			stay(set.Key, "%s", unread)
			return true
		}
		stay(set.Key, "a uWSGI here listens, or is configured to, with %d; under a somaxconn of %d it would not come up again", floor, set.To)
		return true
	})
	if len(plan.Actions) > 0 {
		plan.Verdict, plan.Reason = Act, fmt.Sprintf("put back %d changes of qwatch", len(plan.Actions))
	}
	return plan, stays
}

// change is the sum of all that was done to one key or socket.
type change struct {
	action   ActionKind
	target   string
	inode    uint64
	from, to int // before the first, after the last
	last     time.Time
}

// changes sums up what was applied and is not undone, in the order of the last
// change to each.
func (h History) changes() []change {
	var out []change
	for _, e := range h {
		if e.Result != Applied || e.From == nil || e.To == nil || e.Action != ActionSysctl && e.Action != ActionRelisten {
			continue
		}
		c := change{e.Action, e.Target, e.Inode, *e.From, *e.To, e.Time}
		if e.Action == ActionSysctl {
			c.inode = 0
		}
		i := slices.IndexFunc(out, func(o change) bool {
			return o.action == c.action && o.target == c.target && o.inode == c.inode
		})
		if i >= 0 {
			// Only what follows on is one change: after somebody else's the
			// sum begins anew.
			if out[i].to == c.from {
				c.from = out[i].from
			}
			out = slices.Delete(out, i, i+1)
		}
		if c.from != c.to {
			out = append(out, c)
		}
	}
	return out
}

// steppedAside tells why qwatch leaves a key alone, "" if it does not: qwatch
// set it, the host has run ever since, and now it has a value that qwatch did
// not set. An administrator's later change wins.
func (h History) steppedAside(key string, live int, booted time.Time) string {
	for _, e := range slices.Backward(h) {
		if e.Action != ActionSysctl || e.Target != key || e.Result != Applied || e.To == nil {
			continue
		}
		if e.Time.Before(booted) || *e.To <= live {
			return ""
		}
		return fmt.Sprintf("qwatch set %s to %d at %s, and somebody has set it to %d since", key, *e.To, e.Time.Format(time.RFC3339), live)
	}
	return ""
}

// raisedTo is the limit that qwatch last gave the socket with this name, 0 if it
// gave none or took it back.
func (h History) raisedTo(name string) (limit int, master facts.Process) {
	for _, e := range slices.Backward(h) {
		if e.Action != ActionRelisten || e.Target != name || e.Result != Applied || e.From == nil || e.To == nil {
			continue
		}
		if *e.To < *e.From {
			return 0, facts.Process{}
		}
		return *e.To, facts.Process{PID: e.PID, Start: e.Start}
	}
	return 0, facts.Process{}
}

// PlanKeep plans to give a restarted uWSGI the limit that qwatch once gave its
// socket: a cold start falls back to the configured listen. It has nothing to
// do for a socket that was not raised, or whose limit was changed while its
// master lived on.
func PlanKeep(p Policy, f facts.Snapshot, s facts.Socket, h History, now time.Time) Plan {
	plan := Plan{
		ID: fmt.Sprintf("keep-%d-%d", s.Master.PID, now.Unix()), Name: s.Name(), DryRun: p.DryRun,
		Socket: s, Seen: h.newest(s.Name()), Verdict: Nothing, Code: CodeKept,
	}
	wish, raised := h.raisedTo(plan.Name)
	wish = min(wish, p.MaxBacklog)
	switch {
	case !p.Keep, !p.Relisten, wish <= s.Limit, s.OtherNetNS && !p.Containers, raised.Same(s.Master), f.Cannot[facts.StepRelisten] != "":
		plan.Reason = "its limit is as it should be"
		return plan
	}
	plan.Target = wish
	why := fmt.Sprintf("uWSGI was restarted and listens with %d again, after qwatch had raised it to %d", s.Limit, wish)
	soon := s.Somaxconn
	if cannot, _ := p.whyNoSysctl(s, f, h); p.Sysctl && cannot == "" {
		plan.Actions, soon = sysctls(p, s, f, h, wish, why)
	}
	if soon < wish {
		plan.Target = soon
	}
	if plan.Target <= s.Limit {
		plan.Actions = nil
		plan.Reason = fmt.Sprintf("%s; somaxconn %d allows no more", why, s.Somaxconn)
		return plan
	}
	plan.Actions = append(plan.Actions, Relisten{Socket: s, From: s.Limit, To: plan.Target, Why: why})
	plan.Verdict, plan.Reason = Act, why
	if next := s.AfterRestart(); next < wish {
		plan.Advice = []string{advice.Persist(s, wish)}
	}
	return plan
}
