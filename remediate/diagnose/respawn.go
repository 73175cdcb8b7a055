package diagnose

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"qwatch/internal/text"
	"qwatch/matcher"
	"qwatch/remediate/facts"
)

const (
	// young is a worker that has hardly begun; a reload starts all of them
	// within together.
	young    = 10 * time.Second
	together = 5 * time.Second
)

// respawning says what shows that the queue filled before its workers were
// there, "" where that is not shown. Workers that have just started are no
// proof: they may be as busy as any.
func (m measured) respawning() string {
	if every(m.socket.Workers, facts.Worker.Dead) {
		return m.noWorkerYet()
	}
	if m.Now.Booted.IsZero() || m.marked(matcher.MarkHarakiri, time.Minute) {
		return "" // those that harakiri replaces were stuck, and are not the reason
	}
	births := m.births()
	fresh := slices.DeleteFunc(slices.Clone(births), func(t time.Time) bool { return m.Now.At.Sub(t) >= young || m.ours(t) })
	newest := births[len(births)-1]
	replaced := len(fresh) == len(births) && newest.Sub(births[0]) <= together
	if !replaced && !(2*len(fresh) > len(births) && m.dying()) || m.onceEmptied(newest) {
		return ""
	}
	if how := m.filledAround(fresh[0]); how != "" {
		return fmt.Sprintf("%d of %s started within the last %s, %s", len(fresh), text.Plural(len(births), "worker", "workers"), short(m.Now.At.Sub(fresh[0])), how)
	}
	return ""
}

// noWorkerYet says why a uWSGI has no living worker, "" where that is not known.
func (m measured) noWorkerYet() string {
	hadSome := func(then Moment) bool {
		return then.Socket.Master.Same(m.socket.Master) && !every(then.Socket.Workers, facts.Worker.Dead)
	}
	switch {
	case m.ours(m.Now.At):
	case m.reloaded() || slices.ContainsFunc(m.Earlier, hadSome):
		return "uWSGI is reloading, and no worker is there yet"
	case !m.Now.Booted.IsZero() && m.Now.At.Sub(m.Now.startOf(m.socket.Master)) < young:
		return "uWSGI has just been started, and no worker is there yet"
	}
	return ""
}

func (m measured) reloaded() bool { return m.marked(matcher.MarkReloaded, young) }

func (m measured) dying() bool {
	return m.marked(matcher.MarkDied, young) || m.marked(matcher.MarkTooFast, young) || m.marked(matcher.MarkBuried, young)
}

// startOf is when a process was started.
func (t Moment) startOf(p facts.Process) time.Time {
	return facts.Snapshot{Booted: t.Booted}.Born(p)
}

// births are when the living workers were started, the oldest first.
func (m measured) births() []time.Time {
	var births []time.Time
	for _, w := range m.socket.Workers {
		if !w.Dead() {
			births = append(births, m.Now.startOf(w.Process))
		}
	}
	sort.Slice(births, func(i, j int) bool { return births[i].Before(births[j]) })
	return births
}

// onceEmptied reports whether the workers, all of them there since, have
// emptied the queue: then they are not the reason that it is full.
func (m measured) onceEmptied(since time.Time) bool {
	return slices.ContainsFunc(m.all, func(s facts.Sample) bool {
		if s.At.Before(since) || facts.HalfFull(s.Length, s.Limit) {
			return false
		}
		n, known := m.accepted(s.At)
		return known && n > 0 || m.socket.Family == facts.Unix
	})
}

// filledAround says what shows that the queue filled around this birth of the
// first of the workers, "" where nothing does.
func (m measured) filledAround(born time.Time) string {
	seen := len(m.own) > 0 && !m.own[0].At.After(born)
	n, known := m.accepted(born.Add(-time.Second))
	switch {
	case seen && !m.own[len(m.own)-1].At.Add(-m.halfFull).After(born):
		return "into a queue that was full already"
	case seen && known && n == 0:
		return "and none has taken a connection yet"
	case m.reloaded():
		return "and the log shows a reload"
	case m.dying():
		return "and the log shows that workers die"
	}
	return ""
}
