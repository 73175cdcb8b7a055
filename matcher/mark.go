package matcher

import (
	"bytes"
	"regexp"
	"slices"
	"time"

	"qwatch/internal/jsonscan"
)

// MarkKind says which line of uWSGI a Mark is.
type MarkKind string

// The lines that tell why an accept queue is full.
const (
	MarkHarakiri MarkKind = "harakiri"   // a worker is killed for a request that took too long (core/master_utils.c trigger_harakiri)
	MarkDeadlock MarkKind = "deadlock"   // a process died with a lock in its hands (core/lock.c)
	MarkReloaded MarkKind = "reloaded"   // the master came up again after a reload (core/uwsgi.c uwsgi_start)
	MarkBuried   MarkKind = "buried"     // a worker that had to end has ended (core/master.c)
	MarkDied     MarkKind = "died"       // a worker was killed, as by the OOM killer (core/master.c)
	MarkNoStart  MarkKind = "no-start"   // uWSGI refused to start: listen is over somaxconn (core/socket.c)
	MarkTooFast  MarkKind = "crash-loop" // workers die as soon as they start (core/master.c, forkbomb_delay)
)

// Mark is one of uWSGI's other lines that bear on its accept queue. Like a Hit
// it is a claim that anybody may have forged who can make the application
// print: it may make qwatch more careful, and needs proof for anything else.
type Mark struct {
	Kind  MarkKind
	At    time.Time // as Hit.At
	Limit int       // the somaxconn in MarkNoStart (0 to 2^31-1), else 0
	// Source, Writer and Unit are Hit.Source, Hit.PID and Hit.Unit.
	Source string
	Writer int
	Unit   string
}

// markForm is what one of these lines looks like.
type markForm struct {
	kind MarkKind
	// needle is the part of the line to look for: bytes.Index runs on its
	// first byte, so that one is rare in logs.
	needle string
	line   *regexp.Regexp // from its first byte to the last; group limit is Mark.Limit, n is Word.N
	most   int            // how many bytes it may have, 0 for maxMark
}

// markForms are read from uWSGI 1.4 to 2.0.30.
var markForms = []markForm{
	{MarkHarakiri, "KIRI ON WORKER ", regexp.MustCompile(
		`^\*\*\* HARAKIRI ON WORKER \d{1,6} \(pid: \d{1,10}, try: \d{1,6}(?:, graceful: (?:yes|no))?\) \*\*\*$`), 0},
	{MarkDeadlock, "k-detector] ", regexp.MustCompile(
		`^\[deadlock-detector\] (?:a process holding a robust mutex died\. recovering\.\.\.|pid \d{1,10} was holding lock .{1,100} \(.{1,20}\))$`), 0},
	{MarkReloaded, "RE)spawned uWSGI", regexp.MustCompile(
		`^gracefully \(RE\)spawned uWSGI master process \(pid: \d{1,10}\)$`), 0},
	{MarkBuried, "buried after ", regexp.MustCompile(
		`^worker \d{1,6} buried after -?\d{1,10} seconds$`), 0},
	{MarkDied, "! worker ", regexp.MustCompile(
		`^DAMN ! worker \d{1,6} \(pid: \d{1,10}\) (?:died|MYSTERIOUSLY killed)(?:,? (?:killed )?by signal \d{1,3})? :\( trying respawn \.\.\.$`), 0},
	{MarkNoStart, "queue size is greater", regexp.MustCompile(
		`^Listen queue size is greater than the system max net\.core\.somaxconn \((?P<limit>\d{1,10})\)\.$`), 0},
	{MarkTooFast, "!!! i have to sleep", regexp.MustCompile(
		`^worker respawning too fast !!! i have to sleep a bit \(\d{1,6} seconds\)\.\.\.$`), 0},
}

// ScanMarks calls emit for each mark in text, in order. text and meta are as
// for Scan, and a line counts where Scan would let a record count: by itself,
// or behind known wrappers. It holds at most one mark.
func ScanMarks(text []byte, meta Meta, emit func(Mark)) {
	if own(meta.Unit) {
		return
	}
	if meta.Continued {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	// The next place of each form: each needle is looked for once over the
	// whole text, whatever the others find.
	at := make([]int, 0, 16)
	for _, f := range markForms {
		at = append(at, find(text, 0, f.needle))
	}
	for from := 0; ; {
		first := len(text)
		for i, f := range markForms {
			if at[i] < from {
				at[i] = find(text, from, f.needle)
			}
			first = min(first, at[i])
		}
		if first == len(text) {
			return
		}
		start := bytes.LastIndexByte(text[:first], '\n') + 1
		from = len(text)
		if n := bytes.IndexByte(text[first:], '\n'); n >= 0 {
			from = first + n + 1
		}
		line := bytes.TrimRight(text[start:from], " \r\n")
		if l, ok := (origin{meta: meta}).line(markForms, line, 0); ok {
			emit(l.mark())
		}
	}
}

func find(text []byte, from int, needle string) int {
	if i := bytes.Index(text[from:], []byte(needle)); i >= 0 {
		return from + i
	}
	return len(text)
}

// maxLead is as far as a needle can stand from its line's first byte.
const maxLead = 32

// maxMark is longer than any line of a form.
const maxMark = 256

// lineFound is a line of one of some forms, and how its groups matched.
type lineFound struct {
	origin
	form  markForm
	text  []byte
	match []int
}

func (l *lineFound) mark() Mark {
	m := Mark{Kind: l.form.kind, At: l.stamp.time, Source: l.meta.Source, Writer: l.meta.PID, Unit: l.meta.Unit}
	m.Limit = max(0, number(group(l.form.line, "limit", l.text, l.match)))
	if l.stamp.rank == shapeOnly {
		m.At = l.meta.Read
	}
	return m
}

// line reads one line, or one message inside a wrapper.
func (o origin) line(forms []markForm, b []byte, depth int) (lineFound, bool) {
	if depth > maxDepth {
		return lineFound{}, false
	}
	b = bytes.TrimRight(cloudwatch(withoutColour(b)), " \r\n")
	if brace := bytes.IndexByte(b, '{'); brace >= 0 {
		if inside := o; inside.unwrap(b[:brace], true) {
			return inside.lineIn(forms, b[brace:], depth)
		}
	}
	for _, f := range forms {
		i := bytes.Index(b, []byte(f.needle))
		if i < 0 {
			continue
		}
		// What stands in front of the needle in its own line is short and has
		// no wrapper's marks in it, so the line begins at one of few places.
		for start := i; start >= 0 && i-start <= maxLead; start-- {
			line := b[start:min(len(b), start+max(f.most, maxMark))]
			match := f.line.FindSubmatchIndex(line)
			if match == nil {
				continue
			}
			if !o.unwrap(b[:start], false) {
				return lineFound{}, false
			}
			return lineFound{o, f, line, match}, true
		}
	}
	return lineFound{}, false
}

// lineIn reads the line in a JSON object that is all of b.
func (o origin) lineIn(forms []markForm, b []byte, depth int) (lineFound, bool) {
	if jsonscan.Skip(b) != len(b) {
		return lineFound{}, false
	}
	f := found{origin: o, holds: func(value []byte) bool {
		return slices.ContainsFunc(forms, func(f markForm) bool { return bytes.Contains(value, []byte(f.needle)) })
	}}
	for _, text := range f.candidates(b) {
		if l, ok := f.line(forms, text, depth+1); ok {
			return l, true
		}
	}
	return lineFound{}, false
}
