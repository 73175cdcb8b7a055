package uwsgi

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/uwsgiconf"
	"qwatch/remediate/facts"
)

func TestModeOf(t *testing.T) {
	for _, tt := range []struct {
		options [][2]string
		want    func(*facts.Mode)
	}{
		{nil, func(*facts.Mode) {}},
		{[][2]string{{"processes", "4"}, {"threads", "2"}, {"wsgi-file", "app.py"}, {"harakiri", "30"}, {"worker-reload-mercy", "4"}},
			func(m *facts.Mode) {
				m.Cores, m.Announced, m.Harakiri, m.Mercy = 2, true, 30*time.Second, 4*time.Second
			}},
		{[][2]string{{"lazy", "true"}, {"lazy-apps", ""}, {"max-requests", "1000"}}, func(m *facts.Mode) { m.Lazy, m.LazyApps, m.Recycles = true, true, true }},
		{[][2]string{{"lazy", "true"}, {"lazy", "false"}}, func(*facts.Mode) {}},
		{[][2]string{{"workers", "8"}, {"cheaper", "2"}, {"cheaper-initial", "3"}}, func(m *facts.Mode) { m.Cheaper = 3 }},
		{[][2]string{{"gevent", "100"}}, func(m *facts.Mode) { m.Loop, m.Cores = "gevent", 100 }},
		{[][2]string{{"async", "10"}, {"greenlet", "true"}}, func(m *facts.Mode) { m.Loop, m.Cores = "greenlet", 10 }},
		{[][2]string{{"loop", "asyncio"}, {"async", "10"}}, func(m *facts.Mode) { m.Loop, m.Cores = "asyncio", 10 }},
		{[][2]string{{"async", "10"}, {"loop", "async"}}, func(m *facts.Mode) { m.Cores = 10 }},
	} {
		var options []uwsgiconf.Option
		for _, o := range tt.options {
			options = append(options, uwsgiconf.Option{Name: o[0], Text: o[1]})
		}
		want := facts.NewMode()
		tt.want(&want)
		if diff := cmp.Diff(want, modeOf(options)); diff != "" {
			t.Errorf("%v: (-want +got)\n%s", tt.options, diff)
		}
	}
	perhaps := modeOf([]uwsgiconf.Option{
		{Name: "worker-reload-mercy", Text: "90"}, {Name: "worker-reload-mercy", Text: "4", Conditional: true},
		{Name: "threads", Text: "2"}, {Name: "threads", Text: "8", Conditional: true}, {Name: "threads", Text: "\x00", Unknown: "not known here"},
	})
	if perhaps.Mercy != 90*time.Second || perhaps.Cores != 8 {
		t.Errorf("what may hold: %+v", perhaps)
	}
}
