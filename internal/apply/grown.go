package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// newborn is the age below which a worker is not asked to end. It has its master's
// handlers, or none, until its application is loaded: a SIGHUP then is lost, and
// the reload hangs on it until worker-reload-mercy has passed (core/uwsgi.c,
// uwsgi_worker_run). A cheaper uWSGI spawns a worker in the very tick in which it
// says that its queue is full.
const newborn = 2 * time.Second

// grownUp is the age from which a worker counts as one whatever it does with its
// signals: an application may ignore SIGHUP, and then would for ever.
const grownUp = time.Minute

// look is how long it takes until the workers are looked at again.
const look = 200 * time.Millisecond

// grown waits until each worker of the master would hear of a reload, for half the
// reload's time at most, and makes sure that the master itself would. No order has
// been given where it is an error.
func (a *Applier) grown(ctx context.Context, r remediate.Reload) error {
	pid := r.Socket.Master.PID
	until := time.Now().Add(r.Timeout / 2)
	for {
		if err := awake(pid); err != nil {
			return err
		}
		young, err := a.young(pid, r.Socket.ID.Inode)
		if young == "" || err != nil {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("uWSGI %d %w: for %s %s, and a reload would hang on it", pid, errNotAsked, (r.Timeout / 2).Round(time.Second), young)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("uWSGI %d %w: %w; until then %s", pid, errNotAsked, context.Cause(ctx), young)
		case <-time.After(look):
		}
	}
}

// young names a worker that would not hear of a reload, "" where all would. A worker
// holds the socket; a mule, a spooler, a router that does not, or a uWSGI of its own
// that the master has started (attach-daemon), is not waited for.
func (a *Applier) young(master int, inode uint64) (string, error) {
	all, err := kernel.Children(master, a.processes)
	if err != nil {
		return "", err
	}
	since, err := kernel.SinceBoot()
	if err != nil {
		return "", err
	}
	for _, p := range all {
		age := since - time.Duration(p.Start)*facts.ClockTick
		if age >= grownUp {
			continue
		}
		signals, err := kernel.SignalsOf(p.PID)
		held, unseen := kernel.Sockets(p.PID)
		_, holds := held[inode]
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH): // it has ended
		case err != nil:
			return "", fmt.Errorf("whether worker %d would hear of a reload is not known: %w", p.PID, err)
		case unseen == nil && !holds:
		case signals.Ignores(unix.SIGUSR2), uwsgi.IsEmperor(signals): // a mule, a spooler, a router: no worker
		case !uwsgi.IsWorker(signals):
			return fmt.Sprintf("worker %d was still starting", p.PID), nil
		case age < newborn:
			return fmt.Sprintf("there always was a worker younger than %s", newborn), nil
		}
	}
	return "", nil
}

// awake is an error where the master is stopped, or frozen with its cgroup: it would
// do what it is told when it wakes, whenever that is.
func awake(pid int) error {
	st, err := kernel.ReadStat(pid)
	if err != nil {
		return ended(pid)
	}
	paused := uwsgi.Paused(pid, st.State, func() (bool, error) {
		cgroup, err := kernel.CgroupOf(pid)
		if err != nil {
			return false, err
		}
		return kernel.OpenCgroup2().Frozen(cgroup)
	})
	switch why, is := paused.Get(); {
	case is:
		return changed("%s", why)
	case paused.Unseen() != "":
		return fmt.Errorf("whether uWSGI %d is stopped or frozen is not known: %s", pid, paused.Unseen())
	}
	return nil
}
