package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"qwatch/remediate/facts"
	"slices"
	"strings"
	"time"
)

const (
	// maxStats is more than the text of a thousand busy workers.
	maxStats = 8 << 20
	// statsPatience bounds one answer. The master gives it between its other
	// work, once a second at the latest (core/master.c).
	statsPatience = 3 * time.Second
)

// readStats asks a uWSGI stats server (--stats). address is "127.0.0.1:9191"
// or the path of a UNIX socket; with "http://" in front it is one that speaks
// HTTP (--stats-http).
func readStats(ctx context.Context, address string) (facts.Stats, error) {
	stats, err := askStats(ctx, address)
	if err != nil {
		return stats, fmt.Errorf("stats server %s: %w", address, err)
	}
	return stats, nil
}

func askStats(ctx context.Context, address string) (facts.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, statsPatience)
	defer cancel()
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
	case ctx.Err() != nil && len(text) == 0 && !http:
		return facts.Stats{}, fmt.Errorf("it says nothing: if it speaks HTTP (--stats-http), write http://%s", address)
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
	return parseStats(text)
}

// parseStats reads what core/master_utils.c uwsgi_master_generate_stats writes.
func parseStats(text []byte) (facts.Stats, error) {
	var said struct {
		Version string `json:"version"`
		Queue   uint32 `json:"listen_queue"`
		Workers []struct {
			PID      int32  `json:"pid"`
			Requests uint64 `json:"requests"`
			Status   string `json:"status"` // idle busy cheap pause, or sig and a number
			Response uint32 `json:"avg_rt"` // microseconds
		} `json:"workers"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return facts.Stats{}, err
	}
	if said.Version == "" || said.Workers == nil {
		return facts.Stats{}, errors.New("not the statistics of a uWSGI with workers")
	}
	stats := facts.Stats{Queue: int(said.Queue)}
	var total time.Duration
	answering := 0
	for _, w := range said.Workers {
		stats.Requests += w.Requests
		if w.PID <= 0 || w.Status == "cheap" {
			continue
		}
		stats.Workers++
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

// statsAnswer is what a stats server said last.
type statsAnswer struct {
	at    time.Time
	stats facts.Stats
	err   error
}

// statsEvery is how long an answer serves: each costs the master a connection.
const statsEvery = 2 * time.Second

// fillStats asks the stats servers. A server is one of the listening sockets of
// the master that it tells of.
func (h *Host) fillStats(ctx context.Context, snapshot *facts.Snapshot) {
	answers := make(map[string]statsAnswer, len(h.options.Stats))
	for _, address := range h.options.Stats {
		a := h.stats[address]
		if time.Since(a.at) >= statsEvery {
			a.stats, a.err = readStats(ctx, address)
			a.at = time.Now()
		}
		answers[address] = a
		if a.err != nil {
			note(snapshot, "the numbers of uWSGI", a.err)
			continue
		}
		server := slices.IndexFunc(snapshot.Sockets, func(s facts.Socket) bool {
			return !s.OtherNetNS && s.AnswersTo(strings.TrimPrefix(address, "http://"))
		})
		if server < 0 {
			note(snapshot, "whose numbers "+address+" gives", errors.New("no uWSGI master listens there"))
			continue
		}
		for i := range snapshot.Sockets {
			if s := &snapshot.Sockets[i]; s.Master.Same(snapshot.Sockets[server].Master) {
				s.Stats = &a.stats
			}
		}
	}
	h.stats = answers
}
