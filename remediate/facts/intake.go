package facts

import (
	"slices"
	"time"
)

// Look is an accept queue as it is seen while its uWSGI is reloaded.
type Look struct {
	At      time.Time
	Listens bool // the socket is there
	Length  int
	// Opens is PassiveOpens of the namespace, read before the queue, and Drops
	// the socket's sk_drops, which for a uWSGI counts each connection; both are
	// absent for a UNIX socket.
	Opens Fact[uint64]
	Drops Fact[uint32]
	// Clients are those in the queue of a UNIX socket, in their order, 0 for one
	// that has gone meanwhile; nil where they are not known.
	Clients []uint32
	// Answers is how many requests uWSGI says that it has answered: of a UNIX
	// socket the kernel counts nothing.
	Answers int
}

// leastGap is how long nobody is accepted before that is a time in which nobody
// is: a worker may be at work on one request so long.
const leastGap = time.Second

// longGap is how long nobody is accepted before that is no matter of one request.
const longGap = 3 * leastGap

// Intake is what was seen of who is accepted at a socket, and when.
type Intake struct {
	// Accepted is how many connections were accepted, at least.
	Accepted int
	Came     bool // somebody has connected, or waited
	Waiting  int  // connections in the queue at the newest look
	// Untold says that somebody may have connected of whom nothing was seen: the
	// kernel counts nothing of this socket, or not of it alone.
	Untold bool
	// Unserved is for how long clients waited, or were refused, and nobody was
	// accepted.
	Unserved time.Duration

	sole        bool // no other socket of the namespace accepts anybody
	begun       bool
	first, last Look
	most        int           // as many accepts as the kernel's counters have shown,
	fallen      int           // as many as were seen to leave the queue,
	answers     int           // and as many as were answered
	unserved    time.Duration // since the last one
}

// NewIntake begins to look at a socket. sole is Socket.SoleListener.
func NewIntake(sole bool) Intake { return Intake{sole: sole} }

// Add takes in the next look.
func (i *Intake) Add(l Look) {
	defer func() { i.last, i.Waiting = l, l.Length }()
	if !i.begun {
		i.begun, i.first, i.Came = true, l, l.Length > 0
		return
	}
	came := arrived(i.last, l, i.sole)
	i.Came = i.Came || l.Length > 0 || came
	i.Untold = i.Untold || !came && !calm(i.last, l)
	count := i.count(l)
	// Only who accepts takes a connection out of the queue, whatever became of
	// its client.
	fell := max(0, i.last.Length-l.Length, left(i.last.Clients, l.Clients))
	if !l.Listens || !i.last.Listens {
		fell = 0
	}
	answers := max(0, l.Answers-i.last.Answers)
	if fell > 0 || count > i.most || answers > 0 {
		i.fallen, i.most, i.answers = i.fallen+fell, max(count, i.most), i.answers+answers
		i.Accepted = max(i.fallen, i.most, i.answers)
		i.settle()
		return
	}
	if i.last.Length > 0 || l.Length > 0 || !l.Listens {
		i.unserved += l.At.Sub(i.last.At)
	}
}

// Gap is for how long nobody has been accepted, up to the newest look, while
// somebody waited.
func (i *Intake) Gap() time.Duration { return i.unserved }

// Settled is the intake as it is now, with the time in which nobody is accepted
// yet.
func (i Intake) Settled() Intake {
	if i.unserved >= leastGap {
		i.Unserved += i.unserved
	}
	return i
}

func (i *Intake) settle() {
	if i.unserved >= leastGap {
		i.Unserved += i.unserved
	}
	i.unserved = 0
}

// Since is the intake from the newest look on.
func (i *Intake) Since() Intake {
	n := NewIntake(i.sole)
	n.Add(i.last)
	return n
}

// count is how many connections have been accepted since the first look, at
// least, as far as the kernel's counters tell. The namespace counts those of all
// its sockets. With other listeners the socket's own count has to say the same: it
// counts each connection of a uWSGI, as its first ACK waits for data
// (TCP_DEFER_ACCEPT), and what had come at the look before has its data by now.
func (i *Intake) count(l Look) int {
	opens, counted := l.Opens.Get()
	then, had := i.first.Opens.Get()
	if !counted || !had || !l.Listens {
		return 0
	}
	in := l.Length - i.first.Length
	n := int(opens-then) - in
	if i.sole {
		return n
	}
	drops, counts := i.last.Drops.Get()
	before, did := i.first.Drops.Get()
	if !counts || !did {
		return 0
	}
	return min(n, int(drops-before)-in)
}

// left is how many clients have left a queue between two looks, at least: it moves up
// by that many places. One that has gone stays in it, as 0.
func left(before, now []uint32) int {
	place := make(map[uint32]int, len(now))
	gone := 0
	for at, client := range now {
		if place[client] = at; client == 0 {
			gone++
		}
	}
	for was, client := range slices.Backward(before) {
		if at, stays := place[client]; stays && client != 0 {
			return was - at
		}
	}
	if now == nil {
		return 0
	}
	return len(before) - gone
}

// calm reports whether nobody has connected to any socket of the namespace between
// two looks.
func calm(before, now Look) bool {
	opens, counted := now.Opens.Get()
	then, was := before.Opens.Get()
	return counted && was && opens == then
}

// arrived reports whether somebody has connected between two looks.
func arrived(before, now Look, sole bool) bool {
	opens, counted := now.Opens.Get()
	then, was := before.Opens.Get()
	if !counted || !was || opens <= then {
		return false
	}
	drops, known := now.Drops.Get()
	had, knew := before.Drops.Get()
	return sole || known && knew && drops > had
}
