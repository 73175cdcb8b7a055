package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// Op is something that the kernel may refuse.
type Op int

// What Explain knows of. The subject is what the operation was tried on; it may
// be "" where the error itself names a path.
const (
	OpenProcess    Op = iota // pidfd_open(2) of a process
	TakeDescriptor           // pidfd_getfd(2) of a process
	SendSignal               // pidfd_send_signal(2)
	UseOnItself              // a call that needs no right on the caller's own process or socket
	ListOpen                 // what another user's process has open, in /proc/PID/fd
	SeeProgram               // /proc/PID/exe
	ReadRoot                 // files below /proc/PID/root
	LookBelow                // at what a process may read, in a folder that is closed to others
	EnterNetNS               // /proc/PID/ns/net and setns(2)
	SeeProcesses             // the processes of others in /proc
	SetSysctl                // writing below /proc/sys/net
	WriteDirectory           // writing a file into a directory
	TouchFile                // setting the times of a file
	WriteFile                // writing a file
)

// operation is what is known of an Op. A right is what EPERM and EACCES ask for.
type operation struct {
	call  string // the system call that a kernel may lack, and
	since string // the Linux that brought it
	right string
	other map[unix.Errno]string
}

// SeeAll is the cure for whoever may not see what others hold.
const SeeAll = "needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, which the drop-in audit-reads-all.conf gives to qwatch-audit.service"

const noFilter = ", and no seccomp filter against it"

var operations = [...]operation{
	// The versions stand in pidfd_open(2), pidfd_getfd(2) and
	// pidfd_send_signal(2).
	OpenProcess: {call: "pidfd_open", since: "5.3", right: "needs no seccomp filter against it"},
	TakeDescriptor: {call: "pidfd_getfd", since: "5.6",
		right: "needs CAP_SYS_PTRACE" + noFilter}, // ptrace(2), PTRACE_MODE_ATTACH_REALCREDS
	SendSignal: {call: "pidfd_send_signal", since: "5.1",
		right: "needs the same user or CAP_KILL" + noFilter},
	UseOnItself: {right: "needs no seccomp filter against it"},
	ListOpen:    {right: "needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"},
	SeeProgram:  {right: "needs CAP_SYS_PTRACE"},
	ReadRoot:    {right: "needs CAP_SYS_PTRACE"},
	LookBelow:   {right: "needs CAP_DAC_READ_SEARCH"},
	EnterNetNS: {
		right: "needs CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no RestrictNamespaces= of the service against it"},
	SeeProcesses: {right: "needs CAP_SYS_PTRACE or the group of its gid= option"},
	SetSysctl: {right: "needs root or CAP_NET_ADMIN, in the user namespace that owns the network namespace",
		other: map[unix.Errno]string{
			unix.EROFS: "/proc/sys is mounted read-only: by ProtectKernelTunables=yes of the service, or by the container"}},
	WriteDirectory: {right: "needs the owner of the directory, root, or CAP_DAC_OVERRIDE",
		other: map[unix.Errno]string{
			unix.EROFS:  "mounted read-only, or not in ReadWritePaths= of the service",
			unix.ENOENT: "make the directory",
			unix.ENOSPC: "make room, or set policy.sysctl file to another directory",
			unix.EDQUOT: "make room, or set policy.sysctl file to another directory"}},
	TouchFile: {right: "needs the owner of the file or CAP_FOWNER",
		other: map[unix.Errno]string{
			unix.EROFS: "mounted read-only, or not in ReadWritePaths= of the service (the drop-in reload-by-file.conf)"}},
	WriteFile: {right: "needs the owner of the file, or CAP_DAC_OVERRIDE"},
}

// Explain adds to the error of an operation on a subject what would allow it:
// "pidfd_getfd of process 7: operation not permitted; needs CAP_SYS_PTRACE". It
// is nil for nil, wraps err, and says no more than err where it knows no cure.
func Explain(op Op, subject string, err error) error {
	if err == nil {
		return nil
	}
	o := operations[op]
	hint := o.right
	var errno unix.Errno
	switch errors.As(err, &errno); {
	case errno == unix.ENOSYS && o.call != "":
		return fmt.Errorf("%s: %w; needs Linux %s%s", o.call, err, o.since, noFilter)
	case op == TakeDescriptor && errno == unix.EPERM && yama() == "3":
		hint = "kernel.yama.ptrace_scope is 3, which forbids it until the next boot"
	case !errors.Is(err, fs.ErrPermission):
		hint = o.other[errno]
	}
	if (op == OpenProcess || op == TakeDescriptor) && subject != "" {
		subject = o.call + " of " + subject
	}
	if subject != "" {
		err = fmt.Errorf("%s: %w", subject, err)
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, hint)
}

// yama is the setting of the security module that bounds ptrace(2), "" where
// the kernel has none (Documentation/admin-guide/LSM/Yama.rst).
func yama() string {
	b, _ := bounded.ReadFile(SysctlDir+"kernel/yama/ptrace_scope", 16)
	return string(bytes.TrimSpace(b))
}

// Hidden is the error of something that the kernel leaves out instead of
// refusing it; a missing permission all the same.
type Hidden string

// Error is the text itself.
func (h Hidden) Error() string { return string(h) }

// Is makes it a missing permission.
func (h Hidden) Is(target error) bool { return target == fs.ErrPermission }
