package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

// output runs a command to its end and returns what it prints.
func (b *bench) output(name string, args ...string) string {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		check(fmt.Errorf("%s: %w\n%s%s", cmd, err, out, &stderr))
	}
	return string(out)
}

// cost is what a command took; cpu is user and system time.
type cost struct{ wall, cpu time.Duration }

// median is the median of each part by itself.
func median(costs []cost) cost {
	var wall, cpu []time.Duration
	for _, c := range costs {
		wall, cpu = append(wall, c.wall), append(cpu, c.cpu)
	}
	return cost{testbed.Quantile(wall, 0.5), testbed.Quantile(cpu, 0.5)}
}

// interleave measures contenders in turn, A B C A B C, so that what else the
// machine does hits all of them, and returns the median cost of each.
func interleave(rounds, contenders int, measure func(contender int) cost) []cost {
	costs := make([][]cost, contenders)
	for range rounds {
		for i := range costs {
			costs[i] = append(costs[i], measure(i))
		}
	}
	var medians []cost
	for _, c := range costs {
		medians = append(medians, median(c))
	}
	return medians
}

// command is a command line for hyperfine(1).
type command struct {
	what string
	bar  float64 // for the ratio of qwatch to it; 0: none
	line string
	// sink is where its output goes: grep stops at the first match where that
	// is /dev/null (grep.c, dev_null_output), and cat would pay for a pipe.
	sink string
}

// hyperfine runs commands in turn and returns the median cost of each.
func (b *bench) hyperfine(rounds int, commands ...command) []cost {
	export := filepath.Join(b.dir, "hyperfine.json")
	return interleave(rounds, len(commands), func(i int) cost {
		c := commands[i]
		b.output("hyperfine", "-N", "--runs", "1", "--ignore-failure", "--output", c.sink, "--export-json", export, c.line)
		var report struct {
			Results [1]struct {
				Mean, User, System float64 // seconds
				Codes              [1]int  `json:"exit_codes"`
			}
		}
		check(json.Unmarshal(must(os.ReadFile(export)), &report))
		r := report.Results[0]
		if status := r.Codes[0]; status != 0 && status != 3 { // 3: doctor found a problem
			check(fmt.Errorf("%s: exit status %d", c.line, status))
		}
		return cost{time.Duration(r.Mean * 1e9), time.Duration((r.User + r.System) * 1e9)}
	})
}

// result is one line of what go test -bench prints.
type result struct {
	name    string
	figures map[string]float64 // by unit
	text    string             // all figures
}

// processors is what package testing puts behind a benchmark's name.
var processors = regexp.MustCompile(`-\d+$`)

// benchmarks runs go test -bench, or a binary that it made.
func (b *bench) benchmarks(name string, args ...string) (results []result) {
	for line := range strings.Lines(b.output(name, args...)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		r := result{name: processors.ReplaceAllString(strings.TrimPrefix(f[0], "Benchmark"), ""), figures: map[string]float64{}}
		for i := 2; i+1 < len(f); i += 2 {
			r.figures[f[i+1]] = must(strconv.ParseFloat(f[i], 64))
			r.text += ", " + f[i] + " " + f[i+1]
		}
		r.text = strings.TrimPrefix(r.text, ", ")
		results = append(results, r)
	}
	return results
}

// daemon is the process group of a command that runs until it is told to stop.
type daemon struct {
	*exec.Cmd
	log string // the file with what it prints
}

// start starts a command and waits until it is ready.
func (b *bench) start(name string, ready func(*daemon) bool, command ...string) *daemon {
	log := must(os.Create(filepath.Join(b.dir, name+".log")))
	defer log.Close()
	d := &daemon{exec.CommandContext(b.ctx, command[0], command[1:]...), log.Name()}
	d.Stdout, d.Stderr = log, log
	d.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	d.Cancel = func() error { return unix.Kill(-d.Process.Pid, unix.SIGTERM) }
	check(d.Start())
	if err := testbed.Until(b.ctx, time.Minute, name+" is ready", func() bool { return ready(d) }); err != nil {
		d.stop()
		check(fmt.Errorf("%w\n%s", err, must(os.ReadFile(d.log))))
	}
	return d
}

// stop asks the group to end, waits for it, and returns the CPU time that it
// took, its children's included.
func (d *daemon) stop() time.Duration {
	d.Cancel()
	d.Wait() // it may die of the signal
	return d.ProcessState.UserTime() + d.ProcessState.SystemTime()
}

// said tells whether a daemon has printed that it is ready.
func said(d *daemon) bool { return strings.Contains(string(must(os.ReadFile(d.log))), "ready") }

// usage is what a process has used so far.
type usage struct {
	cpu   time.Duration // of the threads that live, to the nanosecond (/proc/PID/task/TID/schedstat)
	ticks uint          // user and system time of all threads, 1/100 s (proc_pid_stat(5))
}

func (d *daemon) usage() (u usage) {
	for _, t := range must(procfs.AllThreads(d.Process.Pid)) {
		if s, err := t.Schedstat(); err == nil { // else it has ended
			u.cpu += time.Duration(s.RunningNanoseconds)
		}
	}
	stat := must(must(procfs.NewProc(d.Process.Pid)).Stat())
	u.ticks = stat.UTime + stat.STime
	return u
}

// used is what daemons use in a while in which nothing else is done.
func (b *bench) used(span time.Duration, daemons ...*daemon) (used []usage) {
	for _, d := range daemons {
		used = append(used, d.usage())
	}
	b.wait(span)
	for i, d := range daemons {
		now := d.usage()
		used[i] = usage{now.cpu - used[i].cpu, now.ticks - used[i].ticks}
	}
	return used
}

// wait waits, unless the run is ended.
func (b *bench) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.ctx.Done():
		check(b.ctx.Err())
	}
}
