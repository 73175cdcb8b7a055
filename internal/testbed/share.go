package testbed

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Shared is an m whose top-level tests run in children of this process, each in
// namespaces and with a TMPDIR of its own, and at most so many at once: they wait
// for uWSGI more than they work. It is for Main and MainAlone, and go test sees no
// difference. With a flag like -run, -bench, -coverprofile or -shuffle, whose
// result would have to be put together from all children's, the tests run in this
// process, one after the other, as m runs them.
func Shared(m interface{ Run() int }, most int) interface{ Run() int } { return shared{m, most} }

type shared struct {
	m    interface{ Run() int }
	most int
}

// passedOn are the flags of a test binary that mean for each test what they mean
// for all.
var passedOn = []string{"test.v", "test.count", "test.cpu", "test.parallel", "test.short",
	"test.fullpath", "test.paniconexit0", timeoutFlag, logFlag}

const (
	timeoutFlag = "test.timeout"
	logFlag     = "test.testlogfile" // what go test's cache must know of
)

func (s shared) Run() int {
	flag.Parse()
	alone := os.Getenv(stateEnv) != entered || testing.CoverMode() != ""
	flag.Visit(func(f *flag.Flag) { alone = alone || !slices.Contains(passedOn, f.Name) })
	if alone {
		return s.m.Run()
	}
	failed := true
	err := Try(func() { failed = newShares().run(Must(tests()), s.most) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed: running the tests beside each other:", err)
	}
	frame := ""
	if flag.Lookup("test.v").Value.String() == "test2json" {
		frame = "\x16" // testing's marker
	}
	if failed {
		fmt.Println(frame + "FAIL")
		return 1
	}
	fmt.Println(frame + "PASS")
	return 0
}

// tests are the names of all tests of this binary, in their order.
func tests() (names []string, err error) {
	cmd := exec.Command("/proc/self/exe", "-test.list=^(Test|Example|Fuzz)")
	cmd.Args[0], cmd.Stderr = os.Args[0], os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tests: %w", err)
	}
	return strings.Fields(string(out)), nil
}

// shares are the children of one process.
type shares struct {
	deadline time.Time // zero: none
	log      string    // "": none is asked for
	dir      string    // of the children's temporary files

	mu     sync.Mutex // held for what follows, and to print
	failed bool
	logged []byte
}

func newShares() *shares {
	s := &shares{log: flag.Lookup(logFlag).Value.String()}
	if d := flag.Lookup(timeoutFlag).Value.(flag.Getter).Get().(time.Duration); d > 0 {
		s.deadline = time.Now().Add(d)
	}
	return s
}

// run runs the tests, and prints what each says when it has ended.
func (s *shares) run(names []string, most int) (failed bool) {
	s.dir = Must(os.MkdirTemp("", "shares-"))
	defer os.RemoveAll(s.dir)
	Check(os.Chmod(s.dir, 0o755)) // for uWSGIs of other users
	next := make(chan string)
	var running sync.WaitGroup
	for range most {
		running.Go(func() {
			runtime.LockOSThread() // Pdeathsig follows the thread (prctl(2))
			for name := range next {
				s.test(name)
			}
		})
	}
	for _, name := range names {
		next <- name
	}
	close(next)
	running.Wait()
	if s.log != "" {
		Check(os.WriteFile(s.log, append([]byte(logHead), s.logged...), 0o666))
	}
	return s.failed
}

// test runs one test in a child.
func (s *shares) test(name string) {
	args := append(slices.Clone(os.Args[1:]), "-test.run=^"+name+"$")
	if !s.deadline.IsZero() {
		args = append(args, fmt.Sprintf("-%s=%v", timeoutFlag, max(time.Until(s.deadline), time.Millisecond)))
	}
	temp, log := filepath.Join(s.dir, name), filepath.Join(s.dir, name+".log")
	if s.log != "" {
		args = append(args, "-"+logFlag+"="+log)
	}
	cmd := inNamespaces(args)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second // for what it has left behind
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	err := os.Mkdir(temp, 0o700)
	if err = errors.Join(err, os.Chmod(temp, 0o777|os.ModeSticky)); err == nil {
		err = cmd.Run()
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range bytes.Lines(out.Bytes()) {
		// The last word of all comes from this process.
		if word := strings.Trim(string(line), "\x16\n"); word != "PASS" && word != "FAIL" {
			os.Stdout.Write(line)
		}
	}
	if err != nil {
		s.failed = true
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			fmt.Printf("testbed: %s: %v\n", name, err) // a test that just fails has said so
		}
	}
	s.logged = append(s.logged, readLog(log)...)
}

const logHead = "# test log\n" // cmd/go/internal/test, testlogMagic

// readLog is what a child has logged, as it is put behind another child's.
func readLog(file string) []byte {
	text, _ := os.ReadFile(file) // none is asked for, or it was killed
	text = bytes.TrimPrefix(text, []byte(logHead))
	if here, err := os.Getwd(); err == nil && len(text) > 0 {
		text = append([]byte("chdir "+here+"\n"), text...)
	}
	return text
}
