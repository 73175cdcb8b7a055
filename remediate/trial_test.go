package remediate

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"qwatch/remediate/facts"
)

// queueOver is a queue whose length is a function of the seconds since its raise.
type queueOver func(seconds float64) int

// heard is one verdict and when it was said.
type heard struct {
	At      time.Duration
	Verdict Result
	Why     string
}

// try looks at a queue of limit 1024 as its trial asks for it, until nothing more
// can be said.
func try(t *testing.T, length queueOver) (said []heard, outlooks []string) {
	t.Helper()
	p := wholePlan()
	trial := NewTrial(p, now)
	for at := now; !trial.Over(at); at = trial.Next() {
		s := p.Socket
		s.Limit, s.Length = 1024, length(at.Sub(now).Seconds())
		f := facts.Snapshot{At: at, Sockets: []facts.Socket{s}}
		other := facts.Sample{ID: facts.SocketID{NetNS: 1, Inode: 5}, At: at, Length: 900, Limit: 1024}
		j, ok := trial.Judge(f, []facts.Sample{other, {ID: s.ID, At: at, Length: s.Length, Limit: s.Limit}}, at)
		if ok {
			said = append(said, heard{at.Sub(now).Round(100 * time.Millisecond), j.Result, j.Why})
			if j.Result != Fixed {
				return said, outlooks
			}
		}
		if trial.Postponed() {
			outlooks = append(outlooks, trial.Outlook().String())
		}
		if at.Sub(now) > time.Hour {
			t.Fatal("it never ends")
		}
	}
	return said, outlooks
}

func TestTrial(t *testing.T) {
	noise := rand.New(rand.NewSource(1))
	tests := []struct {
		name    string
		length  queueOver
		want    []heard // At: no earlier, and no more than a second later
		outlook string  // the first
		why     string  // in the first verdict
	}{
		{"empty", func(float64) int { return 0 }, []heard{{3 * time.Second, Fixed, ""}}, "", ""},
		{"draining", func(s float64) int { return max(0, 900-int(200*s)) }, []heard{{3 * time.Second, Fixed, ""}}, "", ""},
		{"busy, and not growing", func(float64) int { return 100 + noise.Intn(50) }, []heard{{3 * time.Second, Fixed, ""}}, "", ""},
		{"one burst", func(s float64) int {
			if s > 2.8 {
				return 300
			}
			return 3
		}, []heard{{3 * time.Second, Fixed, ""}}, "", ""},
		{"growing until it is full", func(s float64) int { return min(1025, 129+int(80*s)) }, []heard{{11200 * time.Millisecond, NoEffect, ""}},
			"not full, growing by 80 a second, full again in 9 s", "the queue is full again"},
		{"growing, and it holds", func(s float64) int { return min(500, 129+int(80*s)) }, []heard{{11200 * time.Millisecond, Fixed, ""}},
			"not full, growing by 80 a second, full again in 9 s", "it grew, and has held for 1"},
		{"growing, and drained", func(s float64) int {
			if s > 5 {
				return 0
			}
			return int(20 * s)
		}, []heard{{6 * time.Second, Fixed, ""}}, "not full, growing by 20 a second, full again in 49 s", "it grew, and has held for"},
		{"growing slowly", func(s float64) int { return 200 + int(2*s) }, []heard{{299 * time.Second, Fixed, ""}, {600 * time.Second, NoEffect, ""}},
			"not full, growing by 2 a second, full again in 7 min", "growing by 2 a second, full again in 113 s"},
		{"full after it was fixed", func(s float64) int {
			if s > 33 {
				return 1025
			}
			return 0
		}, []heard{{3 * time.Second, Fixed, ""}, {34 * time.Second, NoEffect, ""}}, "", ""},
		{"full five minutes later", func(s float64) int {
			if s > 290 {
				return 1025
			}
			return 0
		}, []heard{{3 * time.Second, Fixed, ""}, {304 * time.Second, NoEffect, ""}}, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			said, outlooks := try(t, test.length)
			if len(said) != len(test.want) {
				t.Fatalf("said %v, want %v", said, test.want)
			}
			for i, want := range test.want {
				if got := said[i]; got.Verdict != want.Verdict || got.At < want.At || got.At > want.At+1500*time.Millisecond {
					t.Errorf("said %v, want %v", got, want)
				}
			}
			if !strings.Contains(said[0].Why, test.why) {
				t.Errorf("why: %s", said[0].Why)
			}
			if fmt.Sprint(append(outlooks, "")[0]) != test.outlook {
				t.Errorf("outlooks %q", outlooks)
			}
		})
	}
}

// Queues that go up and down by chance are not called growing: one in a hundred
// may be.
func TestTrendIsNoChance(t *testing.T) {
	noise := rand.New(rand.NewSource(7))
	wrong, slow := 0, 0
	for range 1000 {
		var calm, grows []facts.Sample
		for i := range 11 {
			at := now.Add(time.Duration(i) * watchEvery)
			calm = append(calm, facts.Sample{At: at, Length: noise.Intn(40), Limit: 1024})
			grows = append(grows, facts.Sample{At: at, Length: 10*i/5 + noise.Intn(6), Limit: 1024})
		}
		if trendOf(calm, trendSpan).grows() {
			wrong++
		}
		if trendOf(grows, trendSpan).grows() {
			slow++
		}
	}
	if wrong > 20 || slow < 900 {
		t.Errorf("%d of 1000 calm queues grow, %d of 1000 that grow by ten a second", wrong, slow)
	}
}

// Who has stopped the app since has not made the raise worse.
func TestTrialOfAStoppedApp(t *testing.T) {
	p := wholePlan()
	trial := NewTrial(p, now)
	said := 0
	for at := now; !trial.Over(at); at = trial.Next() {
		f := facts.Snapshot{At: at}
		var samples []facts.Sample
		if at.Sub(now) < 10*time.Second {
			s := p.Socket
			s.Limit, s.Length = 1024, 0
			f.Sockets, samples = []facts.Socket{s}, []facts.Sample{{ID: s.ID, At: at, Limit: 1024}}
		}
		if _, ok := trial.Judge(f, samples, at); ok {
			said++
		}
	}
	if said != 1 {
		t.Errorf("%d verdicts", said)
	}
}

// A host that cannot be seen ends a trial without a verdict.
func TestTrialUnseen(t *testing.T) {
	trial := NewTrial(wholePlan(), now)
	if trial.Over(now.Add(JudgeWithin)) || !trial.Over(now.Add(JudgeWithin+time.Minute)) {
		t.Error("it ends at another time")
	}
	if _, ok := trial.Judge(facts.Snapshot{}, nil, now.Add(JudgeWithin)); ok {
		t.Error("a verdict without a look")
	}
	if got := trial.Outlook().String(); got != "not judged yet" {
		t.Error(got)
	}
}

// A probe that looks twenty times a second does not fill a trial up, and what
// it sees after minutes counts as well.
func TestTrialWithManySamples(t *testing.T) {
	p := wholePlan()
	trial := NewTrial(p, now)
	const pace, full = 50 * time.Millisecond, 4 * time.Minute
	for at := now; !trial.Over(at); at = at.Add(pace) {
		s := p.Socket
		s.Limit, s.Length = 1024, 100+int(2*at.Sub(now).Seconds())
		if at.Sub(now) >= full {
			s.Length = 1025
		}
		j, ok := trial.Judge(facts.Snapshot{At: at, Sockets: []facts.Socket{s}}, []facts.Sample{{ID: s.ID, At: at, Length: s.Length, Limit: s.Limit}}, at)
		if n := len(trial.own()); n > keepSamples*9/10 {
			t.Fatalf("%d samples after %s", n, at.Sub(now))
		}
		if ok {
			if took := at.Sub(now); j.Result != NoEffect || took != full {
				t.Errorf("%s after %s: %s", j.Result, took, j.Why)
			}
			return
		}
	}
	t.Error("no verdict")
}

// What is put off is told of with the look that has put it off, and no more.
func TestTrialIsPutOffOnce(t *testing.T) {
	p := wholePlan()
	trial := NewTrial(p, now)
	s, at := p.Socket, now
	for s.Limit = 1024; !trial.Postponed(); at = trial.Next() {
		if s.Length = 200 + int(20*at.Sub(now).Seconds()); trial.Over(at) {
			t.Fatal("it is not put off")
		}
		trial.Judge(facts.Snapshot{At: at, Sockets: []facts.Socket{s}}, []facts.Sample{{ID: s.ID, At: at, Length: s.Length, Limit: s.Limit}}, at)
	}
	s.ID.Inode, s.First = 7, at // bound anew: nothing is known of its trend
	if _, said := trial.Judge(facts.Snapshot{At: at, Sockets: []facts.Socket{s}}, nil, at); said || trial.Postponed() {
		t.Errorf("said %v, put off again %v", said, trial.Postponed())
	}
}
