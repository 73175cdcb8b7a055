package remediate

import "time"

// History is what was done before, as the audit trail tells it.
type History []Event

// ended reports whether the event tells how an action ended, or that it was
// planned in a dry run.
func (e Event) ended() bool { return e.Result != Started }

// raises collects, per plan, the newest event of each raise of a socket that
// reached past the kernel parameters: only then was the socket itself touched
// (or planned to be).
func (h History) raises(socket string) []Event {
	var out []Event
	for _, e := range h {
		if e.Socket != socket || !e.ended() || e.Action == "sysctl" && e.Result != Failed && e.Result != Planned {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Plan == e.Plan {
			out[n-1] = e
		} else {
			out = append(out, e)
		}
	}
	return out
}

// LastRaise is when the socket was last raised, or a raise was tried. A plan
// that found the host changed (Stale) does not count: a new one may be made at
// once.
func (h History) LastRaise(socket string) (time.Time, bool) {
	raises := h.raises(socket)
	for i := len(raises) - 1; i >= 0; i-- {
		if raises[i].Result != Stale {
			return raises[i].Time, true
		}
	}
	return time.Time{}, false
}

// Fruitless counts the raises within one incident of a socket that were
// carried out, or failed, and did not end it.
func (h History) Fruitless(socket, incident string) int {
	n := 0
	for _, e := range h.raises(socket) {
		if e.Incident == incident && e.Result != Planned {
			n++
		}
	}
	return n
}

// RelistenFailed returns the error of the newest attempt to raise a socket of
// this master in place, "" if it worked or none was made.
func (h History) RelistenFailed(socket string, master Process) string {
	for i := len(h) - 1; i >= 0; i-- {
		e := h[i]
		if e.Action == "relisten" && e.Socket == socket && e.PID == master.PID && e.Start == master.Start && e.ended() {
			if e.Result == Failed {
				return e.Error
			}
			return ""
		}
	}
	return ""
}

// LastReload is when this master was last asked to reload.
func (h History) LastReload(master Process) (time.Time, bool) {
	for i := len(h) - 1; i >= 0; i-- {
		if e := h[i]; e.reloads() && e.PID == master.PID && e.Start == master.Start {
			return e.Time, true
		}
	}
	return time.Time{}, false
}

// Reloads counts the reloads on the host since a time.
func (h History) Reloads(since time.Time) int {
	n := 0
	for _, e := range h {
		if e.reloads() && e.Time.After(since) {
			n++
		}
	}
	return n
}

// reloads reports whether a master was asked to reload, or would have been. A
// Failed reload counts: the signal may have been sent.
func (e Event) reloads() bool {
	return e.Action == "reload" && (e.Result == Applied || e.Result == Failed || e.Result == Planned)
}

// Overtaken reports whether something was done about the plan's socket after
// the plan was made, by this qwatch or another: the plan is then out of date.
func (h History) Overtaken(p Plan) bool {
	for i := len(h) - 1; i >= 0 && h[i].Time.After(p.At); i-- {
		if h[i].Socket == p.Name && h[i].Plan != p.ID && h[i].Result != Planned {
			return true
		}
	}
	return false
}

// Unfinished returns the started actions of which the trail does not say how
// they ended: qwatch was killed in between.
func (h History) Unfinished() []Event {
	type key struct{ plan, action, target string }
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

// Settle tells how an action that was cut short ended, from what the host
// shows now. Nothing is done again.
func Settle(e Event, f Facts) Event {
	e.Time = f.At.UTC()
	e.Result, e.Error = Failed, "interrupted before it took effect"
	switch e.Action {
	case "sysctl":
		if e.To != nil && f.Sysctl[e.Target] == *e.To {
			e.Result = Applied
		}
	case "relisten":
		for _, s := range f.Sockets {
			if s.ID.Inode == e.Inode && e.To != nil && s.Limit == *e.To {
				e.Result = Applied
			}
		}
	default:
		// That a signal was sent cannot be seen afterwards; a reload that did
		// happen is safe to have counted, one that did not is tried again by
		// the policy.
		e.Error = "interrupted; it is not known whether it took effect"
	}
	if e.Result == Applied {
		e.Error = ""
		e.Why += " (qwatch was interrupted; the host shows that it took effect)"
	}
	return e
}
