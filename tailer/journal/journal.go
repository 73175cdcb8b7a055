// Package journal follows units in the systemd journal through a child
// "journalctl -f -o json": the library that reads the files needs cgo.
//
// Units are picked here by _SYSTEMD_UNIT, not by journalctl -u: that one looks
// up a pattern's units once, at its start, and never shows an instance that
// first logs later (tried with systemd 252); it would also show what other
// processes say of the unit. Where all units are plain names journalctl filters
// by the same field, from its index.
package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"qwatch/tailer"
)

const (
	// saveAfter is how old the saved position may be after an entry was
	// handed over; skipAfter, after others were only passed by: those can be
	// passed by once more.
	saveAfter = time.Second
	skipAfter = time.Minute
	// retryMin and retryMax bound the wait before journalctl is started again.
	// One that ran for steady had been well.
	retryMin = time.Second
	retryMax = time.Minute
	steady   = time.Minute
)

// Options say which part of the journal is followed, and how.
type Options struct {
	// Units are whole unit names or patterns such as "uwsgi@*.service"
	// (path.Match, but with a backslash standing for itself, as in systemd).
	Units []string
	// StateFile keeps the position over restarts, "" for none.
	StateFile string
	// FromStart makes the very first start, without a state file, begin at
	// the oldest entry and not at the end.
	FromStart bool
	// Command is the journalctl to run, "journalctl" by default.
	Command string
	// Report, if not nil, is told each trouble once, and again if it comes
	// back after two minutes without it. Calls come one at a time. It must
	// not call back into the Journal.
	Report func(error)
}

// Errors that Status and Report carry. All of them are retried for as long as
// Run runs.
var (
	// ErrRights says that the user may read only its own entries.
	ErrRights = errors.New("the system journal may not be read; add the user to the group systemd-journal")
	// ErrGap says that the entry up to which the journal had been read is
	// gone, and perhaps some after it.
	ErrGap = errors.New("the journal no longer holds the entry that was read last; entries may have been removed unread")
)

// Journal follows the units. Make one with New.
type Journal struct {
	opts    Options
	handle  tailer.Handler
	globs   []string // Units for path.Match
	filter  []string // arguments that make journalctl show these units only
	self    int      // this process
	backoff func(failures int) time.Duration
	ready   chan struct{}
	isReady sync.Once
	working chan struct{} // holds one element while Run is at work and does not wait

	// The rest down to mu belongs to Run's goroutine.
	cursor   []byte          // the last entry that was read, empty if none was
	at       time.Time       // when it was logged, or from when on entries are wanted
	mayCheck bool            // the entry at cursor will be shown again if it still exists
	due      time.Time       // when the position is to be saved, zero if it is saved
	units    map[string]unit // by the name as it stands in an entry
	text     []byte
	began    time.Time // when Run was called
	skipped  uint64    // entries longer than maxEntry

	mu       sync.Mutex
	status   []tailer.Status
	reported map[string]time.Time // error text → when it last was there
}

// New checks the options. Run does the work. The handler gets one Chunk for
// each entry.
func New(opts Options, handle tailer.Handler) (*Journal, error) {
	if len(opts.Units) == 0 {
		return nil, errors.New("journal: no unit given; name at least one")
	}
	opts.Command = cmp.Or(opts.Command, "journalctl")
	opts.Units = slices.Clone(opts.Units)
	j := &Journal{
		opts:     opts,
		handle:   handle,
		self:     os.Getpid(),
		backoff:  backoff,
		ready:    make(chan struct{}),
		working:  make(chan struct{}, 1),
		units:    make(map[string]unit),
		reported: make(map[string]time.Time),
	}
	plain := true
	for _, name := range opts.Units {
		if name == "" {
			return nil, errors.New("journal: empty unit name; give one such as uwsgi.service")
		}
		glob := strings.ReplaceAll(name, `\`, `\\`)
		if _, err := path.Match(glob, ""); err != nil {
			return nil, fmt.Errorf("journal: unit pattern %q: %w", name, err)
		}
		plain = plain && !strings.ContainsAny(name, "*?[")
		j.globs = append(j.globs, glob)
		j.filter = append(j.filter, "_SYSTEMD_UNIT="+name)
		j.status = append(j.status, tailer.Status{Name: name, Kind: "journal"})
	}
	if !plain {
		j.filter = nil
	}
	return j, nil
}

// backoff is the wait before start number failures+1 in a row.
func backoff(failures int) time.Duration {
	return min(retryMin<<min(failures-1, 16), retryMax)
}

// String names the task.
func (j *Journal) String() string { return "journal " + strings.Join(j.opts.Units, " ") }

// Ready is closed when the position is fixed and journalctl has been started,
// from where on no entry is missed, or when that has failed: Status tells
// which.
func (j *Journal) Ready() <-chan struct{} { return j.ready }

// Status has one element for each pattern, in their order.
func (j *Journal) Status() []tailer.Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.status)
}

// Alive returns nil as soon as Run waits for something to be logged, or does
// not run, and an error if ctx ends before that: the handler does not return,
// or the state file cannot be written to its end. A journalctl that says
// nothing is no sign of trouble.
func (j *Journal) Alive(ctx context.Context) error {
	select {
	case j.working <- struct{}{}:
		<-j.working
		return nil
	case <-ctx.Done():
		return fmt.Errorf("journal: an entry is being handled for too long: %w", context.Cause(ctx))
	}
}

// Run follows the journal until ctx ends, and then saves the position and
// returns nil. Nothing that journalctl does ends it: it is started again,
// after a second that doubles up to a minute.
func (j *Journal) Run(ctx context.Context) error {
	j.working <- struct{}{}
	defer func() { <-j.working }()
	j.began = time.Now()
	j.restore()
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		err := j.follow(ctx)
		j.save()
		if ctx.Err() != nil {
			break
		}
		j.setError(err)
		j.setReady()
		if time.Since(began) >= steady {
			failures = 0
		}
		failures++
		wait := j.backoff(failures)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			wait = j.backoff(100) // it will not be installed within a second
		}
		j.waiting(func() {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		})
	}
	return nil
}

// waiting calls f, during which Run counts as alive.
func (j *Journal) waiting(f func()) {
	<-j.working
	f()
	j.working <- struct{}{}
}

func (j *Journal) setReady() { j.isReady.Do(func() { close(j.ready) }) }

// restore takes the position from the state file. The very first one is
// written at once: what is logged while qwatch is stopped counts as new even
// if nothing had been logged before.
func (j *Journal) restore() {
	found := false
	if j.opts.StateFile != "" {
		p, ok, err := loadPosition(j.opts.StateFile)
		if err != nil {
			j.report(err)
		}
		j.cursor, j.at, found = []byte(p.Cursor), p.Time, ok
		j.mayCheck = slices.Equal(p.Units, j.opts.Units)
	}
	if !found && !j.opts.FromStart {
		j.at = time.Now()
		j.due = j.at
		j.save()
	}
}

func (j *Journal) position() position {
	return position{Cursor: string(j.cursor), Time: j.at, Units: j.opts.Units}
}

// save writes the position if it has changed.
func (j *Journal) save() {
	if j.due.IsZero() {
		return
	}
	j.due = time.Time{}
	if j.opts.StateFile == "" {
		return
	}
	if err := j.position().save(j.opts.StateFile); err != nil {
		j.report(err)
		j.due = time.Now().Add(skipAfter)
	}
}

// saveWithin has the position saved after d, or earlier.
func (j *Journal) saveWithin(d time.Duration) {
	if due := time.Now().Add(d); j.due.IsZero() || due.Before(j.due) {
		j.due = due
	}
}

// setError says in the status what keeps the journal from being read, nil for
// nothing, and reports it.
func (j *Journal) setError(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.status {
		j.status[i].Error = err
	}
	if err != nil {
		j.reportLocked(err)
	}
}

// report tells err if it is news.
func (j *Journal) report(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reportLocked(err)
}

// reportLocked is report with j.mu held.
func (j *Journal) reportLocked(err error) {
	if j.opts.Report == nil {
		return
	}
	text, now := err.Error(), time.Now()
	last, known := j.reported[text]
	if len(j.reported) > 64 {
		clear(j.reported)
	}
	j.reported[text] = now
	if !known || now.Sub(last) > 2*retryMax {
		j.opts.Report(err)
	}
}
