package remediate

import (
	"fmt"
	"math"
	"slices"
	"time"

	"qwatch/remediate/facts"
)

const (
	// WatchTime is how long the queue is watched after a change before it is
	// judged, watchEvery how often, and waitEvery how often where the verdict
	// has to wait, which is for JudgeWithin at most.
	WatchTime   = 3 * time.Second
	watchEvery  = 200 * time.Millisecond
	waitEvery   = 500 * time.Millisecond
	JudgeWithin = 5 * time.Minute
	// trendSpan is how far back samples count for how the queue grows now.
	trendSpan = 5 * time.Second
	// againFor is how long a queue is watched that is looked at again.
	againFor = time.Second
)

// again is when, after it was called fixed, a queue is looked at again.
var again = []time.Duration{30 * time.Second, 5 * time.Minute}

// Trial is what is seen of a queue since a plan changed its limit, until its
// verdict stands. It is pure: who looks at the host hands in what it shows.
//
// A queue that grows is not fixed by a limit that it has not reached yet. It is
// called so once it has held for as long as it takes to fill at the slope that
// was measured.
type Trial struct {
	Plan    Plan
	begun   time.Time
	id      facts.SocketID // the socket that is watched
	looked  time.Time      // when it was looked at last
	after   facts.Snapshot // the newest
	samples []facts.Sample // of the socket, and at most one of a busy neighbour

	until     time.Time // it grew, and would be full by then
	low       int       // where it came from
	postponed bool      // until is new

	served   *facts.Served // what was seen of the plan's reload, nil where none was asked for
	unproven string        // why there is no verdict, though the host was seen

	fixed time.Time // when it was called so, zero before
	looks int       // how often it was looked at again
}

// NewTrial begins to watch the queue of a plan that was carried out by now.
func NewTrial(p Plan, now time.Time) *Trial { return &Trial{Plan: p, begun: now, id: p.Socket.ID} }

// Trial begins to judge what was done. A reload was watched as its new generation
// came up: from there on the looks count that were taken meanwhile, so that its
// verdict waits no longer than its watch.
func (d Done) Trial(now time.Time) *Trial {
	t := NewTrial(d.Plan, now)
	for _, o := range d.Outcomes {
		if o.Served != nil {
			if t.served = o.Served; !o.Served.Stood.IsZero() {
				t.begun = o.Served.Stood
			}
		}
	}
	return t
}

// Begun is from when on looks at the queue count.
func (t *Trial) Begun() time.Time { return t.begun }

// Open reports whether there is no verdict yet.
func (t *Trial) Open() bool { return t.fixed.IsZero() }

// Over reports whether nothing can be said any more: the verdict stands, or
// the host could not be seen for so long that there is none.
func (t *Trial) Over(now time.Time) bool {
	if t.Open() {
		from := t.begun
		if t.served != nil && t.served.Seen.After(from) { // its watch may take as long
			from = t.served.Seen
		}
		return t.unproven != "" || now.Sub(from) > JudgeWithin+trendSpan
	}
	return t.looks == len(again) || now.Sub(t.fixed) > again[len(again)-1]+trendSpan
}

// Unjudged says why a trial that is over has no verdict.
func (t *Trial) Unjudged() error {
	if t.unproven != "" {
		return fmt.Errorf("%w: %s", ErrUnproven, t.unproven)
	}
	return ErrUnjudged
}

// Next is when the queue should be looked at next.
func (t *Trial) Next() time.Time {
	switch {
	case t.looked.IsZero():
		return t.begun
	case !t.Open():
		if due := t.due(); t.looked.Before(due) {
			return due
		}
		return t.looked.Add(watchEvery)
	case t.looked.Sub(t.begun) < WatchTime:
		return t.looked.Add(watchEvery)
	}
	return t.looked.Add(waitEvery)
}

// due is when a queue that was fixed is looked at next.
func (t *Trial) due() time.Time { return t.fixed.Add(again[min(t.looks, len(again)-1)]) }

// Whole reports whether the next look should be at the whole host.
func (t *Trial) Whole(now time.Time) bool {
	if t.Open() {
		return now.Sub(t.begun) >= WatchTime && now.Sub(t.after.At) >= time.Second
	}
	return !now.Before(t.due())
}

// Judge takes in a look at the host: the samples are new, the snapshot may be
// that of a look before. It reports whether there is a verdict: the first one, or
// another one of a queue that was fixed and is full again.
func (t *Trial) Judge(f facts.Snapshot, samples []facts.Sample, now time.Time) (Judgement, bool) {
	if f.At.After(t.after.At) {
		t.after = f
		if s, ok := t.Plan.successor(f); ok && s.ID != t.id {
			t.id, t.samples = s.ID, nil
		}
	}
	t.looked, t.postponed = now, false
	if !t.Open() {
		return t.lookAgain(samples, now)
	}
	t.add(samples, t.begun.Add(settling))
	if t.after.At.Before(t.begun.Add(WatchTime)) {
		return Judgement{}, false
	}
	e := t.evidence()
	j := judge(t.Plan, t.after, e, t.served)
	trend := trendOf(t.own(), trendSpan)
	if trend.known {
		j.Slope = &trend.slope
	}
	if j.Result == "" {
		t.unproven = j.Why
		return Judgement{}, false
	}
	if j.Result != Fixed || t.Plan.Unit != "" {
		return j, true
	}
	late := now.Sub(t.begun) > JudgeWithin-waitEvery
	// What was not looked at is not fixed.
	if e.Samples < leastSamples || !trend.known || !late && t.mustWait(trend, now) {
		return Judgement{}, false
	}
	if !t.until.IsZero() {
		j.Why += fmt.Sprintf("; it grew, and has held for %s since", now.Sub(t.begun).Round(time.Second))
	}
	if trend.grows() {
		j.Why += "; " + Outlook{Known: true, Slope: trend.slope, FullIn: trend.fullIn()}.String()
	}
	t.fixed, t.samples, t.after = now, nil, facts.Snapshot{At: t.after.At}
	return j, true
}

// mustWait reports whether the queue may yet be full again.
func (t *Trial) mustWait(now trend, at time.Time) bool {
	switch {
	case now.grows() && !at.Before(t.until):
		// Measured anew each time: a slope of an hour ago says nothing.
		if t.until.IsZero() {
			t.low = now.low
		}
		t.until, t.postponed = at.Add(now.fullIn()), true
		return true
	case !now.grows() && now.length <= t.low: // what had come in is gone
		return false
	}
	return at.Before(t.until)
}

// lookAgain judges a queue that was fixed, at its times.
func (t *Trial) lookAgain(samples []facts.Sample, now time.Time) (Judgement, bool) {
	due := t.due()
	t.add(samples, due)
	if t.looks == len(again) || now.Before(due.Add(againFor)) || t.after.At.Before(due) {
		return Judgement{}, false
	}
	t.looks++
	e := t.evidence()
	t.samples = nil
	if _, ok := t.Plan.successor(t.after); !ok || !e.Corroborates() {
		return Judgement{}, false // calm, or stopped by somebody since
	}
	t.looks = len(again)
	j := judge(t.Plan, t.after, e, nil)
	j.Why += fmt.Sprintf("; it was called fixed %s ago", now.Sub(t.fixed).Round(time.Second))
	return j, true
}

// add keeps what is needed of new samples.
func (t *Trial) add(samples []facts.Sample, since time.Time) {
	busy := slices.ContainsFunc(t.samples, func(s facts.Sample) bool { return s.ID != t.id })
	for _, s := range samples {
		switch {
		case s.At.Before(since) || len(t.samples) >= keepSamples:
		case s.ID == t.id:
			if n := len(t.samples); n == 0 || t.samples[n-1].ID != t.id || t.news(s, t.samples[n-1]) {
				t.samples = append(t.samples, s)
			}
		case s.ID.NetNS == t.id.NetNS && facts.HalfFull(s.Length, s.Limit) && !busy:
			t.samples, busy = append([]facts.Sample{s}, t.samples...), true
		}
	}
}

// news reports whether a sample says more than the one before. The probe may look
// a hundred times a second, and a trend is measured between any two.
func (t *Trial) news(s, before facts.Sample) bool {
	apart := watchEvery / 2
	if s.At.Sub(t.begun) > WatchTime {
		apart = waitEvery / 2
	}
	return s.At.Sub(before.At) >= apart || s.At.After(before.At) && s.Full()
}

// keepSamples bounds what a trial holds: five minutes of four a second, and those
// that end it.
const keepSamples = 1500

// own are the samples of the socket itself.
func (t *Trial) own() []facts.Sample {
	if len(t.samples) > 0 && t.samples[0].ID != t.id {
		return t.samples[1:]
	}
	return t.samples
}

func (t *Trial) evidence() facts.Evidence {
	s, ok := t.Plan.successor(t.after)
	if !ok {
		s = t.Plan.Socket
	}
	return facts.Weigh(s, t.samples, time.Time{})
}

// Postponed reports whether the last look has put the verdict off.
func (t *Trial) Postponed() bool { return t.postponed }

// Outlook tells how the queue does while its verdict is open.
func (t *Trial) Outlook() Outlook {
	now := trendOf(t.own(), trendSpan)
	o := Outlook{Known: now.known, Slope: now.slope}
	if now.grows() {
		o.FullIn = now.fullIn()
	}
	return o
}

// Outlook is how a queue grows that is not full.
type Outlook struct {
	Known  bool
	Slope  float64       // connections a second
	FullIn time.Duration // 0 where it does not grow
}

func (o Outlook) String() string {
	switch {
	case !o.Known:
		return "not judged yet"
	case o.FullIn > 0:
		return fmt.Sprintf("not full, growing by %s a second, full again in %s", number(o.Slope), inWords(o.FullIn))
	case o.Slope < 0:
		return fmt.Sprintf("not full, falling by %s a second", number(-o.Slope))
	}
	return "not full, not growing"
}

func number(n float64) string {
	if n >= 10 {
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.2g", n)
}

func inWords(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", math.Ceil(d.Seconds()))
	}
	return fmt.Sprintf("%.0f min", d.Minutes())
}
