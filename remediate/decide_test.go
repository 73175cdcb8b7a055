package remediate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/matcher"
	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// defaults is the policy of a configuration that says dry_run = false and
// nothing else.
func defaults() Policy {
	return Policy{
		Corroborate: true, Factor: 2, MinBacklog: 1024, MaxBacklog: 8192,
		Cooldown: time.Minute, GiveUpAfter: 3,
		Sysctl: true, SysctlFile: "/etc/sysctl.d/90-qwatch.conf",
		Also:     map[string]int{"net.core.netdev_max_backlog": 16384, "net.ipv4.tcp_max_syn_backlog": 8192},
		Relisten: true,
		Reload:   Needed, ReloadHow: How{Method: MethodAuto}, ReloadTimeout: 90 * time.Second,
		ReloadCooldown: 10 * time.Minute, ReloadsPerHour: 4,
	}
}

// nothingNew is what a reload brings where nobody has changed anything.
func nothingNew() facts.Deploy {
	since := facts.Known(now.Add(-time.Hour))
	old := now.Add(-2 * time.Hour)
	return facts.Deploy{
		Since: since, Loaded: since, Lost: facts.Absent[string](), Program: facts.Absent[facts.File](),
		Config: facts.Known(facts.File{Path: "/etc/uwsgi/app.ini", At: old}), Source: facts.Known(facts.File{Path: "/srv/shop/app.py", At: old}),
	}
}

// full is the case of one uWSGI whose queue overflows.
func full() Case {
	s := facts.Socket{
		ID: facts.SocketID{NetNS: 1, Inode: 77}, Family: facts.TCP, Address: "127.0.0.1:5000",
		Length: 129, Limit: 128, FD: 3, Somaxconn: facts.Known(128),
		Master:  facts.Process{PID: 1234, Start: 99, Comm: "uwsgi", Unit: facts.Known("app.service")},
		Workers: make([]facts.Worker, 4),
		Config: facts.Config{
			Listen: facts.Known(facts.Setting{Listen: 128, At: "/etc/uwsgi/app.ini:3"}), ReloadEnds: facts.Absent[string](),
			Mode: facts.Known(facts.NewMode()),
		},
		Sight:     facts.Known(facts.Sight{Files: true}),
		Unit:      facts.Absent[facts.SocketUnit](),
		Untrusted: facts.Absent[string](),
		Paused:    facts.Absent[string](),
		Ways: facts.Ways{
			Service:  facts.Known(facts.Service{MainPID: 1234, CanReload: true}),
			NoSignal: facts.Absent[string](), Sharers: facts.Absent[string](),
		},
		Deploy: nothingNew(),
	}
	return Case{
		Incident: matcher.Incident{ID: "inc-1", Socket: s.Address, Hits: 3, Peak: 129, Limit: 128},
		Facts: facts.Snapshot{
			At: now, Sockets: []facts.Socket{s}, Cannot: facts.Allowed(),
			Sysctl: map[string]int{"net.core.somaxconn": 128, "net.core.netdev_max_backlog": 1000, "net.ipv4.tcp_max_syn_backlog": 512},
			File:   map[string]int{},
		},
		Socket:   s,
		Evidence: facts.Evidence{Samples: 4, Full: 3, Peak: 129, Limit: 128, Overflows: facts.Known[uint64](37), OthersCalm: true, Over: 900 * time.Millisecond},
	}
}

// but is what is allowed where one step is not.
func but(step facts.Step, why string) map[facts.Step]facts.Fact[string] {
	all := facts.Allowed()
	all[step] = facts.Known(why)
	return all
}

// past is an event about the socket of full, ago before now.
func past(ago time.Duration, plan string, action ActionKind, result Result) Event {
	s := full().Socket
	return Event{
		Time: now.Add(-ago), Plan: plan, Incident: "inc-1", Socket: s.Name(), Action: action, Target: s.Name(),
		PID: s.Master.PID, Start: s.Master.Start, Inode: s.ID.Inode, Result: result, Why: "test",
	}
}

func failed(e Event, err string) Event {
	e.Error = err
	return e
}

func of(e Event, incident string) Event {
	e.Incident = incident
	return e
}

// decided is what a test asserts of a plan: all that people read.
type decided struct {
	Verdict Verdict
	Code    Code
	Target  int
	Reason  string
	Actions []string
	Advice  []string
}

func summary(p Plan) decided {
	d := decided{Verdict: p.Verdict, Code: p.Code, Target: p.Target, Reason: p.Reason, Advice: p.Advice}
	for _, a := range p.Actions {
		text := a.String()
		switch a := a.(type) {
		case SetSysctl:
			if a.FileFrom != 0 {
				text += fmt.Sprintf(" (holds %d)", a.FileFrom)
			}
			if a.Companion {
				text += " (companion)"
			}
		case Reload:
			text += ": " + a.Why
			// What it costs is tested apart.
			d.Reason, _, _ = strings.Cut(d.Reason, "; then "+a.Socket.Price(a.Way.Wholly(a.Socket), a.Way.InTurn(a.Socket)))
		}
		d.Actions = append(d.Actions, text)
	}
	return d
}

const (
	seen       = "3 of 4 samples over 900ms found the queue full (longest 129, limit 128), 37 overflows in its network namespace"
	fullReason = "the accept queue of 127.0.0.1:5000 holds 129 of 128 and " + seen + "; raise it to 1024 (policy.min_backlog)"

	setSomaxconn = "set net.core.somaxconn from 128 to 1024, kept in /etc/sysctl.d/90-qwatch.conf"
	setNetdev    = "set net.core.netdev_max_backlog from 1000 to 16384, kept in /etc/sysctl.d/90-qwatch.conf (companion)"
	setSyn       = "set net.ipv4.tcp_max_syn_backlog from 512 to 8192, kept in /etc/sysctl.d/90-qwatch.conf (companion)"
	relist       = "listen again on 127.0.0.1:5000 of uWSGI 1234: backlog from 128 to 1024"
	reloadAuto   = "reload uWSGI 1234 (systemd:app.service): "

	adviceSeconds  = "a longer queue buys seconds, not capacity"
	adviceWorkers  = "give uWSGI more workers (processes) than its 4, or make the requests shorter"
	adviceHarakiri = "set `harakiri = 30` in /etc/uwsgi/app.ini, so that a worker is replaced when a request holds it for 30 seconds"
	adviceSee      = "let qwatch see what uwsgi 1234 (app.service) runs, as root or with CAP_SYS_PTRACE, or name its user in `users = [...]` under [probe] of qwatch's configuration"
	adviceTrust    = "qwatch acts on services of the system's own systemd; name the user of uwsgi 1234 (app.service) in `users = [...]` under [probe] of qwatch's configuration if it shall act on this one too, or raise it yourself"
	adviceListen   = "set `listen = 1024` in /etc/uwsgi/app.ini:3 (now 128) and restart uWSGI: a running socket keeps its limit, also over most reloads"
)

var (
	wholeRaise = []string{setSomaxconn, setNetdev, setSyn, relist}
	capacity   = []string{adviceSeconds, adviceWorkers, adviceHarakiri}
	withReload = func(why string) []string { return append(slices.Clone(wholeRaise), reloadAuto+why) }
	noRelisten = but(facts.StepRelisten, "needs CAP_SYS_PTRACE")
)

// limit sets the socket's limit, and the queue one over it.
func (c *Case) limit(n int) {
	c.Socket.Limit, c.Socket.Length = n, n+1
	c.Evidence.Limit, c.Evidence.Peak = n, n+1
}

// raised says that the kernel parameters are as a former raise left them.
func (c *Case) raised(somaxconn int) {
	c.Socket.Somaxconn = facts.Known(somaxconn)
	c.Facts.Sysctl = map[string]int{"net.core.somaxconn": somaxconn, "net.core.netdev_max_backlog": 16384, "net.ipv4.tcp_max_syn_backlog": 8192}
}

// row is a test of Decide: full and the built-in policy, changed by with.
type row struct {
	name string
	with func(p *Policy, c *Case, h *History)
	want decided
}

func testDecide(t *testing.T, rows []row) {
	t.Helper()
	for _, test := range rows {
		t.Run(test.name, func(t *testing.T) {
			p, c, h := defaults(), full(), History(nil)
			test.with(&p, &c, &h)
			got := Decide(p, c, h, now)
			if diff := cmp.Diff(test.want, summary(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if strings.Contains(got.Reason, "\n") {
				t.Errorf("reason %q is not one line", got.Reason)
			}
		})
	}
}

func act(reason string, actions ...string) decided {
	return decided{Verdict: Act, Code: codeFull, Target: 1024, Reason: reason, Actions: actions}
}

// What the kernel shows counts, not what the log says.
func TestDecideEvidence(t *testing.T) {
	testDecide(t, []row{
		{"full", func(p *Policy, c *Case, h *History) {}, act(fullReason, wholeRaise...)},
		{"the log says full, the kernel does not", func(p *Policy, c *Case, h *History) {
			c.Evidence = facts.Evidence{Samples: 4, Peak: 3, Limit: 128, Overflows: facts.Known[uint64](0), OthersCalm: true, Over: time.Second}
		}, decided{Verdict: Wait, Code: CodeUncorroborated,
			Reason: "the kernel does not show what the log says: 0 of 4 samples over 1s found the queue full (longest 3, limit 128), no overflows"}},
		{"the kernel was not looked at", func(p *Policy, c *Case, h *History) { c.Evidence = facts.Evidence{OthersCalm: true} },
			decided{Verdict: Wait, Code: CodeUncorroborated,
				Reason: "the kernel does not show what the log says: the kernel was not looked at"}},
		{"corroborate is off", func(p *Policy, c *Case, h *History) {
			p.Corroborate = false
			c.Socket.Length = 5
			c.Evidence = facts.Evidence{Samples: 1, Peak: 5, Limit: 128, OthersCalm: true}
		}, act("the accept queue of 127.0.0.1:5000 holds 5 of 128 and 0 of 1 sample over 0s found the queue full (longest 5, limit 128); raise it to 1024 (policy.min_backlog)", wholeRaise...)},
		{"overflows while half full and alone", func(p *Policy, c *Case, h *History) {
			c.Evidence.Full, c.Evidence.Peak, c.Socket.Length = 0, 64, 0
		}, act("the accept queue of 127.0.0.1:5000 holds 64 of 128 and 0 of 4 samples over 900ms found the queue full (longest 64, limit 128), 37 overflows in its network namespace; raise it to 1024 (policy.min_backlog)", wholeRaise...)},
		{"overflows while less than half full", func(p *Policy, c *Case, h *History) {
			c.Evidence.Full, c.Evidence.Peak, c.Socket.Length = 0, 63, 0
		}, decided{Verdict: Wait, Code: CodeUncorroborated,
			Reason: "the kernel does not show what the log says: 0 of 4 samples over 900ms found the queue full (longest 63, limit 128), 37 overflows in its network namespace"}},
		{"overflows that may be another socket's", func(p *Policy, c *Case, h *History) {
			c.Evidence.Full, c.Evidence.Peak, c.Socket.Length, c.Evidence.OthersCalm = 0, 128, 0, false
		}, decided{Verdict: Wait, Code: CodeUncorroborated,
			Reason: "the kernel does not show what the log says: 0 of 4 samples over 900ms found the queue full (longest 128, limit 128), 37 overflows in its network namespace"}},
		{"TCP's overflows say nothing of a UNIX socket", func(p *Policy, c *Case, h *History) {
			c.Socket.Family, c.Socket.Address, c.Socket.Length = facts.Unix, "/run/app.sock", 0
			c.Evidence = facts.Weigh(c.Socket, []facts.Sample{
				{ID: c.Socket.ID, At: now, Length: 64, Limit: 128}, {ID: c.Socket.ID, At: now.Add(time.Second), Limit: 128, Overflows: 37},
			}, time.Time{})
		}, decided{Verdict: Wait, Code: CodeUncorroborated,
			Reason: "the kernel does not show what the log says: 0 of 2 samples over 1s found the queue full (longest 64, limit 128)"}},
		{"garbage in the log", func(p *Policy, c *Case, h *History) {
			c.Incident.Peak = 0
			c.Evidence = facts.Evidence{Samples: 4, Limit: 64, Overflows: facts.Known[uint64](0), OthersCalm: true, Over: time.Second}
		}, decided{Verdict: Refuse, Code: codeGarbage,
			Reason: "the log's numbers cannot be true, and the kernel does not show a full queue: 0 of 4 samples over 1s found the queue full (longest 0, limit 64), no overflows"}},
		{"garbage, and the log is to be believed", func(p *Policy, c *Case, h *History) {
			p.Corroborate = false
			c.Incident.Peak = 0
			c.Evidence = facts.Evidence{}
		}, decided{Verdict: Refuse, Code: codeGarbage,
			Reason: "the log's numbers cannot be true, and the kernel does not show a full queue: the kernel was not looked at"}},
		{"garbage, but the kernel shows a full queue", func(p *Policy, c *Case, h *History) { c.Incident.Peak = 0 },
			act(fullReason, wholeRaise...)},
		{"asked, and full", func(p *Policy, c *Case, h *History) { c.Incident = matcher.Incident{} }, act(fullReason, wholeRaise...)},
		{"asked, and not full", func(p *Policy, c *Case, h *History) {
			p.Corroborate = false
			c.Incident, c.Evidence = matcher.Incident{}, facts.Evidence{Samples: 1, Limit: 128, OthersCalm: true}
		}, decided{Verdict: Nothing, Code: codeNotFull,
			Reason: "the queue is not full: 0 of 1 sample over 0s found the queue full (longest 0, limit 128)"}},
	})
}

func TestDecideSocket(t *testing.T) {
	testDecide(t, []row{
		{"not found", func(p *Policy, c *Case, h *History) {
			c.Socket, c.Lost = facts.Socket{}, errors.New(`no uWSGI listens on "10.9.8.7:1"`)
		}, decided{Verdict: Refuse, Code: CodeNotFound, Reason: `the socket was not found: no uWSGI listens on "10.9.8.7:1"`}},
		{"foreign", func(p *Policy, c *Case, h *History) { c.Socket.OtherNetNS = true },
			decided{Verdict: Refuse, Code: codeOtherNetNS,
				Reason: "the socket lives in another network namespace (uwsgi 1234 (app.service)), and policy.containers is off"}},
		{"foreign with containers on", func(p *Policy, c *Case, h *History) {
			p.Containers, c.Socket.OtherNetNS, c.Socket.Master.Container = true, true, "web"
		}, decided{Verdict: Act, Code: codeFull, Target: 1024,
			Reason: strings.ReplaceAll(fullReason, "127.0.0.1:5000", "127.0.0.1:5000 in web"),
			Actions: []string{"set net.core.somaxconn from 128 to 1024 in the namespace of uwsgi 1234 (web)",
				"listen again on 127.0.0.1:5000 in web of uWSGI 1234: backlog from 128 to 1024"},
			Advice: []string{"give the container web its own somaxconn, which no file of the host reaches and each start of it sets anew: compose `sysctls: [net.core.somaxconn=1024]` or `docker run --sysctl net.core.somaxconn=1024`",
				"on Kubernetes set it in the pod's securityContext.sysctls, which the kubelet must allow (allowedUnsafeSysctls: [net.core.somaxconn])"}}},
		{"a container with the host's network", func(p *Policy, c *Case, h *History) { c.Socket.Master.Container = "docker:0123" },
			decided{Verdict: Refuse, Code: codeOtherNetNS,
				Reason: "the socket is that of a container with the host's network (uwsgi 1234 (docker:0123)), and policy.containers is off"}},
		{"a container with the host's network, on", func(p *Policy, c *Case, h *History) { p.Containers, c.Socket.Master.Container = true, "docker:0123" },
			decided{Verdict: Act, Code: codeFull, Target: 1024, Reason: fullReason, Actions: wholeRaise}},
		{"a stranger", func(p *Policy, c *Case, h *History) { c.Socket.Untrusted = facts.Known(`it is uid 7's; users = ["7"]`) },
			decided{Verdict: Refuse, Code: CodeUntrusted, Reason: `the uWSGI is none that qwatch acts on: it is uid 7's; users = ["7"]`, Advice: []string{adviceTrust}}},
		{"a stranger, in a dry run", func(p *Policy, c *Case, h *History) {
			p.DryRun, c.Socket.Untrusted = true, facts.Known("it is uid 7's")
		},
			decided{Verdict: Refuse, Code: CodeUntrusted, Reason: "the uWSGI is none that qwatch acts on: it is uid 7's", Advice: []string{adviceTrust}}},
		{"nobody knows whose", func(p *Policy, c *Case, h *History) { c.Socket.Untrusted = facts.Fact[string]{} },
			decided{Verdict: Refuse, Code: CodeUntrusted, Reason: "whether qwatch may act on the uWSGI could not be seen: it was not looked at", Advice: []string{adviceSee}}},
		{"nobody knows whose, in a dry run", func(p *Policy, c *Case, h *History) {
			p.AssumeRights, c.Socket.Untrusted = true, facts.Unknown[string]("no right")
		},
			decided{Verdict: Act, Code: codeFull, Target: 1024, Actions: wholeRaise,
				Reason: fullReason + "; not proven here, and needed to act: that qwatch may act on it (no right)"}},
		{"stepped aside", func(p *Policy, c *Case, h *History) {
			c.Facts.Booted = now.Add(-time.Hour)
			*h = History{{Time: now.Add(-time.Minute), Plan: "inc-0.1", Action: "sysctl", Target: "net.core.somaxconn", To: ptr(2048), Result: Applied}}
		}, decided{Verdict: Refuse, Code: codeSteppedAside, Target: 1024,
			Reason: "somaxconn is 128 and not raised to 1024: qwatch set net.core.somaxconn to 2048 at " + now.Add(-time.Minute).Format(time.RFC3339) + ", and somebody has set it to 128 since"}},
		{"set before the last boot", func(p *Policy, c *Case, h *History) {
			c.Facts.Booted = now.Add(-time.Second)
			*h = History{{Time: now.Add(-time.Minute), Plan: "inc-0.1", Action: "sysctl", Target: "net.core.somaxconn", To: ptr(2048), Result: Applied}}
		}, decided{Verdict: Act, Code: codeFull, Target: 1024, Reason: fullReason, Actions: wholeRaise}},

		{"gave up after failures", func(p *Policy, c *Case, h *History) {
			for i := range 3 {
				*h = append(*h, failed(past(time.Duration(30-i)*time.Minute, fmt.Sprintf("inc-1.%d", i+1), "sysctl", Failed), "no space left on device"))
			}
		}, decided{Verdict: Refuse, Code: CodeGaveUp, Reason: "gave up: 3 tries failed, the last with: no space left on device"}},
	})
}

// A longer queue must be a cure.
func TestDecideDiagnosis(t *testing.T) {
	testDecide(t, []row{
		{"stall", func(p *Policy, c *Case, h *History) {
			c.Diagnosis = diagnose.Diagnosis{Kind: diagnose.Stall, Reasons: []string{"nothing takes connections"}, Advice: []string{"set harakiri"}}
		}, decided{Verdict: Refuse, Code: codeStall, Reason: "a longer queue is no cure: nothing takes connections", Advice: []string{"set harakiri"}}},
		{"respawn", func(p *Policy, c *Case, h *History) {
			c.Diagnosis = diagnose.Diagnosis{Kind: diagnose.Respawn, Reasons: []string{"uWSGI is reloading"}}
		}, decided{Verdict: Wait, Code: codeRespawn, Reason: "a longer queue is no cure yet: uWSGI is reloading"}},
		{"it may be a stall", func(p *Policy, c *Case, h *History) {
			c.Diagnosis = diagnose.Diagnosis{Kind: diagnose.Burst, Reasons: []string{"many at once"}, Doubt: "all 2 workers are waiting"}
		}, decided{Verdict: Wait, Code: codeUnproven, Reason: "a longer queue may be no cure: all 2 workers are waiting"}},
		{"overload, bounded", func(p *Policy, c *Case, h *History) {
			c.Diagnosis = diagnose.Diagnosis{Kind: diagnose.Overload, Reasons: []string{"more comes than the workers take"}, MaxTarget: 300}
		}, decided{Verdict: Act, Code: codeFull, Target: 300, Reason: strings.Replace(fullReason, "raise it to 1024 (policy.min_backlog)", "raise it to 300 (max_wait at the measured rate)", 1),
			Actions: []string{strings.Replace(setSomaxconn, "1024", "300", 1), setNetdev, setSyn, strings.Replace(relist, "1024", "300", 1)}}},
		{"overload, at max_wait", func(p *Policy, c *Case, h *History) {
			p.MaxWait = 10 * time.Second
			c.Diagnosis = diagnose.Diagnosis{Kind: diagnose.Overload, Reasons: []string{"more comes than the workers take"}, MaxTarget: 100, Advice: []string{"more workers"}}
		}, decided{Verdict: Refuse, Code: codeMaxWait, Advice: []string{"more workers"},
			Reason: "a longer queue is no cure: more comes than the workers take; in more than 100 connections the last would wait longer than policy.max_wait 10s"}},
		{"burst", func(p *Policy, c *Case, h *History) {
			c.Diagnosis = diagnose.Diagnosis{Kind: diagnose.Burst, Reasons: []string{"many at once"}}
		}, decided{Verdict: Act, Code: codeFull, Target: 1024, Reason: fullReason, Actions: wholeRaise}},
	})
}

func TestDecideTarget(t *testing.T) {
	testDecide(t, []row{
		{"factor 1.5", func(p *Policy, c *Case, h *History) {
			p.Factor, p.MinBacklog = 1.5, 1
		}, decided{Verdict: Act, Code: codeFull, Target: 256, Reason: strings.Replace(fullReason, "to 1024 (policy.min_backlog)", "to 256 (128 × 1.5, rounded up to a power of two)", 1), Actions: []string{
			strings.Replace(setSomaxconn, "1024", "256", 1), setNetdev, setSyn, strings.Replace(relist, "1024", "256", 1)}}},
		{"max_backlog that is no power of two", func(p *Policy, c *Case, h *History) {
			p.MaxBacklog = 3000
			c.limit(2048)
			c.raised(2048)
		}, decided{Verdict: Act, Code: codeFull, Target: 3000,
			Reason: "the accept queue of 127.0.0.1:5000 holds 2049 of 2048 and 3 of 4 samples over 900ms found the queue full (longest 2049, limit 2048), 37 overflows in its network namespace; raise it to 3000 (policy.max_backlog)",
			Actions: []string{"set net.core.somaxconn from 2048 to 3000, kept in /etc/sysctl.d/90-qwatch.conf",
				"listen again on 127.0.0.1:5000 of uWSGI 1234: backlog from 2048 to 3000"}}},
		{"ceiling", func(p *Policy, c *Case, h *History) { c.limit(8192) },
			decided{Verdict: Refuse, Code: codeCeiling, Reason: "the limit is 8192, and policy.max_backlog allows no more than 8192",
				Advice: append(slices.Clone(capacity), "set `listen = 8192` in /etc/uwsgi/app.ini:3 (now 128), or a restart brings 128 back")}},
		{"less than a quarter to the ceiling", func(p *Policy, c *Case, h *History) {
			c.limit(7000)
			c.Socket.Config.Listen.Value.Listen = 7000
		}, decided{Verdict: Refuse, Code: codeCeiling, Advice: capacity,
			Reason: "the limit is 7000, and no more than 8192 is possible (policy.max_backlog): less than a quarter more is no raise"}},
		{"less than a quarter to somaxconn", func(p *Policy, c *Case, h *History) {
			p.Sysctl = false
			c.Socket.Somaxconn = facts.Known(159)
		}, decided{Verdict: Refuse, Code: codeCeiling, Advice: capacity,
			Reason: "the limit is 128, and no more than 159 is possible (somaxconn, policy.sysctl is off): less than a quarter more is no raise"}},
		{"less than a quarter to max_wait", func(p *Policy, c *Case, h *History) {
			p.MaxWait = 10 * time.Second
			c.Diagnosis = diagnose.Diagnosis{Kind: diagnose.Overload, Reasons: []string{"more comes than the workers take"}, MaxTarget: 159, Advice: []string{"more workers"}}
		}, decided{Verdict: Refuse, Code: codeMaxWait, Advice: []string{"more workers"},
			Reason: "a longer queue is no cure: more comes than the workers take; in more than 159 connections the last would wait longer than policy.max_wait 10s"}},
		{"a quarter", func(p *Policy, c *Case, h *History) { p.MinBacklog, p.MaxBacklog = 1, 160 },
			decided{Verdict: Act, Code: codeFull, Target: 160, Reason: strings.Replace(fullReason, "to 1024 (policy.min_backlog)", "to 160 (policy.max_backlog)", 1), Actions: []string{
				strings.Replace(setSomaxconn, "1024", "160", 1), setNetdev, setSyn, strings.Replace(relist, "1024", "160", 1)}}},
		{"a limit over the ceiling is not lowered", func(p *Policy, c *Case, h *History) {
			c.limit(16384)
			c.Socket.Config.Listen.Value.Listen = 16384
		}, decided{Verdict: Refuse, Code: codeCeiling, Reason: "the limit is 16384, and policy.max_backlog allows no more than 8192", Advice: capacity}},
	})
}

func TestDecideSysctls(t *testing.T) {
	testDecide(t, []row{
		{"no companions for a UNIX socket", func(p *Policy, c *Case, h *History) { c.Socket.Family = facts.Unix },
			act(fullReason, setSomaxconn, relist)},
		{"no companions without somaxconn", func(p *Policy, c *Case, h *History) {
			c.Socket.Somaxconn, c.Facts.Sysctl["net.core.somaxconn"] = facts.Known(4096), 4096
		}, act(fullReason, relist)},
		{"sysctl off, somaxconn has room", func(p *Policy, c *Case, h *History) {
			p.Sysctl = false
			c.Socket.Somaxconn = facts.Known(4096)
		}, act(fullReason, relist)},
		{"sysctl off, somaxconn is the target", func(p *Policy, c *Case, h *History) {
			p.Sysctl = false
			c.Socket.Somaxconn = facts.Known(500)
		}, decided{Verdict: Act, Code: codeFull, Target: 500, Reason: strings.Replace(fullReason, "to 1024 (policy.min_backlog)", "to 500 (somaxconn, policy.sysctl is off)", 1),
			Actions: []string{strings.Replace(relist, "1024", "500", 1)}}},
		{"sysctl off, somaxconn has no room", func(p *Policy, c *Case, h *History) { p.Sysctl = false },
			decided{Verdict: Refuse, Code: codeCeiling, Reason: "the limit 128 cannot grow: somaxconn is 128 and policy.sysctl is off", Advice: capacity}},
		{"sysctl off, somaxconn unknown, ceiling", func(p *Policy, c *Case, h *History) {
			p.Sysctl = false
			c.limit(8192)
			c.Socket.Somaxconn, c.Socket.Config.Listen = facts.Unknown[int]("permission denied"), facts.Unknown[facts.Setting]("permission denied")
			c.Socket.Config.File = "/etc/uwsgi/app.ini"
		}, decided{Verdict: Refuse, Code: codeCeiling, Reason: "the limit is 8192, and policy.max_backlog allows no more than 8192", Advice: capacity}},
		{"nothing known: the raise goes on", func(p *Policy, c *Case, h *History) {
			c.Socket.Somaxconn, c.Facts.Sysctl, c.Facts.Cannot = facts.Fact[int]{}, nil, but(facts.StepSysctl, "x")
			c.Socket.Config, c.Socket.Unit, c.Socket.Master.Unit = facts.Config{}, facts.Fact[facts.SocketUnit]{}, facts.Fact[string]{}
		}, act(fullReason, relist)},
		{"sysctl not permitted", func(p *Policy, c *Case, h *History) {
			c.Facts.Cannot[facts.StepSysctl] = facts.Known("needs CAP_NET_ADMIN")
		},
			decided{Verdict: Refuse, Code: codePowerless, Target: 1024,
				Reason: "somaxconn is 128 and not raised to 1024: needs CAP_NET_ADMIN"}},
		{"sysctl file not permitted", func(p *Policy, c *Case, h *History) {
			c.Facts.Cannot[facts.StepSysctlFile] = facts.Known("read-only file system")
		},
			decided{Verdict: Refuse, Code: codePowerless, Target: 1024,
				Reason: "somaxconn is 128 and not raised to 1024: read-only file system"}},
		{"sysctl not permitted, but not needed", func(p *Policy, c *Case, h *History) {
			c.Facts.Cannot[facts.StepSysctl] = facts.Known("needs CAP_NET_ADMIN")
			c.Socket.Somaxconn = facts.Known(1024)
		}, act(fullReason, relist)},
		{"companions that this kernel lacks, or that are higher", func(p *Policy, c *Case, h *History) {
			c.Facts.Sysctl = map[string]int{"net.core.somaxconn": 128, "net.ipv4.tcp_max_syn_backlog": 8192}
		}, act(fullReason, setSomaxconn, relist)},
		{"the file holds more", func(p *Policy, c *Case, h *History) { c.Facts.File["net.core.somaxconn"] = 65535 },
			act(fullReason, setSomaxconn+" (holds 65535)", setNetdev, setSyn, relist)},
	})
}

func TestDecideReload(t *testing.T) {
	testDecide(t, []row{
		{"reload always", func(p *Policy, c *Case, h *History) { p.Reload = Always },
			act(fullReason, withReload("policy.reload.when is always")...)},
		{"reload always, but another was at the very border of the cooldown", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			*h = History{of(past(10*time.Minute, "inc-0.1", "reload", Applied), "inc-0")}
		}, act(fullReason, withReload("policy.reload.when is always")...)},
		{"reload cooldown", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			*h = History{of(past(10*time.Minute-time.Second, "inc-0.1", "reload", Applied), "inc-0")}
		}, act(fullReason+"; no reload: uwsgi 1234 (app.service) was reloaded 9m59s ago (policy.reload.cooldown 10m0s)", wholeRaise...)},
		{"reload cooldown of another master", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			e := past(2*time.Minute, "inc-0.1", "reload", Applied)
			e.Start++
			*h = History{e}
		}, act(fullReason, withReload("policy.reload.when is always")...)},
		{"reload cooldown after the clock was set back by a year", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			*h = History{of(past(-365*24*time.Hour, "inc-0.1", "reload", Applied), "inc-0")}
		}, act(fullReason, withReload("policy.reload.when is always")...)},
		{"too many reloads this hour: the raise goes on without", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			for i := range 4 {
				e := past(time.Duration(11+i)*time.Minute, fmt.Sprintf("inc-0.%d", i), "reload", []Result{Applied, Failed, Planned, Applied}[i])
				e.PID, e.Socket, e.Incident = 4000+i, fmt.Sprint("127.0.0.1:600", i), "inc-0"
				*h = append(*h, e)
			}
		}, act(fullReason+"; no reload: 4 reloads on this host within the hour (policy.reload.max_per_hour)", wholeRaise...)},
		{"half of the reloads were this unit's", func(p *Policy, c *Case, h *History) {
			p.Reload, p.ReloadsPerHour = Always, 3
			for i := range 2 {
				e := past(time.Duration(11+i)*time.Minute, fmt.Sprintf("inc-0.%d", i), "reload", Applied)
				e.PID, e.Unit, e.Socket, e.Incident = 4000+i, "app.service", "127.0.0.1:6001", "inc-0"
				*h = append(*h, e)
			}
		}, act(fullReason+"; no reload: 2 reloads of uwsgi 1234 (app.service) within the hour (one unit may use half of policy.reload.max_per_hour 3)", wholeRaise...)},
		{"a reload of it was left unfinished long ago", func(p *Policy, c *Case, h *History) {
			p.Reload, p.ReloadCooldown = Always, 0
			e := past(2*time.Minute, "inc-0.1", "reload", Started)
			e.Socket, e.Incident = "127.0.0.1:6001", "inc-0"
			*h = append(*h, e)
		}, act(fullReason, withReload("policy.reload.when is always")...)},
		{"a reload of it is under way", func(p *Policy, c *Case, h *History) {
			p.Reload, p.ReloadCooldown = Always, 0
			e := past(time.Minute, "inc-0.1", "reload", Started)
			e.Socket, e.Incident = "127.0.0.1:6001", "inc-0"
			*h = append(*h, e)
		}, act(fullReason+"; no reload: a reload of uwsgi 1234 (app.service) is under way", wholeRaise...)},
		{"four reloads, one an hour old", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			for i := range 4 {
				e := past(time.Duration(60-i)*time.Minute, fmt.Sprintf("inc-0.%d", i), "reload", Applied)
				e.PID, e.Socket, e.Incident = 4000+i, fmt.Sprint("127.0.0.1:600", i), "inc-0"
				*h = append(*h, e)
			}
		}, act(fullReason, withReload("policy.reload.when is always")...)},
		{"systemd holds the socket", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			c.Socket.Unit = facts.Known(facts.SocketUnit{Name: "app.socket"})
		}, act(fullReason+"; no reload: systemd holds the socket (app.socket), and uWSGI does not find it again after a reload", wholeRaise...)},
		{"configured listen above what somaxconn will be", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			c.Socket.Config.Listen.Value.Listen = 1025
		}, act(fullReason+"; no reload: uWSGI is configured to listen = 1025 (/etc/uwsgi/app.ini:3), and with somaxconn 1024 it would not come up again", wholeRaise...)},
		{"configured listen is what somaxconn will be", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			c.Socket.Config.Listen.Value.Listen = 1024
		}, act(fullReason, withReload("policy.reload.when is always")...)},
		{"the configuration could not be read: no reload on a guess", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			c.Socket.Config.Listen, c.Socket.Config.ReloadEnds = facts.Unknown[facts.Setting]("command line: reading /etc/uwsgi/app.ini: open /etc/uwsgi/app.ini: permission denied"), facts.Unknown[string]("command line: reading /etc/uwsgi/app.ini: open /etc/uwsgi/app.ini: permission denied")
		}, act(fullReason+"; no reload: uWSGI's configuration is not known (command line: reading /etc/uwsgi/app.ini: open /etc/uwsgi/app.ini: permission denied), and exit-on-reload or a listen over somaxconn in it would make the reload its end", wholeRaise...)},
		{"listen is known, but not all of the configuration", func(p *Policy, c *Case, h *History) {
			p.Reload, c.Socket.Config.ReloadEnds = Always, facts.Unknown[string]("/etc/uwsgi/app.ini:1: reading common.ini: function not implemented")
		}, act(fullReason+"; no reload: uWSGI's configuration is not known (/etc/uwsgi/app.ini:1: reading common.ini: function not implemented), and exit-on-reload or a listen over somaxconn in it would make the reload its end", wholeRaise...)},
		{"configured listen, and somaxconn cannot be read: no reload on a guess", func(p *Policy, c *Case, h *History) {
			p.Reload = Always
			c.Socket.Somaxconn, c.Facts.Sysctl = facts.Unknown[int]("permission denied"), nil
		}, act(fullReason+"; no reload: somaxconn is not known (permission denied), and with one below uWSGI's listen = 128 (/etc/uwsgi/app.ini:3) it would not come up again", relist)},
	})
}

func TestDecideNotInPlace(t *testing.T) {
	testDecide(t, []row{
		{"relisten off, reload always", func(p *Policy, c *Case, h *History) { p.Relisten, p.Reload = false, Always },
			decided{Verdict: Refuse, Code: codePowerless, Target: 1024, Advice: []string{adviceListen},
				Reason: "nothing qwatch may do changes the running socket: no raise in place (policy.relisten is off), no reload (a reload does not change the limit of a running socket)"}},
		{"relisten off: a reload does not raise the running socket, and no sysctl is raised for nothing", func(p *Policy, c *Case, h *History) {
			p.Relisten = false
		}, decided{Verdict: Refuse, Code: codePowerless, Target: 1024, Advice: []string{adviceListen},
			Reason: "nothing qwatch may do changes the running socket: no raise in place (policy.relisten is off), no reload (a reload does not change the limit of a running socket, and policy.reload.when is needed)"}},
		{"relisten off, systemd holds the socket", func(p *Policy, c *Case, h *History) {
			p.Relisten, p.Reload, c.Socket.Unit = false, Always, facts.Known(facts.SocketUnit{Name: "app.socket"})
		}, decided{Verdict: Refuse, Code: codePowerless, Target: 1024,
			Reason: "nothing qwatch may do changes the running socket: no raise in place (policy.relisten is off), no reload (systemd holds the socket (app.socket), and uWSGI does not find it again after a reload)",
			Advice: []string{"set Backlog=1024 under [Socket] by `systemctl edit app.socket` and restart that unit with its service: a running socket keeps its limit"}}},
		{"relisten not permitted, reload always", func(p *Policy, c *Case, h *History) { p.Reload, c.Facts.Cannot = Always, noRelisten },
			decided{Verdict: Refuse, Code: codePowerless, Target: 1024, Advice: []string{adviceListen},
				Reason: "nothing qwatch may do changes the running socket: no raise in place (needs CAP_SYS_PTRACE), no reload (a reload does not change the limit of a running socket)"}},
		{"relisten not permitted, reload never", func(p *Policy, c *Case, h *History) {
			p.Reload, c.Facts.Cannot = Never, noRelisten
		}, decided{Verdict: Refuse, Code: codePowerless, Target: 1024, Advice: []string{adviceListen},
			Reason: "nothing qwatch may do changes the running socket: no raise in place (needs CAP_SYS_PTRACE), no reload (policy.reload.when is never)"}},
		{"nothing left to do", func(p *Policy, c *Case, h *History) {
			p.Reload, c.Facts.Cannot = Never, noRelisten
			c.raised(1024)
		}, decided{Verdict: Refuse, Code: codePowerless, Target: 1024, Advice: []string{adviceListen},
			Reason: "nothing qwatch may do changes the running socket: no raise in place (needs CAP_SYS_PTRACE), no reload (policy.reload.when is never)"}},
	})
}

func TestDecideCooldown(t *testing.T) {
	testDecide(t, []row{
		{"within the cooldown", func(p *Policy, c *Case, h *History) {
			*h = History{past(59*time.Second, "inc-1.1", "relisten", Applied)}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 59s ago; policy.cooldown leaves 1s until the next"}},
		{"exactly at the border of the cooldown", func(p *Policy, c *Case, h *History) {
			*h = History{past(time.Minute, "inc-1.1", "relisten", Applied)}
		}, act(fullReason, wholeRaise...)},
		{"the cooldown counts from the plan's last event", func(p *Policy, c *Case, h *History) {
			*h = History{past(90*time.Second, "inc-1.1", "relisten", Applied), past(30*time.Second, "inc-1.1", "reload", Applied), past(time.Second, "inc-1.1", "judge", NoEffect)}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 30s ago; policy.cooldown leaves 30s until the next"}},
		{"the cooldown is the socket's own", func(p *Policy, c *Case, h *History) {
			e := past(time.Second, "inc-2.1", "relisten", Applied)
			e.Socket, e.Inode = "127.0.0.1:6000", 76
			beside := c.Socket
			beside.ID.Inode, beside.Address = 76, "127.0.0.1:6000"
			c.Facts.Sockets = append(c.Facts.Sockets, beside)
			*h = History{e}
		}, act(fullReason, wholeRaise...)},
		{"that of a socket whose place this one has", func(p *Policy, c *Case, h *History) {
			e := past(time.Second, "inc-2.1", "relisten", Applied)
			e.Socket, e.Inode = "127.0.0.1:41001", 76
			*h = History{e}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 1s ago; policy.cooldown leaves 59s until the next"}},
		{"not that of a socket beside it that is gone", func(p *Policy, c *Case, h *History) {
			e := past(time.Second, "inc-2.1", "relisten", Applied)
			e.Socket, e.Inode = "127.0.0.1:41001", 78
			c.Socket.First = now.Add(-time.Hour)
			*h = History{e}
		}, act(fullReason, wholeRaise...)},
		{"a socket that another master had before", func(p *Policy, c *Case, h *History) {
			e := past(time.Second, "inc-2.1", "relisten", Applied)
			e.PID, e.Start = 1000, 90
			*h = History{e}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 1s ago; policy.cooldown leaves 59s until the next"}},
		{"an inode of before the boot", func(p *Policy, c *Case, h *History) {
			e := past(30*time.Second, "inc-2.1", "relisten", Applied)
			e.PID, e.Start = 1000, 90
			c.Facts.Booted = now.Add(-20 * time.Second)
			*h = History{e}
		}, act(fullReason, wholeRaise...)},
		{"an undo is no raise", func(p *Policy, c *Case, h *History) {
			e := past(time.Second, "undo-1", "relisten", Applied)
			from, to := 1024, 128
			e.From, e.To, e.Socket = &from, &to, ""
			*h = History{e}
		}, act(fullReason, wholeRaise...)},
		{"planned by a dry run: cooldown", func(p *Policy, c *Case, h *History) {
			p.DryRun = true
			*h = History{past(2*time.Second, "inc-1.1", "sysctl", Planned), past(time.Second, "inc-1.1", "relisten", Planned)}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was planned 1s ago; policy.cooldown leaves 59s until the next"}},
		{"only the kernel parameters were raised: no cooldown", func(p *Policy, c *Case, h *History) {
			*h = History{past(time.Second, "inc-1.1", "sysctl", Applied), past(0, "inc-1.1", "relisten", Started)}
		}, act(fullReason, wholeRaise...)},
		{"a failed sysctl: cooldown", func(p *Policy, c *Case, h *History) {
			*h = History{past(time.Second, "inc-1.1", "sysctl", Failed)}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 1s ago; policy.cooldown leaves 59s until the next"}},
		{"one stale plan: at once", func(p *Policy, c *Case, h *History) {
			*h = History{past(time.Second, "inc-1.1", "relisten", Stale)}
		}, act(fullReason, wholeRaise...)},
		{"two stale plans: somebody works against us", func(p *Policy, c *Case, h *History) {
			*h = History{past(2*time.Second, "inc-1.1", "sysctl", Stale), past(time.Second, "inc-1.2", "sysctl", Stale)}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 1s ago; policy.cooldown leaves 59s until the next"}},
		{"the clock was set back a little", func(p *Policy, c *Case, h *History) {
			*h = History{past(-30*time.Second, "inc-1.1", "relisten", Applied)}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 0s ago; policy.cooldown leaves 1m30s until the next"}},
		{"the clock was set back by a year: no cooldown for a year", func(p *Policy, c *Case, h *History) {
			*h = History{past(-365*24*time.Hour, "inc-1.1", "relisten", Applied)}
		}, act(fullReason, wholeRaise...)},
	})
}

// A raise in place that failed is not tried again within its incident, and no
// reload stands in for it.
func TestDecideAfterAFailedRaise(t *testing.T) {
	testDecide(t, []row{
		{"relisten failed a while ago", func(p *Policy, c *Case, h *History) {
			c.raised(1024)
			p.Reload = Always
			*h = History{past(2*time.Minute, "inc-1.1", "sysctl", Applied), failed(past(2*time.Minute, "inc-1.1", "relisten", Failed), "pidfd_getfd: not permitted")}
		}, decided{Verdict: Refuse, Code: codePowerless, Target: 1024, Advice: []string{adviceListen},
			Reason: "nothing qwatch may do changes the running socket: no raise in place (it failed before: pidfd_getfd: not permitted), no reload (a reload does not change the limit of a running socket)"}},
		{"relisten failed, reloaded since: only once", func(p *Policy, c *Case, h *History) {
			c.raised(1024)
			p.ReloadCooldown = 0
			*h = History{
				failed(past(3*time.Second, "inc-1.1", "relisten", Failed), "no"), past(2*time.Second, "inc-1.2", "reload", Applied),
				past(time.Second, "inc-1.2", "judge", NoEffect),
			}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 2s ago; policy.cooldown leaves 58s until the next"}},
		{"relisten failed just now: the cooldown holds", func(p *Policy, c *Case, h *History) {
			p.ReloadsPerHour = 0
			*h = History{failed(past(time.Second, "inc-1.1", "relisten", Failed), "no")}
		}, decided{Verdict: Wait, Code: CodeCooldown, Target: 1024,
			Reason: "the last raise was 1s ago; policy.cooldown leaves 59s until the next"}},
		{"relisten was interrupted: it is tried again", func(p *Policy, c *Case, h *History) {
			*h = History{failed(past(time.Hour, "inc-1.1", "relisten", Failed), interrupted)}
		}, act(fullReason, wholeRaise...)},
		{"relisten failed in another incident: it is tried again", func(p *Policy, c *Case, h *History) {
			*h = History{of(failed(past(time.Hour, "inc-0.1", "relisten", Failed), "no"), "inc-0")}
		}, act(fullReason, wholeRaise...)},
		{"relisten failed with another master", func(p *Policy, c *Case, h *History) {
			e := failed(past(time.Hour, "inc-1.1", "relisten", Failed), "no")
			e.Start++
			*h = History{e}
		}, act(fullReason, wholeRaise...)},
	})
}

func TestDecideGivesUp(t *testing.T) {
	testDecide(t, []row{
		{"gave up", func(p *Policy, c *Case, h *History) {
			*h = History{
				past(9*time.Minute, "inc-1.1", "relisten", Applied), past(8*time.Minute, "inc-1.1", "judge", NoEffect),
				past(6*time.Minute, "inc-1.2", "relisten", Failed),
				past(3*time.Minute, "inc-1.3", "relisten", Applied), past(3*time.Minute, "inc-1.3", "judge", Fixed),
			}
		}, decided{Verdict: Refuse, Code: CodeGaveUp, Reason: "gave up: 3 raises did not end the incident, the limit is 128 and " + seen, Advice: capacity}},
		{"two raises are not three", func(p *Policy, c *Case, h *History) {
			*h = History{past(9*time.Minute, "inc-1.1", "relisten", Applied), past(3*time.Minute, "inc-1.2", "relisten", Applied)}
		}, act(fullReason, wholeRaise...)},
		{"three raises of another incident", func(p *Policy, c *Case, h *History) {
			for i := range 3 {
				*h = append(*h, of(past(time.Hour, fmt.Sprint("inc-0.", i), "relisten", Applied), "inc-0"))
			}
		}, act(fullReason, wholeRaise...)},
		{"a dry run never gives up", func(p *Policy, c *Case, h *History) {
			for i := range 9 {
				*h = append(*h, past(time.Hour, fmt.Sprint("inc-1.", i+1), "relisten", Planned))
			}
		}, act(fullReason, wholeRaise...)},
		{"who asks is not given up on", func(p *Policy, c *Case, h *History) {
			c.Incident = matcher.Incident{}
			for i := range 9 {
				*h = append(*h, of(past(time.Hour, fmt.Sprint("asked-1.", i), "relisten", Applied), ""))
			}
		}, act(fullReason, wholeRaise...)},
	})
}

// A plan's number goes on where the trail ends, so a qwatch that was started
// anew in the middle of an incident does not use an id twice.
func TestDecideNumbersPlans(t *testing.T) {
	other := past(time.Hour, "inc-1.40", "relisten", Applied)
	other.Incident = "inc-2" // a trail that somebody has edited
	h := History{
		past(3*time.Hour, "inc-1.9", "relisten", Applied), past(2*time.Hour, "inc-1.10", "relisten", Applied),
		past(time.Hour, "inc-1.2", "relisten", Applied), past(time.Hour, "inc-1.x", "judge", Fixed),
		of(past(time.Hour, "inc-12.77", "relisten", Applied), "inc-12"), other,
	}
	if got := Decide(defaults(), full(), h, now).ID; got != "inc-1.11" {
		t.Errorf("plan %s after inc-1.10", got)
	}
	if got := Decide(defaults(), full(), nil, now).ID; got != "inc-1.1" {
		t.Errorf("first plan %s", got)
	}
	asked := full()
	asked.Incident, asked.Serial = matcher.Incident{}, 2
	if got, want := Decide(defaults(), asked, h, now).ID, fmt.Sprintf("asked-%d.2", now.Unix()); got != want {
		t.Errorf("plan %s, want %s", got, want)
	}
}

// Overflows of socket A with forged records about B: nothing is done to B, and
// A is raised.
func TestDecideForgedNeighbour(t *testing.T) {
	a, b := full(), full()
	b.Socket.ID.Inode, b.Socket.Address, b.Socket.Length = 78, "127.0.0.1:6000", 90
	b.Incident = matcher.Incident{ID: "inc-2", Socket: b.Socket.Address, Hits: 9, Peak: 129, Limit: 128}
	var samples []facts.Sample
	for i := range 5 {
		at := now.Add(time.Duration(i-5) * time.Second)
		// Between two bursts A is seen at 80, and B is in good use.
		samples = append(samples,
			facts.Sample{ID: a.Socket.ID, At: at, Length: 80 + 49*(i%2), Limit: 128, Overflows: uint64(10 * i)},
			facts.Sample{ID: b.Socket.ID, At: at, Length: 90, Limit: 128, Overflows: uint64(10 * i)})
	}
	b.Evidence = facts.Weigh(b.Socket, samples, time.Time{})
	if got := Decide(defaults(), b, nil, now); got.Code != CodeUncorroborated {
		t.Errorf("forged: %s %s: %s", got.Verdict, got.Code, got.Reason)
	}
	a.Evidence = facts.Weigh(a.Socket, samples, time.Time{})
	if got := Decide(defaults(), a, nil, now); got.Verdict != Act {
		t.Errorf("true: %s %s: %s", got.Verdict, got.Code, got.Reason)
	}
	// Also where no look found A full.
	for i := range samples {
		samples[i].Length = min(samples[i].Length, 100)
	}
	b.Evidence = facts.Weigh(b.Socket, samples, time.Time{})
	if got := Decide(defaults(), b, nil, now); got.Code != CodeUncorroborated {
		t.Errorf("forged, bursts unseen: %s %s: %s", got.Verdict, got.Code, got.Reason)
	}
}

// However the world looks, a plan lowers nothing, acts only with actions, and
// carries none unless it acts.
func TestDecideNeverLowers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(values ...int) int { return values[r.IntN(len(values))] }
	coin := func() bool { return r.IntN(2) == 0 }
	sizes := []int{0, 1, 3, 100, 127, 128, 129, 1000, 1023, 1024, 1025, 4096, 8191, 8192, 8193, 65535, 1<<31 - 1}
	results := []Result{Planned, Started, Applied, Skipped, Stale, Failed, Fixed, NoEffect, Worse}
	acted := 0
	for range 20_000 {
		p, c := defaults(), full()
		p.Corroborate, p.Sysctl, p.Relisten, p.DryRun = coin(), coin(), coin(), coin()
		p.Factor = []float64{1.01, 1.5, 2, 10, 1e300}[r.IntN(5)]
		p.MaxBacklog = max(1, pick(sizes...))
		p.MinBacklog = min(p.MaxBacklog, max(1, pick(sizes...)))
		p.Reload = []When{Needed, Always, Never}[r.IntN(3)]
		c.limit(pick(sizes...))
		c.Socket.Somaxconn, c.Socket.Config.Listen.Value.Listen = facts.Known(pick(sizes...)), pick(sizes...)
		c.Incident.Peak = pick(sizes...)
		c.Evidence.Full, c.Evidence.OthersCalm = r.IntN(2), coin()
		if coin() {
			c.Incident = matcher.Incident{}
		}
		for key := range c.Facts.Sysctl {
			if c.Facts.Sysctl[key] = pick(sizes...); coin() {
				delete(c.Facts.Sysctl, key)
			}
			c.Facts.File[key] = pick(sizes...)
		}
		for _, step := range []facts.Step{facts.StepSysctl, facts.StepSysctlFile, facts.StepRelisten} {
			if r.IntN(4) == 0 {
				c.Facts.Cannot[step] = facts.Known("no")
			}
		}
		var h History
		for range r.IntN(5) {
			h = append(h, past(time.Duration(r.IntN(7200)-3600)*time.Second, fmt.Sprint("inc-1.", r.IntN(3)),
				[]ActionKind{"sysctl", "relisten", "reload", "judge"}[r.IntN(4)], results[r.IntN(len(results))]))
		}
		plan := Decide(p, c, h, now)
		if (plan.Verdict == Act) != (len(plan.Actions) > 0) {
			t.Fatalf("%s with %d actions: %+v", plan.Verdict, len(plan.Actions), plan)
		}
		if plan.Reason == "" || plan.ID == "" || plan.Code == "" {
			t.Fatalf("says nothing: %+v", plan)
		}
		if plan.Verdict != Act {
			continue
		}
		acted++
		if plan.Target <= c.Socket.Limit || plan.Target > p.MaxBacklog {
			t.Fatalf("target %d for limit %d, max_backlog %d", plan.Target, c.Socket.Limit, p.MaxBacklog)
		}
		order := 0
		for _, a := range plan.Actions {
			d := a.Describe()
			if d.From != nil && *d.To <= *d.From {
				t.Fatalf("lowers: %s", a)
			}
			place := map[ActionKind]int{"sysctl": 1, "relisten": 2, "reload": 3}[d.Kind]
			if place < order {
				t.Fatalf("out of order: %v", plan.Actions)
			}
			order = place
			if d.Kind == "reload" {
				somaxconn := c.Socket.Somaxconn.Value
				for _, before := range plan.Actions {
					if s, ok := before.(SetSysctl); ok && s.Key == "net.core.somaxconn" {
						somaxconn = s.To
					}
				}
				if c.Socket.Config.Listen.Value.Listen > somaxconn {
					t.Fatalf("reload with listen = %d and somaxconn %d", c.Socket.Config.Listen.Value.Listen, somaxconn)
				}
			}
		}
	}
	if acted < 1000 {
		t.Errorf("only %d plans acted", acted)
	}
}

// Any user can bind a UNIX socket to the relative path "127.0.0.1:5000", name
// its process uwsgi and keep its queue full. What is done about that one must
// not hold up the real one.
func TestCooldownIsNotSharedByName(t *testing.T) {
	c := full()
	impostor := past(time.Second, "inc-9.1", "relisten", Applied)
	impostor.PID, impostor.Start, impostor.Incident = c.Socket.Master.PID+1, c.Socket.Master.Start+1, "inc-9"
	impostor.Inode++
	if plan := Decide(defaults(), c, History{impostor}, now); plan.Verdict != Act {
		t.Errorf("held up by another master's socket of the same name: %s: %s", plan.Code, plan.Reason)
	}
	own := past(time.Second, "inc-9.1", "relisten", Applied)
	if plan := Decide(defaults(), c, History{own, impostor}, now); plan.Code != CodeCooldown {
		t.Errorf("the own cooldown does not hold: %s: %s", plan.Code, plan.Reason)
	}
}

// A plan does not promise a reload that what applies it would refuse, or that
// uWSGI would not survive; the raise goes on without it, and says why.
func TestDecideReloadGuards(t *testing.T) {
	tests := []struct {
		name string
		with func(p *Policy, c *Case)
		want string
	}{
		{"policy", func(p *Policy, c *Case) { p.Reload = Needed }, ""}, // the raise in place says enough
		{"systemd's socket", func(p *Policy, c *Case) { c.Socket.Unit = facts.Known(facts.SocketUnit{Name: "app.socket"}) },
			"systemd holds the socket (app.socket), and uWSGI does not find it again after a reload"},
		{"perhaps systemd's socket", func(p *Policy, c *Case) {
			c.Socket.Unit = facts.Unknown[facts.SocketUnit]("systemd has not answered for 1s")
		},
			"it is not known whether systemd holds the socket (systemd has not answered for 1s), and then uWSGI would not find it again after a reload"},
		{"exit-on-reload", func(p *Policy, c *Case) {
			c.Socket.Config.ReloadEnds = facts.Known("exit-on-reload (/etc/uwsgi/app.ini:4)")
		},
			"it would end uWSGI: exit-on-reload (/etc/uwsgi/app.ini:4)"},
		{"no master", func(p *Policy, c *Case) { c.Socket.Config.ReloadEnds = facts.Known("it runs without a master process") },
			"it would end uWSGI: it runs without a master process"},
		{"unread", func(p *Policy, c *Case) {
			c.Socket.Config.ReloadEnds = facts.Unknown[string]("function not implemented")
		},
			"uWSGI's configuration is not known (function not implemented), and exit-on-reload or a listen over somaxconn in it would make the reload its end"},
		{"listen over somaxconn", func(p *Policy, c *Case) { c.Socket.Config.Listen.Value.Listen = 1025 },
			"uWSGI is configured to listen = 1025 (/etc/uwsgi/app.ini:3), and with somaxconn 1024 it would not come up again"},
		{"nobody has looked", func(p *Policy, c *Case) { c.Socket.Unit = facts.Fact[facts.SocketUnit]{} },
			"it is not known whether systemd holds the socket (it was not looked at), and then uWSGI would not find it again after a reload"},
		{"nobody has read it", func(p *Policy, c *Case) { c.Socket.Config = facts.Config{} },
			"uWSGI's configuration is not known (it was not looked at), and exit-on-reload or a listen over somaxconn in it would make the reload its end"},
		{"systemd asked for, unit not known", func(p *Policy, c *Case) {
			p.ReloadHow, c.Socket.Master.Unit = How{Method: MethodSystemd}, facts.Unknown[string]("permission denied")
		},
			`it is not known to which systemd unit uWSGI 1234 belongs (permission denied); policy.reload.how = "auto" reloads it alone (hup)`},
		{"perhaps frozen", func(p *Policy, c *Case) { c.Socket.Paused = facts.Unknown[string]("permission denied") },
			"it is not known whether uWSGI 1234 is stopped or frozen: permission denied"},
		{"no workers", func(p *Policy, c *Case) { c.Socket.Workers = nil },
			"uWSGI 1234 has no workers: the end of a reload could not be seen"},
		{"systemd asked for, no unit", func(p *Policy, c *Case) {
			p.ReloadHow, c.Socket.Master.Unit = How{Method: MethodSystemd}, facts.Absent[string]()
		}, `uWSGI 1234 belongs to no systemd unit; policy.reload.how = "auto" reloads it alone (hup)`},
		{"signal not permitted", func(p *Policy, c *Case) {
			p.ReloadHow, c.Socket.Ways.NoSignal = How{Method: MethodSignal}, facts.Known("needs CAP_KILL")
		}, "needs CAP_KILL"},
		{"signal not permitted, and auto can be nothing else", func(p *Policy, c *Case) {
			c.Socket.Ways.NoSignal, c.Socket.Ways.Service.Value.CanReload = facts.Known("needs CAP_KILL"), false
		}, "needs CAP_KILL; nor by its unit: app.service cannot be reloaded (it has no ExecReload=)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, c := defaults(), full()
			p.Reload = Always
			test.with(&p, &c)
			got := summary(Decide(p, c, nil, now))
			want := act(fullReason, wholeRaise...)
			if test.want != "" {
				want.Reason += "; no reload: " + test.want
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	// Where systemd is the one that is asked, the right to a signal is not needed.
	p, c := defaults(), full()
	p.Reload, c.Socket.Ways.NoSignal = Always, facts.Known("needs CAP_KILL")
	if got := summary(Decide(p, c, nil, now)); len(got.Actions) != len(wholeRaise)+1 {
		t.Errorf("%+v", got)
	}
}

// Facts that are out of date decide nothing, whoever asks.
func TestUnseen(t *testing.T) {
	for _, test := range []struct {
		at   time.Time
		want string // "" acts
	}{
		{now.Add(-10 * time.Second), ""},
		{now.Add(time.Hour), ""}, // the clock was set back
		{now.Add(-10*time.Second - 1), "the host could not be looked at since 2026-03-01T11:59:49Z"},
		{time.Time{}, "the host has not been looked at yet"},
	} {
		c := full()
		c.Facts.At = test.at
		raised := changed(time.Hour, "inc-1.1", "relisten", c.Socket.Name(), 128, 1024)
		raised.Start--
		p := defaults()
		p.Keep = true
		lost := c
		lost.Lost = errors.New("gone")
		back, left := PlanUndo(p, c.Facts, History{changed(time.Hour, "inc-1.1", "sysctl", key, 64, 128)}, now)
		plans := map[string]Plan{
			"Decide": Decide(p, c, nil, now),
			"keep":   PlanKeep(p, c.Facts, c.Socket, History{raised}, now),
			"start":  PlanStart(p, c.Facts, Refusal{Unit: "app.service", Listen: facts.Known(facts.Setting{Listen: 1024, At: "/a.ini:1"})}, nil, now),
			"undo":   back,
		}
		if test.want != "" {
			plans["lost"] = Decide(p, lost, nil, now)
		}
		for name, plan := range plans {
			want := decided{Verdict: Wait, Code: codeUnseen, Reason: test.want}
			if got := summary(plan); test.want != "" && !cmp.Equal(got, want) || test.want == "" && name != "undo" && got.Verdict != Act {
				t.Errorf("%s at %s: %+v", name, test.at, got)
			}
		}
		if len(left) > 0 && test.want != "" {
			t.Errorf("left alone without a look: %v", left)
		}
	}
}
