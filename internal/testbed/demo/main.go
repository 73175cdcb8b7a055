// Command demo shows qwatch's main job on a real overflow: the same flood
// against the same uWSGI without qwatch, with it, and with a dry run, told in
// the kernel's own numbers. All of it happens in network and mount namespaces
// of its own.
//
// Usage: demo QWATCH [STANDIN], the paths of the binaries. STANDIN takes the
// place of a uWSGI that is not installed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"qwatch/internal/testbed"
)

const (
	address   = "127.0.0.1:5000"
	somaxconn = 128
	dropIn    = "/etc/sysctl.d/90-qwatch.conf"
)

// flood brings 160 clients a second to two workers that can serve about 100.
var flood = testbed.FloodOptions{Connections: 1280, Rate: 160, Request: "/?ms=20", Timeout: 8 * time.Second}

func main() {
	if err := testbed.Enter(); err != nil {
		fail(fmt.Errorf("no namespaces of our own, and nowhere else is safe for a flood: %w", err))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	d := demo{qwatch: os.Args[1]}
	if _, err := exec.LookPath("uwsgi"); err != nil && len(os.Args) > 2 {
		d.program = os.Args[2]
		fmt.Println("uWSGI is not installed: a STAND-IN plays its part, with the same socket, log line and reload.")
	}
	if err := testbed.Try(func() { d.run(ctx) }); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "demo:", err)
	os.Exit(1)
}

type demo struct{ qwatch, program string }

func (d demo) run(ctx context.Context) {
	fmt.Printf("uWSGI with 2 workers, listen = %d, somaxconn = %d. %d clients come, %.0f each second; the workers can serve about 100.\n",
		somaxconn, somaxconn, flood.Connections, flood.Rate)
	alone := d.act(ctx, "without qwatch")
	helped := d.act(ctx, "with qwatch, reload.when = \"always\"", "run")
	d.act(ctx, "with a dry run", "run", "--dry-run")
	fmt.Printf("\nThe same %d clients              without qwatch   with qwatch\n", flood.Connections)
	row := func(name string, a, b any) { fmt.Printf("  %-32s %11v   %11v\n", name, a, b) }
	row("connected at once", alone.flood.Prompt, helped.flood.Prompt)
	row("dropped by the kernel, came late", alone.flood.Delayed, helped.flood.Delayed)
	row("never connected", alone.lost(), helped.lost())
	row("slowest connect", alone.slowest(), helped.slowest())
	row("ListenOverflows", alone.overflows, helped.overflows)
}

// outcome is what one act came to.
type outcome struct {
	flood     testbed.FloodStats
	overflows int
}

func (o outcome) lost() int {
	return o.flood.Refused + o.flood.TimedOut + o.flood.Again + o.flood.Failed
}

func (o outcome) slowest() time.Duration {
	return testbed.Quantile(o.flood.Connect, 1).Round(time.Millisecond)
}

// act floods a fresh uWSGI while qwatch runs with these arguments, or none.
func (d demo) act(ctx context.Context, title string, args ...string) outcome {
	fmt.Printf("\n== %s\n", title)
	testbed.Check(testbed.SetSomaxconn(somaxconn))
	testbed.Check(os.RemoveAll(dropIn))
	dir := testbed.Must(os.MkdirTemp("", "qwatch-demo-"))
	defer os.RemoveAll(dir)
	log := filepath.Join(dir, "uwsgi.log")
	u := testbed.Must(testbed.StartUWSGI(ctx, testbed.Options{Program: d.program, Address: address, Listen: somaxconn, LogFile: log}))
	defer u.Stop()
	var judged <-chan struct{}
	if len(args) > 0 {
		said, stop := d.watch(ctx, dir, log, args)
		defer stop()
		if !slices.Contains(args, "--dry-run") {
			judged = said
		}
	}

	before := testbed.Must(testbed.ListenOverflows())
	stats := make(chan testbed.FloodStats, 1)
	go func() {
		s, _ := testbed.Flood(ctx, address, flood)
		stats <- s
	}()
	end := tell(stats, before)
	if judged != nil { // a reload is watched for ten seconds, and may outlast the flood
		select {
		case <-judged:
		case <-ctx.Done():
		}
	}
	overflows := testbed.Must(testbed.ListenOverflows()) - before
	_, limit, err := testbed.Queue(address)
	testbed.Check(err)
	fmt.Printf("  the kernel now: limit %d, somaxconn %d, %d overflows in all\n", limit, testbed.Must(testbed.Somaxconn()), overflows)
	if text, err := os.ReadFile(dropIn); err == nil {
		fmt.Printf("  %s:\n", dropIn)
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
				fmt.Print("    ", line)
			}
		}
	} else {
		fmt.Printf("  %s: not there\n", dropIn)
	}
	return outcome{end, overflows}
}

// tell prints the kernel's numbers each second until the flood is over.
func tell(stats <-chan testbed.FloodStats, overflows int) testbed.FloodStats {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for second := 1; ; second++ {
		select {
		case s := <-stats:
			return s
		case <-tick.C:
		}
		length, limit, err := testbed.Queue(address)
		testbed.Check(err)
		n := testbed.Must(testbed.ListenOverflows())
		fmt.Printf("  %2ds  queue %4d of %4d   ListenOverflows +%d/s\n", second, length, limit, n-overflows)
		overflows = n
	}
}

// verdict is how a line begins that says what a raise came to.
var verdict = regexp.MustCompile(`^(fixed|no-effect|worse) at |^no verdict: `)

// watch starts qwatch and prints what it says, until stop is called. judged is closed
// once it has said how the raise went, or that it cannot.
func (d demo) watch(ctx context.Context, dir, log string, args []string) (judged <-chan struct{}, stop func()) {
	config := filepath.Join(dir, "qwatch.toml")
	text := fmt.Sprintf("dry_run = false\nstate_dir = %q\nsocket = \"\"\n[log]\nformat = \"json\"\n[[source]]\nfiles = [%q]\n[probe]\nusers = [\"0\"]\n[policy.reload]\nwhen = \"always\"\n[metrics]\nlisten = \"\"\n",
		filepath.Join(dir, "state"), log)
	if d.program != "" {
		text = strings.Replace(text, "[probe]\n", fmt.Sprintf("[probe]\nprocesses = [%q]\n", filepath.Base(d.program)), 1)
	}
	testbed.Check(os.WriteFile(config, []byte(text), 0o644))
	cmd := exec.CommandContext(ctx, d.qwatch, append(args, "-c", config)...)
	out := testbed.Must(cmd.StderrPipe())
	testbed.Check(cmd.Start())
	ready, done, said := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var once sync.Once
		defer once.Do(func() { close(said) })
		lines := bufio.NewScanner(out)
		for first := true; lines.Scan(); first = false {
			var line struct{ Message string }
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				fmt.Println("  qwatch:", line.Message)
			}
			if verdict.MatchString(line.Message) {
				once.Do(func() { close(said) })
			}
			if first {
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
	case <-done:
		testbed.Check(fmt.Errorf("%s did not start: %v", cmd, cmd.Wait()))
	}
	return said, func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-done
		cmd.Wait()
	}
}
