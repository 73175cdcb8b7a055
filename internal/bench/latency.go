package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"qwatch/matcher"
	"qwatch/tailer"
)

// delivery measures the time from the last byte of a record to the hit, in a
// file that nobody else writes to, and in one that grows by 100,000 lines/s.
func (b *bench) delivery() error {
	for _, busy := range []bool{false, true} {
		times, err := b.deliver(busy)
		if err != nil {
			return err
		}
		work := "line written → hit, in a quiet file"
		if busy {
			work = "line written → hit, at 100,000 lines/s"
		}
		p50, p99 := quantile(times, 0.5), quantile(times, 0.99)
		b.add(row{Work: work, Result: fmt.Sprintf("p50 %.3f ms, p99 %.3f ms", ms(p50), ms(p99)),
			Bar: "p99 ≤ 2 ms", Met: met(p99 <= 2*time.Millisecond)})
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// deliver follows a file in this process, so that both ends have one clock. The
// time begins before the write(2) of the record and ends when package matcher
// has made a hit of it.
func (b *bench) deliver(busy bool) (times []time.Duration, err error) {
	path := filepath.Join(b.dir, "latency.log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	defer f.Close()
	hits := make(chan time.Time, 1)
	files, err := tailer.New(tailer.Options{Globs: []string{path}}, func(c tailer.Chunk) {
		matcher.Scan(c.Text, matcher.Meta{Source: c.Source, Read: c.Time}, func(matcher.Hit) { hits <- time.Now() })
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	failed := make(chan error, 2)
	group.Go(func() { failed <- files.Run(ctx) })
	select {
	case <-files.Ready():
	case err := <-failed:
		return nil, err
	}
	if busy {
		group.Go(func() {
			// No line of it is a record: those are written below.
			if _, err := pace(ctx, f, time.Hour, nil); ctx.Err() == nil {
				failed <- err
			}
		})
		time.Sleep(time.Second)
	}
	record := newLines(3).record()
	for len(times) < b.latency {
		// Not in step with anything else.
		time.Sleep(time.Duration(5+rand.IntN(40)) * time.Millisecond)
		began := time.Now()
		if _, err := f.Write(record); err != nil {
			return nil, err
		}
		select {
		case at := <-hits:
			times = append(times, at.Sub(began))
		case err := <-failed:
			return nil, err
		case <-time.After(10 * time.Second):
			return nil, fmt.Errorf("a record was not found within 10 s")
		case <-b.ctx.Done():
			return nil, b.ctx.Err()
		}
	}
	return times, nil
}
