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
	f, err := t.openHeld()
	if err != nil {
		t.pass.Unlock()
		return nil, err
	}
	unlock = func() {
		f.Close()
		t.pass.Unlock()
	}
	if err := lockByte(f, wholePass); err != nil {
		unlock()
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// A pass goes by what stands in the trail that others write to.
	if err := t.follow(); err != nil {
		unlock()
		return nil, err
	}
	t.locked = f
	return unlock, nil
}

// wholePass is what a pass holds, and is the name of no one thing.
const wholePass = ""

// Hold is Lock for one thing only, which what names. Whoever holds another one is
// not kept waiting, nor is a pass.
func (t *Trail) Hold(ctx context.Context, what string) (unlock func(), err error) {
	if t.dir == "" {
		return func() {}, nil
	}
	f, err := t.openHeld()
	if err != nil {
		return nil, err
	}
	unlock, err = wait(ctx, func() (func(), error) {
		return func() { f.Close() }, lockByte(f, what)
	})
	if err == nil {
		return unlock, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another qwatch is acting on %s: %w", what, ctx.Err())
	}
	return nil, err
}

// openHeld opens the file of the locks. It stands beside the trail, and is not
// the trail: that may be rotated during a pass.
func (t *Trail) openHeld() (*os.File, error) {
	return bounded.OpenFile(filepath.Join(t.dir, "held"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
}

// lockByte locks the byte that stands for a name, the hash of it, until the file
// is closed (fcntl_locking(2), open file description locks): nothing is left
// behind by a process that ends.
func lockByte(f *os.File, name string) error {
	h := fnv.New64a()
	io.WriteString(h, name)
	byName := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(h.Sum64() >> 2), Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &byName); err != nil {
		return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}

// follow opens the trail anew where its name no longer leads to it: rotated or
// removed, it would record for nobody. What was read before stays known. The
// caller holds mu.
func (t *Trail) follow() error {
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
	t.f, t.read = now.f, 0
	return nil
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
