package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"qwatch/remediate/facts"
	"strconv"

	"golang.org/x/sys/unix"

	"qwatch/remediate"
)

// Apply changes the host by one action. It answers remediate.Stale and changes
// nothing unless the host still is as the action says; the error of a failure
// says what would allow it. It may run while the host is looked at. It knows no
// systemd: see WithUnits.
func (h *Host) Apply(ctx context.Context, action remediate.Action) remediate.Outcome {
	return h.WithUnits(nil).Apply(ctx, action)
}

// WithUnits returns an Applier that reloads and starts units through u; nil
// where no systemd runs.
func (h *Host) WithUnits(u Units) remediate.Applier {
	return hand{processes: h.options.Processes, units: u}
}

// hand does the actions. It shares nothing with the looks of a Host.
type hand struct {
	processes []string
	units     Units
}

// Apply implements remediate.Applier.
func (h hand) Apply(ctx context.Context, action remediate.Action) remediate.Outcome {
	if err := ctx.Err(); err != nil {
		return failed(-1, err)
	}
	switch a := action.(type) {
	case remediate.SetSysctl:
		if a.NetNSOf == (facts.Process{}) {
			return setSysctl(a)
		}
		return setSysctlIn(a)
	case remediate.Relisten:
		return relisten(a)
	case remediate.Reload:
		return h.reload(ctx, a)
	case remediate.Start:
		return h.start(ctx, a)
	default:
		return failed(-1, fmt.Errorf("unknown action %T", action))
	}
}

// errGone is the error of a compare-and-swap whose object has changed or ended.
var errGone = errors.New("changed since the plan")

func failed(now int, err error) remediate.Outcome {
	return remediate.Outcome{Result: remediate.Failed, Now: now, Err: err}
}

// failure is Stale for errGone and Failed for the rest.
func failure(now int, err error) remediate.Outcome {
	r := failed(now, err)
	if errors.Is(err, errGone) {
		r.Result = remediate.Stale
	}
	return r
}

// compare is the compare of compare-and-swap. ok is false where r is the
// answer: the value already is what it shall be, or is not what the plan saw.
func compare(what string, now, from, to int, undo bool) (r remediate.Outcome, ok bool) {
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
	pidfd, err = unix.PidfdOpen(p.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return -1, fmt.Errorf("uWSGI %d has ended: %w", p.PID, errGone)
	case errors.Is(err, unix.ENOSYS):
		return -1, fmt.Errorf("pidfd_open: %w; needs Linux 5.3, and no seccomp filter against it", err)
	case err != nil:
		return -1, fmt.Errorf("pidfd_open of process %d: %w", p.PID, err)
	}
	st, err := readStat(p.PID)
	if err != nil || st.start != p.Start {
		unix.Close(pidfd)
		return -1, fmt.Errorf("process %d is no longer the uWSGI that it was: %w", p.PID, errGone)
	}
	return pidfd, nil
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}
