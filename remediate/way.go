package remediate

import (
	"fmt"
	"strings"

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

// Wholly reports whether the master is executed anew, and so with all that it has
// started: routers, an emperor with its vassals.
func (w Way) Wholly(s facts.Socket) bool {
	return w.Kind != WayChain && (w.Kind != WayTouch || !s.Config.Orders.Asked.Value.WorkersOnly())
}

// InTurn reports whether one worker is reloaded after the other.
func (w Way) InTurn(s facts.Socket) bool {
	return w.Kind == WayChain || w.Kind == WayTouch && s.Config.Orders.Asked.Value.Option == "touch-chain-reload"
}

// way is how the socket's uWSGI is asked for a reload, or why there is no way that
// reaches it, and it alone.
func (p Policy) way(s facts.Socket) (Way, string) {
	if why := p.shared(s); why != "" {
		return Way{}, why
	}
	var w Way
	var why string
	switch p.ReloadHow.Method {
	case MethodFIFO, MethodTouch:
		w, why = p.byFile(s)
	case MethodSystemd:
		if w, why = p.bySystemd(s); why != "" {
			why += p.orAuto(s)
		}
	case MethodChain:
		w, why = p.byChain(s)
	case MethodAuto:
		w, why = p.byItself(s)
	default:
		w, why = bySignal(s)
	}
	if why == "" && w.Wholly(s) {
		why = p.takesAlong(s)
	}
	return w, why
}

// byItself is the way that goes best. A reload of one worker after the other goes
// before one of which systemd knows.
func (p Policy) byItself(s facts.Socket) (Way, string) {
	if w, why := p.byChain(s); why == "" {
		return w, ""
	}
	w, unit := p.bySystemd(s)
	if unit == "" {
		return w, ""
	}
	w, why := bySignal(s)
	if why != "" {
		why += "; nor by its unit: " + unit
	}
	return w, why
}

// orAuto says what policy.reload.how = "auto" would do for a uWSGI that cannot be
// reloaded by its unit.
func (p Policy) orAuto(s facts.Socket) string {
	w, why := p.byItself(s)
	if why != "" || w.Wholly(s) && p.takesAlong(s) != "" {
		return ""
	}
	return fmt.Sprintf("; policy.reload.how = \"auto\" reloads it alone (%s)", w)
}

// noChain says why a uWSGI that could be reloaded in a chain is reloaded otherwise,
// "" where it could not.
func (p Policy) noChain(s facts.Socket) string {
	_, why := p.byChain(s)
	if p.ReloadHow.Method != MethodAuto || s.Config.Orders.LazyApps == "" || s.Config.Orders.FIFO.IsAbsent() || why == "" {
		return ""
	}
	return "; not in a chain, one worker after the other: " + why
}

// unseenSharers is what the plan of a reload adds that assumes rights.
func unseenSharers(s facts.Socket) string {
	if why := s.Ways.Sharers.Unseen(); why != "" {
		return "; not proven here, and needed to act: that no other master holds the socket (" + why + ")"
	}
	return ""
}

// shared says why no reload of the master serves the socket: others hold it too.
func (p Policy) shared(s facts.Socket) string {
	sharers, is := s.Ways.Sharers.Get()
	switch unseen := s.Ways.Sharers.Unseen(); {
	case is:
		return fmt.Sprintf("uWSGI %d is not the only one that holds the socket (also %s), and one of several does not come up beside the others", s.Master.PID, sharers)
	case unseen != "" && !p.AssumeRights:
		return "it is not known whether uWSGI masters share the socket (" + unseen + "), and one of several does not come up beside the others"
	case s.Config.Orders.Zerg != "":
		return fmt.Sprintf("uWSGI %d is of a zerg pool (%s), and does not come up again after a reload", s.Master.PID, s.Config.Orders.Zerg)
	}
	return ""
}

// takesAlong says what a reload of the master would end besides its workers, ""
// where there is nothing.
func (p Policy) takesAlong(s facts.Socket) string {
	router := s.Config.Orders.Router
	if router == "" {
		router = s.Ways.Router
	}
	vassals := strings.Join(s.Ways.Vassals, ", ")
	switch {
	case s.Ways.Emperor && vassals == "":
		return fmt.Sprintf("uWSGI %d is an emperor, and no vassal of it is seen that serves the socket", s.Master.PID)
	case s.Ways.Emperor:
		return fmt.Sprintf("uWSGI %d is an emperor, which of its vassals serves the socket is not seen, and its reload is that of all of them: %s", s.Master.PID, vassals)
	case vassals != "":
		return fmt.Sprintf("uWSGI %d has an emperor below it, and its reload would restart all vassals: %s", s.Master.PID, vassals)
	case s.Config.Orders.Emperor != "":
		return fmt.Sprintf("uWSGI %d is configured as an emperor (%s), and its reload would restart all its vassals", s.Master.PID, s.Config.Orders.Emperor)
	case router != "":
		return fmt.Sprintf("uWSGI %d has a router (%s): a reload kills it with all that it carries, and binds a hidden socket behind it anew with the configured listen", s.Master.PID, router)
	case s.Ways.Hidden != "" && !p.AssumeRights:
		return fmt.Sprintf("it is not known what a reload of uWSGI %d would end besides it: %s", s.Master.PID, s.Ways.Hidden)
	}
	return ""
}

func bySignal(s facts.Socket) (Way, string) {
	cannot, is := s.Ways.NoSignal.Get()
	switch unseen := s.Ways.NoSignal.Unseen(); {
	case is:
		return Way{}, cannot
	case unseen != "":
		return Way{}, fmt.Sprintf("it is not known whether qwatch may signal uWSGI %d: %s", s.Master.PID, unseen)
	}
	return Way{Kind: WayHUP}, ""
}

// bySystemd is the unit where its reload reaches this master alone.
func (p Policy) bySystemd(s facts.Socket) (Way, string) {
	unit, known := s.Master.Unit.Get()
	service, told := s.Ways.Service.Get()
	others := strings.Join(s.Ways.Others, ", ")
	switch unseen := s.Master.Unit.Unseen(); {
	case unseen != "":
		return Way{}, fmt.Sprintf("it is not known to which systemd unit uWSGI %d belongs (%s)", s.Master.PID, unseen)
	case !known:
		return Way{}, fmt.Sprintf("uWSGI %d belongs to no systemd unit", s.Master.PID)
	case s.Ways.Service.IsAbsent():
		return Way{}, "no systemd runs here"
	case !told:
		return Way{}, fmt.Sprintf("it is not known whom a reload of %s reaches: %s", unit, s.Ways.Service.Unseen())
	case others != "":
		return Way{}, fmt.Sprintf("a reload of %s reaches other uWSGIs too: %s", unit, others)
	case s.Ways.Hidden != "" && !p.AssumeRights:
		return Way{}, fmt.Sprintf("it is not known whom a reload of %s reaches: %s", unit, s.Ways.Hidden)
	case service.MainPID == 0:
		return Way{}, fmt.Sprintf("%s has no main process that systemd knows, so that its reload need not reach uWSGI %d", unit, s.Master.PID)
	case service.MainPID != s.Master.PID:
		return Way{}, fmt.Sprintf("the main process of %s is %d, and not uWSGI %d: its reload reaches that, and may end this", unit, service.MainPID, s.Master.PID)
	case !service.CanReload:
		return Way{}, fmt.Sprintf("%s cannot be reloaded (it has no ExecReload=)", unit)
	}
	return Way{WaySystemd, unit}, ""
}

func (p Policy) byChain(s facts.Socket) (Way, string) {
	fifo, known := s.Config.Orders.FIFO.Get()
	switch unseen := s.Config.Orders.FIFO.Unseen(); {
	case s.Config.Orders.LazyApps == "":
		return Way{}, fmt.Sprintf("a chain reload loads the application anew only with lazy-apps, which uWSGI %d runs without", s.Master.PID)
	case unseen != "":
		return Way{}, fmt.Sprintf("the master FIFO of uWSGI %d is not known, and a chain reload is asked for there: %s", s.Master.PID, unseen)
	case !known:
		return Way{}, fmt.Sprintf("uWSGI %d has no master FIFO, where a chain reload is asked for; add master-fifo to its configuration", s.Master.PID)
	case fifo.Cannot != "" && !p.AssumeRights:
		return Way{}, fifo.Cannot
	}
	return Way{WayChain, fifo.Path}, ""
}

// byFile is the FIFO or the file that the policy names, where that is one of this
// uWSGI.
func (p Policy) byFile(s facts.Socket) (Way, string) {
	how, path := p.ReloadHow.Method, p.ReloadHow.Path
	t, known := s.Config.Orders.Asked.Get()
	fifo := t.Option == "master-fifo"
	switch unseen := s.Config.Orders.Asked.Unseen(); {
	case unseen != "":
		return Way{}, fmt.Sprintf("it is not known what %s is to uWSGI %d: %s", path, s.Master.PID, unseen)
	case how == MethodFIFO && !(known && fifo):
		return Way{}, fmt.Sprintf("%s is not the master FIFO of uWSGI %d", path, s.Master.PID)
	case !known && path == s.Config.File:
		return Way{}, fmt.Sprintf("%s is the configuration of uWSGI %d, and no file that it watches itself for a reload; an emperor above it may watch that, which qwatch does not ask: policy.reload.how = \"auto\" signals this vassal alone", path, s.Master.PID)
	case !known:
		return Way{}, fmt.Sprintf("%s is no file that uWSGI %d watches for a reload (touch-reload, touch-workers-reload, touch-chain-reload, fs-reload)", path, s.Master.PID)
	case how == MethodTouch && !t.Reloads():
		return Way{}, fmt.Sprintf("%s is %s (%s) of uWSGI %d, which is no graceful reload, or more than that", path, t.Option, t.At, s.Master.PID)
	case t.Cannot != "" && !p.AssumeRights:
		return Way{}, t.Cannot
	case how == MethodFIFO:
		return Way{WayFIFO, path}, ""
	}
	return Way{WayTouch, path}, ""
}
