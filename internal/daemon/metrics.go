package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sort"
	"strconv"

	"golang.org/x/sys/unix"

	"qwatch/internal/exposition"
	"qwatch/internal/text"
)

// counts are the counters that the core keeps.
type counts struct {
	hits, incidents *exposition.Counter
	plans           *exposition.Counter // verdict, code
	actions         *exposition.Counter // action, result
	unserved, cut   *exposition.Counter
}

func newCounts() counts {
	return counts{
		hits:      exposition.NewCounter("qwatch_hits_total", "Listen queue records found in the logs."),
		incidents: exposition.NewCounter("qwatch_incidents_total", "Incidents opened."),
		plans:     exposition.NewCounter("qwatch_plans_total", "Plans made, by verdict and reason.", "verdict", "code"),
		actions:   exposition.NewCounter("qwatch_actions_total", "Actions taken, by kind and result.", "action", "result"),
		unserved:  exposition.NewCounter("qwatch_reload_unserved_seconds_total", "Seconds in which clients waited and nobody was accepted, while qwatch reloaded their uWSGI."),
		cut:       exposition.NewCounter("qwatch_reload_cut_total", "Requests that were cut off by reloads of qwatch, at least."),
	}
}

func gauge(name, help string, labels ...string) exposition.Metric {
	return exposition.Metric{Name: name, Help: help, Labels: labels}
}

func counter(name, help string, labels ...string) exposition.Metric {
	return exposition.Metric{Name: name, Help: help, Counter: true, Labels: labels}
}

// What is taken from a status, so that metrics and status cannot disagree.
var (
	queueLength   = gauge("qwatch_queue_length", "Connections in the accept queue.", "socket")
	queueLimit    = gauge("qwatch_queue_limit", "Limit of the accept queue (backlog of the running socket).", "socket")
	queueDrops    = counter("qwatch_queue_drops_total", "Connections that found the accept queue full, at least.", "socket")
	sourceLines   = counter("qwatch_source_lines_total", "Lines read.", "source", "kind")
	sourceBytes   = counter("qwatch_source_bytes_total", "Bytes read.", "source", "kind")
	sourceFails   = gauge("qwatch_source_failing", "1 where the source cannot be read just now.", "source", "kind")
	incidentsOpen = gauge("qwatch_incidents_open", "Incidents that are open.")
	dryRun        = gauge("qwatch_dry_run", "1 in a dry run.")
	socketsUntold = gauge("qwatch_sockets_untold", "Sockets that are watched but have no series of their own here, because there are too many.")
	sourcesUntold = gauge("qwatch_sources_untold", "Sources that are read but have no series of their own here, because there are too many, or their names are too long.")
)

// addTo adds what a status says.
func (s Status) addTo(p *exposition.Page) {
	sockets, untold := s.told()
	for _, q := range sockets {
		p.Add(queueLength, float64(q.Length), q.Socket)
		p.Add(queueLimit, float64(q.Limit), q.Socket)
		if q.Drops != nil {
			p.Add(queueDrops, float64(*q.Drops), q.Socket)
		}
	}
	p.Add(socketsUntold, float64(untold))
	untold = 0
	for i, src := range s.Sources {
		// A file's name may hold any bytes, and two names must not become one label.
		if text.Line(src.Name) != src.Name {
			src.Name = strconv.QuoteToASCII(src.Name)
		}
		if i-untold >= maxSources || len(src.Name) > maxLabel {
			untold++
			continue
		}
		if src.Lines != nil {
			p.Add(sourceLines, float64(*src.Lines), src.Name, src.Kind)
			p.Add(sourceBytes, float64(*src.Bytes), src.Name, src.Kind)
		}
		p.Add(sourceFails, one(src.Error != nil), src.Name, src.Kind)
	}
	p.Add(sourcesUntold, float64(untold))
	open := 0
	for _, i := range s.Incidents {
		if i.State == "open" && !i.stranger {
			open++
		}
	}
	p.Add(incidentsOpen, float64(open))
	p.Add(dryRun, one(s.DryRun))
}

// What strangers can make many of has so many series at most.
const (
	maxSockets = 128
	maxSources = 512
	maxLabel   = 512 // bytes in a source's name
)

// told are the sockets that have series of their own: those with an open
// incident first, then the fullest. Of several queues with one address
// (SO_REUSEPORT) the fullest counts.
func (s Status) told() (sockets []SocketStatus, untold int) {
	incident := map[string]bool{}
	for _, i := range s.Incidents {
		incident[i.Socket] = incident[i.Socket] || i.State == "open"
	}
	at := map[string]int{}
	for _, q := range s.Sockets {
		i, ok := at[q.Socket]
		switch {
		case q.stranger:
		case !ok:
			at[q.Socket] = len(sockets)
			sockets = append(sockets, q)
		case q.Length > sockets[i].Length:
			sockets[i] = q
		}
	}
	share := func(q SocketStatus) float64 { return float64(q.Length) / float64(max(1, q.Limit)) }
	sort.SliceStable(sockets, func(i, j int) bool {
		a, b := sockets[i], sockets[j]
		if incident[a.Socket] != incident[b.Socket] {
			return incident[a.Socket]
		}
		return share(a) > share(b)
	})
	told := min(len(sockets), maxSockets)
	return sockets[:told], len(sockets) - told
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// metricsPage is what Prometheus reads of a daemon with this status.
func (d *Daemon) metricsPage(s Status) []byte {
	var p exposition.Page
	c := d.core.report.counts
	for _, counter := range []*exposition.Counter{c.hits, c.incidents, c.plans, c.actions, c.unserved, c.cut} {
		p.Count(counter)
	}
	s.addTo(&p)
	return p.Text()
}

// serveMetrics serves Prometheus at an address until ctx ends.
func (d *Daemon) serveMetrics(ctx context.Context, address string) error {
	return d.keepServing(ctx, service{
		name: "metrics", path: "/metrics",
		listen: func() (net.Listener, error) {
			l, err := net.Listen("tcp", address)
			switch {
			case errors.Is(err, unix.EAFNOSUPPORT):
				return nil, never("this service may not use IP (RestrictAddressFamilies=)")
			case errors.Is(err, unix.EADDRINUSE) && d.opts.Holder != nil:
				return nil, fmt.Errorf("%w by %s", err, d.opts.Holder(address))
			}
			return l, err
		},
		hint: `set metrics.listen to a free address, or to ""`,
		page: func(r *reading) (string, []byte, error) {
			return exposition.ContentType, r.metrics(), nil
		},
	}, serviceRetry)
}
