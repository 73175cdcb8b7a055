package remediate

import (
	"fmt"

	"qwatch/remediate/facts"
)

// Way is how one uWSGI is asked for a reload: a plan decides it, and what applies
// the plan takes this way or none.
type Way struct {
	Kind WayKind
	Of   string // the path of WayChain, WayFIFO and WayTouch, the unit of WaySystemd
}

// WayKind is a kind of Way.
type WayKind string

// The kinds of ways.
const (
	WayHUP     WayKind = "hup"     // SIGHUP to the master
	WayChain   WayKind = "chain"   // a chain reload by the master FIFO: one worker after the other
	WayFIFO    WayKind = "fifo"    // a reload by the master FIFO
	WayTouch   WayKind = "touch"   // a file that this uWSGI watches
	WaySystemd WayKind = "systemd" // a reload of the unit
)

// String writes w as the audit trail does: "hup", "chain", "fifo:/run/app.fifo",
// "systemd:app.service".
func (w Way) String() string {
	if w.Of == "" || w.Kind == WayChain {
		return string(w.Kind)
	}
	return string(w.Kind) + ":" + w.Of
}

// way is how the socket's uWSGI is asked for a reload, or why there is no way.
func (p Policy) way(s facts.Socket) (w Way, why string) {
	unit, unseen := s.Master.Unit.Value, s.Master.Unit.Unseen()
	switch p.ReloadHow.Method {
	case MethodFIFO:
		return Way{WayFIFO, p.ReloadHow.Path}, ""
	case MethodTouch:
		return Way{WayTouch, p.ReloadHow.Path}, ""
	case MethodSignal:
		return Way{Kind: WayHUP}, ""
	}
	switch service, known := s.Ways.Service.Get(); {
	case unseen != "":
		return w, fmt.Sprintf("it is not known to which systemd unit uWSGI %d belongs (%s), and so not how it is reloaded", s.Master.PID, unseen)
	case p.ReloadHow.Method == MethodSystemd && unit == "":
		return w, fmt.Sprintf("uWSGI %d belongs to no systemd unit, and policy.reload.how is systemd", s.Master.PID)
	case p.ReloadHow.Method == MethodSystemd, known && service.CanReload && service.MainPID == s.Master.PID:
		return Way{WaySystemd, unit}, ""
	}
	return Way{Kind: WayHUP}, ""
}
