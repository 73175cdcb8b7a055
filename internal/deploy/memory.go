package deploy

import (
	"maps"
	"sync"
	"time"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
)

// maxRemembered bounds a Memory that nobody tells which masters there are.
const maxRemembered = 4096

// Memory is what was seen of masters while they ran: that a reload executes a
// master anew changes neither its pid nor its start, and is seen only by who looks
// before and after. Any number of goroutines may use it.
type Memory struct {
	mu      sync.Mutex
	masters map[key]*remembered
	booted  time.Time // the earliest of the times at which the kernel seemed to have started
}

type key struct {
	pid   int
	start uint64
}

type remembered struct {
	image uint64
	seen  time.Time // when image was last seen
	since time.Time // before image was executed, zero where that was not seen
	setup facts.Fact[facts.Setup]
}

func keyOf(p uwsgi.Process) key { return key{p.PID, p.Start} }

// Watch looks whether masters were executed anew, and forgets all others. It is
// made to be called each second: it reads one file of each.
func (m *Memory) Watch(masters []uwsgi.Process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock()
	there := make(map[key]bool, len(masters))
	for _, p := range masters {
		there[keyOf(p)] = true
		now := time.Now()
		if st, err := kernel.ReadStat(p.PID); err == nil && st.Start == p.Start {
			m.saw(p, st.Image, now)
		}
	}
	maps.DeleteFunc(m.masters, func(k key, _ *remembered) bool { return !there[k] })
}

// Image tells the program that a master executes from the one before, as far as
// Watch has seen it.
func (m *Memory) Image(p uwsgi.Process) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.masters[keyOf(p)]; r != nil {
		return r.image
	}
	return 0
}

// saw notes which program a master executes.
func (m *Memory) saw(p uwsgi.Process, image uint64, now time.Time) *remembered {
	r := m.masters[keyOf(p)]
	switch {
	case r == nil:
		if m.masters == nil || len(m.masters) >= maxRemembered {
			m.masters = map[key]*remembered{}
		}
		r = &remembered{image: image}
		m.masters[keyOf(p)] = r
	case image != 0 && r.image != 0 && image != r.image:
		*r = remembered{image: image, since: r.seen}
	case r.image == 0:
		r.image = image
	}
	if image != 0 {
		r.seen = now
	}
	return r
}

// clock notes when the kernel seems to have started. Where the clock was set
// forward in between that is later than it was, and so a process would seem to be
// younger than the files that it has not loaded.
func (m *Memory) clock() time.Time {
	if since, err := kernel.SinceBoot(); err == nil {
		if at := time.Now().Add(-since).Round(0); m.booted.IsZero() || at.Before(m.booted) {
			m.booted = at
		}
	}
	return m.booted
}

// startOf is when a process started, at the earliest.
func (m *Memory) startOf(start uint64) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock().Add(time.Duration(start) * facts.ClockTick)
}

// Learn takes over what a plan knows of a master, where that was not reloaded since.
func (m *Memory) Learn(p uwsgi.Process, d facts.Deploy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.saw(p, d.Image, time.Now())
	if since, ok := d.Since.Get(); ok {
		r.since = since
	}
	r.setup = d.Ran
}

// since is when a master was seen to be executed anew.
func (m *Memory) since(p uwsgi.Process, image uint64) (since time.Time, seen bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.known(p, image)
	return r.since, !r.since.IsZero()
}

// keep notes what the configuration of a master says that it has read.
func (m *Memory) keep(p uwsgi.Process, image uint64, s facts.Setup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known(p, image).setup = facts.Known(s)
}

// known is what is known of a master as long as it executes this program.
func (m *Memory) known(p uwsgi.Process, image uint64) *remembered {
	r := m.masters[keyOf(p)]
	if r == nil && image != 0 {
		return m.saw(p, image, time.Now())
	}
	if r == nil || image == 0 || r.image != image {
		return &remembered{}
	}
	return r
}

// ran is what was kept of a master that executes this program.
func (m *Memory) ran(p uwsgi.Process, image uint64) facts.Fact[facts.Setup] {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.known(p, image); r.setup.State == facts.StateKnown {
		return r.setup
	}
	return facts.Unknown[facts.Setup]("nobody looked at it before it changed")
}
