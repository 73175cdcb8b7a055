package matcher

import (
	"bytes"

	"qwatch/internal/jsonscan"
)

// Literal stands in every record, also inside JSON, and begins it (uWSGI 2.0
// core/master.c:295): a line without it needs no Scan.
const Literal = "*** uWSGI listen queue of socket"

// Seam is where an endless line may be cut, between its two bytes: uWSGI's
// JSON encoder without "nl" writes one object behind the other.
const Seam = "}{"

// LongLine is the length in bytes from which on Cut waits no longer for the
// end of a line.
const LongLine = 64 << 10

// longRecord is more than any record takes: its name is at most maxName.
const longRecord = 4 << 10

// Cut says how much of text, the newest part of a log, can be handed over for
// Scan: up to its last newline. Of text without one nothing can be (0), since
// the rest of its line is still to come, unless
//   - it is whole JSON objects without a gap between them: then up to the
//     beginning of the last one, or up to its end if that one is whole and
//     settled says that the log has not grown for a while;
//   - it is LongLine or longer: then up to its last Seam, else up to the last
//     record that may still lack its end, else nearly all. Never 0.
//
// No cut falls inside a record or an object that is shorter than 4 KiB. What
// begins with a cut is Meta.Continued where Continues says so.
func Cut(text []byte, settled bool) int {
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		return i + 1
	}
	last := 0 // where the last object begins
	for last < len(text) && text[last] == '{' {
		n := jsonscan.Skip(text[last:])
		if n >= 0 && last+n == len(text) && settled {
			return len(text)
		}
		if n < 0 || last+n == len(text) || text[last+n] != '{' {
			break
		}
		last += n
	}
	if last > 0 || len(text) < LongLine {
		return last
	}
	if i := bytes.LastIndex(text, []byte(Seam)); i >= 0 {
		return i + 1
	}
	near := len(text) - longRecord
	if i := bytes.LastIndex(text[near:], []byte(Literal)); i >= 0 {
		return near + i
	}
	return len(text) - len(Literal) + 1
}

// Continues says whether a cut between before and text, both parts of one log,
// falls inside a line, which makes text Meta.Continued. It does not at a Seam.
// Either may be empty: without text it is taken for granted that an object
// follows an object, and without before text is a beginning.
func Continues(before, text []byte) bool {
	if len(before) == 0 {
		return false
	}
	switch before[len(before)-1] {
	case '\n', 0: // copytruncate leaves NULs in front of a file's first line
		return false
	case '}':
		return len(text) > 0 && text[0] != '{'
	}
	return true
}
