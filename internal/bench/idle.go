package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// idling measures two daemons that have nothing to do, side by side.
func (b *bench) idling() error {
	type sleeper struct {
		files  int
		rss    int64
		daemon *daemon
		before usage
	}
	sleepers := []*sleeper{{files: 1, rss: 15 << 20}, {files: 1000, rss: 30 << 20}}
	for _, s := range sleepers {
		name := fmt.Sprintf("idle-%d", s.files)
		dir := filepath.Join(b.dir, name, "logs")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for i := range s.files {
			text := []byte("*** Starting uWSGI ***\n")
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("app%04d.log", i)), text, 0o644); err != nil {
				return err
			}
		}
		config, err := b.settings(name, "0s", filepath.Join(dir, "*.log"))
		if err != nil {
			return err
		}
		s.daemon, err = b.runQwatch(config)
		defer s.daemon.stop()
		if err != nil {
			return err
		}
	}
	// The first positions are written, and the start's garbage is collected.
	if err := b.wait(5 * time.Second); err != nil {
		return err
	}
	for _, s := range sleepers {
		var err error
		if s.before, err = usageOf(s.daemon.Process.Pid); err != nil {
			return err
		}
	}
	if err := b.wait(b.idle); err != nil {
		return err
	}
	for _, s := range sleepers {
		after, err := usageOf(s.daemon.Process.Pid)
		if err != nil {
			return err
		}
		now, most, err := resident(s.daemon.Process.Pid)
		if err != nil {
			return err
		}
		work := fmt.Sprintf("idle, %d files", s.files)
		if s.files == 1 {
			work = "idle, 1 file"
		}
		b.add(row{Work: work + ": memory", Result: fmt.Sprintf("%.1f MiB (at most %.1f)", float64(now)/(1<<20), float64(most)/(1<<20)),
			Bar: fmt.Sprintf("≤ %d MiB", s.rss>>20), Met: met(most <= s.rss)})
		ticks := after.ticks - s.before.ticks
		b.add(row{
			Work: fmt.Sprintf("%s: CPU in %.0f s", work, b.idle.Seconds()),
			Result: fmt.Sprintf("%d ticks (%.3f ms, %d times asleep)", ticks, ms(after.cpu-s.before.cpu),
				after.switches-s.before.switches),
			Bar: "0 ticks", Met: met(ticks == 0),
		})
	}
	return nil
}

func (b *bench) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}
