// Command bench measures what docs/performance.md shows: qwatch beside the
// tools that people would use instead, interleaved in one run, as medians with
// their ratios and the bars that they are held to.
//
// Usage: bench [-short] [-only PART[,PART...]] [-qwatch BINARY]. The parts are
// matcher, scan, follow, latency, idle and host.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"qwatch/internal/testbed"
)

// bench is one run.
type bench struct {
	ctx    context.Context
	qwatch string // the binary
	dir    string // for the data, deleted at the end

	runs    int           // of each contender
	logSize int64         // bytes, of the log that is scanned
	span    time.Duration // of following
	idle    time.Duration
	probing time.Duration
	latency int // lines
	rows    []row
}

// row is one line of the table.
type row struct {
	Work, Result, Against, Ratio, Bar, Met string
}

func main() {
	short := flag.Bool("short", false, "fewer and shorter runs, to see that it works")
	only := flag.String("only", "", "only these `parts`")
	qwatch := flag.String("qwatch", "dist/qwatch", "the `binary` to measure")
	inside := flag.Bool("inside", false, "measure the part host, in namespaces, and print its rows as JSON (bench runs itself like this)")
	connections := flag.Int("connect", 0, "hold this many connections (bench runs itself like this)")
	flag.Parse()
	if *connections > 0 {
		fail(connect(*connections))
	}
	if *inside {
		if err := testbed.Enter(); err != nil {
			fail(err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{
		ctx: ctx, runs: 5, logSize: 1 << 30, span: 20 * time.Second, idle: time.Minute,
		probing: 30 * time.Second, latency: 1000,
	}
	if *short {
		b.runs, b.logSize, b.span, b.idle, b.probing, b.latency = 3, 128<<20, 8*time.Second, 5*time.Second, 5*time.Second, 200
	}
	var err error
	if b.qwatch, err = filepath.Abs(*qwatch); err != nil {
		fail(err)
	}
	if b.dir, err = os.MkdirTemp("", "qwatch-bench-"); err != nil {
		fail(err)
	}
	if *inside {
		err = b.hostInside()
	} else {
		err = b.all(*only, *short)
	}
	if err := errors.Join(err, os.RemoveAll(b.dir)); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func (b *bench) all(only string, short bool) error {
	if _, err := os.Stat(b.qwatch); err != nil {
		return fmt.Errorf("%w; build it first (make bench does)", err)
	}
	parts := []struct {
		name string
		run  func() error
	}{
		{"matcher", b.matcher}, {"scan", b.scan}, {"latency", b.delivery}, {"follow", b.follow},
		{"idle", b.idling}, {"host", func() error { return b.host(short) }},
	}
	fmt.Println(machine())
	before := stolen()
	for _, p := range parts {
		if only != "" && !slices.Contains(strings.Split(only, ","), p.name) {
			continue
		}
		began := time.Now()
		if err := p.run(); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %.0f s\n", p.name, time.Since(began).Seconds())
	}
	fmt.Printf("While this ran %s.\n\n", stolen().since(before))
	printTable(os.Stdout, b.rows)
	return nil
}

func (b *bench) add(r row) { b.rows = append(b.rows, r) }

// ratio adds a row that compares two costs; a bar of 0 means that none is set.
func (b *bench) ratio(work, result, against string, got, other time.Duration, bar float64) {
	r := row{Work: work, Result: result, Against: against}
	ratio := float64(got) / float64(other)
	r.Ratio = fmt.Sprintf("%.2f", ratio)
	if ratio < 0.1 {
		r.Ratio = fmt.Sprintf("%.3f", ratio)
	}
	if bar > 0 {
		r.Bar, r.Met = fmt.Sprintf("≤ %.1f", bar), met(ratio <= bar)
	}
	b.add(r)
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "MISSED"
}

// printTable prints Markdown that can be read as it stands.
func printTable(w *os.File, rows []row) {
	table := [][]string{{"work", "qwatch", "against", "ratio", "bar", ""}, {"--", "--", "--", "--", "--", "--"}}
	for _, r := range rows {
		table = append(table, []string{r.Work, r.Result, r.Against, r.Ratio, r.Bar, r.Met})
	}
	width := make([]int, 6)
	for _, cells := range table {
		for i, c := range cells {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for n, cells := range table {
		for i, c := range cells {
			pad := " "
			if n == 1 {
				pad = "-"
			}
			fmt.Fprintf(w, "|%s%s%s%s", pad, c, strings.Repeat(pad, width[i]-len([]rune(c))), pad)
		}
		fmt.Fprintln(w, "|")
	}
}

// have says whether a command is there; a contender that is not is left out.
func have(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}
