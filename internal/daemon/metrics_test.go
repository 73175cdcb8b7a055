package daemon

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/internal/trail"
	"qwatch/remediate"
	"qwatch/tailer"
)

// oddNames is a source of files whose names cannot be labels as they are.
type oddNames struct{}

func (oddNames) String() string              { return "odd" }
func (oddNames) Run(context.Context) error   { return nil }
func (oddNames) Ready() <-chan struct{}      { return nil }
func (oddNames) Alive(context.Context) error { return nil }
func (oddNames) Status() []tailer.Status {
	return []tailer.Status{{Name: "/log/\xff.log", Kind: "file"}, {Name: "/log/\xfe.log", Kind: "file"}, {Name: "/log/\u202e.log", Kind: "file"}}
}

// Neither two sockets of one name nor a file name that is no UTF-8 may hide
// the metrics.
func TestMetricsOfHostileNames(t *testing.T) {
	h := newCrowd(1)
	h.snapshot.Sockets[1].Address, h.snapshot.Sockets[1].Length = h.snapshot.Sockets[0].Address, 7
	cfg := config.Default()
	cfg.Probe.Interval = 0
	d := New(Options{
		Config: cfg, Host: h, Trail: &trail.Trail{}, Log: zerolog.Nop(),
		Configure: func(*config.Config) remediate.Actor { return refused{} },
	})
	d.sources.list = []tailer.Source{oddNames{}}
	done := make(chan struct{})
	go d.core.observer.run(t.Context())
	go d.core.loop(t.Context(), done)
	defer close(done)
	families, err := d.registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if n := l.GetName(); n == "source" || n == "socket" && f.GetName() == "qwatch_queue_length" {
					got = append(got, fmt.Sprintf("%s %s %v", f.GetName(), l.GetValue(), m.GetGauge().GetValue()))
				}
			}
		}
	}
	for _, want := range []string{
		"qwatch_queue_length /run/0.sock 101",
		`qwatch_source_failing "/log/\xff.log" 0`, `qwatch_source_failing "/log/\xfe.log" 0`,
		`qwatch_source_failing "/log/\u202e.log" 0`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
}
