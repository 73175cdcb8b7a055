// Package diagnose finds out why the accept queue of a uWSGI is full, and
// whether a longer one would help, from what was seen of it over the last
// minute. What forbids a raise is proven, not guessed. It touches nothing.
package diagnose

import (
	"fmt"
	"math"
	"slices"
	"time"

	"qwatch/internal/text"
	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// Kind says why an accept queue is full.
type Kind string

// The kinds of fullness.
const (
	Idle       Kind = "idle"     // it is not full
	Burst      Kind = "burst"    // more came at once than it holds; also where nothing else is proven
	Overload   Kind = "overload" // it fills faster than the workers empty it
	Stall      Kind = "stall"    // nothing takes from it
	Respawn    Kind = "respawn"  // it filled while workers were starting
	FalseAlarm Kind = "false"    // it is not full, the record's numbers are garbage
)

// Moment is a socket as it was seen at one moment.
type Moment struct {
	At, Booted time.Time // as in facts.Snapshot
	Socket     facts.Socket
}

// statsFresh reports whether what its stats server said is of this moment.
func (m Moment) statsFresh() bool {
	return m.Socket.Stats != nil && m.At.Sub(m.Socket.Stats.At) < statsAge
}

// Bounds are the numbers of the policy that a diagnosis depends on.
type Bounds struct {
	MaxBacklog int           // no limit is raised over this
	MaxWait    time.Duration // how long the last in the queue may wait, 0 for any time
	Target     int           // the limit that a raise would aim at
	SysctlFile string        // the sysctl.d file of kernel parameters, "" for none
}

// Input is all that a diagnosis is made from.
type Input struct {
	Now Moment
	// Earlier are moments of the last minute before Now, the oldest first. How
	// the workers fared from one to the next is what proves a stall: 2 s tell
	// whether they are locked up, 15 s whether they do nothing.
	Earlier []Moment
	// Samples are those of the last minute in the order of time, of all sockets.
	Samples []facts.Sample
	Marks   []matcher.Mark // lines of this uWSGI in the last minute
	Garbage bool           // the record's numbers cannot be true
	Bounds  Bounds
	Acts    Acts // what qwatch itself did
}

// Diagnosis says why a queue is full, and what to do about it.
type Diagnosis struct {
	Kind  Kind
	Binds Bind
	// AtCeiling says that the limit is at Bounds.MaxBacklog or over it.
	AtCeiling bool
	Reasons   []string // each a sentence; the first says why it is this Kind
	Advice    []string // what an administrator should do, each a sentence
	// AcceptRate is how many connections the workers take each second, -1
	// where that is not known.
	AcceptRate float64
	// Wait is how long the last connection in the queue has to wait at that
	// rate, 0 where that is not known.
	Wait time.Duration
	// MaxTarget is the longest queue in which nobody waits longer than
	// Bounds.MaxWait; 0 where that bounds nothing.
	MaxTarget int
	// Doubt says what may turn out to be a Stall within a few seconds, "" where
	// nothing looks so: until then a raise should wait.
	Doubt string
}

const (
	// statsAge is how old what a stats server said may be to count: it is asked
	// every two seconds at most.
	statsAge = 5 * time.Second
	// lockProof is how long workers must have waited on locks, and stallProof
	// how long nothing must have been taken, to be called stuck. Slow requests
	// take several seconds.
	lockProof  = 2 * time.Second
	stallProof = 15 * time.Second
	// doubtful is how long a queue may have been full for a doubt to count: it
	// is proven or gone by then, moments being up to 2 s apart.
	doubtful = 6 * time.Second
	// overloadProof is how long a queue must have been half full.
	overloadProof = 10 * time.Second
	// falseSamples is how often the kernel must disagree with the record.
	falseSamples = 5
)

// Diagnose is pure. After a few seconds the kind is Burst unless another one is
// proven.
func Diagnose(in Input) Diagnosis {
	m := measure(in)
	d := Diagnosis{AcceptRate: m.rate, AtCeiling: m.socket.Limit >= m.Bounds.MaxBacklog}
	var reason, bindReason string
	d.Binds, bindReason = binds(m.socket)
	d.Kind, reason = m.kind()
	if (d.Kind == Burst || d.Kind == Overload) && !m.restarting() {
		d.Doubt = m.doubt()
	}
	if m.rate > 0 {
		const century = 100 * 365 * 24 * 3600 // within a Duration
		d.Wait = time.Duration(min(float64(m.socket.Length)/m.rate, century) * float64(time.Second))
	}
	if d.Kind == Overload && m.Bounds.MaxWait > 0 {
		d.MaxTarget = max(1, int(min(m.most*m.Bounds.MaxWait.Seconds(), math.MaxInt32)))
	}
	d.Reasons = append([]string{reason}, m.work(d.Kind, d.Wait)...)
	if d.Kind != FalseAlarm {
		d.Reasons = append(d.Reasons, bindReason)
	}
	d.Advice = m.advice(d)
	return d
}

// kind finds out why the queue is full, and says it.
func (m measured) kind() (kind Kind, reason string) {
	full := m.evidence.Corroborates() || m.socket.Full()
	holds := fmt.Sprintf("it holds %d of %d", m.socket.Length, m.socket.Limit)
	if m.Garbage && !full && m.evidence.Samples >= falseSamples {
		return FalseAlarm, fmt.Sprintf("the log's numbers cannot be true, and the kernel shows no full queue: %s", m.evidence)
	}
	if !full && !facts.HalfFull(m.socket.Length, m.socket.Limit) {
		return Idle, "the queue is not full: " + holds
	}
	if m.restarting() {
		return m.whileRestarting(full, holds)
	}
	if why := m.stalled(); why != "" {
		return Stall, "nothing takes connections from the queue: " + why
	}
	if why := m.respawning(); why != "" {
		return Respawn, "the queue filled while workers were starting: " + why
	}
	if !full {
		return Idle, "the queue is not full, though " + holds
	}
	if why := m.overloaded(); why != "" {
		return Overload, "more comes than the workers take: " + why
	}
	if m.drained() {
		return Burst, "the queue drains again: the connections came in a burst"
	}
	state := "is"
	if !m.socket.Full() {
		state = "was"
	}
	return Burst, fmt.Sprintf("the queue %s full; watched for %s, which shows no other reason than many connections at once", state, short(m.evidence.Over))
}

// overloaded says what shows that the queue fills faster than it is emptied, ""
// where that is not shown.
func (m measured) overloaded() string {
	since := m.halfFull.Round(time.Second)
	switch {
	case m.halfFull < overloadProof:
		return ""
	case m.rate > 0:
		return fmt.Sprintf("at least half full for %s, while they take %s connections a second", since, number(m.rate))
	case m.rate < 0 && m.most > 0 && m.short.working():
		return fmt.Sprintf("at least half full for %s, while they take no more than %s connections a second (all that its network namespace takes)",
			since, number(m.most))
	}
	return ""
}

// drained reports whether the queue was less than half full after it was full.
func (m measured) drained() bool {
	full := slices.IndexFunc(m.own, facts.Sample.Full)
	return full >= 0 && slices.ContainsFunc(m.own[full:], func(s facts.Sample) bool { return !facts.HalfFull(s.Length, s.Limit) })
}

// work tells how busy the workers are.
func (m measured) work(kind Kind, wait time.Duration) (reasons []string) {
	if wait > 0 {
		reasons = append(reasons, fmt.Sprintf("the last of %d in the queue waits %s", m.socket.Length, short(wait)))
	}
	if stats := m.socket.Stats; m.Now.statsFresh() {
		r := fmt.Sprintf("the stats server counts %d of %s busy", stats.Busy, text.Plural(stats.Workers, "worker", "workers"))
		if stats.Response > 0 {
			r += fmt.Sprintf(", %s a request", short(stats.Response))
		}
		reasons = append(reasons, r)
	}
	if share, ok := m.short.cpu(); ok {
		r := fmt.Sprintf("its %s %.0f%% of a CPU each", text.Plural(len(m.socket.Workers), "worker uses", "workers use"), 100*share)
		if kind == Overload && share < 0.2 {
			r += ", so they mostly wait: for a database, another service or slow clients"
		}
		reasons = append(reasons, r)
	}
	return reasons
}

// all is the subject of a sentence about every worker.
func all(n int) string {
	if n == 1 {
		return "its only worker is"
	}
	return fmt.Sprintf("all %d workers are", n)
}

// short writes a time for people.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// number writes a rate for people.
func number(rate float64) string {
	if rate >= 10 {
		return fmt.Sprintf("%.0f", rate)
	}
	return fmt.Sprintf("%.1f", rate)
}
