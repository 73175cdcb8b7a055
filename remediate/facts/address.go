package facts

import (
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// Address is what a listening socket is bound to, as the kernel shows it, and
// what it answers to: uWSGI, systemd and command lines write it in ways of
// their own.
type Address struct {
	Family Family
	Text   string // 127.0.0.1:5000, [::1]:80, /run/app.sock, @app
}

// AnswersTo reports whether uWSGI may call the socket by this name: uWSGI
// prints the address as it was configured (":5000", "localhost:80",
// "app.sock"), the kernel knows only what it was bound to.
func (a Address) AnswersTo(name string) bool {
	if a.Text == name {
		return true
	}
	if a.Family == Unix {
		// A relative path was taken from the master's directory at start-up,
		// which it may have left.
		return !strings.HasPrefix(a.Text, "@") && !path.IsAbs(name) && name != "" &&
			strings.HasSuffix(a.Text, "/"+path.Clean(name))
	}
	bound, host, ok := a.samePort(name)
	if !ok {
		return false
	}
	switch host {
	case "", "*", "0":
		return bound.IsUnspecified()
	case "localhost":
		return bound.IsLoopback()
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap() == bound
}

// IsListen reports whether a .socket unit with this address in its Listen
// property holds the socket. All that say "any address" are one: systemd writes
// ListenStream=5000 as [::]:5000, and the kernel shows a socket of that family
// or the other.
func (a Address) IsListen(listen string) bool {
	if a.Family == Unix {
		return a.Text == listen
	}
	bound, host, ok := a.samePort(listen)
	if !ok {
		return false
	}
	addr, err := netip.ParseAddr(host)
	if host == "" || host == "*" || err == nil && addr.IsUnspecified() {
		return bound.IsUnspecified()
	}
	return err == nil && addr.Unmap() == bound
}

// MayBe is AnswersTo where the name may also be one that was looked up, as
// "web1:5000": of an address of the network only the port has to be there.
func (a Address) MayBe(name string) bool {
	if a.Family == Unix || a.AnswersTo(name) {
		return a.AnswersTo(name)
	}
	_, host, ok := a.samePort(name)
	_, err := netip.ParseAddr(host)
	return ok && err != nil && host != "" && host != "*"
}

// samePort returns the bound address and the host of a name, without brackets.
// It is not ok where either is no host and port, or the ports differ.
func (a Address) samePort(name string) (bound netip.Addr, host string, ok bool) {
	at, err := netip.ParseAddrPort(a.Text)
	i := strings.LastIndexByte(name, ':')
	if err != nil || i < 0 {
		return netip.Addr{}, "", false
	}
	port, err := strconv.ParseUint(name[i+1:], 10, 16)
	return at.Addr().Unmap(), strings.Trim(name[:i], "[]"), err == nil && uint16(port) == at.Port()
}
