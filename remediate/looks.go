package remediate

import (
	"slices"
	"time"

	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

// settling is how long after a raise, or a reload, a queue still shows what came
// before it.
const settling = time.Second

// Looks is what was seen of a host up to a moment, and what was done to it. All
// that weighs or diagnoses a queue for a decision does it here, so that looks from
// before a raise, which have led to it, lead to no other.
type Looks struct {
	Policy  Policy
	Facts   facts.Snapshot // the newest
	Record  *diagnose.Record
	History History
	Now     time.Time
}

// Evidence weighs the looks at a socket since a moment that still count.
func (l Looks) Evidence(s facts.Socket, since time.Time) facts.Evidence {
	if acts := l.acts(s); acts.Since.After(since) {
		since = acts.Since
	}
	return facts.Weigh(s, l.Record.Samples(), since)
}

// Diagnose says why the queue of a socket is full. garbage says that its record's
// numbers cannot be true.
func (l Looks) Diagnose(s facts.Socket, garbage bool) diagnose.Diagnosis {
	return l.Record.Diagnose(l.Facts, s, l.Policy.Bounds(s), l.acts(s), garbage)
}

func (l Looks) acts(s facts.Socket) diagnose.Acts {
	return diagnose.Acts{
		Since:    l.History.looksCount(l.Facts, s, l.Now),
		Restarts: l.History.restarts(s.Master, l.Policy.ReloadTimeout),
	}
}

// looksCount is from when on looks at a socket count: after its last raise, and
// after the last reload of its master that qwatch has seen to its end; zero where
// there is none. An event ahead of now was written before the clock was set back,
// and does not count.
func (h History) looksCount(f facts.Snapshot, s facts.Socket, now time.Time) (since time.Time) {
	for _, e := range h {
		raised := e.Action == actionRelisten && e.Result == Applied && e.ofQueue(f, s)
		reloaded := e.Action == actionReload && (e.Result == Applied || e.Result == Failed) && e.by(s.Master)
		if at := e.Time.Add(settling); (raised || reloaded) && at.After(since) && !e.Time.After(now) {
			since = at
		}
	}
	return since
}

// restarts are when qwatch, this one or another that writes the same trail, had
// the uWSGI of this master reloaded, or its unit started. A reload that failed may
// come late: uWSGI waits for its workers as long as it likes. So it is under way
// for as long again as it was waited for; of one whose end nobody has written down
// is known that nobody waits longer than timeout.
func (h History) restarts(master facts.Process, timeout time.Duration) (spans []diagnose.Span) {
	open := map[string]int{} // the index in spans, by plan
	for _, e := range h {
		reload := e.Action == actionReload && e.by(master)
		start := e.Action == actionStart && e.Target == master.Unit.Value && e.Target != ""
		if !reload && !start {
			continue
		}
		i, begun := open[e.Plan]
		switch {
		case e.Result == Started && !begun:
			open[e.Plan] = len(spans)
			spans = append(spans, diagnose.Span{Begin: e.Time, End: e.Time.Add(2*timeout + restarted)})
		case !begun || e.Result == Started:
		case e.Result == Applied:
			spans[i].End = e.Time.Add(restarted)
		case e.Result == Failed:
			waited := min(e.Time.Sub(spans[i].Begin), timeout)
			spans[i].End = spans[i].Begin.Add(2*waited + restarted)
		default: // nothing was asked for
			spans[i].End = spans[i].Begin.Add(-1)
		}
	}
	return slices.DeleteFunc(spans, func(s diagnose.Span) bool { return s.End.Before(s.Begin) })
}

// restarted is how long after its end a restart still shows: births of processes
// are known to a tick, and a log is read a moment later.
const restarted = 2 * time.Second

// ofQueue reports whether the event is about the queue of this socket: about the
// socket itself, whatever its name and whoever holds it by now (a uWSGI that was
// restarted with the socket of systemd, or of another, has the limit that was
// given to it before), or about one that its master held and holds no more, and in
// the place of which this one is: in http mode a reload binds the hidden socket
// anew, at another port. A socket that its master holds beside it has a queue of
// its own, also with SO_REUSEPORT at the same address: to raise one gives the
// other no room, so that it is not kept waiting. Such a one was seen before the event;
// where that is not known, it may be the one in the place.
//
// A name does not say whose socket it was: two masters share one with
// SO_REUSEPORT, and any user can bind a UNIX socket to the path "127.0.0.1:80"
// and overflow it. Inodes are counted anew with each boot.
func (e Event) ofQueue(f facts.Snapshot, s facts.Socket) bool {
	switch {
	case e.Inode == 0: // of an old trail
		return e.Socket == s.Name() && e.by(s.Master)
	case e.Inode == s.ID.Inode && (e.NetNS == 0 || e.NetNS == s.ID.NetNS):
		return !e.Time.Before(f.Booted)
	case e.by(s.Master) && (s.First.IsZero() || s.First.After(e.Time)) && e.Socket != "" && s.Serves() == "":
		return !slices.ContainsFunc(f.Sockets, func(o facts.Socket) bool { return o.ID.Inode == e.Inode && o.Master.Same(s.Master) })
	}
	return false
}

// lowers reports whether the event is that of an undo.
func (e Event) lowers() bool {
	return e.Action == actionRelisten && e.From != nil && e.To != nil && *e.To < *e.From
}
