package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
	"qwatch/internal/kernel"
	"qwatch/remediate/facts"
)

// rights are what is tried, as far as that changes nothing.
type rights struct {
	targets    []target
	sysctlFile string // "" for none
}

// steps are those that can be tried.
func (r *rights) steps() []facts.Step {
	steps := []facts.Step{facts.StepSysctl, facts.StepRelisten, facts.StepReload, facts.StepJournal}
	if r.sysctlFile != "" {
		steps = append(steps, facts.StepSysctlFile)
	}
	return steps
}

// try tries a step. The error says why it cannot be done, and what would allow
// it. It blocks while a process is in execve(2), or a file system hangs.
func (r *rights) try(step facts.Step) error {
	switch step {
	case facts.StepSysctl:
		return kernel.MaySetSysctl("net/core/somaxconn")
	case facts.StepSysctlFile:
		return kernel.MayWriteIn(filepath.Dir(r.sysctlFile))
	case facts.StepRelisten:
		filtered, _ := kernel.MayCallPidfd()
		return cmp.Or(filtered, kernel.MayListen(),
			anyOf(r.targets, func(t target) error { return kernel.MayTakeDescriptor(t.pid, t.fd) }))
	case facts.StepReload:
		_, filtered := kernel.MayCallPidfd()
		return cmp.Or(filtered, anyOf(r.targets, func(t target) error { return kernel.MaySignal(t.pid) }))
	case facts.StepContainers:
		return kernel.InNetNSOf(os.Getpid(), func() error { return nil })
	}
	return mayReadJournal()
}

// triedRights are those of the newest look.
func (h *Host) triedRights() *rights {
	if r := h.rights.Load(); r != nil {
		return r
	}
	return &rights{[]target{{1, 0}}, h.options.Load().SysctlFile}
}

// Cannot tries every step now, also where Options.AssumeRights is set, and says
// why those that this process may not do are not possible. What gives no
// answer in time is not possible either.
func (h *Host) Cannot(ctx context.Context) map[facts.Step]string {
	cannot := make(map[facts.Step]string)
	for _, step := range append(h.triedRights().steps(), facts.StepContainers) {
		if _, err := h.lookups.own.One(ctx, step); err != nil {
			cannot[step] = err.Error()
		}
	}
	return cannot
}

// mayReadJournal looks for journalctl and for a system journal that it could
// read (systemd-journald.service(8), FILES).
func mayReadJournal() error {
	if _, err := exec.LookPath("journalctl"); err != nil {
		return fmt.Errorf("%w; install systemd, or follow files", err)
	}
	var files []string
	for _, dir := range []string{"/run/log/journal", "/var/log/journal"} {
		machines, _ := bounded.Names(dir, 1024)
		for _, machine := range machines {
			files = append(files, filepath.Join(dir, machine, "system.journal"))
		}
	}
	err := errors.New("no system journal to read in /run/log/journal or /var/log/journal; add the user to the group systemd-journal, or follow files where no systemd-journald runs")
	for _, file := range files {
		if err = unix.Access(file, unix.R_OK); err == nil {
			return nil
		}
		err = fmt.Errorf("read %s: %w; add the user to the group systemd-journal", file, err)
	}
	return err
}

// target is a descriptor of a process.
type target struct{ pid, fd int }

// targets are the masters with one of their listening sockets each. Where no
// socket has a known owner it is the uWSGI processes, and where there are none,
// pid 1 stands in: another user's process that qwatch does not know.
func (w *walk) targets() []target {
	fds := make(map[int]int)
	for _, o := range w.owned {
		if o.fd >= 0 {
			fds[o.master.PID] = o.fd
		}
	}
	var targets []target
	for pid, fd := range fds {
		targets = append(targets, target{pid, fd})
	}
	if len(targets) > 0 {
		return targets
	}
	for _, p := range roots(w.procs, func(*kernel.Process) bool { return true }) {
		targets = append(targets, target{p.PID, 0})
	}
	if len(targets) == 0 {
		targets = []target{{1, 0}}
	}
	return targets
}

// anyOf has no error if the trial works on one of the targets, or all have
// ended; else it is the last one's. A step that is possible for some uWSGI and
// not for others is possible; the others fail with their own error.
func anyOf(targets []target, try func(target) error) (err error) {
	for _, t := range targets {
		switch failure := try(t); {
		case failure == nil:
			return nil
		case !errors.Is(failure, unix.ESRCH):
			err = failure
		}
	}
	return err
}
