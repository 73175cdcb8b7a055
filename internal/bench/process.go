package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cost is what a process took.
type cost struct {
	wall, cpu time.Duration // cpu: user and system
	rss       int64         // bytes, the most that was resident
}

// costOf runs a command to its end. Its standard output goes to out, nil stands
// for /dev/null.
func (b *bench) costOf(out *os.File, name string, args ...string) (cost, error) {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Env = plainEnv()
	if out != nil {
		cmd.Stdout = out
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	err := cmd.Run()
	c := cost{wall: time.Since(began)}
	if err != nil {
		return c, fmt.Errorf("%s: %w: %s", cmd, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return c.add(cmd.ProcessState), nil
}

// add adds the CPU time of a process that has ended.
func (c cost) add(p *os.ProcessState) cost {
	c.cpu += p.UserTime() + p.SystemTime()
	// Linux counts in KiB (getrusage(2)). It counts this program's own memory
	// too, which the child shared until it called execve, so this program
	// stays small.
	c.rss = max(c.rss, p.SysUsage().(*syscall.Rusage).Maxrss<<10)
	return c
}

// plainEnv spares the other tools what a locale costs them.
func plainEnv() []string { return append(os.Environ(), "LC_ALL=C") }

// contender is one side of a comparison.
type contender struct {
	name string
	run  func() (cost, error)
}

// command is a contender whose output is of no interest.
func (b *bench) command(label, name string, args ...string) contender {
	return contender{label, func() (cost, error) { return b.costOf(nil, name, args...) }}
}

// interleave runs the contenders in turn, so that what else happens on the
// machine hits them all, and returns the median cost of each.
func (b *bench) interleave(runs int, contenders ...contender) (map[string]cost, error) {
	all := make(map[string][]cost)
	for range runs {
		for _, c := range contenders {
			got, err := c.run()
			if err = errors.Join(err, b.ctx.Err()); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			all[c.name] = append(all[c.name], got)
		}
	}
	medians := make(map[string]cost)
	for name, costs := range all {
		medians[name] = cost{
			wall: medianOf(costs, func(c cost) time.Duration { return c.wall }),
			cpu:  medianOf(costs, func(c cost) time.Duration { return c.cpu }),
			rss:  slices.MaxFunc(costs, func(a, b cost) int { return int(a.rss - b.rss) }).rss,
		}
	}
	return medians, nil
}

func medianOf(costs []cost, of func(cost) time.Duration) time.Duration {
	var values []time.Duration
	for _, c := range costs {
		values = append(values, of(c))
	}
	return quantile(values, 0.5)
}

// quantile is the q-th quantile of some times.
func quantile(times []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// daemon is a process that runs until it is told to stop.
type daemon struct{ *exec.Cmd }

// start starts a process with these files as its standard input and its output
// (nil: /dev/null).
func (b *bench) start(in, out *os.File, name string, args ...string) (*daemon, error) {
	d := &daemon{exec.CommandContext(b.ctx, name, args...)}
	d.Env = plainEnv()
	if in != nil {
		d.Stdin = in
	}
	if out != nil {
		d.Stdout, d.Stderr = out, out
	}
	return d, d.Start()
}

// stop asks the process to end and waits for it.
func (d *daemon) stop() {
	d.Process.Signal(syscall.SIGTERM)
	d.Wait() // tail and grep die of the signal
}

// usage is what the living threads of a process have used so far.
type usage struct {
	cpu      time.Duration // to the nanosecond (/proc/PID/task/TID/schedstat)
	ticks    uint64        // utime and stime of all threads, 1/100 s (proc_pid_stat(5))
	switches uint64        // voluntary ones: how often a thread went to sleep
}

func usageOf(pid int) (usage, error) {
	var u usage
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return u, fmt.Errorf("process %d has ended", pid)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task + "/schedstat")
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ns)
		status, _ := os.ReadFile(task + "/status")
		u.switches += field(string(status), "voluntary_ctxt_switches:")
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.ticks += n
	}
	return u, nil
}

// resident is a process's memory, in bytes: now and at most.
func resident(pid int) (now, most int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return int64(field(string(text), "VmRSS:")) << 10, int64(field(string(text), "VmHWM:")) << 10, err
}

// field is the number behind a name that begins a line.
func field(text, name string) uint64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// until waits until a condition holds, at most for a while.
func until(ctx context.Context, most time.Duration, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
	return nil
}

// machine describes what this runs on.
func machine() string {
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	model := "unknown CPU"
	for line := range strings.Lines(string(cpuinfo)) {
		if rest, ok := strings.CutPrefix(line, "model name"); ok {
			model = strings.TrimSpace(strings.TrimLeft(rest, "\t :"))
			break
		}
	}
	meminfo, _ := os.ReadFile("/proc/meminfo")
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%s, %d CPUs, %d GiB of memory, Linux %s, %s, load %s.", model, runtime.NumCPU(),
		field(string(meminfo), "MemTotal:")>>20, bytes.TrimSpace(release), runtime.Version(), strings.Fields(string(load) + " ?")[0])
}

// cpuTimes are the times of all CPUs together, in ticks (proc_stat(5)).
type cpuTimes struct{ idle, steal, all uint64 }

func stolen() cpuTimes {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	var c cpuTimes
	for i, f := range strings.Fields(line)[1:] {
		n, _ := strconv.ParseUint(f, 10, 64)
		switch {
		case i == 3 || i == 4:
			c.idle += n
		case i == 7:
			c.steal = n
		case i > 7:
			continue // guests are in user and nice already
		}
		c.all += n
	}
	return c
}

func (c cpuTimes) since(before cpuTimes) string {
	all := float64(max(1, c.all-before.all))
	return fmt.Sprintf("the CPUs were idle for %.0f %% of the time, and %.1f %% were stolen by other machines of the same host",
		100*float64(c.idle-before.idle)/all, 100*float64(c.steal-before.steal)/all)
}
