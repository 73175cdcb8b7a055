package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"qwatch/internal/testbed"
)

// run starts `qwatch run` with the probe at an interval, following the files of
// a glob. What it returns with it tells how many records that has found so far.
func (b *bench) run(name, probe, glob string) (d *daemon, hits func() int) {
	dir := filepath.Join(b.dir, name)
	check(os.RemoveAll(dir)) // no positions of an earlier run
	check(os.Mkdir(dir, 0o755))
	config := filepath.Join(dir, "qwatch.toml")
	text := fmt.Sprintf("dry_run = true\nstate_dir = %q\nsocket = %q\n[[source]]\nfiles = [%q]\n[probe]\ninterval = %q\n[metrics]\nlisten = \"\"\n",
		dir, filepath.Join(dir, "socket"), glob, probe)
	check(os.WriteFile(config, []byte(text), 0o644))
	return b.start(name, said, b.qwatch, "run", "-c", config), func() (hits int) {
		var status struct{ Sources []struct{ Hits int } }
		check(json.Unmarshal([]byte(b.output(b.qwatch, "status", "--json", "-c", config)), &status))
		for _, s := range status.Sources {
			hits += s.Hits
		}
		return hits
	}
}

// follow has each tool follow a file that grows by 100,000 lines a second.
func (b *bench) follow() {
	log := filepath.Join(b.dir, "live.log")
	contenders := []func(log string) (*daemon, func() int){
		func(log string) (*daemon, func() int) { return b.run("follow", "0s", log) }, b.tail, b.mtail,
	}
	costs := interleave(b.runs, len(contenders), func(i int) cost { return b.followed(log, contenders[i]) })
	work, own := fmt.Sprintf("following 100,000 lines/s for %.0f s", b.span.Seconds()), costs[0].cpu
	compare := func(what string, other time.Duration, bar float64) {
		b.ratio(work, fmt.Sprintf("%.2f s CPU", own.Seconds()), fmt.Sprintf("%s: %.2f s CPU", what, other.Seconds()), own, other, bar)
	}
	compare("tail -F | grep --line-buffered -F", costs[1].cpu, 1.0)
	compare("mtail", costs[2].cpu, 0.1)
}

// followed runs a tool while the log grows, and until it has found all records.
// What it took is from its start to its end.
func (b *bench) followed(log string, start func(log string) (*daemon, func() int)) (c cost) {
	file := must(os.OpenFile(log, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o644))
	defer os.Remove(log)
	defer file.Close()
	d, found := start(log)
	defer func() { c.cpu = d.stop() }()
	records := must(pace(b.ctx, file, b.span, newLines(3).record()))
	check(testbed.Until(b.ctx, 2*time.Minute, fmt.Sprintf("%s finds %d records", d, records), func() bool { return found() >= records }))
	return c
}

func (b *bench) tail(log string) (d *daemon, found func() int) {
	// The shell outlives the pipe, and so takes its CPU time for its own.
	const script = `trap : TERM; tail -n +1 -F "$1" | grep --line-buffered -F "$2" >"$3"; :`
	matches := filepath.Join(b.dir, "matches")
	check(os.WriteFile(matches, nil, 0o644))
	ready := func(*daemon) bool { return true } // it reads from the beginning
	return b.start("tail", ready, "sh", "-c", script, "sh", log, literal, matches), func() int {
		return strings.Count(string(must(os.ReadFile(matches))), "\n")
	}
}

const mtailProgram = `counter hits by socket
/\*\*\* uWSGI listen queue of socket "(?P<socket>[^"]+)" \(fd: \d+\) full !!! \(\d+\/\d+\) \*\*\*/ {
  hits[$socket]++
}
`

var mtailHits = regexp.MustCompile(`(?m)^hits\{.*\} (\d+)$`)

func (b *bench) mtail(log string) (d *daemon, found func() int) {
	program := filepath.Join(b.dir, "queue.mtail")
	check(os.WriteFile(program, []byte(mtailProgram), 0o644))
	const address, port = "127.0.0.1", "19903"
	ready := func(d *daemon) bool { // it reads from the end
		files, _ := must(procfs.NewProc(d.Process.Pid)).FileDescriptorTargets()
		return slices.Contains(files, log)
	}
	return b.start("mtail", ready, "mtail", "-progs", program, "-logs", log, "-address", address, "-port", port), func() (hits int) {
		answer := must(http.Get("http://" + address + ":" + port + "/metrics"))
		defer answer.Body.Close()
		if m := mtailHits.FindSubmatch(must(io.ReadAll(answer.Body))); m != nil {
			fmt.Sscan(string(m[1]), &hits)
		}
		return hits
	}
}
