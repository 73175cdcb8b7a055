package matcher

import (
	"bytes"
	"regexp"
)

// The lines in which uWSGI says how a reload went, beside some of those above.
const (
	WordOrdered  MarkKind = "ordered"   // a reload of all workers, of each, or of one after the other has begun (core/uwsgi.c grace_them_all, core/master.c)
	WordKilling  MarkKind = "killing"   // a worker takes no more requests (core/uwsgi.c gracefully_kill)
	WordMercy    MarkKind = "no-mercy"  // a worker that did not end is killed (core/master.c)
	WordWaiting  MarkKind = "waiting"   // the chain stands still, as worker N does not accept yet (core/master_checks.c)
	WordChained  MarkKind = "chained"   // a chain reload has ended (core/master_checks.c)
	WordReady    MarkKind = "ready"     // an app was loaded; N is how many seconds that took (plugins)
	WordUnable   MarkKind = "unable"    // an app could not be loaded (plugins/python/pyloader.c)
	WordDynamic  MarkKind = "dynamic"   // there is no app, which may be meant (core/uwsgi.c)
	WordNoApp    MarkKind = "no-app"    // a request found no app (plugins/python/wsgi_handlers.c)
	WordGarbled  MarkKind = "garbled"   // a request in another protocol (proto/base.c)
	WordAnswered MarkKind = "answered"  // a request has ended; N is its HTTP status (core/logging.c)
	WordBroken   MarkKind = "not-begun" // uWSGI ends, as its app or its configuration is not as it must be
)

// Word is one of the lines in which uWSGI says how a reload went. It is a claim,
// like a Mark.
type Word struct {
	Kind MarkKind
	N    int // seconds, a status, or the number of a worker; else 0
	// PID is the process that the line names, 0 for none.
	PID int
}

// wordForms are read from uWSGI 2.0 to 2.0.30.
var wordForms = []markForm{
	{WordAnswered, "|req: ", regexp.MustCompile(
		`^\[pid: (?P<pid>\d{1,10})\|app: -?\d{1,6}\|req: .* => generated \d+ bytes in \d+ (?:msecs|micros)(?: via \w+\(\))? \(HTTP/\d\.\d (?P<n>\d{3})\) \d+ headers in \d+ bytes \(.{1,64}\)$`), 16 << 10},
	{MarkReloaded, "RE)spawned uWSGI", regexp.MustCompile(
		`^gracefully \(RE\)spawned uWSGI master process \(pid: (?P<pid>\d{1,10})\)$`), 0},
	{WordReady, " app ", regexp.MustCompile(
		`^(?:WSGI|Web3|Pump|PSGI|RACK|Mono asp\.net) app -?\d{1,6} \(?.{0,200}?(?:ready|loaded) in (?P<n>\d{1,6}) seconds .{1,80}?(?:pid: (?P<pid>\d{1,10}).{0,32})?$`), 512},
	{WordUnable, "unable to load app", regexp.MustCompile(
		`^unable to load app -?\d{1,6} \(mountpoint='.{0,200}'\) \(callable not found or import error\)$`), 0},
	{WordDynamic, "*** no app loaded", regexp.MustCompile(
		`^\*\*\* no app loaded\. going in full dynamic mode \*\*\*$`), 0},
	{WordBroken, "*** no app loaded", regexp.MustCompile(
		`^\*\*\* no app loaded\. GAME OVER \*\*\*$`), 0},
	{WordBroken, "failed loading app", regexp.MustCompile(
		`^OOPS ! failed loading app in worker \d{1,6} \(pid (?P<pid>\d{1,10})\).{0,32}$`), 0},
	{WordNoApp, "application found, check", regexp.MustCompile(
		`^--- no (?:python|perl|ruby|\w{1,12}) application found, check your startup logs for errors ---$`), 0},
	{WordGarbled, "invalid request block size", regexp.MustCompile(
		`^invalid request block size: \d{1,10} \(max \d{1,10}\)\.\.\.skip$`), 0},
	{WordKilling, "racefully killing worker", regexp.MustCompile(
		`^Gracefully killing worker (?P<n>\d{1,6}) \(pid: (?P<pid>\d{1,10})\)\.\.\.$`), 0},
	{WordOrdered, "racefully killing workers", regexp.MustCompile(
		`^\.\.\.gracefully killing workers\.\.\.$`), 0},
	{WordOrdered, "chain next victim", regexp.MustCompile(
		`^chain next victim is worker \d{1,6}$`), 0},
	{WordWaiting, "chain is still waiting", regexp.MustCompile(
		`^chain is still waiting for worker (?P<n>\d{1,6})\.\.\.$`), 0},
	{WordChained, "chain reloading complete", regexp.MustCompile(
		`^chain reloading complete$`), 0},
	{WordMercy, " is taking too", regexp.MustCompile(
		`^worker (?P<n>\d{1,6}) \(pid: (?P<pid>\d{1,10})\) is taking too much time to die\.\.\.NO MERCY !!!$`), 0},
	{MarkHarakiri, "KIRI ON WORKER ", regexp.MustCompile(
		`^\*\*\* HARAKIRI ON WORKER (?P<n>\d{1,6}) \(pid: (?P<pid>\d{1,10}), try: \d{1,6}(?:, graceful: (?:yes|no))?\) \*\*\*$`), 0},
	{MarkDied, "! worker ", regexp.MustCompile(
		`^DAMN ! worker (?P<n>\d{1,6}) \(pid: (?P<pid>\d{1,10})\) (?:died|MYSTERIOUSLY killed)(?:,? (?:killed )?by signal \d{1,3})? :\( trying respawn \.\.\.$`), 0},
}

// ScanWords calls emit for each word in text, in order. text and meta are as for
// ScanMarks. It is for what one uWSGI has written over a minute: it looks at every
// line.
func ScanWords(text []byte, meta Meta, emit func(Word)) {
	if own(meta.Unit) {
		return
	}
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \r\n")
		if l, ok := (origin{meta: meta}).line(wordForms, line, 0); ok {
			read := func(name string) int { return max(0, number(group(l.form.line, name, l.text, l.match))) }
			emit(Word{l.form.kind, read("n"), read("pid")})
		}
	}
}
