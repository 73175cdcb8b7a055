package matcher

import (
	"bytes"
	"strings"
	"time"
)

// rank orders what a date in the text is worth, the best last.
type rank int

const (
	shapeOnly rank = iota // a date by its looks, but no moment can be made of it
	noYear                // syslog RFC 3164
	naive                 // a year but no zone
	ctime                 // without a zone too, but put there by uWSGI itself
	zoned                 // a moment
)

type stamp struct {
	rank rank
	time time.Time
}

// reader takes shapes off the front of b. A method that fails leaves b as it
// was, unless it says otherwise.
type reader struct{ b []byte }

func (r *reader) peek() byte {
	if len(r.b) == 0 {
		return 0
	}
	return r.b[0]
}

func (r *reader) any(set string) bool {
	if len(r.b) == 0 || bytes.IndexByte([]byte(set), r.b[0]) < 0 {
		return false
	}
	r.b = r.b[1:]
	return true
}

func (r *reader) blanks() bool {
	n := len(r.b)
	r.b = bytes.TrimLeft(r.b, " \t")
	return len(r.b) < n
}

// ends says whether a word ends here.
func (r *reader) ends() bool {
	return len(r.b) == 0 || bytes.IndexByte([]byte(" \t])>"), r.b[0]) >= 0
}

// digits takes all digits that stand here, if they are lo to hi.
func (r *reader) digits(lo, hi int) (n int, ok bool) {
	i := 0
	for i < len(r.b) && i <= hi && r.b[i] >= '0' && r.b[i] <= '9' {
		n = n*10 + int(r.b[i]-'0')
		i++
	}
	if i < lo || i > hi {
		return 0, false
	}
	r.b = r.b[i:]
	return n, true
}

// name takes a name or its first three letters.
func (r *reader) name(name string) bool {
	for _, n := range []int{len(name), 3} {
		if len(r.b) >= n && strings.EqualFold(string(r.b[:n]), name[:n]) {
			r.b = r.b[n:]
			return true
		}
	}
	return false
}

func (r *reader) weekday() bool {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if r.name(d.String()) {
			return true
		}
	}
	return false
}

func (r *reader) month() (int, bool) {
	for m := time.January; m <= time.December; m++ {
		if r.name(m.String()) {
			return int(m), true
		}
	}
	return 0, false
}

// moment is a date being read.
type moment struct {
	year, month, day         int
	hour, minute, sec, nanos int
	hasClock, hasDate        bool
	zone                     *time.Location
	ctime                    bool
}

// date takes a date off the front of b, in brackets or not. Which shapes: see
// the table in date_test.go. A shape is enough: what it means can be unknown,
// as with 03/04/2026.
func date(b []byte, meta Meta) (s stamp, rest []byte, ok bool) {
	r := reader{b}
	closing := ""
	if i := strings.IndexByte("[(<", r.peek()); i >= 0 && r.any("[(<") {
		closing = "])>"[i : i+1]
	}
	r.blanks()
	if s, ok = epoch(&r, closing != ""); !ok {
		var m moment
		if !m.read(&r) {
			return s, b, false
		}
		s = m.stamp(meta)
	}
	if closing != "" && !r.any(closing) {
		return s, b, false
	}
	if c := r.peek(); c != 0 && c != ' ' && c != '\t' {
		return s, b, false
	}
	return s, r.b, true
}

// epoch takes seconds since 1970, with a fraction or in a smaller unit; in
// brackets also the kernel's seconds since boot.
func epoch(r *reader, bracketed bool) (stamp, bool) {
	i := 0
	for i < len(r.b) && i < 20 && r.b[i] >= '0' && r.b[i] <= '9' {
		i++
	}
	t := reader{r.b}
	n, ok := t.digits(1, 19)
	if !ok {
		return stamp{}, false
	}
	nanos, fraction := t.fraction(".")
	switch {
	case n < 0:
		return stamp{}, false
	case i == 10 || !fraction && (i == 13 || i == 16 || i == 19):
		r.b = t.b
		return stamp{zoned, since1970(n, i).Add(time.Duration(nanos))}, true
	case bracketed && fraction && i < 10:
		r.b = t.b
		return stamp{}, true
	}
	return stamp{}, false
}

// since1970 takes the unit of n from its number of digits, which is right for
// the years 2001 to 2286.
func since1970(n, digits int) time.Time {
	switch {
	case digits <= 10:
		return time.Unix(int64(n), 0)
	case digits <= 13:
		return time.UnixMilli(int64(n))
	case digits <= 16:
		return time.UnixMicro(int64(n))
	}
	return time.Unix(0, int64(n))
}

// read takes a date, a clock time, or both. It may leave r anywhere when it
// fails.
func (m *moment) read(r *reader) bool {
	weekday := r.weekday()
	if weekday {
		r.any(",")
		if !r.blanks() {
			return false
		}
	}
	if mon, ok := r.month(); ok {
		return m.monthFirst(r, mon, weekday)
	}
	if !weekday && m.clock(r) {
		m.meridiem(r)
		return true
	}
	if !m.calendar(r, weekday) {
		return false
	}
	if !m.hasClock {
		m.clockAfterDate(r)
	}
	return true
}

// monthFirst goes on after the month of ctime(3), date(1) and RFC 3164.
func (m *moment) monthFirst(r *reader, mon int, weekday bool) (ok bool) {
	m.month, m.hasDate = mon, true
	if !r.blanks() {
		return false
	}
	if m.day, ok = r.digits(1, 2); !ok {
		return false
	}
	return m.clockThenYear(r, weekday)
}

// clockThenYear goes on after month and day. The year stands in front of the
// clock, behind it, or nowhere.
func (m *moment) clockThenYear(r *reader, weekday bool) (ok bool) {
	r.any(",")
	if !r.blanks() {
		return false
	}
	if m.year, ok = r.digits(4, 4); ok && !r.blanks() {
		return false
	}
	if !m.clock(r) {
		return false
	}
	m.meridiem(r)
	if m.year != 0 {
		m.takeZone(r)
		return true
	}
	t := *r
	if t.blanks() {
		zone := *m
		if u := t; zone.takeNamed(&u) || zone.offset(&u) {
			if u.blanks() {
				t = u
			}
		}
		if y, ok := t.digits(4, 4); ok && y >= 1970 && t.ends() {
			m.year, m.zone, *r = y, zone.zone, t
			m.ctime = weekday
		}
	}
	return true
}

// calendar takes year, month and day in any usual order.
func (m *moment) calendar(r *reader, weekday bool) bool {
	m.hasDate = true
	start := *r
	if y, ok := r.digits(8, 8); ok { // 20261122
		m.year, m.month, m.day = y/10000, y/100%100, y%100
		return m.plausible()
	}
	if y, ok := r.digits(4, 4); ok { // 2026-11-22, 2026-Nov-22
		sep := r.peek()
		if !r.any("-/.") {
			return false
		}
		if m.month, ok = r.month(); !ok {
			if m.month, ok = r.digits(1, 2); !ok {
				return false
			}
		}
		if !r.any(string(sep)) {
			return false
		}
		m.day, ok = r.digits(1, 2)
		m.year = y
		return ok && m.plausible()
	}
	*r = start
	a, ok := r.digits(1, 2)
	sep := r.peek()
	if !ok || !r.any("-/. ") {
		return false
	}
	if m.month, ok = r.month(); ok { // 22/Nov/2026
		m.day = a
		if sep == ' ' {
			return m.clockThenYear(r, weekday)
		}
		if !r.any(string(sep)) {
			return false
		}
		if m.year, ok = r.digits(4, 4); !ok {
			m.year, ok = r.digits(2, 2)
			m.year += 2000
		}
		return ok && m.plausible()
	}
	if sep == ' ' {
		return false
	}
	b, ok := r.digits(1, 2) // 22.11.2026, 11/22/2026
	if !ok || !r.any(string(sep)) {
		return false
	}
	if m.year, ok = r.digits(4, 4); !ok {
		if m.year, ok = r.digits(2, 2); !ok {
			return false
		}
		m.year += 2000
	}
	switch {
	case a > 12 || sep != '/':
		m.day, m.month = a, b
	case b > 12:
		m.month, m.day = a, b
	default: // day or month first: who knows
		m.hasDate = false
		return a >= 1 && b >= 1
	}
	return m.plausible()
}

func (m *moment) plausible() bool {
	return m.month >= 1 && m.month <= 12 && m.day >= 1 && m.day <= 31 && m.year >= 1970
}

// clockAfterDate takes the clock and zone that may follow a calendar date.
func (m *moment) clockAfterDate(r *reader) {
	t := *r
	if t.any("Tt:_-") || t.blanks() {
		if m.clock(&t) {
			*r = t
			m.meridiem(r)
			m.takeZone(r)
		}
	}
}

// clock takes hh:mm, hh:mm:ss or hhmmss, with a fraction or without.
func (m *moment) clock(r *reader) bool {
	t := *r
	if hms, ok := t.digits(6, 6); ok {
		m.hour, m.minute, m.sec = hms/10000, hms/100%100, hms%100
		m.nanos, _ = t.fraction(".,")
	} else {
		if m.hour, ok = t.digits(1, 2); !ok || !t.any(":") {
			return false
		}
		if m.minute, ok = t.digits(2, 2); !ok {
			return false
		}
		if u := t; u.any(":") {
			if m.sec, ok = u.digits(2, 2); !ok {
				return false
			}
			m.nanos, _ = u.fraction(".,")
			t = u
		}
	}
	if m.hour > 23 || m.minute > 59 || m.sec > 60 {
		return false
	}
	*r, m.hasClock = t, true
	return true
}

func (r *reader) fraction(point string) (nanos int, ok bool) {
	t := *r
	if !t.any(point) {
		return 0, false
	}
	i := 0
	for ; i < len(t.b) && i < 9 && t.b[i] >= '0' && t.b[i] <= '9'; i++ {
		nanos = nanos*10 + int(t.b[i]-'0')
	}
	if i == 0 {
		return 0, false
	}
	t.b = t.b[i:]
	for ; i < 9; i++ {
		nanos *= 10
	}
	*r = t
	return nanos, true
}

func (m *moment) meridiem(r *reader) {
	t := *r
	if m.hour > 12 || !t.blanks() || len(t.b) < 2 || len(t.b) > 2 && t.b[2] != ' ' {
		return
	}
	switch string(bytes.ToUpper(t.b[:2])) {
	case "AM":
		m.hour %= 12
	case "PM":
		m.hour = m.hour%12 + 12
	default:
		return
	}
	t.b = t.b[2:]
	*r = t
}

// takeZone takes an offset or a zone's name, right here or after one blank.
func (m *moment) takeZone(r *reader) {
	t := *r
	t.any(" ")
	if m.takeNamed(&t) {
		*r = t
	} else if m.offset(&t) {
		*r = t
		if t.any(" ") && m.takeNamed(&t) { // "+0100 CET"
			*r = t
		}
	}
}

func (m *moment) offset(r *reader) bool {
	t := *r
	sign := 1
	if t.peek() == '-' {
		sign = -1
	}
	if !t.any("+-") {
		return false
	}
	h, ok := t.digits(2, 2)
	mins := 0
	if ok {
		if u := t; u.any(":") {
			if mins, ok = u.digits(2, 2); ok {
				t = u
			}
		}
	} else if h, ok = t.digits(4, 4); ok {
		h, mins = h/100, h%100
	}
	if !ok || h > 14 || mins > 59 {
		return false
	}
	if !t.ends() {
		return false
	}
	m.zone = time.UTC
	if h|mins != 0 {
		m.zone = time.FixedZone("", sign*(h*3600+mins*60))
	}
	*r = t
	return true
}

// takeNamed takes a zone's name. Only UTC's names mean the same everywhere;
// behind any other the date stays one without a zone.
func (m *moment) takeNamed(r *reader) bool {
	i := 0
	for i < len(r.b) && r.b[i] >= 'A' && r.b[i] <= 'Z' {
		i++
	}
	if i == 0 || i > 5 || !(&reader{r.b[i:]}).ends() {
		return false
	}
	switch string(r.b[:i]) {
	case "Z", "UTC", "GMT":
		m.zone = time.UTC
	default:
		if i < 3 {
			return false
		}
	}
	r.b = r.b[i:]
	return true
}

func (m *moment) stamp(meta Meta) stamp {
	if !m.hasDate || !m.hasClock {
		return stamp{}
	}
	s := stamp{rank: naive}
	loc := meta.Location
	switch {
	case m.zone != nil:
		loc, s.rank = m.zone, zoned
	case m.ctime:
		s.rank = ctime
	case m.year == 0:
		s.rank = noYear
	}
	if loc == nil {
		loc = time.Local
	}
	year := m.year
	if year == 0 {
		if meta.Read.IsZero() {
			return stamp{}
		}
		year = meta.Read.In(loc).Year()
	}
	at := func(year int) time.Time {
		return time.Date(year, time.Month(m.month), m.day, m.hour, m.minute, m.sec, m.nanos, loc)
	}
	s.time = at(year)
	// A log cannot be from the future; a day is left to zones and clocks.
	if m.year == 0 && s.time.After(meta.Read.Add(24*time.Hour)) {
		s.time = at(year - 1)
	}
	return s
}
