package daemon

import (
	"context"
	"errors"
	"fmt"
	"qwatch/remediate/facts"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/matcher"
	"qwatch/remediate"
)

// crowd is a host where one user runs a thousand uWSGI whose queues are always
// full, and where the last socket is somebody else's.
type crowd struct{ facts facts.Snapshot }

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
	h.facts.At = time.Now()
	return h.facts, nil
}

func (h crowd) Sample(context.Context) ([]facts.Sample, error) {
	var all []facts.Sample
	for _, s := range h.facts.Sockets {
		all = append(all, facts.Sample{ID: s.ID, At: time.Now(), Length: s.Length, Limit: s.Limit})
	}
	return all, nil
}

func (h crowd) Refused(context.Context, string) (int, string, error) {
	return 0, "", errors.New("none")
}

// refused is an actor that can do nothing, and so needs no judge.
type refused struct{}

func (refused) Do(context.Context, remediate.Plan, remediate.Action) remediate.Result {
	return remediate.Result{Status: remediate.Failed, Err: errors.New("not here")}
}

func TestACrowdOfOneUserDelaysNobodyElse(t *testing.T) {
	ctx := t.Context()
	h := newCrowd(1000)
	c := newCore(h, func(*config.Config) remediate.Actor { return refused{} }, &remediate.Trail{}, zerolog.Nop())
	cfg := config.Default()
	cfg.Policy.DryRun, cfg.Group.Threshold = false, 1
	c.configure(cfg)
	now := time.Now()
	c.look(ctx, now)
	c.observe(ctx, now, 0)
	for _, s := range c.facts.Sockets {
		c.enter(ctx, s.Key(), matcher.Hit{Socket: s.Name(), Length: 101, Limit: 100, Source: "probe"}, s.ID, nil, now)
	}
	if n := len(c.cases); n != admitted+1 {
		t.Errorf("%d incidents are open, want %d of the crowd and the real one", n, admitted)
	}
	last := h.facts.Sockets[1000].Name()
	for range 2 { // one turn for each user
		if !c.acting {
			c.consider(ctx, now)
		}
		if !c.acting {
			t.Fatal("nothing is done at all")
		}
		a := <-c.acted
		c.finished(a)
		if a.plan.Name == last {
			return
		}
	}
	t.Errorf("%s waits for the crowd", last)
}
