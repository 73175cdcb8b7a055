package file

import (
	"strings"
	"testing"
	"time"
)

func TestAgenda(t *testing.T) {
	var a agenda
	var done []string
	do := func(what string) func() { return func() { done = append(done, what) } }
	turn := func(want string) {
		t.Helper()
		done = nil
		a.now = time.Now().Add(time.Minute) // all that was asked for within a minute is due
		a.run()
		if got := strings.Join(done, " "); got != want {
			t.Errorf("done: %q, want %q", got, want)
		}
	}
	a.now = time.Now()
	a.after(2*time.Second, do("second"))
	a.after(time.Second, func() {
		done = append(done, "first")
		a.once(searchGenerations, 0, do("search"))
		a.once(surveyNames, 0, do("survey"))
		a.once(surveyNames, 0, do("survey again"))
	})
	a.once(savePositions, time.Hour, do("save late"))
	if w := a.wait(); w <= 0 || w > time.Second {
		t.Errorf("wait %v, want a second at most", w)
	}
	turn("first second survey search")
	a.once(savePositions, time.Second, do("save")) // earlier than before
	a.once(savePositions, 2*time.Second, do("save later"))
	turn("save")
	turn("")
	a.once(savePositions, time.Second, do("save"))
	turn("save")
	if w := a.wait(); w != 1<<63-1 {
		t.Errorf("wait %v with nothing to do", w)
	}
}
