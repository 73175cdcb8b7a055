package kernel

import (
	"errors"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OpenPidfd opens a handle on a process that a recycled pid cannot stand in
// for. The error is ESRCH where the process has ended.
func OpenPidfd(pid int) (fd int, err error) {
	fd, err = unix.PidfdOpen(pid, 0)
	return fd, Explain(OpenProcess, process(pid), err)
}

// MayTakeDescriptor tries pidfd_getfd(2): it takes a duplicate of a descriptor
// of the process, and closes it. An error says which right is missing.
func MayTakeDescriptor(pid, descriptor int) error {
	pidfd, err := OpenPidfd(pid)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, descriptor, 0)
	switch {
	case errors.Is(err, unix.EBADF):
		return nil // there is no such descriptor, which is looked up behind the check of the right
	case err != nil:
		return Explain(TakeDescriptor, process(pid), err)
	}
	return unix.Close(fd)
}

// MayListen calls listen(2) on a UNIX socket of its own, which has a name that
// the kernel chooses (unix(7), autobind) and goes at once: what refuses it is a
// filter of the service or the container.
func MayListen() error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
	if err != nil {
		return onItself("listen of a socket of its own", err)
	}
	return l.Close()
}

// MayCallPidfd tries pidfd_getfd(2) and pidfd_send_signal(2) on the caller
// itself, where no right is needed (ptrace(2), kill(2)): what refuses them is a
// filter of the service or the container.
func MayCallPidfd() (take, signal error) {
	pidfd, err := OpenPidfd(os.Getpid())
	if err != nil {
		return err, err
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err == nil {
		unix.Close(fd)
	}
	return onItself("pidfd_getfd of qwatch itself", err),
		onItself("pidfd_send_signal to qwatch itself", unix.PidfdSendSignal(pidfd, 0, nil, 0))
}

func onItself(call string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno // package net says the rest again
	}
	if errors.Is(err, unix.ENOSYS) {
		return nil // Linux is too old, which the trial on another process tells better
	}
	return Explain(UseOnItself, call, err)
}

// MaySignal sends the process signal 0: only the right is checked (kill(2)). An
// error says which right is missing.
func MaySignal(pid int) error {
	pidfd, err := OpenPidfd(pid)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	return Explain(SendSignal, "signal to "+process(pid), unix.PidfdSendSignal(pidfd, 0, nil, 0))
}

// MaySetSysctl opens a kernel parameter, by its path below /proc/sys, for
// writing, which is where the kernel checks the right (proc_sys_permission,
// net_ctl_permissions), and writes nothing. An error says which right is
// missing.
func MaySetSysctl(path string) error {
	f, err := os.OpenFile(SysctlDir+path, os.O_WRONLY, 0)
	if err != nil {
		return Explain(SetSysctl, "", err)
	}
	return f.Close()
}

// MayWriteIn makes a file without a name in a directory, which goes when it is
// closed. An error says what is missing.
func MayWriteIn(dir string) error {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_WRONLY, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		// This file system or kernel has no O_TMPFILE.
		err = unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS)
		if err == nil {
			return nil
		}
		err = &os.PathError{Op: "access", Path: dir, Err: err}
	}
	if err != nil {
		return Explain(WriteDirectory, "", err)
	}
	return f.Close()
}

// MayWrite looks whether a file may be written. An error says which right is
// missing.
func MayWrite(path string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS); err != nil {
		return Explain(WriteFile, "", &os.PathError{Op: "write", Path: path, Err: err})
	}
	return nil
}

// MayTouch looks whether the times of a file may be set (utimensat(2)). An error
// says which right is missing.
func MayTouch(path string) error {
	var st unix.Stat_t
	var mount unix.Statfs_t
	err := unix.Lstat(path, &st)
	if err == nil && unix.Statfs(path, &mount) == nil && mount.Flags&unix.ST_RDONLY != 0 {
		err = unix.EROFS
	}
	if euid := os.Geteuid(); err == nil && int(st.Uid) != euid {
		status, failed := read("/proc/self/status")
		capabilities, missing := field(status, "CapEff")
		effective, _ := strconv.ParseUint(string(capabilities), 16, 64)
		if failed == nil && missing == nil && effective&(1<<unix.CAP_FOWNER) == 0 {
			err = unix.EPERM
		}
	}
	if err != nil {
		return Explain(TouchFile, "", &os.PathError{Op: "touch", Path: path, Err: err})
	}
	return nil
}

func process(pid int) string { return "process " + strconv.Itoa(pid) }
