package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The sock_diag requests and answers; include/uapi/linux/{sock,inet,unix}_diag.h.
const (
	tcpListen = 10 // include/net/tcp_states.h; AF_UNIX uses the same number

	inetDiagReqLen    = 56 // struct inet_diag_req_v2
	inetDiagMsgLen    = 72 // struct inet_diag_msg
	inetDiagSkmeminfo = 7  // INET_DIAG_SKMEMINFO: an array of u32
	inetDiagCgroupID  = 21 // INET_DIAG_CGROUP_ID, Linux 5.9: comes unasked
	skMeminfoDrops    = 8  // SK_MEMINFO_DROPS, Linux 4.7: where in that array

	unixDiagReqLen = 24 // struct unix_diag_req
	unixDiagMsgLen = 16 // struct unix_diag_msg

	udiagShowName  = 0x01
	udiagShowIcons = 0x08
	udiagShowRqlen = 0x10
	udiagShowUID   = 0x40 // ignored by kernels that lack it

	unixDiagName  = 0
	unixDiagIcons = 3
	unixDiagRqlen = 4
	unixDiagUID   = 7
)

// dumpTries is how often an interrupted dump is asked for again.
const dumpTries = 5

// Family is the address family of a listening socket.
type Family string

// The families that sock_diag is asked for.
const (
	TCP  Family = "tcp"
	TCP6 Family = "tcp6"
	Unix Family = "unix"
)

// Module is the kernel module that shows the sockets of the family.
func (f Family) Module() string {
	if f == Unix {
		return "unix_diag"
	}
	return "tcp_diag"
}

// Listener is a listening socket as sock_diag shows it.
type Listener struct {
	Family Family
	Inode  uint64
	// Length is the accept queue's length in connections and Limit
	// sk_max_ack_backlog. TCP refuses when Length > Limit (sk_acceptq_is_full,
	// include/net/sock.h) and so does AF_UNIX (unix_recvq_full,
	// net/unix/af_unix.c).
	Length, Limit int
	UID           int // who made the socket; -1 where the kernel does not tell
	// Drops is sk_drops of a TCP socket: the packets that it refused since it
	// was made, a number of 32 bits; -1 where the kernel does not tell, and for
	// UNIX, whose clients are refused by connect(2) without being counted.
	//
	// It is not the number of connections that found the queue full. Each of
	// those counts, once as a SYN (tcp_conn_request) or twice as an ACK
	// (tcp_v4_syn_recv_sock, then tcp_v4_rcv), but so does all else that
	// tcp_check_req (net/ipv4/tcp_minisocks.c) lets fall for a half-open
	// connection: with TCP_DEFER_ACCEPT, which uWSGI sets, the first ACK of every
	// connection there is.
	Drops int64
	// Cgroup is the inode of the cgroup (v2) in which a TCP socket was made, 0
	// where the kernel does not tell.
	Cgroup uint64

	Addr netip.AddrPort // TCP and TCP6
	Name []byte         // UNIX, as bound: a leading NUL marks an abstract name
}

// Address writes the socket's address in the kernel's canonical form:
// 0.0.0.0:5000, [::]:80, /run/app.sock, @abstract.
func (l Listener) Address() string {
	if l.Family != Unix {
		return l.Addr.String()
	}
	if len(l.Name) > 0 && l.Name[0] == 0 {
		// A name may hold NULs, and is padded with them when it was bound with
		// the full size of sockaddr_un; ss writes them as @ too.
		name := strings.TrimRight(string(l.Name[1:]), "\x00")
		return "@" + strings.ReplaceAll(name, "\x00", "@")
	}
	return string(bytes.TrimRight(l.Name, "\x00"))
}

// listeners appends the listening sockets of one family in the namespace of c.
// Only sockets in the state LISTEN are walked: the connections, of which a busy
// host has 100,000s, are never looked at (inet_diag_dump_icsk).
func listeners(c *netlink.Conn, family Family, to []Listener) ([]Listener, error) {
	request, decode := inetRequest(family), inetListener
	if family == Unix {
		request, decode = unixRequest(), unixListener
	}
	for range dumpTries {
		answer, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   request,
		})
		if err != nil {
			return to, fmt.Errorf("sock_diag dump of %s: %w", family, err)
		}
		if slices.ContainsFunc(answer, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			continue
		}
		for _, m := range answer {
			l, ok, err := decode(m.Data)
			if err != nil {
				return to, fmt.Errorf("sock_diag dump of %s: %w", family, err)
			}
			if ok {
				to = append(to, l)
			}
		}
		return to, nil
	}
	return to, fmt.Errorf("sock_diag dump of %s: interrupted %d times by changes", family, dumpTries)
}

func inetRequest(family Family) []byte {
	b := make([]byte, inetDiagReqLen)
	b[0] = unix.AF_INET
	if family == TCP6 {
		b[0] = unix.AF_INET6
	}
	b[1] = unix.IPPROTO_TCP
	b[2] = 1 << (inetDiagSkmeminfo - 1) // idiag_ext
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpListen)
	return b
}

func unixRequest() []byte {
	b := make([]byte, unixDiagReqLen)
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpListen)
	binary.NativeEndian.PutUint32(b[12:], udiagShowName|udiagShowRqlen|udiagShowUID)
	return b
}

var errShort = errors.New("message is too short")

// inetListener decodes struct inet_diag_msg and those of its attributes that
// matter; an older kernel has fewer.
func inetListener(b []byte) (l Listener, ok bool, err error) {
	if len(b) < inetDiagMsgLen {
		return Listener{}, false, errShort
	}
	var ip netip.Addr
	switch b[0] {
	case unix.AF_INET:
		l.Family, ip = TCP, netip.AddrFrom4([4]byte(b[8:12]))
	case unix.AF_INET6:
		l.Family, ip = TCP6, netip.AddrFrom16([16]byte(b[8:24]))
	default:
		return Listener{}, false, nil
	}
	l.Addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[4:]))
	l.Length = int(binary.NativeEndian.Uint32(b[56:]))
	l.Limit = int(binary.NativeEndian.Uint32(b[60:]))
	l.UID = int(binary.NativeEndian.Uint32(b[64:]))
	l.Inode = uint64(binary.NativeEndian.Uint32(b[68:]))
	l.Drops = -1
	for kind, data, rest := attribute(b[inetDiagMsgLen:]); data != nil; kind, data, rest = attribute(rest) {
		switch {
		case kind == inetDiagSkmeminfo && len(data) >= 4*(skMeminfoDrops+1):
			l.Drops = int64(binary.NativeEndian.Uint32(data[4*skMeminfoDrops:]))
		case kind == inetDiagCgroupID && len(data) >= 8:
			l.Cgroup = binary.NativeEndian.Uint64(data)
		}
	}
	return l, b[1] == tcpListen, nil
}

// attribute cuts the first attribute (struct nlattr) off, where it lies: a
// decoder would copy each, and most sockets of a host are nobody's here. data is
// nil where there is none, or none whole.
func attribute(b []byte) (kind uint16, data, rest []byte) {
	const header = 4
	if len(b) < header {
		return 0, nil, nil
	}
	length := int(binary.NativeEndian.Uint16(b))
	if length < header || length > len(b) {
		return 0, nil, nil
	}
	return binary.NativeEndian.Uint16(b[2:]), b[header:length:length], b[min((length+3)&^3, len(b)):]
}

// unixListener decodes struct unix_diag_msg and its attributes. A socket that
// was listening without a name (socketpair, unbound) has none.
func unixListener(b []byte) (l Listener, ok bool, err error) {
	if len(b) < unixDiagMsgLen {
		return Listener{}, false, errShort
	}
	l = Listener{Family: Unix, Inode: uint64(binary.NativeEndian.Uint32(b[4:])), UID: -1, Drops: -1}
	attrs, err := netlink.NewAttributeDecoder(b[unixDiagMsgLen:])
	if err != nil {
		return Listener{}, false, err
	}
	counted := false
	for attrs.Next() {
		switch data := attrs.Bytes(); attrs.Type() {
		case unixDiagName:
			l.Name = data
		case unixDiagRqlen:
			if len(data) < 8 {
				return Listener{}, false, errShort
			}
			l.Length = int(binary.NativeEndian.Uint32(data))
			l.Limit = int(binary.NativeEndian.Uint32(data[4:]))
			counted = true
		case unixDiagUID:
			if len(data) >= 4 {
				l.UID = int(binary.NativeEndian.Uint32(data))
			}
		}
	}
	if err := attrs.Err(); err != nil {
		return Listener{}, false, err
	}
	return l, b[0] == unix.AF_UNIX && b[2] == tcpListen && counted, nil
}
