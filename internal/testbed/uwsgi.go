package testbed

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// SleepApp is the source of the WSGI app that runs where no other is given.
//
//go:embed app.py
var SleepApp string

// Options say which uWSGI to start. Their zero values are useful.
type Options struct {
	Program string   // "": uwsgi or uwsgi-core from PATH; else a program that takes its options, as standin
	Address string   // "127.0.0.1:5000" (port 0: any free one), "[::1]:5000", "/path", "@abstract"; "": none, Args say
	Listen  int      // --listen; 0: not given
	Workers int      // --processes; 0: 2
	LogFile string   // --logto; "": a file of its own
	Args    []string // more options, last
	Env     []string // more environment, "K=V"
	Dir     string   // working directory; "": this process's
	App     string   // Python source of a WSGI app; "": one that sleeps, see app.py
	User    string   // who it runs as from the start, by name; needs root
	Bare    bool     // nothing but Args: they say where it listens and logs, which Address and LogFile repeat
}

// UWSGI is a running uWSGI, speaking HTTP.
type UWSGI struct {
	Pid     int    // of the master; a reload keeps it
	Address string // as Queue and Flood take it
	LogFile string

	temp string
	done chan struct{} // closed when the master has ended
}

// Run starts a uWSGI for the time of a test and prints its log if that fails.
func Run(t testing.TB, o Options) *UWSGI {
	t.Helper()
	u, err := StartUWSGI(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", u.Address, u.Log())
		}
		u.Stop()
	})
	return u
}

// StartUWSGI starts a uWSGI with a master and returns when its workers are
// there. Its caller stops it.
func StartUWSGI(ctx context.Context, o Options) (_ *UWSGI, err error) {
	program := o.Program
	if program == "" {
		if program, err = findUWSGI(); err != nil {
			return nil, err
		}
	}
	if o.Workers == 0 {
		o.Workers = 2
	}
	if o.App == "" {
		o.App = SleepApp
	}
	u := &UWSGI{Address: o.Address, LogFile: o.LogFile, done: make(chan struct{})}
	if strings.HasSuffix(o.Address, ":0") {
		if u.Address, err = freePort(o.Address); err != nil {
			return nil, err
		}
	}
	if u.temp, err = os.MkdirTemp("", "testbed-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(u.temp)
		}
	}()
	if u.LogFile == "" {
		u.LogFile = filepath.Join(u.temp, "uwsgi.log")
	}
	app := filepath.Join(u.temp, "app.py")
	if err := os.WriteFile(app, []byte(o.App), 0o644); err != nil {
		return nil, err
	}

	cmd := u.command(program, app, o)
	if o.User != "" {
		if cmd.SysProcAttr.Credential, err = credential(o.User); err != nil {
			return nil, err
		}
		if err := os.Chown(u.temp, int(cmd.SysProcAttr.Credential.Uid), -1); err != nil {
			return nil, err
		}
	}
	// What uWSGI says before it opens its log.
	var early *os.File
	if early, err = os.Create(filepath.Join(u.temp, "early")); err != nil {
		return nil, err
	}
	defer early.Close()
	cmd.Stdout, cmd.Stderr = early, early
	if err := startOnLastingThread(cmd); err != nil {
		return nil, err
	}
	u.Pid = cmd.Process.Pid
	go func() { cmd.Wait(); close(u.done) }()
	if err := u.ready(ctx, o.Workers); err != nil {
		said, _ := os.ReadFile(early.Name())
		return nil, fmt.Errorf("%s %w:\n%s%s", cmd, err, said, u.Log())
	}
	return u, nil
}

// command is the call of uWSGI that the options ask for.
func (u *UWSGI) command(program, app string, o Options) *exec.Cmd {
	args := []string{"--master", "--processes", strconv.Itoa(o.Workers), "--logto", u.LogFile,
		"--plugin", "python3", "--need-app", "--wsgi-file", app}
	if u.Address != "" {
		args = append(args, "--http-socket", u.Address)
	}
	if o.Bare {
		args = nil
	}
	if strings.HasPrefix(o.Address, "@") {
		u.Address += "\x00" // uWSGI counts the final NUL into an abstract name (core/socket.c, bind_to_unix)
	}
	if o.Listen != 0 {
		args = append(args, "--listen", strconv.Itoa(o.Listen))
	}
	cmd := exec.Command(program, append(args, o.Args...)...)
	cmd.Dir = o.Dir
	cmd.Env = append(os.Environ(), o.Env...)
	// A group of its own, so that Stop ends the workers too, stopped ones included.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	return cmd
}

// ready waits until the workers are there.
func (u *UWSGI) ready(ctx context.Context, workers int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if pids, _ := u.Workers(); len(pids) >= workers && asleep(pids) {
			return nil
		}
		select {
		case <-tick.C:
		case <-u.done:
			return errors.New("ended at its start")
		case <-ctx.Done():
			u.kill()
			return fmt.Errorf("is not ready: %w", ctx.Err())
		}
	}
}

// lastingThread runs what it is sent on a thread that never ends.
var lastingThread = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// startOnLastingThread starts a command whose end shall be that of this process:
// Pdeathsig follows the thread that forked (prctl(2)), and tests end threads. One
// that has entered another network namespace forks itself, or the command would
// be in the wrong one.
func startOnLastingThread(cmd *exec.Cmd) error {
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	done := make(chan error)
	lastingThread() <- func() {
		there, err := os.Readlink("/proc/thread-self/ns/net")
		if err == nil && there != here {
			err = errElsewhere
		}
		if err == nil {
			err = cmd.Start()
		}
		done <- err
	}
	if err = <-done; errors.Is(err, errElsewhere) {
		return cmd.Start()
	}
	return err
}

var errElsewhere = errors.New("in another network namespace")

// Stop ends it at once, whatever state it is in.
func (u *UWSGI) Stop() {
	u.kill()
	os.RemoveAll(u.temp)
}

func (u *UWSGI) kill() {
	children, _ := u.Workers()
	syscall.Kill(-u.Pid, syscall.SIGKILL)
	<-u.done
	// They hold its sockets until they have ended too, each in its own time.
	for end := time.Now().Add(10 * time.Second); slices.ContainsFunc(children, alive) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// Workers are the pids of the master's children, in ascending order. With a
// http router or a spooler that one is among them.
func (u *UWSGI) Workers() ([]int, error) {
	// Each thread lists the children that it forked (proc_tid_children(5)).
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", u.Pid))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for f := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// Log is what stands in the log file now, "" where there is none.
func (u *UWSGI) Log() string {
	text, _ := os.ReadFile(u.LogFile)
	return string(text)
}

// Signal sends a signal to the master: SIGHUP is a graceful reload.
func (u *UWSGI) Signal(s syscall.Signal) error { return syscall.Kill(u.Pid, s) }

// asleep tells whether these processes wait for something. A worker that does
// not wait yet has no signal handlers of its own, and a reload would hang on it.
func asleep(pids []int) bool {
	return !slices.ContainsFunc(pids, func(pid int) bool { return state(pid) != "S" })
}

func alive(pid int) bool { return state(pid) != "" && state(pid) != "Z" }

// state is the letter of a process in /proc/PID/stat, "" where there is none.
func state(pid int) string {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:min(1, len(rest))]
}

func findUWSGI() (string, error) {
	// Debian's plugins live beside the architecture's libraries or in /usr/lib.
	plugins, err := filepath.Glob("/usr/lib*/uwsgi/plugins/python3_plugin.so")
	if err != nil || len(plugins) == 0 {
		return "", errors.New("no python3 plugin of uWSGI in /usr/lib/uwsgi/plugins (install uwsgi-plugin-python3)")
	}
	for _, name := range []string{"uwsgi", "uwsgi-core"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no uwsgi in PATH (install uwsgi-core)")
}

func freePort(addr string) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	c := new(syscall.Credential)
	_, err = fmt.Sscan(u.Uid+" "+u.Gid, &c.Uid, &c.Gid)
	return c, err
}
