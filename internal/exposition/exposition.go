// Package exposition writes numbers in the text format of Prometheus, version 0.0.4
// (prometheus.io/docs/instrumenting/exposition_formats). It is a page of code: the
// client library would bring protobuf along, a tenth of the program.
package exposition

import (
	"bytes"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
)

// ContentType is the media type of a page.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Metric is a name with its help, its kind and the names of its labels.
type Metric struct {
	Name, Help string
	Counter    bool // it only grows, else it is a gauge
	Labels     []string
}

// series is one number of a metric, with the values of its labels.
type series struct {
	values []string
	v      float64
}

func of(values []string) func(series) bool {
	return func(s series) bool { return slices.Equal(s.values, values) }
}

// Counter is a metric that is kept from page to page. It may be used by several
// goroutines.
type Counter struct {
	metric Metric
	mu     sync.Mutex
	all    []series
}

// NewCounter makes a counter. One without labels stands at 0 from the beginning.
func NewCounter(name, help string, labels ...string) *Counter {
	c := &Counter{metric: Metric{name, help, true, labels}}
	if len(labels) == 0 {
		c.Add(0)
	}
	return c
}

// Add adds v, which is not negative, for these values of the labels.
func (c *Counter) Add(v float64, values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.all, of(values))
	if i < 0 {
		i = len(c.all)
		c.all = append(c.all, series{values: slices.Clone(values)})
	}
	c.all[i].v += v
}

// Page is a set of metrics at one moment.
type Page struct{ families []family }

type family struct {
	Metric
	all  []series
	seen map[string]bool
}

// Add adds a number. Of two with the same labels the first counts: Prometheus takes
// no page with both.
func (p *Page) Add(m Metric, v float64, values ...string) {
	i := slices.IndexFunc(p.families, func(f family) bool { return f.Name == m.Name })
	if i < 0 {
		i = len(p.families)
		p.families = append(p.families, family{Metric: m, seen: map[string]bool{}})
	}
	f := &p.families[i]
	key := strings.Join(values, "\xff") // which is no part of UTF-8
	if !f.seen[key] {
		f.seen[key] = true
		f.all = append(f.all, series{values, v})
	}
}

// Count adds what a counter has come to.
func (p *Page) Count(c *Counter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.all {
		p.Add(c.metric, s.v, s.values...)
	}
}

var (
	inHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	inLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Text is the page, the metrics by name and each one's numbers by their labels.
func (p *Page) Text() []byte {
	sort.Slice(p.families, func(i, j int) bool { return p.families[i].Name < p.families[j].Name })
	var b bytes.Buffer
	for _, f := range p.families {
		kind := "gauge"
		if f.Counter {
			kind = "counter"
		}
		b.WriteString("# HELP " + f.Name + " " + inHelp.Replace(f.Help) + "\n# TYPE " + f.Name + " " + kind + "\n")
		sort.SliceStable(f.all, func(i, j int) bool { return slices.Compare(f.all[i].values, f.all[j].values) < 0 })
		for _, s := range f.all {
			b.WriteString(f.Name)
			before, end := "{", ""
			for i, name := range f.Labels {
				b.WriteString(before + name + `="` + inLabel.Replace(s.values[i]) + `"`)
				before, end = ",", "}"
			}
			b.WriteString(end + " " + strconv.FormatFloat(s.v, 'g', -1, 64) + "\n")
		}
	}
	return b.Bytes()
}
