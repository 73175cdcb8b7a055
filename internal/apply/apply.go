// Package apply is the only package that changes the kernel, /etc or another
// process: it takes the actions of a plan. It decides nothing, and shares
// nothing with package host: each action is compare-and-swap, and compares the
// plan with what the host is right then.
package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/deploy"
	"qwatch/internal/kernel"
	"qwatch/internal/lookup"
	"qwatch/internal/uwsgi"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// Units asks the service manager for what it does with a unit. Reload and
// Start return when the job is done, with an error unless it succeeded.
type Units interface {
	// Main returns the unit's main process, and whether the unit says how it is
	// reloaded (ExecReload=).
	Main(ctx context.Context, unit string) (pid int, canReload bool, err error)
	Reload(ctx context.Context, unit string) error
	// Refused is nil where the unit has failed, as a uWSGI does that refuses to
	// start; else it says how it fares.
	Refused(ctx context.Context, unit string) error
	Start(ctx context.Context, unit string) error
}

// Applier takes actions. Any number of goroutines may use it.
type Applier struct {
	processes []string
	units     Units
	// Follow follows the journal; nil where there is none. It is set before
	// anything is applied.
	Follow     Follow
	leastWatch time.Duration // facts.LeastWatch, but in tests
	moreWatch  time.Duration // facts.MoreWatch, likewise

	// What may lie on a file system that does not answer.
	configs lookup.Table[uwsgi.Process, facts.Config]
	deploys lookup.Table[uwsgi.Process, facts.Deploy]
	opened  lookup.Table[openFile, bool]
	memory  deploy.Memory // of masters, as the plans know them
	watched lookup.Table[watchedFile, facts.Fact[facts.Trigger]]
}

// watchedFile is the question what a file is to a uWSGI.
type watchedFile struct {
	master uwsgi.Process
	path   string
}

// openFile is the question whether a process has a file open.
type openFile struct {
	pid int
	id  kernel.FileID
}

const (
	// fileDeadline is how long files may take to be read.
	fileDeadline = time.Second
	// deployDeadline is how long all files of an application may take.
	deployDeadline = 5 * time.Second
	// maxHanging is how many reads may hang at a time, each with a thread.
	maxHanging = 8
)

// New makes an Applier. processes are the names of what counts as uWSGI, as
// kernel.Named takes them. Units are reloaded and started through u; nil where
// no systemd runs.
func New(processes []string, u Units) *Applier {
	slots := lookup.NewSlots(maxHanging, maxHanging)
	a := &Applier{
		processes: processes, units: u, leastWatch: facts.LeastWatch, moreWatch: facts.MoreWatch,
		configs: lookup.Table[uwsgi.Process, facts.Config]{Deadline: fileDeadline, Slots: slots,
			Ask: func(_ context.Context, master uwsgi.Process) (facts.Config, error) {
				return uwsgi.Running(master, processes, ""), nil
			}},
		opened: lookup.Table[openFile, bool]{Deadline: fileDeadline, Slots: slots,
			Ask: func(_ context.Context, f openFile) (bool, error) {
				return kernel.HasOpen(f.pid, f.id)
			}},
		watched: lookup.Table[watchedFile, facts.Fact[facts.Trigger]]{Deadline: fileDeadline, Slots: slots,
			Ask: func(_ context.Context, f watchedFile) (facts.Fact[facts.Trigger], error) {
				return uwsgi.Running(f.master, processes, f.path).Orders.Asked, nil
			}},
	}
	a.deploys = lookup.Table[uwsgi.Process, facts.Deploy]{Deadline: deployDeadline, Slots: slots,
		Ask: func(_ context.Context, master uwsgi.Process) (facts.Deploy, error) {
			return deploy.Look(master, processes, &a.memory), nil
		}}
	return a
}

// Apply changes the host by one action. It answers remediate.Stale and changes
// nothing unless the host still is as the action says; the error of a failure
// says what would allow it. It may run while the host is looked at.
func (a *Applier) Apply(ctx context.Context, action remediate.Action) remediate.Outcome {
	if err := ctx.Err(); err != nil {
		return failed(-1, err)
	}
	switch action := action.(type) {
	case remediate.SetSysctl:
		if action.NetNSOf == (facts.Process{}) {
			return setSysctl(action)
		}
		return setSysctlIn(action)
	case remediate.Relisten:
		return relisten(action)
	case remediate.Reload:
		return a.reload(ctx, action)
	case remediate.Start:
		return a.start(ctx, action)
	default:
		return failed(-1, fmt.Errorf("unknown action %T", action))
	}
}

// errGone is the error of a compare-and-swap whose object has changed or ended.
var errGone = errors.New("changed since the plan")

func failed(now int, err error) remediate.Outcome {
	return remediate.Outcome{Result: remediate.Failed, Now: now, Err: err}
}

// errNotAsked is the error of a reload that its uWSGI is not ready for.
var errNotAsked = errors.New("was not asked to reload")

// failure is Stale for errGone and errNotAsked, and Failed for the rest.
func failure(now int, err error) remediate.Outcome {
	o := failed(now, err)
	if errors.Is(err, errGone) || errors.Is(err, errNotAsked) {
		o.Result = remediate.Stale
	}
	return o
}

// compare is the compare of compare-and-swap. ok is false where o is the
// answer: the value already is what it shall be, or is not what the plan saw.
func compare(what string, now, from, to int, undo bool) (o remediate.Outcome, ok bool) {
	switch {
	case to < from && !undo:
		return failed(now, fmt.Errorf("refuses to lower %s from %d to %d", what, from, to)), false
	case now == from:
		return remediate.Outcome{}, true
	case !undo && now >= to, undo && now <= to:
		return remediate.Outcome{Result: remediate.Skipped, Now: now, Note: fmt.Sprintf("%s already is %d", what, now)}, false
	default:
		return failure(now, fmt.Errorf("%s is %d, not %d: %w", what, now, from, errGone)), false
	}
}

// openProcess is a handle on a process that a recycled pid cannot stand in for:
// the start time is compared when the pidfd is already held.
func openProcess(p facts.Process) (pidfd int, err error) {
	pidfd, err = kernel.OpenPidfd(p.PID)
	switch {
	case errors.Is(err, unix.ESRCH):
		return -1, ended(p.PID)
	case err != nil:
		return -1, err
	}
	st, err := kernel.ReadStat(p.PID)
	if err != nil || st.Start != p.Start {
		unix.Close(pidfd)
		return -1, fmt.Errorf("process %d is no longer the uWSGI that it was: %w", p.PID, errGone)
	}
	return pidfd, nil
}

// changed is the error of what finds the host otherwise than the plan saw it.
func changed(format string, args ...any) error {
	return fmt.Errorf("%s (%w)", fmt.Sprintf(format, args...), errGone)
}

// noReload is the error of a master that is not reloaded. harm is why where that is
// seen, and so has come after the plan, which was made for the same reasons; else it
// is not known whether it has.
func noReload(pid int, why, harm string) error {
	if harm != "" {
		return changed("uWSGI %d is not reloaded: %s", pid, why)
	}
	return fmt.Errorf("uWSGI %d is not reloaded: %s", pid, why)
}

func ended(pid int) error { return fmt.Errorf("uWSGI %d has ended: %w", pid, errGone) }

// openNetNS opens the network namespace in which the socket lives.
func openNetNS(s facts.Socket) (*kernel.NetNS, error) {
	if !s.OtherNetNS {
		return kernel.OpenNetNS()
	}
	n, err := kernel.OpenNetNSOf(s.Master.PID)
	if err != nil {
		return nil, fmt.Errorf("network namespace of %s: %w", s.Name(), err)
	}
	return n, nil
}
