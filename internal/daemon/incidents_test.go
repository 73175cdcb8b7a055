package daemon

import (
	"context"
	"errors"
	"fmt"
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
	f := facts.Snapshot{At: time.Now(), Sysctl: map[string]int{"net.core.somaxconn": 4096}}
	for i := range n + 1 {
		master := facts.Process{PID: 1000 + i, Start: 1, Comm: "uwsgi", UID: 65534}
		if i == n {
			master.UID = 33
		}
		f.Sockets = append(f.Sockets, facts.Socket{
			ID: facts.SocketID{NetNS: 1, Inode: uint64(i + 1)}, Family: facts.Unix, Address: fmt.Sprintf("/run/%d.sock", i),
			Length: 101, Limit: 100, Master: master, FD: 3, Somaxconn: 4096,
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

func (h crowd) Refused(context.Context, string) (int, string, error) {
	return 0, "", errors.New("none")
}

// refused is an actor that can do nothing, and so needs no judge.
type refused struct{}

func (refused) Do(context.Context, remediate.Plan, remediate.Action) remediate.Outcome {
	return remediate.Outcome{Result: remediate.Failed, Now: -1, Err: errors.New("not here")}
}

func TestACrowdOfOneUserDelaysNobodyElse(t *testing.T) {
	ctx := t.Context()
	h := newCrowd(1000)
	c := newCore(h, func(*config.Config) remediate.Actor { return refused{} }, &trail.Trail{}, zerolog.Nop())
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
	for range 2 { // one turn for each user
		if !c.actions.running {
			c.consider(ctx, now)
		}
		if !c.actions.running {
			t.Fatal("nothing is done at all")
		}
		a := <-c.actions.done
		c.finished(a)
		c.view.observed = time.Now() // it was looked at again
		if a.plan.Name == last {
			return
		}
	}
	t.Errorf("%s waits for the crowd", last)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
