package host

import (
	"testing"

	"qwatch/remediate/facts"
)

// Only a service is asked for its main process.
func TestServiceOfScopes(t *testing.T) {
	o := &Options{Services: &fakeSystemd{}, Deploys: true}
	socket := func(unit string) facts.Socket {
		return facts.Socket{Master: facts.Process{PID: 7, Start: 1, Unit: unitFact(unit)}}
	}
	sockets := []facts.Socket{socket("app.service"), socket("docker-1.scope"), socket("")}
	keys := servicesOf(o, sockets)
	if len(keys) != 1 || keys[0].unit != "app.service" {
		t.Errorf("asked: %v", keys)
	}
	if keys := servicesOf(&Options{Services: o.Services}, sockets); len(keys) > 0 {
		t.Errorf("asked by a policy without reloads: %v", keys)
	}
	h := &Host{}
	h.options.Store(o)
	h.lookups.init(h)
	h.lookups.services.Start(keys)(t.Context())
	for i, want := range []facts.Fact[facts.Service]{
		facts.Known(facts.Service{MainPID: 7, CanReload: true}), facts.Known(facts.Service{}), facts.Absent[facts.Service](),
	} {
		if got := h.lookups.service(o, &sockets[i]); got != want {
			t.Errorf("%q: %+v, want %+v", sockets[i].Master.Unit.Value, got, want)
		}
	}
}
