package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/internal/trail"
	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// crowd is a host where one user runs a thousand uWSGI whose queues are always
// full, and where the last socket is somebody else's.
type crowd struct{ snapshot facts.Snapshot }

func newCrowd(n int) crowd {
	f := facts.Snapshot{At: time.Now(), Sysctl: map[string]int{"net.core.somaxconn": 4096}, Cannot: facts.Allowed()}
	for i := range n + 1 {
		master := facts.Process{PID: 1000 + i, Start: 1, Comm: "uwsgi", UID: facts.Known(65534)}
		if i == n {
			master.UID = facts.Known(33)
		}
		f.Sockets = append(f.Sockets, facts.Socket{
			ID: facts.SocketID{NetNS: 1, Inode: uint64(i + 1)}, Family: facts.Unix, Address: fmt.Sprintf("/run/%d.sock", i),
			Length: 101, Limit: 100, Master: master, FD: 3, Somaxconn: facts.Known(4096), Untrusted: facts.Absent[string](), Paused: facts.Absent[string](),
			Ways:    facts.Ways{NoSignal: facts.Absent[string](), Sharers: facts.Absent[string]()},
			Workers: []facts.Worker{{Process: facts.Process{PID: 5000 + i, Start: 1}, State: 'S'}},
		})
	}
	return crowd{f}
}

func (h crowd) Observe(context.Context) (facts.Snapshot, error) {
	h.snapshot.At = time.Now()
	return h.snapshot, nil
}

func (h crowd) Sample(context.Context) ([]facts.Sample, error) {
	var all []facts.Sample
	for _, s := range h.snapshot.Sockets {
		all = append(all, facts.Sample{ID: s.ID, At: time.Now(), Length: s.Length, Limit: s.Limit})
	}
	return all, nil
}

func (h crowd) Refused(context.Context, string) facts.Fact[facts.Setting] {
	return facts.Unknown[facts.Setting]("none")
}

// refused is an actor that can do nothing, and so needs no judge.
type refused struct{ tried func(socket string) }

func (r refused) Do(_ context.Context, steps []remediate.Step) []remediate.Outcome {
	var all []remediate.Outcome
	for _, s := range steps {
		r.tried(s.Plan.Name)
		all = append(all, remediate.Outcome{Result: remediate.Failed, Now: -1, Err: errors.New("not here")})
	}
	return all
}

func TestACrowdOfOneUserDelaysNobodyElse(t *testing.T) {
	ctx := t.Context()
	h := newCrowd(1000)
	var order []string
	actor := refused{func(socket string) {
		if !slices.Contains(order, socket) {
			order = append(order, socket)
		}
	}}
	c := newCore(h, func(*config.Config) remediate.Actor { return actor }, &trail.Trail{}, zerolog.Nop())
	cfg := config.Default()
	cfg.Policy.DryRun, cfg.Group.Threshold = false, 1
	c.configure(cfg)
	snapshot, err := h.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c.newSnapshot(snapshot)
	now := time.Now()
	c.record.AddSamples(must(h.Sample(ctx)), now)
	for _, s := range snapshot.Sockets {
		c.enter(found{key: s.Key(), id: s.ID}, matcher.Hit{Socket: s.Name(), Length: 101, Limit: 100, Source: "probe"}, now)
	}
	if n := len(c.open); n != admitted+1 {
		t.Errorf("%d incidents are open, want %d of the crowd and the real one", n, admitted)
	}
	last := h.snapshot.Sockets[1000].Name()
	c.consider(ctx, now)
	if !c.actions.raising {
		t.Fatal("nothing is done at all")
	}
	c.actions.ended(<-c.actions.done)
	if len(order) != admitted+1 || slices.Index(order, last) > 1 {
		t.Errorf("%d are tried, %s as number %d", len(order), last, slices.Index(order, last))
	}
}

// However many users have uWSGIs that qwatch does not act on: together they have
// the place of one, and no turn.
func TestStrangersHaveNoTurn(t *testing.T) {
	ctx := t.Context()
	h := newCrowd(200)
	for i := range h.snapshot.Sockets[:200] {
		h.snapshot.Sockets[i].Master.UID, h.snapshot.Sockets[i].Untrusted = facts.Known(2000+i), facts.Known("it is a user's own")
	}
	var tried []string
	actor := refused{func(socket string) { tried = append(tried, socket) }}
	c := newCore(h, func(*config.Config) remediate.Actor { return actor }, &trail.Trail{}, zerolog.Nop())
	cfg := config.Default()
	cfg.Policy.DryRun, cfg.Group.Threshold = false, 1
	c.configure(cfg)
	c.newSnapshot(must(h.Observe(ctx)))
	now := time.Now()
	c.record.AddSamples(must(h.Sample(ctx)), now)
	for _, s := range c.view.snapshot.Sockets {
		c.enter(found{key: s.Key(), id: s.ID}, matcher.Hit{Socket: s.Name(), Length: 101, Limit: 100, Source: "probe"}, now)
	}
	if n := len(c.open); n != admitted+1 {
		t.Errorf("%d incidents are open, want %d of the strangers and the real one", n, admitted)
	}
	c.consider(ctx, now)
	if !c.actions.raising {
		t.Fatal("nothing is done at all")
	}
	c.actions.ended(<-c.actions.done)
	want := h.snapshot.Sockets[200].Name()
	if slices.ContainsFunc(tried, func(name string) bool { return name != want }) || len(tried) == 0 || len(c.raises) != 1 {
		t.Errorf("%q were acted on, want %s; turns %v", tried, want, c.raises)
	}
	if n := len(c.open); n != admitted+1 {
		t.Errorf("%d incidents are open after a look at all queues", n)
	}
}

// Thousands of sockets of strangers leave the record of a real one alone.
func TestStrangersLeaveTheRecord(t *testing.T) {
	h := newCrowd(5000)
	for i := range h.snapshot.Sockets {
		s := &h.snapshot.Sockets[i]
		s.Length = 60
		if i < 5000 {
			s.Length = 10 * (i % 2)
			s.Untrusted = facts.Known("it is a user's own")
		}
	}
	h.snapshot.Sockets[1234].Length = 50
	c := newCore(h, func(*config.Config) remediate.Actor { return refused{} }, &trail.Trail{}, zerolog.Nop())
	c.configure(config.Default())
	const looks = 20
	for range looks {
		f := must(h.Observe(t.Context()))
		c.see(t.Context(), observation{begun: time.Now(), samples: must(h.Sample(t.Context())), snapshot: &f})
	}
	seen := map[facts.SocketID]int{}
	for _, s := range c.record.Samples() {
		seen[s.ID]++
	}
	if own, half := seen[h.snapshot.Sockets[5000].ID], seen[h.snapshot.Sockets[1234].ID]; own != looks || half != looks || len(seen) != admitted+1 {
		t.Errorf("%d samples of the real one, %d of a stranger that is half full, of %d sockets in all", own, half, len(seen))
	}
}

// A uWSGI of which it could not be seen at first whether qwatch acts on it is no
// stranger's for good.
func TestNoStrangerAnyMore(t *testing.T) {
	h := newCrowd(0)
	s := &h.snapshot.Sockets[0]
	s.Untrusted = facts.Unknown[string]("systemd has not answered yet")
	c := newCore(h, func(*config.Config) remediate.Actor { return refused{} }, &trail.Trail{}, zerolog.Nop())
	cfg := config.Default()
	cfg.Policy.DryRun, cfg.Group.Threshold = false, 1
	c.configure(cfg)
	for _, untrusted := range []facts.Fact[string]{s.Untrusted, facts.Absent[string]()} {
		s.Untrusted = untrusted
		c.newSnapshot(must(h.Observe(t.Context())))
		c.enter(found{key: s.Key(), id: s.ID}, matcher.Hit{Socket: s.Name(), Length: 101, Limit: 100, Source: "probe"}, time.Now())
	}
	for _, oc := range c.open {
		if oc.uid != 33 {
			t.Errorf("it counts as user %d's", oc.uid)
		}
	}
	if len(c.open) != 1 {
		t.Errorf("%d incidents", len(c.open))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
