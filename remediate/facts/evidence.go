package facts

import (
	"cmp"
	"fmt"
	"time"

	"qwatch/internal/text"
)

// Evidence is what the kernel showed of one accept queue over some time.
type Evidence struct {
	Samples int // how many there are
	Old     int // where there are none, how many there are that count no more
	Full    int // samples that found the queue full
	Peak    int // longest queue
	Limit   int // the limit at the newest sample
	// Drops is the socket's own. Where it is not known the overflows of its
	// namespace have to do; both are absent for a UNIX socket.
	Drops     Fact[Drops]
	Overflows Fact[uint64]
	// OthersCalm is true where no other uWSGI socket of the namespace was found
	// at least half full, so that the namespace's overflows are likely this
	// one's.
	OthersCalm bool
	// SoleListener is Socket.SoleListener: no other socket could have overflowed.
	SoleListener bool
	Over         time.Duration // from the first sample to the last
}

// Weigh draws the evidence about one socket from the samples, in the order of
// time, that tell of it as it is (LooksSince). ListenOverflows counts TCP only
// (net/ipv4/tcp_ipv4.c tcp_v4_syn_recv_sock): a UNIX socket that is full
// refuses connect(2) itself (net/unix/af_unix.c unix_stream_connect), so for
// one there are none to count.
func Weigh(s Socket, samples []Sample, since time.Time) Evidence {
	e := Evidence{OthersCalm: true, SoleListener: s.SoleListener}
	var first, last Sample
	var counted []Sample
	since = LooksSince(s, samples, since)
	for _, r := range samples {
		switch {
		case r.At.Before(since) && r.ID == s.ID:
			e.Old++
		case r.At.Before(since) || r.ID.NetNS != s.ID.NetNS:
		case r.ID != s.ID:
			if HalfFull(r.Length, r.Limit) {
				e.OthersCalm = false
			}
		default:
			if e.Samples == 0 {
				first = r
			}
			if last = r; r.Uncounted == "" {
				counted = append(counted, r)
			}
			e.Samples++
			e.Peak = max(e.Peak, r.Length)
			if r.Full() {
				e.Full++
			}
		}
	}
	if e.Samples > 0 {
		e.Old = 0
		e.Limit = last.Limit
		e.Over = last.At.Sub(first.At)
		e.Drops, e.Overflows = overflowsIn(counted, cmp.Or(first.Uncounted, last.Uncounted))
	}
	if s.Family == Unix {
		e.Drops, e.Overflows = Absent[Drops](), Absent[uint64]()
	}
	return e
}

// overflowsIn are the overflows of a socket and of its namespace between the
// samples. beyond says why none is known of the time before or after them, ""
// where they are all.
func overflowsIn(counted []Sample, beyond string) (own Fact[Drops], all Fact[uint64]) {
	if len(counted) < 2 {
		return Unknown[Drops](beyond), Unknown[uint64](beyond)
	}
	for i := range counted[1:] {
		more := counted[i+1].Overflowed(counted[i])
		if i == 0 {
			own = more
		} else {
			own = DropsOver(own, more)
		}
	}
	first, last := counted[0], counted[len(counted)-1]
	switch {
	case last.Overflows < first.Overflows:
		all = Unknown[uint64]("the counter of its network namespace began anew")
	case beyond != "" && last.Overflows == first.Overflows:
		all = Unknown[uint64](beyond)
	default:
		all = Known(last.Overflows - first.Overflows)
	}
	if beyond != "" {
		own = DropsOver(own, Unknown[Drops](beyond))
	}
	return own, all
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
	return e.Overflows.Value > 0 && (e.SoleListener || e.OthersCalm && half)
}

// HalfFull reports whether a queue of this length holds at least half of its
// limit, and at least one connection.
func HalfFull(length, limit int) bool { return length > 0 && 2*length >= limit }

// String tells the evidence in words.
func (e Evidence) String() string {
	if e.Samples == 0 && e.Old > 0 {
		return fmt.Sprintf("no look counts yet: what %s found is too old, or from before a raise or a reload", text.Plural(e.Old, "sample", "samples"))
	}
	if e.Samples == 0 {
		return "the kernel was not looked at"
	}
	s := fmt.Sprintf("%d of %s over %s found the queue full (longest %d, limit %d)",
		e.Full, text.Plural(e.Samples, "sample", "samples"), e.Over.Round(100*time.Millisecond), e.Peak, e.Limit)
	d, known := e.Drops.Get()
	all, counted := e.Overflows.Get()
	switch {
	case e.Drops.IsAbsent(): // nobody counts the clients that a UNIX socket refuses
		return s
	case known && (d.Least > 0 || d.Most == 0):
		return s + ", " + d.String()
	case all > 0:
		s += ", " + text.Plural(int(all), "overflow", "overflows") + " in its network namespace"
		if known {
			s += ", none of which is known to be its own"
		}
		return s
	case known:
		return s + ", " + d.String()
	case e.Samples == 1: // whether there were any was not seen
		return s
	case !counted:
		return s + ", whether it overflowed is not known: " + e.Overflows.Unseen()
	}
	return s + ", no overflows"
}
