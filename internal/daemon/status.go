package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"qwatch/remediate/facts"
	"slices"
	"sync"
	"time"

	"qwatch/internal/text"
	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/tailer"
)

// Status is what a running daemon tells of itself, as `qwatch status --json`
// prints it.
type Status struct {
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	DryRun    bool              `json:"dry_run"`
	Sources   []SourceStatus    `json:"sources"`
	Sockets   []SocketStatus    `json:"sockets"`
	Incidents []IncidentStatus  `json:"incidents"`
	Actions   []remediate.Event `json:"actions"`
}

// SourceStatus tells of one source since the start. Lines and Bytes are null
// for the probe, which reads none.
type SourceStatus struct {
	Name        string  `json:"name"`
	Kind        string  `json:"kind"` // file, journal or probe
	Lines       *uint64 `json:"lines"`
	Bytes       *uint64 `json:"bytes"`
	Hits        uint64  `json:"hits"`
	Truncations uint64  `json:"truncations,omitempty"`
	Error       *string `json:"error"`
}

// SocketStatus tells of one accept queue.
type SocketStatus struct {
	Socket string  `json:"socket"`
	PID    int     `json:"pid"`
	Unit   *string `json:"unit"`
	Length int     `json:"length"`
	Limit  int     `json:"limit"`
	Hits   uint64  `json:"hits"`
}

// IncidentStatus tells of one incident, open or among the last that closed.
type IncidentStatus struct {
	ID     string    `json:"id"`
	Socket string    `json:"socket"`
	State  string    `json:"state"` // open or closed
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
	Hits   int       `json:"hits"`
	Peak   int       `json:"peak"`
	Limit  int       `json:"limit"`
	Plan   *string   `json:"plan"` // the newest plan that was acted on
}

// statusActions is how many events of the audit trail a status holds.
const statusActions = 50

// status fills in what the core knows. It runs in the core's goroutine.
func (c *core) status(ctx context.Context, s *Status) {
	now := time.Now()
	c.look(ctx, now)
	c.observe(ctx, now, observeLeast)
	newest := map[facts.SocketID]facts.Sample{}
	for _, r := range c.readings {
		newest[r.ID] = r
	}
	for _, socket := range c.facts.Sockets {
		if r, ok := newest[socket.ID]; ok && r.At.After(c.facts.At) {
			socket.Length, socket.Limit = r.Length, r.Limit
		}
		s.Sockets = append(s.Sockets, SocketStatus{
			Socket: socket.Name(), PID: socket.Master.PID, Unit: orNull(socket.Master.Unit),
			Length: socket.Length, Limit: socket.Limit, Hits: c.socketHit[socket.ID],
		})
	}
	for _, i := range c.closed {
		s.Incidents = append(s.Incidents, c.incidentStatus(i, "closed"))
	}
	for _, oc := range c.cases {
		s.Incidents = append(s.Incidents, c.incidentStatus(oc.incident, "open"))
	}
	slices.SortFunc(s.Incidents, func(a, b IncidentStatus) int { return a.First.Compare(b.First) })
	if c.probe > 0 {
		s.Sources = append(s.Sources, SourceStatus{Name: "probe", Kind: "probe", Hits: c.probeHits, Error: orNull(c.factsErr)})
	}
	history, err := c.trail.History()
	if err != nil {
		c.log.Error().Err(err).Msg("cannot read what was done before")
	}
	s.Actions = append(s.Actions, history[max(0, len(history)-statusActions):]...)
}

func (c *core) incidentStatus(i matcher.Incident, state string) IncidentStatus {
	return IncidentStatus{
		ID: i.ID, Socket: i.Socket, State: state, First: i.First.UTC(), Last: i.Last.UTC(),
		Hits: i.Hits, Peak: i.Peak, Limit: i.Limit, Plan: orNull(c.lastPlan[i.ID]),
	}
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// sourceStatus is what a source of lines tells, with the hits found in it.
func sourceStatus(s tailer.Status, hits uint64) SourceStatus {
	out := SourceStatus{Name: s.Name, Kind: s.Kind, Lines: &s.Lines, Bytes: &s.Bytes, Hits: hits, Truncations: s.Truncations}
	if s.Error != nil {
		text := s.Error.Error()
		out.Error = &text
	}
	return out
}

// Status asks the daemon for its status.
func (d *Daemon) Status(ctx context.Context) (Status, error) {
	s := Status{
		Version: d.opts.Version, Started: d.started.UTC(),
		Sources: []SourceStatus{}, Sockets: []SocketStatus{}, Incidents: []IncidentStatus{}, Actions: []remediate.Event{},
	}
	for _, source := range d.sources.all() {
		for _, t := range source.Status() {
			s.Sources = append(s.Sources, sourceStatus(t, d.sources.hitsOf(t.Name)))
		}
	}
	err := d.core.call(ctx, func(ctx context.Context) {
		s.DryRun = d.core.policy.DryRun
		d.core.status(ctx, &s)
	})
	return s, err
}

// serveStatus answers GET /status on a UNIX socket that only root and the
// daemon's group can reach.
func (d *Daemon) serveStatus(ctx context.Context, path string) error {
	l, err := listenUnix(path)
	if err != nil {
		d.log.Warn().Err(err).Msg("no status: `qwatch status` will not reach this daemon")
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		status, err := d.Status(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// An error here is a client that has gone.
		_ = json.NewEncoder(text.Writer(w)).Encode(status)
	})
	return serve(ctx, l, mux)
}

// listenUnix listens at path in place of a socket that a dead daemon left; a
// living one keeps it.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("another qwatch answers at %s", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serve runs an HTTP server on l until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	l = &few{Listener: l, free: make(chan struct{}, maxClients), done: ctx.Done()}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// maxClients is how many clients are served at a time. Any local user can
// reach the metrics, and each connection costs 40 KiB.
const maxClients = 32

// few is a listener with at most cap(free) open connections.
type few struct {
	net.Listener
	free chan struct{}
	done <-chan struct{}
}

// Accept waits while too many are open.
func (l *few) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &client{Conn: c, gone: sync.OnceFunc(func() { <-l.free })}, nil
}

// client is a connection that makes room when it is closed.
type client struct {
	net.Conn
	gone func()
}

// Close closes the connection.
func (c *client) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

// FetchStatus asks the daemon that listens at path.
func FetchStatus(ctx context.Context, path string) (Status, error) {
	client := http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}},
	}
	var s Status
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://qwatch/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := client.Do(req)
	if err != nil {
		// The made-up URL is no news.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return s, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return s, json.NewDecoder(resp.Body).Decode(&s)
}
