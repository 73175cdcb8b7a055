package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Waiting are the clients in the accept queue of a listening UNIX socket, in their
// order: the inode of each one's own socket, 0 where it has closed that. The kernel
// counts nobody who connects to a UNIX socket; a queue that is as long as before
// may hold the same clients, or others (sk_diag_dump_icons, net/unix/diag.c). It is
// an error where too many wait for one answer (unix_diag_get_exact: a page, in which
// Linux 6.18 tells of 1957).
func (n *NetNS) Waiting(inode uint64) ([]uint32, error) {
	b := make([]byte, unixDiagReqLen)
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[8:], uint32(inode))
	binary.NativeEndian.PutUint32(b[12:], udiagShowIcons)
	for i := 16; i < unixDiagReqLen; i++ {
		b[i] = 0xff // any cookie (INET_DIAG_NOCOOKIE)
	}
	answer, err := n.diag.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request},
		Data:   b,
	})
	if err != nil {
		return nil, fmt.Errorf("sock_diag of UNIX socket %d: %w", inode, err)
	}
	for _, m := range answer {
		if len(m.Data) < unixDiagMsgLen {
			return nil, errShort
		}
		for kind, data, rest := attribute(m.Data[unixDiagMsgLen:]); data != nil; kind, data, rest = attribute(rest) {
			if kind != unixDiagIcons {
				continue
			}
			waiting := make([]uint32, len(data)/4)
			for i := range waiting {
				waiting[i] = binary.NativeEndian.Uint32(data[4*i:])
			}
			return waiting, nil
		}
	}
	return nil, fmt.Errorf("sock_diag of UNIX socket %d: the kernel does not tell who waits", inode)
}
