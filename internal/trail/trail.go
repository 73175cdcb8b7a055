// Package trail keeps the audit trail: a file of JSON lines, one an event, that
// is only ever appended to. It also holds the locks by which several qwatch
// processes on one host keep out of each other's way.
package trail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"qwatch/internal/bounded"
	"qwatch/internal/text"
	"qwatch/remediate"
)

const (
	// tailSize is how much of an old trail is read: enough for far more than
	// the hour and the incident that decisions look back on.
	tailSize = 1 << 20
	// keepEvents bounds what is held in memory.
	keepEvents = 4096
)

// Trail is an open audit trail. Every line is on the disk when Append returns.
// The zero Trail keeps its events in memory only.
type Trail struct {
	pass   sync.Mutex // held between Lock and unlock
	dir    string     // "": in memory
	mu     sync.Mutex
	locked *os.File // by the newest pass; closed again at its end
	f      *os.File
	read   int64 // how far events were read
	events []remediate.Event
}

// Open opens the trail at path and makes it where there is none, with its
// directory.
func Open(path string) (*Trail, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	f, err := bounded.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		f.Close()
		return nil, fmt.Errorf("audit trail %s: %w", path, err)
	}
	return &Trail{f: f, dir: filepath.Dir(path)}, nil
}

// syncDir makes a file's name as durable as its lines will be.
func syncDir(path string) error {
	dir, err := bounded.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Read reads the newest events of the trail at path without opening it for
// writing. A trail that does not exist has none.
func Read(path string) (remediate.History, error) {
	f, err := bounded.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	defer f.Close()
	t := Trail{f: f}
	return t.History()
}

// Append writes a line for each event and waits until all are on the disk.
func (t *Trail) Append(events ...remediate.Event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.f == nil {
		t.keep(events...)
		return nil
	}
	if err := t.follow(); err != nil {
		return err
	}
	torn, err := t.torn()
	if err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	var lines []byte
	if torn {
		lines = []byte{'\n'}
	}
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("audit trail: %w", err)
		}
		// The file is read on terminals, and errors quote names from outside.
		lines = append(append(lines, text.Line(string(line))...), '\n')
	}
	// One write: another qwatch that appends at the same time cannot get in
	// between (O_APPEND, write(2)).
	if _, err := t.f.Write(lines); err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
	if err := t.f.Sync(); err != nil {
		return fmt.Errorf("audit trail: %w", err)
	}
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

func (t *Trail) keep(events ...remediate.Event) {
	t.events = append(t.events, events...)
	if n := len(t.events) - keepEvents; n > 0 {
		t.events = slices.Clone(t.events[n:])
	}
}

// History returns the newest events, oldest first, also those that another
// qwatch (`qwatch apply`) has written to the same file.
func (t *Trail) History() (remediate.History, error) {
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
		// A first line that the start cuts is no event and passed over.
		t.read = max(t.read, info.Size()-tailSize)
		lines, err := io.ReadAll(io.NewSectionReader(t.f, t.read, info.Size()-t.read))
		if err != nil {
			return nil, fmt.Errorf("audit trail: %w", err)
		}
		whole := lines[:bytes.LastIndexByte(lines, '\n')+1]
		t.read += int64(len(whole))
		t.keep(parse(whole)...)
	}
	return remediate.History(slices.Clone(t.events)), nil
}

// parse reads the events in a trail's text; lines that are no events are passed
// over.
func parse(lines []byte) []remediate.Event {
	var events []remediate.Event
	for line := range bytes.Lines(lines) {
		var e remediate.Event
		if json.Unmarshal(line, &e) == nil && e.Action != "" {
			events = append(events, e)
		}
	}
	return events
}

// Close closes the file, which ends a lock that is held.
func (t *Trail) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.locked != nil {
		t.locked.Close()
	}
	if t.f == nil {
		return nil
	}
	return t.f.Close()
}
