package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"qwatch/remediate/facts"
	"runtime"
	"strconv"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// namespace is one network namespace. Its files are opened once, from inside,
// and read again and again: an open file of /proc/net or /proc/sys/net stays
// with the namespace of the thread that opened it (get_proc_net,
// fs/proc/proc_net.c; net_ctl_header_lookup, net/sysctl_net.c).
type namespace struct {
	id        uint64
	diag      *netlink.Conn
	netstat   *os.File
	snmp      *os.File
	somaxconn *os.File // nil where it could not be opened
}

// openNamespace opens the network namespace of the calling thread.
func openNamespace() (n *namespace, err error) {
	n = &namespace{}
	defer func() {
		if err != nil {
			n.close()
			n = nil
		}
	}()
	if n.id, err = netnsID("/proc/thread-self"); err != nil {
		return n, err
	}
	if n.diag, err = netlink.Dial(unix.NETLINK_SOCK_DIAG, nil); err != nil {
		return n, fmt.Errorf("open sock_diag: %w", err)
	}
	if n.netstat, err = os.Open("/proc/thread-self/net/netstat"); err != nil {
		return n, err
	}
	if n.snmp, err = os.Open("/proc/thread-self/net/snmp"); err != nil {
		return n, err
	}
	// Without it a namespace can still be watched.
	n.somaxconn, _ = os.Open("/proc/sys/net/core/somaxconn")
	return n, nil
}

// enterNamespace opens the network namespace of a process.
func enterNamespace(pid int) (n *namespace, err error) {
	err = inNamespaceOf(pid, func() (err error) {
		n, err = openNamespace()
		return err
	})
	return n, err
}

// inNamespaceOf runs f on a thread in the network namespace of a process. It needs
// CAP_SYS_PTRACE to open the namespace of another user's process and
// CAP_SYS_ADMIN to enter it (setns(2)).
func inNamespaceOf(pid int, f func() error) error {
	target, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer target.Close()
	done := make(chan error)
	go func() {
		// The thread is given back only when it is at home again; otherwise
		// the goroutine ends locked, and the runtime ends the thread.
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("setns: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// redial opens sock_diag again, in the calling thread's namespace. After an
// error the rest of an answer may still be queued on the old one.
func (n *namespace) redial() error {
	diag, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("open sock_diag: %w", err)
	}
	n.diag.Close()
	n.diag = diag
	return nil
}

func (n *namespace) close() error {
	var errs []error
	if n.diag != nil {
		errs = append(errs, n.diag.Close())
	}
	for _, f := range []*os.File{n.netstat, n.snmp, n.somaxconn} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// netnsID is the inode of a process' network namespace; dir is /proc/PID.
func netnsID(dir string) (uint64, error) { return inode(dir + "/ns/net") }

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// dump lists the listening sockets of the namespace. missing names the
// families that this kernel cannot show.
func (n *namespace) dump() (found []listener, missing []facts.Family, err error) {
	for _, family := range []facts.Family{facts.TCP, facts.TCP6, facts.Unix} {
		found, err = listeners(n.diag, family, found)
		switch {
		case absent(err):
			missing = append(missing, family)
		case err != nil:
			return nil, nil, err
		}
	}
	return found, missing, nil
}

// counters reads TcpExt ListenOverflows and Tcp PassiveOpens.
func (n *namespace) counters(buf []byte) (overflows, opens uint64, err error) {
	b, err := readAt0(n.netstat, buf)
	if err != nil {
		return 0, 0, err
	}
	overflows = counter(b, "TcpExt:", "ListenOverflows")
	if b, err = readAt0(n.snmp, buf); err != nil {
		return 0, 0, err
	}
	return overflows, counter(b, "Tcp:", "PassiveOpens"), nil
}

// limit reads net.core.somaxconn, 0 where it cannot be read.
func (n *namespace) limit(buf []byte) int {
	if n.somaxconn == nil {
		return 0
	}
	b, err := readAt0(n.somaxconn, buf)
	if err != nil {
		return 0
	}
	v, _ := strconv.Atoi(string(bytes.TrimSpace(b)))
	return v
}

// readAt0 reads a file of /proc from its start with one pread: each further
// call would make the kernel write the whole text again (seq_read_iter). buf
// must be larger than the text.
func readAt0(f *os.File, buf []byte) ([]byte, error) {
	n, err := unix.Pread(int(f.Fd()), buf, 0)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: f.Name(), Err: err}
	}
	return buf[:n], nil
}

// counter finds a value in the text of /proc/net/netstat or snmp: lines in
// pairs, first the names, then the numbers, both behind the same prefix. It is
// 0 where this kernel does not have it.
func counter(text []byte, prefix, name string) uint64 {
	column := -1
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(prefix)) {
			continue
		}
		i := 0
		for field := range bytes.FieldsSeq(line) {
			if column < 0 && string(field) == name {
				column = i
				break
			}
			if column > 0 && i == column {
				v, _ := strconv.ParseUint(string(field), 10, 64)
				return v
			}
			i++
		}
	}
	return 0
}
