package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// matcher quotes the benchmarks of what every byte goes through.
func (b *bench) matcher() {
	for _, r := range b.benchmarks("go", "test", "-run", "^$", "-bench", "Uninteresting|Hit/bare|Scan", "-benchmem", "./matcher", "./tailer/bulk") {
		line := row{Work: "go test -bench " + r.name, Result: r.text}
		if r.name == "Uninteresting" {
			line.Bar, line.Met = "0 allocs", met(r.figures["allocs/op"] == 0)
		}
		b.add(line)
	}
}

// latencies quotes BenchmarkLatency.
func (b *bench) latencies() {
	work := map[string]string{"Latency/quiet": "in a quiet file", "Latency/busy": "at 100,000 lines/s"}
	for _, r := range b.benchmarks("go", "test", "-run", "^$", "-bench", "Latency", "-benchtime", fmt.Sprintf("%dx", b.latency), "./internal/bench") {
		p99 := r.figures["p99-ms"]
		b.add(row{Work: "line written → hit, " + work[r.name], Result: fmt.Sprintf("p50 %.3f ms, p99 %.3f ms", r.figures["p50-ms"], p99),
			Bar: "p99 ≤ 2 ms", Met: met(p99 <= 2)})
	}
}

// record is what makes a record, as package matcher has it: both formats.
const record = `\*\*\* uWSGI listen queue of socket ("[^"]*" \(fd: \d+\)|\d+) full !!! \(-?\d+/-?\d+\) \*\*\*`

// scan reads a log that is there, as it is and as .gz.
func (b *bench) scan() {
	log, count := filepath.Join(b.dir, "uwsgi.log"), filepath.Join(b.dir, "count")
	writeLog(log, b.logSize)
	b.compare(fmt.Sprintf("scan of %d MiB, page cache warm", b.logSize>>20), log, log,
		command{"rg -c, the record's pattern", 1.0, fmt.Sprintf("rg -c '%s' %s", record, log), count},
		command{"rg -c -F, a part of it", 0, fmt.Sprintf("rg -c -F '%s' %s", literal, log), count},
		command{"grep -c -F", 0, fmt.Sprintf("grep -c -F '%s' %s", literal, log), count},
		command{"cat > /dev/null", 1.5, "cat " + log, "null"})
	b.output("gzip", "-k", log)
	packed := log + ".gz"
	b.compare("scan of the same as .gz", packed, log, command{"zcat > /dev/null", 0.7, "zcat " + packed, "null"})
	check(errors.Join(os.Remove(packed), os.Remove(log)))
}

// compare measures qwatch scan of a file beside other commands. The file has
// the same records as a plain one.
func (b *bench) compare(work, file, plain string, others ...command) {
	most := b.sameHits(file, plain)
	own := command{line: b.qwatch + " scan " + file, sink: filepath.Join(b.dir, "count")}
	costs := b.hyperfine(b.runs, append([]command{own}, others...)...)
	took := func(c cost) string { return fmt.Sprintf("%.3f s (%.3f s CPU)", c.wall.Seconds(), c.cpu.Seconds()) }
	for i, o := range others {
		b.ratio(work, took(costs[0]), o.what+": "+took(costs[i+1]), costs[0].wall, costs[i+1].wall, o.bar)
	}
	b.memory("its memory", fmt.Sprintf("%.1f MiB", mib(most)), most, 64<<20)
}

// sameHits makes sure that qwatch finds as many records as grep, in some runs,
// which also warm the cache. It returns the most memory that was resident in
// one of them, in bytes.
func (b *bench) sameHits(file, plain string) (most uint64) {
	want := strings.TrimSpace(b.output("grep", "-c", "-F", literal, plain))
	memory := filepath.Join(b.dir, "memory")
	for range b.runs {
		// Not by this program's own wait(2): a child shares the memory of its
		// parent until it calls execve, and that would count (getrusage(2)).
		out := b.output("time", "-f", "%M", "-o", memory, b.qwatch, "scan", "--format", "json", file)
		var report struct{ Hits int }
		check(json.Unmarshal([]byte(out), &report))
		if strconv.Itoa(report.Hits) != want {
			check(fmt.Errorf("qwatch found %d records in %s, grep %s", report.Hits, file, want))
		}
		kib := must(strconv.ParseUint(strings.TrimSpace(string(must(os.ReadFile(memory)))), 10, 64))
		most = max(most, kib<<10)
	}
	return most
}
