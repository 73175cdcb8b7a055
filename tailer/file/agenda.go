package file

import (
	"cmp"
	"slices"
	"time"
)

// agenda holds what Run is to do later. While it is empty there is no timer.
type agenda struct {
	now     time.Time // when the present turn of Run's loop began
	tasks   []*task   // the next one first
	pending [chores]*task
}

// chore is work that many may ask for and that is done once for all of them.
type chore int

// Chores that are due at the same time are done in this order.
const (
	noChore chore = iota
	surveyNames
	searchGenerations
	pollUnwatched
	savePositions
	chores
)

type task struct {
	at    time.Time
	chore chore
	do    func()
}

func (a *agenda) add(t *task) {
	i, _ := slices.BinarySearchFunc(a.tasks, t, func(one, other *task) int {
		return cmp.Or(one.at.Compare(other.at), cmp.Compare(one.chore, other.chore))
	})
	a.tasks = slices.Insert(a.tasks, i, t)
}

// after has do called after d.
func (a *agenda) after(d time.Duration, do func()) {
	a.add(&task{time.Now().Add(d), noChore, do})
}

// once has a chore done at the earliest of the times that it is asked for: after
// d, or when d is 0 behind all else that is due in the present turn.
func (a *agenda) once(c chore, d time.Duration, do func()) {
	at := a.now
	if d > 0 {
		at = time.Now().Add(d)
	}
	if t := a.pending[c]; t != nil {
		if !at.Before(t.at) {
			return
		}
		i := slices.Index(a.tasks, t)
		a.tasks = slices.Delete(a.tasks, i, i+1)
	}
	a.pending[c] = &task{at, c, do}
	a.add(a.pending[c])
}

// wait is how long nothing is to be done.
func (a *agenda) wait() time.Duration {
	if len(a.tasks) == 0 {
		return 1<<63 - 1
	}
	return max(0, time.Until(a.tasks[0].at))
}

// run does what is due at the beginning of the present turn, and what that asks
// to be done in it.
func (a *agenda) run() {
	for len(a.tasks) > 0 && !a.tasks[0].at.After(a.now) {
		t := a.tasks[0]
		a.tasks[0] = nil
		a.tasks = a.tasks[1:]
		a.pending[t.chore] = nil
		t.do()
	}
}
