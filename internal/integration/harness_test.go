package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/prometheus/procfs"

	"qwatch/internal/testbed"
)

// binary is the path of the qwatch that TestMain built, binaryEnv tells it to the
// children that run the tests.
var binary = os.Getenv(binaryEnv)

const binaryEnv = "QWATCH_INTEGRATION_BINARY"

type suite struct{ m *testing.M }

func TestMain(m *testing.M) { testbed.MainAlone(suite{m}) }

// Run builds qwatch, and runs the tests.
func (s suite) Run() int {
	if binary != "" {
		return s.m.Run()
	}
	var err error
	if binary, err = testbed.Build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(filepath.Dir(binary))
	os.Setenv(binaryEnv, binary)
	return testbed.Shared(s.m, 4).Run()
}

// patience is how long the tests wait for what must come but is not timed: the
// machine may be busy with something else.
const patience = time.Minute

// until waits for what the kernel, uWSGI or qwatch do in their own time.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if err := testbed.Until(t.Context(), patience, what, ok); err != nil {
		t.Fatal(err)
	}
}

// stopwatch begins to measure what a process takes. The time in which its
// threads were ready to run and waited for a CPU is left out: that is the
// machine's, which may have other work.
func stopwatch(pid int) (took func() time.Duration) {
	begin, before := time.Now(), waited(pid)
	most := before
	return func() time.Duration {
		most = max(most, waited(pid)) // 0 where it has ended
		return time.Since(begin) - (most - before)
	}
}

// waited is how long the threads of a process have waited for a CPU so far.
func waited(pid int) (sum time.Duration) {
	threads, _ := procfs.AllThreads(pid)
	for _, thread := range threads {
		if s, err := thread.Schedstat(); err == nil { // else it has ended
			sum += time.Duration(s.WaitingNanoseconds)
		}
	}
	return sum
}

// wantAtMost compares a time with the most that it may be.
func wantAtMost(t *testing.T, what string, took, most time.Duration) {
	t.Helper()
	if t.Logf("%s took %v", what, took.Round(time.Millisecond)); took > most {
		t.Errorf("%s took %v, want at most %v", what, took, most)
	}
}

// settings are the parts of a configuration in which the tests differ.
type settings struct {
	DryRun    bool
	Source    string   // the log that is followed, "": none
	More      []string // globs of further sources
	Probe     string   // interval; "": off
	Threshold int      // 0: 1
	Quiet     string   // "": 60s
	Max       int      // 0: 8192
	Cooldown  string   // between raises; "": 1h
	MaxWait   string   // "": 1h, for a flood that holds its connections looks like any overload
	Policy    string   // one more line of [policy]
	Reload    string   // when; "": never
	How       string   // to reload; "": auto
	Metrics   string
	SysctlDir string   // "": /etc/sysctl.d
	Stats     []string // addresses of stats servers
	Users     []string // whom qwatch trusts

	dir string
}

func (s settings) StateDir() string { return filepath.Join(s.dir, "state") }
func (s settings) Socket() string   { return filepath.Join(s.dir, "qwatch.sock") }
func (s settings) file() string     { return filepath.Join(s.dir, "qwatch.toml") }

var configText = template.Must(template.New("").Parse(`
dry_run = {{.DryRun}}
state_dir = "{{.StateDir}}"
socket = "{{.Socket}}"
[log]
format = "json"
{{with .Source}}[[source]]
files = ["{{.}}"]
{{end}}{{range .More}}[[source]]
files = ["{{.}}"]
{{end}}{{range .Stats}}[[source]]
stats = "{{.}}"
{{end}}[probe]
interval = "{{or .Probe "0s"}}"
users = [{{range .Users}}"{{.}}",{{end}}]
[group]
threshold = {{or .Threshold 1}}
quiet = "{{or .Quiet "60s"}}"
[policy]
max_backlog = {{or .Max 8192}}
cooldown = "{{or .Cooldown "1h"}}"
max_wait = "{{or .MaxWait "1h"}}"
{{.Policy}}
[policy.sysctl]
file = "{{or .SysctlDir "/etc/sysctl.d"}}/90-qwatch.conf"
[policy.reload]
when = "{{or .Reload "never"}}"
how = "{{or .How "auto"}}"
timeout = "30s"
[metrics]
listen = "{{.Metrics}}"
`))

func (s settings) text(t *testing.T) []byte {
	t.Helper()
	if root, err := testbed.Has("root"); err == nil && !root { // and no executable is root's
		s.Users = append(s.Users, "0")
	}
	var b bytes.Buffer
	if err := configText.Execute(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// replace puts text in the place of a file, as an editor does.
func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	err := os.WriteFile(path+".new", text, 0o644)
	if err = errors.Join(err, os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// fresh makes the namespace as it was before any test: somaxconn is
// testbed.StartSomaxconn, and no sysctl.d file is there.
func fresh(t *testing.T, needs ...string) {
	t.Helper()
	testbed.Needs(t, append([]string{"namespace", "uwsgi", "ss"}, needs...)...)
	again := func() {
		os.Remove("/etc/sysctl.d/90-qwatch.conf")
		if err := testbed.SetSomaxconn(testbed.StartSomaxconn); err != nil {
			t.Error(err)
		}
	}
	again()
	t.Cleanup(again)
}

// directory is a temporary directory that every user can enter.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qwatch-integration-")
	if err = errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// qwatch is a running `qwatch run`.
type qwatch struct {
	settings
	t    *testing.T
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start runs the daemon and returns when it is ready. wrap may change the
// command before it starts.
func start(t *testing.T, s settings, wrap ...func(*exec.Cmd)) *qwatch {
	t.Helper()
	if s.dir == "" {
		s.dir = directory(t)
	}
	replace(t, s.file(), s.text(t))
	q := launch(t, s, wrap...)
	until(t, "qwatch is ready", func() bool { return q.said("is ready") || q.ended() })
	if q.ended() {
		t.Fatalf("qwatch ended: %v", q.cmd.ProcessState)
	}
	return q
}

func launch(t *testing.T, s settings, wrap ...func(*exec.Cmd)) *qwatch {
	t.Helper()
	q := &qwatch{settings: s, t: t, done: make(chan struct{})}
	log, err := os.CreateTemp(s.dir, "log-")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	q.log = log.Name()
	q.cmd = exec.Command(binary, "run", "-c", s.file())
	q.cmd.Stderr = log
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, w := range wrap {
		w(q.cmd)
	}
	if err := q.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { q.cmd.Wait(); close(q.done) }()
	t.Cleanup(func() {
		q.kill()
		if t.Failed() {
			t.Logf("log of qwatch:\n%s", q.text())
		}
	})
	return q
}

func (q *qwatch) kill() {
	q.cmd.Process.Kill()
	<-q.done
}

func (q *qwatch) ended() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

func (q *qwatch) text() string {
	text, _ := os.ReadFile(q.log)
	return string(text)
}

// lines are the log's lines with words in their message.
func (q *qwatch) lines(words string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(q.text()) {
		var l map[string]any
		if json.Unmarshal([]byte(line), &l) == nil && strings.Contains(fmt.Sprint(l["message"]), words) {
			found = append(found, l)
		}
	}
	return found
}

func (q *qwatch) said(words string) bool { return len(q.lines(words)) > 0 }

// waitFor waits for a line with these words and returns the newest.
func (q *qwatch) waitFor(words string) map[string]any {
	q.t.Helper()
	until(q.t, fmt.Sprintf("qwatch says %q", words), func() bool { return q.said(words) })
	l := q.lines(words)
	return l[len(l)-1]
}

// advised waits for an advice with these words.
func (q *qwatch) advised(words string) {
	q.t.Helper()
	until(q.t, fmt.Sprintf("an advice of %q", words), func() bool {
		return slices.ContainsFunc(q.lines("advice"), func(l map[string]any) bool { return strings.Contains(l["message"].(string), words) })
	})
}

// stop sends a signal and compares how qwatch ends: status 0 within 2 s.
func (q *qwatch) stop(s syscall.Signal) {
	q.t.Helper()
	took := stopwatch(q.cmd.Process.Pid)
	if err := q.cmd.Process.Signal(s); err != nil {
		q.t.Fatal(err)
	}
	until(q.t, "qwatch ends", func() bool { took(); return q.ended() })
	wantAtMost(q.t, s.String(), took(), 2*time.Second)
	if status := q.cmd.ProcessState.ExitCode(); status != 0 {
		q.t.Errorf("%v: exit status %d, want 0", s, status)
	}
	if !q.said("qwatch has stopped") {
		q.t.Errorf("%v: no word of farewell", s)
	}
}

// event is a line of the audit trail.
type event struct {
	Time                   time.Time
	Plan, Incident, Socket string
	Action, Target         string
	From, To               *int
	DryRun                 bool `json:"dry_run"`
	Result, Error, Why     string
	PID                    int
}

func (e event) String() string {
	s := e.Action + " " + e.Result
	if e.To != nil && e.Action != "judge" {
		s = fmt.Sprintf("%s %d→%d %s", e.Action, *e.From, *e.To, e.Result)
	}
	return s
}

// trail is the audit trail; every line of it must be whole.
func (s settings) trail(t *testing.T) []event {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.StateDir(), "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var events []event
	for line := range strings.Lines(string(text)) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("audit trail: %v in %q", err, line)
		}
		events = append(events, e)
	}
	return events
}

// recorded tells whether the trail holds an event with this action and result.
func (s settings) recorded(t *testing.T, action, result string) bool {
	return slices.ContainsFunc(s.trail(t), func(e event) bool { return e.Action == action && e.Result == result })
}

// limit is the socket's limit as ss(8) shows it.
func limit(t *testing.T, u *testbed.UWSGI) int {
	t.Helper()
	_, n, err := testbed.Queue(u.Address)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// full waits until the socket's accept queue is full by ss(8).
func full(t *testing.T, u *testbed.UWSGI) {
	t.Helper()
	until(t, u.Address+" is full", func() bool {
		length, most, err := testbed.Queue(u.Address)
		return err == nil && length > most
	})
}

func wantLimit(t *testing.T, u *testbed.UWSGI, want int) {
	t.Helper()
	if got := limit(t, u); got != want {
		t.Errorf("limit of %s = %d, want %d", u.Address, got, want)
	}
}

func raised(t *testing.T, u *testbed.UWSGI, want int) {
	t.Helper()
	until(t, fmt.Sprintf("the limit of %s is %d", u.Address, want), func() bool { return limit(t, u) == want })
}

func wantSomaxconn(t *testing.T, want int) {
	t.Helper()
	if got, err := testbed.Somaxconn(); err != nil || got != want {
		t.Errorf("somaxconn = %d, %v; want %d", got, err, want)
	}
}

func workers(t *testing.T, u *testbed.UWSGI) []int {
	t.Helper()
	pids, err := u.Workers()
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// reloads counts the graceful reloads in uWSGI's log.
func reloads(u *testbed.UWSGI) int {
	return strings.Count(u.Log(), "gracefully (RE)spawned uWSGI master process")
}

// uwsgi starts one with two workers that give a silent client a second.
func uwsgi(t *testing.T, o testbed.Options) *testbed.UWSGI {
	t.Helper()
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	if o.Listen == 0 {
		o.Listen = 100
	}
	o.Args = append(o.Args, "--socket-timeout", "1")
	return testbed.Run(t, o)
}

// flood holds connections, begun at a rate per second, until the test or
// the returned function ends it.
func flood(t *testing.T, u *testbed.UWSGI, connections int, rate float64) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		testbed.Flood(ctx, u.Address, testbed.FloodOptions{Connections: connections, Rate: rate, Timeout: time.Minute})
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// record is the line that uWSGI writes about a full queue.
func record(u *testbed.UWSGI, length, limit int) string {
	return fmt.Sprintf("%s - *** uWSGI listen queue of socket %q (fd: 3) full !!! (%d/%d) ***\n",
		time.Now().Format(time.ANSIC), u.Address, length, limit)
}
