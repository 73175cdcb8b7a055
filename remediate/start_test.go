package remediate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/remediate/facts"
)

func TestRevive(t *testing.T) {
	const down = "app.service would not start: it is configured to listen = 2048 (/etc/uwsgi/app.ini:3), and somaxconn is 128"
	tests := []struct {
		name string
		edit func(*Policy, *Refusal, *History)
		want decided
	}{
		{"raise and start", func(p *Policy, r *Refusal, h *History) {}, decided{Verdict: Act, Code: codeStartRefused, Target: 2048,
			Reason:  down + "; raise it to 2048 and start the unit",
			Actions: []string{"set net.core.somaxconn from 128 to 2048, kept in /etc/sysctl.d/90-qwatch.conf", "start app.service"}}},
		{"it can start by now", func(p *Policy, r *Refusal, h *History) { r.Listen.Value.Listen = 128 }, decided{Verdict: Nothing, Code: codeNotFull,
			Reason: "app.service can start: it is configured to listen = 128 (/etc/uwsgi/app.ini:3), and somaxconn is 128"}},
		{"what others have started", func(p *Policy, r *Refusal, h *History) { r.Unit = "user@1001.service" }, decided{Verdict: Refuse, Code: CodeUntrusted,
			Reason: "user@1001.service runs what others tell it, and qwatch does not start it for their uWSGI"}},
		{"over max_backlog", func(p *Policy, r *Refusal, h *History) { p.MaxBacklog = 1024 }, decided{Verdict: Refuse, Code: codeCeiling,
			Reason: down + "; policy.max_backlog allows no more than 1024",
			Advice: []string{"set `listen = 1024` in /etc/uwsgi/app.ini:3 (now 2048), or raise policy.max_backlog"}}},
		{"sysctl off", func(p *Policy, r *Refusal, h *History) { p.Sysctl = false }, decided{Verdict: Refuse, Code: codePowerless,
			Reason: down + "; policy.sysctl is off", Advice: []string{"set net.core.somaxconn = 2048 in /etc/sysctl.d/90-qwatch.conf and load it: sysctl -p /etc/sysctl.d/90-qwatch.conf"}}},
		{"not known", func(p *Policy, r *Refusal, h *History) {
			r.Listen = facts.Unknown[facts.Setting]("app.service is active")
		}, decided{Verdict: Refuse, Code: CodeNotFound,
			Reason: "uWSGI would not start, its listen is over somaxconn 128; qwatch leaves it: app.service is active",
			Advice: []string{"set net.core.somaxconn to at least the listen of that uWSGI (sysctl -w, and a file in /etc/sysctl.d), and start it"}}},
		{"started too often", func(p *Policy, r *Refusal, h *History) {
			for i := range 3 {
				*h = append(*h, Event{Time: now.Add(-time.Duration(i) * time.Minute), Action: "start", Target: "app.service", Result: Failed})
			}
		}, decided{Verdict: Refuse, Code: CodeGaveUp, Reason: down + "; 3 starts within the hour did not help"}},
		{"starts of a dry run", func(p *Policy, r *Refusal, h *History) {
			for i := range 3 {
				*h = append(*h, Event{Time: now.Add(-time.Duration(i) * time.Minute), Action: "start", Target: "app.service", Result: Planned, DryRun: true})
			}
		}, decided{Verdict: Act, Code: codeStartRefused, Target: 2048, Reason: down + "; raise it to 2048 and start the unit",
			Actions: []string{"set net.core.somaxconn from 128 to 2048, kept in /etc/sysctl.d/90-qwatch.conf", "start app.service"}}},
		{"starts of yesterday", func(p *Policy, r *Refusal, h *History) {
			for i := range 3 {
				*h = append(*h, Event{Time: now.Add(-24*time.Hour - time.Duration(i)), Action: "start", Target: "app.service", Result: Failed})
			}
		}, decided{Verdict: Act, Code: codeStartRefused, Target: 2048, Reason: down + "; raise it to 2048 and start the unit",
			Actions: []string{"set net.core.somaxconn from 128 to 2048, kept in /etc/sysctl.d/90-qwatch.conf", "start app.service"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := Policy{Sysctl: true, SysctlFile: "/etc/sysctl.d/90-qwatch.conf", MaxBacklog: 8192, GiveUpAfter: 3, ReloadTimeout: time.Minute}
			r := Refusal{Unit: "app.service", Listen: facts.Known(facts.Setting{Listen: 2048, At: "/etc/uwsgi/app.ini:3"})}
			var h History
			test.edit(&p, &r, &h)
			got := summary(PlanStart(p, facts.Snapshot{At: now, Sysctl: map[string]int{"net.core.somaxconn": 128}, Cannot: facts.Allowed()}, r, h, now))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestReviveOfNoUnit(t *testing.T) {
	got := PlanStart(Policy{}, facts.Snapshot{At: now}, Refusal{}, nil, now).Reason
	if want := "uWSGI would not start, and what somaxconn is could not be read"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
