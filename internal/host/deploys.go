package host

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"qwatch/internal/deploy"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
)

const (
	// deploysDeadline is how long the files of one uWSGI may take.
	deploysDeadline = 5 * time.Second
	// deploysAge is how long what was seen of them serves where nothing is about to
	// be decided.
	deploysAge = 30 * time.Second
	// deploysFresh is how long it serves where a reload may be decided, and
	// deploysShare how many times as long as it took at least: files by the hundred
	// thousand are not read all the time on a host that has too much to do already.
	deploysFresh = time.Second
	deploysShare = 4
	// pressedFor is how long a queue that was full counts as one about which may be
	// decided: longer than looks at it are evidence.
	pressedFor = 20 * time.Second
)

// watch looks which masters were executed anew.
func (h *Host) watch(options *Options) {
	if !options.Deploys {
		return
	}
	var masters []uwsgi.Process
	seen := make(map[int]bool)
	for _, o := range h.walked.owned {
		if !seen[o.master.PID] {
			seen[o.master.PID] = true
			masters = append(masters, uwsgi.ProcessOf(h.identity(o.master)))
		}
	}
	h.memory.Watch(masters)
}

// deployKey is a master as it was executed last: what was seen before that is of
// no use.
type deployKey struct {
	uwsgi.Process
	image uint64
}

func (h *Host) deployKeys() (keys []deployKey) {
	for _, p := range h.reloadable {
		keys = append(keys, deployKey{p, h.memory.Image(p)})
	}
	return keys
}

// pressed are the masters about whose queue may be decided.
type pressed struct {
	masters map[uwsgi.Process]span
	drops   map[facts.SocketID]refusals // of the last sample
}

// span is from when until when a queue was seen full.
type span struct{ since, last time.Time }

// refusals tell whether a queue has overflown: its own counter, the namespace's
// where it has none.
type refusals struct {
	own facts.Fact[uint32]
	all uint64
}

func (p *pressed) press(master uwsgi.Process, at time.Time) {
	if p.masters == nil {
		p.masters = map[uwsgi.Process]span{}
	}
	s, is := p.masters[master]
	if s.last = at; !is {
		s.since = at
	}
	p.masters[master] = s
}

// take takes samples in, of the sockets of these masters. It reports whether one of
// them shows a queue that is half full, or has overflown since the last one.
func (p *pressed) take(samples []facts.Sample, master func(facts.SocketID) (uwsgi.Process, bool)) (some bool) {
	drops := make(map[facts.SocketID]refusals, len(samples))
	for _, s := range samples {
		now := refusals{s.Drops, 0}
		if s.Drops.Unseen() != "" {
			now.all = s.Overflows
		}
		before, known := p.drops[s.ID]
		drops[s.ID] = now
		if !facts.HalfFull(s.Length, s.Limit) && (!known || now == before) {
			continue
		}
		if m, ok := master(s.ID); ok {
			p.press(m, s.At)
			some = true
		}
	}
	p.drops = drops
	maps.DeleteFunc(p.masters, func(_ uwsgi.Process, s span) bool { return time.Since(s.last) > pressedFor })
	return some
}

// since is when the master's queue was first seen full, within the time in which
// that may lead to a decision.
func (p *pressed) since(master uwsgi.Process) (at time.Time, is bool) {
	s, is := p.masters[master]
	return s.since, is && time.Since(s.last) <= pressedFor
}

// hurry looks at what reloads would bring as soon as a queue is full: a plan comes
// a second or two after it, and does not wait for a large application.
func (h *Host) hurry(options *Options, samples []facts.Sample) {
	if !options.Deploys {
		return
	}
	some := h.pressed.take(samples, func(id facts.SocketID) (uwsgi.Process, bool) {
		o, ok := h.walked.owned[id.Inode]
		if !ok {
			return uwsgi.Process{}, false
		}
		return uwsgi.ProcessOf(h.identity(o.master)), true
	})
	if some {
		h.lookups.deploys.Start(h.deployKeys())
	}
}

// pressAll counts every queue as one about which may be decided.
func (h *Host) pressAll(at time.Time) {
	for _, o := range h.walked.owned {
		h.pressed.press(uwsgi.ProcessOf(h.identity(o.master)), at)
	}
}

// deployServes is how long what was seen of a master's files serves.
func (h *Host) deployServes(k deployKey, took time.Duration) time.Duration {
	if _, is := h.pressed.since(k.Process); is {
		return max(deploysFresh, deploysShare*took)
	}
	return deploysAge
}

// reloadable are the masters of which it is asked what a reload would bring.
func reloadable(options *Options, sockets []facts.Socket) (masters []uwsgi.Process) {
	for i := range sockets {
		if s := &sockets[i]; options.Deploys && s.Untrusted.State != facts.StateKnown {
			masters = append(masters, uwsgi.ProcessOf(s.Master))
		}
	}
	return masters
}

var errNoDeploys = errors.New("it is not looked at, since the policy has no reloads, or not for this uWSGI")

// deploy is what a reload of a socket's master would bring.
func (h *Host) deploy(s *facts.Socket) facts.Deploy {
	master := uwsgi.ProcessOf(s.Master)
	if !slices.Contains(h.reloadable, master) {
		return deploy.Unseen(errNoDeploys)
	}
	a := h.lookups.deploys.Get(deployKey{master, h.memory.Image(master)})
	since, is := h.pressed.since(master)
	age := 2 * deploysAge
	if is {
		age = pressedFor
	}
	switch {
	case is && a.At.Before(since.Add(-deploysFresh)) && !a.At.IsZero():
		late := ""
		if a.Err != nil {
			late = fmt.Sprintf(" (%v)", a.Err)
		}
		return deploy.Unseen(fmt.Errorf("its files were looked at %s before its queue was full, and not yet since%s", since.Sub(a.At).Round(time.Second), late))
	case !a.Within(age):
		return deploy.Unseen(a.Err)
	}
	return a.Value
}
