//go:build reloadtest

package reloadtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"qwatch/internal/testbed"
)

// want is what a mode's reload must come to.
type want struct {
	way     string        // the way that it takes; "": it is refused
	refused string        // words of the plan that say why
	slow    string        // kept, cut; "": either
	longest time.Duration // without an answer at the most; 0: as long as the slow request lasts
	broken  bool          // what is reloaded does not serve as before
	heals   bool          // but does later, and then is called applied
	fewer   bool          // workers may be there afterwards (cheaper)
}

const (
	kept = "kept"
	cut  = "cut"
)

// tolerance is how far the trail and the clients may differ: qwatch looks once a
// second, and the clients come and go.
const tolerance = 2500 * time.Millisecond

// slow tells what became of the slow request.
func (r result) slow() string {
	if r.Slow == testbed.OK {
		return kept
	}
	return cut
}

// final is the newest event of an action that is an end.
func (r result) final(action string) (e event, ok bool) {
	for _, one := range r.Trail {
		if one.Action == action && one.Result != "started" && one.Result != "skipped" && one.Result != "planned" {
			e, ok = one, true
		}
	}
	return e, ok
}

// signalled tells whether uWSGI was told to reload: it says so, or, where it says
// nothing (lazy), there are other workers.
func (r result) signalled() bool {
	return len(r.Ordered) > 0 || !slices.Equal(r.Own[0], r.Own[1])
}

// served tells whether the clients were as well served at a time, and from then
// on, as they should be: some got answers, and of a hundred at most one got
// something else.
func (r result) served(from time.Time) (bool, string) {
	a := r.Answers.Since(from)
	if early := r.Ended.Add(-time.Second); from.After(early) {
		a = r.Answers.Since(early)
	}
	count := a.Count()
	ok, all := count[testbed.OK], len(a)
	return ok > 0 && (all-ok)*100 <= all, said(count)
}

func said(count map[string]int) string {
	var parts []string
	for _, got := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d × %s", count[got], got))
	}
	return strings.Join(parts, ", ")
}

// check compares a scene with what it must come to, and the trail with both.
func (r result) check(t *testing.T, m mode) {
	t.Helper()
	if r.Failed != "" {
		t.Errorf("the scene failed: %s", r.Failed)
		return
	}
	reload, reloaded := r.final("reload")
	t.Logf("plan: %s", r.Plan)
	for _, e := range r.Trail {
		if e.Result != "started" {
			t.Logf("trail: %s", e)
		}
	}
	gap, from := r.Answers.Longest(r.Ended)
	t.Logf("clients: %s in %.0f s; the slow one: %s; longest without an answer %.1f s from second %.1f",
		said(r.Answers.Count()), r.Ended.Sub(r.Began).Seconds(), r.Slow, gap.Seconds(), from.Sub(r.Began).Seconds())
	t.Logf("limits %v then %v; holders %v then %v; uWSGI: %s", r.Limits[0], r.Limits[1], r.Own[0], r.Own[1], strings.Join(r.Ordered, " | "))

	if _, raised := r.final("relisten"); !raised {
		t.Error("the limit was not raised at all")
	}
	for addr, before := range r.Others[0] {
		if after := r.Others[1][addr]; !slices.Equal(before, after) {
			t.Errorf("the neighbour at %s was not left alone: processes %v, then %v", addr, before, after)
		}
	}
	if m.want.way == "" {
		r.checkRefused(t, m, reloaded)
	} else {
		r.checkReloaded(t, m, reload, reloaded)
	}
	if m.want.slow != "" && r.slow() != m.want.slow {
		t.Errorf("the slow request was %s (%s), want %s", r.slow(), r.Slow, m.want.slow)
	}
	r.checkTruth(t)
}

func (r result) checkRefused(t *testing.T, m mode, reloaded bool) {
	t.Helper()
	_, why, refused := strings.Cut(r.Plan, "no reload: ")
	switch {
	case reloaded || r.signalled():
		t.Errorf("it was reloaded, want refused (%s); uWSGI says %q", m.want.refused, r.Ordered)
	case !refused || !strings.Contains(why, m.want.refused):
		t.Errorf("its plan does not say why there is no reload, want %q: %s", m.want.refused, r.Plan)
	}
	if served, got := r.served(r.Ended.Add(-5 * time.Second)); !served && m.want.slow == kept {
		t.Errorf("nothing was reloaded, and clients are not served in the end: %s", got)
	}
}

func (r result) checkReloaded(t *testing.T, m mode, e event, reloaded bool) {
	t.Helper()
	if !reloaded || !r.signalled() {
		t.Errorf("it was not reloaded, want by %s: trail has a reload %v, uWSGI says %q", m.want.way, reloaded, r.Ordered)
		return
	}
	if e.Way != m.want.way {
		t.Errorf("the way was %q, want %q", e.Way, m.want.way)
	}
	gap, _ := r.Answers.Longest(r.Ended)
	if most := m.want.longest; !m.want.broken && most > 0 && gap > most {
		t.Errorf("nobody had an answer for %.1f s, want at most %s", gap.Seconds(), most)
	}
	if m.want.heals && e.Result != "applied" {
		t.Errorf("the reload's last word is %q, want applied: clients were served again", e.Result)
	}
	if m.want.broken {
		return
	}
	if e.Result != "applied" {
		t.Errorf("the reload is %q, want applied: %s", e.Result, e.Error)
	}
	if j, _ := r.final("judge"); j.Result != "fixed" {
		t.Errorf("judged %q, want fixed: %s", j.Result, j.Why)
	}
	if served, got := r.served(e.Time); !served {
		t.Errorf("clients are not served after the reload: %s", got)
	}
	for i, before := range r.Limits[0] {
		if after := r.Limits[1]; len(after) <= i || after[i] <= before {
			t.Errorf("limits were %v and are %v, want each raised", r.Limits[0], after)
			break
		}
	}
	var old []int
	for _, pid := range r.Own[1] {
		if slices.Contains(r.Own[0], pid) {
			old = append(old, pid)
		}
	}
	if len(old) != m.masters {
		t.Errorf("of the processes %v before there are %v, want the %d masters alone", r.Own[0], old, m.masters)
	}
	if e.WorkersBefore == nil || e.WorkersAfter == nil || *e.WorkersBefore < 1 || *e.WorkersAfter < 1 ||
		*e.WorkersAfter < *e.WorkersBefore && !m.want.fewer {
		t.Errorf("the trail tells of workers before and after: %s, want as many as before", e)
	}
	if e.Unserved == nil {
		t.Error("the trail has no unserved_seconds")
	} else if off := time.Duration(*e.Unserved*float64(time.Second)) - r.unserved(); off.Abs() > tolerance {
		t.Errorf("unserved_seconds is %.1f, and the clients had no answer for %.1f s", *e.Unserved, r.unserved().Seconds())
	}
	lost, count := 0, r.Answers.Count()
	if r.slow() == cut {
		lost = 1
	}
	if e.Cut == nil {
		t.Error("the trail has no cut")
	} else if most := lost + r.Cuts + count["empty answer"] + count["reset"]; *e.Cut < lost || *e.Cut > most {
		t.Errorf("cut is %d, want %d to %d: the slow request was %s, and uWSGI says NO MERCY %d times", *e.Cut, lost, most, r.slow(), r.Cuts)
	}
}

// unserved is how long nobody had an answer: each gap of a second and more. (An
// answer takes 50 ms, so a shorter one is none.)
func (r result) unserved() (sum time.Duration) {
	var last time.Time
	for _, a := range r.Answers {
		if a.Got != testbed.OK {
			continue
		}
		if gap := a.At.Sub(last); !last.IsZero() && gap >= time.Second {
			sum += gap
		}
		last = a.At
	}
	return sum
}

// checkTruth: whatever came, the trail claims no more than was so.
func (r result) checkTruth(t *testing.T) {
	t.Helper()
	for _, e := range r.Trail {
		claim := e.Action == "judge" && e.Result == "fixed" || e.Action == "reload" && e.Result == "applied"
		if served, got := r.served(e.Time.Add(-time.Second)); claim && !served {
			t.Errorf("the trail says %s %s, and from then on the clients got: %s", e.Action, e.Result, got)
		}
	}
}

func (e event) String() string {
	s := e.Action + " " + e.Result
	if e.Way != "" {
		s += " way=" + e.Way
	}
	if e.Late {
		s += " late"
	}
	for name, v := range map[string]*int{"from": e.From, "to": e.To, "workers_before": e.WorkersBefore, "workers_after": e.WorkersAfter, "cut": e.Cut} {
		if v != nil {
			s += fmt.Sprintf(" %s=%d", name, *v)
		}
	}
	if e.Unserved != nil {
		s += fmt.Sprintf(" unserved=%.1f", *e.Unserved)
	}
	return s + " " + e.Error + " | " + e.Why
}

// logs prints what the scene left.
func (r result) logs(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(r.Logs)) {
		t.Logf("%s:\n%s", name, r.Logs[name])
	}
}
