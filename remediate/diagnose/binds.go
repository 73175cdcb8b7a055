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
	if s.UnitUnknown != "" {
		return BindUnknown, fmt.Sprintf("what sets the limit %d is not known, nor whether systemd holds the socket: %s", s.Limit, s.UnitUnknown)
	}
	if s.SocketUnit != "" {
		return unitBinds(s)
	}
	at := ""
	if s.ConfiguredAt != "" && s.ConfiguredAt != "default" {
		at = " (" + s.ConfiguredAt + ")"
	}
	switch {
	case s.Somaxconn > 0 && s.Limit == s.Somaxconn && s.Configured >= s.Somaxconn:
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn; uWSGI is configured to listen = %d%s", s.Limit, s.Configured, at)
	case s.Configured > 0 && s.Limit == s.Configured && s.ConfiguredAt == "default":
		return BindListen, fmt.Sprintf("the limit %d is uWSGI's default, since its configuration sets no listen", s.Limit)
	case s.Configured > 0 && s.Limit == s.Configured:
		return BindListen, fmt.Sprintf("the limit %d is uWSGI's listen%s", s.Limit, at)
	case s.Configured == 0 && s.Somaxconn > 0 && s.Limit == s.Somaxconn:
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn; what uWSGI is configured to is not known", s.Limit)
	case s.Configured > 0 && s.Limit > s.Configured:
		return BindUnknown, fmt.Sprintf("the limit %d was raised while uWSGI ran: it is configured to listen = %d%s", s.Limit, s.Configured, at)
	case s.Configured > 0:
		return BindUnknown, fmt.Sprintf("the limit %d is neither somaxconn (%d) nor listen = %d%s: one of them was lower when the socket was made", s.Limit, s.Somaxconn, s.Configured, at)
	}
	return BindUnknown, fmt.Sprintf("what sets the limit %d is not known", s.Limit)
}

// unitBinds is binds for a socket that systemd made.
func unitBinds(s facts.Socket) (Bind, string) {
	switch {
	case s.UnitBacklog == 0:
		return BindUnknown, fmt.Sprintf("what sets the limit %d is not known: systemd holds the socket (%s) and did not tell its Backlog=", s.Limit, s.SocketUnit)
	case s.Limit == s.UnitBacklog:
		return BindUnit, fmt.Sprintf("the limit %d is Backlog= of %s; uWSGI's listen has no say", s.Limit, s.SocketUnit)
	case s.Limit > s.UnitBacklog:
		return BindUnknown, fmt.Sprintf("the limit %d was raised while the socket was open: Backlog= of %s is %d", s.Limit, s.SocketUnit, s.UnitBacklog)
	case s.Limit == s.Somaxconn:
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn: Backlog=%d of %s is cut to it", s.Limit, s.UnitBacklog, s.SocketUnit)
	}
	return BindUnknown, fmt.Sprintf("the limit %d is neither somaxconn (%d) nor Backlog=%d of %s: one of them was lower when the socket was made", s.Limit, s.Somaxconn, s.UnitBacklog, s.SocketUnit)
}
