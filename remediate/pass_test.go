package remediate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// several are the cases of n full sockets, each of a uWSGI and a unit of its own.
// The limit of each is twice that of the one before.
func several(n int) (cases []Case) {
	var f facts.Snapshot
	for i := range n {
		c := full()
		c.Facts.Sysctl = map[string]int{"net.core.somaxconn": 128}
		c.Socket.ID.Inode += uint64(i)
		c.Socket.Address = fmt.Sprintf("127.0.0.1:%d", 5000+i)
		c.Socket.Master.PID += i
		c.Socket.Master.Unit = facts.Known(fmt.Sprintf("app%d.service", i))
		c.Socket.Limit = 500 << i
		c.Socket.Length = c.Socket.Limit + 1
		c.Incident = matcher.Incident{ID: fmt.Sprint("inc-", i), Socket: c.Socket.Address, Peak: c.Socket.Length}
		c.Evidence.Peak, c.Evidence.Limit = c.Socket.Length, c.Socket.Limit
		f = c.Facts
		cases = append(cases, c)
	}
	f.Sockets = nil
	for i := range cases {
		f.Sockets = append(f.Sockets, cases[i].Socket)
	}
	for i := range cases {
		cases[i].Facts = f
	}
	return cases
}

func none() []Case { return nil }

func TestDecidePass(t *testing.T) {
	cases := several(3)
	joined := 0
	plans := DecidePass(defaults(), cases[:1], func() []Case { joined++; return cases[1:] }, nil, now)
	if len(plans) != 3 || joined != 1 || plans[0].Verdict != Act || plans[2].Verdict != Act || plans[2].Target != 4096 {
		t.Errorf("%+v", plans)
	}
	// Where none is raised nobody joins.
	calm := cases[0]
	calm.Evidence = facts.Evidence{Samples: 4}
	if plans = DecidePass(defaults(), []Case{calm}, func() []Case { t.Error("asked"); return nil }, nil, now); len(plans) != 1 {
		t.Errorf("%+v", plans)
	}
	// But for a second after a raise: their records come once a second.
	raise := Event{Action: actionRelisten, Result: Applied, From: ptr(128), To: ptr(1024)}
	lowered := Event{Action: actionRelisten, Result: Applied, From: ptr(1024), To: ptr(128)}
	for _, test := range []struct {
		event Event
		ago   time.Duration
		want  int
	}{{raise, 900 * time.Millisecond, 3}, {raise, time.Second, 1}, {lowered, 0, 1}} {
		test.event.Time = now.Add(-test.ago)
		plans := DecidePass(defaults(), []Case{calm}, func() []Case { return cases[1:] }, History{test.event}, now)
		if len(plans) != test.want || test.want > 1 && plans[2].Verdict != Act {
			t.Errorf("%v after %+v: %d plans, want %d", test.ago, test.event, len(plans), test.want)
		}
	}
	reloads := func(p Policy, cases []Case) (units []string) {
		for _, plan := range DecidePass(p, cases, none, nil, now) {
			for _, a := range plan.Actions {
				if r, ok := a.(Reload); ok {
					units = append(units, r.Socket.Master.Unit.Value)
				}
			}
		}
		return units
	}
	p := defaults()
	p.Reload, p.ReloadsPerHour, p.ReloadCooldown = Always, 3, 0
	// The number of reloads holds for a pass as well, and half of it for a unit.
	cases = several(5)
	if diff := cmp.Diff([]string{"app0.service", "app1.service", "app2.service"}, reloads(p, cases)); diff != "" {
		t.Errorf("reloads (-want +got)\n%s", diff)
	}
	for i := range cases {
		cases[i].Socket.Master.Unit = facts.Known("emperor.service")
	}
	if got := reloads(p, cases); len(got) != 2 {
		t.Errorf("reloads of one unit: %q", got)
	}
	for i := range cases {
		cases[i].Socket.Master = cases[0].Socket.Master
	}
	if got := reloads(p, cases); len(got) != 1 {
		t.Errorf("reloads of one master: %q", got)
	}
}

// manyHost has a limit for each socket, and answers as package apply does.
type manyHost struct {
	mu     sync.Mutex
	sysctl map[string]int
	limits map[string]int
	fail   string
	did    []string
}

func (m *manyHost) Apply(_ context.Context, a Action) Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := a.Describe()
	m.did = append(m.did, d.Target)
	now := &[]int{m.limits[d.Target]}[0]
	if set, ok := a.(SetSysctl); ok {
		*now = m.sysctl[set.Key]
	}
	switch {
	case d.Target == m.fail:
		return Outcome{Result: Failed, Now: -1, Err: errors.New("no")}
	case *now >= *d.To:
		return Outcome{Result: Skipped, Now: *now}
	case *now != *d.From:
		return Outcome{Result: Stale, Now: *now, Err: errors.New("changed")}
	}
	if _, ok := a.(SetSysctl); ok {
		m.sysctl[d.Target] = *d.To
	} else {
		m.limits[d.Target] = *d.To
	}
	return Outcome{Result: Applied, Now: *d.To}
}

// Plans that were made from one look do not stop each other, whatever they want
// of somaxconn, and the trail is written twice for all.
func TestRaiseTogether(t *testing.T) {
	host := &manyHost{sysctl: map[string]int{"net.core.somaxconn": 128}, limits: map[string]int{}}
	cases := several(4)
	p := defaults()
	for i := range cases {
		host.limits[cases[i].Socket.Address] = cases[i].Socket.Limit
	}
	trail := &memory{}
	done := quietly(Acting{host, trail}, trail, nil).Raise(t.Context(), DecidePass(p, cases, none, nil, now))
	if trail.writes != 2 {
		t.Errorf("%d writes", trail.writes)
	}
	if host.sysctl["net.core.somaxconn"] != 8192 || host.limits["127.0.0.1:5000"] != 1024 || host.limits["127.0.0.1:5003"] != 8192 {
		t.Errorf("%+v", host)
	}
	for _, d := range done {
		if d.Err != nil || d.Left() || !d.ToJudge() || len(d.Outcomes) != 2 {
			t.Errorf("%+v", d)
		}
	}
	if open := trail.h.Unfinished(); len(open) > 0 {
		t.Errorf("%q", results(open))
	}

	// One that fails stops its own plan only, and what was not begun counts as
	// no raise.
	host = &manyHost{sysctl: map[string]int{"net.core.somaxconn": 16384}, limits: host.limits, fail: "127.0.0.1:5001"}
	cases = several(2)
	for i := range cases {
		host.limits[cases[i].Socket.Address] = cases[i].Socket.Limit
	}
	p.Reload = Always
	trail = &memory{}
	done = quietly(Acting{host, trail}, trail, nil).Raise(t.Context(), DecidePass(p, cases, none, nil, now))
	if !done[0].Left() || done[1].Left() || host.limits["127.0.0.1:5000"] != 1024 {
		t.Errorf("%+v", done)
	}
	host.fail = "net.core.somaxconn"
	trail = &memory{}
	cases = several(1)
	done = quietly(Acting{host, trail}, trail, nil).Raise(t.Context(), DecidePass(p, cases, none, nil, now))
	if len(done[0].Outcomes) != 1 || len(trail.h.Unfinished()) > 0 || done[0].ToJudge() {
		t.Errorf("%+v %q", done, results(trail.h))
	}
	if n, last := trail.h.fruitless(facts.Snapshot{}, cases[0].Socket, "inc-0"); n != 1 || last.Result != Failed || trail.h.relistenFailed("127.0.0.1:5000", "inc-0", cases[0].Socket.Master) != "" {
		t.Errorf("%d fruitless, the last %+v", n, last)
	}
}

// slowHost is one whose reloads of one master hang until the end.
type slowHost struct {
	*manyHost
	hangs int
}

func (s slowHost) Apply(ctx context.Context, a Action) Outcome {
	r, ok := a.(Reload)
	switch {
	case !ok:
		return s.manyHost.Apply(ctx, a)
	case r.Socket.Master.PID == s.hangs:
		<-ctx.Done()
		return Outcome{Result: Failed, Now: -1, Err: ctx.Err()}
	}
	return Outcome{Result: Applied, Now: -1}
}

func (s slowHost) Sample(context.Context) (samples []facts.Sample, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range several(3) {
		samples = append(samples, facts.Sample{ID: c.Socket.ID, At: time.Now(), Limit: s.limits[c.Socket.Address]})
	}
	return samples, nil
}

func (s slowHost) Observe(context.Context) (facts.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := several(3)[0].Facts
	f.At = time.Now()
	for i := range f.Sockets {
		f.Sockets[i].Limit, f.Sockets[i].Length = s.limits[f.Sockets[i].Address], 0
	}
	return f, nil
}

// A reload that hangs keeps nobody else waiting: not the raises, nor the reloads
// of others, nor their verdicts.
func TestHangingReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := slowHost{&manyHost{sysctl: map[string]int{"net.core.somaxconn": 16384}, limits: map[string]int{}}, 1234}
		cases := several(3)
		for _, c := range cases {
			host.limits[c.Socket.Address] = c.Socket.Limit
		}
		p := defaults()
		p.Reload = Always
		trail := &memory{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		var judged []string
		r := quietly(Acting{host, trail}, trail, host)
		var mu sync.Mutex
		r.Judged = func(d Done) {
			mu.Lock()
			defer mu.Unlock()
			judged = append(judged, fmt.Sprintf("%s %s after %s", d.Plan.Name, d.Judgement.Result, time.Since(begun).Round(time.Second)))
		}
		r.Run(ctx, DecidePass(p, cases, none, nil, now))
		slices.Sort(judged)
		want := []string{"127.0.0.1:5000  after 1m0s", "127.0.0.1:5001 fixed after 3s", "127.0.0.1:5002 fixed after 3s"}
		if diff := cmp.Diff(want, judged); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}
