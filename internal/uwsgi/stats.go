package uwsgi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"qwatch/remediate/facts"
)

// maxStats is more than the text of a thousand busy workers.
const maxStats = 8 << 20

// ReadStats asks a uWSGI stats server (--stats). address is "127.0.0.1:9191"
// or the path of a UNIX socket; with "http://" in front it is one that speaks
// HTTP (--stats-http).
func ReadStats(ctx context.Context, address string) (facts.Stats, error) {
	asked := address
	address, http := strings.CutPrefix(address, "http://")
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return facts.Stats{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if http {
		if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			return facts.Stats{}, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(conn, maxStats+1))
	switch {
	case err != nil:
		return facts.Stats{}, err
	case len(text) > maxStats:
		return facts.Stats{}, fmt.Errorf("it says more than %d bytes", maxStats)
	}
	if http {
		_, body, ok := strings.Cut(string(text), "\r\n\r\n")
		if !ok {
			return facts.Stats{}, errors.New("no HTTP answer")
		}
		text = []byte(body)
	}
	stats, err := parseStats(text)
	stats.Address = asked
	return stats, err
}

// parseStats reads what core/master_utils.c uwsgi_master_generate_stats writes.
func parseStats(text []byte) (facts.Stats, error) {
	var said struct {
		Version string `json:"version"`
		Workers []struct {
			PID        int32  `json:"pid"`
			Requests   uint64 `json:"requests"`
			Status     string `json:"status"` // idle busy cheap pause, or sig and a number
			Response   uint32 `json:"avg_rt"` // microseconds
			Exceptions uint64 `json:"exceptions"`
			Apps       []struct {
				Took int32 `json:"startup_time"` // seconds
			} `json:"apps"`
		} `json:"workers"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return facts.Stats{}, err
	}
	if said.Version == "" || said.Workers == nil {
		return facts.Stats{}, errors.New("not the statistics of a uWSGI with workers")
	}
	stats := facts.Stats{At: time.Now()}
	var total time.Duration
	answering := 0
	for _, w := range said.Workers {
		stats.Requests += w.Requests
		stats.Exceptions += w.Exceptions
		if w.PID <= 0 || w.Status == "cheap" {
			continue
		}
		if stats.Workers++; stats.Workers == 1 || len(w.Apps) < stats.Apps {
			stats.Apps = len(w.Apps)
		}
		for _, app := range w.Apps {
			stats.Took = max(stats.Took, time.Duration(app.Took)*time.Second)
		}
		switch w.Status {
		case "idle":
			stats.Idle++
		case "busy":
			stats.Busy++
		}
		if w.Response > 0 {
			total += time.Duration(w.Response) * time.Microsecond
			answering++
		}
	}
	if answering > 0 {
		stats.Response = total / time.Duration(answering)
	}
	return stats, nil
}
