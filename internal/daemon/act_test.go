package daemon

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"qwatch/remediate"
	"qwatch/remediate/facts"
)

// The plans of one pass set the same kernel parameters, and that is said once,
// of a dry run as well.
func TestParametersSaidOnce(t *testing.T) {
	set := remediate.SetSysctl{Key: "net.core.somaxconn", From: 128, To: 1024}
	for _, c := range []struct {
		results []remediate.Result
		want    string
	}{
		{[]remediate.Result{remediate.Planned, remediate.Planned, remediate.Planned}, "planned: set net.core.somaxconn from 128 to 1024"},
		{[]remediate.Result{remediate.Applied, remediate.Skipped, remediate.Skipped}, "applied: set net.core.somaxconn from 128 to 1024"},
	} {
		for range 2 { // the next pass says it again
			var log bytes.Buffer
			r := newRunner(nil, nil, nil, zerolog.New(&log).Level(zerolog.InfoLevel))
			for _, result := range c.results {
				r.Acted(remediate.Plan{}, remediate.Outcome{Action: set, Result: result})
				r.Acted(remediate.Plan{}, remediate.Outcome{Action: remediate.Relisten{Socket: facts.Socket{Address: "127.0.0.1:1"}}, Result: c.results[0]})
			}
			got := log.String()
			if strings.Count(got, `"message":"`+c.want) != 1 || strings.Count(got, ": listen again on") != len(c.results) {
				t.Errorf("%v:\n%s", c.results, got)
			}
		}
	}
}
