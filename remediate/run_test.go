package remediate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/remediate/facts"
)

// fakeHost is an Applier whose String prints its state.
type fakeHost struct {
	sysctl  map[string]int
	limit   int
	reloads int
	answer  map[string]Result // by Description.Target: instead of doing it
}

func newFakeHost() *fakeHost {
	return &fakeHost{sysctl: maps.Clone(full().Facts.Sysctl), limit: 128, answer: map[string]Result{}}
}

func (f *fakeHost) Apply(_ context.Context, a Action) Outcome {
	d := a.Describe()
	if status := f.answer[d.Target]; status != "" {
		return Outcome{Result: status, Now: -1, Err: fmt.Errorf("the host says %s", status)}
	}
	switch a := a.(type) {
	case SetSysctl:
		f.sysctl[a.Key] = a.To
	case Relisten:
		f.limit = min(a.To, f.sysctl["net.core.somaxconn"])
	case Reload:
		f.reloads++
	}
	return Outcome{Result: Applied, Now: -1}
}

func (f *fakeHost) String() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(f.sysctl)) {
		fmt.Fprintf(&b, "%s=%d ", key[strings.LastIndexByte(key, '.')+1:], f.sysctl[key])
	}
	fmt.Fprintf(&b, "limit=%d reloads=%d", f.limit, f.reloads)
	return b.String()
}

// wholePlan has a step of each kind.
func wholePlan() Plan {
	p := defaults()
	p.Reload = Always
	return Decide(p, full(), nil, now)
}

func steps(outcomes []Outcome) (lines []string) {
	for _, o := range outcomes {
		d := o.Action.Describe()
		lines = append(lines, fmt.Sprintf("%s %s %s", o.Result, d.Kind, d.Target))
	}
	return lines
}

func results(h History) (lines []string) {
	for _, e := range h {
		line := fmt.Sprintf("%s %s %s", e.Result, e.Action, e.Target)
		if e.Error != "" {
			line += ": " + e.Error
		}
		lines = append(lines, line)
	}
	return lines
}

// memory is a Trail that keeps what it is given, while it can.
type memory struct {
	h            History
	read, locked error
	full         int // how many events there is room for, 0 for all
	writes       int
	holds        map[string]bool
	mu           sync.Mutex
}

func (m *memory) Append(events ...Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.full > 0 && len(m.h)+len(events) > m.full {
		return errors.New("no space left on device")
	}
	m.h = append(m.h, events...)
	return nil
}

func (m *memory) History() (History, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.h), m.read
}

func (m *memory) Lock(context.Context) (unlock func(), err error) { return func() {}, m.locked }

func (m *memory) Hold(ctx context.Context, what string) (unlock func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holds[what] {
		return nil, errors.New("another qwatch is acting on " + what)
	}
	if m.holds == nil {
		m.holds = map[string]bool{}
	}
	m.holds[what] = true
	return func() { m.mu.Lock(); delete(m.holds, what); m.mu.Unlock() }, nil
}

// quietly is a Runner that tells nobody.
func quietly(a Actor, trail Trail, host Observer) Runner {
	return Runner{Actor: a, Trail: trail, Host: host, Acted: func(Plan, Outcome) {}, Judged: func(Done) {}, Waits: func(Plan, Outlook) {}}
}

func TestRun(t *testing.T) {
	const before = "netdev_max_backlog=1000 somaxconn=128 tcp_max_syn_backlog=512 limit=128 reloads=0"
	tests := []struct {
		name   string
		answer map[string]Result
		steps  []string
		host   string
	}{
		{"all", nil, []string{
			"applied sysctl net.core.somaxconn", "applied sysctl net.core.netdev_max_backlog", "applied sysctl net.ipv4.tcp_max_syn_backlog",
			"applied relisten 127.0.0.1:5000", "applied reload uwsgi 1234 (app.service)",
		}, "netdev_max_backlog=16384 somaxconn=1024 tcp_max_syn_backlog=8192 limit=1024 reloads=1"},
		{"stale at first", map[string]Result{"net.core.somaxconn": Stale}, []string{"stale sysctl net.core.somaxconn"}, before},
		{"failed at first", map[string]Result{"net.core.somaxconn": Failed}, []string{"failed sysctl net.core.somaxconn"}, before},
		{"a companion fails", map[string]Result{"net.core.netdev_max_backlog": Failed}, []string{
			"applied sysctl net.core.somaxconn", "failed sysctl net.core.netdev_max_backlog", "applied sysctl net.ipv4.tcp_max_syn_backlog",
			"applied relisten 127.0.0.1:5000", "applied reload uwsgi 1234 (app.service)",
		}, "netdev_max_backlog=1000 somaxconn=1024 tcp_max_syn_backlog=8192 limit=1024 reloads=1"},
		{"a companion is stale", map[string]Result{"net.core.netdev_max_backlog": Stale}, []string{
			"applied sysctl net.core.somaxconn", "stale sysctl net.core.netdev_max_backlog",
		}, "netdev_max_backlog=1000 somaxconn=1024 tcp_max_syn_backlog=512 limit=128 reloads=0"},
		{"skipped stops nothing", map[string]Result{"net.core.somaxconn": Skipped, "127.0.0.1:5000": Skipped}, []string{
			"skipped sysctl net.core.somaxconn", "applied sysctl net.core.netdev_max_backlog", "applied sysctl net.ipv4.tcp_max_syn_backlog",
			"skipped relisten 127.0.0.1:5000", "applied reload uwsgi 1234 (app.service)",
		}, "netdev_max_backlog=16384 somaxconn=128 tcp_max_syn_backlog=8192 limit=128 reloads=1"},
		{"no reload of a socket that could not be raised", map[string]Result{"127.0.0.1:5000": Failed}, []string{
			"applied sysctl net.core.somaxconn", "applied sysctl net.core.netdev_max_backlog", "applied sysctl net.ipv4.tcp_max_syn_backlog",
			"failed relisten 127.0.0.1:5000",
		}, "netdev_max_backlog=16384 somaxconn=1024 tcp_max_syn_backlog=8192 limit=128 reloads=0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			host := newFakeHost()
			maps.Copy(host.answer, test.answer)
			var told []Outcome
			r := quietly(Acting{host, &memory{}}, &memory{}, nil)
			r.Acted = func(_ Plan, o Outcome) { told = append(told, o) }
			done := r.Raise(t.Context(), []Plan{wholePlan()})[0]
			if done.Left() {
				done = r.Finish(t.Context(), done)
			}
			got := done.Outcomes
			if diff := cmp.Diff(test.steps, steps(got)); diff != "" {
				t.Errorf("steps (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(steps(got), steps(told)); diff != "" {
				t.Errorf("told (-returned +told)\n%s", diff)
			}
			if diff := cmp.Diff(test.host, host.String()); diff != "" {
				t.Errorf("host (-want +got)\n%s", diff)
			}
			if applied := slices.ContainsFunc(got, func(o Outcome) bool { return o.Result == Applied }); applied != (test.host != before) {
				t.Errorf("applied: %v", applied)
			}
		})
	}
}

func TestDryRun(t *testing.T) {
	trail := &memory{}
	p := wholePlan()
	p.DryRun = true
	done := quietly(DryRun{trail}, trail, nil).Run(t.Context(), []Plan{p})[0]
	got := done.Outcomes
	if done.Err != nil || done.Judgement != (Judgement{}) {
		t.Errorf("judged: %+v, %v", done.Judgement, done.Err)
	}
	want := []string{
		"planned sysctl net.core.somaxconn", "planned sysctl net.core.netdev_max_backlog", "planned sysctl net.ipv4.tcp_max_syn_backlog",
		"planned relisten 127.0.0.1:5000", "planned reload uwsgi 1234 (app.service)",
	}
	if diff := cmp.Diff(want, steps(got)); diff != "" {
		t.Errorf("steps (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(want, results(trail.h)); diff != "" {
		t.Errorf("trail (-want +got)\n%s", diff)
	}
	for _, e := range trail.h {
		if !e.DryRun {
			t.Errorf("%s of %s is not marked as dry_run", e.Result, e.Target)
		}
	}
	if len(trail.h.Unfinished()) > 0 || trail.h.Stale(p) {
		t.Error("a dry run counts as a change")
	}
}

// watched is a host that shows what the fake one is like, once a look.
type watched struct {
	*fakeHost
	samples   int
	sampleErr error
	observe   error
}

func (w *watched) Sample(context.Context) ([]facts.Sample, error) {
	w.samples++
	return []facts.Sample{{ID: full().Socket.ID, At: time.Now(), Length: 3, Limit: w.limit}}, w.sampleErr
}

func (w *watched) Observe(context.Context) (facts.Snapshot, error) {
	f := full().Facts
	f.At, f.Sockets[0].Limit = time.Now(), w.limit
	return f, w.observe
}

func TestRunner(t *testing.T) {
	flat := 0.0
	whole := []string{
		"applied sysctl net.core.somaxconn", "applied sysctl net.core.netdev_max_backlog", "applied sysctl net.ipv4.tcp_max_syn_backlog",
		"applied relisten 127.0.0.1:5000", "applied reload uwsgi 1234 (app.service)",
	}
	tests := []struct {
		name      string
		with      func(p *Plan, trail *memory, host *watched)
		did       int // actions taken
		judgement Judgement
		err       string
	}{
		{"whole", func(p *Plan, trail *memory, host *watched) {}, 5,
			Judgement{Fixed, 1024, &flat, "the limit is 1024 now, was 128; 0 of 11 samples over 2s found the queue full (longest 3, limit 1024), no overflows"}, ""},
		{"another qwatch acts", func(p *Plan, trail *memory, host *watched) {
			trail.locked = errors.New("another qwatch is acting on this host")
		}, 0, Judgement{}, "nothing was done: another qwatch is acting on this host"},
		{"another qwatch has acted", func(p *Plan, trail *memory, host *watched) {
			trail.h = History{past(0, "asked-1.1", "relisten", Applied)}
		}, 0, Judgement{}, ErrOvertaken.Error()},
		{"the trail cannot be read", func(p *Plan, trail *memory, host *watched) { trail.read = errors.New("input/output error") }, 0, Judgement{},
			"nothing was done, what was done before cannot be read: input/output error"},
		{"the queue cannot be watched", func(p *Plan, trail *memory, host *watched) { host.sampleErr = errors.New("netlink is broken") }, 5, Judgement{},
			"what was done could not be judged: netlink is broken"},
		{"the host cannot be seen", func(p *Plan, trail *memory, host *watched) { host.observe = errors.New("netlink is broken") }, 5, Judgement{},
			"what was done could not be judged: netlink is broken"},
		{"the judgement finds no room", func(p *Plan, trail *memory, host *watched) { trail.full = 10 }, 5,
			Judgement{Fixed, 1024, &flat, "the limit is 1024 now, was 128; 0 of 11 samples over 2s found the queue full (longest 3, limit 1024), no overflows"},
			"the judgement could not be recorded: no space left on device"},
		{"nothing was changed", func(p *Plan, trail *memory, host *watched) {
			for _, a := range p.Actions {
				host.answer[a.Describe().Target] = Skipped
			}
		}, 5, Judgement{}, ""},
		{"an undo has no socket to judge by", func(p *Plan, trail *memory, host *watched) { p.Socket, p.Name = facts.Socket{}, "" }, 5, Judgement{}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, trail, host := wholePlan(), &memory{}, &watched{fakeHost: newFakeHost()}
				test.with(&p, trail, host)
				before := len(trail.h)
				done := quietly(Acting{host, trail}, trail, host).Run(t.Context(), []Plan{p})[0]
				got, judgement, err := done.Outcomes, done.Judgement, done.Err
				if len(got) != test.did || test.name == "whole" && !cmp.Equal(steps(got), whole) {
					t.Errorf("did %q", steps(got))
				}
				if diff := cmp.Diff(test.judgement, judgement); diff != "" {
					t.Errorf("judgement (-want +got)\n%s", diff)
				}
				if text := fmt.Sprint(err); text != test.err && (err != nil || test.err != "") {
					t.Errorf("error %q, want %q", text, test.err)
				}
				want := before + 2*test.did
				if judgement.Result != "" && err == nil {
					want++
				}
				if len(trail.h) != want {
					t.Errorf("%d events, want %d: %q", len(trail.h), want, results(trail.h))
				}
			})
		})
	}
}

// The end of the process does not wait for the watch, and nothing is called
// fixed that was not watched.
func TestRunnerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		trail, host := &memory{}, &watched{fakeHost: newFakeHost()}
		begin := time.Now()
		done := quietly(Acting{host, trail}, trail, host).Run(ctx, []Plan{wholePlan()})[0]
		if took := time.Since(begin); took != time.Second || done.Err == nil || done.Judgement.Result != "" {
			t.Errorf("%+v after %v", done, took)
		}
	})
}

// unsampled is a host that no longer shows the queue by itself.
type unsampled struct{ *watched }

func (unsampled) Sample(context.Context) ([]facts.Sample, error) { return nil, nil }

// A queue that is not seen is not called fixed, and nobody waits for ever.
func TestRunnerSeesNoQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail, host := &memory{}, &watched{fakeHost: newFakeHost()}
		begin := time.Now()
		done := quietly(Acting{host, trail}, trail, unsampled{host}).Run(t.Context(), []Plan{wholePlan()})[0]
		if took := time.Since(begin); took > JudgeWithin+time.Minute || !errors.Is(done.Err, ErrUnjudged) || done.Judgement.Result != "" {
			t.Errorf("%+v after %v", done, took)
		}
	})
}

// One interrupted action that cannot be recorded does not hold up the others.
func TestRecoverGoesOn(t *testing.T) {
	set, raise := past(2*time.Second, "inc-1.1", "sysctl", Started), past(time.Second, "inc-1.2", "relisten", Started)
	trail := &forgetful{memory: memory{h: History{set, raise}}}
	told := 0
	err := Runner{Trail: trail, Host: &watched{fakeHost: newFakeHost()}}.Recover(t.Context(), 0, func(begun, end Event) {
		if told++; begun.Plan != "inc-1.2" || end.Result != Failed {
			t.Errorf("%+v, %+v", begun, end)
		}
	})
	if err == nil || told != 1 {
		t.Errorf("%d told, %v", told, err)
	}
}

// forgetful is a trail that does not take the first event.
type forgetful struct {
	memory
	asked int
}

func (f *forgetful) Append(e ...Event) error {
	if f.asked++; f.asked == 1 {
		return errors.New("no space left on device")
	}
	return f.memory.Append(e...)
}

func TestJudge(t *testing.T) {
	still := facts.Evidence{Samples: 10, Full: 7, Peak: 1025, Limit: 1024, Overflows: facts.Known[uint64](9), OthersCalm: true, Over: 2 * time.Second}
	calm := facts.Evidence{Samples: 10, Peak: 200, Limit: 1024, Overflows: facts.Known[uint64](0), OthersCalm: true, Over: 2 * time.Second}
	plan := wholePlan()
	tests := []struct {
		name  string
		after func(s *facts.Socket, f *facts.Snapshot)
		e     facts.Evidence
		want  Judgement
	}{
		{"fixed", func(s *facts.Socket, f *facts.Snapshot) { s.Limit = 1024 }, calm, Judgement{Fixed, 1024, nil,
			"the limit is 1024 now, was 128; 0 of 10 samples over 2s found the queue full (longest 200, limit 1024), no overflows"}},
		{"more than was asked for", func(s *facts.Socket, f *facts.Snapshot) { s.Limit = 4096 }, calm, Judgement{Fixed, 4096, nil,
			"the limit is 4096 now, was 128; 0 of 10 samples over 2s found the queue full (longest 200, limit 1024), no overflows"}},
		{"the limit is as it was", func(s *facts.Socket, f *facts.Snapshot) {}, calm, Judgement{NoEffect, 128, nil, "the running socket's limit still is 128"}},
		{"clamped", func(s *facts.Socket, f *facts.Snapshot) { s.Limit = 512 }, calm, Judgement{NoEffect, 512, nil, "the running socket's limit is 512 and should be 1024"}},
		{"full again", func(s *facts.Socket, f *facts.Snapshot) { s.Limit = 1024 }, still, Judgement{NoEffect, 1024, nil,
			"the limit is 1024 now, yet the queue is full again: 7 of 10 samples over 2s found the queue full (longest 1025, limit 1024), 9 overflows in its network namespace"}},
		{"only TCP overflows, beside a UNIX socket in good use", func(s *facts.Socket, f *facts.Snapshot) { s.Limit = 1024 },
			facts.Weigh(facts.Socket{ID: plan.Socket.ID, Family: facts.Unix}, []facts.Sample{
				{ID: plan.Socket.ID, At: now, Length: 600, Limit: 1024}, {ID: plan.Socket.ID, At: now.Add(2 * time.Second), Limit: 1024, Overflows: 9},
			}, time.Time{}), Judgement{Fixed, 1024, nil,
				"the limit is 1024 now, was 128; 0 of 2 samples over 2s found the queue full (longest 600, limit 1024)"}},
		{"gone", func(s *facts.Socket, f *facts.Snapshot) { f.Sockets = nil }, calm, Judgement{Worse, 0, nil, "no uWSGI listens on 127.0.0.1:5000 any more"}},
		{"lower", func(s *facts.Socket, f *facts.Snapshot) { s.Limit = 100 }, calm, Judgement{Worse, 100, nil, "the limit fell from 128 to 100"}},
		{"bound anew by the same master (http mode)", func(s *facts.Socket, f *facts.Snapshot) { s.ID.Inode, s.First, s.Limit = 7, now, 1024 }, calm, Judgement{Fixed, 1024, nil,
			"the limit is 1024 now, was 128; 0 of 10 samples over 2s found the queue full (longest 200, limit 1024), no overflows"}},
		{"bound by another master", func(s *facts.Socket, f *facts.Snapshot) { s.ID.Inode, s.Limit, s.Master.Start = 900, 1024, 7 }, calm, Judgement{Worse, 0, nil,
			"no uWSGI listens on 127.0.0.1:5000 any more"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			after := full().Facts
			test.after(&after.Sockets[0], &after)
			plan := plan
			if strings.Contains(test.name, "UNIX") {
				plan.Socket.Family = facts.Unix
			}
			got := judge(plan, after, test.e, nil)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			e := EventOfJudgement(plan, got, now)
			if e.Action != "judge" || e.Result != got.Result || *e.From != 128 || *e.To != got.Limit || e.Plan != plan.ID || e.Why != got.Why {
				t.Errorf("event %+v", e)
			}
		})
	}
}
