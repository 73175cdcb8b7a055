package remediate

import (
	"strings"
	"testing"
	"time"

	"qwatch/remediate/facts"
)

// A reload goes to the master of the socket and to nobody else, or it does not go.
func TestWay(t *testing.T) {
	how := func(method Method) func(*Policy, *facts.Socket) {
		return func(p *Policy, _ *facts.Socket) { p.ReloadHow = How{Method: method} }
	}
	file := func(method Method, trigger facts.Fact[facts.Trigger]) func(*Policy, *facts.Socket) {
		return func(p *Policy, s *facts.Socket) {
			p.ReloadHow, s.Config.Orders.Asked = How{method, "/run/app"}, trigger
		}
	}
	service := func(method Method, f facts.Fact[facts.Service]) func(*Policy, *facts.Socket) {
		return func(p *Policy, s *facts.Socket) { p.ReloadHow, s.Ways.Service = How{Method: method}, f }
	}
	chain := func(s *facts.Socket) {
		s.Config.Orders.LazyApps, s.Config.Orders.FIFO = "/a.ini:3", facts.Known(facts.FIFO{Path: "/run/fifo"})
	}
	for _, test := range []struct {
		name string
		with func(*Policy, *facts.Socket)
		want string // the way, or "-" and why there is none
	}{
		{"the unit's main process", how(MethodAuto), "systemd:app.service"},
		{"another's unit", service(MethodAuto, facts.Known(facts.Service{MainPID: 1, CanReload: true})), "hup"},
		{"no main process", service(MethodAuto, facts.Known(facts.Service{CanReload: true})), "hup"},
		{"no ExecReload", service(MethodAuto, facts.Known(facts.Service{MainPID: 1234})), "hup"},
		{"systemd was silent", service(MethodAuto, facts.Unknown[facts.Service]("no answer")), "hup"},
		{"no systemd", service(MethodAuto, facts.Absent[facts.Service]()), "hup"},
		{"no unit", func(_ *Policy, s *facts.Socket) { s.Master.Unit = facts.Absent[string]() }, "hup"},
		{"a unit that is not known", func(_ *Policy, s *facts.Socket) { s.Master.Unit = facts.Unknown[string]("why") }, "hup"},
		{"others in the unit", func(_ *Policy, s *facts.Socket) { s.Ways.Others = []string{"uwsgi 7 (127.0.0.1:5002)"} }, "hup"},
		{"asked for", how(MethodSystemd), "systemd:app.service"},
		{"asked for, and others in the unit", func(p *Policy, s *facts.Socket) {
			p.ReloadHow, s.Ways.Others = How{Method: MethodSystemd}, []string{"uwsgi 7 (127.0.0.1:5002)", "uwsgi 8"}
		}, `-a reload of app.service reaches other uWSGIs too: uwsgi 7 (127.0.0.1:5002), uwsgi 8; policy.reload.how = "auto" reloads it alone (hup)`},
		{"asked for, and a shell is the main process", service(MethodSystemd, facts.Known(facts.Service{MainPID: 77, CanReload: true})),
			`-the main process of app.service is 77, and not uWSGI 1234: its reload reaches that, and may end this; policy.reload.how = "auto" reloads it alone (hup)`},
		{"asked for, and no main process, in a chain", func(p *Policy, s *facts.Socket) {
			chain(s)
			service(MethodSystemd, facts.Known(facts.Service{CanReload: true}))(p, s)
		}, `-app.service has no main process that systemd knows, so that its reload need not reach uWSGI 1234; policy.reload.how = "auto" reloads it alone (chain)`},
		{"neither the unit nor a signal", func(p *Policy, s *facts.Socket) {
			service(MethodAuto, facts.Known(facts.Service{MainPID: 1234}))(p, s)
			s.Ways.NoSignal = facts.Known("needs CAP_KILL")
		}, "-needs CAP_KILL; nor by its unit: app.service cannot be reloaded (it has no ExecReload=)"},
		{"no unit, and no signal", func(_ *Policy, s *facts.Socket) {
			s.Master.Unit, s.Ways.NoSignal = facts.Absent[string](), facts.Known("needs CAP_KILL")
		}, "-needs CAP_KILL; nor by its unit: uWSGI 1234 belongs to no systemd unit"},
		{"asked for, and it is not seen whom it reaches", func(p *Policy, s *facts.Socket) {
			how(MethodSystemd)(p, s)
			s.Ways.Hidden = "hidepid"
		}, "-it is not known whom a reload of app.service reaches: hidepid"},
		{"it is not seen what would end with it", func(_ *Policy, s *facts.Socket) { s.Ways.Hidden = "hidepid" },
			"-it is not known what a reload of uWSGI 1234 would end besides it: hidepid"},
		{"that, where rights are assumed", func(p *Policy, s *facts.Socket) { p.AssumeRights, s.Ways.Hidden = true, "hidepid" }, "systemd:app.service"},
		{"a chain ends nothing besides", func(_ *Policy, s *facts.Socket) { chain(s); s.Ways.Hidden = "hidepid" }, "chain"},
		{"asked for, and no main process", service(MethodSystemd, facts.Known(facts.Service{CanReload: true})), "-app.service has no main process that systemd knows"},
		{"asked for, no ExecReload", service(MethodSystemd, facts.Known(facts.Service{MainPID: 1234})), "-app.service cannot be reloaded (it has no ExecReload=)"},
		{"asked for, no bus", service(MethodSystemd, facts.Unknown[facts.Service]("no bus")), "-it is not known whom a reload of app.service reaches: no bus"},
		{"asked for, no systemd", service(MethodSystemd, facts.Absent[facts.Service]()), "-no systemd runs here"},
		{"signal", how(MethodSignal), "hup"},
		{"signal without a right", func(p *Policy, s *facts.Socket) {
			p.ReloadHow, s.Ways.NoSignal = How{Method: MethodSignal}, facts.Known("needs CAP_KILL")
		}, "-needs CAP_KILL"},
		{"a right that nobody has tried", func(p *Policy, s *facts.Socket) {
			p.ReloadHow, s.Ways.NoSignal = How{Method: MethodSignal}, facts.Fact[string]{}
		}, "-it is not known whether qwatch may signal uWSGI 1234: it was not looked at"},
		{"fifo", file(MethodFIFO, facts.Known(facts.Trigger{Option: "master-fifo"})), "fifo:/run/app"},
		{"another's fifo", file(MethodFIFO, facts.Absent[facts.Trigger]()), "-/run/app is not the master FIFO of uWSGI 1234"},
		{"a file for a fifo", file(MethodFIFO, facts.Known(facts.Trigger{Option: "touch-reload"})), "-/run/app is not the master FIFO"},
		{"a fifo without a right", file(MethodFIFO, facts.Known(facts.Trigger{Option: "master-fifo", Cannot: "needs root"})), "-needs root"},
		{"touch", file(MethodTouch, facts.Known(facts.Trigger{Option: "touch-reload"})), "touch:/run/app"},
		{"touch of the workers", file(MethodTouch, facts.Known(facts.Trigger{Option: "touch-workers-reload"})), "touch:/run/app"},
		{"another's file", file(MethodTouch, facts.Absent[facts.Trigger]()), "-/run/app is no file that uWSGI 1234 watches for a reload (touch-reload, "},
		{"its configuration, which an emperor may watch", func(p *Policy, s *facts.Socket) {
			file(MethodTouch, facts.Absent[facts.Trigger]())(p, s)
			s.Config.File = "/run/app"
		}, "-/run/app is the configuration of uWSGI 1234, and no file that it watches itself for a reload; an emperor above it may watch that"},
		{"a file that does more", file(MethodTouch, facts.Known(facts.Trigger{Option: "touch-exec", At: "/a.ini:3"})),
			"-/run/app is touch-exec (/a.ini:3) of uWSGI 1234, which is no graceful reload, or more than that"},
		{"a fifo for a file", file(MethodTouch, facts.Known(facts.Trigger{Option: "master-fifo"})), "-/run/app is master-fifo"},
		{"a file that was not seen", file(MethodTouch, facts.Unknown[facts.Trigger]("no such file")), "-it is not known what /run/app is to uWSGI 1234: no such file"},
		{"lazy-apps and a fifo", func(_ *Policy, s *facts.Socket) { chain(s) }, "chain"},
		{"lazy-apps and a fifo without a right", func(_ *Policy, s *facts.Socket) {
			chain(s)
			s.Config.Orders.FIFO.Value.Cannot = "needs root"
		}, "systemd:app.service"},
		{"lazy-apps and a fifo, but a signal was asked for", func(p *Policy, s *facts.Socket) { chain(s); how(MethodSignal)(p, s) }, "hup"},
		{"chain", func(p *Policy, s *facts.Socket) { chain(s); how(MethodChain)(p, s) }, "chain"},
		{"chain without lazy-apps", how(MethodChain), "-a chain reload loads the application anew only with lazy-apps, which uWSGI 1234 runs without"},
		{"chain without a fifo", func(p *Policy, s *facts.Socket) {
			how(MethodChain)(p, s)
			s.Config.Orders.LazyApps, s.Config.Orders.FIFO = "/a.ini:3", facts.Absent[facts.FIFO]()
		}, "-uWSGI 1234 has no master FIFO, where a chain reload is asked for"},
		{"chain, and no look at the fifo", func(p *Policy, s *facts.Socket) {
			how(MethodChain)(p, s)
			s.Config.Orders.LazyApps = "/a.ini:3"
		}, "-the master FIFO of uWSGI 1234 is not known"},
		{"several masters", func(_ *Policy, s *facts.Socket) { s.Ways.Sharers = facts.Known("uwsgi 5, uwsgi 6") },
			"-uWSGI 1234 is not the only one that holds the socket (also uwsgi 5, uwsgi 6)"},
		{"perhaps several masters", func(_ *Policy, s *facts.Socket) { s.Ways.Sharers = facts.Unknown[string]("no right") },
			"-it is not known whether uWSGI masters share the socket (no right)"},
		{"a zerg", func(_ *Policy, s *facts.Socket) { s.Config.Orders.Zerg = "zerg, command line" },
			"-uWSGI 1234 is of a zerg pool (zerg, command line), and does not come up again after a reload"},
		{"a router", func(_ *Policy, s *facts.Socket) { s.Config.Orders.Router = "http, /a.ini:3" }, "-uWSGI 1234 has a router (http, /a.ini:3): a reload kills it"},
		{"a router that only shows", func(_ *Policy, s *facts.Socket) { s.Ways.Router = "uwsgi 1240" }, "-uWSGI 1234 has a router (uwsgi 1240)"},
		{"an emperor", func(_ *Policy, s *facts.Socket) {
			s.Ways.Emperor, s.Ways.Vassals = true, []string{"uwsgi 5 (127.0.0.1:5001)", "uwsgi 6"}
		}, "-uWSGI 1234 is an emperor, which of its vassals serves the socket is not seen, and its reload is that of all of them: uwsgi 5 (127.0.0.1:5001), uwsgi 6"},
		{"an emperor alone", func(_ *Policy, s *facts.Socket) { s.Ways.Emperor = true }, "-uWSGI 1234 is an emperor, and no vassal of it is seen that serves the socket"},
		{"an emperor below", func(_ *Policy, s *facts.Socket) { s.Ways.Vassals = []string{"uwsgi 5"} },
			"-uWSGI 1234 has an emperor below it, and its reload would restart all vassals: uwsgi 5"},
		{"an emperor that does not show", func(_ *Policy, s *facts.Socket) { s.Config.Orders.Emperor = "emperor, command line" },
			"-uWSGI 1234 is configured as an emperor (emperor, command line), and its reload would restart all its vassals"},
		{"a chain leaves an emperor below alone", func(_ *Policy, s *facts.Socket) { chain(s); s.Ways.Vassals = []string{"uwsgi 5"} }, "chain"},
	} {
		p, s := defaults(), full().Socket
		test.with(&p, &s)
		got, why := p.way(s)
		if want, none := strings.CutPrefix(test.want, "-"); none != (why != "") || !none && got.String() != want || none && !strings.HasPrefix(why, want) {
			t.Errorf("%s: %s, %s, want %s", test.name, got, why, test.want)
		}
	}
}

// Where a chain was possible but for a right, the plan says so.
func TestNoChain(t *testing.T) {
	p, c := defaults(), full()
	p.Reload = Always
	c.Socket.Config.Orders = facts.Orders{LazyApps: "/a.ini:3", FIFO: facts.Known(facts.FIFO{Path: "/run/fifo", Cannot: "needs root"})}
	plan := Decide(p, c, nil, now)
	r, ok := plan.Actions[len(plan.Actions)-1].(Reload)
	if want := "policy.reload.when is always; not in a chain, one worker after the other: needs root"; !ok || r.Why != want {
		t.Errorf("%+v", plan.Actions)
	}
}

// What is stopped or frozen is neither raised nor reloaded.
func TestPaused(t *testing.T) {
	p, c := defaults(), full()
	p.Reload, p.Keep = Always, true
	c.Socket.Paused = facts.Known("the cgroup of uWSGI 1234 is frozen")
	got := summary(Decide(p, c, nil, now))
	if got.Verdict != Wait || got.Code != CodePaused || len(got.Actions) > 0 || got.Reason != "a longer queue is no cure: the cgroup of uWSGI 1234 is frozen; nothing is done until it runs again" {
		t.Errorf("%+v", got)
	}
	raised := changed(time.Hour, "inc-1.1", "relisten", c.Socket.Name(), 128, 1024)
	raised.Start--
	if got := summary(PlanKeep(p, c.Facts, c.Socket, History{raised}, now)); got.Verdict != Wait || got.Code != CodePaused || len(got.Actions) > 0 {
		t.Errorf("%+v", got)
	}
}
