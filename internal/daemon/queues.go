package daemon

import (
	"maps"
	"slices"
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
	// keepTried says that its limit was compared with the one that qwatch once
	// gave it.
	keepTried bool
}

// queues are those of the newest snapshot, and what the probe found in them.
type queues struct {
	of        map[facts.SocketID]*queue
	probeHits uint64
}

func newQueues() queues { return queues{of: map[facts.SocketID]*queue{}} }

func (q *queues) get(id facts.SocketID) *queue {
	if q.of[id] == nil {
		q.of[id] = &queue{}
	}
	return q.of[id]
}

// retain forgets the queues that are gone.
func (q *queues) retain(s facts.Snapshot) {
	alive := make(map[facts.SocketID]bool, len(s.Sockets))
	for _, socket := range s.Sockets {
		alive[socket.ID] = true
	}
	maps.DeleteFunc(q.of, func(id facts.SocketID, _ *queue) bool { return !alive[id] })
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
	for _, s := range samples {
		i := slices.IndexFunc(c.view.snapshot.Sockets, func(known facts.Socket) bool { return known.ID == s.ID })
		if i < 0 {
			continue
		}
		q := c.queues.get(s.ID)
		before := q.probed
		q.probed = &s
		full := s
		// A burst may come and go between two probes. Where no other socket
		// accepts connections, the overflows that it leaves are this one's.
		burst := before != nil && s.Overflows > before.Overflows && c.view.snapshot.Sockets[i].SoleListener
		if burst && !s.Full() {
			full.Length = s.Limit + 1
		}
		if full.Full() {
			q.silent = &matcher.Hit{FD: -1, Length: full.Length, Limit: full.Limit, Source: "probe"}
		}
	}
}
