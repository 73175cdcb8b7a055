package matcher

import (
	"bytes"
	"slices"
	"strings"

	"qwatch/internal/jsonscan"
)

// found is what one JSON object holds.
//
// A string in it can be a message of uWSGI's where its key is one for messages
// (see keyKind). Under any other key it can where the object has no message
// beside it, which would make it a quotation, and no key of a request log,
// which would make it a stranger's text. Of several dates the best wins (see
// rank), and of equals the last in the text.
type found struct {
	origin
	holds        func(value []byte) bool // whether a value is worth a closer look
	messages     [][]byte                // under a key for messages
	texts        [][]byte                // under a key for text of some kind
	others       [][]byte                // under a key that says nothing
	request      bool                    // there is a key of a request log
	otherMessage bool                    // there is a message that is not worth a look
}

// maxNested bounds objects in objects: {"jsonPayload":{"message":…}}.
const maxNested = 4

// candidates reads an object and returns the strings in it that can be
// messages of uWSGI's, the likeliest first. Only the first that is one counts:
// many encoders keep the raw text beside the message.
func (f *found) candidates(object []byte) [][]byte {
	f.object(object, 0)
	switch {
	case f.own:
		return nil
	case f.otherMessage:
		return f.messages
	case f.request:
		return append(f.messages, f.texts...)
	}
	return append(append(f.messages, f.texts...), f.others...)
}

func (f *found) object(object []byte, nested int) {
	for w := jsonscan.Walk(object); w.Next(); {
		f.field(w.Key, w.Value, nested)
	}
}

func (f *found) field(key, value []byte, nested int) {
	kind := keyKind(key)
	if kind == requestKey {
		f.request = true
		return
	}
	switch value[0] {
	case '{':
		if nested < maxNested && f.holds(value) {
			f.object(value, nested+1)
		}
	case '[':
		if kind != messageKey {
			return
		}
		if text, ok := jsonscan.AppendBytes(nil, value); ok && f.holds(text) {
			f.messages = append(f.messages, text)
		}
	case '"':
		text := jsonscan.Unquote(value)
		switch {
		case kind == timeKey:
			f.when(text)
		case f.journal(key, text):
		case !f.holds(value):
			f.otherMessage = f.otherMessage || kind == messageKey && len(text) > 0
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

// journal takes the fields of systemd.journal-fields(7) that say that qwatch
// wrote, and the keys that only its own log has. Who else wrote is not taken from
// text: _PID and _SYSTEMD_UNIT are the journal's to set, and anybody can print an
// object with these keys.
func (f *found) journal(key, text []byte) bool {
	switch string(key) {
	case "_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER", "_COMM":
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

var keyKinds = func() map[string]kind {
	kinds := map[string]kind{}
	for kind, names := range map[kind]string{
		messageKey: "msg message @message log m logmessage log_message short_message full_message textpayload",
		textKey:    "text line event body content data raw _raw original payload",
		timeKey:    "ts time timestamp @timestamp t date datetime asctime eventtime __realtime_timestamp",
		requestKey: "ua q args params form req user error err",
	} {
		for _, name := range strings.Fields(names) {
			kinds[name] = kind
		}
	}
	return kinds
}()

// requestParts are parts of the other keys for requests.
var requestParts = strings.Fields(
	"uri url path request req_ reqh query method agent refer header cookie remote client http stack trace exc_ exception")

func keyKind(key []byte) kind {
	name := string(bytes.ToLower(key))
	if kind, ok := keyKinds[name]; ok {
		return kind
	}
	if slices.ContainsFunc(requestParts, func(part string) bool { return strings.Contains(name, part) }) {
		return requestKey
	}
	return otherKey
}
