package facts

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"qwatch/matcher"
)

// Locate finds the socket that a record speaks of. The record's words only
// choose among what the kernel shows: an address that no uWSGI listens on, or
// a description that fits two sockets, is an error that says so.
func Locate(h matcher.Hit, sockets []Socket) (Socket, error) {
	var fit []Socket
	for _, s := range sockets {
		if h.Old && s.FD >= 0 && strconv.Itoa(s.FD) == h.Socket || !h.Old && s.AnswersTo(h.Socket) {
			fit = append(fit, s)
		}
	}
	if len(fit) == 0 {
		if h.Old {
			return Socket{}, fmt.Errorf("no uWSGI master has a listening socket with descriptor %s", h.Socket)
		}
		return Socket{}, fmt.Errorf("no uWSGI listens on %q", h.Socket)
	}
	// Each further word of the record is used only to tell several apart:
	// after a reload it may be out of date, and then it fits none.
	narrow := func(keep func(Socket) bool) {
		if len(fit) == 1 {
			return
		}
		if k := slices.DeleteFunc(slices.Clone(fit), func(s Socket) bool { return !keep(s) }); len(k) > 0 {
			fit = k
		}
	}
	narrow(func(s Socket) bool { return h.PID != 0 && s.writtenBy(h.PID) })
	narrow(func(s Socket) bool { return h.Unit != "" && s.Master.Unit == h.Unit })
	narrow(func(s Socket) bool { return slices.Contains(s.Logs, h.Source) })
	narrow(func(s Socket) bool { return !s.OtherNetNS })
	narrow(func(s Socket) bool { return !h.Old && s.FD == h.FD })
	if len(fit) > 1 {
		names := make([]string, len(fit))
		for i, s := range fit {
			names[i] = fmt.Sprintf("%s of uWSGI %d", s.Name(), s.Master.PID)
		}
		return Socket{}, fmt.Errorf("the record fits %d sockets: %s", len(fit), strings.Join(names, ", "))
	}
	return fit[0], nil
}

// Wrote reports whether a line with this writer, unit and source can come from
// the socket's uWSGI.
func (s Socket) Wrote(pid int, unit, source string) bool {
	if pid != 0 {
		return s.writtenBy(pid)
	}
	return unit != "" && s.Master.Unit == unit || slices.Contains(s.Logs, source)
}

// writtenBy reports whether pid is the socket's master or one of its workers.
func (s Socket) writtenBy(pid int) bool {
	return s.Master.PID == pid || slices.ContainsFunc(s.Workers, func(w Worker) bool { return w.PID == pid })
}

// AnswersTo reports whether uWSGI may call the socket by this name: uWSGI
// prints the address as it was configured (":5000", "localhost:80",
// "app.sock"), the kernel knows only what it was bound to.
func (s Socket) AnswersTo(name string) bool {
	if s.Address == name {
		return true
	}
	if s.Family == Unix {
		// A relative path was taken from the master's directory at start-up,
		// which it may have left.
		return !strings.HasPrefix(s.Address, "@") && !path.IsAbs(name) && name != "" &&
			strings.HasSuffix(s.Address, "/"+path.Clean(name))
	}
	bound, err := netip.ParseAddrPort(s.Address)
	if err != nil {
		return false
	}
	host, port, ok := cutPort(name)
	if !ok || port != bound.Port() {
		return false
	}
	switch host {
	case "", "*", "0":
		return bound.Addr().IsUnspecified()
	case "localhost":
		return bound.Addr().IsLoopback()
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap() == bound.Addr().Unmap()
}

func cutPort(name string) (host string, port uint16, ok bool) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(name[i+1:], 10, 16)
	return name[:i], uint16(n), err == nil
}
