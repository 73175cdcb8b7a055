// Package matcher finds uWSGI's listen queue records in log text and groups
// them. It is pure: bytes and times in, values out.
//
// A record counts only where uWSGI's master can have written it: known
// wrappers (syslog, journal, Docker, Kubernetes, JSON encoders) are taken off,
// and what remains must be the record from its first star to its last, at the
// line's start or behind a date and " - ". The same phrase inside a request
// log, a header or a traceback is what a stranger sent, and never counts. A
// line that a stranger forged byte for byte does count: only the kernel can
// tell that it is a lie.
package matcher

import (
	"bytes"
	"time"
)

// Hit is one listen queue record.
type Hit struct {
	// Socket is the name in the record ("127.0.0.1:5000", "[::1]:80", "@app"),
	// or in the old format the number, as text.
	Socket string
	// FD is the master's file descriptor in the record (0 to 2^31-1), -1
	// where none could be parsed.
	FD int
	// Old is true for the format before uWSGI 2.0, which has a number only.
	Old bool
	// Length and Limit are what the record says of the accept queue
	// (tcpi_unacked and tcpi_sacked of the listening socket, uWSGI 2.0
	// core/master.c:295). They are claims, not facts; each is -1 where the
	// text is not a number that an accept queue can have (0 to 2^31-1).
	Length, Limit int
	// Garbage is true where the numbers cannot be those of a full queue: one
	// is negative or over 2^31-1, the length is 0, or (as under emulated
	// CPUs) far over the limit.
	Garbage bool
	// At is when the record was written as far as the text tells, else
	// Meta.Read. With a zero Meta.Read a zero At says: no date in the text.
	At time.Time
	// Source is the file or journal unit that the record came from, PID and
	// Unit who wrote it; PID is 0 and Unit "" where that is not known.
	Source string
	PID    int
	Unit   string
}

// Meta is what is known of a text besides the text.
type Meta struct {
	// Source is copied into each hit.
	Source string
	// Read is when the text was read or logged. It dates hits whose text
	// holds no date, and gives the year to syslog dates, which have none.
	Read time.Time
	// PID and Unit are who wrote the text, 0 and "" if not known. Only the
	// journal itself knows: nothing in a text, an exported journal included,
	// says it.
	PID  int
	Unit string
	// Continued says that the text begins inside a line whose front was in an
	// earlier text: a line without an end that had to be cut. In the rest of
	// that line only whole JSON objects can hold records, behind the first
	// place where one follows another.
	Continued bool
	// Location is the zone of dates without one; nil is time.Local.
	Location *time.Location
}

// needle stands in every record of both formats, and no JSON encoder escapes
// any of it. Of all bytes of a record "!" is the rarest in logs, and
// bytes.Index runs on the first byte of what it looks for: in cached uWSGI,
// nginx and Python logs it did 17 to 77 GB/s, "listen queue of socket" 4 to 77.
const needle = "!!! ("

// next returns where in text the next line may be that holds a record: the
// offset of some byte of that line, or -1. It reads at the speed of memory and
// allocates nothing. It never looks further than what it returns, but for the
// needle, so a walk from candidate to candidate stays linear.
func next(text []byte, exported bool) int {
	i := plain(text)
	if !exported {
		return i
	}
	for _, key := range []string{`"MESSAGE":[`, `"MESSAGE" : [`} {
		before := text
		if i >= 0 {
			before = text[:i]
		}
		if j := bytes.Index(before, []byte(key)); j >= 0 {
			i = j
		}
	}
	return i
}

func plain(text []byte) int {
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(needle))
		if i < 0 {
			return -1
		}
		i += from
		if bytes.HasSuffix(text[:i], []byte("full ")) {
			return i
		}
		from = i + len(needle)
	}
}

// Scan calls emit for each record in text, in order. The text is a run of
// whole lines; the last may lack its newline, and a line may hold many
// records. Lines without a record cost no allocation. The time is linear in
// the text's length, whatever the text.
func Scan(text []byte, meta Meta, emit func(Hit)) {
	if own(meta.Unit) {
		return
	}
	if meta.Continued {
		text = resume(text)
	}
	exported := exported(text)
	for len(text) > 0 {
		i := next(text, exported)
		if i < 0 {
			return
		}
		start := bytes.LastIndexByte(text[:i], '\n') + 1
		line := text[start:]
		text = nil
		if n := bytes.IndexByte(line, '\n'); n >= 0 {
			line, text = line[:n], line[n+1:]
		}
		for _, h := range (origin{meta: meta}).hits(line, 0) {
			emit(h)
		}
	}
}

// resume skips to where the next JSON object of a cut line begins, or to the
// next line. Inside a JSON string the quote would stand behind a backslash.
func resume(text []byte) []byte {
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	if bytes.HasPrefix(line, []byte(`{"`)) {
		return text
	}
	if i := bytes.Index(line, []byte(`}{"`)); i >= 0 {
		return text[i+1:]
	}
	return rest
}

// exported says whether text is `journalctl -o json`, where a message with a
// byte that JSON has no letter for (a CR, a colour) is an array of numbers,
// in which the needle does not show. Only such text is searched twice.
func exported(text []byte) bool {
	if len(text) == 0 || text[0] != '{' {
		return false
	}
	line, _, _ := bytes.Cut(text[:min(len(text), 64<<10)], []byte("\n"))
	return bytes.Contains(line, []byte(`"__CURSOR"`))
}

// own says whether a unit or a syslog identifier is qwatch's own. What qwatch
// writes quotes what it read.
func own(name string) bool {
	return name == "qwatch" || name == "qwatch.service" || name == "qwatch-audit.service"
}
