package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// order asks uWSGI for a reload, in the way of the plan and in no other.
func (a *Applier) order(ctx context.Context, master int, r remediate.Reload) error {
	p, way := r.Socket.Master, r.Way
	switch way.Kind {
	case remediate.WaySystemd:
		return a.reloadUnit(ctx, way.Of, p.PID)
	case remediate.WayHUP:
		return hangUp(master, p.PID)
	case remediate.WayFIFO:
		return a.writeFIFO(ctx, way.Of, p.PID, "r")
	case remediate.WayChain:
		return a.writeFIFO(ctx, way.Of, p.PID, "c")
	case remediate.WayTouch:
		return a.touch(ctx, way.Of, r.Socket.Master)
	}
	return fmt.Errorf("no way %q to reload", way)
}

// reloadUnit reloads the unit if its main process still is the master.
func (a *Applier) reloadUnit(ctx context.Context, unit string, master int) error {
	if a.units == nil {
		return errNoUnits
	}
	pid, _, err := a.units.Main(ctx, unit)
	switch {
	case err != nil:
		return err
	case pid != master:
		return fmt.Errorf("the main process of %s is %d, and not uWSGI %d: %w", unit, pid, master, errGone)
	}
	return a.units.Reload(ctx, unit)
}

// hangUp sends SIGHUP, uWSGI's graceful reload. SIGTERM would be a brutal one.
func hangUp(pidfd, pid int) error {
	err := unix.PidfdSendSignal(pidfd, unix.SIGHUP, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ended(pid)
	}
	return kernel.Explain(kernel.SendSignal, fmt.Sprintf("SIGHUP to process %d", pid), err)
}

// writeFIFO writes the letter of a reload into uWSGI's master FIFO
// (docs/MasterFIFO.rst), once this master is seen to hold it open.
func (a *Applier) writeFIFO(ctx context.Context, path string, pid int, letter string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENXIO):
		return changed("%s: nobody reads from it; is it the master-fifo of uWSGI %d?", path, pid)
	case errors.Is(err, unix.ENOENT):
		return changed("%s is gone; it was the master-fifo of uWSGI %d", path, pid)
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
		return changed("%s is not a FIFO", path)
	}
	wait, cancel := context.WithTimeout(ctx, fileDeadline)
	defer cancel()
	held, err := a.opened.One(wait, openFile{pid, kernel.FileID{Dev: st.Dev, Ino: st.Ino}})
	if err != nil {
		return kernel.Explain(kernel.ListOpen, fmt.Sprintf("is %s open in uWSGI %d", path, pid), err)
	}
	if !held {
		return changed("%s is not open in uWSGI %d: it is another's master-fifo", path, pid)
	}
	if _, err := unix.Write(fd, []byte(letter)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// touch sets the times of a file to now that this uWSGI watches for a reload, and
// for nothing else.
func (a *Applier) touch(ctx context.Context, path string, master facts.Process) error {
	wait, cancel := context.WithTimeout(ctx, fileDeadline)
	defer cancel()
	watched, err := a.watched.One(wait, watchedFile{uwsgi.ProcessOf(master), path})
	if err != nil {
		watched = facts.Unknown[facts.Trigger](err.Error())
	}
	switch t, known := watched.Get(); {
	case watched.Unseen() != "":
		return fmt.Errorf("it is not known what %s is to uWSGI %d: %s", path, master.PID, watched.Unseen())
	case !known || !t.Reloads():
		return changed("%s is no file that uWSGI %d watches for a reload alone; name its own touch-reload in policy.reload.how", path, master.PID)
	}
	return touch(path)
}

// touch sets the times of a file to now.
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
	// uWSGI compares the seconds (core/utils.c, uwsgi_check_touches).
	if ahead := time.Until(time.Unix(st.Mtim.Unix())); ahead > 0 {
		return fmt.Errorf("%s is of a time that lies %s ahead: uWSGI would not see a change before then; set its time back with touch(1)", path, ahead.Round(time.Second))
	}
	now := unix.NsecToTimeval(time.Now().UnixNano())
	if err := unix.Futimes(fd, []unix.Timeval{now, now}); err != nil {
		return kernel.Explain(kernel.TouchFile, "", &os.PathError{Op: "touch", Path: path, Err: err})
	}
	return nil
}
