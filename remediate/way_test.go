package remediate

import (
	"testing"

	"qwatch/remediate/facts"
)

// The unit is the way only where its main process is the socket's master.
func TestWay(t *testing.T) {
	auto, asked := How{Method: MethodAuto}, How{Method: MethodSystemd}
	for _, test := range []struct {
		name    string
		how     How
		service facts.Fact[facts.Service]
		want    string
	}{
		{"the unit's main process", auto, facts.Known(facts.Service{MainPID: 1234, CanReload: true}), "systemd:app.service"},
		{"another's unit", auto, facts.Known(facts.Service{MainPID: 1, CanReload: true}), "hup"},
		{"no main process", auto, facts.Known(facts.Service{CanReload: true}), "hup"},
		{"no ExecReload", auto, facts.Known(facts.Service{MainPID: 1234}), "hup"},
		{"systemd was silent", auto, facts.Unknown[facts.Service]("no answer"), "hup"},
		{"no systemd", auto, facts.Absent[facts.Service](), "hup"},
		{"asked for", asked, facts.Known(facts.Service{MainPID: 1234}), "systemd:app.service"},
		{"signal", How{Method: MethodSignal}, facts.Known(facts.Service{MainPID: 1234, CanReload: true}), "hup"},
		{"fifo", How{MethodFIFO, "/run/app.fifo"}, facts.Fact[facts.Service]{}, "fifo:/run/app.fifo"},
		{"touch", How{MethodTouch, "/run/app.touch"}, facts.Fact[facts.Service]{}, "touch:/run/app.touch"},
	} {
		p, s := defaults(), full().Socket
		p.ReloadHow, s.Ways.Service = test.how, test.service
		if w, why := p.way(s); w.String() != test.want || why != "" {
			t.Errorf("%s: %s, %s", test.name, w, why)
		}
	}
	if got := (Way{WayChain, "/run/app.fifo"}).String(); got != "chain" {
		t.Errorf("chain is %s", got)
	}
}
