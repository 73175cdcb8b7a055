package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"qwatch/internal/testbed"
)

// scripts runs a package's tests with qwatch itself as a command in PATH.
type scripts struct{ m *testing.M }

func (s scripts) Run() int {
	testscript.Main(s.m, map[string]func(){"qwatch": main})
	return 0 // never reached: Main exits
}

func TestMain(m *testing.M) { testbed.Main(scripts{m}) }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// The tables print local time.
			e.Setenv("TZ", "UTC")
			e.Setenv("STATE_DIRECTORY", filepath.Join(e.WorkDir, "state"))
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "noconfig" { // the default configuration file is not there
				_, err := os.Stat("/etc/qwatch/qwatch.toml")
				return err != nil, nil
			}
			thing, ok := strings.CutPrefix(name, "has:")
			if !ok {
				return false, errors.New("unknown condition " + name)
			}
			return testbed.Has(thing)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "keys": keys,
		},
	})
}

// exits runs a command and compares its exit status: exits 2 qwatch scan
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits status command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s: exit status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// keys compares the keys of each JSON object of a file, which is one a line,
// or of the first element of an array in it: keys stdout sockets[].incidents[] first last
func keys(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: keys file path key... (path: . or name[].name[])")
	}
	want := slices.Sorted(slices.Values(args[2:]))
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var value any
		ts.Check(json.Unmarshal([]byte(line), &value))
		for part := range strings.SplitSeq(args[1], ".") {
			name, array := strings.CutSuffix(part, "[]")
			if name != "" {
				value = value.(map[string]any)[name]
			}
			if array {
				value = value.([]any)[0]
			}
		}
		got := slices.Sorted(maps.Keys(value.(map[string]any)))
		if diff := cmp.Diff(want, got); diff != "" {
			ts.Fatalf("keys of %s (-want +got):\n%s", args[1], diff)
		}
	}
}
