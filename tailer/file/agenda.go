package file

import (
	"container/heap"
	"time"
)

// agenda holds what is to be done later. While it is empty there is no timer.
type agenda []task

type task struct {
	at time.Time
	do func()
}

func (a *agenda) add(at time.Time, do func()) { heap.Push(a, task{at, do}) }

// wait is how long nothing is to be done.
func (a agenda) wait(now time.Time) time.Duration {
	if len(a) == 0 {
		return 1<<63 - 1
	}
	return max(0, a[0].at.Sub(now))
}

// run does what is due.
func (a *agenda) run(now time.Time) {
	for len(*a) > 0 && !(*a)[0].at.After(now) {
		heap.Pop(a).(task).do()
	}
}

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(task)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	t := (*a)[last]
	(*a)[last] = task{}
	*a = (*a)[:last]
	return t
}
