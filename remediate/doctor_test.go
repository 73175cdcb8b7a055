package remediate

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

func TestExamine(t *testing.T) {
	const (
		lost = "the limit 1024 of 127.0.0.1:5000 holds until the next restart only: set `listen = 1024` in /etc/uwsgi/app.ini:3 (now 128), or a restart brings 128 back"
		down = "it is configured to listen = 2048 (/etc/uwsgi/app.ini:3), and somaxconn "
	)
	tests := []struct {
		name string
		with func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis)
		want []string
	}{
		{"all is well", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {}, []string{}},
		{"full", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			*d = diagnose.Diagnosis{Kind: diagnose.Burst, Advice: []string{"do this", "and that"}}
		},
			[]string{"the accept queue of 127.0.0.1:5000 is full, 3 of 128 (burst): do this"}},
		{"a restart lowers it", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) { s.Limit = 1024 }, []string{lost}},
		{"but not where systemd holds it", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			s.Limit, s.Unit = 1024, facts.Known(facts.SocketUnit{Name: "app.socket"})
		}, []string{}},
		{"unless its Backlog= is less", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			s.Limit, s.Unit = 1024, facts.Known(facts.SocketUnit{Name: "app.socket", Backlog: facts.Known(128)})
		}, []string{"the limit 1024 of 127.0.0.1:5000 holds until the next restart only: set Backlog=1024 under [Socket] by `systemctl edit app.socket`, or a restart of that unit brings 128 back"}},
		{"nor where it is not known whether it does", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			s.Limit, s.Unit = 1024, facts.Unknown[facts.SocketUnit]("systemd does not answer")
		}, []string{}},
		{"it would not start", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			s.Config.Listen.Value.Listen = 2048
		},
			[]string{"uwsgi 1234 (app.service): raise somaxconn to 2048 before any restart: with 1024 and listen = 2048 (/etc/uwsgi/app.ini:3) uWSGI refuses to start"}},
		{"nor after a reboot", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			s.Config.Listen.Value.Listen, s.Somaxconn = 2048, facts.Known(4096)
		},
			[]string{"after a reboot uwsgi 1234 (app.service) would not start: " + down + "would be 1024: set net.core.somaxconn = 2048 in /etc/sysctl.d/90-qwatch.conf and load it: sysctl -p /etc/sysctl.d/90-qwatch.conf"}},
		{"a boot loses what was raised", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			f.File, f.WinningFile = map[string]int{key: 2048}, "/etc/sysctl.d/99-qwatch.conf"
		}, []string{`a reboot would set net.core.somaxconn to 1024, not to 2048: /etc/sysctl.conf:2 is read after /etc/sysctl.d/90-qwatch.conf; change that line, or set policy.sysctl.file = "/etc/sysctl.d/99-qwatch.conf"`}},
		{"a right is missing", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			f.Cannot = but(facts.StepRelisten, "needs CAP_SYS_PTRACE")
		},
			[]string{"qwatch cannot do relisten here: needs CAP_SYS_PTRACE"}},
		{"one that the policy does not ask for", func(p *Policy, f *facts.Snapshot, s *facts.Socket, d *diagnose.Diagnosis) {
			p.Relisten, p.Reload, p.Sysctl = false, Never, false
			f.Cannot = nil // nothing was tried
		}, []string{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, s, d := defaults(), full().Socket, diagnose.Diagnosis{Kind: diagnose.Idle}
			s.Length, s.Somaxconn = 3, facts.Known(1024)
			f := facts.Snapshot{Sysctl: map[string]int{key: 1024}, Boot: map[string]facts.Fact[facts.BootValue]{key: facts.Known(facts.BootValue{Value: 1024, File: "/etc/sysctl.conf", Line: 2})}, Cannot: facts.Allowed()}
			test.with(&p, &f, &s, &d)
			f.Sockets = []facts.Socket{s}
			got := MakeReport(p, f, map[facts.SocketID]diagnose.Diagnosis{s.ID: d}, false)
			if diff := cmp.Diff(test.want, got.Problems); diff != "" {
				t.Errorf("problems (-want +got)\n%s", diff)
			}
			for _, step := range facts.Steps() {
				if got.Can[step] != f.Cannot[step].IsAbsent() {
					t.Errorf("can %s: %v", step, got.Can[step])
				}
			}
		})
	}
}

// A fact that is not there has no key; one that could not be seen is null, with
// its reason.
func TestReportKnown(t *testing.T) {
	s := full().Socket
	s.Refused = facts.Refused{Drops: facts.Known[uint32](7), Overflows: facts.Absent[uint64]()}
	q := Policy{}.report(s, diagnose.Diagnosis{})
	want := map[string]any{"drops": uint32(7), "configured": 128, "unit": "app.service", "somaxconn": 128, "uid": nil}
	if diff := cmp.Diff(want, q.Known); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	s.Config, s.Somaxconn = facts.Config{}, facts.Unknown[int]("no right")
	s.Unit = facts.Known(facts.SocketUnit{Name: "app.socket"})
	q = Policy{}.report(s, diagnose.Diagnosis{})
	want = map[string]any{"drops": uint32(7), "configured": nil, "reload_ends": nil, "socket_unit": "app.socket", "backlog": nil, "unit": "app.service", "somaxconn": nil, "uid": nil}
	if diff := cmp.Diff(want, q.Known); diff != "" || q.Configured != nil || q.Unseen["somaxconn"] != "no right" || len(q.Unseen) != 5 {
		t.Errorf("unseen %v (-want +got)\n%s", q.Unseen, diff)
	}
}
