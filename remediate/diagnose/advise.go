package diagnose

import (
	"fmt"
	"math"
	"strings"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/advice"
)

// advice is what an administrator should do, the most pressing first.
func (m measured) advice(d Diagnosis) []string {
	urgent := m.urgent()
	switch d.Kind {
	case FalseAlarm:
		return append(urgent, "nothing is wrong with the queue: uWSGI reads such numbers where it runs emulated (an amd64 image on ARM): run an image for this CPU")
	case Idle:
		return append(urgent, advice.KeepLimit(m.socket)...)
	case Stall:
		return append(urgent, m.unstick()...)
	case Respawn:
		return append(urgent, m.awaitWorkers()...)
	}
	return append(urgent, m.relieve(d)...)
}

// urgent is what to do whatever the state of the queue.
func (m measured) urgent() (list []string) {
	for _, mark := range m.Marks {
		if mark.Kind == matcher.MarkNoStart {
			list = append(list, fmt.Sprintf("a uWSGI refused to start, its listen being over somaxconn (%d): raise somaxconn first or lower listen", mark.Limit))
			break
		}
	}
	if before := advice.BeforeRestart(m.socket); before != "" {
		list = append(list, before)
	}
	if m.marked(matcher.MarkTooFast, time.Minute) {
		list = append(list, "find out why workers die as soon as they start: uWSGI's log says so above \"respawning too fast\"")
	} else if m.marked(matcher.MarkDied, time.Minute) {
		list = append(list, "find out what kills the workers: signal 9 is most often the kernel for want of memory (journalctl -k -g 'Out of memory')")
	}
	return list
}

// unstick is what to do about workers that are stuck.
func (m measured) unstick() (list []string) {
	var stopped []string
	for _, w := range m.socket.Workers {
		if w.Stopped() {
			stopped = append(stopped, fmt.Sprint(w.PID))
		}
	}
	if len(stopped) > 0 {
		return []string{"let the stopped workers go on: kill -CONT " + strings.Join(stopped, " ")}
	}
	if count(m.socket.Workers, waitsOnSharedLock) > 0 || m.marked(matcher.MarkDeadlock, time.Minute) {
		list = append(list, advice.ThunderLock(m.socket))
	}
	how := "uWSGI"
	switch master := m.socket.Master; {
	case master.Container != "":
		how = "the container " + master.Container
	case master.Unit.Value != "":
		how += ": systemctl restart " + master.Unit.Value
	}
	list = append(list, fmt.Sprintf("restart %s (a graceful reload would wait for the stuck workers)", how))
	return append(append(list, m.harakiri()...), "a longer queue would only let more clients wait for nothing")
}

// awaitWorkers is what to do while workers start.
func (m measured) awaitWorkers() []string {
	list := []string{"wait until the workers are up, then the queue drains by itself"}
	if m.Now.At.Sub(m.Now.startOf(m.socket.Master)) >= young {
		list = append(list, advice.LazyApps(m.socket))
	}
	return append(list, advice.KeepLimit(m.socket)...)
}

// relieve is what to do about a queue that fills, by a burst or for good.
func (m measured) relieve(d Diagnosis) (list []string) {
	if bound := d.MaxTarget > 0 && d.MaxTarget <= m.socket.Limit; !d.AtCeiling && !bound {
		target := m.Bounds.Target
		if d.MaxTarget > 0 {
			target = min(target, d.MaxTarget)
		}
		list = append(list, m.lengthen(target)...)
	}
	if d.AcceptRate < 0 && m.halfFull >= overloadProof {
		list = append(list, advice.StatsServer(m.socket))
	}
	if d.Kind == Overload || d.AtCeiling {
		list = append(list, advice.BuysSeconds, m.moreWorkers())
		if share, ok := m.short.cpu(); ok && share >= 0.5 {
			list = append(list, "the workers compute: more of them help only as far as CPUs are idle")
		} else {
			list = append(list, m.harakiri()...)
		}
	}
	if m.marked(matcher.MarkHarakiri, time.Minute) {
		list = append(list, "look at the requests that harakiri ends: each has held a worker for all that time")
	}
	if d.AtCeiling {
		list = append(list, advice.KeepLimit(m.socket)...)
	}
	return list
}

// harakiri says how stuck workers end by themselves, if they do not yet.
func (m measured) harakiri() []string {
	if m.marked(matcher.MarkHarakiri, time.Minute) {
		return nil
	}
	return []string{advice.Harakiri(m.socket)}
}

// moreWorkers says how many workers would do, as far as the numbers tell.
func (m measured) moreWorkers() string {
	n := len(m.socket.Workers)
	if m.rate <= 0 || m.dropped == 0 || n == 0 {
		return advice.MoreWorkers(n)
	}
	// A client that is turned away comes again (TCP's SYN retransmission), so
	// this is the most that it may take.
	need := max(n+1, int(math.Ceil(float64(n)*(m.rate+m.dropped)/m.rate)))
	beside := fmt.Sprintf("%s connections a second were turned away beside the %s taken, retries counted", number(m.dropped), number(m.rate))
	if need > 8*n {
		return fmt.Sprintf("more workers (processes) than its %d are not enough by far: %s", n, beside)
	}
	return fmt.Sprintf("up to %d workers (processes) instead of %d: %s", need, n, beside)
}

// lengthen says how to give the socket this limit for good.
func (m measured) lengthen(target int) (list []string) {
	s := m.socket
	if now, known := s.Somaxconn.Get(); known && now < target {
		list = advice.Somaxconn(s, max(target, s.Config.Listen.Value.Listen), m.Bounds.SysctlFile)
	}
	switch next, known := s.AfterRestart().Get(); {
	case !known || next < target:
		list = append(list, advice.Persist(s, target))
	case s.Limit < next:
		list = append(list, advice.Restart(s, target))
	}
	return list
}
