package file

import "bytes"

const (
	// longLine is how much of a line without an end is waited for.
	longLine = 64 << 10
	// longRecord is more than any uWSGI record takes: core/master.c:295 puts
	// a socket name (at most 108 bytes for a UNIX socket) into fixed text.
	longRecord = 4 << 10
)

// recordStart begins the record that a cut must not split (uWSGI
// core/master.c:295).
var recordStart = []byte("*** uWSGI listen queue of socket")

// cut says how much of text can be handed over: up to its last newline. Text
// without one waits (0) for the rest of its line, unless
//   - it is a run of JSON objects, as uWSGI's JSON encoder without "nl" writes
//     them: then up to the beginning of the last one, or, when the file has
//     been still for a while (settled), up to its end if it is complete;
//   - it is longer than longLine: then up to its last "}{", else up to the
//     last record that may still lack its end, else nearly all.
//
// No cut falls inside a record that is shorter than longRecord.
func cut(text []byte, settled bool) int {
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		return i + 1
	}
	if last, whole := objects(text); whole && settled {
		return len(text)
	} else if last > 0 {
		return last
	}
	if len(text) < longLine {
		return 0
	}
	if i := bytes.LastIndex(text, []byte("}{")); i >= 0 {
		return i + 1
	}
	near := len(text) - longRecord
	if i := bytes.LastIndex(text[near:], recordStart); i >= 0 {
		return near + i
	}
	return len(text) - len(recordStart) + 1
}

// objects reads text as JSON objects that follow each other without a gap. It
// says where the last one begins and whether that one is whole. Text that is
// anything else ends the run.
func objects(text []byte) (last int, whole bool) {
	if len(text) == 0 || text[0] != '{' {
		return 0, false
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			if depth == 0 {
				last = i
			}
			depth++
		case depth == 0:
			return last, false
		case c == '}':
			depth--
		}
	}
	return last, depth == 0
}

// continues says whether text stands inside a line whose beginning was handed
// over already, or was never to be. last is the byte before it, 0 if nothing or
// a hole is.
func continues(last byte, text []byte) bool {
	return last != 0 && last != '\n' && (last != '}' || text[0] != '{')
}
