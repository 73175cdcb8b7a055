package apply

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"qwatch/internal/testbed"
	"qwatch/internal/uwsgi"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// What was deployed after the plan is looked at again before the order.
func TestReloadOfWhatWasDeployed(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	s := startSite(t, 5378, "")
	socket := socketOf(t, s.Address)
	before := pidsOfWorkers(t, s.UWSGI)
	a := quick(nil)
	reload := func() remediate.Outcome {
		return a.Apply(t.Context(), remediate.Reload{Socket: socket, Way: way("hup"), Timeout: time.Minute})
	}
	eventually(t, func() string { // what follows is younger
		at := time.Now()
		st, err := os.Stat(s.ini)
		if err != nil || at.Sub(st.ModTime()) < 5*time.Second {
			return "it has just started"
		}
		return ""
	})
	write(t, s.app, goodApp+"# another\n")
	wantResult(t, reload(), "stale -1: uWSGI", "is not reloaded: a reload would bring "+s.app+" of ", "has never loaded; reload by hand (changed since the plan)")
	if err := os.Remove(s.app); err != nil {
		t.Fatal(err)
	}
	wantResult(t, reload(), "stale -1: uWSGI", "is not reloaded: a reload would not find what it needs: "+s.app, "(changed since the plan)")
	hang := make(chan struct{})
	defer close(hang)
	a.deploys.Deadline = 100 * time.Millisecond
	a.deploys.Ask = func(ctx context.Context, _ uwsgi.Process) (facts.Deploy, error) {
		<-hang
		return facts.Deploy{}, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	wantResult(t, a.Apply(ctx, remediate.Reload{Socket: socket, Way: way("hup"), Timeout: time.Minute}), "failed -1: uWSGI", "is not known: it has not answered for ")
	if after := pidsOfWorkers(t, s.UWSGI); !slices.Equal(before, after) {
		t.Errorf("workers %v, then %v, want the same", before, after)
	}
}
