package kernel

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	at := func(op, path string, errno unix.Errno) error { return &os.PathError{Op: op, Path: path, Err: errno} }
	for _, c := range []struct {
		op      Op
		subject string
		err     error
		want    string
	}{
		{OpenProcess, "process 7", unix.ENOSYS, "pidfd_open: function not implemented; needs Linux 5.3, and no seccomp filter against it"},
		{OpenProcess, "process 7", unix.EPERM, "pidfd_open of process 7: operation not permitted; needs no seccomp filter against it"},
		{OpenProcess, "process 7", unix.ESRCH, "pidfd_open of process 7: no such process"},
		{TakeDescriptor, "process 7", unix.ENOSYS, "pidfd_getfd: function not implemented; needs Linux 5.6, and no seccomp filter against it"},
		{TakeDescriptor, "process 7", unix.EPERM, "pidfd_getfd of process 7: operation not permitted; needs CAP_SYS_PTRACE, and no seccomp filter against it"},
		{TakeDescriptor, "process 7", unix.EMFILE, "pidfd_getfd of process 7: too many open files"},
		{SendSignal, "SIGHUP to process 7", unix.ENOSYS, "pidfd_send_signal: function not implemented; needs Linux 5.1, and no seccomp filter against it"},
		{SendSignal, "SIGHUP to process 7", unix.EPERM, "SIGHUP to process 7: operation not permitted; needs the same user or CAP_KILL, and no seccomp filter against it"},
		{ListOpen, "the sockets of uWSGI 7", at("open", "/proc/7/fd", unix.EACCES), "the sockets of uWSGI 7: open /proc/7/fd: permission denied; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"},
		{ListOpen, "", at("open", "/proc/7/fd", unix.ENOENT), "open /proc/7/fd: no such file or directory"},
		{ReadRoot, "", at("open", "/proc/7/root", unix.EACCES), "open /proc/7/root: permission denied; needs CAP_SYS_PTRACE"},
		{EnterNetNS, "setns", unix.EPERM, "setns: operation not permitted; needs CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no RestrictNamespaces= of the service against it"},
		{EnterNetNS, "uWSGI 7", Hidden("it lives in another network namespace"), "uWSGI 7: it lives in another network namespace; needs CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no RestrictNamespaces= of the service against it"},
		{SeeProcesses, "the processes of other users", Hidden("/proc is mounted with hidepid"), "the processes of other users: /proc is mounted with hidepid; needs CAP_SYS_PTRACE or the group of its gid= option"},
		{SetSysctl, "", at("open", "/proc/sys/net/core/somaxconn", unix.EACCES), "open /proc/sys/net/core/somaxconn: permission denied; needs root or CAP_NET_ADMIN, in the user namespace that owns the network namespace"},
		{SetSysctl, "", at("open", "/proc/sys/net/core/somaxconn", unix.EROFS), "open /proc/sys/net/core/somaxconn: read-only file system; /proc/sys is mounted read-only: by ProtectKernelTunables=yes of the service, or by the container"},
		{WriteDirectory, "", at("create", "/etc/sysctl.d/a.conf", unix.EPERM), "create /etc/sysctl.d/a.conf: operation not permitted; needs the owner of the directory, root, or CAP_DAC_OVERRIDE"},
		{WriteDirectory, "", at("write", "/etc/sysctl.d/a.conf", unix.ENOSPC), "write /etc/sysctl.d/a.conf: no space left on device; make room, or set policy.sysctl file to another directory"},
		{WriteDirectory, "", at("write", "/etc/sysctl.d/a.conf", unix.EDQUOT), "write /etc/sysctl.d/a.conf: disk quota exceeded; make room, or set policy.sysctl file to another directory"},
		{WriteDirectory, "", at("open", "/etc/sysctl.d", unix.EROFS), "open /etc/sysctl.d: read-only file system; mounted read-only, or not in ReadWritePaths= of the service"},
		{WriteDirectory, "", at("open", "/etc/sysctl.d", unix.ENOENT), "open /etc/sysctl.d: no such file or directory; make the directory"},
		{TouchFile, "", at("touch", "/run/touch", unix.EPERM), "touch /run/touch: operation not permitted; needs the owner of the file or CAP_FOWNER"},
	} {
		got := Explain(c.op, c.subject, c.err)
		if got.Error() != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
		if !errors.Is(got, c.err) {
			t.Errorf("%q does not wrap its cause", got)
		}
	}
	if err := Explain(SetSysctl, "", nil); err != nil {
		t.Errorf("without an error: %v", err)
	}
	if !errors.Is(Hidden("x"), fs.ErrPermission) {
		t.Error("what is hidden is no missing permission")
	}
}
