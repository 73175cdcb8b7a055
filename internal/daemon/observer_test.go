package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/internal/trail"
	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// slowHost is a fakeHost whose looks take their time.
type slowHost struct {
	*fakeHost
	sample, observe time.Duration
	observeErr      error           // of the next Observe
	hidden          map[uint64]bool // inodes that Sample does not list
	refused         []string        // units that were looked at
}

func (s *slowHost) Sample(ctx context.Context) ([]facts.Sample, error) {
	time.Sleep(s.sample)
	samples, err := s.fakeHost.Sample(ctx)
	return slices.DeleteFunc(samples, func(f facts.Sample) bool { return s.hidden[f.ID.Inode] }), err
}

func (s *slowHost) Observe(ctx context.Context) (facts.Snapshot, error) {
	time.Sleep(s.observe)
	f, err := s.fakeHost.Observe(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.observeErr != nil {
		err = s.observeErr
	}
	return f, err
}

func (s *slowHost) Refused(_ context.Context, unit string) facts.Fact[facts.Setting] {
	time.Sleep(10 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, unit)
	return facts.Known(facts.Setting{Listen: 2048, At: "/etc/app.ini:1"})
}

// slowTrail is a trail whose disk is slow, or fails.
type slowTrail struct {
	remediate.Trail
	takes time.Duration
	err   error
}

func (s *slowTrail) History() (remediate.History, error) {
	time.Sleep(s.takes)
	h, err := s.Trail.History()
	if s.err != nil {
		return nil, s.err
	}
	return h, err
}

// onSlowBench is onBench with a slowHost, a trail, and sources that end only
// when f has returned. stop ends the core's context.
func onSlowBench(t *testing.T, host *slowHost, tr func(remediate.Trail) remediate.Trail, edit func(*config.Config), f func(b *bench, stop context.CancelFunc)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if host.somaxconn == 0 {
			host.somaxconn = 128
		}
		b := &bench{t: t, fake: host.fakeHost}
		var audit remediate.Trail = &trail.Trail{}
		if tr != nil {
			audit = tr(audit)
		}
		newActor := func(*config.Config) remediate.Actor {
			return remediate.Acting{Applier: host.fakeHost, Trail: audit}
		}
		b.core = newCore(host, newActor, audit, zerolog.New(&b.log))
		b.configure(configured(edit))
		ctx, cancel := context.WithCancel(t.Context())
		sources, done, looked := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() { defer close(looked); b.observer.run(ctx) }()
		go func() { defer close(done); b.loop(ctx, sources) }()
		defer func() {
			cancel()
			close(sources)
			<-done
			<-looked
			if t.Failed() {
				t.Logf("log:\n%s", b.log.b.String())
			}
		}()
		f(b, cancel)
	})
}

// send sends records of a socket at once.
func (b *bench) send(n int, name string) {
	for range n {
		b.in.hits <- matcher.Hit{Socket: name, FD: 3, Length: 129, Limit: 128, Source: "app.log"}
	}
}

// What was seen before an action ended decides nothing: the same plan would be
// made again, and then be called overtaken by another qwatch.
func TestDecidesOnNothingOld(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{refuse: errors.New("no"), sockets: []facts.Socket{socketAt(1, address, 129), socketAt(2, "127.0.0.1:5001", 129)}}, sample: 10 * time.Millisecond, observe: 30 * time.Millisecond}
	onSlowBench(t, h, nil, nil, func(b *bench, _ context.CancelFunc) {
		time.Sleep(time.Second)
		b.send(3, address)
		time.Sleep(50 * time.Millisecond)
		b.send(3, "127.0.0.1:5001")
		time.Sleep(time.Second)
		synctest.Wait()
		b.wantMessages("another qwatch acted", 0)
		b.wantMessages("plan: the accept queue of "+address, 1)
	})
}

// Two sockets of one master share the reload's cooldown, also where a hit comes
// just as the reload ends.
func TestOneReloadForTwoSockets(t *testing.T) {
	a, c := socketAt(1, address, 129), socketAt(2, "127.0.0.1:5001", 129)
	c.Master = a.Master
	a.Workers, c.Workers = make([]facts.Worker, 2), make([]facts.Worker, 2)
	h := &slowHost{fakeHost: &fakeHost{somaxconn: 4096, noReload: errors.New("the new workers did not come up"), reload: 89*time.Second + 950*time.Millisecond, sockets: []facts.Socket{a, c}}, sample: 10 * time.Millisecond, observe: 30 * time.Millisecond}
	onSlowBench(t, h, nil, func(cfg *config.Config) {
		cfg.Policy.Reload = remediate.Always
		cfg.Policy.Sysctl = false
	}, func(b *bench, _ context.CancelFunc) {
		time.Sleep(time.Second)
		b.send(3, address)
		time.Sleep(41 * time.Millisecond)
		begun := time.Now()
		synctest.Wait()
		h.set(func(h *fakeHost) { h.sockets[0].Length = 0 })
		// hits of the second come one each 10 ms around the end of the reload
		time.Sleep(89*time.Second + 800*time.Millisecond)
		b.send(2, "127.0.0.1:5001")
		for time.Since(begun) < 90*time.Second+500*time.Millisecond {
			time.Sleep(10 * time.Millisecond)
			if b.fake.did("reload") == 1 {
				b.send(1, "127.0.0.1:5001")
			} else {
				b.send(1, address)
			}
		}
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if n := b.fake.did("reload"); n != 1 {
			t.Errorf("%d reloads within the cooldown: %q", n, b.fake.applied)
		}
	})
}

// Where the queues can be sampled but the host cannot be observed, that is said
// once, and status never calls it well.
func TestHalfBlind(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{sockets: []facts.Socket{socketAt(1, address, 3)}}}
	onSlowBench(t, h, nil, func(cfg *config.Config) { cfg.Probe.Interval = time.Second }, func(b *bench, _ context.CancelFunc) {
		time.Sleep(2 * time.Second)
		h.mu.Lock()
		h.observeErr = errors.New("open /proc: too many open files")
		h.mu.Unlock()
		bad := 0
		for range 60 {
			time.Sleep(550 * time.Millisecond)
			b.in.hits <- matcher.Hit{Socket: address, FD: 3, Length: 129, Limit: 128, Source: "app.log"}
			time.Sleep(550 * time.Millisecond)
			synctest.Wait()
			if s := b.statusNow(); s.Sources[0].Error == nil {
				bad++
			}
		}
		b.wantMessages("cannot look at the host", 1)
		if bad > 0 {
			t.Errorf("status calls the probe well %d times of 60", bad)
		}
	})
}

// A line without a unit, which anybody may write, does not hide the one of a
// unit that would not start.
func TestRefusalsWaitTheirTurn(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{}}
	onSlowBench(t, h, nil, nil, func(b *bench, _ context.CancelFunc) {
		time.Sleep(time.Second)
		b.in.marks <- matcher.Mark{Kind: matcher.MarkNoStart, Source: "/var/log/uwsgi/other.log"}
		b.in.marks <- matcher.Mark{Kind: matcher.MarkNoStart, Source: "journal", Unit: "app.service"}
		time.Sleep(time.Minute)
		synctest.Wait()
		if fmt.Sprint(h.refused) != "[app.service]" {
			t.Errorf("looked at %v", h.refused)
		}
		b.wantMessages("start the unit", 1)
	})
}

// Nor does the recovery at the start.
func TestRefusalDuringRecovery(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{}, observe: 20 * time.Millisecond}
	onSlowBench(t, h, func(tr remediate.Trail) remediate.Trail {
		one := 1
		tr.Append(remediate.Event{Plan: "p.1", Socket: address, Action: "sysctl", Target: "net.core.somaxconn", From: &one, To: &one, Result: remediate.Started})
		return tr
	}, nil, func(b *bench, _ context.CancelFunc) {
		b.in.marks <- matcher.Mark{Kind: matcher.MarkNoStart, Source: "journal", Unit: "app.service"}
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantMessages("start the unit", 1)
	})
}

// The status line that systemd is told after an action tells of it.
func TestStatusLineAfterAnAction(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129)}}, sample: 10 * time.Millisecond, observe: 30 * time.Millisecond}
	onSlowBench(t, h, nil, nil, func(b *bench, _ context.CancelFunc) {
		var last string
		ctx, cancel := context.WithCancel(context.Background())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for {
				select {
				case <-b.report.changed:
				case <-ctx.Done():
					return
				}
				var s Status
				if b.call(ctx, func(context.Context) { b.status(&s) }) == nil {
					last = s.Summary()
				}
			}
		}()
		time.Sleep(time.Second)
		b.send(3, address)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if !strings.Contains(last, "judge of ") {
			t.Errorf("the line does not tell the last event: %q", last)
		}
		cancel()
		<-gone
	})
}

// A trail whose disk is slow holds up decisions, and that is said once.
func TestSlowTrail(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{sockets: []facts.Socket{socketAt(1, address, 3)}}}
	onSlowBench(t, h, func(tr remediate.Trail) remediate.Trail { return &slowTrail{Trail: tr, takes: 1500 * time.Millisecond} }, nil, func(b *bench, _ context.CancelFunc) {
		b.send(3, address)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		b.wantMessages("the host has not answered", 2)
	})
}

// A trail that cannot be read is not called a host that cannot be seen.
func TestTrailCannotBeRead(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{sockets: []facts.Socket{socketAt(1, address, 3)}}}
	onSlowBench(t, h, func(tr remediate.Trail) remediate.Trail {
		return &slowTrail{Trail: tr, err: errors.New("audit trail: input/output error")}
	},
		func(cfg *config.Config) { cfg.Probe.Interval = time.Second }, func(b *bench, _ context.CancelFunc) {
			b.hear(5, "127.0.0.1:9")
			if s := b.statusNow(); s.Sources[0].Error != nil {
				t.Errorf("the probe is said to fail: %s", *s.Sources[0].Error)
			}
			b.wantMessages("the host cannot be seen", 0)
			b.in.marks <- matcher.Mark{Kind: matcher.MarkNoStart, Source: "journal", Unit: "app.service"}
			time.Sleep(10 * time.Second)
			b.wantMessages("cannot look at the host", 0)
			b.wantMessages("cannot read what was done before", 1)
		})
}

// A hit that comes while only the queues are looked at waits for the snapshot.
func TestNewSocketOfAHit(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{sockets: []facts.Socket{socketAt(1, address, 3)}}, sample: 20 * time.Millisecond, observe: 30 * time.Millisecond, hidden: map[uint64]bool{2: true}}
	onSlowBench(t, h, nil, func(cfg *config.Config) { cfg.Probe.Interval = time.Second }, func(b *bench, _ context.CancelFunc) {
		time.Sleep(5*time.Second + 5*time.Millisecond) // a probe is under way
		h.set(func(h *fakeHost) { h.sockets = append(h.sockets, socketAt(2, "127.0.0.1:5001", 129)) })
		b.send(3, "127.0.0.1:5001")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.wantMessages("the socket was not found", 0)
	})
}

// Two looks of 0.6 s, one after the other, are no silence.
func TestSlowIsNotSilent(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{sockets: []facts.Socket{socketAt(1, address, 3)}}, sample: 600 * time.Millisecond}
	onSlowBench(t, h, nil, func(cfg *config.Config) { cfg.Probe.Interval = time.Second }, func(b *bench, _ context.CancelFunc) {
		time.Sleep(5 * time.Second)
		for range 100 {
			b.send(1, address)
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		b.wantMessages("the host has not answered", 0)
	})
}

// After SIGTERM nobody looks at the host any more, while the sources end.
func TestSilenceAtTheEnd(t *testing.T) {
	h := &slowHost{fakeHost: &fakeHost{sockets: []facts.Socket{socketAt(1, address, 3)}}}
	onSlowBench(t, h, nil, func(cfg *config.Config) { cfg.Probe.Interval = time.Second }, func(b *bench, stop context.CancelFunc) {
		time.Sleep(5 * time.Second)
		stop()
		b.send(3, address)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		b.wantMessages("the host has not answered", 0)
	})
}

// leaving is a host whose snapshots leave sockets out, as where one user has too
// many.
type leaving struct {
	*fakeHost
	looks int
}

func (l *leaving) Observe(ctx context.Context) (facts.Snapshot, error) {
	l.looks++
	f, err := l.fakeHost.Observe(ctx)
	f.Sockets = f.Sockets[:1]
	return f, err
}

func TestWhatASnapshotLeavesOut(t *testing.T) {
	h := &leaving{fakeHost: &fakeHost{sockets: []facts.Socket{socketAt(1, address, 0), socketAt(2, "127.0.0.1:5001", 0)}}}
	o := newObserver(h, &trail.Trail{})
	for range 5 {
		o.look(t.Context(), false)
	}
	if h.looks != 1 {
		t.Errorf("the whole host was looked at %d times", h.looks)
	}
	h.sockets = append(h.sockets, socketAt(3, "127.0.0.1:5002", 0))
	if seen := o.look(t.Context(), false); seen.snapshot == nil {
		t.Error("a new socket is not looked at")
	}
}
