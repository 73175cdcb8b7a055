package host

import (
	"context"
	"strings"
	"time"

	"qwatch/internal/kernel"
	"qwatch/remediate/facts"
)

// serviceAge is how long what systemd says of a master's unit serves. Whether it
// still holds is asked again before it is gone by.
const serviceAge = 10 * time.Second

// serviceKey is a master in a unit: the next master is another question.
type serviceKey struct {
	unit  string
	pid   int
	start uint64
}

// askService is the question what systemd says of a unit.
func (h *Host) askService(ctx context.Context, k serviceKey) (facts.Service, error) {
	manager := h.options.Load().Services
	if manager == nil { // by a change of options
		return facts.Service{}, errNoSystemd
	}
	pid, can, err := manager.Main(ctx, k.unit)
	return facts.Service{MainPID: pid, CanReload: can}, err
}

// servicesOf are the questions about the units of the sockets' masters. Each costs
// systemd all properties of a unit, twice: they are for policies that reload.
func servicesOf(options *Options, sockets []facts.Socket) (keys []serviceKey) {
	if !options.Deploys {
		return nil
	}
	for i := range sockets {
		if k := serviceOf(&sockets[i]); isService(k.unit) && options.Services != nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// isService reports whether a unit can have a main process: a scope, as that of a
// container or a session, has none, and is not asked for one.
func isService(unit string) bool { return strings.HasSuffix(unit, ".service") }

func serviceOf(s *facts.Socket) serviceKey {
	return serviceKey{s.Master.Unit.Value, s.Master.PID, s.Master.Start}
}

// service is what systemd says of the unit of a socket's master.
func (l *lookups) service(options *Options, s *facts.Socket) facts.Fact[facts.Service] {
	switch {
	case s.Master.Unit.Unseen() != "":
		return facts.Unknown[facts.Service](s.Master.Unit.Unseen())
	case options.Services == nil || s.Master.Unit.IsAbsent():
		return facts.Absent[facts.Service]()
	case !isService(s.Master.Unit.Value):
		return facts.Known(facts.Service{})
	}
	a := l.services.Get(serviceOf(s))
	if !a.Within(serviceAge) {
		return facts.Unknown[facts.Service](a.Err.Error())
	}
	return facts.Known(a.Value)
}

// noSignal says why the master may not be signalled, absent where it may. Where
// rights are assumed that is not tried.
func noSignal(options *Options, master facts.Process) facts.Fact[string] {
	if !options.AssumeRights {
		if err := kernel.MaySignal(master.PID); err != nil {
			return facts.Known(err.Error())
		}
	}
	return facts.Absent[string]()
}
