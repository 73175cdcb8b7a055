package trail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockEvery is how often a lock that another qwatch holds is tried.
const lockEvery = 50 * time.Millisecond

// Lock keeps other qwatch processes from acting until unlock is called or the
// process ends. It waits until ctx ends for another to finish.
func (t *Trail) Lock(ctx context.Context) (unlock func(), err error) {
	if t.f == nil {
		return func() {}, nil
	}
	for {
		if err := t.follow(); err != nil {
			return nil, err
		}
		f := t.f
		err := tryLock(f)
		if err == nil {
			return func() { unix.Flock(int(f.Fd()), unix.LOCK_UN) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("audit trail %s: lock: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another qwatch is acting on this host: %w", ctx.Err())
		case <-time.After(lockEvery):
		}
	}
}

// follow opens the trail anew where its name no longer leads to it: rotated or
// removed, it would record for nobody, and another qwatch locks what has the
// name now. What was read before stays known.
func (t *Trail) follow() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	ours, err := t.f.Stat()
	if err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	if there, err := os.Stat(t.f.Name()); err == nil && os.SameFile(ours, there) {
		return nil
	}
	now, err := Open(t.f.Name())
	if err != nil {
		return err
	}
	t.f.Close()
	t.f, t.read = now.f, now.read
	return nil
}

// ErrRunning is the error of LockState where another daemon holds the lock.
var ErrRunning = errors.New("its state cannot be shared")

// LockState keeps a second daemon out of a state directory until unlock is
// called or the process ends.
func LockState(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another qwatch runs with %s: %w", dir, ErrRunning)
		}
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return func() { f.Close() }, nil
}

func tryLock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
