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
	"qwatch/internal/uwsgi"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

var errNoUnits = errors.New("no connection to systemd")

// reload asks for a reload and waits for its end, which uWSGI reports to nobody:
// the old workers end, a new generation comes, and people are served by it.
func (a *Applier) reload(ctx context.Context, r remediate.Reload) remediate.Outcome {
	master, err := openProcess(r.Socket.Master)
	if err != nil {
		return failure(-1, err)
	}
	if err := a.grown(ctx, r); err != nil {
		unix.Close(master)
		return failure(-1, err)
	}
	// After that wait, which may be long.
	config, err := a.mayReload(ctx, r.Socket)
	// What the way goes by; the order itself looks at it anew.
	config.Orders.Asked = r.Socket.Config.Orders.Asked
	if r.Socket.Config = config; err == nil {
		err = a.mayDeploy(ctx, r)
	}
	if err != nil {
		unix.Close(master)
		return failure(-1, err)
	}
	return a.carryOut(ctx, r, master)
}

// carryOut asks for the reload and watches it. It closes master.
func (a *Applier) carryOut(ctx context.Context, r remediate.Reload, master int) remediate.Outcome {
	w, err := a.newWatch(r, master)
	if err != nil {
		return failed(-1, err)
	}
	timed, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("not done after %s", r.Timeout))
	defer cancel()
	if err := w.look(); err != nil { // how it is before
		w.close()
		return failed(-1, err)
	}
	w.count()
	w.served.Asked = time.Now()
	if err := w.order(timed); err != nil {
		w.close()
		return failure(-1, err)
	}
	return w.run(ctx, timed)
}

// mayReload refuses where the reload would do harm. It reads anew what the plan
// went by, and returns the configuration.
func (a *Applier) mayReload(ctx context.Context, s facts.Socket) (facts.Config, error) {
	pid := s.Master.PID
	switch named, err := kernel.Named(pid, a.processes); {
	case err != nil:
		return s.Config, fmt.Errorf("whether process %d still is one of %s: %w", pid, strings.Join(a.processes, ", "), err)
	case !named:
		return s.Config, changed("process %d is not one of %s and is not reloaded", pid, strings.Join(a.processes, ", "))
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
			return s.Config, err
		}
		defer netns.Close()
		v, err := netns.Somaxconn()
		if somaxconn = facts.Known(v); err != nil {
			somaxconn = facts.Unknown[int](err.Error())
		}
	}
	if why := s.WhyNoReload(somaxconn); why != "" {
		return s.Config, noReload(pid, why, s.ReloadHarm(somaxconn))
	}
	return s.Config, nil
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
		return changed("uWSGI %d was reloaded by another", s.Master.PID)
	}
	s.Deploy = d
	if why := s.WhyNoDeploy(r.Deploy, !r.Way.Wholly(s)); why != "" {
		return noReload(s.Master.PID, why, s.DeployHarm(r.Deploy, !r.Way.Wholly(s)))
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
