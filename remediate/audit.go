package remediate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/text"
)

// The results that only a judge gives; the others are the Status of an action.
const (
	Fixed    Status = "fixed"     // the limit is raised and the queue no longer full
	NoEffect Status = "no-effect" // it is still full, or its limit is as it was
	Worse    Status = "worse"     // the socket or its master is gone, or its limit lower
)

// Event is one line of the audit trail.
type Event struct {
	Time     time.Time `json:"time"`
	Plan     string    `json:"plan"`
	Incident string    `json:"incident,omitempty"`
	Socket   string    `json:"socket,omitempty"`
	PID      int       `json:"pid,omitempty"`   // the uWSGI master
	Start    uint64    `json:"start,omitempty"` // and when it started, as Process.Start
	Inode    uint64    `json:"inode,omitempty"` // the socket
	Action   string    `json:"action"`          // sysctl relisten reload start judge
	Target   string    `json:"target"`
	From     *int      `json:"from"`
	To       *int      `json:"to"`
	DryRun   bool      `json:"dry_run"`
	Result   Status    `json:"result"`
	Error    string    `json:"error,omitempty"`
	Why      string    `json:"why"`
}

// eventOf is the audit line for an action of a plan.
func eventOf(p Plan, a Action, at time.Time, r Result) Event {
	d, socket := Describe(a), p.Socket
	if r, ok := a.(Relisten); ok {
		socket = r.Socket // an undo is about several
	}
	e := Event{
		Time: at.UTC(), Plan: p.ID, Incident: p.Incident, Socket: p.Name,
		PID: socket.Master.PID, Start: socket.Master.Start, Inode: socket.ID.Inode,
		Action: d.Kind, Target: d.Target, From: d.From, To: d.To, DryRun: p.DryRun,
		Result: r.Status, Why: d.Why,
	}
	if r.Err != nil {
		e.Error = r.Err.Error()
	}
	return e
}

// Trail is the audit trail: a file of JSON lines that is only ever appended
// to. Every line is on the disk when Append returns. The zero Trail keeps its
// events in memory only.
type Trail struct {
	mu     sync.Mutex
	f      *os.File
	read   int64 // how far events were read
	events []Event
}

const (
	// tailSize is how much of an old trail is read: enough for far more than
	// the hour and the incident that decisions look back on.
	tailSize = 1 << 20
	// keepEvents bounds what is held in memory.
	keepEvents = 4096
)

// OpenTrail opens the trail at path and makes it where there is none, with
// its folder.
func OpenTrail(path string) (*Trail, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	t := &Trail{f: f}
	if err := t.prepare(); err != nil {
		f.Close()
		return nil, fmt.Errorf("audit trail %s: %w", path, err)
	}
	return t, nil
}

// prepare makes the file's name as durable as its lines will be, and finds
// where to begin to read.
func (t *Trail) prepare() error {
	dir, err := os.Open(filepath.Dir(t.f.Name()))
	if err != nil {
		return err
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return err
	}
	info, err := t.f.Stat()
	if err != nil {
		return err
	}
	// A first line that the start cuts is no event and passed over.
	t.read = max(0, info.Size()-tailSize)
	return nil
}

// torn reports whether the last line has no end: a crash or a full disk cut it
// short, and the next would be spoiled with it.
func (t *Trail) torn() (bool, error) {
	info, err := t.f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	last := make([]byte, 1)
	_, err = t.f.ReadAt(last, info.Size()-1)
	return last[0] != '\n', err
}

// Append writes one line and waits until it is on the disk.
func (t *Trail) Append(e Event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.f == nil {
		t.keep(e)
		return nil
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	// The file is read on terminals, and errors quote names from outside.
	line = append([]byte(text.Line(string(line))), '\n')
	torn, err := t.torn()
	if err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	if torn {
		line = append([]byte{'\n'}, line...)
	}
	// One write: another qwatch that appends at the same time cannot get in
	// between (O_APPEND, write(2)).
	if _, err := t.f.Write(line); err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	if err := t.f.Sync(); err != nil {
		return fmt.Errorf("audit trail %s: %w", t.f.Name(), err)
	}
	return nil
}

func (t *Trail) keep(events ...Event) {
	t.events = append(t.events, events...)
	if n := len(t.events) - keepEvents; n > 0 {
		t.events = slices.Clone(t.events[n:])
	}
}

// History returns the newest events, oldest first, also those that another
// qwatch (`qwatch apply`) has written to the same file.
func (t *Trail) History() (History, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.f != nil {
		info, err := t.f.Stat()
		if err != nil {
			return nil, fmt.Errorf("audit trail: %w", err)
		}
		// Somebody cut the file short (logrotate's copytruncate).
		if info.Size() < t.read {
			t.read = 0
		}
		text, err := io.ReadAll(io.NewSectionReader(t.f, t.read, math.MaxInt64-t.read))
		if err != nil {
			return nil, fmt.Errorf("audit trail: %w", err)
		}
		whole := text[:bytes.LastIndexByte(text, '\n')+1]
		t.read += int64(len(whole))
		t.keep(parseTrail(whole)...)
	}
	return History(slices.Clone(t.events)), nil
}

// Lock keeps other qwatch processes from acting until unlock is called or the
// process ends. It waits until ctx ends for another to finish.
func (t *Trail) Lock(ctx context.Context) (unlock func(), err error) {
	if t.f == nil {
		return func() {}, nil
	}
	for {
		if err := t.follow(); err != nil {
			return nil, err
		}
		f := t.f
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { unix.Flock(int(f.Fd()), unix.LOCK_UN) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("audit trail %s: lock: %w", t.f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another qwatch is acting on this host: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// follow opens the trail anew where its name no longer leads to it: rotated or
// removed, it would record for nobody, and another qwatch locks what has the
// name now. What was read before stays known.
func (t *Trail) follow() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	ours, err := t.f.Stat()
	if err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	if there, err := os.Stat(t.f.Name()); err == nil && os.SameFile(ours, there) {
		return nil
	}
	now, err := OpenTrail(t.f.Name())
	if err != nil {
		return err
	}
	t.f.Close()
	t.f, t.read = now.f, now.read
	return nil
}

// Close closes the file.
func (t *Trail) Close() error {
	if t.f == nil {
		return nil
	}
	return t.f.Close()
}

// ReadHistory reads the newest events of the trail at path without opening it
// for writing. A trail that does not exist has none.
func ReadHistory(path string) (History, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	t := Trail{f: f, read: max(0, info.Size()-tailSize)}
	return t.History()
}

// parseTrail reads the events in a trail's text; lines that are no events are
// passed over.
func parseTrail(text []byte) []Event {
	var events []Event
	for line := range bytes.Lines(text) {
		var e Event
		if json.Unmarshal(line, &e) == nil && e.Action != "" {
			events = append(events, e)
		}
	}
	return events
}
