package host

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"qwatch/internal/kernel"
)

// Holder says who listens at a TCP address of this network namespace, or at the
// same port of all addresses: "a process of user 1000". It needs no right.
func Holder(address string) string {
	const unknown = "another process"
	name, number, err := net.SplitHostPort(address)
	if err != nil {
		return unknown
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return unknown
	}
	// A name, or none, is any address.
	ip, err := netip.ParseAddr(name)
	anyone := err != nil || ip.IsUnspecified()
	own, err := kernel.OpenNetNS()
	if err != nil {
		return unknown
	}
	defer own.Close()
	all, _, err := own.Listeners()
	if err != nil {
		return unknown
	}
	for _, l := range all {
		bound := l.Addr.Addr().Unmap()
		if l.Family != kernel.Unix && uint64(l.Addr.Port()) == port && (anyone || bound.IsUnspecified() || bound == ip.Unmap()) {
			return fmt.Sprintf("a process of user %d (`ss -ltnp sport = :%d` as root names it)", l.UID, port)
		}
	}
	return unknown
}
