package remediate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/remediate/facts"
)

// changed is an event that changed the host from one number to another.
func changed(ago time.Duration, plan string, action ActionKind, target string, from, to int) Event {
	e := past(ago, plan, action, Applied)
	e.Target, e.From, e.To = target, &from, &to
	return e
}

const key = "net.core.somaxconn"

func TestUndo(t *testing.T) {
	name := full().Socket.Name()
	const gone = "the socket that was raised is gone, and its limit with it, or another uWSGI holds it by now"
	raise := History{
		changed(3*time.Hour, "inc-1.1", "sysctl", key, 128, 1024), changed(3*time.Hour, "inc-1.1", "relisten", name, 128, 1024),
		changed(2*time.Hour, "inc-1.2", "sysctl", key, 1024, 2048), changed(2*time.Hour, "inc-1.2", "relisten", name, 1024, 2048),
	}
	tests := []struct {
		name  string
		with  func(f *facts.Snapshot, h *History)
		want  []string
		stays []LeftAlone
	}{
		{"nothing was done", func(f *facts.Snapshot, h *History) { *h = nil }, nil, nil},
		{"only planned", func(f *facts.Snapshot, h *History) { *h = History{past(0, "inc-1.1", "relisten", Planned)} }, nil, nil},
		{"two raises in one step, the socket first", func(f *facts.Snapshot, h *History) {}, []string{
			"listen again on 127.0.0.1:5000 of uWSGI 1234: backlog from 2048 to 128",
			"set net.core.somaxconn from 2048 to 128, taken out of /etc/sysctl.d/90-qwatch.conf",
		}, nil},
		{"listen is configured higher", func(f *facts.Snapshot, h *History) { f.Sockets[0].Config.Listen.Value.Listen = 129 }, []string{
			"listen again on 127.0.0.1:5000 of uWSGI 1234: backlog from 2048 to 128",
		}, []LeftAlone{{key, "a uWSGI here listens, or is configured to, with 129; under a somaxconn of 128 it would not come up again"}}},
		{"a configuration could not be read", func(f *facts.Snapshot, h *History) {
			f.Sockets[0].Config.Listen, f.Sockets[0].Config.ReloadEnds = facts.Unknown[facts.Setting]("function not implemented"), facts.Unknown[string]("function not implemented")
		}, []string{
			"listen again on 127.0.0.1:5000 of uWSGI 1234: backlog from 2048 to 128",
		}, []LeftAlone{{key, "the configuration of uwsgi 1234 (app.service) is not known (function not implemented); under a somaxconn below its listen it would not come up again"}}},
		{"not every uWSGI could be looked into", func(f *facts.Snapshot, h *History) { f.HiddenOwners = "needs CAP_SYS_PTRACE" }, []string{
			"listen again on 127.0.0.1:5000 of uWSGI 1234: backlog from 2048 to 128",
		}, []LeftAlone{{key, "not every uWSGI here could be looked into (needs CAP_SYS_PTRACE); under a somaxconn below its listen one would not come up again"}}},
		{"somebody else changed both", func(f *facts.Snapshot, h *History) { f.Sockets[0].Limit, f.Sysctl[key] = 4096, 8192 }, nil, []LeftAlone{
			{name, "its limit is 4096, not the 2048 that qwatch set: somebody else's change stays"},
			{key, "it is 8192, not the 2048 that qwatch set: somebody else's change stays"},
		}},
		{"the socket is gone", func(f *facts.Snapshot, h *History) { f.Sockets = nil }, []string{
			"set net.core.somaxconn from 2048 to 128, taken out of /etc/sysctl.d/90-qwatch.conf",
		}, []LeftAlone{{name, gone}}},
		{"another uWSGI has that inode and name", func(f *facts.Snapshot, h *History) { f.Sockets[0].Master.Start++; f.Sockets[0].Limit = 128 }, []string{
			"set net.core.somaxconn from 2048 to 128, taken out of /etc/sysctl.d/90-qwatch.conf",
		}, []LeftAlone{{name, gone}}},
		{"another namespace has them", func(f *facts.Snapshot, h *History) {
			f.Sockets[0].Limit = 128
			for i := range *h {
				(*h)[i].NetNS = f.Sockets[0].ID.NetNS + 1
			}
		}, []string{
			"set net.core.somaxconn from 2048 to 128, taken out of /etc/sysctl.d/90-qwatch.conf",
		}, []LeftAlone{{name, gone}}},
		{"a trail that does not tell whose it was", func(f *facts.Snapshot, h *History) {
			for i := range *h {
				(*h)[i].PID, (*h)[i].Start = 0, 0
			}
		}, []string{
			"listen again on 127.0.0.1:5000 of uWSGI 1234: backlog from 2048 to 128",
			"set net.core.somaxconn from 2048 to 128, taken out of /etc/sysctl.d/90-qwatch.conf",
		}, nil},
		{"undone already", func(f *facts.Snapshot, h *History) {
			*h = append(*h, changed(0, "undo-1", "relisten", name, 2048, 128), changed(0, "undo-1", "sysctl", key, 2048, 128))
		}, nil, nil},
		{"only back to somebody else's value in between", func(f *facts.Snapshot, h *History) {
			f.Sockets[0].Limit = 128
			*h = History{changed(3*time.Hour, "inc-1.1", "sysctl", key, 128, 1024), changed(2*time.Hour, "inc-1.2", "sysctl", key, 1500, 2048)}
		}, []string{"set net.core.somaxconn from 2048 to 1500, taken out of /etc/sysctl.d/90-qwatch.conf"},
			nil},
		{"another namespace's key is not ours", func(f *facts.Snapshot, h *History) {
			set := SetSysctl{Key: key, From: 128, To: 2048, NetNSOf: f.Sockets[0].Master}
			*h = History{changed(time.Hour, "inc-1.1", "sysctl", set.Describe().Target, 128, 2048)}
		}, nil, []LeftAlone{{"net.core.somaxconn of uwsgi 1234 (app.service)", "it cannot be read from qwatch's network namespace"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, h := full().Facts, append(History(nil), raise...)
			f.Sockets[0].Limit, f.Sysctl[key] = 2048, 2048
			test.with(&f, &h)
			plan, stays := PlanUndo(defaults(), f, h, now)
			if diff := cmp.Diff(test.want, summary(plan).Actions); diff != "" {
				t.Errorf("actions (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(test.stays, stays); diff != "" {
				t.Errorf("stays (-want +got)\n%s", diff)
			}
			if (plan.Verdict == Act) != (len(test.want) > 0) || plan.Reason == "" {
				t.Errorf("%s: %s", plan.Verdict, plan.Reason)
			}
		})
	}
}

// What an administrator sets back while the host runs on stays; after a boot
// it was nobody's decision. A namespace of a container is none of it.
func TestSteppedAside(t *testing.T) {
	tests := []struct {
		name string
		h    History
		up   time.Duration // since when the host runs
		want decided
	}{
		{"set back", History{changed(time.Hour, "inc-0.1", "sysctl", key, 128, 1024)}, 2 * time.Hour,
			decided{Verdict: Refuse, Code: codeSteppedAside, Target: 1024,
				Reason: "somaxconn is 128 and not raised to 1024: qwatch set net.core.somaxconn to 1024 at 2026-03-01T11:00:00Z, and somebody has set it to 128 since"}},
		{"booted since", History{changed(time.Hour, "inc-0.1", "sysctl", key, 128, 1024)}, time.Minute,
			decided{Verdict: Act, Code: codeFull, Target: 1024, Reason: fullReason, Actions: wholeRaise}},
		{"undone by qwatch", History{changed(2*time.Hour, "inc-0.1", "sysctl", key, 128, 1024), changed(time.Hour, "undo-1", "sysctl", key, 1024, 128)}, 9 * time.Hour,
			decided{Verdict: Act, Code: codeFull, Target: 1024, Reason: fullReason, Actions: wholeRaise}},
		{"a container's somaxconn", History{changed(time.Hour, "inc-0.1", "sysctl",
			SetSysctl{Key: key, From: 128, To: 1024, NetNSOf: facts.Process{PID: 30, Comm: "uwsgi", Container: "web"}}.Describe().Target, 128, 1024)}, 2 * time.Hour,
			decided{Verdict: Act, Code: codeFull, Target: 1024, Reason: fullReason, Actions: wholeRaise}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := full()
			c.Facts.Booted = now.Add(-test.up)
			if diff := cmp.Diff(test.want, summary(Decide(defaults(), c, test.h, now))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestKeep(t *testing.T) {
	name := full().Socket.Name()
	before := changed(time.Hour, "inc-1.1", "relisten", name, 128, 1024)
	before.Start-- // the uWSGI that was raised
	tests := []struct {
		name string
		with func(p *Policy, c *Case, h *History)
		want decided
	}{
		{"restarted", func(p *Policy, c *Case, h *History) { c.raised(1024) }, decided{Verdict: Act, Code: codeKept, Target: 1024,
			Reason:  "uWSGI was restarted and listens with 128 again, after qwatch had raised it to 1024",
			Actions: []string{relist}, Advice: []string{"set `listen = 1024` in /etc/uwsgi/app.ini:3 (now 128), so that it outlasts a restart"}}},
		{"systemd made its socket anew", func(p *Policy, c *Case, h *History) {
			c.raised(1024)
			c.Socket.Unit = facts.Known(facts.SocketUnit{Name: "app.socket"})
		}, decided{Verdict: Act, Code: codeKept, Target: 1024,
			Reason:  "uWSGI was restarted and listens with 128 again, after qwatch had raised it to 1024",
			Actions: []string{relist}, Advice: []string{"set Backlog=1024 under [Socket] by `systemctl edit app.socket`, so that it outlasts a restart of that unit"}}},
		{"restarted by a stranger", func(p *Policy, c *Case, h *History) { c.Socket.Untrusted = facts.Known("it is uid 7's") },
			decided{Verdict: Refuse, Code: CodeUntrusted, Reason: "the uWSGI is none that qwatch acts on: it is uid 7's", Advice: []string{adviceTrust}}},
		{"restarted in a container with the host's network", func(p *Policy, c *Case, h *History) { c.Socket.Master.Container = "docker:0123" },
			decided{Verdict: Nothing, Code: codeKept, Reason: "uWSGI was restarted and listens with 128 again, after qwatch had raised it to 1024; that stays: the socket is that of a container with the host's network (uwsgi 1234 (docker:0123)), and policy.containers is off"}},
		{"keep is off", func(p *Policy, c *Case, h *History) { p.Keep = false }, decided{Verdict: Nothing, Code: codeKept,
			Reason: "uWSGI was restarted and listens with 128 again, after qwatch had raised it to 1024; that stays: policy.keep is off"}},
		{"relisten is off", func(p *Policy, c *Case, h *History) { p.Relisten = false }, decided{Verdict: Nothing, Code: codeKept,
			Reason: "uWSGI was restarted and listens with 128 again, after qwatch had raised it to 1024; that stays: policy.relisten is off"}},
		{"nobody may", func(p *Policy, c *Case, h *History) {
			c.Facts.Cannot = map[facts.Step]facts.Fact[string]{facts.StepRelisten: facts.Known("needs CAP_SYS_PTRACE")}
		}, decided{Verdict: Nothing, Code: codeKept, Reason: "uWSGI was restarted and listens with 128 again, after qwatch had raised it to 1024; that stays: needs CAP_SYS_PTRACE"}},
		{"never raised", func(p *Policy, c *Case, h *History) { *h = nil }, decided{Verdict: Nothing, Code: codeKept, Reason: "qwatch has not raised its limit"}},
		{"lowered while it ran", func(p *Policy, c *Case, h *History) { (*h)[0].Start++ }, decided{Verdict: Nothing, Code: codeKept, Reason: "its limit was set to 128 by somebody else, and not by a restart, after qwatch had raised it to 1024: that stays"}},
		{"undone", func(p *Policy, c *Case, h *History) {
			*h = append(*h, changed(time.Minute, "undo-1", "relisten", name, 1024, 128))
		}, decided{Verdict: Nothing, Code: codeKept, Reason: "qwatch has not raised its limit"}},
		{"came up with more", func(p *Policy, c *Case, h *History) { c.limit(4096) }, decided{Verdict: Nothing, Code: codeKept, Reason: "its limit is as it should be"}},
		{"somaxconn allows no more", func(p *Policy, c *Case, h *History) { p.Sysctl = false }, decided{Verdict: Nothing, Code: codeKept, Target: 128,
			Reason: "uWSGI was restarted and listens with 128 again, after qwatch had raised it to 1024; somaxconn 128 allows no more"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, c, h := defaults(), full(), History{before}
			p.Keep = true
			test.with(&p, &c, &h)
			if diff := cmp.Diff(test.want, summary(PlanKeep(p, c.Facts, c.Socket, h, now))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestBootLosses(t *testing.T) {
	f := facts.Snapshot{
		WinningFile: "/etc/sysctl.d/99-zz-qwatch.conf",
		File:        map[string]int{key: 1024, "net.core.netdev_max_backlog": 16384, "net.ipv4.tcp_max_syn_backlog": 8192, "net.core.other": 5},
		Boot: map[string]facts.Fact[facts.BootValue]{
			key:                           facts.Known(facts.BootValue{Value: 128, File: "/etc/sysctl.d/99-sysctl.conf", Line: 7}),
			"net.core.netdev_max_backlog": facts.Known(facts.BootValue{Value: 16384, File: "/etc/sysctl.d/90-qwatch.conf", Line: 3}),
			"net.core.other":              facts.Known(facts.BootValue{Value: 9, File: "/etc/sysctl.d/99-sysctl.conf", Line: 8}),
		},
	}
	losses := BootLosses(defaults(), f)
	if len(losses) != 1 {
		t.Fatalf("%v", losses)
	}
	const want = "a reboot would set net.core.somaxconn to 128, not to 1024: /etc/sysctl.d/99-sysctl.conf:7 is read after /etc/sysctl.d/90-qwatch.conf; change that line, or set policy.sysctl.file = \"/etc/sysctl.d/99-zz-qwatch.conf\""
	if diff := cmp.Diff(want, losses[0].String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
