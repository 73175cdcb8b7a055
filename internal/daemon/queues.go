package daemon

import (
	"maps"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// logDelay is how much later than the kernel a log may tell of a full queue:
// uWSGI's master looks once a second.
const logDelay = 1500 * time.Millisecond

// queue is what the core keeps of one accept queue.
type queue struct {
	hits       uint64
	lastRecord time.Time // when a log last told of it
	// silent is the hit of a probe that found the queue full, kept until the
	// next probe: the log may still tell of it.
	silent *matcher.Hit
	probed *facts.Sample // by the last probe
	last   *facts.Sample // the newest, of whatever look
	// keepTried says that its limit was compared with the one that qwatch once
	// gave it.
	keepTried bool
}

// queues are those of the newest snapshot, and what the probe found in them.
type queues struct {
	of        map[facts.SocketID]*queue
	probeHits uint64
	// drops are the connections that found a queue full since qwatch knows of a
	// socket of that name: it goes on where a restarted uWSGI makes it anew.
	drops map[string]uint64
}

func newQueues() queues {
	return queues{of: map[facts.SocketID]*queue{}, drops: map[string]uint64{}}
}

func (q *queues) get(id facts.SocketID) *queue {
	if q.of[id] == nil {
		q.of[id] = &queue{}
	}
	return q.of[id]
}

// retain forgets the queues that are gone.
func (q *queues) retain(s facts.Snapshot) {
	alive, named := make(map[facts.SocketID]bool, len(s.Sockets)), make(map[string]bool, len(s.Sockets))
	for _, socket := range s.Sockets {
		alive[socket.ID], named[socket.Name()] = true, true
	}
	maps.DeleteFunc(q.of, func(id facts.SocketID, _ *queue) bool { return !alive[id] })
	maps.DeleteFunc(q.drops, func(name string, _ uint64) bool { return !named[name] })
}

// indexed tells where in a snapshot each socket is: there may be thousands, and
// as many samples.
func indexed(s facts.Snapshot) map[facts.SocketID]int {
	at := make(map[facts.SocketID]int, len(s.Sockets))
	for i := range s.Sockets {
		at[s.Sockets[i].ID] = i
	}
	return at
}

// count adds the drops that samples show to those before.
func (q *queues) count(samples []facts.Sample, s facts.Snapshot) {
	at := indexed(s)
	for _, sample := range samples {
		i, ok := at[sample.ID]
		if _, counted := sample.Drops.Get(); !ok || !counted {
			continue
		}
		name, one := s.Sockets[i].Name(), q.get(sample.ID)
		q.drops[name] += 0 // that it is there says that it is counted
		if sample.Uncounted != "" {
			continue // the next one shows what was meanwhile, too
		}
		if one.last != nil {
			q.drops[name] += sample.Overflowed(*one.last).Value.Least
		}
		one.last = &sample
	}
}

// anySilent reports whether a hit of the last probe waits for the next one.
func (q *queues) anySilent() bool {
	for _, one := range q.of {
		if one.silent != nil {
			return true
		}
	}
	return false
}

// probe is when the queues are looked at though no log tells of them.
type probe struct {
	next time.Time
	due  bool // the next samples are its
}

// probeHits makes hits of queues that the samples of a probe show full, or
// overflown since the probe before, although the log is silent: a UNIX socket
// never prints the line, an old uWSGI on IPv6 neither. uWSGI's line comes up to
// a second late, so a hit waits for the next probe.
func (c *core) probeHits(samples []facts.Sample, now time.Time) {
	for _, socket := range c.view.snapshot.Sockets {
		q := c.queues.of[socket.ID]
		if q == nil || q.silent == nil {
			continue
		}
		h := *q.silent
		q.silent = nil
		if q.lastRecord.Add(c.settings.probe + logDelay).After(now) {
			continue
		}
		c.queues.probeHits++
		q.hits++
		h.Socket, h.PID, h.Unit = socket.Name(), socket.Master.PID, socket.Master.Unit.Value
		c.enter(found{key: socket.Key(), id: socket.ID}, h, now)
	}
	at := indexed(c.view.snapshot)
	for _, s := range samples {
		i, ok := at[s.ID]
		if !ok {
			continue
		}
		q := c.queues.get(s.ID)
		before := q.probed
		q.probed = &s
		full := s
		if before != nil && !s.Full() && burst(c.view.snapshot.Sockets[i], *before, s) {
			full.Length = s.Limit + 1
		}
		if full.Full() {
			q.silent = &matcher.Hit{FD: -1, Length: full.Length, Limit: full.Limit, Source: "probe"}
		}
	}
}

// burst reports whether the queue was full between two probes. Without counters
// of the socket's own that is known only where no other accepts connections: of
// those that do, the samples may not be here.
func burst(s facts.Socket, before, now facts.Sample) bool {
	s.Limit = now.Limit // the snapshot may be of before
	e := facts.Weigh(s, []facts.Sample{before, now}, time.Time{})
	_, counted := e.Drops.Get()
	return e.Burst() && (counted || s.SoleListener)
}
