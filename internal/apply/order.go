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
	"qwatch/remediate/facts"
)

// order asks uWSGI for a reload, and tells in which way.
func (a *Applier) order(ctx context.Context, master int, r remediate.Reload) (how string, err error) {
	p, order := r.Socket.Master, r.How
	if order.Method == remediate.MethodAuto {
		order.Method = a.method(ctx, p)
	}
	how = order.String()
	switch order.Method {
	case remediate.MethodSystemd:
		switch {
		case a.units == nil:
			return how, errNoUnits
		case p.Unit.IsAbsent():
			return how, fmt.Errorf("uWSGI %d belongs to no systemd unit", p.PID)
		case p.Unit.State != facts.StateKnown:
			return how, fmt.Errorf("it is not known to which systemd unit uWSGI %d belongs: %s", p.PID, p.Unit.Unseen())
		}
		return how, a.units.Reload(ctx, p.Unit.Value)
	case remediate.MethodSignal:
		return how, hangUp(master, p.PID)
	case remediate.MethodFIFO:
		return how, a.writeFIFO(ctx, order.Path, p.PID)
	case remediate.MethodTouch:
		return how, touch(order.Path)
	}
	return how, fmt.Errorf("no way %q to reload; there are auto, signal, systemd, fifo:PATH and touch:PATH", r.How)
}

// method prefers systemd where the unit says how it is reloaded, so that
// systemd knows of it. A vassal's unit is its emperor's: a reload of that would
// reload all vassals.
func (a *Applier) method(ctx context.Context, p facts.Process) remediate.Method {
	if a.units == nil || p.Unit.State != facts.StateKnown {
		return remediate.MethodSignal
	}
	st, err := kernel.ReadStat(p.PID)
	if err != nil {
		return remediate.MethodSignal
	}
	if vassal, _ := kernel.Named(st.PPID, a.processes); vassal {
		return remediate.MethodSignal
	}
	if can, err := a.units.CanReload(ctx, p.Unit.Value); err != nil || !can {
		return remediate.MethodSignal
	}
	return remediate.MethodSystemd
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
