package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"qwatch/remediate/facts"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The sock_diag requests and answers; include/uapi/linux/{sock,inet,unix}_diag.h.
const (
	tcpListen = 10 // include/net/tcp_states.h; AF_UNIX uses the same number

	inetDiagReqLen = 56 // struct inet_diag_req_v2
	inetDiagMsgLen = 72 // struct inet_diag_msg
	unixDiagReqLen = 24 // struct unix_diag_req
	unixDiagMsgLen = 16 // struct unix_diag_msg

	udiagShowName  = 0x01
	udiagShowRqlen = 0x10
	udiagShowUID   = 0x40 // ignored by kernels that lack it

	unixDiagName  = 0
	unixDiagRqlen = 4
	unixDiagUID   = 7
)

// dumpTries is how often an interrupted dump is asked for again.
const dumpTries = 5

// listener is a listening socket as sock_diag shows it.
type listener struct {
	family facts.Family
	inode  uint64
	// length is the accept queue's length and limit sk_max_ack_backlog. TCP
	// refuses when length > limit (sk_acceptq_is_full, include/net/sock.h) and
	// so does AF_UNIX (unix_recvq_full, net/unix/af_unix.c).
	length, limit int
	uid           int // who made the socket; -1 where the kernel does not tell

	addr netip.AddrPort // TCP and TCP6
	name []byte         // UNIX, as bound: a leading NUL marks an abstract name
}

// address writes the socket's address in the kernel's canonical form:
// 0.0.0.0:5000, [::]:80, /run/app.sock, @abstract.
func (l listener) address() string {
	if l.family != facts.Unix {
		return l.addr.String()
	}
	if len(l.name) > 0 && l.name[0] == 0 {
		// A name may hold NULs, and is padded with them when it was bound with
		// the full size of sockaddr_un; ss writes them as @ too.
		name := strings.TrimRight(string(l.name[1:]), "\x00")
		return "@" + strings.ReplaceAll(name, "\x00", "@")
	}
	return string(bytes.TrimRight(l.name, "\x00"))
}

// listeners appends the listening sockets of one family in the namespace of c.
// Only sockets in the state LISTEN are walked: the connections, of which a busy
// host has 100,000s, are never looked at (inet_diag_dump_icsk).
func listeners(c *netlink.Conn, family facts.Family, to []listener) ([]listener, error) {
	request, decode := inetRequest(family), inetListener
	if family == facts.Unix {
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
		if interrupted(answer) {
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

func interrupted(answer []netlink.Message) bool {
	for _, m := range answer {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return true
		}
	}
	return false
}

// absent reports whether err says that this kernel has no sock_diag for the
// family: its module (tcp_diag, unix_diag) is not there.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)
}

func inetRequest(family facts.Family) []byte {
	b := make([]byte, inetDiagReqLen)
	b[0] = unix.AF_INET
	if family == facts.TCP6 {
		b[0] = unix.AF_INET6
	}
	b[1] = unix.IPPROTO_TCP
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

// inetListener decodes struct inet_diag_msg. Attributes may follow; none is
// needed.
func inetListener(b []byte) (l listener, ok bool, err error) {
	if len(b) < inetDiagMsgLen {
		return listener{}, false, errShort
	}
	var ip netip.Addr
	switch b[0] {
	case unix.AF_INET:
		l.family, ip = facts.TCP, netip.AddrFrom4([4]byte(b[8:12]))
	case unix.AF_INET6:
		l.family, ip = facts.TCP6, netip.AddrFrom16([16]byte(b[8:24]))
	default:
		return listener{}, false, nil
	}
	l.addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[4:]))
	l.length = int(binary.NativeEndian.Uint32(b[56:]))
	l.limit = int(binary.NativeEndian.Uint32(b[60:]))
	l.uid = int(binary.NativeEndian.Uint32(b[64:]))
	l.inode = uint64(binary.NativeEndian.Uint32(b[68:]))
	return l, b[1] == tcpListen, nil
}

// unixListener decodes struct unix_diag_msg and its attributes. A socket that
// was listening without a name (socketpair, unbound) has none.
func unixListener(b []byte) (l listener, ok bool, err error) {
	if len(b) < unixDiagMsgLen {
		return listener{}, false, errShort
	}
	l = listener{family: facts.Unix, inode: uint64(binary.NativeEndian.Uint32(b[4:])), uid: -1}
	attrs, err := netlink.NewAttributeDecoder(b[unixDiagMsgLen:])
	if err != nil {
		return listener{}, false, err
	}
	counted := false
	for attrs.Next() {
		switch data := attrs.Bytes(); attrs.Type() {
		case unixDiagName:
			l.name = data
		case unixDiagRqlen:
			if len(data) < 8 {
				return listener{}, false, errShort
			}
			l.length = int(binary.NativeEndian.Uint32(data))
			l.limit = int(binary.NativeEndian.Uint32(data[4:]))
			counted = true
		case unixDiagUID:
			if len(data) >= 4 {
				l.uid = int(binary.NativeEndian.Uint32(data))
			}
		}
	}
	if err := attrs.Err(); err != nil {
		return listener{}, false, err
	}
	return l, b[0] == unix.AF_UNIX && b[2] == tcpListen && counted, nil
}
