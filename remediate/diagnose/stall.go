package diagnose

import (
	"cmp"
	"fmt"
	"time"

	"qwatch/internal/text"
	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// stalled says why nothing takes connections, "" where that is not proven.
func (m measured) stalled() string {
	workers := m.socket.Workers
	if n := len(workers); n > 0 && every(workers, facts.Worker.Stopped) {
		return fmt.Sprintf("%s stopped (SIGSTOP or a debugger)", all(n))
	}
	if !m.socket.Full() {
		return ""
	}
	return cmp.Or(m.helpless(), m.deadlocked(), m.idleLong())
}

// helpless says what all workers have been waiting for that only somebody else
// can end.
func (m measured) helpless() string {
	workers, apart := m.socket.Workers, m.short.apart
	if apart < lockProof || !m.short.same() || !m.short.mayHaveFrozen() ||
		!every(workers, facts.Worker.Helpless) || !every(m.short.before.Socket.Workers, facts.Worker.Helpless) {
		return ""
	}
	if n, known := m.accepted(m.short.before.At); known && n > 0 {
		return ""
	}
	if n, _, known := m.short.answered(); known && n > 0 {
		return ""
	}
	shared := count(workers, waitsOnSharedLock)
	switch n := len(workers); {
	case every(workers, facts.Worker.Dead):
		return fmt.Sprintf("%s dead for %s, and the master does not replace them", all(n), short(apart))
	case every(workers, func(w facts.Worker) bool { return w.State == 'D' }):
		return fmt.Sprintf("%s in uninterruptible sleep for %s (a disk or network file system that does not answer)", all(n), short(apart))
	case shared > 0:
		return fmt.Sprintf("%d of %s waited %s for a lock that uWSGI shares between them (its thunder lock, uwsgi.lock), and the others cannot give it back", shared, text.Plural(n, "worker has", "workers have"), short(apart))
	default:
		return fmt.Sprintf("%s waiting for a lock that nobody gives back, for %s and without CPU time (deadlock)", all(n), short(apart))
	}
}

func waitsOnSharedLock(w facts.Worker) bool { return w.Waits == facts.WaitsOnSharedLock }

// doubt says that the workers look helpless, where they have not been seen for
// long enough to tell. Without it a raise could come first: the third record is
// written 2 s after the first, which is when the workers are first looked at.
func (m measured) doubt() string {
	n, late := len(m.socket.Workers), count(m.socket.Workers, func(w facts.Worker) bool { return w.Late })
	if n == 0 || !m.socket.Full() || m.lasting(facts.Sample.Full) >= doubtful ||
		!every(m.socket.Workers, func(w facts.Worker) bool { return w.Late || w.Helpless() }) {
		return ""
	}
	if late > 0 {
		return fmt.Sprintf("what %d of its %s for could not be read in time; whether that is a stall shows within a few seconds", late, text.Plural(n, "worker waits", "workers wait"))
	}
	if m.short.apart >= lockProof && m.short.same() && every(m.short.before.Socket.Workers, facts.Worker.Helpless) {
		return "" // they were seen for long enough, and some have worked
	}
	return fmt.Sprintf("%s waiting for what only somebody else can end; whether that is a stall shows within a few seconds", all(n))
}

// deadlocked takes uWSGI's word where the kernel shows the same.
func (m measured) deadlocked() string {
	var at time.Time
	for _, mark := range m.Marks {
		if mark.Kind == matcher.MarkDeadlock && m.Now.At.Sub(mark.At) < time.Minute && mark.At.After(at) {
			at = mark.At
		}
	}
	if at.IsZero() || m.Now.At.Sub(at) < lockProof {
		return ""
	}
	if n, known := m.accepted(at); known && n == 0 || m.short.apart >= lockProof && m.short.frozen() {
		return "uWSGI's deadlock-detector raised an alarm, and no connection was taken since"
	}
	return ""
}

// idleLong says that nothing was done for so long that no request explains it.
func (m measured) idleLong() string {
	full := m.lasting(facts.Sample.Full)
	if full < stallProof {
		return ""
	}
	if m.long.frozen() {
		return fmt.Sprintf("full for %s, and for %s no worker has run at all", short(full), short(m.long.apart))
	}
	taken, known := m.accepted(m.own[len(m.own)-1].At.Add(-full))
	answered, over, counted := m.long.answered()
	counted = counted && over >= stallProof-statsAge
	if m.short.apart >= lockProof && m.short.asleep() && (known && taken == 0 || counted && answered == 0 && m.long.asleep()) {
		return fmt.Sprintf("full for %s, in which no connection was taken, and the workers use no CPU time", short(full))
	}
	return ""
}
