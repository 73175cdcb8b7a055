package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/internal/trail"
	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// fakeHost is a host with some uWSGI sockets, and what changes it.
type fakeHost struct {
	silent    chan struct{} // where set no look ends before it is closed
	mu        sync.Mutex
	somaxconn int
	overflows uint64
	sockets   []facts.Socket
	reload    time.Duration // how long one takes
	late      time.Duration // how much longer, after nobody waits for it any more
	err       error         // of the next Observe and Sample
	refuse    error         // of every action
	noReload  error         // of every reload
	applied   []string
}

// nothingNew is what a reload brings where nobody has changed anything.
func nothingNew() facts.Deploy {
	since := facts.Known(time.Now().Add(-time.Hour))
	old := time.Now().Add(-2 * time.Hour)
	return facts.Deploy{
		Since: since, Loaded: since, Lost: facts.Absent[string](), Program: facts.Absent[facts.File](),
		Config: facts.Known(facts.File{Path: "/etc/uwsgi/app.ini", At: old}), Source: facts.Known(facts.File{Path: "/srv/shop/app.py", At: old}),
	}
}

func socketAt(n int, address string, length int) facts.Socket {
	return facts.Socket{
		ID: facts.SocketID{NetNS: 1, Inode: uint64(n)}, Family: facts.TCP, Address: address, FD: 3,
		Master: facts.Process{PID: n, Start: 1, Comm: "uwsgi", Unit: facts.Absent[string](), UID: facts.Known(0)}, Length: length, Limit: 128,
		Config:    facts.Config{Listen: facts.Known(facts.Setting{Listen: 128, At: "default"}), ReloadEnds: facts.Absent[string]()},
		Unit:      facts.Absent[facts.SocketUnit](),
		Sight:     facts.Known(facts.Sight{Files: true}),
		Deploy:    nothingNew(),
		Untrusted: facts.Absent[string](), Paused: facts.Absent[string](),
		Ways: facts.Ways{NoSignal: facts.Absent[string](), Sharers: facts.Absent[string]()},
	}
}

// answers waits while the host is silent. Like the kernel it does not care for
// a context.
func (h *fakeHost) answers() {
	h.mu.Lock()
	silent := h.silent
	h.mu.Unlock()
	if silent != nil {
		<-silent
	}
}

func (h *fakeHost) Observe(context.Context) (facts.Snapshot, error) {
	h.answers()
	h.mu.Lock()
	defer h.mu.Unlock()
	f := facts.Snapshot{At: time.Now(), Sockets: slices.Clone(h.sockets), Sysctl: map[string]int{"net.core.somaxconn": h.somaxconn}, Cannot: facts.Allowed()}
	for i := range f.Sockets {
		f.Sockets[i].Somaxconn = facts.Known(h.somaxconn)
	}
	return f, h.err
}

func (h *fakeHost) Sample(context.Context) ([]facts.Sample, error) {
	h.answers()
	h.mu.Lock()
	defer h.mu.Unlock()
	var readings []facts.Sample
	for _, s := range h.sockets {
		readings = append(readings, facts.Sample{ID: s.ID, At: time.Now(), Length: s.Length, Limit: s.Limit, Overflows: h.overflows})
	}
	return readings, h.err
}

func (h *fakeHost) Refused(context.Context, string) facts.Fact[facts.Setting] {
	return facts.Unknown[facts.Setting]("unknown")
}

func (h *fakeHost) Apply(ctx context.Context, a remediate.Action) remediate.Outcome {
	if _, ok := a.(remediate.Reload); ok {
		select {
		case <-time.After(h.reload):
		case <-ctx.Done():
			return remediate.Outcome{Result: remediate.Failed, Now: -1, Err: ctx.Err()}
		}
		if h.late > 0 {
			asked := time.Now().Add(-h.reload)
			return remediate.Outcome{
				Result: remediate.Failed, Now: -1, Err: errors.New("not done in time"), Served: &facts.Served{Asked: asked, Seen: time.Now(), Before: 2, Left: 1},
				Late: func(ctx context.Context) remediate.Outcome {
					select {
					case <-time.After(h.late):
					case <-ctx.Done():
					}
					s := facts.Served{Asked: asked, Stood: time.Now().Add(-10 * time.Second), Seen: time.Now(), Renewed: true, Before: 2, After: 2, Listens: true, Watched: facts.Intake{Accepted: 40, Came: true}}
					s.Intake.Unserved = 3 * time.Second
					return remediate.Outcome{Result: remediate.Applied, Now: -1, Served: &s}
				},
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.applied = append(h.applied, a.String())
	if h.refuse != nil {
		return remediate.Outcome{Result: remediate.Failed, Now: -1, Err: h.refuse}
	}
	if _, ok := a.(remediate.Reload); ok && h.noReload != nil {
		return remediate.Outcome{Result: remediate.Failed, Now: -1, Err: h.noReload}
	}
	switch a := a.(type) {
	case remediate.SetSysctl:
		h.somaxconn = a.To
	case remediate.Relisten:
		i := slices.IndexFunc(h.sockets, func(s facts.Socket) bool { return s.ID == a.Socket.ID })
		h.sockets[i].Limit = a.To
	}
	return remediate.Outcome{Result: remediate.Applied, Now: -1}
}

func (h *fakeHost) set(f func(*fakeHost)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

// String is the state that the tests compare.
func (h *fakeHost) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := fmt.Sprintf("somaxconn %d", h.somaxconn)
	for _, q := range h.sockets {
		s += fmt.Sprintf("; %s %d of %d", q.Address, q.Length, q.Limit)
	}
	return s
}

// did counts the actions taken, by the first word.
func (h *fakeHost) did(word string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, a := range h.applied {
		if strings.HasPrefix(a, word) {
			n++
		}
	}
	return n
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// bench is a core that runs on a fake host, in a bubble of synctest.
type bench struct {
	*core
	t    *testing.T
	fake *fakeHost
	log  buffer
	stop func() // ends the core and waits for it
}

const address = "127.0.0.1:5000"

// onBench runs f beside a core with the built-in policy, which acts at the
// third hit and has no probe, as edit changes it.
func onBench(t *testing.T, fake *fakeHost, edit func(*config.Config), f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if fake.somaxconn == 0 {
			fake.somaxconn = 128
		}
		b := &bench{t: t, fake: fake}
		trail := &trail.Trail{}
		newActor := func(cfg *config.Config) remediate.Actor {
			if cfg.Policy.DryRun {
				return remediate.DryRun{Trail: trail}
			}
			return remediate.Acting{Applier: fake, Trail: trail}
		}
		b.core = newCore(fake, newActor, trail, zerolog.New(&b.log))
		cfg := configured(edit)
		b.configure(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go b.observer.run(ctx)
		go func() {
			defer close(done)
			if err := b.loop(ctx, ctx.Done()); err != nil {
				t.Error(err)
			}
		}()
		b.stop = func() { cancel(); <-done }
		defer func() {
			b.stop()
			if t.Failed() {
				t.Logf("log:\n%s", b.log.b.String())
			}
		}()
		f(b)
	})
}

func configured(edit func(*config.Config)) *config.Config {
	cfg := config.BuiltIn()
	cfg.Policy.DryRun = false
	cfg.Probe.Interval = 0
	if edit != nil {
		edit(cfg)
	}
	return cfg
}

// hear sends records of a socket, one each second.
func (b *bench) hear(n int, name string) {
	for range n {
		b.in.hits <- matcher.Hit{Socket: name, FD: 3, Length: 129, Limit: 128, Source: "app.log"}
		time.Sleep(time.Second)
		synctest.Wait()
	}
}

// messages are the log's lines with these words.
func (b *bench) messages(words string) []string {
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.log.b.String()) {
		var l struct{ Message string }
		if json.Unmarshal([]byte(line), &l) == nil && strings.Contains(l.Message, words) {
			found = append(found, l.Message)
		}
	}
	return found
}

func (b *bench) wantMessages(words string, want int) {
	b.t.Helper()
	if got := b.messages(words); len(got) != want {
		b.t.Errorf("%d messages with %q, want %d: %q", len(got), words, want, got)
	}
}

func (b *bench) wantHost(want string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.fake.String()); diff != "" {
		b.t.Errorf("host (-want +got):\n%s", diff)
	}
}

func (b *bench) statusNow() Status {
	b.t.Helper()
	var s Status
	if err := b.call(b.t.Context(), func(context.Context) { b.status(&s) }); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// One incident: raised at the third record, judged, held back by the cooldown,
// over when it is quiet; each told once.
func TestIncident(t *testing.T) {
	onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129), socketAt(2, "127.0.0.1:5001", 0)}}, nil, func(b *bench) {
		b.hear(2, address)
		b.wantHost("somaxconn 128; 127.0.0.1:5000 129 of 128; 127.0.0.1:5001 0 of 128")
		b.hear(1, address)
		b.wantHost("somaxconn 1024; 127.0.0.1:5000 129 of 1024; 127.0.0.1:5001 0 of 128")
		b.hear(4, address)
		b.wantMessages("fixed at "+address, 1)
		b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 1025 })
		b.hear(30, address)
		if s := b.statusNow(); len(s.Incidents) != 1 || s.Incidents[0].State != "open" || s.Incidents[0].Hits != 37 || s.Sockets[0].Hits != 37 {
			t.Errorf("status: %+v %+v", s.Incidents, s.Sockets)
		}
		if n := b.fake.did("listen"); n != 1 {
			t.Errorf("raised %d times within the cooldown: %q", n, b.fake.applied)
		}
		b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 0 })
		time.Sleep(61 * time.Second)
		synctest.Wait()
		b.wantMessages("is full: 3 records say so", 1)
		b.wantMessages("incident at "+address+" is over: 37 records", 1)
		b.wantMessages("plan: ", 1)
		if s := b.statusNow(); len(s.Incidents) != 1 || s.Incidents[0].State != "closed" || s.Incidents[0].Plan == nil {
			t.Errorf("status: %+v", s.Incidents)
		}
	})
}

// What the log says and the kernel does not show changes nothing, and is said
// once.
func TestUncorroborated(t *testing.T) {
	onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, address, 3)}}, nil, func(b *bench) {
		b.hear(40, address)
		b.wantHost("somaxconn 128; 127.0.0.1:5000 3 of 128")
		b.wantMessages("the kernel does not show what the log says", 1)
		b.wantMessages("", 2)
		// The moment the kernel shows it, the same incident acts.
		b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 129 })
		b.hear(1, address)
		b.wantHost("somaxconn 1024; 127.0.0.1:5000 129 of 1024")
	})
}

// Records that fit no socket share one incident, whatever they name.
func TestLostRecords(t *testing.T) {
	onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129)}}, nil, func(b *bench) {
		for i := range 5000 {
			b.in.hits <- matcher.Hit{Socket: fmt.Sprintf("10.0.0.1:%d", i), FD: 3, Length: 129, Limit: 128, Source: "app.log"}
		}
		synctest.Wait()
		b.wantHost("somaxconn 128; 127.0.0.1:5000 129 of 128")
		b.wantMessages("the socket was not found", 1)
		b.wantMessages("", 2)
		if s := b.statusNow(); len(s.Incidents) != 1 || s.Incidents[0].Hits != 5000 {
			t.Errorf("status: %+v", s.Incidents)
		}
	})
}

// A queue that is full although the log is silent is seen by the probe; where
// the log speaks, the probe does not count the same again.
func TestProbe(t *testing.T) {
	probe := func(cfg *config.Config) { cfg.Probe.Interval = time.Second }
	onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, "/run/app.sock", 129)}}, probe, func(b *bench) {
		time.Sleep(5 * time.Second)
		synctest.Wait()
		b.wantHost("somaxconn 1024; /run/app.sock 129 of 1024")
		b.wantMessages("is full: 3 records", 1)
	})
	onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129)}}, func(cfg *config.Config) {
		probe(cfg)
		cfg.Policy.Relisten = false
		cfg.Policy.Reload = remediate.Never
	}, func(b *bench) {
		b.hear(20, address)
		if s := b.statusNow(); s.Sockets[0].Hits != 20 || s.Sources[0].Hits != 0 {
			t.Errorf("%d hits of the socket, %d of the probe; want 20 and 0", s.Sockets[0].Hits, s.Sources[0].Hits)
		}
	})
}

// Bursts that come and go between two probes leave only overflows behind. They
// are the socket's where no other accepts connections.
func TestBursts(t *testing.T) {
	for _, test := range []struct {
		alone bool
		want  string
	}{
		{true, "somaxconn 1024; 127.0.0.1:5000 0 of 1024"},
		{false, "somaxconn 128; 127.0.0.1:5000 0 of 128"},
	} {
		s := socketAt(1, "127.0.0.1:5000", 0)
		s.SoleListener = test.alone
		fake := &fakeHost{somaxconn: 128, sockets: []facts.Socket{s}}
		onBench(t, fake, func(cfg *config.Config) { cfg.Probe.Interval = time.Second }, func(b *bench) {
			time.Sleep(time.Second / 2) // between the probes
			for range 6 {
				time.Sleep(time.Second)
				fake.set(func(h *fakeHost) {
					if h.sockets[0].Limit == 128 {
						h.overflows += 10
					}
				})
			}
			synctest.Wait()
			b.wantHost(test.want)
		})
	}
}

// An action that cannot even be recorded is tried again after the cooldown,
// not at once and for ever.
func TestUnrecorded(t *testing.T) {
	onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129)}}, nil, func(b *bench) {
		tries := 0
		if err := b.call(b.t.Context(), func(context.Context) { b.actions.actor = unrecorded{&tries} }); err != nil {
			t.Fatal(err)
		}
		b.hear(50, address)
		if tries != 1 {
			t.Errorf("%d tries within the cooldown, want 1", tries)
		}
		b.hear(20, address)
		if tries != 2 {
			t.Errorf("%d tries after it, want 2", tries)
		}
	})
}

// unrecorded is the actor of a full disk.
type unrecorded struct{ tries *int }

func (u unrecorded) Do(_ context.Context, steps []remediate.Step) []remediate.Outcome {
	*u.tries++
	all := make([]remediate.Outcome, len(steps))
	for i := range all {
		all[i] = remediate.Outcome{Result: remediate.Failed, Now: -1, Err: errors.New("no space left on device")}
	}
	return all
}

// A reload that was called failed and comes to its end later is put right.
func TestLateReload(t *testing.T) {
	always := func(cfg *config.Config) { cfg.Policy.Reload = remediate.Always }
	s := socketAt(1, address, 129)
	s.Workers = make([]facts.Worker, 2)
	onBench(t, &fakeHost{reload: 2 * time.Second, late: time.Minute, sockets: []facts.Socket{s}}, always, func(b *bench) {
		b.hear(5, address)
		b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 0 })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.wantMessages("failed: reload uWSGI 1", 1)
		b.wantMessages("no-effect at "+address, 1)
		b.wantMessages("fixed at "+address, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantMessages("applied: reload uWSGI 1", 1)
		b.wantMessages("fixed at "+address, 1)
		var late []remediate.Event
		for _, e := range b.statusNow().Actions {
			if e.Late {
				late = append(late, e)
			}
		}
		if len(late) != 1 || late[0].Result != remediate.Applied || *late[0].Unserved != 3 || *late[0].WorkersAfter != 2 {
			t.Errorf("%+v", late)
		}
	})
}

// While a reload is under way hits are taken, others are raised and judged, a new
// configuration comes into force, and the end of the core waits for no more than
// that the reload is told to end.
func TestDuringAReload(t *testing.T) {
	always := func(cfg *config.Config) { cfg.Policy.Reload = remediate.Always }
	served := socketAt(1, address, 129)
	served.Workers = make([]facts.Worker, 2) // their end is the reload's
	other := socketAt(2, "127.0.0.1:5001", 0)
	onBench(t, &fakeHost{reload: 30 * time.Second, sockets: []facts.Socket{served, other}}, always, func(b *bench) {
		b.hear(5, address)
		b.fake.set(func(h *fakeHost) { h.sockets[1].Length = 129 })
		b.hear(5, "127.0.0.1:5001")
		b.wantHost("somaxconn 1024; 127.0.0.1:5000 129 of 1024; 127.0.0.1:5001 129 of 1024")
		time.Sleep(time.Second)
		synctest.Wait()
		b.wantMessages("fixed at 127.0.0.1:5001", 1)
		b.wantMessages("fixed at "+address, 0)
		dry := configured(func(cfg *config.Config) { cfg.Policy.DryRun = true })
		if err := b.call(b.t.Context(), func(context.Context) { b.configure(dry) }); err != nil {
			t.Fatal(err)
		}
		var dryNow bool
		if err := b.call(b.t.Context(), func(context.Context) { dryNow = b.settings.policy.DryRun }); err != nil {
			t.Fatal(err)
		}
		if !dryNow || b.fake.did("reload") != 0 {
			t.Errorf("dry run %v, %q", dryNow, b.fake.applied)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if b.fake.did("reload") != 1 {
			t.Errorf("%q", b.fake.applied)
		}
		b.wantMessages("fixed at "+address, 1)
	})
	// Nor does it keep the socket itself from its next raise.
	onBench(t, &fakeHost{reload: 5 * time.Minute, sockets: []facts.Socket{served}}, always, func(b *bench) {
		b.hear(3, address)
		b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 0 })
		b.hear(62, address)
		b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 1025 })
		b.hear(8, address)
		b.wantHost("somaxconn 2048; 127.0.0.1:5000 1025 of 2048")
		if n := b.fake.did("listen"); n != 2 {
			t.Errorf("%q", b.fake.applied)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if b.fake.did("reload") != 1 {
			t.Errorf("%q", b.fake.applied)
		}
		b.wantMessages("fixed at "+address, 1)
	})
	onBench(t, &fakeHost{reload: time.Hour, sockets: []facts.Socket{served}}, always, func(b *bench) {
		b.hear(4, address)
		begin := time.Now()
		b.stop()
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("stopped after %v", took)
		}
		history, err := b.actions.trail.History()
		// uWSGI goes on with its reload: that it has failed is not known, and
		// nothing is judged.
		open := history.Unfinished()
		if err != nil || len(open) != 1 || open[0].Action != "reload" || history[len(history)-1].Result != remediate.Started {
			t.Errorf("left unfinished: %v, %v", open, err)
		}
		b.wantMessages("failed: reload", 0)
		b.wantMessages("qwatch was stopped while this was under way", 1)
	})
}

// Where the host cannot be seen nothing is done, that is said once, and it
// goes on when it can be seen again.
func TestBlind(t *testing.T) {
	onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129)}}, func(cfg *config.Config) { cfg.Probe.Interval = time.Second }, func(b *bench) {
		time.Sleep(1500 * time.Millisecond) // what was seen before says nothing
		b.fake.set(func(h *fakeHost) { h.err = errors.New("netlink is broken") })
		b.hear(20, address)
		b.wantHost("somaxconn 128; 127.0.0.1:5000 129 of 128")
		if n := len(b.messages("cannot ")); n == 0 || n > 2 {
			t.Errorf("said %d times: %q", n, b.messages("cannot "))
		}
		b.fake.set(func(h *fakeHost) { h.err = nil })
		b.hear(5, address)
		b.wantHost("somaxconn 1024; 127.0.0.1:5000 129 of 1024")
	})
}

// A host that does not answer holds nobody up: hits go on, the core answers at
// once, and it is said once. When it answers again, so does qwatch.
func TestSilentHost(t *testing.T) {
	for _, from := range []string{"the start", "later"} {
		t.Run(from, func(t *testing.T) {
			var silent chan struct{}
			fake := &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129)}}
			onBench(t, fake, func(cfg *config.Config) {
				cfg.Probe.Interval = time.Second
				silent = make(chan struct{}) // in the bubble
				if from == "the start" {
					fake.silent = silent
				}
			}, func(b *bench) {
				time.Sleep(time.Second)
				synctest.Wait()
				fake.set(func(h *fakeHost) { h.silent = silent })
				time.Sleep(time.Second)
				begin := time.Now()
				for range 3 {
					b.in.hits <- matcher.Hit{Socket: address, FD: 3, Length: 129, Limit: 128, Source: "app.log"}
				}
				for len(b.messages("is full: 3 records say so")) == 0 && time.Since(begin) < time.Minute {
					time.Sleep(10 * time.Millisecond)
				}
				if took := time.Since(begin); took > silence+50*time.Millisecond {
					t.Errorf("the incident came %v after the third record", took)
				}
				begin = time.Now()
				s := b.statusNow()
				if took := time.Since(begin); took != 0 || len(s.Incidents) != 1 {
					t.Errorf("status after %v: %+v", took, s.Incidents)
				}
				if s.Sources[0].Error == nil || *s.Sources[0].Error != "no answer within 1s" {
					t.Errorf("the probe's error: %v", s.Sources[0].Error)
				}
				b.hear(20, address)
				b.wantHost("somaxconn 128; 127.0.0.1:5000 129 of 128")
				b.wantMessages("the host has not answered", 1)
				fake.set(func(h *fakeHost) { h.silent = nil })
				close(silent)
				b.hear(5, address)
				b.wantHost("somaxconn 1024; 127.0.0.1:5000 129 of 1024")
			})
		})
	}
}

// A probe that looks more often than the judge keeps no verdict back.
func TestVerdictBesideAProbe(t *testing.T) {
	for _, every := range []time.Duration{100 * time.Millisecond, 250 * time.Millisecond, 700 * time.Millisecond} {
		onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129)}}, func(cfg *config.Config) { cfg.Probe.Interval = every }, func(b *bench) {
			time.Sleep(6 * time.Second)
			synctest.Wait()
			b.wantMessages("fixed at ", 1)
			b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 1025 })
			time.Sleep(33 * time.Second)
			synctest.Wait()
			b.wantMessages("no-effect at ", 1)
		})
	}
}

// What overflows together is raised together, below the threshold too, and also
// where a place was free just now; what was not full is left alone.
func TestRaisedTogether(t *testing.T) {
	fake := &fakeHost{}
	for i := range 31 {
		fake.sockets = append(fake.sockets, socketAt(i+1, fmt.Sprintf("127.0.0.1:%d", 5000+i), 129))
	}
	fake.sockets[30].Length = 128
	onBench(t, fake, nil, func(b *bench) {
		b.hear(2, address)
		b.fake.set(func(h *fakeHost) { h.sockets[29].Length = 128 })
		b.hear(1, address)
		if n := b.fake.did("listen"); n != 30 || b.fake.sockets[30].Limit != 128 {
			t.Errorf("%d were raised: %s", n, b.fake)
		}
		s := b.statusNow()
		if len(s.Incidents) != 30 || s.Incidents[29].Plan == nil || s.Incidents[29].Slope != nil || *s.Incidents[29].Outlook != "not judged yet" {
			t.Errorf("status: %d incidents, %+v", len(s.Incidents), s.Incidents[29])
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		b.wantMessages("fixed at ", 30)
		b.wantMessages("1 record says so, the last one 129 of 128", 29)
	})
}

// A queue that grows after its raise is not called fixed before it has held, its
// incident stays open until then, and status tells how it does. One that was fixed
// and is full again is said anew.
func TestVerdictWaits(t *testing.T) {
	onBench(t, &fakeHost{sockets: []facts.Socket{socketAt(1, address, 129)}}, func(cfg *config.Config) { cfg.Group.Quiet = 5 * time.Second }, func(b *bench) {
		b.hear(3, address)
		time.Sleep(50 * time.Millisecond) // not in the instants of the looks: which is first would be chance
		for i := range 45 * 5 {           // 10 a second, to 450
			b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 2*i + 1 })
			time.Sleep(200 * time.Millisecond)
		}
		synctest.Wait()
		b.wantMessages("fixed at ", 0)
		b.wantMessages("no verdict about 127.0.0.1:5000 yet: not full, growing by 10 a second, full again in 101 s", 1)
		s := b.statusNow()
		if i := s.Incidents[0]; i.State != "open" || i.Slope == nil || *i.Slope < 9 || *i.Slope > 11 || !strings.HasPrefix(*i.Outlook, "not full, growing by ") || !strings.Contains(*i.Outlook, " a second, full again in ") || s.Sockets[0].Slope == nil {
			t.Errorf("status: %+v", i)
		}
		time.Sleep(65 * time.Second)
		synctest.Wait()
		b.wantMessages("fixed at ", 1)
		if s := b.statusNow(); s.Incidents[0].State != "closed" || s.Incidents[0].Slope != nil {
			t.Errorf("status: %+v", s.Incidents[0])
		}
		b.fake.set(func(h *fakeHost) { h.sockets[0].Length = 1025 })
		time.Sleep(32 * time.Second)
		synctest.Wait()
		b.wantMessages("no-effect at 127.0.0.1:5000: the limit is 1024 now, yet the queue is full again", 1)
		history, err := b.actions.trail.History()
		if err != nil {
			t.Fatal(err)
		}
		var verdicts []string
		for _, e := range history {
			if e.Action == "judge" {
				verdicts = append(verdicts, string(e.Result))
			}
		}
		if diff := cmp.Diff([]string{"fixed", "no-effect"}, verdicts); diff != "" {
			t.Errorf("verdicts (-want +got)\n%s", diff)
		}
	})
}

// Raises that end nothing end themselves.
func TestGivesUp(t *testing.T) {
	onBench(t, &fakeHost{refuse: errors.New("no"), sockets: []facts.Socket{socketAt(1, address, 129)}}, nil, func(b *bench) {
		b.hear(600, address)
		if n := b.fake.did("set net.core.somaxconn"); n != 3 {
			t.Errorf("tried %d times, want 3: %q", n, b.fake.applied)
		}
		b.wantMessages("gave up", 1)
		if n := len(b.messages("")); n > 20 {
			t.Errorf("%d lines of log", n)
		}
	})
}
