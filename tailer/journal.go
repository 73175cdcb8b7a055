package tailer

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// journalMaxEntry is the longest entry that is read, in bytes of JSON.
	// uWSGI's lines come over standard output, which journald cuts at 48 KiB
	// (LineMax=), at most 240 KiB as an array of bytes.
	journalMaxEntry = 1 << 20
	// journalSaveAfter is how old the saved position may be after an entry
	// was handed over; journalSkipAfter, after others were only passed by:
	// those can be passed by once more.
	journalSaveAfter = time.Second
	journalSkipAfter = time.Minute
	// journalRetryMin and journalRetryMax bound the wait before journalctl is
	// started again. One that ran for journalSteady had been well.
	journalRetryMin = time.Second
	journalRetryMax = time.Minute
	journalSteady   = time.Minute
	// journalMaxUnits bounds what is remembered of unit names, which never
	// end on a host with many short-lived scopes.
	journalMaxUnits = 4096
)

// journalFields are the fields that journalctl prints besides the cursor and
// the time (--output-fields, systemd 236).
const journalFields = "MESSAGE,_PID,_SYSTEMD_UNIT,SYSLOG_IDENTIFIER"

// JournalOptions say which part of the journal is followed, and how.
type JournalOptions struct {
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
	// ErrJournalRights: the user may read only its own entries.
	ErrJournalRights = errors.New("the system journal may not be read; add the user to the group systemd-journal")
	// ErrJournalGap: the entry up to which the journal had been read is gone,
	// and perhaps some after it.
	ErrJournalGap = errors.New("the journal no longer holds the entry that was read last; entries may have been removed unread")
)

// Journal follows units in the systemd journal through a child
// "journalctl -f -o json": the library that reads the files needs cgo.
//
// Units are picked here by _SYSTEMD_UNIT, not by journalctl -u: that one
// looks up a pattern's units once, at its start, and never shows an instance
// that first logs later (tried with systemd 252); it would also show what
// other processes say of the unit. Where all units are plain names journalctl
// filters by the same field, from its index.
type Journal struct {
	opts    JournalOptions
	handle  Handler
	globs   []string // Units for path.Match
	filter  []string // arguments that make journalctl show these units only
	self    int      // this process
	retry   func(failures int) time.Duration
	ready   chan struct{}
	isReady sync.Once
	turn    chan struct{} // holds one element while Run is at work and does not wait

	// The rest down to mu belongs to Run's goroutine.
	cursor   []byte    // the last entry that was read, empty if none was
	at       time.Time // when it was logged, or from when on entries are wanted
	mayCheck bool      // the entry at cursor will be shown again if it still exists
	due      time.Time // when the position is to be saved, zero if it is saved
	units    map[string]journalUnit
	text     []byte
	skipped  uint64 // entries longer than journalMaxEntry

	mu       sync.Mutex
	status   []Status
	reported map[string]time.Time // error text → when it last was there
}

// journalUnit is what is known of one unit name.
type journalUnit struct {
	name, source string
	pattern      int // index of the pattern that wants it, -1 for none
}

// NewJournal checks the options. Run does the work. The handler gets one
// Chunk for each entry.
func NewJournal(opts JournalOptions, handle Handler) (*Journal, error) {
	if len(opts.Units) == 0 {
		return nil, errors.New("journal: no unit given; name at least one")
	}
	opts.Command = cmp.Or(opts.Command, "journalctl")
	opts.Units = slices.Clone(opts.Units)
	j := &Journal{
		opts:     opts,
		handle:   handle,
		self:     os.Getpid(),
		retry:    journalRetry,
		ready:    make(chan struct{}),
		turn:     make(chan struct{}, 1),
		units:    make(map[string]journalUnit),
		reported: make(map[string]time.Time),
	}
	plain := true
	for _, unit := range opts.Units {
		if unit == "" {
			return nil, errors.New("journal: empty unit name; give one such as uwsgi.service")
		}
		glob := strings.ReplaceAll(unit, `\`, `\\`)
		if _, err := path.Match(glob, ""); err != nil {
			return nil, fmt.Errorf("journal: unit pattern %q: %w", unit, err)
		}
		plain = plain && !strings.ContainsAny(unit, "*?[")
		j.globs = append(j.globs, glob)
		j.filter = append(j.filter, "_SYSTEMD_UNIT="+unit)
		j.status = append(j.status, Status{Name: unit, Kind: "journal"})
	}
	if !plain {
		j.filter = nil
	}
	return j, nil
}

// machineID is this host's name in the journal (machine-id(5)).
const machineID = "/etc/machine-id"

// journalRetry is the wait before start number failures+1 in a row.
func journalRetry(failures int) time.Duration {
	return min(journalRetryMin<<min(failures-1, 16), journalRetryMax)
}

func (j *Journal) String() string { return "journal " + strings.Join(j.opts.Units, " ") }

// Ready is closed when the position is fixed and journalctl has been started,
// from where on no entry is missed, or when that has failed: Status tells
// which.
func (j *Journal) Ready() <-chan struct{} { return j.ready }

// Status has one element for each pattern, in their order.
func (j *Journal) Status() []Status {
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
	case j.turn <- struct{}{}:
		<-j.turn
		return nil
	case <-ctx.Done():
		return fmt.Errorf("journal: an entry is being handled for too long: %w", context.Cause(ctx))
	}
}

// Run follows the journal until ctx ends, and then saves the position and
// returns nil. Nothing that journalctl does ends it: it is started again,
// after a second that doubles up to a minute.
func (j *Journal) Run(ctx context.Context) error {
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
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
		if time.Since(began) >= journalSteady {
			failures = 0
		}
		failures++
		wait := j.retry(failures)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			wait = j.retry(100) // it will not be installed within a second
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
	<-j.turn
	f()
	j.turn <- struct{}{}
}

func (j *Journal) setReady() { j.isReady.Do(func() { close(j.ready) }) }

// restore takes the position from the state file. The very first one is
// written at once: what is logged while qwatch is stopped counts as new even
// if nothing had been logged before.
func (j *Journal) restore() {
	found := false
	if j.opts.StateFile != "" {
		p, ok, err := loadJournalPosition(j.opts.StateFile)
		if err != nil {
			j.note(err)
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

func (j *Journal) position() journalPosition {
	return journalPosition{Cursor: string(j.cursor), Time: j.at, Units: j.opts.Units}
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
		j.note(err)
		j.due = time.Now().Add(journalSkipAfter)
	}
}

// dirty notes that the position has to be saved within d.
func (j *Journal) dirty(d time.Duration) {
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
	j.report(err)
}

// note reports what does not keep the journal from being read.
func (j *Journal) note(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.report(err)
}

// report tells err if it is news. It needs j.mu.
func (j *Journal) report(err error) {
	if err == nil || j.opts.Report == nil {
		return
	}
	text, now := err.Error(), time.Now()
	last, known := j.reported[text]
	if len(j.reported) > 64 {
		clear(j.reported)
	}
	j.reported[text] = now
	if !known || now.Sub(last) > 2*journalRetryMax {
		j.opts.Report(err)
	}
}

// follow runs one journalctl to its end, which is always an error unless ctx
// has ended.
func (j *Journal) follow(ctx context.Context) error {
	// --no-tail: all since the position, not only the last ten. --all: no
	// field is left out for its length. --merge: --follow alone shows this boot
	// only (src/journal/journalctl.c, parse_argv): not what was logged before a
	// reboot, and nothing at all in a container of systemd-nspawn, where a
	// service with a /proc of its own sees the host's boot id. It adds journals
	// received from other hosts, which the match below takes out again.
	args := []string{"--follow", "--merge", "--output=json", "--output-fields=" + journalFields, "--all", "--no-tail", "--no-pager"}
	if id, err := os.ReadFile(machineID); err == nil {
		args = append(args, "_MACHINE_ID="+strings.TrimSpace(string(id)))
	}
	args = append(args, j.position().args()...)
	args = append(args, j.filter...)

	j.setError(nil)
	stderr := &journalStderr{onRights: func() { j.setError(ErrJournalRights) }}
	child, err := startJournalctl(ctx, j.opts.Command, args, stderr)
	if err != nil {
		return fmt.Errorf("start %s: %w", j.opts.Command, err)
	}
	j.setReady()

	seen := j.read(ctx, child.stdout)
	err = cmp.Or(child.stop(), errors.New("exit status 0"))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	said := stderr.String()
	switch {
	case seen == 0 && len(j.cursor) > 0 && strings.Contains(said, "to cursor"):
		// "Failed to seek to cursor": it is none. Go on by the time.
		j.cursor = nil
		j.lost()
	case strings.Contains(said, "insufficient permissions"):
		err = ErrJournalRights
	}
	if said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return fmt.Errorf("%s ended: %w", j.opts.Command, err)
}

// read takes all entries that come from r, and gives their number.
func (j *Journal) read(ctx context.Context, r *os.File) (seen uint64) {
	br := bufio.NewReaderSize(journalPipe{r, j}, 64<<10)
	resume := string(j.cursor)
	var long []byte // the start of an entry that outgrew br
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(long)+len(line) <= journalMaxEntry {
				long = append(long, line...)
				continue
			}
			long = nil
			if err = discardLine(br); err == nil {
				j.skip()
				continue
			}
		}
		if err != nil {
			return seen // the child has ended and says why; half an entry will be shown again
		}
		if len(long) > 0 {
			line = append(long, line...)
			long = nil
		}
		e, err := parseJournalEntry(line)
		if err != nil || len(e.cursor) == 0 {
			j.note(fmt.Errorf("%s printed what is no journal entry: %.80q", j.opts.Command, line))
			continue
		}
		seen++
		if seen == 1 && resume != "" && j.mayCheck && string(e.cursor) != resume {
			j.lost()
		}
		if resume != "" && string(e.cursor) == resume {
			continue
		}
		j.take(e)
		if ctx.Err() != nil {
			// The handler may have given up because of that: read it again.
			return seen
		}
		j.cursor, j.at, j.mayCheck = append(j.cursor[:0], e.cursor...), e.time(), true
	}
}

func discardLine(br *bufio.Reader) error {
	for {
		if _, err := br.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// take hands one entry over, if its unit is wanted.
func (j *Journal) take(e journalEntry) {
	u := j.unit(e.unit)
	if u.pattern < 0 {
		j.dirty(journalSkipAfter)
		return
	}
	j.dirty(journalSaveAfter)
	pid, _ := strconv.Atoi(string(e.pid))
	// What qwatch itself logs would be a loop: it quotes the lines that it has
	// found.
	if pid == j.self || string(e.ident) == "qwatch" {
		return
	}
	text, ok := e.appendText(j.text[:0])
	j.text = text
	if ok {
		j.handle(Chunk{Source: u.source, Name: j.opts.Units[u.pattern], Time: e.time(), Text: text, PID: pid, Unit: u.name})
		j.count(u.pattern, text)
	}
}

func (j *Journal) count(pattern int, text []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.status[pattern].Lines += uint64(bytes.Count(text, []byte{'\n'}))
	j.status[pattern].Bytes += uint64(len(text))
}

// lost counts entries that were removed before they could be read.
func (j *Journal) lost() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.status {
		j.status[i].Truncations++
	}
	j.report(ErrJournalGap)
}

// skip counts an entry that is too long to be read. The report comes at each
// power of two: a process that logs such things does not do it once.
func (j *Journal) skip() {
	j.skipped++
	if bits.OnesCount64(j.skipped) == 1 {
		j.note(fmt.Errorf("journal: entries longer than %d bytes are skipped, %d so far", journalMaxEntry, j.skipped))
	}
}

// unit finds out, once for each name, who wants a unit's entries.
func (j *Journal) unit(name []byte) journalUnit {
	if u, ok := j.units[string(name)]; ok {
		return u
	}
	if len(j.units) >= journalMaxUnits {
		clear(j.units)
	}
	// The escapes of a unit name, such as \x2d, are escaped once more in JSON.
	unit := string(appendJSONString(nil, name))
	u := journalUnit{name: unit, source: "journal:" + unit, pattern: -1}
	if unit != "qwatch.service" && unit != "qwatch-audit.service" {
		u.pattern = slices.IndexFunc(j.globs, func(glob string) bool {
			ok, _ := path.Match(glob, unit)
			return ok
		})
	}
	j.units[string(name)] = u
	return u
}

// journalPipe reads from the child and saves the position when that is due,
// also while nothing comes. Nothing wakes it up when nothing is due.
type journalPipe struct {
	f *os.File
	j *Journal
}

func (p journalPipe) Read(b []byte) (int, error) {
	for {
		if !p.j.due.IsZero() && !time.Now().Before(p.j.due) {
			p.j.save()
		}
		if err := p.f.SetReadDeadline(p.j.due); err != nil {
			return 0, err
		}
		var n int
		var err error
		p.j.waiting(func() { n, err = p.f.Read(b) })
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// journalChild is a running journalctl.
type journalChild struct {
	stdout *os.File
	stderr *journalStderr
	kill   context.CancelFunc
	exited chan error
}

// startJournalctl starts a child that dies with ctx, with this process, and
// by stop.
func startJournalctl(ctx context.Context, command string, args []string, stderr *journalStderr) (*journalChild, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	ctx, kill := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Stdout, cmd.Stderr = w, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	c := &journalChild{stdout: r, stderr: stderr, kill: kill, exited: make(chan error, 1)}

	started := make(chan error)
	go func() {
		// PR_SET_PDEATHSIG fires when the thread that forked ends, so that
		// thread must stay as long as the child (golang.org/issue/27505).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.exited <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		kill()
		r.Close()
		return nil, err
	}
	// A descendant of the child could hold the other end open.
	context.AfterFunc(ctx, func() { r.Close() })
	return c, nil
}

// stop reaps the child, which has ended or is about to: its output is closed.
// One that stays is killed.
func (c *journalChild) stop() error {
	select {
	case err := <-c.exited:
		c.kill()
		return err
	case <-time.After(time.Second):
	}
	c.kill()
	return <-c.exited
}

// journalStderr keeps the last words of journalctl.
type journalStderr struct {
	onRights func()

	mu   sync.Mutex
	text []byte
}

func (s *journalStderr) Write(b []byte) (int, error) {
	s.mu.Lock()
	s.text = append(s.text, b...)
	rights := bytes.Contains(s.text, []byte("not seeing messages from other users")) // journal-util.c:access_check_var_log_journal
	s.text = s.text[max(0, len(s.text)-1024):]
	s.mu.Unlock()
	if rights {
		s.onRights()
	}
	return len(b), nil
}

func (s *journalStderr) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(strings.Fields(string(s.text)), " ")
}
