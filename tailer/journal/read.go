package journal

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"qwatch/internal/bounded"
	"qwatch/internal/jsonscan"
	"qwatch/tailer"
)

const (
	// maxEntry is the longest entry that is read, in bytes of JSON. uWSGI's
	// lines come over standard output, which journald cuts at 48 KiB
	// (LineMax=), at most 240 KiB as an array of bytes.
	maxEntry = 1 << 20
	// maxUnits bounds what is remembered of unit names, which never end on a
	// host with many short-lived scopes.
	maxUnits = 4096
	// outputFields are the fields that journalctl prints besides the cursor
	// and the time (--output-fields, systemd 236).
	outputFields = "MESSAGE,_PID,_SYSTEMD_UNIT,SYSLOG_IDENTIFIER"
	// machineID holds this host's name in the journal (machine-id(5)).
	machineID = "/etc/machine-id"
)

// unit is what is known of one unit name.
type unit struct {
	name, source string
	pattern      int // index of the pattern that wants it, -1 for none
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
	args := []string{"--follow", "--merge", "--output=json", "--output-fields=" + outputFields, "--all", "--no-tail", "--no-pager"}
	if id, err := bounded.ReadFile(machineID, 4096); err == nil {
		args = append(args, "_MACHINE_ID="+strings.TrimSpace(string(id)))
	}
	args = append(args, j.position().args()...)
	args = append(args, j.filter...)

	j.setError(nil)
	stderr := &lastWords{onRights: func() { j.setError(ErrRights) }}
	child, err := startChild(ctx, j.opts.Command, args, stderr)
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
		err = ErrRights
	}
	if said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return fmt.Errorf("%s ended: %w", j.opts.Command, err)
}

// read takes all entries that come from r, and gives their number.
func (j *Journal) read(ctx context.Context, r *os.File) (seen uint64) {
	br := bufio.NewReaderSize(pipe{r, j}, 64<<10)
	resume := string(j.cursor)
	var long []byte // the start of an entry that outgrew br
	for {
		line, err := br.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !full {
			return seen // the child has ended and says why; half an entry will be shown again
		}
		if full || len(long) > 0 {
			if len(long) <= maxEntry {
				long = append(long, line...)
			}
			if full {
				continue
			}
			line, long = long, nil
		}
		if len(line) > maxEntry {
			j.skip()
			continue
		}
		e, err := parseEntry(line)
		if err != nil || len(e.cursor) == 0 {
			j.report(fmt.Errorf("%s printed a line that is not a journal entry: %.80q", j.opts.Command, line))
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

// take hands one entry over, if its unit is wanted.
func (j *Journal) take(e entry) {
	u := j.unit(e.unit)
	if u.pattern < 0 {
		j.saveWithin(skipAfter)
		return
	}
	j.saveWithin(saveAfter)
	pid, _ := strconv.Atoi(string(e.pid))
	// What qwatch itself logs would be a loop: it quotes the lines that it has
	// found.
	if pid == j.self || string(e.ident) == "qwatch" {
		return
	}
	text, ok := e.appendText(j.text[:0])
	j.text = text
	if ok {
		var stood time.Time
		if at := e.time(); at.Before(j.began) {
			stood = at
		}
		j.handle(tailer.Chunk{Source: u.source, Name: j.opts.Units[u.pattern], Time: e.time(), Stood: stood, Text: text, PID: pid, Unit: u.name})
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
	j.reportLocked(ErrGap)
}

// skip counts an entry that is too long to be read. The report comes at each
// power of two: a process that logs such things does not do it once.
func (j *Journal) skip() {
	j.skipped++
	if bits.OnesCount64(j.skipped) == 1 {
		j.report(fmt.Errorf("journal: entries longer than %d bytes are skipped, %d so far", maxEntry, j.skipped))
	}
}

// unit finds out, once for each name, who wants a unit's entries. value is the
// name as it stands in the entry.
func (j *Journal) unit(value []byte) unit {
	if u, ok := j.units[string(value)]; ok {
		return u
	}
	if len(j.units) >= maxUnits {
		clear(j.units)
	}
	name := string(jsonscan.Unquote(value))
	u := unit{name: name, source: "journal:" + name, pattern: -1}
	if name != "qwatch.service" && name != "qwatch-audit.service" {
		u.pattern = slices.IndexFunc(j.globs, func(glob string) bool {
			ok, _ := path.Match(glob, name)
			return ok
		})
	}
	j.units[string(value)] = u
	return u
}

// pipe reads from the child and saves the position when that is due, also
// while nothing comes. Nothing wakes it up when nothing is due.
type pipe struct {
	f *os.File
	j *Journal
}

// Read reads what the child prints, without an end of its own.
func (p pipe) Read(b []byte) (int, error) {
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
