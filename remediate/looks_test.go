package remediate

import (
	"testing"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

// looked is what was seen of the socket of full in the last 15 seconds, at this
// limit, full for the first half of them.
func looked(limit int) Looks {
	c := full()
	c.Socket.Limit, c.Socket.Length = limit, 3
	c.Facts.Sockets[0] = c.Socket
	l := Looks{Policy: defaults(), Facts: c.Facts, Record: &diagnose.Record{}, Now: now}
	for ago := 15 * time.Second; ago >= 0; ago -= 250 * time.Millisecond {
		s := facts.Sample{ID: c.Socket.ID, At: now.Add(-ago), Length: 3, Limit: limit}
		if ago > 7*time.Second {
			s.Length = limit + 1
		}
		l.Record.AddSamples([]facts.Sample{s}, now)
	}
	return l
}

// Looks from before a raise, or from before the end of a reload that qwatch asked
// for, lead to no other raise.
func TestLooksOfBefore(t *testing.T) {
	before := past(20*time.Second, "inc-1.1", "reload", Started)
	other := past(time.Second, "inc-9.1", "relisten", Applied)
	other.Inode, other.PID = 78, 99
	beside := past(2*time.Second, "inc-2.1", "reload", Applied)
	beside.Inode, beside.Socket = 76, "127.0.0.1:6000"
	tests := []struct {
		name string
		h    History
		full bool
	}{
		{"nothing was done", nil, true},
		{"a raise before them", History{past(16*time.Second, "inc-1.1", "relisten", Applied)}, true},
		{"a raise after those that are full", History{past(7*time.Second, "inc-1.1", "relisten", Applied)}, false},
		{"a raise within the last second of those", History{past(8*time.Second, "inc-1.1", "relisten", Applied)}, false},
		{"a raise two seconds before", History{past(9*time.Second, "inc-1.1", "relisten", Applied)}, true},
		{"a reload that ended since", History{before, past(2*time.Second, "inc-1.1", "reload", Applied)}, false},
		{"one that failed", History{before, past(2*time.Second, "inc-1.1", "reload", Failed)}, false},
		{"one under way", History{before}, true},
		{"one for another socket of this master", History{beside}, false},
		{"a raise that failed has changed nothing", History{past(2*time.Second, "inc-1.1", "relisten", Failed)}, true},
		{"one that was planned neither", History{past(2*time.Second, "inc-1.1", "relisten", Planned)}, true},
		{"another's", History{other}, true},
		{"the clock was set back", History{past(-time.Hour, "inc-1.1", "relisten", Applied)}, true},
	}
	for _, test := range tests {
		l := looked(128)
		l.History = test.h
		s := l.Facts.Sockets[0]
		e, d := l.Evidence(s, now.Add(-15*time.Second)), l.Diagnose(s, false)
		if e.Corroborates() != test.full {
			t.Errorf("%s: %s", test.name, e)
		}
		if !test.full && d.Kind != diagnose.Idle {
			t.Errorf("%s: %s: %q", test.name, d.Kind, d.Reasons)
		}
	}
	l := looked(1024) // raised by somebody else, and not looked at since
	l.Facts.Sockets[0].Limit = 2048
	if e := l.Evidence(l.Facts.Sockets[0], time.Time{}); e.Corroborates() || e.Samples > 0 ||
		e.String() != "no look counts yet: what 61 samples found is too old, or from before a raise or a reload" {
		t.Error(e)
	}
}

// Where the log is believed, it has to have said something since the raise.
func TestRecordsOfBefore(t *testing.T) {
	p, c := defaults(), full()
	p.Corroborate, p.Cooldown = false, 0
	c.Evidence = facts.Evidence{Samples: 9, Limit: 128, Overflows: facts.Unknown[uint64]("it was not looked at")}
	c.Incident.Last = now.Add(-5 * time.Second)
	h := History{past(4500*time.Millisecond, "inc-1.1", "relisten", Applied)}
	if plan := Decide(p, c, h, now); plan.Code != CodeUncorroborated || plan.Reason != "no record is newer than the last raise or reload, and the kernel does not show a full queue: 0 of 9 samples over 0s found the queue full (longest 0, limit 128), whether it overflowed is not known: it was not looked at" {
		t.Errorf("%s: %s", plan.Code, plan.Reason)
	}
	c.Incident.Last, c.Incident.Limit = now, 100
	if plan := Decide(p, c, h, now); plan.Code != CodeUncorroborated || plan.Reason != "the newest record is of a limit of 100, which is 128 by now, and the kernel does not show a full queue: 0 of 9 samples over 0s found the queue full (longest 0, limit 128), whether it overflowed is not known: it was not looked at" {
		t.Errorf("%s: %s", plan.Code, plan.Reason)
	}
	c.Incident.Limit = 128
	if plan := Decide(p, c, h, now); plan.Verdict != Act {
		t.Errorf("%s: %s", plan.Code, plan.Reason)
	}
}

// What qwatch has had reloaded or started is not why a queue is full, and lines
// that say so while it was, real or forged, keep no raise waiting.
func TestOwnRestarts(t *testing.T) {
	unit := past(6*time.Second, "start-1.1", actionStart, Started)
	unit.Target, unit.PID, unit.Start = "app.service", 0, 0
	up := unit
	up.Time, up.Result = now.Add(-4*time.Second), Applied
	foreign := past(6*time.Second, "asked-7.1", "reload", Started)
	foreign.PID = 4
	begun := func(ago time.Duration) Event { return past(ago, "asked-7.1", "reload", Started) }
	tests := []struct {
		name string
		h    History
		kind diagnose.Kind
	}{
		{"of somebody else", nil, diagnose.Respawn},
		{"of another master", History{foreign}, diagnose.Respawn},
		{"under way", History{begun(6 * time.Second)}, diagnose.Burst},
		{"done", History{begun(6 * time.Second), past(4*time.Second, "asked-7.1", "reload", Applied)}, diagnose.Burst},
		{"done before the workers came", History{begun(20 * time.Second), past(9*time.Second, "asked-7.1", "reload", Applied)}, diagnose.Respawn},
		{"failed, and late", History{begun(9 * time.Second), past(7*time.Second, "asked-7.1", "reload", Failed)}, diagnose.Burst},
		{"nothing was sent", History{begun(6 * time.Second), past(5*time.Second, "asked-7.1", "reload", Stale)}, diagnose.Respawn},
		{"planned", History{past(6*time.Second, "asked-7.1", "reload", Planned)}, diagnose.Respawn},
		{"of its unit", History{unit, up}, diagnose.Burst},
		{"whose end nobody has written down", History{begun(300 * time.Second)}, diagnose.Respawn},
	}
	for _, test := range tests {
		c := full()
		c.Facts.Booted = now.Add(-time.Hour)
		for i := range c.Socket.Workers {
			c.Socket.Workers[i] = facts.Worker{Process: facts.Process{PID: 20 + i, Start: 360000 - 500, Comm: "uwsgi"}, State: 'S'} // 5 s ago
		}
		c.Facts.Sockets[0] = c.Socket
		l := Looks{Policy: defaults(), Facts: c.Facts, Record: &diagnose.Record{}, History: test.h, Now: now}
		for ago := 14 * time.Second; ago >= 0; ago -= 500 * time.Millisecond {
			l.Record.AddSamples([]facts.Sample{{ID: c.Socket.ID, At: now.Add(-ago), Length: 129, Limit: 128}}, now)
		}
		marks := []matcher.MarkKind{matcher.MarkReloaded, matcher.MarkDied}
		if test.kind == diagnose.Burst {
			marks = append(marks, matcher.MarkDeadlock)
		}
		for _, kind := range marks {
			l.Record.AddMark(matcher.Mark{Kind: kind, Unit: "app.service"}, now.Add(-4500*time.Millisecond))
		}
		if d := l.Diagnose(c.Socket, false); d.Kind != test.kind {
			t.Errorf("%s: %s: %q", test.name, d.Kind, d.Reasons)
		} else if test.kind == diagnose.Burst && d.Doubt != "" {
			t.Errorf("%s: %s", test.name, d.Doubt)
		}
	}
}

// The workers of a uWSGI that qwatch has started may take a while to come.
func TestOwnStart(t *testing.T) {
	c := full()
	c.Facts.Booted = now.Add(-time.Hour)
	c.Socket.Master.Start = 360000 - 3000 // 30 s ago
	begun := past(31*time.Second, "start-1.1", actionStart, Started)
	begun.Target = "app.service"
	up := begun
	up.Time, up.Result = now.Add(-29*time.Second), Applied
	for _, workers := range []int{0, 2} {
		for _, h := range []History{nil, {begun, up}} {
			c.Socket.Workers = nil
			for i := range workers {
				c.Socket.Workers = append(c.Socket.Workers, facts.Worker{Process: facts.Process{PID: 20 + i, Start: 360000 - 200}, State: 'R'})
			}
			c.Facts.Sockets[0] = c.Socket
			l := Looks{Policy: defaults(), Facts: c.Facts, Record: &diagnose.Record{}, History: h, Now: now}
			for ago := 14 * time.Second; ago >= 0; ago -= 500 * time.Millisecond {
				l.Record.AddSamples([]facts.Sample{{ID: c.Socket.ID, At: now.Add(-ago), Length: 129, Limit: 128}}, now)
			}
			l.Record.AddMark(matcher.Mark{Kind: matcher.MarkReloaded, Unit: "app.service"}, now.Add(-2*time.Second))
			want := diagnose.Respawn
			if h != nil {
				want = diagnose.Burst
			}
			if d := l.Diagnose(c.Socket, false); d.Kind != want {
				t.Errorf("%d workers, %d events: %s: %q", workers, len(h), d.Kind, d.Reasons)
			}
		}
	}
}

// While qwatch has them restarted, workers that take nothing are neither stuck nor
// overloaded; a stopped uWSGI is.
func TestWhileRestarting(t *testing.T) {
	c := full()
	c.Facts.Booted = now.Add(-time.Hour)
	c.Facts.Sockets[0] = c.Socket
	l := Looks{Policy: defaults(), Facts: c.Facts, Record: &diagnose.Record{}, Now: now,
		History: History{past(20*time.Second, "inc-1.1", "relisten", Applied), past(20*time.Second, "inc-1.1", "reload", Started)}}
	l.Policy.MaxWait = time.Second
	for ago := 19 * time.Second; ago >= 0; ago -= time.Second {
		before := c.Facts
		before.At = now.Add(-ago)
		l.Record.AddSnapshot(before)
		l.Record.AddSamples([]facts.Sample{{ID: c.Socket.ID, At: before.At, Length: 129, Limit: 128}}, now)
	}
	if d := l.Diagnose(c.Socket, false); d.Kind != diagnose.Burst || d.Doubt != "" || d.MaxTarget != 0 ||
		d.Reasons[0] != "the queue is full; how its workers fare while qwatch has them restarted says nothing of the reason" {
		t.Errorf("%+v", d)
	}
	for i := range c.Socket.Workers {
		c.Socket.Workers[i].State = 'T'
	}
	if d := l.Diagnose(c.Socket, false); d.Kind != diagnose.Stall {
		t.Errorf("%+v", d)
	}
	l.History = nil
	for i := range c.Socket.Workers {
		c.Socket.Workers[i].State = 'D'
	}
	if d := l.Diagnose(c.Socket, false); d.Doubt == "" && d.Kind != diagnose.Stall {
		t.Errorf("without a reload: %+v", d)
	}
}

// Two sockets of one master that overflow together are raised in one pass; each
// has its own cooldown afterwards.
func TestSocketsOfOneMaster(t *testing.T) {
	a, b := full(), full()
	b.Incident.ID, b.Socket.ID.Inode, b.Socket.Address = "inc-2", 78, "127.0.0.1:6000"
	both := []facts.Socket{a.Socket, b.Socket}
	a.Facts.Sockets, b.Facts.Sockets = both, both
	join := func() []Case { return []Case{b} }
	plans := DecidePass(defaults(), []Case{a}, join, nil, now)
	if len(plans) != 2 || plans[0].Verdict != Act || plans[1].Verdict != Act {
		t.Fatalf("%+v", plans)
	}
	h := History{past(5*time.Second, "inc-1.1", "relisten", Applied)}
	plans = DecidePass(defaults(), []Case{a, b}, func() []Case { return nil }, h, now)
	if plans[0].Code != CodeCooldown || plans[1].Verdict != Act {
		t.Errorf("%s, %s", plans[0].Code, plans[1].Reason)
	}
}

// Inodes do not follow age: a socket that comes in the place of another may have a
// smaller one, and one that was there beside it a larger.
func TestOfQueueKnowsNoOrderOfInodes(t *testing.T) {
	f, s := full().Facts, full().Socket
	s.ID.Inode, s.Address = 7, "127.0.0.1:41001"
	f.Sockets = []facts.Socket{s}
	e := past(2*time.Second, "inc-1.1", "relisten", Applied) // of another socket of the master
	for _, tt := range []struct {
		name  string
		inode uint64
		first time.Time
		want  bool
	}{
		{"bound since, smaller", 7, now.Add(-time.Second), true},
		{"bound since, larger", 900, now.Add(-time.Second), true},
		{"beside it, smaller", 7, now.Add(-time.Hour), false},
		{"beside it, larger", 900, now.Add(-time.Hour), false},
		{"not known", 7, time.Time{}, true},
	} {
		s.ID.Inode, s.First = tt.inode, tt.first
		f.Sockets[0] = s
		if e.ofQueue(f, s) != tt.want {
			t.Errorf("%s: %v", tt.name, !tt.want)
		}
		p := wholePlan()
		p.Socket.First = now.Add(-time.Hour)
		if got, ok := p.successor(f); ok != (tt.want && !tt.first.IsZero()) || ok && got.ID != s.ID {
			t.Errorf("%s: successor %v", tt.name, ok)
		}
	}
}

// A full stats socket is no application's: nobody is raised or reloaded for it, and
// it does not take the place of a socket that is gone.
func TestStatsSocketIsLeftAlone(t *testing.T) {
	p, c := defaults(), full()
	p.Reload = Always
	services := []facts.Utility{{Address: "/run/stats.sock", Stats: true, At: "stats, /etc/uwsgi/app.ini:4"}}
	c.Socket.Config.Utilities = &services
	c.Facts.Sockets[0] = c.Socket
	if plan := Decide(p, c, nil, now); plan.Verdict != Act {
		t.Errorf("the application's: %s", plan.Reason)
	}
	services[0].Address = "localhost:5000"
	plan := Decide(p, c, nil, now)
	if plan.Verdict != Refuse || plan.Code != codeService ||
		plan.Reason != "it is no application's queue: uWSGI 1234 gives statistics there (stats, /etc/uwsgi/app.ini:4); it is neither raised, nor uWSGI reloaded for it" {
		t.Errorf("%s %s: %s", plan.Verdict, plan.Code, plan.Reason)
	}
	c.Socket.ID.Inode, c.Socket.First = 900, now
	c.Facts.Sockets[0] = c.Socket
	if s, ok := wholePlan().successor(c.Facts); ok {
		t.Errorf("%s stands for the socket that was raised", s.Name())
	}
}
