package host

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"qwatch/internal/testbed"
	"qwatch/remediate/facts"
)

// Every connection of a uWSGI counts as a drop of its socket (TCP_DEFER_ACCEPT).
// Of two that are used, only the one whose queue overflows has overflows.
func TestDrops(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	full := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5174", Listen: 8, Workers: 1})
	used := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5175"})
	unix := testbed.Run(t, testbed.Options{Address: filepath.Join(t.TempDir(), "app.sock")})
	h := newHost(t, options)
	ids := map[string]facts.SocketID{}
	for _, s := range socketsOf(observe(t, h), full.Pid, used.Pid, unix.Pid) {
		ids[s.Address] = s.ID
	}
	before, err := testbed.ListenOverflows()
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		testbed.Flood(ctx, full.Address, testbed.FloodOptions{Connections: 600, Rate: 300, Request: "/", Timeout: 20 * time.Second})
	}()
	var samples []facts.Sample
	for range 15 {
		samples = append(samples, sample(t, h)...)
		if _, err := testbed.Flood(ctx, used.Address, testbed.FloodOptions{Connections: 10, Rate: 100, Request: "/", Timeout: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-flooded
	samples = append(samples, sample(t, h)...)
	after, err := testbed.ListenOverflows()
	if err != nil {
		t.Fatal(err)
	}

	weigh := func(u *testbed.UWSGI) facts.Evidence {
		s, ok := observe(t, h).Find(ids[u.Address])
		if !ok {
			t.Fatalf("%s is gone", u.Address)
		}
		return facts.Weigh(s, samples, time.Time{})
	}
	d, counted := weigh(full).Drops.Get()
	// What comes as a sample is taken counts in two intervals for the upper bound.
	if all := uint64(after - before); !counted || d.Least < all/3 || d.Least > all || d.Most > all+all/4 || !d.Proven {
		t.Errorf("%d overflows, and of %s %+v", after-before, full.Address, d)
	}
	if e := weigh(used); e.Drops.State != facts.StateKnown || e.Drops.Value.Least != 0 || e.Corroborates() {
		t.Errorf("%s: %+v", used.Address, e)
	}
	if first, last := find(samples, ids[used.Address]); last.Drops.Value < first.Drops.Value+100 {
		t.Errorf("%s counts %v, then %v; 150 connections were made", used.Address, first.Drops, last.Drops)
	}
	if e := weigh(unix); !e.Drops.IsAbsent() {
		t.Errorf("%s: %+v", unix.Address, e)
	}
}

// find returns the first and the last sample of a socket.
func find(samples []facts.Sample, id facts.SocketID) (first, last facts.Sample) {
	for _, s := range samples {
		if s.ID == id {
			if first.At.IsZero() {
				first = s
			}
			last = s
		}
	}
	return first, last
}
