package integration

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// varying are the words of doctor that differ from run to run and from host to
// host: pids, temporary directories, times and rates.
var varying = []struct {
	expression *regexp.Regexp
	by         string
}{
	{regexp.MustCompile(`(uwsgi|uWSGI) \d+`), "$1 PID"},
	{regexp.MustCompile(`\bPID \d+|process \d+\b`), "process PID"},
	{regexp.MustCompile(`/proc/\d+`), "/proc/PID"},
	{regexp.MustCompile(regexp.QuoteMeta(os.TempDir()) + `/qwatch-integration-\d+`), "/DIR"},
	{regexp.MustCompile(`\b[\d.]+(ms|s)\b`), "TIME"},
	{regexp.MustCompile(`\d+% of a CPU`), "N% of a CPU"},
	{regexp.MustCompile(`journal (yes|no)`), "journal ?"},
	{regexp.MustCompile(`(?m)^  at least \d+ connections? (?:has|have) found .*\n`), ""},
}

func steady(text string) string {
	for _, v := range varying {
		text = v.expression.ReplaceAllString(text, v.by)
	}
	return text
}

// steadyJSON has the numbers that vary set to 1.
func steadyJSON(t *testing.T, text string) string {
	t.Helper()
	d := parse(t, text)
	delete(d["can"].(object), "journal")
	for _, s := range d["sockets"].([]any) {
		s.(object)["pid"], s.(object)["netns"] = 1, 1
		for _, count := range []string{"drops", "overflows"} { // as many as the namespace has seen
			for _, of := range []any{s, s.(object)["known"], s.(object)["unseen"]} {
				if o, ok := of.(object); ok {
					delete(o, count)
				}
			}
		}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		t.Fatal(err)
	}
	return steady(b.String())
}

// doctor compares both outputs of `qwatch doctor` with the files of this name.
func doctor(t *testing.T, name string, status int, wrap ...func(*exec.Cmd)) {
	t.Helper()
	s := settings{dir: directory(t)}
	replace(t, s.file(), s.text(t))
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(binary, append([]string{"doctor", "-c", s.file()}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		for _, w := range wrap {
			w(cmd)
		}
		var words strings.Builder
		cmd.Stderr = &words
		out, err := cmd.Output()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		} else if got := cmd.ProcessState.ExitCode(); got != status || words.Len() > 0 {
			t.Errorf("doctor %v: exit status %d, want %d; it says %q", args, got, status, &words)
		}
		return string(out)
	}
	var text, object string
	var both sync.WaitGroup // each samples the queues for two seconds
	both.Go(func() { text = run() })
	both.Go(func() { object = run("--json") })
	both.Wait()
	golden(t, "doctor-"+name+".txt", steady(text))
	golden(t, "doctor-"+name+".json", steadyJSON(t, object))
}

// withFile is a uWSGI with a configuration file.
func withFile(t *testing.T, listen int) *testbed.UWSGI {
	t.Helper()
	ini := filepath.Join(directory(t), "app.ini")
	replace(t, ini, fmt.Appendf(nil, "[uwsgi]\nlisten = %d\n", listen))
	return testbed.Run(t, testbed.Options{Address: "127.0.0.1:19060", Args: []string{"--ini", ini}})
}

func TestDoctor(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		fresh(t)
		withFile(t, 100)
		doctor(t, "idle", 0)
	})
	t.Run("full", func(t *testing.T) {
		fresh(t)
		u := withFile(t, 100)
		ask(t, u, 200, 0, "/?ms=30000")
		full(t, u)
		doctor(t, "full", 3)
	})
	t.Run("raised", func(t *testing.T) { // and what a restart would give
		fresh(t)
		u := withFile(t, 100)
		q := start(t, settings{Source: u.LogFile})
		end := ask(t, u, 400, 300, "/?ms=50")
		raised(t, u, 1024)
		q.waitFor("fixed at ")
		end()
		q.kill()
		until(t, "the queue is empty", func() bool {
			length, _, err := testbed.Queue(u.Address)
			return err == nil && length == 0
		})
		doctor(t, "raised", 3)
	})
	t.Run("bomb", func(t *testing.T) { // no start would succeed
		fresh(t)
		if err := testbed.SetSomaxconn(512); err != nil {
			t.Fatal(err)
		}
		withFile(t, 512)
		if err := testbed.SetSomaxconn(testbed.StartSomaxconn); err != nil {
			t.Fatal(err)
		}
		doctor(t, "bomb", 3)
	})
	t.Run("boot", func(t *testing.T) { // brings less than what is set
		fresh(t)
		other := "/etc/sysctl.d/95-other.conf"
		t.Cleanup(func() { os.Remove(other) })
		replace(t, "/etc/sysctl.d/90-qwatch.conf", []byte("net.core.somaxconn = 1024\n"))
		replace(t, other, []byte("# of old\nnet.core.somaxconn = 256\n"))
		if err := testbed.SetSomaxconn(1024); err != nil {
			t.Fatal(err)
		}
		withFile(t, 1000)
		doctor(t, "boot", 3)
	})
	t.Run("nobody", func(t *testing.T) { // may see little, and says what
		fresh(t, "root")
		withFile(t, 100)
		doctor(t, "nobody", 3, asNobody)
	})
}
