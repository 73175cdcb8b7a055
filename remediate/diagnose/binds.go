package diagnose

import (
	"fmt"

	"qwatch/remediate/facts"
)

// Bind names what sets the limit of a socket.
type Bind string

// The settings that can bind, as `doctor` reports them.
const (
	BindListen    Bind = "listen"         // uWSGI's own listen
	BindSomaxconn Bind = "somaxconn"      // net.core.somaxconn of the socket's namespace
	BindUnit      Bind = "systemd-socket" // Backlog= of the .socket unit
	BindUnknown   Bind = "unknown"
)

// binds names what sets the limit of a socket, and says why.
func binds(s facts.Socket) (Bind, string) {
	if why := s.Unit.Unseen(); why != "" {
		return BindUnknown, fmt.Sprintf("what sets the limit %d is not known, nor whether systemd holds the socket: %s", s.Limit, why)
	}
	if unit, ok := s.Unit.Get(); ok {
		return unitBinds(s, unit)
	}
	listen, known := s.Config.Listen.Get()
	somaxconn, seen := s.Somaxconn.Get()
	at := ""
	if known && listen.At != "default" {
		at = " (" + listen.At + ")"
	}
	switch {
	case !known && seen && s.Limit == somaxconn:
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn; what uWSGI is configured to is not known", s.Limit)
	case !known:
		return BindUnknown, fmt.Sprintf("what sets the limit %d is not known", s.Limit)
	case seen && s.Limit == somaxconn && listen.Listen >= somaxconn:
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn; uWSGI is configured to listen = %d%s", s.Limit, listen.Listen, at)
	case s.Limit == listen.Listen && listen.At == "default":
		return BindListen, fmt.Sprintf("the limit %d is uWSGI's default, since its configuration sets no listen", s.Limit)
	case s.Limit == listen.Listen:
		return BindListen, fmt.Sprintf("the limit %d is uWSGI's listen%s", s.Limit, at)
	case s.Limit > listen.Listen:
		return BindUnknown, fmt.Sprintf("the limit %d was raised while uWSGI ran: it is configured to listen = %d%s", s.Limit, listen.Listen, at)
	}
	return BindUnknown, fmt.Sprintf("the limit %d is neither somaxconn (%s) nor listen = %d%s: one of them was lower when the socket was made", s.Limit, orNotKnown(s.Somaxconn), listen.Listen, at)
}

// unitBinds is binds for a socket that systemd made.
func unitBinds(s facts.Socket, unit facts.SocketUnit) (Bind, string) {
	backlog, known := unit.Backlog.Get()
	somaxconn, seen := s.Somaxconn.Get()
	switch {
	case !known:
		return BindUnknown, fmt.Sprintf("what sets the limit %d is not known: systemd holds the socket (%s) and did not tell its Backlog=", s.Limit, unit.Name)
	case s.Limit == backlog:
		return BindUnit, fmt.Sprintf("the limit %d is Backlog= of %s; uWSGI's listen has no say", s.Limit, unit.Name)
	case s.Limit > backlog:
		return BindUnknown, fmt.Sprintf("the limit %d was raised while the socket was open: Backlog= of %s is %d", s.Limit, unit.Name, backlog)
	case seen && s.Limit == somaxconn:
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn: Backlog=%d of %s is cut to it", s.Limit, backlog, unit.Name)
	}
	return BindUnknown, fmt.Sprintf("the limit %d is neither somaxconn (%s) nor Backlog=%d of %s: one of them was lower when the socket was made", s.Limit, orNotKnown(s.Somaxconn), backlog, unit.Name)
}

// orNotKnown is a number as far as it is known.
func orNotKnown(f facts.Fact[int]) string {
	if v, ok := f.Get(); ok {
		return fmt.Sprint(v)
	}
	return "not known"
}
