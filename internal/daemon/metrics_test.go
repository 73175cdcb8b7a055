package daemon

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/internal/trail"
	"qwatch/remediate"
	"qwatch/remediate/facts"
	"qwatch/tailer"
)

// oddNames is a source of files whose names cannot be labels as they are.
type oddNames struct{}

func (oddNames) String() string            { return "odd" }
func (oddNames) Run(context.Context) error { return nil }
func (oddNames) Ready() <-chan struct{}    { return nil }
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
	d.sources.list = []*running{{Source: oddNames{}}}
	done := make(chan struct{})
	go d.core.observer.run(t.Context())
	go d.core.loop(t.Context(), done)
	defer close(done)
	status, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	page := string(d.metricsPage(status))
	for _, want := range []string{
		`qwatch_queue_length{socket="/run/0.sock"} 101`,
		`qwatch_source_failing{source="\"/log/\\xff.log\"",kind="file"} 0`, `qwatch_source_failing{source="\"/log/\\xfe.log\"",kind="file"} 0`,
		`qwatch_source_failing{source="\"/log/\\u202e.log\"",kind="file"} 0`,
	} {
		if strings.Count(page, want+"\n") != 1 {
			t.Errorf("no %s, or two, in %s", want, page)
		}
	}
}

// Of many sockets those with an open incident have series, then the fullest.
func TestSocketsWithSeries(t *testing.T) {
	var s Status
	for i := range 3 * maxSockets {
		q := SocketStatus{Socket: fmt.Sprint("/run/", i), Length: i, Limit: 1000}
		s.Sockets = append(s.Sockets, q, SocketStatus{Socket: q.Socket, Limit: 1000})
	}
	s.Incidents = []IncidentStatus{{Socket: "/run/7", State: "open"}, {Socket: "/run/8", State: "closed"}}
	for i := range 2 * maxSources {
		s.Sources = append(s.Sources, SourceStatus{Name: fmt.Sprint(i, strings.Repeat("x", i%2*maxLabel)), Kind: "file"})
	}
	var d Daemon
	d.core = &core{report: newReport(zerolog.Nop())}
	page := d.metricsPage(s)
	for _, want := range []string{
		`qwatch_queue_length{socket="/run/7"} 7`, `qwatch_queue_length{socket="/run/383"} 383`, `qwatch_queue_length{socket="/run/257"} 257`,
		"qwatch_sockets_untold 256", "qwatch_sources_untold 512",
	} {
		if !strings.Contains(string(page), want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if n := strings.Count(string(page), "\nqwatch_queue_length{"); n != maxSockets {
		t.Errorf("%d series of lengths, want %d", n, maxSockets)
	}
}

// The drops of an address go on where its socket is made anew, and never fall.
func TestDropsAreCounted(t *testing.T) {
	q := newQueues()
	born := func(inode int) facts.Snapshot {
		return facts.Snapshot{Sockets: []facts.Socket{socketAt(inode, address, 0), {ID: facts.SocketID{NetNS: 1, Inode: 9}, Family: facts.Unix, Address: "/run/a.sock"}}}
	}
	look := func(s facts.Snapshot, drops uint32, overflows uint64) {
		q.retain(s)
		q.count([]facts.Sample{
			{ID: s.Sockets[0].ID, Drops: facts.Known(drops), Overflows: overflows, Before: facts.Refusals{Overflows: overflows}},
			{ID: s.Sockets[1].ID, Drops: facts.Absent[uint32]()},
		}, s)
	}
	for _, step := range []struct {
		inode     int
		drops     uint32
		overflows uint64
		want      uint64
	}{{1, 7, 7, 0}, {1, 17, 17, 10}, {1, 17, 17, 10}, {2, 0, 17, 10}, {2, 5, 22, 15}, {2, 1, 22, 15}} {
		look(born(step.inode), step.drops, step.overflows)
		if n := q.drops[address]; n != step.want || len(q.drops) != 1 {
			t.Errorf("%+v: %v", step, q.drops)
		}
	}
	if q.retain(facts.Snapshot{}); len(q.drops) > 0 {
		t.Errorf("kept: %v", q.drops)
	}
}
