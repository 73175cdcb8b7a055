package journal

import (
	"errors"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// entry is one line of "journalctl -o json", taken apart but not yet
// decoded. The slices are parts of the line; strings are without their quotes
// and still escaped (the fields kept here never need an escape).
type entry struct {
	cursor   []byte // __CURSOR
	realtime []byte // __REALTIME_TIMESTAMP, µs since 1970
	unit     []byte // _SYSTEMD_UNIT, trusted: journald takes it from the sender's cgroup
	pid      []byte // _PID, trusted: the sender's SCM_CREDENTIALS
	ident    []byte // SYSLOG_IDENTIFIER, what the sender calls itself
	message  []byte // MESSAGE, a whole JSON value
}

var errSyntax = errors.New("not an entry of journalctl -o json")

// parseEntry takes one line apart. It is written out by hand because
// every entry of a busy host may pass here, and almost none is wanted:
// encoding/json would cost ten times as much and allocate for each.
func parseEntry(line []byte) (entry, error) {
	var e entry
	i := skipJSONSpace(line, 0)
	if i == len(line) || line[i] != '{' {
		return e, errSyntax
	}
	i = skipJSONSpace(line, i+1)
	if i < len(line) && line[i] == '}' {
		return e, nil
	}
	for {
		keyEnd := skipJSONString(line, i)
		if keyEnd < 0 {
			return e, errSyntax
		}
		key := line[i+1 : keyEnd-1]
		i = skipJSONSpace(line, keyEnd)
		if i == len(line) || line[i] != ':' {
			return e, errSyntax
		}
		i = skipJSONSpace(line, i+1)
		end := skipJSONValue(line, i)
		if end < 0 {
			return e, errSyntax
		}
		value := line[i:end]
		switch string(key) {
		case "__CURSOR":
			e.cursor = unquoteJSON(value)
		case "__REALTIME_TIMESTAMP":
			e.realtime = unquoteJSON(value)
		case "_SYSTEMD_UNIT":
			e.unit = unquoteJSON(value)
		case "_PID":
			e.pid = unquoteJSON(value)
		case "SYSLOG_IDENTIFIER":
			e.ident = unquoteJSON(value)
		case "MESSAGE":
			e.message = value
		}
		i = skipJSONSpace(line, end)
		if i == len(line) {
			return e, errSyntax
		}
		switch line[i] {
		case '}':
			return e, nil
		case ',':
			i = skipJSONSpace(line, i+1)
		default:
			return e, errSyntax
		}
	}
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
	m := e.message
	if len(m) == 0 {
		return dst, false
	}
	if m[0] != '[' {
		return appendValue(dst, m)
	}
	if i := skipJSONSpace(m, 1); m[i] != '"' && m[i] != '[' && m[i] != 'n' {
		return appendValue(dst, m)
	}
	some := false
	for i := skipJSONSpace(m, 1); i < len(m) && m[i] != ']'; {
		end := skipJSONValue(m, i)
		if end < 0 {
			break
		}
		var ok bool
		dst, ok = appendValue(dst, m[i:end])
		some = some || ok
		i = skipJSONSpace(m, end)
		if i < len(m) && m[i] == ',' {
			i = skipJSONSpace(m, i+1)
		}
	}
	return dst, some
}

// appendValue appends one value, a string or an array of bytes, and a
// newline where it has none at its end.
func appendValue(dst, value []byte) ([]byte, bool) {
	start := len(dst)
	switch value[0] {
	case '"':
		dst = appendJSONString(dst, value[1:len(value)-1])
	case '[':
		dst = appendJSONBytes(dst, value)
	default:
		return dst, false
	}
	if len(dst) == start || dst[len(dst)-1] != '\n' {
		dst = append(dst, '\n')
	}
	return dst, true
}

// appendJSONBytes appends the bytes of an array such as [104,105].
func appendJSONBytes(dst, array []byte) []byte {
	n, digits := 0, false
	for _, c := range array {
		if c >= '0' && c <= '9' {
			n, digits = (n*10+int(c-'0'))&0xff, true
			continue
		}
		if digits {
			dst = append(dst, byte(n))
		}
		n, digits = 0, false
	}
	return dst
}

// appendJSONString appends what stands between the quotes of a JSON string. A
// broken escape is kept as it stands.
func appendJSONString(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			dst = append(dst, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			dst = append(dst, '\n')
		case 't':
			dst = append(dst, '\t')
		case 'r':
			dst = append(dst, '\r')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case '"', '\\', '/':
			dst = append(dst, s[i])
		case 'u':
			r := jsonHex(s[i+1:])
			if r < 0 {
				dst = append(dst, '\\', 'u')
				continue
			}
			i += 4
			if utf16.IsSurrogate(r) && i+2 < len(s) && s[i+1] == '\\' && s[i+2] == 'u' {
				if pair := utf16.DecodeRune(r, jsonHex(s[i+3:])); pair != utf8.RuneError {
					r = pair
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, '\\', s[i])
		}
	}
	return dst
}

// jsonHex is the value of the four hexadecimal digits that s starts with, -1
// if it does not.
func jsonHex(s []byte) rune {
	if len(s) < 4 {
		return -1
	}
	n, err := strconv.ParseUint(string(s[:4]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

func skipJSONSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipJSONString gives the index after the string that starts at b[i], -1 if
// there is none or it has no end.
func skipJSONString(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// skipJSONValue gives the index after the string, array, number or word that
// starts at b[i], -1 if there is none. A journal entry holds no object.
func skipJSONValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = skipJSONString(b, i); i < 0 {
				return -1
			}
		case '[':
			depth++
			i++
		case ']':
			depth--
			i++
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return -1
			}
			i++
			continue
		case '{', '}', ':':
			return -1
		default:
			word := i
			for i < len(b) && b[i] != ',' && b[i] != ']' && b[i] != '}' && b[i] > ' ' {
				i++
			}
			if i == word {
				return -1
			}
		}
		if depth == 0 {
			return i
		}
		if depth < 0 {
			return -1
		}
	}
	return -1
}

// unquoteJSON strips the quotes of a string; nil for anything else.
func unquoteJSON(value []byte) []byte {
	if value[0] != '"' {
		return nil
	}
	return value[1 : len(value)-1]
}
