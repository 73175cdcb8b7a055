package daemon

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/internal/trail"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// What this process may not do is said at the start and stands in the status,
// as far as the configuration makes use of it; in a dry run it is no warning.
func TestRightsAreTold(t *testing.T) {
	for assumed, want := range map[bool]string{
		true:  "this process could not do relisten, which its plans assume: no listen",
		false: "qwatch cannot do relisten here: no listen",
	} {
		var log bytes.Buffer
		cfg := config.Default()
		cfg.Probe.Interval, cfg.Policy.AssumeRights = 0, assumed
		cfg.Policy.Reload = remediate.Never
		h := newCrowd(1)
		h.snapshot.Cannot = facts.Allowed()
		if !assumed {
			h.snapshot.Cannot[facts.StepRelisten] = facts.Known("no listen")
		}
		d := New(Options{
			Config: cfg, Host: h, Trail: &trail.Trail{}, Log: zerolog.New(&log),
			Configure: func(*config.Config) remediate.Actor { return refused{} },
			Cannot: func(context.Context) map[facts.Step]string {
				return map[facts.Step]string{facts.StepRelisten: "no listen", facts.StepReload: "no kill", facts.StepContainers: "no setns"}
			},
		})
		done, ended := make(chan struct{}), make(chan error)
		go d.core.observer.run(t.Context())
		go func() { ended <- d.core.loop(t.Context(), done) }()
		s, err := d.Status(t.Context())
		if err != nil || s.Cannot != nil {
			t.Errorf("before it was tried: %v, %v", s.Cannot, err)
		}
		if err := d.tellRights(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, err = d.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[facts.Step]string{facts.StepRelisten: "no listen"}, s.Cannot); diff != "" {
			t.Errorf("rights assumed %v: (-want +got)\n%s", assumed, diff)
		}
		close(done)
		<-ended
		if diff := cmp.Diff([]string{want}, messages(t, &log)); diff != "" {
			t.Errorf("rights assumed %v: (-want +got)\n%s", assumed, diff)
		}
	}
}
