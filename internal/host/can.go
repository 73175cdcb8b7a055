package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"qwatch/remediate/facts"

	"golang.org/x/sys/unix"
)

const somaxconnFile = "/proc/sys/net/core/somaxconn"

// cannot tries each step as far as that changes nothing, and says of those that
// fail why, and what would allow them.
func (h *Host) cannot() map[facts.Step]string {
	cannot := make(map[facts.Step]string)
	if err := trySysctl(); err != nil {
		cannot[facts.StepSysctl] = err.Error()
	}
	if h.options.SysctlFile != "" {
		if err := tryFolder(filepath.Dir(h.options.SysctlFile)); err != nil {
			cannot[facts.StepSysctlFile] = err.Error()
		}
	}
	targets := h.targets()
	if pid, err := anyOf(targets, tryRelisten); err != nil {
		cannot[facts.StepRelisten] = explainGetfd(pid, err).Error()
	}
	if pid, err := anyOf(targets, tryReload); err != nil {
		cannot[facts.StepReload] = explainSignal(pid, err).Error()
	}
	if err := tryJournal(); err != nil {
		cannot[facts.StepJournal] = err.Error()
	}
	return cannot
}

// tryJournal looks for journalctl and for a system journal that it could read
// (systemd-journald.service(8), FILES).
func tryJournal() error {
	if _, err := exec.LookPath("journalctl"); err != nil {
		return fmt.Errorf("%w; install systemd, or follow files", err)
	}
	var files []string
	for _, dir := range []string{"/run/log/journal", "/var/log/journal"} {
		found, _ := filepath.Glob(dir + "/*/system.journal") // the pattern is good
		files = append(files, found...)
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
func (h *Host) targets() []target {
	fds := make(map[int]int)
	for _, o := range h.owned {
		if o.fd >= 0 {
			fds[o.master.PID] = o.fd
		}
	}
	var targets []target
	for _, p := range roots(h.procs, func(*process) bool { return true }) {
		targets = append(targets, target{p.PID, 0})
	}
	if len(fds) > 0 {
		targets = targets[:0]
		for pid, fd := range fds {
			targets = append(targets, target{pid, fd})
		}
	}
	if len(targets) == 0 {
		targets = []target{{1, 0}}
	}
	return targets
}

// anyOf has no error if the trial works on one of the targets, or all have
// ended; else it is the last one's. A step that is possible for some uWSGI and
// not for others is possible; the others fail with their own error.
func anyOf(targets []target, try func(target) error) (pid int, err error) {
	for _, t := range targets {
		switch failure := try(t); {
		case failure == nil:
			return 0, nil
		case !errors.Is(failure, unix.ESRCH):
			pid, err = t.pid, failure
		}
	}
	return pid, err
}

// trySysctl opens for writing, which is where the kernel checks the right
// (proc_sys_permission, net_ctl_permissions), and writes nothing.
func trySysctl() error {
	f, err := os.OpenFile(somaxconnFile, os.O_WRONLY, 0)
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w; /proc/sys is mounted read-only: by ProtectKernelTunables=yes of the service, or by the container", err)
	case err != nil:
		return fmt.Errorf("%w; needs CAP_NET_ADMIN", err)
	}
	return f.Close()
}

// tryFolder makes a file without a name, which goes when it is closed.
func tryFolder(dir string) error {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_WRONLY, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		// This file system or kernel has no O_TMPFILE.
		err = unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS)
		if err == nil {
			return nil
		}
		err = &os.PathError{Op: "access", Path: dir, Err: err}
	}
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w; mounted read-only, or not in ReadWritePaths= of the service", err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w; make the folder", err)
	case err != nil:
		return fmt.Errorf("%w; needs its owner, root, or CAP_DAC_OVERRIDE", err)
	}
	return f.Close()
}

// tryRelisten takes a duplicate of the descriptor and closes it.
func tryRelisten(t target) error {
	pidfd, err := unix.PidfdOpen(t.pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, t.fd, 0)
	switch {
	case errors.Is(err, unix.EBADF):
		return nil // there is no such descriptor, which is looked up behind the check of the right
	case err != nil:
		return err
	}
	return unix.Close(fd)
}

// ptraceScope is the setting of the Yama security module, "" without it.
func ptraceScope() string {
	b, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	return string(bytes.TrimSpace(b))
}

// tryReload sends signal 0: only the right is checked (kill(2)).
func tryReload(t target) error {
	pidfd, err := unix.PidfdOpen(t.pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	return unix.PidfdSendSignal(pidfd, 0, nil, 0)
}

func explainSignal(pid int, err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("pidfd_send_signal: %w; needs Linux 5.3, and no seccomp filter against it", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("signal to process %d: %w; needs the same user or CAP_KILL", pid, err)
	}
	return fmt.Errorf("signal to process %d: %w", pid, err)
}
