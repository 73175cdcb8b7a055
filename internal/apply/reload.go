package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/deploy"
	"qwatch/internal/kernel"
	"qwatch/internal/text"
	"qwatch/internal/uwsgi"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

var errNoUnits = errors.New("no connection to systemd")

// pause is how long it takes until new workers are counted again, in
// milliseconds.
const pause = 50

// settling is how long fewer new workers than there were before may still become
// more. uWSGI forks them one after the other; in cheaper mode fewer come back.
const settling = 2 * time.Second

// reload asks for a graceful reload and waits for its end, which uWSGI reports
// to nobody: the old workers end, new ones come, the master is the same process
// (it calls execve(2), so pid and start time stay) and its socket listens.
func (a *Applier) reload(ctx context.Context, r remediate.Reload) remediate.Outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("not done after %s", r.Timeout))
	defer cancel()
	began := time.Now()
	s := r.Socket
	master, err := openProcess(s.Master)
	if err != nil {
		return failure(-1, err)
	}
	defer unix.Close(master)
	if err := a.mayReload(ctx, s); err != nil {
		return failure(-1, err)
	}
	if err := a.mayDeploy(ctx, r); err != nil {
		return failure(-1, err)
	}
	if err := a.grown(ctx, r); err != nil {
		return remediate.Outcome{Result: remediate.Stale, Now: -1, Err: err}
	}
	before, err := a.children(s.Master.PID)
	if err != nil {
		return failed(-1, err)
	}
	old, err := openWorkers(s.Workers, before)
	if err != nil {
		return failed(-1, err)
	}
	defer old.close()
	if len(old) == 0 {
		return failed(-1, fmt.Errorf("uWSGI %d has no workers: the end of a reload could not be seen", s.Master.PID))
	}
	if err := a.order(ctx, master, r); err != nil {
		return failure(-1, err)
	}
	fresh, err := a.await(ctx, master, s.Master.PID, old, before)
	if err == nil {
		err = listens(s)
	}
	if err != nil {
		return failed(-1, fmt.Errorf("reload of uWSGI %d (%s): %w", s.Master.PID, r.Way, err))
	}
	return remediate.Outcome{
		Result: remediate.Applied, Now: -1,
		Note: fmt.Sprintf("%s: %s after %s", r.Way, text.Plural(fresh, "new worker", "new workers"), time.Since(began).Round(100*time.Millisecond)),
	}
}

// mayReload refuses where the reload would do harm. It reads anew what the plan
// went by.
func (a *Applier) mayReload(ctx context.Context, s facts.Socket) error {
	pid := s.Master.PID
	if named, _ := kernel.Named(pid, a.processes); !named {
		return fmt.Errorf("process %d is not one of %s and is not reloaded", pid, strings.Join(a.processes, ", "))
	}
	ctx, cancel := context.WithTimeout(ctx, fileDeadline)
	defer cancel()
	c, err := a.configs.One(ctx, uwsgi.ProcessOf(s.Master))
	if err != nil {
		c = uwsgi.Unseen(err)
	}
	s.Config = c
	somaxconn := facts.Unknown[int]("uWSGI's listen is not known either")
	if c.Listen.State == facts.StateKnown {
		netns, err := openNetNS(s)
		if err != nil {
			return err
		}
		defer netns.Close()
		v, err := netns.Somaxconn()
		if somaxconn = facts.Known(v); err != nil {
			somaxconn = facts.Unknown[int](err.Error())
		}
	}
	if why := s.WhyNoReload(somaxconn); why != "" {
		return fmt.Errorf("uWSGI %d is not reloaded: %s", pid, why)
	}
	return nil
}

// mayDeploy refuses where the reload would bring what the plan does not know of.
func (a *Applier) mayDeploy(ctx context.Context, r remediate.Reload) error {
	s := r.Socket
	ctx, cancel := context.WithTimeout(ctx, deployDeadline)
	defer cancel()
	master := uwsgi.ProcessOf(s.Master)
	a.memory.Learn(master, s.Deploy)
	d, err := a.deploys.One(ctx, master)
	if err != nil {
		d = deploy.Unseen(err)
	}
	if d.Image != 0 && s.Deploy.Image != 0 && d.Image != s.Deploy.Image {
		return fmt.Errorf("uWSGI %d was reloaded: %w", s.Master.PID, errGone)
	}
	s.Deploy = d
	if why := s.WhyNoDeploy(r.Deploy, !r.Way.Wholly(s)); why != "" {
		return fmt.Errorf("uWSGI %d is not reloaded: %s", s.Master.PID, why)
	}
	return nil
}

// children lists the uWSGI processes below a master, zombies left out.
func (a *Applier) children(master int) (found []facts.Process, err error) {
	all, err := kernel.Children(master, a.processes)
	for _, p := range all {
		found = append(found, facts.Process{PID: p.PID, Start: p.Start, Comm: p.Comm})
	}
	return found, err
}

// workers are handles on the processes whose end is waited for.
type workers []int

func (w workers) close() {
	for _, fd := range w {
		unix.Close(fd)
	}
}

// openWorkers takes the workers that the plan saw and that still run. The
// master's other children (HTTP routers, spoolers, mules) do not hold the
// socket, and a chain reload leaves them alone. Where all workers of the plan
// have ended since, it is every child.
func openWorkers(seen []facts.Worker, children []facts.Process) (w workers, err error) {
	some := slices.DeleteFunc(slices.Clone(children), func(c facts.Process) bool {
		return !slices.ContainsFunc(seen, func(w facts.Worker) bool { return w.Same(c) })
	})
	if len(some) == 0 {
		some = children
	}
	for _, p := range some {
		fd, err := openProcess(p)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			w.close()
			return nil, err
		}
		w = append(w, fd)
	}
	return w, nil
}

// await returns the number of new workers when the old ones have ended.
func (a *Applier) await(ctx context.Context, master, pid int, old workers, before []facts.Process) (int, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	stop := context.AfterFunc(ctx, func() { unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer func() {
		if !stop() { // nobody may write to it any more when it is closed
			unix.Poll([]unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}, -1)
		}
	}()
	// A pidfd becomes readable when its process ends.
	wait := func(left []int, timeout int) ([]int, error) {
		ended, err := readable(append([]int{wake, master}, left...), timeout)
		switch {
		case err != nil:
			return nil, err
		case ended[0]:
			return nil, context.Cause(ctx)
		case ended[1]:
			return nil, errors.New("the master has ended; its log says why")
		}
		var still []int
		for i, fd := range left {
			if !ended[2+i] {
				still = append(still, fd)
			}
		}
		return still, nil
	}
	for left := []int(old); len(left) > 0; {
		still, err := wait(left, -1)
		if err != nil {
			return 0, fmt.Errorf("%w; %s of %d still at work (worker-reload-mercy gives them 60 seconds)", err, text.Plural(len(left), "old worker", "old workers"), len(old))
		}
		left = still
	}
	var settled time.Time
	for {
		now, err := a.children(pid)
		if err != nil {
			return 0, err
		}
		fresh, ended := count(before, now)
		if fresh > 0 && settled.IsZero() {
			settled = time.Now().Add(settling)
		}
		if fresh >= ended || fresh > 0 && time.Now().After(settled) {
			return min(fresh, len(old)), nil // a router is new too
		}
		// Nothing tells of a new child.
		if _, err := wait(nil, pause); err != nil {
			return 0, fmt.Errorf("%w; %s ended, and %s there", err,
				text.Plural(ended, "process has", "processes have"), text.Plural(fresh, "new one is", "new ones are"))
		}
	}
}

// count tells how many processes are new since before, and how many have gone.
func count(before, now []facts.Process) (fresh, ended int) {
	for _, p := range now {
		if !slices.ContainsFunc(before, p.Same) {
			fresh++
		}
	}
	return fresh, len(before) + fresh - len(now)
}

// readable waits until one of the descriptors is readable, at most timeout
// milliseconds, -1 for ever, and tells which are.
func readable(fds []int, timeout int) ([]bool, error) {
	set := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		set[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	_, err := unix.Poll(set, timeout)
	if err != nil && !errors.Is(err, unix.EINTR) { // the runtime signals its threads
		return nil, os.NewSyscallError("poll", err)
	}
	yes := make([]bool, len(fds))
	for i := range set {
		yes[i] = set[i].Revents != 0
	}
	return yes, nil
}

// listens makes sure that the socket listens after the reload: the same, or
// where that is gone (uWSGI's http mode binds a new one behind its router)
// another one of the master.
func listens(s facts.Socket) error {
	netns, err := openNetNS(s)
	if err != nil {
		return err
	}
	defer netns.Close()
	all, _, err := netns.Listeners()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(l kernel.Listener) bool { return l.Inode == s.ID.Inode }) {
		return nil
	}
	held, err := kernel.Sockets(s.Master.PID)
	switch {
	case slices.ContainsFunc(all, func(l kernel.Listener) bool { _, ok := held[l.Inode]; return ok && l.Family == kernel.Family(s.Family) }):
		return nil
	case err != nil:
		return kernel.Explain(kernel.ListOpen, fmt.Sprintf("socket %d of %s is gone, and a new one could not be looked for", s.ID.Inode, s.Name()), err)
	}
	return fmt.Errorf("socket %d of %s is gone, and uWSGI listens on no other", s.ID.Inode, s.Name())
}

func (a *Applier) start(ctx context.Context, s remediate.Start) remediate.Outcome {
	if a.units == nil {
		return failed(-1, errNoUnits)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, fmt.Errorf("not done after %s", s.Timeout))
	defer cancel()
	// Somebody may have stopped it, or started it, since.
	if err := a.units.Refused(ctx, s.Unit); err != nil {
		return remediate.Outcome{Result: remediate.Stale, Now: -1, Err: fmt.Errorf("%s: %w", s.Unit, err)}
	}
	if err := a.units.Start(ctx, s.Unit); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return failed(-1, fmt.Errorf("start %s: %w", s.Unit, err))
	}
	return remediate.Outcome{Result: remediate.Applied, Now: -1}
}
