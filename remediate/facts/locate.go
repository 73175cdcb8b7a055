package facts

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"qwatch/matcher"
)

// Locate finds the socket that a record speaks of. The record's words only
// choose among what the kernel shows: an address that no uWSGI listens on, or
// a description that fits two sockets, is an error that says so.
func (f Snapshot) Locate(h matcher.Hit) (Socket, error) {
	var fit []Socket
	for _, s := range f.Sockets {
		if h.Old && s.FD >= 0 && strconv.Itoa(s.FD) == h.Socket || !h.Old && s.AnswersTo(h.Socket) {
			fit = append(fit, s)
		}
	}
	if len(fit) == 0 {
		return Socket{}, f.notFound(h)
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
	narrow(func(s Socket) bool { return h.Unit != "" && s.Master.Unit.Value == h.Unit })
	narrow(func(s Socket) bool { return slices.Contains(s.Logs, h.Source) })
	narrow(func(s Socket) bool { return s.Untrusted.State != StateKnown }) // anybody may take a name that a service has
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

// notFound says why no socket was found, and no more than was seen.
func (f Snapshot) notFound(h matcher.Hit) error {
	bound := slices.ContainsFunc(f.Ownerless, func(a Address) bool { return a.AnswersTo(h.Socket) })
	hidden := f.HiddenOwners
	switch {
	case h.Old && hidden == "":
		return fmt.Errorf("no uWSGI master has a listening socket with descriptor %s", h.Socket)
	case h.Old:
		return fmt.Errorf("no uWSGI master that qwatch may see has a listening socket with descriptor %s, and not all of them could be looked into: %s", h.Socket, hidden)
	case hidden == "":
		return fmt.Errorf("no uWSGI listens on %q", h.Socket)
	case bound:
		return fmt.Errorf("somebody listens on %q, and it could not be seen whether that is a uWSGI: %s", h.Socket, hidden)
	}
	return fmt.Errorf("no uWSGI that qwatch may see listens on %q, and not all of them could be looked into: %s", h.Socket, hidden)
}

// Wrote reports whether a line with this writer, unit and source can come from
// the socket's uWSGI.
func (s Socket) Wrote(pid int, unit, source string) bool {
	if pid != 0 {
		return s.writtenBy(pid)
	}
	return unit != "" && s.Master.Unit.Value == unit || slices.Contains(s.Logs, source)
}

// writtenBy reports whether pid is the socket's master or one of its workers.
func (s Socket) writtenBy(pid int) bool {
	return s.Master.PID == pid || slices.ContainsFunc(s.Workers, func(w Worker) bool { return w.PID == pid })
}

// Bound is the socket's address.
func (s Socket) Bound() Address { return Address{s.Family, s.Address} }

// AnswersTo reports whether uWSGI may call the socket by this name, as
// Address.AnswersTo.
func (s Socket) AnswersTo(name string) bool { return s.Bound().AnswersTo(name) }
