package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sort"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"golang.org/x/sys/unix"

	"qwatch/internal/text"
)

// counts are the counters that the core keeps.
type counts struct {
	hits      prometheus.Counter
	incidents prometheus.Counter
	plans     *prometheus.CounterVec // verdict, code
	actions   *prometheus.CounterVec // action, result
	unserved  prometheus.Counter
	cut       prometheus.Counter
}

func newCounts() counts {
	return counts{
		hits:      prometheus.NewCounter(prometheus.CounterOpts{Name: "qwatch_hits_total", Help: "Listen queue records found in the logs."}),
		incidents: prometheus.NewCounter(prometheus.CounterOpts{Name: "qwatch_incidents_total", Help: "Incidents opened."}),
		plans:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "qwatch_plans_total", Help: "Plans made, by verdict and reason."}, []string{"verdict", "code"}),
		actions:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "qwatch_actions_total", Help: "Actions taken, by kind and result."}, []string{"action", "result"}),
		unserved:  prometheus.NewCounter(prometheus.CounterOpts{Name: "qwatch_reload_unserved_seconds_total", Help: "Seconds in which clients waited and nobody was accepted, while qwatch reloaded their uWSGI."}),
		cut:       prometheus.NewCounter(prometheus.CounterOpts{Name: "qwatch_reload_cut_total", Help: "Requests that were cut off by reloads of qwatch, at least."}),
	}
}

// collector makes the gauges from a status, so that metrics and status cannot
// disagree.
type collector struct {
	status                               Status
	length, limit, drops                 *prometheus.Desc
	lines, bytes, fails                  *prometheus.Desc
	open, dryRun, untold, untoldOfSource *prometheus.Desc
}

func newCollector(s Status) collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return collector{
		status:         s,
		length:         desc("qwatch_queue_length", "Connections in the accept queue.", "socket"),
		limit:          desc("qwatch_queue_limit", "Limit of the accept queue (backlog of the running socket).", "socket"),
		drops:          desc("qwatch_queue_drops_total", "Connections that found the accept queue full, at least.", "socket"),
		lines:          desc("qwatch_source_lines_total", "Lines read.", "source", "kind"),
		bytes:          desc("qwatch_source_bytes_total", "Bytes read.", "source", "kind"),
		fails:          desc("qwatch_source_failing", "1 where the source cannot be read just now.", "source", "kind"),
		open:           desc("qwatch_incidents_open", "Incidents that are open."),
		dryRun:         desc("qwatch_dry_run", "1 in a dry run."),
		untold:         desc("qwatch_sockets_untold", "Sockets that are watched but have no series of their own here, because there are too many."),
		untoldOfSource: desc("qwatch_sources_untold", "Sources that are read but have no series of their own here, because there are too many, or their names are too long."),
	}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.status
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	sockets, untold := s.told()
	for _, q := range sockets {
		gauge(c.length, float64(q.Length), q.Socket)
		gauge(c.limit, float64(q.Limit), q.Socket)
		if q.Drops != nil {
			ch <- prometheus.MustNewConstMetric(c.drops, prometheus.CounterValue, float64(*q.Drops), q.Socket)
		}
	}
	gauge(c.untold, float64(untold))
	untold = 0
	for i, src := range s.Sources {
		// A file's name may hold any bytes. Two names must not become one label:
		// the whole page would be an error then.
		if text.Line(src.Name) != src.Name {
			src.Name = strconv.QuoteToASCII(src.Name)
		}
		if i-untold >= maxSources || len(src.Name) > maxLabel {
			untold++
			continue
		}
		if src.Lines != nil {
			ch <- prometheus.MustNewConstMetric(c.lines, prometheus.CounterValue, float64(*src.Lines), src.Name, src.Kind)
			ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(*src.Bytes), src.Name, src.Kind)
		}
		gauge(c.fails, one(src.Error != nil), src.Name, src.Kind)
	}
	gauge(c.untoldOfSource, float64(untold))
	open := 0
	for _, i := range s.Incidents {
		if i.State == "open" && !i.stranger {
			open++
		}
	}
	gauge(c.open, float64(open))
	gauge(c.dryRun, one(s.DryRun))
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

// registry holds all metrics of a daemon with this status.
func (d *Daemon) registry(s Status) *prometheus.Registry {
	r := prometheus.NewRegistry()
	c := d.core.report.counts
	r.MustRegister(c.hits, c.incidents, c.plans, c.actions, c.unserved, c.cut, newCollector(s))
	return r
}

// metricsPage is what Prometheus reads. promhttp would bring two compressors
// along, and expfmt's encoders the other formats, for a page of a few kilobytes
// that does not leave the host.
func metricsPage(r *prometheus.Registry) ([]byte, error) {
	families, err := r.Gather()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// metricsType is the media type of the text format.
const metricsType = "text/plain; version=" + expfmt.TextVersion + "; charset=utf-8"

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
			body, err := r.metrics()
			return metricsType, body, err
		},
	}, serviceRetry)
}
