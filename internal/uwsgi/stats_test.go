package uwsgi

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
	"qwatch/remediate/facts"
)

func TestParseStats(t *testing.T) {
	before := time.Now()
	got, err := parseStats([]byte(`{"version":"2.0.21","listen_queue":7,"pid":1,"workers":[
		{"id":1,"pid":11,"requests":5,"exceptions":2,"status":"busy","avg_rt":2000,"apps":[{"id":0,"startup_time":3},{"id":1,"startup_time":4}]},
		{"id":2,"pid":12,"requests":6,"status":"idle","avg_rt":0,"apps":[{"id":0,"startup_time":1}]},
		{"id":3,"pid":13,"requests":0,"status":"sig1","avg_rt":4000,"apps":[{"id":0},{"id":1}]},
		{"id":4,"pid":0,"requests":3,"status":"cheap","avg_rt":9000}]}`))
	if got.At.Before(before) || got.At.After(time.Now()) {
		t.Errorf("answered at %s", got.At)
	}
	got.At = time.Time{}
	want := facts.Stats{Requests: 14, Workers: 3, Busy: 1, Idle: 1, Response: 3 * time.Millisecond, Exceptions: 2, Apps: 1, Took: 4 * time.Second}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	for _, text := range []string{"", "{}", `{"version":"2.0.21"}`, `{"version":"2.0.21","workers":[{"pid":-9e99}]}`, "<html>"} {
		if _, err := parseStats([]byte(text)); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add([]byte(`{"version":"2.0.21","listen_queue":7,"workers":[{"pid":11,"requests":5,"status":"busy","avg_rt":2000}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseStats(text)
		if err == nil && (s.Busy+s.Idle > s.Workers || s.Response < 0) {
			t.Errorf("%+v", s)
		}
	})
}

func TestReadStats(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	path := filepath.Join(t.TempDir(), "stats.sock")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5180", Args: []string{"--stats", path}})
	testbed.Run(t, testbed.Options{Address: "127.0.0.1:5181", Args: []string{"--stats", "127.0.0.1:5182"}})
	testbed.Run(t, testbed.Options{Address: "127.0.0.1:5183", Args: []string{"--stats", "127.0.0.1:5184", "--stats-http"}})

	flood, err := testbed.Flood(t.Context(), u.Address, testbed.FloodOptions{Connections: 5, Request: "/?ms=20"})
	if err != nil || flood.Answered != 5 {
		t.Fatalf("%v, %v", flood, err)
	}
	for address, requests := range map[string]uint64{path: 5, "127.0.0.1:5182": 0, "http://127.0.0.1:5184": 0} {
		var got facts.Stats
		// A client has its answer before uWSGI counts the request, and it is counted
		// before its worker is idle (uwsgi_close_request, core/utils.c).
		err := testbed.Until(t.Context(), 20*time.Second, "the stats of all requests, and two idle workers", func() bool {
			var err error
			if got, err = ReadStats(t.Context(), address); err != nil {
				t.Fatalf("%s: %v", address, err)
			}
			// avg_rt begins at 0, and each request counts for half of it.
			return got.Requests == requests && got.Workers == 2 && got.Idle == 2 && (got.Response >= 10*time.Millisecond) == (requests > 0)
		})
		if err != nil {
			t.Errorf("%s: %+v, %v", address, got, err)
		}
	}
}

func TestReadStatsErrors(t *testing.T) {
	if _, err := ReadStats(t.Context(), "/no/such.sock"); err == nil || !strings.HasPrefix(err.Error(), "dial unix /no/such.sock: ") {
		t.Error(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // more than it may be, for ever
				for _, err := c.Write(make([]byte, 1<<20)); err == nil; _, err = c.Write(make([]byte, 1<<20)) {
				}
				c.Close()
			}()
		}
	}()
	if _, err := ReadStats(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), "more than 8388608 bytes") {
		t.Error(err)
	}
}
