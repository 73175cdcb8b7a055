package hostile

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/testbed"
)

// binaryEnv has the path of the qwatch that was built. It is set where a scene
// runs, which is in a child of the test that was called.
const binaryEnv = "QWATCH_HOSTILE_BINARY"

// atOnce is how many scenes run at the same time: most of them wait.
const atOnce = 5

type suite struct{ m *testing.M }

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); {
	case role != "":
		play(role)
	case os.Getenv(binaryEnv) != "":
		testbed.MainAlone(m)
	default:
		testbed.Main(suite{m})
	}
}

// Run builds qwatch, and runs the tests.
func (s suite) Run() int {
	binary, err := testbed.Build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(filepath.Dir(binary))
	os.Setenv(binaryEnv, binary)
	flag.Parse()
	flag.Set("test.parallel", fmt.Sprint(atOnce))
	outermost = true
	return s.m.Run()
}

// outermost is true in the process that starts a child for each scene.
var outermost bool

// TestHostile runs the scenes.
func TestHostile(t *testing.T) {
	testbed.Needs(t, "namespace", "root", "uwsgi", "ss", "setpriv")
	var times tally
	t.Cleanup(func() { times.report(t) })
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			testbed.Needs(t, s.needs...)
			if !outermost {
				s.run(t)
				return
			}
			t.Parallel()
			took := inChild(t, s.name)
			if s.within == 0 {
				times.add(s.name, took)
			}
		})
	}
}

// inChild runs one scene in a child of this process, and returns how long the
// raise took there.
func inChild(t *testing.T, name string) time.Duration {
	runtime.LockOSThread() // Pdeathsig follows the thread (prctl(2))
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.timeout=2m", "-test.run=^TestHostile$/^"+name+"$")
	cmd.Args[0] = os.Args[0]
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "QWATCH_TESTBED=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	said := raisedAfter.FindStringSubmatch(out.String())
	switch {
	case err != nil:
		t.Errorf("%v\n%s", err, &out)
		return 0
	case said == nil:
		t.Errorf("the scene did not run:\n%s", &out)
		return 0
	}
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, " took ") || strings.Contains(line, "RSS") {
			t.Log(strings.TrimSpace(line))
		}
	}
	took, err := time.ParseDuration(said[1])
	if err != nil {
		t.Error(err)
	}
	return took
}

var raisedAfter = regexp.MustCompile(`the raise took (\S+)`)

// tally keeps how long the raise of the trusted uWSGI took, without an attack and
// with.
type tally struct {
	sync.Mutex
	calm, attacked []time.Duration
}

func (c *tally) add(scene string, took time.Duration) {
	c.Lock()
	defer c.Unlock()
	if strings.HasPrefix(scene, "calm") {
		c.calm = append(c.calm, took)
	} else {
		c.attacked = append(c.attacked, took)
	}
}

func (c *tally) report(t *testing.T) {
	if !outermost || len(c.attacked) == 0 {
		return
	}
	t.Logf("from the overflow to the raise: median %v without an attack (%d), %v with (%d), at most %v",
		testbed.Quantile(c.calm, 0.5), len(c.calm), testbed.Quantile(c.attacked, 0.5), len(c.attacked), testbed.Quantile(c.attacked, 1))
}
