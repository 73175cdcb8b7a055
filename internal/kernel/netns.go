package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// NetNS is one network namespace. Its files are opened once, from inside, and
// read again and again: an open file of /proc/net or /proc/sys/net stays with
// the namespace of the thread that opened it (get_proc_net,
// fs/proc/proc_net.c; net_ctl_header_lookup, net/sysctl_net.c). One goroutine
// at a time may use it.
type NetNS struct {
	ID uint64 // the inode of /proc/PID/ns/net

	diag         *netlink.Conn
	netstat      *os.File
	netstatInode uint64 // each namespace has its own
	snmp         *os.File
	somaxconn    *os.File // nil where it could not be opened
	noSomaxconn  error    // why
}

// OpenNetNS opens the network namespace of the calling thread.
func OpenNetNS() (n *NetNS, err error) {
	n = &NetNS{}
	defer func() {
		if err != nil {
			n.Close()
			n = nil
		}
	}()
	if n.ID, err = inode("/proc/thread-self/ns/net"); err != nil {
		return n, err
	}
	if err = n.Redial(); err != nil {
		return n, err
	}
	if n.netstat, err = os.Open("/proc/thread-self/net/netstat"); err != nil {
		return n, err
	}
	if n.netstatInode, err = inode("/proc/thread-self/net/netstat"); err != nil {
		return n, err
	}
	if n.snmp, err = os.Open("/proc/thread-self/net/snmp"); err != nil {
		return n, err
	}
	// Without it a namespace can still be watched.
	n.somaxconn, n.noSomaxconn = os.Open(SysctlDir + "net/core/somaxconn")
	return n, nil
}

// OpenNetNSOf opens the network namespace of a process. An error says which
// right is missing.
func OpenNetNSOf(pid int) (n *NetNS, err error) {
	err = InNetNSOf(pid, func() (err error) {
		n, err = OpenNetNS()
		return err
	})
	return n, err
}

// InNetNSOf runs f on a thread in the network namespace of a process. It needs
// CAP_SYS_PTRACE to open the namespace of another user's process and
// CAP_SYS_ADMIN to enter it (setns(2)).
func InNetNSOf(pid int, f func() error) error {
	target, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return Explain(EnterNetNS, "", err)
	}
	defer target.Close()
	done := make(chan error)
	go func() {
		// The thread is given back only when it is in its own namespace again;
		// otherwise the goroutine ends locked, and the runtime ends the thread.
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer own.Close()
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- Explain(EnterNetNS, "setns", err)
			return
		}
		err = f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Redial opens sock_diag again, in the calling thread's namespace. After an
// error the rest of an answer may still be queued on the old one.
func (n *NetNS) Redial() error {
	diag, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("open sock_diag: %w", err)
	}
	if n.diag != nil {
		n.diag.Close()
	}
	n.diag = diag
	return nil
}

// Close gives back what the namespace holds open.
func (n *NetNS) Close() error {
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

// inode is the number of the file that path leads to.
func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// Listeners lists the listening sockets of the namespace. missing names the
// families that this kernel cannot show.
func (n *NetNS) Listeners() (found []Listener, missing []Family, err error) {
	for _, family := range []Family{TCP, TCP6, Unix} {
		found, err = listeners(n.diag, family, found)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP): // its module is not there
			missing = append(missing, family)
		case err != nil:
			return nil, nil, err
		}
	}
	return found, missing, nil
}

// ListenersOf lists those of one family.
func (n *NetNS) ListenersOf(family Family) ([]Listener, error) {
	return listeners(n.diag, family, nil)
}

// Counters count since the birth of a namespace, for all its sockets.
type Counters struct {
	// Overflows is how often an accept queue was found full (ListenOverflows).
	Overflows uint64
	// OtherDrops is what the listening sockets count as drops though their
	// queue has room (see Listener.Drops), as far as the kernel counts it apart:
	// the ACK of a connection that waits for its first data (TCPDeferAcceptDrop),
	// half-open connections that end (EmbryonicRsts), and connections refused
	// for another reason (ListenDrops without ListenOverflows).
	OtherDrops uint64
}

// Counters reads the counters.
func (n *NetNS) Counters() (c Counters, err error) {
	b, err := readAt0(int(n.netstat.Fd()), n.netstat.Name())
	if err != nil {
		return Counters{}, err
	}
	v := counters(b, "TcpExt:", "ListenOverflows", "ListenDrops", "TCPDeferAcceptDrop", "EmbryonicRsts")
	return Counters{v[0], max(v[1], v[0]) - v[0] + v[2] + v[3]}, nil
}

// Opens reads Tcp PassiveOpens: how many connections have entered an accept
// queue of the namespace since its birth.
func (n *NetNS) Opens() (uint64, error) {
	b, err := readAt0(int(n.snmp.Fd()), n.snmp.Name())
	if err != nil {
		return 0, err
	}
	return counters(b, "Tcp:", "PassiveOpens")[0], nil
}

// Somaxconn reads net.core.somaxconn.
func (n *NetNS) Somaxconn() (int, error) {
	if n.somaxconn == nil {
		return 0, n.noSomaxconn
	}
	b, err := readAt0(int(n.somaxconn.Fd()), n.somaxconn.Name())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(b)))
}

// counters finds values in the text of /proc/net/netstat or snmp: lines in
// pairs, first the names, then the numbers, both behind the same prefix. One
// that this kernel does not have is 0.
func counters(text []byte, prefix string, names ...string) (values [4]uint64) {
	var columns [4]int
	named := false
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(prefix)) {
			continue
		}
		i := 0
		for field := range bytes.FieldsSeq(line) {
			for n, name := range names {
				switch {
				case !named && columns[n] == 0 && string(field) == name:
					columns[n] = i
				case named && i > 0 && columns[n] == i:
					values[n], _ = strconv.ParseUint(string(field), 10, 64)
				}
			}
			i++
		}
		if named {
			break
		}
		named = true
	}
	return values
}
