package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// delayed is the connect time from which a SYN must have been dropped: its
// first retransmission comes after 1 s (TCP_TIMEOUT_INIT, net/ipv4/tcp.h).
const delayed = 900 * time.Millisecond

// FloodOptions say how many clients come and what they do. Every client
// connects once and never tries again.
type FloodOptions struct {
	Connections int           // how many; at most 20000
	Rate        float64       // connections begun per second; 0: all at once
	Request     string        // path to GET, as "/?ms=20"; "": hold the connection and ask for nothing
	Say         string        // what is sent once on a connection that is held, as the beginning of a request
	Hold        time.Duration // how long a connection is held; 0: until ctx ends
	Timeout     time.Duration // for the connect, and again for the answer; 0: 10 s
}

// FloodStats count what the clients saw. Each client is in exactly one of
// Prompt, Delayed, Refused, TimedOut, Again and Failed.
type FloodStats struct {
	Prompt   int // connected in less than 0.9 s
	Delayed  int // connected later: the kernel dropped a SYN
	Refused  int // refused or reset while connecting
	TimedOut int // not connected within the timeout
	Again    int // EAGAIN: the full queue of a UNIX socket (unix(7))
	Failed   int // not connected for another reason, as the end of ctx
	Answered int // of those that connected: got status 200
	Unserved int // of those that connected and asked: got none
	Connect  []time.Duration
	Answer   []time.Duration // from the start of the connect
	Took     time.Duration
}

// Flood runs the clients against addr (as Queue takes it) and returns when all
// are done or ctx has ended.
func Flood(ctx context.Context, addr string, o FloodOptions) (FloodStats, error) {
	if o.Connections < 1 || o.Connections > 20000 {
		return FloodStats{}, fmt.Errorf("flood of %d connections, want 1 to 20000", o.Connections)
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	var (
		start = time.Now()
		stats FloodStats
		mu    sync.Mutex
		wg    sync.WaitGroup
	)
	for i := range o.Connections {
		if o.Rate > 0 { // by the clock, so that a pause of the machine is made up for
			due := start.Add(time.Duration(float64(i) / o.Rate * float64(time.Second)))
			wait(ctx, time.Until(due))
		}
		wg.Go(func() {
			begin := time.Now()
			conn, err := dial(ctx, addr, o.Timeout)
			took := time.Since(begin)
			mu.Lock()
			stats.connected(took, err)
			mu.Unlock()
			if err != nil {
				return
			}
			defer conn.Close()
			if o.Request == "" {
				o.hold(ctx, conn)
				return
			}
			err = get(ctx, conn, o.Request, o.Timeout)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				stats.Unserved++
				return
			}
			stats.Answered++
			stats.Answer = append(stats.Answer, time.Since(begin))
		})
	}
	wg.Wait()
	stats.Took = time.Since(start)
	return stats, nil
}

func (o FloodOptions) hold(ctx context.Context, conn net.Conn) {
	fmt.Fprint(conn, o.Say) // to a server that has closed it is no matter
	if o.Hold == 0 {
		<-ctx.Done()
	} else {
		wait(ctx, o.Hold)
	}
}

func (s *FloodStats) connected(took time.Duration, err error) {
	var timeout net.Error
	switch {
	case err == nil:
		if s.Connect = append(s.Connect, took); took < delayed {
			s.Prompt++
		} else {
			s.Delayed++
		}
	case errors.Is(err, syscall.EAGAIN):
		s.Again++
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		s.Refused++
	case errors.Is(err, syscall.ETIMEDOUT), errors.As(err, &timeout) && timeout.Timeout():
		s.TimedOut++
	default:
		s.Failed++
	}
}

// String is one line for people.
func (s FloodStats) String() string {
	return fmt.Sprintf("%d prompt, %d delayed, %d refused, %d timed out, %d again, %d failed; "+
		"%d answered, %d unserved; connect median %v, slowest %v; answer median %v, slowest %v; took %v",
		s.Prompt, s.Delayed, s.Refused, s.TimedOut, s.Again, s.Failed, s.Answered, s.Unserved,
		round(Quantile(s.Connect, 0.5)), round(Quantile(s.Connect, 1)),
		round(Quantile(s.Answer, 0.5)), round(Quantile(s.Answer, 1)), round(s.Took))
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// Quantile is the q-th quantile (0 to 1) of some times; 0 of none.
func Quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(times))[min(int(q*float64(len(times))), len(times)-1)]
}

// Until waits until ok holds, and fails where that takes longer than most or
// ctx ends; what says in the error what was waited for.
func Until(ctx context.Context, most time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not within %v", most))
	defer cancel()
	for !ok() {
		if wait(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

func dial(ctx context.Context, addr string, timeout time.Duration) (net.Conn, error) {
	network := "tcp"
	if isUNIX(addr) {
		network = "unix"
	}
	d := net.Dialer{Timeout: timeout, KeepAlive: -1}
	return d.DialContext(ctx, network, addr)
}

func get(ctx context.Context, conn net.Conn, path string, timeout time.Duration) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: testbed\r\n\r\n", path); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
