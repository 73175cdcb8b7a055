package matcher

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// objects returns the records of the JSON objects that b holds one after the
// other. uWSGI's JSON encoder without `nl` writes all of them on one line.
//
// A string in an object counts where the whole of it is records behind
// wrappers, and its key is one for messages (see keyKind). Under any other key
// it counts where the object has no message beside it, which would make it a
// quotation, and no key of a request log, which would make it a stranger's
// text. One object counts once: many encoders keep the raw text as well.
func (o origin) objects(b []byte, depth int) []Hit {
	var hits []Hit
	for len(b) > 0 {
		end := skip(b)
		if end < 0 {
			break
		}
		if obj := b[:end]; mayHold(obj) {
			f := found{origin: o}
			f.object(obj, depth, 0)
			hits = append(hits, f.result()...)
		}
		b = bytes.TrimLeft(b[end:], " \t\r,")
		if len(b) > 0 && b[0] != '{' {
			break
		}
	}
	return hits
}

func mayHold(b []byte) bool { return next(b, true) >= 0 }

// found is what one object told.
type found struct {
	origin
	messages [][]byte // under a key for messages
	texts    [][]byte // under a key for text of some kind
	others   [][]byte // under a key that says nothing
	request  bool     // there is a key of a request log
	said     bool     // there is another message
	depth    int
}

// maxNested bounds objects in objects: {"jsonPayload":{"message":…}}.
const maxNested = 4

func (f *found) result() []Hit {
	if f.own || own(f.unit) {
		return nil
	}
	candidates := f.messages
	if !f.said {
		candidates = append(candidates, f.texts...)
	}
	if !f.said && !f.request {
		candidates = append(candidates, f.others...)
	}
	for _, text := range candidates {
		if hits := f.message(text); hits != nil {
			return hits
		}
	}
	return nil
}

// message returns the records of a message if each of its lines is nothing
// else. uWSGI writes a record by itself; a record among other lines of one
// message is a quotation.
func (f *found) message(text []byte) []Hit {
	var hits []Hit
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		h := f.hits(line, f.depth+1)
		if h == nil {
			return nil
		}
		hits = append(hits, h...)
	}
	return hits
}

// object reads the fields of one well-formed object.
func (f *found) object(b []byte, depth, nested int) {
	f.depth = depth
	b = b[1:]
	for {
		b = bytes.TrimLeft(b, " \t\r\n,")
		if len(b) == 0 || b[0] != '"' {
			return
		}
		end := skip(b)
		if end < 0 {
			return
		}
		key := b[1 : end-1]
		b = bytes.TrimLeft(b[end:], " \t\r\n:")
		if end = skip(b); end <= 0 {
			return
		}
		f.field(key, b[:end], depth, nested)
		b = b[end:]
	}
}

func (f *found) field(key, value []byte, depth, nested int) {
	kind := keyKind(key)
	if kind == requestKey {
		f.request = true
		return
	}
	switch value[0] {
	case '{':
		if nested < maxNested && mayHold(value) {
			f.object(value, depth, nested+1)
		}
	case '[':
		if kind == messageKey {
			if text, ok := byteValues(value); ok {
				f.messages = append(f.messages, text)
			}
		}
	case '"':
		text := unquote(value[1 : len(value)-1])
		switch {
		case kind == timeKey:
			f.when(text)
		case f.journal(key, text):
		case !bytes.Contains(value, []byte(needle)):
			f.said = f.said || kind == messageKey && len(text) > 0
		case kind == messageKey:
			f.messages = append(f.messages, text)
		case kind == textKey:
			f.texts = append(f.texts, text)
		default:
			f.others = append(f.others, text)
		}
	default:
		if kind == timeKey {
			f.when(value)
		}
	}
}

func (f *found) when(text []byte) {
	if s, rest, ok := date(bytes.TrimSpace(text), f.meta); ok && len(rest) == 0 {
		f.note(s)
	}
}

// journal takes the fields of systemd.journal-fields(7) that say who wrote,
// and the keys that only qwatch's own log has.
func (f *found) journal(key, text []byte) bool {
	switch string(key) {
	case "_PID":
		if n := number(text); n > 0 {
			f.pid = n
		}
	case "_SYSTEMD_UNIT":
		f.unit = string(text)
	case "SYSLOG_IDENTIFIER", "_COMM":
		f.own = f.own || own(string(text))
	case "incident", "plan":
		f.own = true
	default:
		return false
	}
	return true
}

type kind int

const (
	otherKey kind = iota
	messageKey
	textKey
	timeKey
	requestKey // a stranger chose the value, or it quotes an error
)

func keyKind(key []byte) kind {
	name := string(bytes.ToLower(key))
	switch name {
	case "msg", "message", "@message", "log", "m", "logmessage", "log_message",
		"short_message", "full_message", "textpayload":
		return messageKey
	case "text", "line", "event", "body", "content", "data", "raw", "_raw", "original", "payload":
		return textKey
	case "ts", "time", "timestamp", "@timestamp", "t", "date", "datetime", "asctime", "eventtime",
		"__realtime_timestamp":
		return timeKey
	case "ua", "q", "args", "params", "form", "req", "user", "error", "err":
		return requestKey
	}
	for _, part := range []string{
		"uri", "url", "path", "request", "req_", "reqh", "query", "method", "agent", "refer", "header", "cookie",
		"remote", "client", "http", "stack", "trace", "exc_", "exception",
	} {
		if strings.Contains(name, part) {
			return requestKey
		}
	}
	return otherKey
}

// skip returns the length of the JSON value at b's start, -1 if it has no
// end. It trusts that brackets pair up: only strings and depth matter.
func skip(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := quoted(b[i:])
			if n < 0 {
				return -1
			}
			i += n - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i // the end of the object around a bare value
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return -1
}

// quoted returns the length of the string at b's start, with its quotes.
func quoted(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// unquote is what a JSON string means; b is between its quotes. A wrong
// escape stands as it is.
func unquote(b []byte) []byte {
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return b
	}
	out := make([]byte, i, len(b))
	copy(out, b)
	for ; i < len(b); i++ {
		if b[i] != '\\' || i+1 == len(b) {
			out = append(out, b[i])
			continue
		}
		i++
		switch c := b[i]; c {
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			c1 := hex(b[i+1:])
			if c1 < 0 {
				out = append(out, '\\', 'u')
				continue
			}
			i += 4
			if utf16.IsSurrogate(c1) && i+2 < len(b) && b[i+1] == '\\' && b[i+2] == 'u' {
				if c2 := hex(b[i+3:]); c2 >= 0 {
					c1 = utf16.DecodeRune(c1, c2)
					i += 6
				}
			}
			out = utf8.AppendRune(out, c1)
		default: // a quote, a backslash, a slash
			out = append(out, c)
		}
	}
	return out
}

func hex(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// byteValues is what the journal's array of numbers means.
func byteValues(b []byte) ([]byte, bool) {
	var out []byte
	for f := range bytes.FieldsFuncSeq(b, func(r rune) bool { return r == '[' || r == ']' || r == ',' || r == ' ' }) {
		n, err := strconv.ParseUint(string(f), 10, 8)
		if err != nil {
			return nil, false
		}
		out = append(out, byte(n))
	}
	return out, bytes.Contains(out, []byte(needle))
}
