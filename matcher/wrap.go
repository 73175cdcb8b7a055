package matcher

import (
	"bytes"
	"slices"
	"strings"
)

// origin is what the wrappers of a line, taken off from the outside in, have
// told about its record.
type origin struct {
	meta  Meta
	stamp stamp
	pid   int
	unit  string
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

// hits returns the records of one line or of one message inside a wrapper.
func (o origin) hits(b []byte, depth int) []Hit {
	if depth > maxDepth {
		return nil
	}
	b = cloudwatch(withoutColour(b))
	star := bytes.Index(b, []byte(stars))
	brace := bytes.IndexByte(b, '{')
	switch {
	case brace >= 0 && (star < 0 || brace < star):
		if !o.unwrap(b[:brace], beforeJSON) {
			return nil
		}
		return o.objects(b[brace:], depth)
	case star >= 0 && o.unwrap(b[:star], beforeRecord):
		return o.records(b[star:])
	}
	return nil
}

// withoutColour removes the escape sequences with which compose and stern
// colour their prefixes.
func withoutColour(b []byte) []byte {
	i := bytes.IndexByte(b, 0x1b)
	if i < 0 {
		return b
	}
	plain := slices.Clone(b[:i])
	for b = b[i:]; len(b) > 0; {
		if bytes.HasPrefix(b, []byte("\x1b[")) {
			n := 2
			for n < len(b) && (b[n] >= '0' && b[n] <= '9' || b[n] == ';') {
				n++
			}
			if n < len(b) && (b[n] == 'm' || b[n] == 'K') {
				b = b[n+1:]
				continue
			}
		}
		n := bytes.IndexByte(b[1:], 0x1b) + 1
		if n == 0 {
			n = len(b)
		}
		plain = append(plain, b[:n]...)
		b = b[n:]
	}
	return plain
}

// what follows a prefix
const (
	beforeRecord = iota
	beforeJSON
)

// unwrap says whether p, all that stands in front of a record or a JSON
// object, is wrappers and dates and nothing else, and notes what they tell.
func (o *origin) unwrap(p []byte, what int) bool {
	if len(p) > maxPrefix {
		return false
	}
	r := reader{p}
	// open: the last element was a date without " - ", or words that are a
	// wrapper only in front of a date.
	open := false
	for {
		r.blanks()
		r.literal("\ufeff")
		if len(r.b) == 0 {
			return !o.own && (!open || what == beforeJSON)
		}
		if s, rest, ok := date(r.b, o.meta); ok {
			o.note(s)
			r.b = rest
			tab := r.peek() == '\t'
			if r.literal(" - ") {
				open = false
				continue
			}
			if ok, open = o.afterDate(&r, s, what); !ok {
				// Docker's and kubectl's --timestamps, and exports of
				// CloudWatch, put a moment in front. Any other date is
				// uWSGI's, and that ends in " - ".
				open = s.rank != zoned && !tab
			}
			continue
		}
		switch {
		case r.compose():
			open = false
		case open && what == beforeRecord:
			return false
		case r.priority(), r.pod():
		case o.identPID(&r):
		case r.stern():
			open = true
		default:
			return false
		}
	}
}

func (r *reader) literal(s string) bool {
	rest, ok := bytes.CutPrefix(r.b, []byte(s))
	if ok {
		r.b = rest
	}
	return ok
}

// word takes what stands before the next blank, and the blanks.
func (r *reader) word() (string, bool) {
	i := bytes.IndexAny(r.b, " \t")
	if i <= 0 {
		return "", false
	}
	w := string(r.b[:i])
	r.b = r.b[i:]
	r.blanks()
	return w, true
}

// priority takes syslog's "<30>", and the version behind it in RFC 5424.
func (r *reader) priority() bool {
	t := *r
	if !t.any("<") {
		return false
	}
	if _, ok := t.digits(1, 3); !ok || !t.any(">") {
		return false
	}
	t.literal("1 ")
	*r = t
	return true
}

// afterDate takes the rest of a wrapper that begins with a date. It is open
// where it could be prose, and must be followed by a date.
func (o *origin) afterDate(r *reader, s stamp, what int) (ok, open bool) {
	t := *r
	if !t.blanks() {
		return false, false
	}
	// Kubernetes CRI: stream and tag.
	for _, s := range []string{"stderr F ", "stdout F ", "stderr P ", "stdout P "} {
		if t.literal(s) {
			*r = t
			return true, false
		}
	}
	// Fluentd's files: time, tag, JSON, between tabs.
	if u := t; what == beforeJSON && r.peek() == '\t' {
		if _, ok := u.word(); ok && len(u.b) == 0 {
			*r = u
			return true, false
		}
	}
	if s.rank == ctime {
		// OpenWrt's logread; a moment in brackets may stand in between.
		if m, rest, ok := date(t.b, o.meta); ok && m.rank == zoned {
			t.b = rest
			t.blanks()
			o.note(m)
		}
		if !t.facility() {
			return false, false
		}
		_, ok := o.ident(&t, 0)
		if ok {
			*r = t
		}
		return ok, false
	}
	if _, _, ok := date(t.b, o.meta); ok {
		return false, false // two dates: the second begins the next wrapper
	}
	if s.rank == zoned && o.rfc5424(&t) {
		*r = t
		return true, false
	}
	// Syslog files and journalctl: host, ident, pid. Without the pid it may
	// be prose: "user said: ".
	pid, ok := o.ident(&t, 1)
	if ok {
		*r = t
	}
	return ok, pid == ""
}

// facility takes "daemon.info " and the like.
func (r *reader) facility() bool {
	t := *r
	w, ok := t.word()
	f, level, dot := bytes.Cut([]byte(w), []byte("."))
	if !ok || !dot || len(f) == 0 || bytes.ContainsAny(f, `:[]"`) {
		return false
	}
	switch string(level) {
	case "emerg", "alert", "crit", "err", "warn", "warning", "notice", "info", "debug":
		*r = t
		return true
	}
	return false
}

// identPID takes "host ident[123]: " and "ident[123]: ", without a date in
// front.
func (o *origin) identPID(r *reader) bool {
	t, u := *r, *o
	pid, ok := u.ident(&t, 1)
	if !ok || number(pid) < 0 {
		return false
	}
	*r, *o = t, u
	return true
}

// ident takes "host ident[pid]: ", with at most so many hosts in front, and
// busybox's facility behind the host. The pid can be missing or, as Heroku's
// "app[web.1]", a word.
func (o *origin) ident(r *reader, hosts int) (pid string, ok bool) {
	t := *r
	for range hosts + 1 {
		t.facility()
		w, ok := t.word()
		if !ok {
			return "", false
		}
		name, last := strings.CutSuffix(w, ":")
		if !last {
			if strings.ContainsAny(w, `"'=?,;|[]`) {
				return "", false
			}
			continue
		}
		tag, pid, bracket := strings.Cut(name, "[")
		pid, closed := strings.CutSuffix(pid, "]")
		if tag == "" || strings.ContainsAny(tag, `"'=:?,;|]`) || bracket != closed {
			return "", false
		}
		*r = t
		o.wrote(tag)
		return pid, true
	}
	return "", false
}

// wrote notes the name of who wrote the line. The pid beside it is not taken:
// it may be of another host or another pid namespace. The journal's is.
func (o *origin) wrote(tag string) {
	o.own = o.own || own(tag[strings.LastIndexByte(tag, '/')+1:])
}

// rfc5424 takes host, app, procid, msgid and structured data. rsyslog's file
// template has no priority and version in front.
func (o *origin) rfc5424(r *reader) bool {
	t := *r
	var f [4]string
	for i := range f {
		w, ok := t.word()
		if !ok {
			return false
		}
		f[i] = w
	}
	if f[2] != "-" && number(f[2]) < 0 {
		return false
	}
	switch {
	case t.literal("- "):
	case t.peek() == '[':
		for t.peek() == '[' {
			if !t.element() {
				return false
			}
		}
		if !t.blanks() {
			return false
		}
	default:
		return false
	}
	*r = t
	o.wrote(f[1])
	return true
}

// element takes one "[id name="value"]"; a backslash escapes in the value.
func (r *reader) element() bool {
	quoted := false
	for i := 1; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ']' && !quoted:
			r.b = r.b[i+1:]
			return true
		}
	}
	return false
}

// cloudwatch takes off what `aws logs get-log-events --output text` puts
// around a line: "EVENTS", a time before and a time behind, between tabs.
func cloudwatch(b []byte) []byte {
	r := reader{b}
	if !r.literal("EVENTS\t") {
		return b
	}
	if _, ok := r.digits(13, 13); !ok || !r.any("\t") {
		return b
	}
	line := bytes.TrimRight(r.b, "\r")
	if end := len(line) - len("\t1795355174123"); end >= 0 && line[end] == '\t' && since(line[end+1:]) {
		line = line[:end]
	}
	return line
}

func since(b []byte) bool {
	r := reader{b}
	_, ok := r.digits(13, 13)
	return ok && len(r.b) == 0
}

// pod takes kubectl's --prefix, "[pod/web-0/app] ".
func (r *reader) pod() bool {
	rest, ok := bytes.CutPrefix(r.b, []byte("[pod/"))
	if !ok {
		return false
	}
	name, rest, ok := bytes.Cut(rest, []byte("] "))
	if !ok || bytes.ContainsAny(name, ` "'`) || bytes.Count(name, []byte("/")) != 1 {
		return false
	}
	r.b = rest
	return true
}

// compose takes "web-1  | ", as swarm's "web.1.id@node | ", and supervisor-stdout's "web stderr | ".
func (r *reader) compose() bool {
	t := *r
	if !t.dnsName() {
		return false
	}
	if u := t; u.literal(" stdout |") || u.literal(" stderr |") {
		t = u
	} else {
		t.blanks()
		if !t.any("|") {
			return false
		}
	}
	if len(t.b) > 0 && !t.any(" ") {
		return false
	}
	*r = t
	return true
}

// stern takes "pod container ", with a namespace in front or without.
func (r *reader) stern() bool {
	t := *r
	var words [2]string
	for i := range words {
		words[i], _ = t.word()
	}
	if !podName(words[0]) {
		words[0] = words[1]
		words[1], _ = t.word()
	}
	if !podName(words[0]) || !(&reader{[]byte(words[1])}).dnsName() {
		return false
	}
	*r = t
	return true
}

// podName says whether a controller made the name: it ends in an ordinal or
// in five of the letters of k8s.io/apimachinery/pkg/util/rand, which holds no
// vowels. Without that, "pod container " could be any two words.
func podName(name string) bool {
	r := reader{[]byte(name)}
	i := strings.LastIndexByte(name, '-')
	if i < 0 || !r.dnsName() || len(r.b) > 0 {
		return false
	}
	suffix := name[i+1:]
	if strings.Trim(suffix, "0123456789") == "" {
		return suffix != ""
	}
	return len(suffix) == 5 && strings.Trim(suffix, "bcdfghjklmnpqrstvwxz2456789") == ""
}

func (r *reader) dnsName() bool {
	i := 0
	for i < len(r.b) {
		c := r.b[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-' && c != '@') {
			break
		}
		i++
	}
	r.b = r.b[i:]
	return i > 0
}
