package trail

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// lockEvery is how often a lock that another qwatch holds is tried.
const lockEvery = 50 * time.Millisecond

// Lock keeps everybody else, in this process and in other qwatch, from a pass of
// actions until unlock is called or the process ends. It waits until ctx ends for
// another to finish.
func (t *Trail) Lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = wait(ctx, t.tryPass)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another qwatch is acting on this host: %w", ctx.Err())
	}
	return unlock, err
}

// wait tries a lock until it is to be had or ctx ends.
func wait(ctx context.Context, try func() (func(), error)) (unlock func(), err error) {
	for {
		unlock, err := try()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(lockEvery):
		}
	}
}

func (t *Trail) tryPass() (unlock func(), err error) {
	if !t.pass.TryLock() {
		return nil, unix.EWOULDBLOCK
	}
	if t.dir == "" {
		return t.pass.Unlock, nil
	}
	t.mu.Lock()
	f, err := t.follow()
	t.mu.Unlock()
	if err == nil {
		if err = tryLock(f); err == nil {
			return func() {
				unix.Flock(int(f.Fd()), unix.LOCK_UN)
				t.pass.Unlock()
			}, nil
		}
		err = fmt.Errorf("audit trail %s: lock: %w", f.Name(), err)
	}
	t.pass.Unlock()
	return nil, err
}

// Hold is Lock for one thing only, which what names. Whoever holds another one is
// not kept waiting, nor is a pass. The locks are bytes of one file beside the
// trail, by the hash of their names (fcntl_locking(2), open file description
// locks): nothing is left behind by a process that ends.
func (t *Trail) Hold(ctx context.Context, what string) (unlock func(), err error) {
	if t.dir == "" {
		return func() {}, nil
	}
	f, err := bounded.OpenFile(filepath.Join(t.dir, "held"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	io.WriteString(h, what)
	byWhat := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(h.Sum64() >> 2), Len: 1}
	unlock, err = wait(ctx, func() (func(), error) {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &byWhat)
		return func() { f.Close() }, err
	})
	if err == nil {
		return unlock, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another qwatch is acting on %s: %w", what, ctx.Err())
	}
	return nil, &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
}

// follow opens the trail anew where its name no longer leads to it: rotated or
// removed, it would record for nobody, and another qwatch locks what has the
// name now. What was read before stays known. The caller holds mu.
func (t *Trail) follow() (*os.File, error) {
	ours, err := t.f.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	if there, err := os.Stat(t.f.Name()); err == nil && os.SameFile(ours, there) {
		return t.f, nil
	}
	now, err := Open(t.f.Name())
	if err != nil {
		return nil, err
	}
	t.f.Close()
	t.f, t.read = now.f, 0
	return t.f, nil
}

// ErrRunning is the error of LockState where another daemon holds the lock.
var ErrRunning = errors.New("its state cannot be shared")

// LockState keeps a second daemon out of a state directory until unlock is
// called or the process ends.
func LockState(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	f, err := bounded.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
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
