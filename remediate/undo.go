package remediate

import (
	"fmt"
	"slices"
	"time"

	"qwatch/internal/text"
	"qwatch/remediate/facts"
)

// LeftAlone is something that qwatch changed and that PlanUndo leaves as it is.
type LeftAlone struct {
	What string `json:"what"` // the key or the socket
	Why  string `json:"why"`
}

// undo is the draft of a plan that puts back.
type undo struct {
	draft
	left  []LeftAlone
	limit map[facts.SocketID]int // of each running socket, as it will be
}

// PlanUndo plans to put back what qwatch changed on this host, the newest change
// first, as far as the host still is as qwatch left it and going back is safe:
// never below the largest listen backlog that is configured or running, for
// uWSGI would not survive its next start (uWSGI core/socket.c: "Listen queue
// size is greater than the system max").
func PlanUndo(p Policy, f facts.Snapshot, h History, now time.Time) (Plan, []LeftAlone) {
	u := undo{draft: newDraft(p, f, h, now, fmt.Sprintf("undo-%d", now.Unix()), ""), limit: map[facts.SocketID]int{}}
	if u.unseen() {
		return u.Plan, nil
	}
	for _, s := range f.Sockets {
		u.limit[s.ID] = s.Limit
	}
	for _, c := range slices.Backward(h.changes()) {
		if c.last.Action == actionRelisten {
			u.relisten(c)
		} else {
			u.sysctl(c)
		}
	}
	u.Actions = slices.DeleteFunc(u.Actions, func(a Action) bool {
		set, ok := a.(SetSysctl)
		return ok && set.Key == somaxconn && !u.survivable(set.To)
	})
	switch {
	case len(u.Actions) == 0 && len(u.left) == 0:
		return u.say(Nothing, codeUndo, "qwatch has changed nothing that is still so"), nil
	case len(u.Actions) == 0:
		return u.say(Nothing, codeUndo, "of what qwatch has changed nothing can be put back"), u.left
	}
	return u.say(Act, codeUndo, "put back %s of qwatch", text.Plural(len(u.Actions), "change", "changes")), u.left
}

func (u *undo) leave(what, format string, args ...any) {
	u.left = append(u.left, LeftAlone{what, fmt.Sprintf(format, args...)})
}

func (u *undo) relisten(c change) {
	target, to := c.last.Target, *c.last.To
	i := slices.IndexFunc(u.facts.Sockets, func(s facts.Socket) bool { return c.last.about(s) && s.Name() == target })
	if i < 0 {
		u.leave(target, "the socket that was raised is gone, and its limit with it, or another uWSGI holds it by now")
		return
	}
	s := u.facts.Sockets[i]
	if s.Limit != to {
		u.leave(target, "its limit is %d, not the %d that qwatch set: somebody else's change stays", s.Limit, to)
		return
	}
	u.limit[s.ID] = c.from
	u.Actions = append(u.Actions, Relisten{Socket: s, From: to, To: c.from, Undo: true, Why: c.raised()})
}

func (u *undo) sysctl(c change) {
	key, to := c.last.Target, *c.last.To
	live, known := u.facts.Sysctl[key]
	switch {
	case !known:
		u.leave(key, "it cannot be read from qwatch's network namespace")
	case live != to:
		u.leave(key, "it is %d, not the %d that qwatch set: somebody else's change stays", live, to)
	default:
		u.Actions = append(u.Actions, SetSysctl{Key: key, From: to, To: c.from, File: u.policy.SysctlFile,
			FileFrom: u.facts.File[key], Undo: true, Companion: key != somaxconn, Why: c.raised()})
	}
}

// survivable reports whether every uWSGI here would start again under this
// somaxconn.
func (u *undo) survivable(value int) bool {
	if hidden := u.facts.HiddenOwners; hidden != "" {
		u.leave(somaxconn, "not every uWSGI here could be looked into (%s); under a somaxconn below its listen one would not come up again", hidden)
		return false
	}
	floor := 0
	for _, s := range u.facts.Sockets {
		if s.OtherNetNS {
			continue
		}
		listen, ok := s.Config.Listen.Get()
		if own := s.Config.Own; own != nil { // an emperor binds it; both have to come up
			ok = ok && own.State == facts.StateKnown
			listen.Listen = max(listen.Listen, own.Value.Listen)
		}
		if !ok {
			u.leave(somaxconn, "the configuration of %s is not known (%s); under a somaxconn below its listen it would not come up again", s.Master, s.Config.Unread())
			return false
		}
		floor = max(floor, listen.Listen, u.limit[s.ID])
	}
	if value < floor {
		u.leave(somaxconn, "a uWSGI here listens, or is configured to, with %d; under a somaxconn of %d it would not come up again", floor, value)
		return false
	}
	return true
}

// change is the sum of all that was done to one key or socket.
type change struct {
	from int   // before the first
	last Event // the last
}

func (c change) raised() string { return "qwatch raised it " + c.last.Time.Format(time.RFC3339) }

// same reports whether both are about one key or socket. A socket that systemd
// holds may change its uWSGI.
func (c change) same(o change) bool {
	a, b := c.last, o.last
	return a.Action == b.Action && a.Target == b.Target &&
		(a.Action == actionSysctl || a.Inode == b.Inode && (a.NetNS == b.NetNS || a.NetNS == 0 || b.NetNS == 0))
}

// changes sums up what was applied and is not undone, in the order of the last
// change to each.
func (h History) changes() []change {
	var out []change
	for _, e := range h {
		if e.Result != Applied || e.From == nil || e.To == nil || e.Action != actionSysctl && e.Action != actionRelisten {
			continue
		}
		c := change{*e.From, e}
		if i := slices.IndexFunc(out, c.same); i >= 0 {
			// Only what follows on is one change: after somebody else's the
			// sum begins anew.
			if *out[i].last.To == c.from {
				c.from = out[i].from
			}
			out = slices.Delete(out, i, i+1)
		}
		if c.from != *e.To {
			out = append(out, c)
		}
	}
	return out
}

// steppedAside tells why qwatch leaves a key alone, "" if it does not: qwatch
// set it, the host has run ever since, and now it has a value that qwatch did
// not set. An administrator's later change wins.
func (h History) steppedAside(key string, live int, booted time.Time) string {
	e, ok := h.latest(func(e Event) bool {
		return e.Action == actionSysctl && e.Target == key && e.Result == Applied && e.To != nil
	})
	if !ok || e.Time.Before(booted) || *e.To <= live {
		return ""
	}
	return fmt.Sprintf("qwatch set %s to %d at %s, and somebody has set it to %d since", key, *e.To, e.Time.Format(time.RFC3339), live)
}
