package testbed

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// LoopOptions say how many clients ask, and for what. Each asks again as soon as
// it has its answer, as people behind a page that reloads do: so a queue is full
// for as long as the application is too slow for them, and no longer.
type LoopOptions struct {
	Clients int
	Request string        // path to GET
	Ramp    time.Duration // between the first request of one client and the next one's
	Pause   time.Duration // after a request without success
	Timeout time.Duration // for the connect, and again for the answer
}

// OK is what a client Got that was served.
const OK = "200 OK"

// Answer is what a client got: OK, another status, or what failed.
type Answer struct {
	At  time.Time // when it was there
	Got string
}

// Answers are in order of time.
type Answers []Answer

// Loop are clients at work.
type Loop struct {
	cancel  context.CancelFunc
	clients sync.WaitGroup
	mu      sync.Mutex
	all     Answers
}

// StartLoop sends clients to addr, as Queue takes it, until Stop or the end of ctx.
func StartLoop(ctx context.Context, addr string, o LoopOptions) *Loop {
	ctx, cancel := context.WithCancel(ctx)
	l := &Loop{cancel: cancel}
	for i := range o.Clients {
		l.clients.Go(func() {
			wait(ctx, time.Duration(i)*o.Ramp)
			for ctx.Err() == nil {
				got := Ask(ctx, addr, o.Request, o.Timeout)
				if ctx.Err() != nil { // it was called home
					return
				}
				l.mu.Lock()
				l.all = append(l.all, Answer{time.Now(), got})
				l.mu.Unlock()
				if got != OK {
					wait(ctx, o.Pause)
				}
			}
		})
	}
	return l
}

// Answers are those until now.
func (l *Loop) Answers() Answers {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[:len(l.all):len(l.all)]
}

// Stop calls the clients home, and returns what they got.
func (l *Loop) Stop() Answers {
	l.cancel()
	l.clients.Wait()
	return l.Answers()
}

// Ask sends one request, and tells what came of it in the words of an Answer.
func Ask(ctx context.Context, addr, request string, timeout time.Duration) string {
	conn, err := dial(ctx, addr, timeout)
	if err == nil {
		defer conn.Close()
		err = get(ctx, conn, request, timeout)
	}
	var slow net.Error
	switch {
	case err == nil:
		return OK
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, syscall.EAGAIN):
		return "queue full" // unix(7)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "empty answer"
	case errors.As(err, &slow) && slow.Timeout():
		return "timed out"
	}
	return err.Error() // "500 Internal Server Error"
}

// Since leaves out what was before.
func (a Answers) Since(from time.Time) Answers {
	for i := range a {
		if !a[i].At.Before(from) {
			return a[i:]
		}
	}
	return nil
}

// Count tells how often clients got each thing.
func (a Answers) Count() map[string]int {
	count := map[string]int{}
	for _, one := range a {
		count[one.Got]++
	}
	return count
}

// Longest is the longest time in which none was served, from the first that was
// until end, and when it began.
func (a Answers) Longest(end time.Time) (longest time.Duration, from time.Time) {
	var last time.Time
	look := func(at time.Time) {
		if gap := at.Sub(last); !last.IsZero() && gap > longest {
			longest, from = gap, last
		}
		last = at
	}
	for _, one := range a {
		if one.Got == OK {
			look(one.At)
		}
	}
	if !last.IsZero() {
		look(end)
	}
	return longest, from
}
