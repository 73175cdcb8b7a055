//go:build reloadtest

package reloadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

const (
	clients = 300
	request = "/?ms=50"
	// slowFor is longer than it takes until qwatch reloads, and the watch after it.
	slowFor = 15 * time.Second
	// grown is the age at which a worker no longer counts as a newborn one, which
	// would be why the queue is full.
	grown = 12 * time.Second
	// most is how long clients come where no verdict does.
	most = 100 * time.Second
)

// result is what a scene showed.
type result struct {
	Failed  string          // why it could not be played
	Began   time.Time       // when the clients came
	Ended   time.Time       // when they went
	Answers testbed.Answers // what they got
	Slow    string          // what the slow request got
	Trail   []event
	Plan    string   // qwatch's, the newest that raises
	Own     [2][]int // who holds the socket, before and after; the master first
	Others  [2]map[string][]int
	Limits  [2][]int
	Ordered []string          // uWSGI's own words about reloads
	Cuts    int               // and about those whom it killed
	Logs    map[string]string // the ends of all logs
}

// event is a line of the audit trail.
type event struct {
	Time            time.Time
	Socket          string
	Action, Target  string
	From, To        *int
	Result          string
	Error, Why, Way string
	WorkersBefore   *int     `json:"workers_before"`
	WorkersAfter    *int     `json:"workers_after"`
	Unserved        *float64 `json:"unserved_seconds"`
	Cut             *int
	Late            bool
}

// play runs one scene: the applications, qwatch, the deploy, the clients.
func play(m mode) (r result) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := testbed.Try(func() {
		prepare(m)
		began := time.Now()
		for _, line := range m.start {
			testbed.Check(background(line))
		}
		for _, addr := range append([]string{m.address}, m.others...) {
			testbed.Check(testbed.Until(ctx, 30*time.Second, addr+" answers", func() bool {
				return testbed.Ask(ctx, addr, "/?ms=1", 5*time.Second) == testbed.OK
			}))
		}
		if !m.late {
			testbed.Check(watch(ctx, m))
		}
		if m.deploy != "" {
			time.Sleep(time.Until(began.Add(grown / 3)))
			testbed.Check(shell(m.deploy))
			began = time.Now() // it may have made new workers
		}
		time.Sleep(time.Until(began.Add(grown)))
		if m.late {
			testbed.Check(watch(ctx, m))
		}
		r.look(m, 0)
		r.load(ctx, m)
		r.look(m, 1)
	})
	if err != nil {
		r.Failed = err.Error()
	}
	r.collect(m)
	return r
}

// prepare makes /srv as the mode has it, which is this scene's own.
func prepare(m mode) {
	if !m.systemd {
		testbed.Check(unix.Mount("reloadtest", "/srv", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"))
	}
	testbed.Check(testbed.SetSomaxconn(testbed.StartSomaxconn))
	testbed.Check(shell("rm -rf /srv/*; mkdir -p /srv/log /srv/run /srv/qwatch; chown www-data /srv/log /srv/run"))
	for name, text := range m.files {
		if !filepath.IsAbs(name) {
			name = filepath.Join("/srv", name)
		}
		testbed.Check(os.MkdirAll(filepath.Dir(name), 0o755))
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		testbed.Check(os.WriteFile(name, []byte(text), mode))
	}
	testbed.Check(shell(m.before))
}

// shell runs a script to its end.
func shell(script string) error {
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = "/srv"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return nil
}

// background starts what stays.
func background(line string) error {
	cmd := exec.Command("sh", "-c", "exec "+line+" >>/srv/log/early.out 2>&1")
	cmd.Dir = "/srv"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err := cmd.Start()
	go cmd.Wait()
	return err
}

const (
	trailFile = "/srv/qwatch/state/audit.jsonl"
	logFile   = "/srv/qwatch/log"
)

// watch starts qwatch, with the right to act, until ctx ends.
func watch(ctx context.Context, m mode) error {
	text := fmt.Sprintf(`
dry_run = false
state_dir = "/srv/qwatch/state"
socket = "/srv/qwatch/socket"
[log]
format = "json"
[[source]]
files = ["/srv/log/*.log", "/var/log/uwsgi/app/*.log"]
[group]
threshold = 2
[policy]
max_wait = "10m"
[policy.reload]
when = "always"
timeout = "40s"
%s
[metrics]
listen = ""
`, m.policy)
	if err := os.WriteFile("/srv/qwatch/qwatch.toml", []byte(text), 0o644); err != nil {
		return err
	}
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, os.Getenv(binaryEnv), "run", "-c", "/srv/qwatch/qwatch.toml")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	said := ""
	err = testbed.Until(ctx, 20*time.Second, "qwatch is ready", func() bool {
		text, _ := os.ReadFile(logFile)
		said = string(text)
		select {
		case <-ended:
			return true
		default:
			return strings.Contains(said, "is ready")
		}
	})
	if err == nil && !strings.Contains(said, "is ready") {
		err = fmt.Errorf("qwatch has ended: %s", said)
	}
	return err
}

// load sends the clients, until qwatch has judged and a while longer.
func (r *result) load(ctx context.Context, m mode) {
	slow := make(chan string, 1)
	go func() {
		slow <- testbed.Ask(ctx, m.address, fmt.Sprint("/?ms=", slowFor.Milliseconds()), 2*time.Minute)
	}()
	time.Sleep(100 * time.Millisecond) // a worker has it
	loop := testbed.StartLoop(ctx, m.address, testbed.LoopOptions{
		Clients: clients, Request: request, Ramp: 10 * time.Millisecond, Pause: 300 * time.Millisecond, Timeout: time.Minute,
	})
	r.Began = time.Now()
	done := func() bool {
		trail := readTrail()
		return judged(trail) && (!m.want.heals || slices.ContainsFunc(trail, func(e event) bool { return e.Action == "reload" && e.Result == "applied" }))
	}
	for time.Since(r.Began) < most && !done() {
		time.Sleep(100 * time.Millisecond)
	}
	select {
	case r.Slow = <-slow:
	case <-time.After(slowFor):
		r.Slow = "no answer"
	}
	time.Sleep(3 * time.Second) // what was judged shall last
	r.Ended = time.Now()
	r.Answers = loop.Stop()
}

// readTrail is the trail until now.
func readTrail() (all []event) {
	text, _ := os.ReadFile(trailFile)
	for line := range bytes.Lines(text) {
		var e event
		if json.Unmarshal(line, &e) == nil {
			all = append(all, e)
		}
	}
	return all
}

// judged tells whether all that was begun has its end.
func judged(trail []event) bool {
	begun, done := 0, 0
	for _, e := range trail {
		switch {
		case e.Action == "relisten" && e.Result == "started":
			begun++
		case e.Action == "judge":
			done++
		}
	}
	return done > 0 && done >= begun
}

// look is what stands behind the sockets.
func (r *result) look(m mode, when int) {
	r.Others[when] = map[string][]int{}
	for _, addr := range append([]string{m.queue}, m.others...) {
		all := testbed.Must(testbed.Listeners(addr))
		var pids []int
		for _, l := range all {
			pids = append(pids, l.PIDs...)
			if addr == m.queue {
				r.Limits[when] = append(r.Limits[when], l.Limit)
			}
		}
		if addr == m.queue {
			r.Own[when] = pids
		} else {
			r.Others[when][addr] = pids
		}
	}
}

// collect takes the logs along.
func (r *result) collect(m mode) {
	r.Trail = readTrail()
	r.Logs = map[string]string{}
	names, _ := filepath.Glob("/srv/log/*")
	more, _ := filepath.Glob("/var/log/uwsgi/app/*.log")
	for _, name := range append(names, more...) {
		text, _ := os.ReadFile(name)
		r.Cuts += strings.Count(string(text), "NO MERCY")
		var words strings.Builder
		for line := range strings.Lines(string(text)) {
			if slices.ContainsFunc(orders, func(words string) bool { return strings.Contains(line, words) }) {
				r.Ordered = append(r.Ordered, filepath.Base(name)+": "+strings.TrimSpace(line))
			}
			if !strings.HasPrefix(line, "[pid: ") { // a request
				words.WriteString(line)
			}
		}
		r.Logs[name] = words.String()[max(0, words.Len()-6000):]
	}
	text, _ := os.ReadFile(logFile)
	r.Logs[logFile] = string(text[max(0, len(text)-12000):])
	for line := range bytes.Lines(text) {
		var l struct{ Message string }
		if json.Unmarshal(line, &l) == nil && strings.HasPrefix(l.Message, "plan: ") && (r.Plan == "" || strings.Contains(l.Message, "raise it")) {
			r.Plan = l.Message
		}
	}
	testbed.Try(func() { shell("rm -f /var/log/uwsgi/app/*.log") })
}

// orders is what uWSGI says when it was told to reload (core/master_utils.c,
// core/master_checks.c).
var orders = []string{"gracefully killing workers", "brutally killing workers", "grace them all", "workers reload !!!", "chain reload starting", "(RE)spawned uWSGI master"}
