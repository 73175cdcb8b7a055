package facts

import "time"

// Stats is what a uWSGI stats server says: of all sockets and workers of one
// master together.
type Stats struct {
	At         time.Time // when it answered
	Requests   uint64    // answered since the master's start (sum of the workers')
	Workers    int       // without those that cheaper mode has put to rest
	Busy, Idle int
	// Response is the average time of a request, as the workers that have
	// answered any say (avg_rt, which weighs the newest most).
	Response time.Duration
	// Address is where the stats server was asked.
	Address string
	// Exceptions are those of all workers' requests. Apps is how many apps the
	// worker has loaded that has the fewest, Took how long the slowest took.
	Exceptions uint64
	Apps       int
	Took       time.Duration
}

// Counted is what a reload can change of it.
func (s Stats) Counted() Counted { return Counted{s.Requests, s.Exceptions, s.Apps, s.Took, s.Busy} }

// Stopped reports whether a signal or a debugger holds the worker.
func (w Worker) Stopped() bool { return w.State == 'T' || w.State == 't' }

// Dead reports whether the worker has ended and is not yet replaced.
func (w Worker) Dead() bool { return w.State == 'Z' || w.State == 'X' }

// Helpless reports whether only somebody else can let the worker go on.
func (w Worker) Helpless() bool {
	return w.Stopped() || w.Dead() || w.State == 'D' || w.Waits != ""
}
