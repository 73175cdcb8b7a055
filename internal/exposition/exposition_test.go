package exposition

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestPage(t *testing.T) {
	up, kept := Metric{Name: "up", Help: "Whether\nit \\ is up."}, NewCounter("kept_total", "Kept.", "a", "b")
	bare, none := NewCounter("bare_total", "Bare."), NewCounter("none_total", "None.", "a")
	kept.Add(1, "x", "y")
	kept.Add(2, "a\"\\\n", "\u202eé")
	kept.Add(0.5, "x", "y")
	var p Page
	for _, c := range []*Counter{kept, bare, none} {
		p.Count(c)
	}
	p.Add(up, 1)
	p.Add(up, 2) // which would be the same series
	const want = `# HELP bare_total Bare.
# TYPE bare_total counter
bare_total 0
# HELP kept_total Kept.
# TYPE kept_total counter
kept_total{a="a\"\\\n",b="` + "\u202eé" + `"} 2
kept_total{a="x",b="y"} 1.5
# HELP up Whether\nit \\ is up.
# TYPE up gauge
up 1
`
	if diff := cmp.Diff(want, string(p.Text())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// FuzzPage: Prometheus' own parser reads back what was written.
func FuzzPage(f *testing.F) {
	f.Add("help", "value", 1.5)
	f.Add("\\n\n\\", "\"\\\n{}=, ", math.Inf(1))
	f.Add("", "\u202e", 0.0)
	f.Fuzz(func(t *testing.T, help, value string, v float64) {
		value = strings.ToValidUTF8(value, "?")
		help = strings.TrimSpace(strings.ToValidUTF8(help, "?"))
		var p Page
		p.Add(Metric{Name: "m", Help: help, Labels: []string{"l", "k"}}, v, value, "k")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(p.Text()))
		if err != nil {
			t.Fatalf("%v in %q", err, p.Text())
		}
		m := families["m"].GetMetric()[0]
		if got := m.GetGauge().GetValue(); got != v && !(math.IsNaN(v) && math.IsNaN(got)) {
			t.Errorf("%v was read back as %v", v, got)
		}
		if got := m.GetLabel()[0].GetValue(); got != value {
			t.Errorf("%q was read back as %q", value, got)
		}
	})
}
