package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
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
	// Cannot says, for each step that the configuration makes use of and this
	// process may not do, why; nil until that was tried.
	Cannot map[facts.Step]string `json:"cannot"`
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
	// Slope is by how many connections a second the queue grows, while a raise of
	// it waits for its verdict.
	Slope *float64 `json:"slope"`

	stranger bool // qwatch does not act on it
	// Drops is how many connections found a queue of this address full since
	// this daemon knows of it; null where the kernel does not count that.
	Drops *uint64 `json:"drops"`
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
	// Slope is by how many connections a second the queue grows, and Outlook
	// says it in words, while that plan waits for its verdict.
	Slope   *float64 `json:"slope"`
	Outlook *string  `json:"outlook"`

	stranger bool // it is that of a uWSGI on which qwatch does not act
}

// statusActions is how many events of the audit trail a status holds.
const statusActions = 50

// status fills in what the core knows. It runs in the core's goroutine.
func (c *core) status(s *Status) {
	s.DryRun, s.Cannot = c.settings.policy.DryRun, c.cannotDo()
	newest := map[facts.SocketID]facts.Sample{}
	for _, sample := range c.record.Samples() {
		newest[sample.ID] = sample
	}
	for _, socket := range c.view.snapshot.Sockets {
		if sample, ok := newest[socket.ID]; ok && sample.At.After(c.view.snapshot.At) {
			socket.Length, socket.Limit = sample.Length, sample.Limit
		}
		status := SocketStatus{
			Socket: socket.Name(), PID: socket.Master.PID, Unit: orNull(socket.Master.Unit.Value),
			Length: socket.Length, Limit: socket.Limit, stranger: c.settings.policy.Distrusts(socket) != "",
		}
		if q := c.queues.of[socket.ID]; q != nil {
			status.Hits = q.hits
		}
		status.Slope, _ = c.outlook(socket.ID)
		if n, counted := c.queues.drops[status.Socket]; counted {
			status.Drops = &n
		}
		s.Sockets = append(s.Sockets, status)
	}
	for _, i := range c.closed {
		s.Incidents = append(s.Incidents, c.incidentStatus(i, "closed"))
	}
	for _, oc := range c.open {
		i := c.incidentStatus(oc.incident, "open")
		i.Slope, i.Outlook = c.outlook(oc.id)
		i.stranger = oc.uid == strangers
		s.Incidents = append(s.Incidents, i)
	}
	sort.Slice(s.Incidents, func(i, j int) bool { return s.Incidents[i].First.Before(s.Incidents[j].First) })
	if c.settings.probe > 0 {
		s.Sources = append(s.Sources, SourceStatus{Name: "probe", Kind: "probe", Hits: c.queues.probeHits, Error: orNull(c.view.err)})
	}
	history := c.view.history
	s.Actions = append(s.Actions, history[max(0, len(history)-statusActions):]...)
}

// outlook tells how the queue of a socket does whose raise is not judged yet.
func (c *core) outlook(id facts.SocketID) (slope *float64, words *string) {
	t := c.actions.trials[socketSubject(id)]
	if t == nil || !t.Open() {
		return nil, nil
	}
	o := t.Outlook()
	if o.Known {
		slope = &o.Slope
	}
	return slope, orNull(o.String())
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

// statusWait is how long a status waits for a new look at the host.
const statusWait = 300 * time.Millisecond

// Status asks the daemon for its status, after a new look at the host if that
// is to be had at once.
func (d *Daemon) Status(ctx context.Context) (Status, error) {
	looked := make(chan struct{})
	err := d.core.call(ctx, func(context.Context) { d.core.afterLook(time.Now(), func() { close(looked) }) })
	if err != nil {
		return Status{}, err
	}
	select {
	case <-looked:
	case <-time.After(statusWait):
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
	return d.known(ctx)
}

// known is the status without a new look.
func (d *Daemon) known(ctx context.Context) (Status, error) {
	s := Status{
		Version: d.opts.Version, Started: d.started.UTC(),
		Sources: []SourceStatus{}, Sockets: []SocketStatus{}, Incidents: []IncidentStatus{}, Actions: []remediate.Event{},
	}
	d.sources.look()
	named := map[string]bool{} // two followers may tell of one folder
	for _, source := range d.sources.all() {
		for _, t := range source.status() {
			if !named[t.Name] {
				named[t.Name] = true
				s.Sources = append(s.Sources, sourceStatus(t, d.sources.hitsOf(t.Name)))
			}
		}
	}
	err := d.core.call(ctx, func(context.Context) { d.core.status(&s) })
	return s, err
}

// dialUnix waits while too many others knock (connect(2), EAGAIN).
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	for {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if !errors.Is(err, unix.EAGAIN) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// fetchWait is how long a daemon may take to answer.
const fetchWait = 10 * time.Second

// FetchStatus asks the daemon that listens at path. One question on one
// connection needs no http.Client, which would make the binary 0.2 MiB larger.
func FetchStatus(ctx context.Context, path string) (s Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	conn, err := dialUnix(ctx, path)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // not that the connection was closed
		}
	}()
	if _, err := io.WriteString(conn, "GET /status HTTP/1.1\r\nHost: qwatch\r\nConnection: close\r\n\r\n"); err != nil {
		return s, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil) // nil: to a GET
	if err != nil {
		return s, err
	}
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return s, json.NewDecoder(resp.Body).Decode(&s)
}
