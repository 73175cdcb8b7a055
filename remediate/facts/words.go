package facts

import (
	"maps"

	"qwatch/matcher"
)

// Words counts what one uWSGI has said over some time.
type Words struct {
	Of   map[matcher.MarkKind]int
	Died map[int]int // how often each worker was killed or crashed
	// Took is how many seconds the slowest app took to load, Waiting the worker
	// for which a chain reload stands still, 0 for none.
	Took, Waiting int
	// Failed are the requests that were answered with a status of 500 or more,
	// of those that were answered.
	Failed int
}

// Add counts one word.
func (w *Words) Add(word matcher.Word) {
	if w.Of == nil {
		w.Of, w.Died = map[matcher.MarkKind]int{}, map[int]int{}
	}
	w.Of[word.Kind]++
	switch word.Kind {
	case matcher.WordReady:
		w.Took = max(w.Took, word.N)
	case matcher.WordAnswered:
		if word.N >= 500 {
			w.Failed++
		}
	case matcher.MarkDied:
		w.Died[word.N]++
	case matcher.WordWaiting:
		w.Waiting = word.N
	case matcher.WordOrdered, matcher.WordChained:
		w.Waiting = 0
	}
}

// Join adds what was said by another process of the same uWSGI.
func (w *Words) Join(o Words) {
	if w.Of == nil {
		w.Of, w.Died = map[matcher.MarkKind]int{}, map[int]int{}
	}
	for kind, n := range o.Of {
		w.Of[kind] += n
	}
	for worker, n := range o.Died {
		w.Died[worker] += n
	}
	w.Took, w.Failed, w.Waiting = max(w.Took, o.Took), w.Failed+o.Failed, max(w.Waiting, o.Waiting)
}

// Clone is a copy of its own.
func (w Words) Clone() Words {
	w.Of, w.Died = maps.Clone(w.Of), maps.Clone(w.Died)
	return w
}

// Since is what was said after before was.
func (w Words) Since(before Words) Words {
	w = w.Clone()
	for kind, n := range before.Of {
		w.Of[kind] -= n
	}
	for worker, n := range before.Died {
		w.Died[worker] -= n
	}
	w.Failed -= before.Failed
	return w
}

// deaths is how often the worker died that died most, and which one it is.
func (w Words) deaths() (worker, times int) {
	for id, n := range w.Died {
		if n > times || n == times && id < worker {
			worker, times = id, n
		}
	}
	return worker, times
}

// lost is how many workers died.
func (w Words) lost() (n int) {
	for _, times := range w.Died {
		if times > 0 {
			n++
		}
	}
	return n
}
