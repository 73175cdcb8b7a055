package remediate

import (
	"testing"
	"time"

	"qwatch/remediate/facts"
)

func TestOvertaken(t *testing.T) {
	old := past(time.Hour, "inc-1.1", "relisten", Applied)
	plan := Decide(defaults(), full(), History{old}, now)
	other := past(0, "inc-9.1", "relisten", Applied)
	other.Socket = "127.0.0.1:6000"
	tests := []struct {
		name string
		h    History
		want bool
	}{
		{"nothing since", History{old}, false},
		{"about another socket", History{old, other}, false},
		{"a dry run's", History{old, past(-time.Second, "inc-1.2", "relisten", Planned)}, false},
		{"begun since", History{old, past(-time.Second, "asked-5.1", "relisten", Started), other}, true},
		{"done since", History{old, past(-time.Second, "asked-5.1", "relisten", Applied)}, true},
		{"done since, with the same plan id", History{old, past(-time.Second, plan.ID, "relisten", Applied)}, true},
		{"done since, and the clock was set back in between", History{old, past(time.Hour, "asked-5.1", "relisten", Applied)}, true},
		{"judged since", History{old, past(-time.Second, "inc-1.1", "judge", Fixed)}, false},
	}
	for _, test := range tests {
		if got := test.h.Stale(plan); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	// An event from before the clock was set back does not stop all plans.
	ahead := History{past(-24*time.Hour, "inc-1.1", "relisten", Applied)}
	if plan := Decide(defaults(), full(), ahead, now); ahead.Stale(plan) {
		t.Error("overtaken by what it knew")
	}
	if (History{}).Stale(Decide(defaults(), full(), nil, now)) {
		t.Error("overtaken by nothing")
	}
}

func TestUnfinished(t *testing.T) {
	somaxconn, netdev := past(3*time.Second, "inc-1.1", "sysctl", Started), past(2*time.Second, "inc-1.1", "sysctl", Started)
	somaxconn.Target, netdev.Target = "net.core.somaxconn", "net.core.netdev_max_backlog"
	ended := func(e Event, s Result) Event { e.Result = s; return e }
	tests := []struct {
		name string
		h    History
		want []string
	}{
		{"none", nil, nil},
		{"planned", History{past(0, "inc-1.1", "relisten", Planned)}, nil},
		{"ended in all ways", History{
			somaxconn, ended(somaxconn, Applied), somaxconn, ended(somaxconn, Skipped), somaxconn, ended(somaxconn, Stale), somaxconn, ended(somaxconn, Failed),
		}, nil},
		{"another target of the same plan", History{somaxconn, ended(somaxconn, Applied), netdev}, []string{"started sysctl net.core.netdev_max_backlog"}},
		{"the same target of another plan", History{
			past(9*time.Second, "inc-1.1", "relisten", Started), past(8*time.Second, "inc-1.2", "relisten", Started), past(7*time.Second, "inc-1.2", "relisten", Applied),
		}, []string{"started relisten 127.0.0.1:5000"}},
		{"an end whose beginning is not in the tail", History{ended(somaxconn, Applied)}, nil},
		{"begun twice", History{somaxconn, somaxconn}, []string{"started sysctl net.core.somaxconn"}},
	}
	for _, test := range tests {
		got := results(test.h.Unfinished())
		if len(got) != len(test.want) || len(got) > 0 && got[0] != test.want[0] {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestLastReload(t *testing.T) {
	master := full().Socket.Master
	for status, want := range map[Result]bool{Applied: true, Failed: true, Planned: true, Started: true, Stale: false, Skipped: false} {
		at, ok := History{past(time.Minute, "inc-1.1", "reload", status), past(0, "inc-1.1", "judge", Fixed)}.lastReload(master)
		if ok != want || ok && !at.Time.Equal(now.Add(-time.Minute)) {
			t.Errorf("%s: %v %v", status, at.Time, ok)
		}
	}
}

func TestReloadsAheadOfTheClock(t *testing.T) {
	h := History{
		past(-365*24*time.Hour, "inc-0.1", "reload", Applied), past(-59*time.Minute, "inc-0.2", "reload", Applied),
		past(59*time.Minute, "inc-0.3", "reload", Applied), past(time.Hour, "inc-0.4", "reload", Applied), past(0, "inc-0.5", "relisten", Applied),
	}
	if n := h.reloads().recent(now, func(Event) bool { return true }); n != 2 {
		t.Errorf("%d reloads", n)
	}
}

// A reload that found its uWSGI not ready for it takes the raise before it not back.
func TestRaiseBeforeStaleReload(t *testing.T) {
	s := full().Socket
	raised := changed(2*time.Second, "inc-1.1", "relisten", s.Name(), 128, 1024)
	stale := past(time.Second, "inc-1.1", "reload", Stale)
	if e, ok := (History{raised, stale}).raises(facts.Snapshot{}, s).last(); !ok || e.Action != actionRelisten {
		t.Errorf("%+v", e)
	}
	if _, ok := (History{stale}).raises(facts.Snapshot{}, s).last(); ok {
		t.Error("a reload alone that was stale is a raise")
	}
}
