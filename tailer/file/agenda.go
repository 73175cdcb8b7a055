package file

import (
	"container/heap"
	"time"
)

// agenda holds what Run is to do later. While it is empty there is no timer.
type agenda struct {
	now     time.Time // when the present turn of Run's loop began
	tasks   tasks
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
	do    func() // nil if the chore was brought forward
}

// after has do called after d.
func (a *agenda) after(d time.Duration, do func()) {
	heap.Push(&a.tasks, &task{at: time.Now().Add(d), do: do})
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
		t.do = nil
	}
	a.pending[c] = &task{at, c, do}
	heap.Push(&a.tasks, a.pending[c])
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
		t := heap.Pop(&a.tasks).(*task)
		if t.do == nil {
			continue
		}
		a.pending[t.chore] = nil
		t.do()
	}
}

// tasks is a heap with the next task first.
type tasks []*task

// Len, Less, Swap, Push and Pop are for container/heap.
func (t tasks) Len() int { return len(t) }

func (t tasks) Less(i, j int) bool {
	if !t[i].at.Equal(t[j].at) {
		return t[i].at.Before(t[j].at)
	}
	return t[i].chore < t[j].chore
}

func (t tasks) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *tasks) Push(x any)   { *t = append(*t, x.(*task)) }
func (t *tasks) Pop() any {
	last := len(*t) - 1
	next := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return next
}
