package remediate

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"qwatch/remediate/facts"
)

// What is said of an action that qwatch did not see the end of is no more than
// what the host shows.
func TestRecovered(t *testing.T) {
	worker := func(pid int, ago time.Duration) facts.Worker {
		return facts.Worker{Process: facts.Process{PID: pid, Start: uint64((time.Hour - ago) / facts.ClockTick), Comm: "uwsgi"}, State: 'S'}
	}
	from, to := 128, 1024
	raise := past(10*time.Second, "inc-1.1", "relisten", Started)
	raise.From, raise.To = &from, &to
	reload := past(10*time.Second, "inc-1.1", "reload", Started)
	start := past(10*time.Second, "start-1.1", actionStart, Started)
	start.Target = "app.service"
	down := start
	down.Target = "other.service"
	tests := []struct {
		name   string
		begun  Event
		with   func(f *facts.Snapshot)
		result Result
		err    string
	}{
		{"reloaded", reload, func(f *facts.Snapshot) {
			f.Sockets[0].Workers = []facts.Worker{worker(20, 3*time.Second), worker(21, 3*time.Second)}
		}, Failed, "interrupted; the 2 workers of uwsgi 1234 (app.service) came since it was asked for, so it most likely took effect; whether people were served was not watched"},
		{"not reloaded", reload, func(f *facts.Snapshot) {
			f.Sockets[0].Workers = []facts.Worker{worker(20, time.Minute), worker(21, time.Minute)}
		}, Failed, "interrupted; it has not taken effect, or not yet: the 2 workers of uwsgi 1234 (app.service) ran before it was asked for"},
		{"some", reload, func(f *facts.Snapshot) {
			f.Sockets[0].Workers = []facts.Worker{worker(20, time.Minute), worker(21, time.Second), worker(22, time.Second)}
		}, Failed, "interrupted; it is not known whether it took effect: 2 of the 3 workers of uwsgi 1234 (app.service) came since it was asked for"},
		{"no worker", reload, func(f *facts.Snapshot) { f.Sockets[0].Workers = nil }, Failed, "interrupted; it is not known whether it took effect: no worker is there"},
		{"gone", reload, func(f *facts.Snapshot) { f.Sockets[0].Master.Start++ }, Failed, "interrupted; it is not known whether it took effect: its uWSGI is not there any more"},
		{"not to be seen", reload, func(f *facts.Snapshot) { f.Sockets, f.HiddenOwners = nil, "needs CAP_SYS_PTRACE" }, Failed,
			"interrupted; it is not known whether it took effect: its uWSGI is not seen, and not every one could be looked into: needs CAP_SYS_PTRACE"},
		{"raised", raise, func(f *facts.Snapshot) { f.Sockets[0].Limit = 1024 }, Applied, ""},
		{"not raised", raise, func(f *facts.Snapshot) {}, Failed, "interrupted before it took effect"},
		{"raised by another, too", raise, func(f *facts.Snapshot) { f.Sockets[0].Limit = 2048 }, Failed, "interrupted; it is not known whether it took effect: it is 2048 now"},
		{"no socket", raise, func(f *facts.Snapshot) { f.Sockets = nil }, Failed, "interrupted; it is not known whether it took effect: what it was about is not seen any more"},
		{"a unit that runs", start, func(f *facts.Snapshot) {}, Failed, "interrupted; app.service runs and listens on 127.0.0.1:5000"},
		{"one that does not", down, func(f *facts.Snapshot) {}, Failed, "interrupted; other.service is not seen to listen"},
	}
	for _, test := range tests {
		f := full().Facts
		f.Booted = now.Add(-time.Hour)
		test.with(&f)
		end, over := recovered(test.begun, f)
		if over == slices.Contains([]string{"not reloaded", "some", "no worker", "one that does not"}, test.name) {
			t.Errorf("%s: over: %v", test.name, over)
		}
		if end.Result != test.result || end.Error != test.err || !end.Time.Equal(now) {
			t.Errorf("%s: %s %q at %s", test.name, end.Result, end.Error, end.Time)
		}
		if end.Result == Failed && !end.cutShort() {
			t.Errorf("%s counts as a failure of its own", test.name)
		}
	}
}

// stopping is a host during whose reload qwatch is told to stop.
type stopping struct{ stop func() }

func (s stopping) Apply(ctx context.Context, a Action) Outcome {
	if _, reload := a.(Reload); !reload {
		return Outcome{Result: Applied, Now: -1}
	}
	s.stop()
	<-ctx.Done()
	return Outcome{Result: Failed, Now: -1, Err: errors.New("1 old worker of 2 still at work")}
}

// A reload that qwatch does not wait for any more has not failed: it stays open,
// nothing is judged, and what comes later is not begun.
func TestStoppedInAReload(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	trail := &memory{}
	done := quietly(Acting{stopping{stop}, trail}, trail, nil).Run(ctx, []Plan{wholePlan()})[0]
	open := trail.h.Unfinished()
	if len(open) != 1 || open[0].Action != "reload" || !errors.Is(done.Err, ErrStopped) || done.Judgement.Result != "" {
		t.Errorf("%+v, left open: %q", done, results(open))
	}
	for _, e := range trail.h {
		if e.Action == actionJudge {
			t.Errorf("judged: %s", e.Why)
		}
	}
	ctx, stop = context.WithCancel(t.Context())
	trail = &memory{}
	r := quietly(Acting{stopping{stop}, trail}, trail, nil)
	raised := r.Raise(ctx, []Plan{wholePlan()})[0]
	stop()
	if done := r.Finish(ctx, raised); done.Err == nil || len(trail.h.Unfinished()) > 0 {
		t.Errorf("begun when qwatch was to stop: %+v", done)
	}
}

// What may be under way yet is not brought to an end before its time, nor what
// another qwatch is at.
func TestRecoverIsPatient(t *testing.T) {
	host := &watched{fakeHost: newFakeHost()}
	f, err := host.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begun := past(0, "inc-1.1", "reload", Started)
	begun.Time = f.At.Add(-30 * time.Second)
	trail := &memory{h: History{begun}}
	told := 0
	for _, patience := range []time.Duration{time.Minute, time.Second} {
		if err := (Runner{Trail: trail, Host: host}).Recover(t.Context(), patience, func(_, end Event) { told++ }); err != nil {
			t.Fatal(err)
		}
		if want := map[time.Duration]int{time.Minute: 0, time.Second: 1}[patience]; told != want || trail.h.LeftOpen() != (want == 0) {
			t.Errorf("within %s: %d told, %q", patience, told, results(trail.h))
		}
	}
}

// quick is a trail in which another qwatch ends its reload, and lets go of it, right
// before it is held.
type quick struct {
	*memory
	end Event
}

func (q quick) Hold(ctx context.Context, what string) (unlock func(), err error) {
	q.h = append(q.h, q.end)
	return q.memory.Hold(ctx, what)
}

// What another qwatch has just brought to its end is not interrupted.
func TestRecoverOfWhatHasJustEnded(t *testing.T) {
	begun, end := past(time.Hour, "inc-1.1", "reload", Started), past(0, "inc-1.1", "reload", Applied)
	trail := quick{&memory{h: History{begun}}, end}
	err := (Runner{Trail: trail, Host: &watched{fakeHost: newFakeHost()}}).Recover(t.Context(), time.Second, func(_, end Event) {
		t.Errorf("told: %s %s", end.Result, end.Error)
	})
	if got := results(trail.h); err != nil || len(trail.h) != 2 {
		t.Errorf("%v, %q", err, got)
	}
}
