package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
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
}

func newCounts() counts {
	return counts{
		hits:      prometheus.NewCounter(prometheus.CounterOpts{Name: "qwatch_hits_total", Help: "Listen queue records found in the logs."}),
		incidents: prometheus.NewCounter(prometheus.CounterOpts{Name: "qwatch_incidents_total", Help: "Incidents opened."}),
		plans:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "qwatch_plans_total", Help: "Plans made, by verdict and reason."}, []string{"verdict", "code"}),
		actions:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "qwatch_actions_total", Help: "Actions taken, by kind and result."}, []string{"action", "result"}),
	}
}

// collector makes the gauges from the status at the time of the scrape, so
// that metrics and status cannot disagree.
type collector struct {
	daemon                             *Daemon
	length, limit, lines, bytes, fails *prometheus.Desc
	open, dryRun                       *prometheus.Desc
}

func newCollector(d *Daemon) collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return collector{
		daemon: d,
		length: desc("qwatch_queue_length", "Connections in the accept queue.", "socket"),
		limit:  desc("qwatch_queue_limit", "Limit of the accept queue (backlog of the running socket).", "socket"),
		lines:  desc("qwatch_source_lines_total", "Lines read.", "source", "kind"),
		bytes:  desc("qwatch_source_bytes_total", "Bytes read.", "source", "kind"),
		fails:  desc("qwatch_source_failing", "1 where the source cannot be read just now.", "source", "kind"),
		open:   desc("qwatch_incidents_open", "Incidents that are open."),
		dryRun: desc("qwatch_dry_run", "1 in a dry run."),
	}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s, err := c.daemon.Status(context.Background())
	if err != nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	// With SO_REUSEPORT several queues have one address; the fullest counts.
	fullest := map[string]SocketStatus{}
	for _, q := range s.Sockets {
		if old, ok := fullest[q.Socket]; !ok || q.Length > old.Length {
			fullest[q.Socket] = q
		}
	}
	for name, q := range fullest {
		gauge(c.length, float64(q.Length), name)
		gauge(c.limit, float64(q.Limit), name)
	}
	for _, src := range s.Sources {
		// A file's name may hold any bytes. Two names must not become one label:
		// the whole page would be an error then.
		if text.Line(src.Name) != src.Name {
			src.Name = strconv.QuoteToASCII(src.Name)
		}
		if src.Lines != nil {
			ch <- prometheus.MustNewConstMetric(c.lines, prometheus.CounterValue, float64(*src.Lines), src.Name, src.Kind)
			ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(*src.Bytes), src.Name, src.Kind)
		}
		gauge(c.fails, one(src.Error != nil), src.Name, src.Kind)
	}
	open := 0
	for _, i := range s.Incidents {
		if i.State == "open" {
			open++
		}
	}
	gauge(c.open, float64(open))
	gauge(c.dryRun, one(s.DryRun))
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// registry holds all metrics of a daemon.
func (d *Daemon) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	c := d.core.report.counts
	r.MustRegister(c.hits, c.incidents, c.plans, c.actions, newCollector(d))
	return r
}

// serveMetrics serves Prometheus at an address until ctx ends. Without the
// address qwatch does its work all the same, and says so.
func (d *Daemon) serveMetrics(ctx context.Context, address string) error {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		d.log.Info().Msg("no metrics: this service may not use IP (RestrictAddressFamilies=)")
		return nil
	}
	if err != nil {
		d.log.Warn().Err(err).Msg("no metrics: set metrics.listen to a free address, or to \"\"")
		return nil
	}
	mux := http.NewServeMux()
	registry := d.registry()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		families, err := registry.Gather()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		// promhttp would bring two compressors along, for a page of a few
		// kilobytes that does not leave the host.
		format := expfmt.NewFormat(expfmt.TypeTextPlain)
		w.Header().Set("Content-Type", string(format))
		encoder := expfmt.NewEncoder(w, format)
		for _, f := range families {
			if encoder.Encode(f) != nil {
				return // the client has gone
			}
		}
	})
	return serve(ctx, l, mux)
}
