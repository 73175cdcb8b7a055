package apply

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// relisten calls listen(2) on the running socket. On one that listens already
// only the limit changes; the queue stays (__inet_listen_sk,
// net/ipv4/af_inet.c; unix_listen, net/unix/af_unix.c).
func relisten(a remediate.Relisten) remediate.Outcome {
	s := a.Socket
	fd, err := borrow(s)
	if err != nil {
		return failure(-1, err)
	}
	defer unix.Close(fd)
	netns, err := openNetNS(s)
	if err != nil {
		return failed(-1, err)
	}
	defer netns.Close()
	was, err := limitOf(netns, s)
	if err != nil {
		return failure(-1, err)
	}
	if o, ok := compare("the limit of "+s.Name(), was, a.From, a.To, a.Undo); !ok {
		return o
	}
	if most, err := netns.Somaxconn(); err == nil && most < a.To {
		return failed(was, fmt.Errorf("net.core.somaxconn of the socket's network namespace is %d: listen(2) would stop there instead of at %d; raise it first", most, a.To))
	}
	if err := unix.Listen(fd, a.To); err != nil {
		return failed(was, fmt.Errorf("listen on %s: %w", s.Name(), err))
	}
	now, err := limitOf(netns, s)
	if err == nil && now != a.To {
		// Not Failed: that would ask for a reload, and a process that calls
		// listen(2) all the time could have one, and its wait, at will.
		err = fmt.Errorf("the limit of %s is %d after listen(2) with %d, the process calls it too: %w", s.Name(), now, a.To, errGone)
	}
	if err != nil {
		return failure(now, err)
	}
	return remediate.Outcome{Result: remediate.Applied, Now: now}
}

// limitOf is the socket's limit as sock_diag shows it.
func limitOf(netns *kernel.NetNS, s facts.Socket) (int, error) {
	if netns.ID != s.ID.NetNS {
		return -1, fmt.Errorf("network namespace %d of %s is another now: %w", s.ID.NetNS, s.Name(), errGone)
	}
	all, err := netns.ListenersOf(kernel.Family(s.Family))
	if err != nil {
		return -1, err
	}
	i := slices.IndexFunc(all, func(l kernel.Listener) bool { return l.Inode == s.ID.Inode })
	if i < 0 {
		return -1, fmt.Errorf("socket %d of %s no longer listens: %w", s.ID.Inode, s.Name(), errGone)
	}
	return all[i].Limit, nil
}

// borrow returns a duplicate of the master's descriptor of the socket.
func borrow(s facts.Socket) (fd int, err error) {
	pidfd, err := openProcess(s.Master)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	if s.FD >= 0 {
		if fd, err = duplicate(pidfd, s.FD, s); err == nil {
			return fd, nil
		}
		if !errors.Is(err, errGone) {
			return -1, err
		}
	}
	held, err := kernel.Sockets(s.Master.PID)
	at, ok := held[s.ID.Inode]
	if err != nil && !ok {
		return -1, kernel.Explain(kernel.ListOpen, fmt.Sprintf("find socket %d in uWSGI %d", s.ID.Inode, s.Master.PID), err)
	}
	if !ok {
		return -1, fmt.Errorf("uWSGI %d no longer holds socket %d of %s: %w", s.Master.PID, s.ID.Inode, s.Name(), errGone)
	}
	return duplicate(pidfd, at, s)
}

// duplicate takes one descriptor of the process and makes sure that it is the
// socket.
func duplicate(pidfd, at int, s facts.Socket) (int, error) {
	fd, err := unix.PidfdGetfd(pidfd, at, 0)
	if err != nil {
		return -1, whyNoDescriptor(s.Master.PID, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Ino != s.ID.Inode {
		unix.Close(fd)
		return -1, fmt.Errorf("descriptor %d of uWSGI %d is not socket %d: %w", at, s.Master.PID, s.ID.Inode, errGone)
	}
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens != 1 {
		unix.Close(fd)
		return -1, fmt.Errorf("socket %d of %s no longer listens: %w", s.ID.Inode, s.Name(), errGone)
	}
	return fd, nil
}

// whyNoDescriptor tells a process that has changed from a right that is missing.
func whyNoDescriptor(pid int, err error) error {
	switch {
	case errors.Is(err, unix.EBADF):
		return fmt.Errorf("the descriptor of uWSGI %d is closed: %w", pid, errGone)
	case errors.Is(err, unix.ESRCH):
		return ended(pid)
	}
	return kernel.Explain(kernel.TakeDescriptor, fmt.Sprintf("process %d", pid), err)
}
