package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// matcher quotes the benchmarks of what every byte goes through.
func (b *bench) matcher() error {
	cmd := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "Uninteresting|Hit|Scan", "-benchmem", "./matcher", "./tailer/bulk")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if !strings.HasPrefix(line, "Benchmark") || len(fields) < 4 {
			continue
		}
		var figures []string
		for i := 2; i+1 < len(fields); i += 2 {
			figures = append(figures, fields[i]+" "+fields[i+1])
		}
		r := row{Work: "go test -bench " + strings.TrimPrefix(fields[0], "Benchmark"), Result: strings.Join(figures, ", ")}
		if strings.Contains(line, "Uninteresting") {
			r.Bar, r.Met = "0 allocs", met(strings.Contains(line, "\t       0 allocs/op"))
		}
		b.add(r)
	}
	return nil
}

// record is what makes a record, as package matcher has it: both formats.
const record = `\*\*\* uWSGI listen queue of socket ("[^"]*" \(fd: \d+\)|\d+) full !!! \(-?\d+/-?\d+\) \*\*\*`

// scan reads a log that is there.
func (b *bench) scan() error {
	log := filepath.Join(b.dir, "uwsgi.log")
	if err := writeLog(log, b.logSize); err != nil {
		return err
	}
	defer os.Remove(log)
	if err := b.sameHits(log); err != nil {
		return err
	}
	// Counts go to a file: grep stops at the first match where its output is
	// /dev/null (grep.c, dev_null_output).
	count, err := os.Create(filepath.Join(b.dir, "count"))
	if err != nil {
		return err
	}
	defer count.Close()
	counting := func(label, name string, args ...string) contender {
		return contender{label, func() (cost, error) { return b.costOf(count, name, args...) }}
	}
	got, err := b.interleave(b.runs,
		counting("qwatch", b.qwatch, "scan", log),
		counting("rg", "rg", "-c", record, log),
		counting("rg -F", "rg", "-c", "-F", literal, log),
		counting("grep", "grep", "-c", "-F", literal, log),
		b.command("cat", "cat", log),
	)
	if err != nil {
		return err
	}
	work := fmt.Sprintf("scan of %d MiB, page cache warm", b.logSize>>20)
	q := got["qwatch"]
	result := fmt.Sprintf("%.3f s (%.3f s CPU)", q.wall.Seconds(), q.cpu.Seconds())
	for _, o := range []struct {
		name, what string
		bar        float64
	}{{"rg", "rg -c, the record's pattern", 1.0}, {"rg -F", "rg -c -F, a part of it", 0}, {"grep", "grep -c -F", 0}, {"cat", "cat > /dev/null", 1.5}} {
		c := got[o.name]
		b.ratio(work, result, fmt.Sprintf("%s: %.3f s (%.3f s CPU)", o.what, c.wall.Seconds(), c.cpu.Seconds()), q.wall, c.wall, o.bar)
	}
	b.memory("its memory", q.rss, 64<<20)

	if err := exec.CommandContext(b.ctx, "gzip", "-k", log).Run(); err != nil {
		return fmt.Errorf("gzip: %w", err)
	}
	packed := log + ".gz"
	defer os.Remove(packed)
	got, err = b.interleave(b.runs,
		counting("qwatch", b.qwatch, "scan", packed),
		b.command("zcat", "zcat", packed),
	)
	if err != nil {
		return err
	}
	q, z := got["qwatch"], got["zcat"]
	b.ratio("scan of the same as .gz", fmt.Sprintf("%.2f s (%.2f s CPU)", q.wall.Seconds(), q.cpu.Seconds()),
		fmt.Sprintf("zcat > /dev/null: %.2f s", z.wall.Seconds()), q.wall, z.wall, 0.7)
	b.memory("its memory", q.rss, 64<<20)
	return nil
}

// memory adds a row for the most that was resident.
func (b *bench) memory(work string, rss, bar int64) {
	b.add(row{Work: work, Result: fmt.Sprintf("%.1f MiB", float64(rss)/(1<<20)),
		Bar: fmt.Sprintf("≤ %d MiB", bar>>20), Met: met(rss <= bar)})
}

// sameHits makes sure that qwatch and grep find the same, and warms the cache.
func (b *bench) sameHits(log string) error {
	out, err := exec.CommandContext(b.ctx, b.qwatch, "scan", "--format", "json", log).Output()
	if err != nil {
		return fmt.Errorf("qwatch scan: %w", err)
	}
	var report struct{ Hits int }
	if err := json.Unmarshal(out, &report); err != nil {
		return err
	}
	out, err = exec.CommandContext(b.ctx, "grep", "-c", "-F", literal, log).Output()
	if err != nil {
		return fmt.Errorf("grep: %w", err)
	}
	if want := strings.TrimSpace(string(out)); fmt.Sprint(report.Hits) != want {
		return fmt.Errorf("qwatch found %d records, grep %s", report.Hits, want)
	}
	return nil
}
