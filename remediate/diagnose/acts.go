package diagnose

import (
	"slices"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// Acts are what qwatch itself has done to a socket and its uWSGI. Its own doing is
// never why a queue is full.
type Acts struct {
	// Since is from when on looks at the queue count: what was seen before has
	// led to what was done.
	Since time.Time
	// Restarts are when the uWSGI was reloaded or started by qwatch: workers
	// that came then, and lines that were read then, say nothing.
	Restarts []Span
}

// Span is a time from its beginning to its end, without bounds where End is zero.
type Span struct{ Begin, End time.Time }

// Around reports whether a moment lies in the span.
func (s Span) Around(t time.Time) bool {
	return !t.Before(s.Begin) && (s.End.IsZero() || !t.After(s.End))
}

// caused reports whether a moment lies in one of qwatch's own restarts.
func (a Acts) caused(t time.Time) bool {
	return slices.ContainsFunc(a.Restarts, func(s Span) bool { return s.Around(t) })
}

// without takes out of an input what a restart of qwatch's own has brought about:
// the lines that were read in it, and the moments before its end, between which
// and now the workers were busy with it.
func (in Input) without() Input {
	if len(in.Acts.Restarts) == 0 {
		return in
	}
	in.Marks = slices.DeleteFunc(slices.Clone(in.Marks), func(m matcher.Mark) bool { return in.Acts.caused(m.At) })
	in.Earlier = slices.DeleteFunc(slices.Clone(in.Earlier), func(m Moment) bool {
		return slices.ContainsFunc(in.Acts.Restarts, func(s Span) bool { return s.End.IsZero() || !m.At.After(s.End) })
	})
	return in
}

// loading is how long the workers of a uWSGI may take to come after its start.
const loading = 2 * time.Minute

// ours reports whether what became of the workers at that moment is qwatch's own
// doing: it had them restarted then, or has started their uWSGI not long before.
func (m measured) ours(t time.Time) bool {
	born := m.Now.startOf(m.socket.Master)
	return m.Acts.caused(t) || m.Acts.caused(born) && t.Sub(born) < loading
}

// restarting reports whether a restart of qwatch's own is under way.
func (m measured) restarting() bool { return m.Acts.caused(m.Now.At) }

// whileRestarting is kind while a restart of qwatch's own is under way. What the
// workers do then is no measure of them: that they take nothing is no stall, that
// they take little no overload.
func (m measured) whileRestarting(full bool, holds string) (Kind, string) {
	if n := len(m.socket.Workers); n > 0 && every(m.socket.Workers, facts.Worker.Stopped) {
		return Stall, "nothing takes connections from the queue: " + m.stalled()
	}
	if !full {
		return Idle, "the queue is not full, though " + holds
	}
	return Burst, "the queue is full; how its workers fare while qwatch has them restarted says nothing of the reason"
}
