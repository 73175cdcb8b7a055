package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
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
	h.facts.Sockets[1].Address, h.facts.Sockets[1].Length = h.facts.Sockets[0].Address, 7
	cfg := config.Default()
	cfg.Probe.Interval = 0
	d := New(Options{
		Config: cfg, Host: h, Trail: &remediate.Trail{}, Log: zerolog.Nop(),
		Configure: func(*config.Config) remediate.Actor { return refused{} },
	})
	d.sources.list = []source{oddNames{}}
	done := make(chan struct{})
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

func TestFewClientsAtATime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open, most atomic.Int32
	hold := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			most.Store(max(most.Load(), open.Add(1)))
			<-hold
			open.Add(-1)
		}))
	}()
	const clients = 2 * maxClients
	answers := make(chan error, clients)
	for range clients {
		go func() {
			c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			r, err := c.Get("http://" + l.Addr().String())
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			answers <- err
		}()
	}
	for end := time.Now().Add(10 * time.Second); open.Load() < maxClients && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	for range clients {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if n := most.Load(); n > maxClients {
		t.Errorf("%d clients at a time, want at most %d", n, maxClients)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
