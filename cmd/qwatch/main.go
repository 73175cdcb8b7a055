// Command qwatch watches the listen queues of uWSGI and raises the limit of
// those that overflow. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"qwatch/internal/config"
	"qwatch/internal/text"
)

// version is set by the linker (-X main.version=…).
var version = "0.1.0-dev"

// env is what a command has of the world around it.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

// Exit statuses, as users script against them.
const (
	exitFailed  = 1
	exitUsage   = 2 // bad usage or configuration
	exitProblem = 3 // doctor found a problem, or plan has something to do
)

// exit ends a command with a status; err may be nil where all is said.
type exit struct {
	status int
	err    error
	hint   string
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		// A second one ends the process whatever hangs, also as the first of a
		// container, whom a signal alone does not kill (pid_namespaces(7)).
		os.Exit(128 + int((<-signals).(syscall.Signal)))
	}()
	os.Exit(run(ctx, env{os.Stdin, os.Stdout, os.Stderr, os.Getenv}, os.Args[1:]))
}

// run is the whole command line; it returns the exit status.
func run(ctx context.Context, e env, args []string) int {
	e.stdout = text.Writer(e.stdout)
	root := newRoot(e)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var x *exit
	if !errors.As(err, &x) {
		// Only cobra's own errors, about flags and commands, come unwrapped.
		x = &exit{exitUsage, err, "see " + cmd.CommandPath() + " --help"}
	}
	if x.err != nil {
		printError(text.Writer(e.stderr), x)
	}
	return x.status
}

func printError(w io.Writer, x *exit) {
	var bad config.Errors
	if errors.As(x.err, &bad) {
		for _, one := range bad {
			fmt.Fprintf(w, "qwatch: error: %s\n", one.Title())
			if one.Excerpt != "" {
				fmt.Fprintln(w, one.Excerpt)
			}
			if one.Hint != "" {
				fmt.Fprintf(w, "qwatch: hint: %s\n", one.Hint)
			}
		}
		return
	}
	fmt.Fprintf(w, "qwatch: error: %v\n", x.err)
	if x.hint != "" {
		fmt.Fprintf(w, "qwatch: hint: %s\n", x.hint)
	}
}

func newRoot(e env) *cobra.Command {
	root := &cobra.Command{
		Use:   "qwatch",
		Short: "Watch uWSGI's listen queues and raise the limit of those that overflow",
		Long: `qwatch reads uWSGI's logs and the kernel's own numbers. Where the listen queue
of a uWSGI is full, it raises net.core.somaxconn and the limit of the running
socket as far as its configuration allows, and proves from the kernel that it
worked. Without a configuration it changes nothing (a dry run).`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.AddCommand(newRun(e), newScan(e), newDoctor(e), newPlan(e), newApply(e), newUndo(e), newStatus(e), newCheck(e), newVersion(e), newMan(e))
	return root
}
