package facts

import (
	"slices"
	"time"
)

// LooksSince is the moment from which samples, in the order of time, tell of a
// socket as it is: since, and after the last one that carries another limit than
// the socket has. A queue that was full at a limit of before is not full now.
func LooksSince(s Socket, samples []Sample, since time.Time) time.Time {
	limit := s.Limit
	for _, r := range slices.Backward(samples) {
		switch {
		case r.At.Before(since):
			return since
		case r.ID != s.ID:
		case limit == 0: // not known, so that the newest tells it
			limit = r.Limit
		case r.Limit != limit:
			return r.At.Add(1)
		}
	}
	return since
}
