package remediate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"qwatch/remediate/facts"
)

// History is what was done before, as the audit trail tells it, the oldest
// first.
type History []Event

// countedBy drops what a dry run planned, where the policy acts: nothing of it
// has happened.
func (h History) countedBy(p Policy) History {
	return slices.DeleteFunc(slices.Clone(h), func(e Event) bool { return e.DryRun && !p.DryRun })
}

// ended reports whether the event tells how an action ended, or that it was
// planned in a dry run.
func (e Event) ended() bool { return e.Result != Started }

// by reports whether the event is about a socket of this master.
func (e Event) by(master facts.Process) bool { return e.PID == master.PID && e.Start == master.Start }

// reloads are the newest events of the reloads that a master was asked for, or
// would have been. One that Failed counts: the signal may have been sent; and so
// does one that is under way.
func (h History) reloads() (out History) {
	for _, e := range h {
		if e.Action != actionReload {
			continue
		}
		out = slices.DeleteFunc(out, func(o Event) bool { return o.Plan == e.Plan && o.by(facts.Process{PID: e.PID, Start: e.Start}) })
		if e.Result != Stale && e.Result != Skipped {
			out = append(out, e)
		}
	}
	return out
}

// of reports whether the event is about this unit's uWSGI, or this uWSGI where it
// has none.
func (e Event) of(master facts.Process) bool {
	if master.Unit.Value == "" {
		return e.by(master)
	}
	return e.Unit == master.Unit.Value
}

// within reports whether t lies less than span from now, before or after. A
// time further ahead was written before the clock was set back: held to it, a
// cooldown could last for years.
func within(t, now time.Time, span time.Duration) bool {
	ago := now.Sub(t)
	return -span < ago && ago < span
}

// last is the newest event.
func (h History) last() (e Event, ok bool) { return h.latest(func(Event) bool { return true }) }

// latest is the newest event that is so.
func (h History) latest(so func(Event) bool) (e Event, ok bool) {
	for _, e := range slices.Backward(h) {
		if so(e) {
			return e, true
		}
	}
	return Event{}, false
}

// recent counts the events within the hour around now that are so.
func (h History) recent(now time.Time, so func(Event) bool) (n int) {
	for _, e := range h {
		if within(e.Time, now, time.Hour) && so(e) {
			n++
		}
	}
	return n
}

// raises collects, per plan, the newest event of each raise of a socket that
// reached past the kernel parameters: only then was the socket itself touched
// (or planned to be). A plan that found the host changed (Stale) does not
// count, so that a new one may be made at once; but where the next finds it
// changed again, somebody works against it, and from there on they count.
func (h History) raises(f facts.Snapshot, s facts.Socket) (out History) {
	var plans []Event
	for _, e := range h {
		if !e.ofQueue(f, s) || !e.ended() || e.Action == actionJudge || e.unbegun() || e.lowers() {
			continue
		}
		if e.Action == actionSysctl && (e.Result == Applied || e.Result == Skipped || e.cutShort()) {
			continue
		}
		if n := len(plans); n > 0 && plans[n-1].Plan == e.Plan {
			// A reload that was not asked for takes no raise back.
			if e.Action != actionReload || e.Result != Stale {
				plans[n-1] = e
			}
		} else {
			plans = append(plans, e)
		}
	}
	for i, e := range plans {
		if e.Result != Stale || i > 0 && plans[i-1].Result == Stale {
			out = append(out, e)
		}
	}
	return out
}

// fruitless counts the raises within one incident of a socket that were
// carried out, or failed, and did not end it. last is the newest event of the
// newest of them.
func (h History) fruitless(f facts.Snapshot, s facts.Socket, incident string) (n int, last Event) {
	for _, e := range h.raises(f, s) {
		if e.Incident == incident && e.Result != Planned {
			n, last = n+1, e
		}
	}
	return n, last
}

// lastPlan is the highest number of an incident's plans in the trail, 0 if
// there is none. Numbers must not repeat, not even after a restart: plans are
// told apart by them.
func (h History) lastPlan(incident string) (last int) {
	for _, e := range h {
		if number, ok := strings.CutPrefix(e.Plan, incident+"."); ok && e.Incident == incident {
			if n, err := strconv.Atoi(number); err == nil {
				last = max(last, n)
			}
		}
	}
	return last
}

// relistenFailed returns the error of the incident's newest attempt to raise a
// socket of this master in place, "" if it worked, was interrupted, or none
// was made. With the next incident it is tried again: by then an administrator
// may have given qwatch the right to it.
func (h History) relistenFailed(socket, incident string, master facts.Process) string {
	e, _ := h.latest(func(e Event) bool {
		return e.Action == actionRelisten && e.Socket == socket && e.Incident == incident && e.by(master) && e.ended()
	})
	if e.Result != Failed || e.cutShort() {
		return ""
	}
	return e.Error
}

// unbegun reports whether this is an action that its pass did not come to.
func (e Event) unbegun() bool {
	return e.Result == Skipped && strings.HasPrefix(e.Error, errUnbegun.Error())
}

// lastReload is the newest event of a reload that this master was asked for.
func (h History) lastReload(master facts.Process) (Event, bool) {
	return h.reloads().latest(func(e Event) bool { return e.by(master) })
}

// seenReload names the newest reload of this master that was more than planned,
// "" if there is none.
func (h History) seenReload(master facts.Process) string {
	e, ok := h.latest(func(e Event) bool { return e.Action == actionReload && e.by(master) && e.Result != Planned })
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s of %s", e.Plan, e.Time.Format(time.RFC3339Nano))
}

// Stale reports whether something was done about the plan's socket after the
// plan was made, by this qwatch or another: the plan is then out of date. It
// does not ask the clock, which may have been set in between.
func (h History) Stale(p Plan) bool { return h.seen(p.Name) != p.Seen }

// seen names the newest event about a socket that was more than planned, "" if
// there is none. What a judge said has changed nothing.
func (h History) seen(socket string) string {
	e, ok := h.latest(func(e Event) bool { return e.Socket == socket && e.Result != Planned && e.Action != actionJudge })
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s %s %s of %s", e.Plan, e.Action, e.Result, e.Time.Format(time.RFC3339Nano))
}

// sameAction reports whether another event is about the same action of the same plan.
func (e Event) sameAction(o Event) bool {
	return o.Plan == e.Plan && o.Action == e.Action && o.Target == e.Target
}

// leavesOpen reports whether the action of this event has not ended.
func (h History) leavesOpen(begun Event) bool {
	return slices.ContainsFunc(h.Unfinished(), begun.sameAction)
}

// Unfinished returns the started actions of which the trail does not say how
// they ended: qwatch was killed in between.
func (h History) Unfinished() (open []Event) {
	for _, e := range h {
		open = slices.DeleteFunc(open, e.sameAction)
		if e.Result == Started {
			open = append(open, e)
		}
	}
	return open
}
