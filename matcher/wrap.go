package matcher

import (
	"bytes"
	"math"
	"regexp"
	"strings"
	"sync"
)

// origin is what is known of a record from outside of it: from the wrappers of
// its line, taken off from the outside in.
type origin struct {
	meta  Meta
	stamp stamp
	own   bool // qwatch itself wrote it
}

// note keeps the better date. Of equals the inner wins: it was written first.
func (o *origin) note(s stamp) {
	if s.rank != shapeOnly && s.rank >= o.stamp.rank {
		o.stamp = s
	}
}

// maxDepth bounds wrappers in wrappers: syslog around Docker around an
// encoder is three.
const maxDepth = 6

// place is where in a line something may stand, as a set of bits.
type place int

const (
	begin     place = 1 << iota // at the line's beginning, or behind a wrapper
	unsure                      // behind what could be prose, and is a wrapper if a date follows
	zonedDate                   // behind a moment, also one behind ctime
	ctimeDate                   // behind ctime, also with a moment in between
	otherDate
	tabbed // behind a date and a tab, in front of a JSON object
	long   // no place: a wrapper that may be longer than maxWrapper, by structured data
)

// maxWrapper bounds one wrapper, structured data aside: names of hosts, pods and
// programs are short, and what somebody prints must not cost much.
const maxWrapper = 512

// wrapperForm is what a program puts around a line that it passes on.
type wrapperForm struct {
	at place // where it may stand
	// holds stands in every such wrapper: to look for it takes a hundredth of
	// the time that line needs to find none.
	holds string
	// line has the groups tag, who wrote the line, and pid, which must be a
	// number if it is not empty.
	line  func() *regexp.Regexp
	leads place // to what follows it
	// end says how long the rest of the wrapper is, behind line, or -1: for what a
	// pattern cannot say, or takes much longer to. nil: there is no rest.
	end func(b []byte) int
}

// wrapperForms are the wrappers in front of a line. The first that fits holds.
var wrapperForms = []wrapperForm{
	// Kubernetes CRI: stream and tag.
	{zonedDate | ctimeDate | otherDate, "std", wrapper(`std(?:out|err) [FP] `), begin, nil},
	// Fluentd's files: tag.
	{tabbed, "", wrapper(`WORD_$`), begin, nil},
	// OpenWrt's logread.
	{ctimeDate, ":", wrapper(`FACILITY(?:FACILITY)??TAG(?:\[(?:WORD)?\])?:_`), begin, nil},
	// The next but one, where it cannot be the next, which takes longer.
	{zonedDate, "]:", wrapper(`IDENT\[WORD\]:_`), begin, noNumber}, // RFC 5424 has its procid there
	// RFC 5424: host, app, procid, msgid, structured data.
	{zonedDate | long, "", wrapper(`HOST_(?P<tag>WORD)_(?:-|(?P<pid>\d+))_WORD_`), begin, endOfData},
	// Syslog's files and journalctl. Heroku's pid is a word: "app[web.1]: ".
	{zonedDate | otherDate, "]:", wrapper(`IDENT\[WORD\]:_`), begin, nil},
	// The same without a pid; "user said: " would be one too.
	{zonedDate | otherDate, ":", wrapper(`IDENT(?:\[\])?:_`), unsure, nil},
	// Compose's "web-1  | ", swarm's "web.1.id@node | ", supervisor-stdout's "web stderr | ".
	{begin | unsure, "|", wrapper(`[[:alnum:]]`), begin, endOfName},
	// Syslog's priority, with the version of RFC 5424.
	{begin, "<", wrapper(`<\d{1,3}>(?:1 )?`), begin, nil},
	// kubectl's --prefix.
	{begin, "[pod/", wrapper(`\[pod/[^ "'/]*/[^ "'/]*\] `), begin, nil},
	// Syslog without a date.
	{begin, "]:", wrapper(`IDENT\[(?P<pid>WORD)\]:_`), begin, nil},
	// Stern: namespace or none, pod, container.
	{begin, "-", wrapper(`(?:WORD_)??POD_[[:alnum:]](?:WORD)?_`), unsure, nil},
}

// nameLetters are those of names of containers and pods.
const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-@"

// wrapper compiles a form. A pod's name ends in an ordinal or in five of the
// letters of k8s.io/apimachinery/pkg/util/rand, which holds no vowels: without
// that, a pod and its container could be any two words.
//
// It compiles when it is asked for first: all of them would be a tenth of what
// qwatch takes to start.
func wrapper(form string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp {
		for _, part := range [][2]string{
			{"IDENT", `(?:FACILITY)??(?:HOST_(?:FACILITY)??)?TAG`}, // busybox writes the facility
			{"FACILITY", `[^ \t.:\[\]"]+\.(?:emerg|alert|crit|err|warn|warning|notice|info|debug)_`},
			{"HOST", `[^ \t"'=?,;|\[\]]*[^ \t"'=?,;|\[\]:]`},
			{"TAG", `(?P<tag>[^ \t"'=:?,;|\[\]]+)`},
			{"POD", `NAME-(?:\d+|[bcdfghjklmnpqrstvwxz2456789]{5})`},
			{"NAME", `[[:alnum:]][\w.@-]*`},
			{"WORD", `[^ \t]+`},
			{"_", `[ \t]+`},
		} {
			form = strings.ReplaceAll(form, part[0], part[1])
		}
		return regexp.MustCompile(`^(?s:` + form + `)`)
	})
}

// unwrap says whether p, all that stands in front of a record or a JSON
// object, is wrappers and dates and nothing else, and notes what they say.
func (o *origin) unwrap(p []byte, json bool) bool {
	if len(p) > maxPrefix {
		return false
	}
	for at := begin; at != 0; {
		p = bytes.TrimPrefix(blanks(p), []byte("\ufeff"))
		if json && at&unsure != 0 { // an object is no prose
			at = at&^unsure | begin
		}
		if len(p) == 0 {
			return !o.own && at&unsure == 0
		}
		if s, rest, ok := date(p, o.meta); ok {
			o.note(s)
			at = behind(s, at, rest, json)
			if p, ok = bytes.CutPrefix(rest, []byte(" - ")); ok {
				at = begin
			}
			continue
		}
		p, at = o.wrapped(p, at)
	}
	return false
}

// behind is the place behind a date. Docker's and kubectl's --timestamps, and
// exports of CloudWatch, put a moment or a tab in front of a record. Any other
// date is uWSGI's, and that ends in " - ".
func behind(s stamp, before place, rest []byte, json bool) place {
	at := otherDate | unsure
	switch {
	case s.rank == zoned:
		at = zonedDate | before&ctimeDate | begin
	case s.rank == ctime:
		at = ctimeDate | unsure
	}
	if bytes.HasPrefix(rest, []byte("\t")) {
		at = at&^unsure | begin
		if json {
			at |= tabbed
		}
	}
	return at
}

// wrapped takes one wrapper off the front of p, and returns the place behind
// it; none if there is no wrapper.
func (o *origin) wrapped(p []byte, at place) (rest []byte, next place) {
	for _, w := range wrapperForms {
		if w.at&at == 0 || !bytes.Contains(p, []byte(w.holds)) {
			continue
		}
		text := p
		if w.at&long == 0 {
			text = p[:min(len(p), maxWrapper)]
		}
		line := w.line()
		m := line.FindSubmatchIndex(text)
		if m == nil {
			continue
		}
		// The pid is not kept: it may be of another host or another pid
		// namespace, or anybody's invention.
		if pid := group(line, "pid", p, m); pid != nil && number(pid) < 0 {
			continue
		}
		end := m[1]
		if w.end != nil {
			n := w.end(text[end:])
			if n < 0 {
				continue
			}
			end += n
		}
		tag := group(line, "tag", p, m)
		o.own = o.own || own(string(tag[bytes.LastIndexByte(tag, '/')+1:]))
		return p[end:], w.leads
	}
	return nil, 0
}

// noNumber is an end of no length, but none in front of a number or "-".
func noNumber(b []byte) int {
	if len(b) == 0 || strings.IndexByte("-0123456789", b[0]) >= 0 {
		return -1
	}
	return 0
}

// endOfData is the end of "- " or of structured data, [id name="value"][id].
func endOfData(b []byte) int {
	if bytes.HasPrefix(b, []byte("- ")) {
		return len("- ")
	}
	quoted := false
	for i := 0; i+1 < len(b) && b[0] == '['; i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ']' && !quoted && b[i+1] != '[':
			if b[i+1] != ' ' && b[i+1] != '\t' {
				return -1
			}
			return i + 1
		}
	}
	return -1
}

// endOfName is the end of a name, stream or padding, and a bar.
func endOfName(b []byte) int {
	i := 0
	for i < len(b) && strings.IndexByte(nameLetters, b[i]) >= 0 {
		i++
	}
	if bytes.HasPrefix(b[i:], []byte(" stdout |")) || bytes.HasPrefix(b[i:], []byte(" stderr |")) {
		i += len(" stdout ")
	} else {
		i = len(b) - len(blanks(b[i:]))
	}
	if i == len(b) || b[i] != '|' || i+1 < len(b) && b[i+1] != ' ' {
		return -1
	}
	return i + 1
}

// group is what a named group of a match holds, nil where there is none.
func group(line *regexp.Regexp, name string, text []byte, match []int) []byte {
	i := line.SubexpIndex(name)
	if i < 0 || match[2*i] < 0 {
		return nil
	}
	return text[match[2*i]:match[2*i+1]]
}

// withoutColour removes the escape sequences with which compose and stern
// colour their prefixes.
func withoutColour(b []byte) []byte {
	const escape = "\x1b["
	var plain []byte
	for i := bytes.Index(b, []byte(escape)); i >= 0; i = bytes.Index(b, []byte(escape)) {
		plain = append(plain, b[:i]...)
		end := bytes.TrimLeft(b[i+len(escape):], "0123456789;")
		if len(end) > 0 && (end[0] == 'm' || end[0] == 'K') {
			b = end[1:]
			continue
		}
		plain, b = append(plain, escape...), b[i+len(escape):]
	}
	if plain == nil {
		return b
	}
	return append(plain, b...)
}

// millis says whether text is 13 digits, a time since 1970.
func millis(text []byte) bool {
	n := 0
	return len(text) == 13 && (&moment{text: text}).number(&n, 13, 13, 0, math.MaxInt)
}

// cloudwatch takes off what `aws logs get-log-events --output text` puts
// around a line: "EVENTS", a time before and a time behind, between tabs.
func cloudwatch(b []byte) []byte {
	rest, ok := bytes.CutPrefix(b, []byte("EVENTS\t"))
	before, line, tab := bytes.Cut(rest, []byte("\t"))
	if !ok || !tab || !millis(before) {
		return b
	}
	line = bytes.TrimRight(line, "\r")
	if i := bytes.LastIndexByte(line, '\t'); i >= 0 && millis(line[i+1:]) {
		line = line[:i]
	}
	return line
}
