package facts

import (
	"fmt"
	"time"

	"qwatch/internal/text"
)

// Evidence is what the kernel showed of one accept queue over some time.
type Evidence struct {
	Samples int // how many there are
	Full    int // samples that found the queue full
	Peak    int // longest queue
	Limit   int // the limit at the newest sample
	// Drops is the socket's own; absent for a UNIX socket. Where it is not known
	// the overflows of its namespace have to do.
	Drops     Fact[Drops]
	Overflows uint64
	// OthersCalm is true where no other uWSGI socket of the namespace was found
	// at least half full, so that the namespace's overflows are likely this
	// one's.
	OthersCalm bool
	// SoleListener is Socket.SoleListener: no other socket could have overflowed.
	SoleListener bool
	Over         time.Duration // from the first sample to the last
}

// Weigh draws the evidence about one socket from all samples taken at or after
// since, in the order of time. ListenOverflows counts TCP only
// (net/ipv4/tcp_ipv4.c tcp_v4_syn_recv_sock): a UNIX socket that is full
// refuses connect(2) itself (net/unix/af_unix.c unix_stream_connect), so for
// one there are none to count.
func Weigh(s Socket, samples []Sample, since time.Time) Evidence {
	e := Evidence{OthersCalm: true, SoleListener: s.SoleListener}
	var first, last Sample
	if s.Family == Unix {
		e.Drops = Absent[Drops]()
	}
	for _, r := range samples {
		switch {
		case r.At.Before(since) || r.ID.NetNS != s.ID.NetNS:
		case r.ID != s.ID:
			if HalfFull(r.Length, r.Limit) {
				e.OthersCalm = false
			}
		default:
			if e.Samples == 0 {
				first = r
			} else {
				e.Drops = e.add(r.Overflowed(last))
			}
			last = r
			e.Samples++
			e.Peak = max(e.Peak, r.Length)
			if r.Full() {
				e.Full++
			}
		}
	}
	if e.Samples > 0 {
		e.Limit = last.Limit
		e.Over = last.At.Sub(first.At)
		if last.Overflows > first.Overflows && s.Family != Unix {
			e.Overflows = last.Overflows - first.Overflows
		}
	}
	return e
}

// add adds the drops between two samples to those before.
func (e Evidence) add(more Fact[Drops]) Fact[Drops] {
	a, ok := e.Drops.Get()
	b, known := more.Get()
	switch {
	case !known && (ok || e.Drops.IsAbsent()):
		return e.Drops
	case !known || !ok:
		return more
	}
	return Known(Drops{Least: a.Least + b.Least, Most: a.Most + b.Most, Proven: a.Proven || b.Proven})
}

// Corroborates reports whether the kernel itself shows a full queue: a sample
// found it so, or it was full between two of them.
func (e Evidence) Corroborates() bool { return e.Full > 0 || e.Burst() }

// Burst reports whether connections found the queue full between the samples:
// the socket's own counter shows that, and it was half full or nobody else
// refused any. Where the kernel has no such counter the namespace's has to have
// risen, and that can only have been this queue's: no other socket accepts
// there, or no other queue of a uWSGI was even half full and this one was.
func (e Evidence) Burst() bool {
	half := HalfFull(e.Peak, e.Limit)
	if d, known := e.Drops.Get(); known {
		return d.Least > 0 && (d.Proven || half)
	}
	return e.Overflows > 0 && (e.SoleListener || e.OthersCalm && half)
}

// HalfFull reports whether a queue of this length holds at least half of its
// limit, and at least one connection.
func HalfFull(length, limit int) bool { return length > 0 && 2*length >= limit }

// String tells the evidence in words.
func (e Evidence) String() string {
	if e.Samples == 0 {
		return "the kernel was not looked at"
	}
	s := fmt.Sprintf("%d of %s over %s found the queue full (longest %d, limit %d)",
		e.Full, text.Plural(e.Samples, "sample", "samples"), e.Over.Round(100*time.Millisecond), e.Peak, e.Limit)
	switch d, known := e.Drops.Get(); {
	case e.Drops.IsAbsent(): // nobody counts the clients that a UNIX socket refuses
		return s
	case known && (d.Least > 0 || d.Most == 0):
		return s + ", " + d.String()
	case e.Overflows > 0:
		s += ", " + text.Plural(int(e.Overflows), "overflow", "overflows") + " in its network namespace"
		if known {
			s += ", none of which is known to be its own"
		}
		return s
	case e.Samples == 1: // whether there were any was not seen
		return s
	}
	return s + ", no overflows"
}
