package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/remediate"
)

// order asks uWSGI for a reload, in the way of the plan.
func (a *Applier) order(ctx context.Context, master int, r remediate.Reload) error {
	p, way := r.Socket.Master, r.Way
	switch way.Kind {
	case remediate.WaySystemd:
		if a.units == nil {
			return errNoUnits
		}
		return a.units.Reload(ctx, way.Of)
	case remediate.WayHUP:
		return hangUp(master, p.PID)
	case remediate.WayFIFO:
		return a.writeFIFO(ctx, way.Of, p.PID)
	case remediate.WayTouch:
		return touch(way.Of)
	}
	return fmt.Errorf("no way %q to reload", way)
}

// hangUp sends SIGHUP, uWSGI's graceful reload. SIGTERM would be a brutal one.
func hangUp(pidfd, pid int) error {
	err := unix.PidfdSendSignal(pidfd, unix.SIGHUP, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ended(pid)
	}
	return kernel.Explain(kernel.SendSignal, fmt.Sprintf("SIGHUP to process %d", pid), err)
}

// writeFIFO writes the letter of a graceful reload into uWSGI's master FIFO
// (docs/MasterFIFO.rst), once this master is seen to hold it open.
func (a *Applier) writeFIFO(ctx context.Context, path string, pid int) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s: nobody reads from it; is it the master-fifo of uWSGI %d?", path, pid)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a symbolic link: %w", path, errLinked)
	case err != nil:
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("%s is not a FIFO", path)
	}
	wait, cancel := context.WithTimeout(ctx, fileDeadline)
	defer cancel()
	held, err := a.opened.One(wait, openFile{pid, st.Dev, st.Ino})
	if err != nil {
		return kernel.Explain(kernel.ListOpen, fmt.Sprintf("is %s open in uWSGI %d", path, pid), err)
	}
	if !held {
		return fmt.Errorf("%s is not open in uWSGI %d: it is another's master-fifo", path, pid)
	}
	if _, err := unix.Write(fd, []byte("r")); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// touch sets the times of uWSGI's touch-reload file to now.
func touch(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s is a symbolic link: %w", path, errLinked)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file: %w", path, errLinked)
	}
	now := unix.NsecToTimeval(time.Now().UnixNano())
	if err := unix.Futimes(fd, []unix.Timeval{now, now}); err != nil {
		return kernel.Explain(kernel.TouchFile, "", &os.PathError{Op: "touch", Path: path, Err: err})
	}
	return nil
}
