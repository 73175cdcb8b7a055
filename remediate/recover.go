package remediate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"qwatch/internal/text"
	"qwatch/remediate/facts"
)

// ErrStopped is the error of an action whose end was not waited for.
var ErrStopped = errors.New("qwatch was stopped while this was under way; it stays open in the audit trail until the next start looks how it ended")

// left reports whether the end of an action was not seen since qwatch is to stop:
// uWSGI and systemd go on with what they were asked for, so that it has not
// failed.
func left(ctx context.Context, a Action, o Outcome) bool {
	return slow(a) && o.Result == Failed && ctx.Err() != nil
}

// interrupted begins the error of an action that was begun and not ended. What
// follows is what is known of it.
const interrupted = "interrupted"

// cutShort reports whether nobody saw how the action ended: that says nothing of
// whether it is possible.
func (e Event) cutShort() bool { return e.Result == Failed && strings.HasPrefix(e.Error, interrupted) }

// Recover brings the actions that a former qwatch began and did not end to an
// end in the trail, from what the host shows now. told is called for each; the
// others are still tried where one cannot be recorded. A reload or a start that is
// younger than patience and may be under way yet is left to the next call.
func (r Runner) Recover(ctx context.Context, patience time.Duration, told func(begun, end Event)) error {
	history, err := r.Trail.History()
	if err != nil || len(history.Unfinished()) == 0 {
		return err
	}
	// What another qwatch is doing just now is not interrupted.
	unlock, err := r.lock(ctx, r.Trail.Lock)
	if err != nil {
		return err
	}
	defer unlock()
	snapshot, err := r.Host.Observe(ctx)
	if err != nil {
		return err
	}
	if history, err = r.Trail.History(); err != nil {
		return err
	}
	var failed error
	for _, begun := range history.Unfinished() {
		if begun.slow() {
			now, cancel := context.WithTimeout(ctx, 0)
			unlock, err := r.Trail.Hold(now, held(begun))
			cancel()
			if err != nil {
				continue // another qwatch is still at it
			}
			defer unlock()
			// It may have ended it, and let go, since the trail was read.
			if history, err = r.Trail.History(); err != nil || !history.leavesOpen(begun) {
				failed = errors.Join(failed, err)
				continue
			}
		}
		end, over := recovered(begun, snapshot)
		if !over && within(begun.Time, snapshot.At, patience) {
			continue
		}
		if err := r.Trail.Append(end); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		told(begun, end)
	}
	return failed
}

// slow is slow of the event's action.
func (e Event) slow() bool { return e.Action == actionReload || e.Action == actionStart }

// LeftOpen reports whether a reload or a start was begun of which the trail does
// not say how it ended.
func (h History) LeftOpen() bool { return slices.ContainsFunc(h.Unfinished(), Event.slow) }

// recovered tells how an action that was cut short ended, from what the host
// shows now. Nothing is done again. It is not over where it may be under way yet.
func recovered(e Event, f facts.Snapshot) (end Event, over bool) {
	begun := e.Time
	e.Time = f.At.UTC()
	e.Result, e.Error = Failed, interrupted
	switch e.Action {
	case actionSysctl:
		if now, known := f.Sysctl[e.Target]; known {
			e.Now = &now
		}
	case actionRelisten:
		for _, s := range f.Sockets {
			if e.about(s) {
				e.Now = &s.Limit
			}
		}
	case actionReload:
		why, over := reloadedSince(e, begun, f)
		e.Error += "; " + why
		return e, over
	case actionStart:
		why, over := startedSince(e, f)
		e.Error += "; " + why
		return e, over
	}
	switch {
	case e.Now == nil:
		e.Error += "; it is not known whether it took effect: what it was about is not seen any more"
	case e.To != nil && *e.Now == *e.To:
		e.Result, e.Error = Applied, ""
		e.Why += " (qwatch was interrupted; the host shows that it took effect)"
	case e.From != nil && *e.Now == *e.From:
		e.Error += " before it took effect"
	default:
		e.Error += fmt.Sprintf("; it is not known whether it took effect: it is %d now", *e.Now)
	}
	return e, true
}

// reloadedSince says what the workers of a uWSGI tell of a reload that it was asked
// for. That a signal was sent cannot be seen afterwards; a reload that did happen
// is safe to have counted, one that did not is tried again by the policy.
func reloadedSince(e Event, begun time.Time, f facts.Snapshot) (what string, over bool) {
	const unknown = "it is not known whether it took effect"
	var master facts.Process
	workers := map[int]facts.Worker{}
	for _, s := range f.Sockets {
		if !e.by(s.Master) {
			continue
		}
		master = s.Master
		for _, w := range s.Workers {
			if !w.Dead() {
				workers[w.PID] = w
			}
		}
	}
	switch {
	case master.PID == 0 && f.HiddenOwners != "":
		return unknown + ": its uWSGI is not seen, and not every one could be looked into: " + f.HiddenOwners, true
	case master.PID == 0:
		return unknown + ": its uWSGI is not there any more", true
	case f.Booted.IsZero():
		return unknown, false
	case len(workers) == 0:
		return unknown + ": no worker is there", false
	}
	fresh := 0
	for _, w := range workers {
		if !f.Born(w.Process).Before(begun.Add(-facts.ClockTick)) {
			fresh++
		}
	}
	whose := text.Plural(len(workers), "worker", "workers") + " of " + master.String()
	switch fresh {
	case 0:
		return fmt.Sprintf("it has not taken effect, or not yet: the %s ran before it was asked for", whose), false
	case len(workers):
		return fmt.Sprintf("the %s came since it was asked for, so it most likely took effect; whether people were served was not watched", whose), true
	}
	return fmt.Sprintf("%s: %d of the %s came since it was asked for", unknown, fresh, whose), false
}

// startedSince says whether the unit that was to be started is seen to listen.
func startedSince(e Event, f facts.Snapshot) (what string, over bool) {
	for _, s := range f.Sockets {
		if s.Master.Unit.Value == e.Target {
			return fmt.Sprintf("%s runs and listens on %s", e.Target, s.Name()), true
		}
	}
	return e.Target + " is not seen to listen", false
}
