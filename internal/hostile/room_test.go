package hostile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/procfs"

	"qwatch/internal/testbed"
)

// What every scene holds qwatch to.
const (
	readyWithin = 5 * time.Second
	raiseWithin = 5 * time.Second  // uWSGI says once a second that its queue is full; 1 s on an idle machine
	endWithin   = 6 * time.Second  // a source is waited for 5 s
	toolWithin  = 10 * time.Second // doctor, plan and scan
	maxRSS      = 128 << 10        // KiB; the packaged service may have 256 MiB
	maxSaid     = 256 << 10        // bytes of the log in the time of a scene
)

// scene is one attack.
type scene struct {
	name   string
	needs  []string
	config string        // more of the configuration
	before func(r *room) // qwatch starts
	ready  func(r *room) // it is, and the trusted uWSGI is not overrun yet
	raised func(r *room) // it has done its work
	hangs  bool          // a source of it: READY waits 20 s for it, and one SIGTERM need not suffice
	within time.Duration // the raise; 0: raiseWithin
	noScan bool          // it has more than is read in a test
}

// room is where a scene plays.
type room struct {
	t       *testing.T
	scene   scene
	dir     string // root's
	app     string // where the trusted uWSGI's log is
	evil    string // the stranger's folder, whose logs are followed
	secret  string // a file of root's that nobody else may read
	program string // the stranger's
	uwsgi   *testbed.UWSGI
	qwatch  *exec.Cmd
	ended   chan struct{}
}

// secretText stands in the file that only root may read.
const secretText = "root:$6$uSXk3tJ0Qp1vR9bYw2LmZc:19000:0:99999:7:::"

// metrics is where the daemon shows them.
const metrics = "127.0.0.1:9918"

func newRoom(t *testing.T, s scene) *room {
	dir, err := os.MkdirTemp("", "qwatch-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &room{
		t: t, scene: s, dir: dir, app: dir + "/app", evil: dir + "/evil", secret: dir + "/secret",
		program: dir + "/evil/bin/uwsgi", ended: make(chan struct{}),
	}
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(r.app, 0o755), os.Mkdir(r.evil, 0o755), os.Mkdir(r.evil+"/bin", 0o755),
		os.WriteFile(r.secret, []byte(secretText+"\n"), 0o600), os.WriteFile(dir+"/qwatch.toml", []byte(r.config()), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	r.own(r.evil)
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	copied, err := os.OpenFile(r.program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(copied, self)
	if err = errors.Join(err, copied.Close()); err != nil {
		t.Fatal(err)
	}
	r.own(r.program)
	r.uwsgi = testbed.Run(t, testbed.Options{Address: "127.0.0.1:0", Listen: 100, LogFile: r.app + "/real.log", Args: []string{"--socket-timeout", "1"}})
	return r
}

func (r *room) config() string {
	return fmt.Sprintf(`
dry_run = false
state_dir = "%[1]s/state"
socket = "%[1]s/qwatch.sock"
[log]
format = "json"
[[source]]
files = ["%[1]s/app/*.log"]
[[source]]
files = ["%[1]s/evil/*.log"]
%[2]s
[group]
threshold = 1
[policy]
max_wait = "1h"
[policy.reload]
when = "always"
[metrics]
listen = "%[3]s"
`, r.dir, strings.ReplaceAll(r.scene.config, "DIR", r.dir), metrics)
}

// command is qwatch with the capabilities that its service has.
func (r *room) command(args ...string) *exec.Cmd {
	cmd := exec.Command("setpriv", "--bounding-set=-all,+net_admin,+sys_ptrace,+dac_read_search,+kill", "--inh-caps=-all", os.Getenv(binaryEnv))
	if cmd.Args = append(cmd.Args, args...); args[0] != "scan" {
		cmd.Args = append(cmd.Args, "-c", r.dir+"/qwatch.toml")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (r *room) until(what string, ok func() bool) {
	r.t.Helper()
	if err := testbed.Until(r.t.Context(), 40*time.Second, what, ok); err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) wantAtMost(what string, took, most time.Duration) {
	r.t.Helper()
	if r.t.Logf("%s took %v", what, took.Round(time.Millisecond)); took > most {
		r.t.Errorf("%s took %v, want at most %v", what, took, most)
	}
}

// run plays the scene.
func (s scene) run(t *testing.T) {
	r := newRoom(t, s)
	if s.before != nil {
		s.before(r)
	}
	r.start()
	if r.scene.ready != nil { // which before may have set
		r.scene.ready(r)
	}
	r.overrun()
	r.ask()
	if s.raised != nil {
		s.raised(r)
	}
	r.stop()
	log := r.read("log")
	if len(log) > maxSaid {
		r.t.Errorf("the log has %d bytes, want at most %d:\n%.2000s", len(log), maxSaid, log)
	}
	r.clean("log", log)
	r.clean("audit.jsonl", strings.TrimLeft(r.read("state/audit.jsonl"), "\x00"))
	// It has names as those of the files are, and text by which to know them again.
	if info, err := os.Stat(r.dir + "/state/positions.json"); !s.hangs && (err != nil || info.Mode().Perm() != 0o600) {
		r.t.Errorf("positions.json: %v, %v; want it for its owner alone", info, err)
	}
}

// stopwatch begins to measure what a process takes. The longest time that one of
// its threads waited for a CPU is left out: that is the machine's, whose work the
// other scenes are.
func stopwatch(pid int) (took func() time.Duration) {
	begin, before, most := time.Now(), waited(pid), time.Duration(0)
	return func() time.Duration {
		for thread, ns := range waited(pid) { // none once it has ended
			most = max(most, time.Duration(ns-before[thread]))
		}
		return time.Since(begin) - most
	}
}

// waited is how long each thread of a process has waited for a CPU so far.
func waited(pid int) map[int]uint64 {
	waits := map[int]uint64{}
	threads, _ := procfs.AllThreads(pid)
	for _, thread := range threads {
		if s, err := thread.Schedstat(); err == nil {
			waits[thread.PID] = s.WaitingNanoseconds
		}
	}
	return waits
}

// read reads the beginning of a file of the room.
func (r *room) read(name string) string {
	f, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, 64<<20))
	return string(text)
}

// start starts the daemon and waits until it is ready.
func (r *room) start() {
	r.t.Helper()
	log, err := os.OpenFile(r.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	before := strings.Count(r.read("log"), "is ready")
	r.qwatch, r.ended = r.command("run"), make(chan struct{})
	cmd, ended := r.qwatch, r.ended
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { cmd.Wait(); close(ended) }()
	r.t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if r.t.Failed() {
			r.t.Logf("log of qwatch:\n%.20000s", r.read("log"))
		}
	})
	took := stopwatch(cmd.Process.Pid)
	r.until("qwatch is ready", func() bool {
		took()
		return strings.Count(r.read("log"), "is ready") > before || r.hasEnded()
	})
	if r.hasEnded() {
		r.t.Fatalf("qwatch ended: %v", cmd.ProcessState)
	}
	within := readyWithin
	if r.scene.hangs {
		within += 20 * time.Second
	}
	r.wantAtMost("to be ready", took(), within)
}

func (r *room) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// overrun fills the queue of the trusted uWSGI and waits until that is raised.
func (r *room) overrun() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		testbed.Flood(ctx, r.uwsgi.Address, testbed.FloodOptions{Connections: 400, Timeout: time.Minute})
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	took := stopwatch(r.qwatch.Process.Pid)
	r.until("the limit of the trusted uWSGI is raised", func() bool {
		took()
		_, limit, err := testbed.Queue(r.uwsgi.Address)
		return err == nil && limit == 1024 || r.hasEnded()
	})
	if r.hasEnded() {
		r.t.Fatalf("qwatch ended: %v", r.qwatch.ProcessState)
	}
	r.wantAtMost("the raise", took(), cmp.Or(r.scene.within, raiseWithin))
}

// ask asks the daemon, and runs each command that looks for itself.
func (r *room) ask() {
	r.t.Helper()
	client := http.Client{Timeout: toolWithin}
	var text []byte
	r.until("the metrics can be read", func() bool {
		answer, err := client.Get("http://" + metrics + "/metrics")
		if err != nil {
			return false // a port that was taken is tried again
		}
		defer answer.Body.Close()
		text, err = io.ReadAll(answer.Body)
		return err == nil && answer.StatusCode == http.StatusOK
	})
	if !strings.Contains(string(text), "qwatch_") {
		r.t.Errorf("metrics: %.300s", text)
	}
	r.clean("metrics", string(text))
	var all sync.WaitGroup
	commands := []string{"status", "doctor", "plan"}
	if r.scene.name == "names" {
		commands = append(commands, "status --json", "doctor --json", "plan --json")
	}
	if !r.scene.noScan {
		commands = append(commands, "scan "+r.app+" "+r.evil)
	}
	for _, args := range commands {
		all.Go(func() { r.tool(strings.Fields(args)...) })
	}
	all.Wait()
}

// tool runs a command of qwatch's and returns what it prints.
func (r *room) tool(args ...string) string {
	r.t.Helper()
	cmd := r.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		r.t.Error(err)
		return ""
	}
	took, rss := stopwatch(cmd.Process.Pid), 0
	late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	ended := make(chan error)
	go func() { ended <- cmd.Wait() }()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case <-tick.C:
			took()
			rss = max(rss, peak(cmd.Process.Pid))
			continue
		case <-ended:
		}
		break
	}
	name := "qwatch " + args[0]
	r.wantAtMost(name, took(), toolWithin)
	if status := cmd.ProcessState.ExitCode(); status != 0 && status != 1 && status != 3 {
		r.t.Errorf("%s: %v\n%.3000s", name, cmd.ProcessState, &out)
	}
	if r.t.Logf("%s: %d KiB RSS", name, rss); rss > maxRSS {
		r.t.Errorf("%s: %d KiB RSS, want at most %d", name, rss, maxRSS)
	}
	r.clean(name, out.String())
	return out.String()
}

// peak is the most memory that a process had at a time, in KiB; 0 once it has
// ended.
func peak(pid int) (rss int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Sscan(after, &rss)
	return rss
}

// stop compares what the daemon has taken, and how it ends.
func (r *room) stop() {
	r.t.Helper()
	pid := r.qwatch.Process.Pid
	rss := peak(pid)
	if rss == 0 || r.hasEnded() {
		r.t.Fatalf("qwatch ended: %v", r.qwatch.ProcessState)
	}
	if r.t.Logf("qwatch run: %d KiB RSS", rss); rss > maxRSS {
		r.t.Errorf("qwatch run: %d KiB RSS, want at most %d", rss, maxRSS)
	}
	r.qwatch.Process.Signal(syscall.SIGTERM)
	took := stopwatch(pid)
	ended := func() bool { took(); return r.hasEnded() }
	if !r.scene.hangs {
		r.until("qwatch ends on SIGTERM", ended)
		r.wantAtMost("to end", took(), endWithin)
		return
	}
	r.until("qwatch waits for its sources", func() bool {
		took()
		c, err := net.Dial("unix", r.dir+"/qwatch.sock") // which is closed first
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if r.hasEnded() {
		r.t.Error("it has not waited")
		return
	}
	r.qwatch.Process.Signal(syscall.SIGTERM)
	took = stopwatch(pid)
	r.until("qwatch ends on the second SIGTERM", ended)
	r.wantAtMost("to end on the second SIGTERM", took(), time.Second)
}

// clean compares that a text holds nothing that moves a terminal's cursor or
// turns the order of characters, and nothing of the secret.
func (r *room) clean(what, text string) {
	r.t.Helper()
	for i, c := range text {
		bad := c == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD") || unicode.In(c, unicode.Bidi_Control, unicode.Zl, unicode.Zp) ||
			unicode.Is(unicode.Cc, c) && c != '\n' && c != '\t'
		if bad {
			r.t.Errorf("%s: character %U in %q", what, c, text[max(0, i-100):min(len(text), i+100)])
			break
		}
	}
	for _, piece := range secretPieces {
		if i := strings.Index(text, piece); i >= 0 {
			r.t.Errorf("%s: the secret in %q", what, text[max(0, i-100):min(len(text), i+100)])
		}
	}
}

// secretPieces are the secret's middle as it may stand in a text: as it is, and
// in base64 behind any number of other bytes.
var secretPieces = func() []string {
	middle := secretText[5:25]
	pieces := []string{middle}
	for shift := range 3 {
		code := base64.StdEncoding.EncodeToString([]byte("xxx"[:shift] + middle))
		pieces = append(pieces, code[4:len(code)-4])
	}
	return pieces
}()

// trail reads the events of the audit trail.
func (r *room) trail() (events []map[string]any) {
	for line := range strings.Lines(r.read("state/audit.jsonl")) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Errorf("audit trail: %v in %q", err, line)
		}
		events = append(events, e)
	}
	return events
}

// onlyTrusted compares that nothing was done but for the trusted uWSGI.
func (r *room) onlyTrusted() {
	r.t.Helper()
	for _, e := range r.trail() {
		if socket := fmt.Sprint(e["socket"]); e["action"] != "sysctl" && socket != r.uwsgi.Address {
			r.t.Errorf("done for a stranger: %v", e)
		}
	}
}
