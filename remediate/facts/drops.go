package facts

import (
	"cmp"
	"fmt"
	"math"

	"qwatch/internal/text"
)

// Drops is how many connections found the accept queue of one socket full over
// some time. The kernel counts for each socket what it refused (sk_drops), but
// not only for this reason: a uWSGI's counts every connection, since its first
// ACK waits for data (TCP_DEFER_ACCEPT). What was for this reason is told by the
// counters of the namespace, exactly where no other socket refused anything.
type Drops struct {
	Least, Most uint64 // Most is Boundless where no bound is known
	// Proven says that no other socket can have refused all of the Least.
	Proven bool
}

// Boundless is Drops.Most of a time of which a part was not seen.
const Boundless = math.MaxUint64

// DropsOver are the drops over two times, one after the other. Where nothing is
// known of one, they are known as at least those of the other.
func DropsOver(a, b Fact[Drops]) Fact[Drops] {
	x, first := a.Get()
	y, second := b.Get()
	switch {
	case first && second:
		return Known(Drops{x.Least + y.Least, max(x.Most, y.Most, x.Most+y.Most), x.Proven || y.Proven})
	case first && x.Least > 0:
		return Known(Drops{x.Least, Boundless, x.Proven})
	case second && y.Least > 0:
		return Known(Drops{y.Least, Boundless, y.Proven})
	case first:
		return b
	}
	return a
}

// String tells the number in words.
func (d Drops) String() string {
	switch {
	case d.Most == 0:
		return "no overflows"
	case d.Least == d.Most:
		return text.Plural(int(d.Least), "overflow", "overflows")
	case d.Least > 0:
		return "at least " + text.Plural(int(d.Least), "overflow", "overflows")
	}
	return "at most " + text.Plural(int(d.Most), "overflow", "overflows")
}

// Refused is what a socket has refused since it was made; a UNIX socket counts
// nothing.
type Refused struct {
	Drops Fact[uint32] // sk_drops: packets, for whatever reason
	// Overflows is as many of those as certainly found the queue full. Where
	// several sockets share a namespace that is often not known.
	Overflows Fact[uint64]
}

// Refusals are counters of all sockets of a network namespace.
type Refusals struct {
	Overflows uint64 // TcpExt ListenOverflows: a queue was full
	Other     uint64 // what the sockets count as drops for another reason
}

// Neighbours are the TCP sockets that listen in the namespace beside one.
type Neighbours struct {
	Drops uint64 // their sk_drops
	Sum   uint64 // tells sets of sockets apart
}

// Overflowed is how many connections found the queue full between two samples of
// a socket; absent for a UNIX socket.
func (r Sample) Overflowed(before Sample) Fact[Drops] {
	now, ok := r.Drops.Get()
	then, had := before.Drops.Get()
	switch {
	case r.Drops.IsAbsent():
		return Absent[Drops]()
	case r.Uncounted != "" || before.Uncounted != "":
		return Unknown[Drops](cmp.Or(r.Uncounted, before.Uncounted))
	case !ok || !had:
		return Unknown[Drops](cmp.Or(r.Drops.Why, before.Drops.Why))
	case now < then:
		return Unknown[Drops]("the socket's counter began anew")
	}
	own := uint64(now - then)
	// The counters are read before and after the sockets, so that both bounds
	// hold whatever happens in between.
	atMost := r.Overflows - min(before.Before.Overflows, r.Overflows)
	other := r.OtherDrops - min(before.Before.Other, r.OtherDrops)
	d := Drops{Most: min(own, atMost)}
	// An overflow may count twice (see kernel.Listener).
	d.Least = min((own-min(other, own)+1)/2, d.Most)
	if r.Neighbours.Sum == before.Neighbours.Sum {
		theirs := r.Neighbours.Drops - min(before.Neighbours.Drops, r.Neighbours.Drops)
		atLeast := r.Before.Overflows - min(before.Overflows, r.Before.Overflows)
		if proven := min(atLeast-min(theirs, atLeast), d.Most); proven > 0 {
			d.Proven = true
			d.Least = max(d.Least, proven)
			if theirs == 0 {
				d.Most = min(own, r.Overflows-before.Overflows)
				d.Least = d.Most
			}
		}
	}
	return Known(d)
}

// OverflowsSinceBirth is how many connections have found the queue of a socket full
// since it was made: its sk_drops, less all that its namespace counts as refused
// for another reason. others are as many of the overflows as are certainly those
// of other sockets.
func OverflowsSinceBirth(own uint64, all Refusals, others uint64) Fact[uint64] {
	least := CertainDrops(own, all)
	if most := min(own, all.Overflows-min(others, all.Overflows)); least == 0 && most > 0 {
		return Unknown[uint64](fmt.Sprintf("the kernel counts overflows and refusals for other reasons together, %d here, of which at most %d are overflows", own, most))
	}
	return Known(least)
}

// CertainDrops are as many overflows as one socket must have had.
func CertainDrops(own uint64, all Refusals) uint64 {
	return min(own-min(all.Other, own), all.Overflows)
}
