package journal

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a running journalctl.
type child struct {
	stdout *os.File
	kill   context.CancelFunc
	exited chan error
}

// startChild starts a child that dies with ctx, with this process, and by
// stop.
func startChild(ctx context.Context, command string, args []string, stderr *lastWords) (*child, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	ctx, kill := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Stdout, cmd.Stderr = w, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	c := &child{stdout: r, kill: kill, exited: make(chan error, 1)}

	started := make(chan error)
	go func() {
		// PR_SET_PDEATHSIG fires when the thread that forked ends, so that
		// thread must stay as long as the child (golang.org/issue/27505).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.exited <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		kill()
		r.Close()
		return nil, err
	}
	// A descendant of the child could hold the other end open.
	context.AfterFunc(ctx, func() { r.Close() })
	return c, nil
}

// stop reaps the child, which has ended or is about to: its output is closed.
// One that stays is killed.
func (c *child) stop() error {
	select {
	case err := <-c.exited:
		c.kill()
		return err
	case <-time.After(time.Second):
	}
	c.kill()
	return <-c.exited
}

// lastWords keeps the end of what journalctl says on standard error.
type lastWords struct {
	onRights func()

	mu   sync.Mutex
	text []byte
}

// Write takes a part of it. It never fails.
func (s *lastWords) Write(b []byte) (int, error) {
	s.mu.Lock()
	s.text = append(s.text, b...)
	rights := bytes.Contains(s.text, []byte("not seeing messages from other users")) // journal-util.c:access_check_var_log_journal
	s.text = s.text[max(0, len(s.text)-1024):]
	s.mu.Unlock()
	if rights {
		s.onRights()
	}
	return len(b), nil
}

// String gives it in one line.
func (s *lastWords) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(strings.Fields(string(s.text)), " ")
}
