package remediate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"qwatch/remediate/facts"
)

// History is what was done before, as the audit trail tells it.
type History []Event

// countedBy drops what a dry run planned, where the policy acts: nothing of it
// has happened.
func (h History) countedBy(p Policy) History {
	return slices.DeleteFunc(slices.Clone(h), func(e Event) bool { return e.DryRun && !p.DryRun })
}

// ended reports whether the event tells how an action ended, or that it was
// planned in a dry run.
func (e Event) ended() bool { return e.Result != Started }

// within reports whether t lies less than span from now, before or after. A
// time further ahead was written before the clock was set back: held to it, a
// cooldown could last for years.
func within(t, now time.Time, span time.Duration) bool {
	ago := now.Sub(t)
	return -span < ago && ago < span
}

// raises collects, per plan, the newest event of each raise of a socket that
// reached past the kernel parameters: only then was the socket itself touched
// (or planned to be). A plan that found the host changed (Stale) does not
// count, so that a new one may be made at once; but where the next finds it
// changed again, somebody works against it, and from there on they count.
//
// The name alone does not say whose socket it was: two masters share one with
// SO_REUSEPORT, and any user can bind a UNIX socket to the path "127.0.0.1:80"
// and overflow it, so that the cooldown of the real one would never end.
func (h History) raises(s facts.Socket) []Event {
	var plans []Event
	for _, e := range h {
		if e.Socket != s.Name() || e.PID != s.Master.PID || e.Start != s.Master.Start || !e.ended() {
			continue
		}
		if e.Action == ActionSysctl && (e.Result == Applied || e.Result == Skipped || e.Error == interrupted) {
			continue
		}
		if n := len(plans); n > 0 && plans[n-1].Plan == e.Plan {
			plans[n-1] = e
		} else {
			plans = append(plans, e)
		}
	}
	var out []Event
	for i, e := range plans {
		if e.Result != Stale || i > 0 && plans[i-1].Result == Stale {
			out = append(out, e)
		}
	}
	return out
}

// lastPlan is the highest number of an incident's plans in the trail, 0 if
// there is none. Numbers must not repeat, not even after a restart: plans are
// told apart by them.
func (h History) lastPlan(incident string) int {
	last := 0
	for _, e := range h {
		if number, ok := strings.CutPrefix(e.Plan, incident+"."); ok && e.Incident == incident {
			if n, err := strconv.Atoi(number); err == nil {
				last = max(last, n)
			}
		}
	}
	return last
}

// LastRaise is when the socket was last raised under its master, or a raise was
// tried. It may lie ahead of now where the clock was set back.
func (h History) LastRaise(s facts.Socket) (time.Time, bool) {
	raises := h.raises(s)
	if len(raises) == 0 {
		return time.Time{}, false
	}
	return raises[len(raises)-1].Time, true
}

// fruitless counts the raises within one incident of a socket that were
// carried out, or failed, and did not end it. last is the newest event of the
// newest of them.
func (h History) fruitless(s facts.Socket, incident string) (n int, last Event) {
	for _, e := range h.raises(s) {
		if e.Incident == incident && e.Result != Planned {
			n, last = n+1, e
		}
	}
	return n, last
}

// relistenFailed returns the error of the incident's newest attempt to raise a
// socket of this master in place, "" if it worked, was interrupted, or none
// was made. With the next incident it is tried again: by then an administrator
// may have given qwatch the right to it.
func (h History) relistenFailed(socket, incident string, master facts.Process) string {
	for i := len(h) - 1; i >= 0; i-- {
		e := h[i]
		if e.Action == ActionRelisten && e.Socket == socket && e.Incident == incident &&
			e.PID == master.PID && e.Start == master.Start && e.ended() {
			if e.Result == Failed && e.Error != interrupted {
				return e.Error
			}
			return ""
		}
	}
	return ""
}

// lastReload is when this master was last asked to reload.
func (h History) lastReload(master facts.Process) (time.Time, bool) {
	for i := len(h) - 1; i >= 0; i-- {
		if e := h[i]; e.reloads() && e.PID == master.PID && e.Start == master.Start {
			return e.Time, true
		}
	}
	return time.Time{}, false
}

// reloadsWithin counts the reloads on the host within span of now.
func (h History) reloadsWithin(now time.Time, span time.Duration) int {
	n := 0
	for _, e := range h {
		if e.reloads() && within(e.Time, now, span) {
			n++
		}
	}
	return n
}

// reloads reports whether a master was asked to reload, or would have been. A
// Failed reload counts: the signal may have been sent.
func (e Event) reloads() bool {
	return e.Action == ActionReload && (e.Result == Applied || e.Result == Failed || e.Result == Planned)
}

// Stale reports whether something was done about the plan's socket after
// the plan was made, by this qwatch or another: the plan is then out of date.
// It does not ask the clock, which may have been set in between.
func (h History) Stale(p Plan) bool { return h.newest(p.Name) != p.Seen }

// newest names the newest event about a socket that was more than planned, ""
// if there is none.
func (h History) newest(socket string) string {
	for i := len(h) - 1; i >= 0; i-- {
		if e := h[i]; e.Socket == socket && e.Result != Planned {
			return fmt.Sprintf("%s %s %s of %s", e.Plan, e.Action, e.Result, e.Time.Format(time.RFC3339Nano))
		}
	}
	return ""
}

// Unfinished returns the started actions of which the trail does not say how
// they ended: qwatch was killed in between.
func (h History) Unfinished() []Event {
	type key struct {
		plan   string
		action ActionKind
		target string
	}
	open := map[key]int{}
	for i, e := range h {
		k := key{e.Plan, e.Action, e.Target}
		if e.Result == Started {
			open[k] = i
		} else {
			delete(open, k)
		}
	}
	var out []Event
	for i, e := range h {
		if j, ok := open[key{e.Plan, e.Action, e.Target}]; ok && i == j {
			out = append(out, e)
		}
	}
	return out
}

// interrupted is the error of an action that a kill of qwatch kept from taking
// effect: it says nothing of whether the action is possible.
const interrupted = "interrupted before it took effect"

// recovered tells how an action that was cut short ended, from what the host
// shows now. Nothing is done again.
func recovered(e Event, f facts.Snapshot) Event {
	e.Time = f.At.UTC()
	e.Result, e.Error = Failed, interrupted
	switch e.Action {
	case ActionSysctl:
		if now, known := f.Sysctl[e.Target]; known {
			e.Now = &now
		}
	case ActionRelisten:
		for _, s := range f.Sockets {
			if s.ID.Inode == e.Inode {
				e.Now = &s.Limit
			}
		}
	default:
		// That a signal was sent cannot be seen afterwards; a reload that did
		// happen is safe to have counted, one that did not is tried again by
		// the policy.
		e.Error = "interrupted; it is not known whether it took effect"
	}
	if e.Now != nil && e.To != nil && *e.Now == *e.To {
		e.Result, e.Error = Applied, ""
		e.Why += " (qwatch was interrupted; the host shows that it took effect)"
	}
	return e
}
