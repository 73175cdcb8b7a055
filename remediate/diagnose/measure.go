package diagnose

import (
	"slices"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

const (
	clockTick = facts.ClockTick
	// measurable is the least time to draw a rate from.
	measurable = 2 * time.Second
)

// measured is an Input and the numbers that can be drawn from it.
type measured struct {
	Input
	socket   facts.Socket
	all      []facts.Sample // of this socket
	own      []facts.Sample // those of them that tell of it as it is
	evidence facts.Evidence
	rate     float64 // accepted each second, -1 unknown
	most     float64 // no more than this, where the rate is not known; -1 unknown
	dropped  float64 // overflows each second, at least; 0 where that is not known

	// halfFull is how long the queue has been at least half full without a break.
	halfFull time.Duration
	// short is from a moment some 2 s ago to now, long from one 15 s ago;
	// without such a moment short is as much as there is, and long is empty.
	short, long span
}

func measure(in Input) measured {
	m := measured{Input: in.without(), socket: in.Now.Socket, rate: -1, most: -1}
	since := facts.LooksSince(m.socket, m.Samples, in.Acts.Since)
	for _, s := range m.Samples {
		if s.ID == m.socket.ID {
			m.all = append(m.all, s)
			if !s.At.Before(since) {
				m.own = append(m.own, s)
			}
		}
	}
	m.evidence = facts.Weigh(m.socket, m.Samples, since)
	m.halfFull = m.lasting(func(s facts.Sample) bool { return facts.HalfFull(s.Length, s.Limit) })
	m.findSpans()
	m.countAccepts()
	// Requests are counted exactly, and of this uWSGI alone.
	for _, s := range []span{m.short, m.long} {
		if n, over, known := s.answered(); known {
			m.rate = float64(n) / over.Seconds()
			m.most = m.rate
		}
	}
	if m.restarting() { // what the workers take meanwhile is no measure of them
		m.rate, m.most = -1, -1
	}
	return m
}

// lasting is for how long each sample up to the last was so.
func (m measured) lasting(so func(facts.Sample) bool) (long time.Duration) {
	for _, s := range slices.Backward(m.own) {
		if !so(s) {
			break
		}
		long = m.own[len(m.own)-1].At.Sub(s.At)
	}
	return long
}

func (m *measured) findSpans() {
	for _, before := range m.Earlier {
		apart := m.Now.At.Sub(before.At)
		if !before.Socket.Master.Same(m.socket.Master) || apart <= 0 {
			continue
		}
		if m.short.apart == 0 || apart >= lockProof {
			m.short = span{before, m.Now, apart}
		}
		if apart >= stallProof {
			m.long = m.short
		}
	}
}

// countAccepts draws rates from the kernel's counters. A calm time before the
// queue filled says nothing of what the workers can do.
func (m *measured) countAccepts() {
	over := m.halfFull
	if over < measurable {
		over = m.evidence.Over
	}
	if over < measurable {
		return
	}
	since := m.own[len(m.own)-1].At.Add(-over)
	n, known := m.accepted(since)
	if n >= 0 {
		m.most = float64(n) / over.Seconds()
	}
	if known {
		m.rate = m.most
	}
	e := facts.Weigh(m.socket, m.own, since)
	if d, ok := e.Drops.Get(); ok {
		m.dropped = float64(d.Least) / over.Seconds()
	} else if m.socket.SoleListener {
		m.dropped = float64(e.Overflows.Value) / over.Seconds()
	}
}

// accepted is how many connections were taken from the queue since a moment,
// or where that is not known, the most that it can have been; -1 where nothing
// is known. PassiveOpens counts each connection that enters an accept queue of
// the namespace (tcp_create_openreq_child, net/ipv4/tcp_minisocks.c), so with
// others that accept only their absence is known.
func (m measured) accepted(since time.Time) (n int, known bool) {
	own := slices.DeleteFunc(slices.Clone(m.all), func(s facts.Sample) bool { return s.At.Before(since) || s.Uncounted != "" })
	if len(own) < 2 || m.socket.Family == facts.Unix {
		return -1, false
	}
	first, last := own[0], own[len(own)-1]
	if last.Opens < first.Opens {
		return -1, false
	}
	// The length is read just before the counter.
	n = max(0, int(last.Opens-first.Opens)-(last.Length-first.Length))
	return n, n == 0 || m.socket.SoleListener
}

// marked reports whether a line of this kind is newer than so long.
func (m measured) marked(kind matcher.MarkKind, within time.Duration) bool {
	return slices.ContainsFunc(m.Marks, func(mark matcher.Mark) bool {
		return mark.Kind == kind && m.Now.At.Sub(mark.At) < within
	})
}

func count(workers []facts.Worker, is func(facts.Worker) bool) (n int) {
	for _, w := range workers {
		if is(w) {
			n++
		}
	}
	return n
}

// every reports whether all workers are so. Of none it is true.
func every(workers []facts.Worker, is func(facts.Worker) bool) bool {
	return count(workers, is) == len(workers)
}

// span is two moments of one uWSGI. It is empty where there is only one.
type span struct {
	before, now Moment
	apart       time.Duration
}

// same reports whether the workers of both moments are the same processes.
func (s span) same() bool {
	before := s.before.Socket.Workers
	return len(before) > 0 && slices.EqualFunc(before, s.now.Socket.Workers, func(a, b facts.Worker) bool { return a.Process.Same(b.Process) })
}

// answered is how many requests the stats server counted between its answers
// of the two moments, and over which time. An answer that is kept because the
// server is silent is no second one.
func (s span) answered() (n uint64, over time.Duration, known bool) {
	before, now := s.before.Socket.Stats, s.now.Socket.Stats
	if before == nil || now == nil || now.Requests < before.Requests {
		return 0, 0, false
	}
	over = now.At.Sub(before.At)
	return now.Requests - before.Requests, over, over >= measurable && s.now.statsFresh()
}

// cpu is the share of a CPU that each worker used in between.
func (s span) cpu() (share float64, ok bool) {
	if s.apart < measurable || !s.same() {
		return 0, false
	}
	var ticks uint64
	for i, w := range s.now.Socket.Workers {
		ticks += w.Ticks - s.before.Socket.Workers[i].Ticks
	}
	return float64(ticks) * clockTick.Seconds() / s.apart.Seconds() / float64(len(s.now.Socket.Workers)), true
}

// asleep reports whether the workers used no CPU time worth counting.
func (s span) asleep() bool {
	share, ok := s.cpu()
	return ok && share < 0.01
}

// working reports whether any worker ran in between.
func (s span) working() bool { return s.apart >= measurable && !(s.same() && s.mayHaveFrozen()) }

// frozen reports whether no thread of any worker has run in between.
func (s span) frozen() bool {
	return s.same() && s.mayHaveFrozen() &&
		!slices.ContainsFunc(s.now.Socket.Workers, func(w facts.Worker) bool { return w.Switches == 0 })
}

// mayHaveFrozen is frozen where nothing is known to the contrary.
func (s span) mayHaveFrozen() bool {
	return slices.EqualFunc(s.now.Socket.Workers, s.before.Socket.Workers, func(a, b facts.Worker) bool {
		return a.Ticks == b.Ticks && (a.Switches == b.Switches || a.Switches == 0 || b.Switches == 0)
	})
}
