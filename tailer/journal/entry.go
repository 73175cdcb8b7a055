package journal

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"qwatch/internal/jsonscan"
)

// entry is one line of "journalctl -o json", taken apart but not yet decoded.
// The slices are parts of the line.
type entry struct {
	cursor   []byte // __CURSOR
	realtime []byte // __REALTIME_TIMESTAMP, µs since 1970
	unit     []byte // _SYSTEMD_UNIT, a JSON value; trusted: journald takes it from the sender's cgroup
	pid      []byte // _PID, trusted: the sender's SCM_CREDENTIALS
	ident    []byte // SYSLOG_IDENTIFIER, what the sender calls itself
	message  []byte // MESSAGE, a JSON value
}

var errSyntax = errors.New("not an entry of journalctl -o json")

// parseEntry takes one line apart. Every entry of a busy host may pass here,
// and almost none is wanted: it does not allocate.
func parseEntry(line []byte) (entry, error) {
	var e entry
	w := jsonscan.Walk(bytes.TrimLeft(line, " \t\r\n"))
	for w.Next() {
		if w.Value[0] == '{' { // a journal entry holds no object
			return e, errSyntax
		}
		switch string(w.Key) {
		case "__CURSOR":
			e.cursor = jsonscan.Unquote(w.Value)
		case "__REALTIME_TIMESTAMP":
			e.realtime = jsonscan.Unquote(w.Value)
		case "_SYSTEMD_UNIT":
			e.unit = w.Value
		case "_PID":
			e.pid = jsonscan.Unquote(w.Value)
		case "SYSLOG_IDENTIFIER":
			e.ident = jsonscan.Unquote(w.Value)
		case "MESSAGE":
			e.message = w.Value
		}
	}
	if !w.Whole() {
		return e, errSyntax
	}
	return e, nil
}

// time is when journald took the entry, the zero time if it does not say.
func (e entry) time() time.Time {
	usec, err := strconv.ParseInt(string(e.realtime), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(usec)
}

// appendText appends the message to dst, every line of it with its newline.
// It reports false where there is no text: no MESSAGE, or null.
//
// journalctl(1), "json": a field that is not UTF-8 or has unprintable
// characters is an array of byte values; a field that was given more than
// once is an array of its values.
func (e entry) appendText(dst []byte) ([]byte, bool) {
	if len(e.message) == 0 {
		return dst, false
	}
	values := jsonscan.Walk(e.message)
	if e.message[0] != '[' || !values.Next() || values.Value[0] >= '0' && values.Value[0] <= '9' {
		return appendValue(dst, e.message)
	}
	some := false
	for more := true; more; more = values.Next() {
		var ok bool
		dst, ok = appendValue(dst, values.Value)
		some = some || ok
	}
	return dst, some
}

// appendValue appends one value, a string or an array of bytes, and a newline
// where it has none at its end.
func appendValue(dst, value []byte) ([]byte, bool) {
	start := len(dst)
	switch value[0] {
	case '"':
		dst = jsonscan.AppendString(dst, value)
	case '[':
		var ok bool
		if dst, ok = jsonscan.AppendBytes(dst, value); !ok {
			return dst[:start], false
		}
	default:
		return dst, false
	}
	if len(dst) == start || dst[len(dst)-1] != '\n' {
		dst = append(dst, '\n')
	}
	return dst, true
}
