// Command bench measures what docs/performance.md shows: qwatch beside the
// tools that people would use instead, in one run, as medians with their ratios
// and the bars that they are held to.
//
// Usage: bench [-short] [-only PART[,PART...]] [-qwatch BINARY]. The parts are
// matcher, scan, latency, follow, idle and host.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/prometheus/procfs"

	"qwatch/internal/testbed"
)

// bench is one run.
type bench struct {
	ctx    context.Context
	qwatch string // the binary
	dir    string // for the data, deleted at the end
	rows   []row
	sizes
}

// sizes say how much is measured.
type sizes struct {
	runs    int           // of each contender
	logSize int64         // bytes, of the log that is scanned
	span    time.Duration // of following
	idle    time.Duration
	probing time.Duration
	latency int // records
}

var (
	long  = sizes{5, 1 << 30, 20 * time.Second, time.Minute, 30 * time.Second, 1000}
	brief = sizes{3, 128 << 20, 8 * time.Second, 5 * time.Second, 5 * time.Second, 200}
)

// row is one line of the table.
type row struct {
	Work, Result, Against, Ratio, Bar, Met string
}

func main() {
	short := flag.Bool("short", false, "fewer and shorter runs, to see that it works")
	only := flag.String("only", "", "only these `parts`")
	qwatch := flag.String("qwatch", "dist/qwatch", "the `binary` to measure")
	inside := flag.String("inside", "", "measure the part host, in namespaces, with this test `binary`, and print its rows as JSON (bench runs itself like this)")
	connections := flag.Int("connect", 0, "hold this many connections (bench runs itself like this)")
	flag.Parse()
	if *inside != "" {
		if err := testbed.Enter(); err != nil { // which runs this program anew
			fail(err)
		}
	}
	err := measure(func(b *bench) {
		if *short {
			b.sizes = brief
		}
		b.qwatch = must(filepath.Abs(*qwatch))
		if _, err := os.Stat(b.qwatch); err != nil {
			check(fmt.Errorf("%w; build it first (make bench does)", err))
		}
		switch {
		case *connections > 0:
			b.connect(*connections)
		case *inside != "":
			b.hostInside(*inside)
		default:
			b.all(*only)
		}
	})
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// check ends the run where something has failed.
func check(err error) { testbed.Check(err) }

func must[T any](value T, err error) T { return testbed.Must(value, err) }

// measure gives a bench its context and directory, and takes them away again.
func measure(do func(*bench)) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Setenv("LC_ALL", "C") // spares the other tools what a locale costs them
	dir, err := os.MkdirTemp("", "qwatch-bench-")
	if err != nil {
		return err
	}
	err = testbed.Try(func() { do(&bench{ctx: ctx, dir: dir, sizes: long}) })
	return errors.Join(err, os.RemoveAll(dir))
}

func (b *bench) all(only string) {
	fs := must(procfs.NewDefaultFS())
	cpus, memory, load := must(fs.CPUInfo()), must(fs.Meminfo()), must(fs.LoadAvg())
	fmt.Printf("%s, %d CPUs, %d GiB of memory, Linux %s, %s, load %.2f.\n", cpus[0].ModelName, len(cpus),
		*memory.MemTotalBytes>>30, bytes.TrimSpace(must(os.ReadFile("/proc/sys/kernel/osrelease"))), runtime.Version(), load.Load1)
	before := must(fs.Stat()).CPUTotal
	for _, p := range []struct {
		name string
		run  func()
	}{
		{"matcher", b.matcher}, {"scan", b.scan}, {"latency", b.latencies}, {"follow", b.follow}, {"idle", b.idling}, {"host", b.host},
	} {
		if only != "" && !slices.Contains(strings.Split(only, ","), p.name) {
			continue
		}
		began := time.Now()
		p.run()
		fmt.Fprintf(os.Stderr, "bench: %s took %.0f s\n", p.name, time.Since(began).Seconds())
	}
	c := must(fs.Stat()).CPUTotal
	idle, stolen := c.Idle+c.Iowait-before.Idle-before.Iowait, c.Steal-before.Steal
	busy := c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ - before.User - before.Nice - before.System - before.IRQ - before.SoftIRQ
	fmt.Printf("While this ran the CPUs were idle for %.0f %% of the time, and %.1f %% were stolen by other machines of the same host.\n\n",
		100*idle/(idle+stolen+busy), 100*stolen/(idle+stolen+busy))

	// Markdown that can be read as it stands.
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprint(table, "| work\t| qwatch\t| against\t| ratio\t| bar\t|\t|\n|--\t|--\t|--\t|--\t|--\t|--\t|\n")
	for _, r := range b.rows {
		fmt.Fprintf(table, "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n", r.Work, r.Result, r.Against, r.Ratio, r.Bar, r.Met)
	}
	check(table.Flush())
}

func (b *bench) add(r row) { b.rows = append(b.rows, r) }

// ratio adds a row that compares two costs; a bar of 0 means that none is set.
func (b *bench) ratio(work, result, against string, got, other time.Duration, bar float64) {
	r := row{Work: work, Result: result, Against: against}
	ratio := got.Seconds() / other.Seconds()
	r.Ratio = fmt.Sprintf("%.2f", ratio)
	if ratio < 0.1 {
		r.Ratio = fmt.Sprintf("%.3f", ratio)
	}
	if bar > 0 {
		r.Bar, r.Met = fmt.Sprintf("≤ %.1f", bar), met(ratio <= bar)
	}
	b.add(r)
}

// memory adds a row for the most that was resident, in bytes.
func (b *bench) memory(work, result string, most, bar uint64) {
	b.add(row{Work: work, Result: result, Bar: fmt.Sprintf("≤ %d MiB", bar>>20), Met: met(most <= bar)})
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "MISSED"
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
