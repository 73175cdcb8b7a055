package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"qwatch/internal/testbed"
	"qwatch/matcher"
	"qwatch/tailer"
	follow "qwatch/tailer/file"
)

// BenchmarkLatency is the time from the write(2) of a record until package
// matcher has made a hit of it, in a file that is else quiet, and in one that
// grows by 100,000 lines/s. Both ends are in this process and have one clock.
func BenchmarkLatency(b *testing.B) {
	b.Run("quiet", func(b *testing.B) { latency(b, false) })
	b.Run("busy", func(b *testing.B) { latency(b, true) })
}

func latency(b *testing.B, busy bool) {
	path := filepath.Join(b.TempDir(), "app.log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	hits := make(chan time.Time, 1)
	files, err := follow.New(follow.Options{Globs: []string{path}, Cut: matcher.Cut, Continues: matcher.Continues}, func(c tailer.Chunk) {
		matcher.Scan(c.Text, matcher.Meta{Source: c.Source, Read: c.Time}, func(matcher.Hit) { hits <- time.Now() })
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	group, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		if err := group.Wait(); err != nil && ctx.Err() == nil {
			b.Error(err)
		}
	}()
	group.Go(func() error { return files.Run(ctx) })
	select {
	case <-files.Ready():
	case <-ctx.Done():
		b.Fatal("the tailer has ended")
	}
	if busy {
		group.Go(func() error { // no line of it is a record: those are written below
			_, err := pace(ctx, file, time.Hour, nil)
			return err
		})
		time.Sleep(time.Second)
	}
	record := newLines(3).record()
	var times []time.Duration
	for b.Loop() {
		time.Sleep(time.Duration(5+rand.IntN(40)) * time.Millisecond) // in step with nothing else
		began := time.Now()
		if _, err := file.Write(record); err != nil {
			b.Fatal(err)
		}
		select {
		case at := <-hits:
			times = append(times, at.Sub(began))
		case <-ctx.Done():
			b.Fatal("the tailer or the writer has ended")
		case <-time.After(10 * time.Second):
			b.Fatal("a record was not found within 10 s")
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(testbed.Quantile(times, 0.5)), "p50-ms")
	b.ReportMetric(ms(testbed.Quantile(times, 0.99)), "p99-ms")
}
