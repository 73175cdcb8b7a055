package matcher

import (
	"math"
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

// dateForms says what a date ('*') and its parts look like. Of a row the first
// form that fits holds, whatever follows; likely forms come early. With "?"
// behind it, an element may be missing. An element is another row or one of
// these; all else stands for itself:
//
//	w weekday, b month by name, n by number, d day, Y year, c without its century, D all three
//	H hour, M minute, S second, x all three, f fraction, F behind a point only, P AM or PM
//	N zone by name, + sign of an offset, h its hours, q its minutes, k both
//	0 3 6 9 seconds since 1970 with so many decimal places, u seconds since boot
//	- separator of a date, i between date and time, _ blanks
//	# a digit follows, ! no colon does, $ end of a word
var dateForms = [256][]string{
	'*': {"#E", "w,?_C", "b_d,?_A"}, // begins with a digit, a weekday, a month
	'E': {
		"Y-m-dt?",            // 2026-11-22T13:45:46Z, 2026/Nov/22 13:45
		"0F?", "3", "6", "9", // 1795355146.5, the same in ms, in µs, in ns
		"uF$", // [   12.345678], the kernel's time since boot
		"T",   // 13:45:46
		"C",
	},
	'C': { // with a weekday in front or without
		"B,?_A",
		"Y-m-dt?",
		"Dt?",     // 20261122T134546Z
		"d-m-yt?", // 22/Nov/2026:13:45:46 +0000, 22.11.26, 11/22/2026
	},
	'A': { // behind month and day
		"Tj?",   // ctime(3), date(1), without a year RFC 3164
		"Y_Tz?", // November 22, 2026 01:45 PM; RFC 5322
	},
	'j': {"_Y$", "_ZY$"},
	'B': {"b_d", "d b"},
	'm': {"n", "b"},
	'y': {"Y", "c"},
	'T': {"H:M:Sf?p?", "H:M!p?", "xf?p?"}, // 13:45:46.123, 01:45 PM, 134546
	'p': {"_P"},
	't': {"iTz?"},         // behind a date
	'z': {" ?N", " ?oe?"}, // behind a time: UTC, +0100, +0100 CET
	'e': {" N"},
	'Z': {"N_", "o_"}, // in front of a year
	'o': {"+h$", "+h:q$", "+k$"},
}

// date takes a date off the front of b, in brackets or not, if a blank or
// nothing follows. A shape is enough: what it means can be unknown, as with
// 03/04/2026.
func date(b []byte, meta Meta) (s stamp, rest []byte, ok bool) {
	m := moment{text: b}
	if len(b) > 0 {
		if i := strings.IndexByte("[(<", b[0]); i >= 0 {
			m.text, m.closing = b[1:], "])>"[i:i+1]
		}
	}
	m.blanks()
	if !m.take('*') || m.closing != "" && !m.any(m.closing) || len(m.text) > 0 && !m.at(" \t") {
		return stamp{}, b, false
	}
	return m.stamp(meta), m.text, true
}

// moment is a date that is being read.
type moment struct {
	text    []byte // what is not yet read
	closing string // the bracket that ends the date, "" for none

	epoch                       int // nanoseconds since 1970, 0 for none
	year, month, day            int // 0 for none
	hour, minute, second, nanos int
	sign, offset                int // of the zone, in seconds
	separator                   byte
	weekday, clock, zone        bool
	ctime, vague                bool // vague: day or month first, who knows
}

// match says whether the text begins with a form, and takes it if so.
func (m *moment) match(form string) bool {
	for i := 0; i < len(form); i++ {
		fits := m.take(form[i])
		if i+1 < len(form) && form[i+1] == '?' {
			i++
		} else if !fits {
			return false
		}
	}
	return true
}

// take takes one element, or nothing.
func (m *moment) take(element byte) bool {
	if forms := dateForms[element]; forms != nil {
		before := *m
		for _, form := range forms {
			if m.match(form) {
				return true
			}
			*m = before
		}
		return false
	}
	before := m.text
	if !m.read(element) {
		m.text = before
		return false
	}
	return true
}

var (
	weekdays = strings.Fields("sunday monday tuesday wednesday thursday friday saturday")
	months   = strings.Fields("january february march april may june july august september october november december")
)

// read reads an element that has no row in dateForms.
func (m *moment) read(element byte) bool {
	switch element {
	case '0', '3', '6', '9', 'u', 'Y', 'c', 'n', 'd', 'D', 'H', 'M', 'S', 'x', 'h', 'q', 'k':
		return m.readNumber(element)
	case 'w':
		m.weekday = m.name(weekdays) > 0
		return m.weekday
	case 'b':
		m.month = m.name(months)
		return m.month > 0
	case 'F':
		return m.fraction(".")
	case 'f':
		return m.fraction(".,")
	case 'P':
		return m.half()
	case 'N':
		return m.zoneName()
	case '+':
		m.zone, m.sign = true, 1
		if m.at("-") {
			m.sign = -1
		}
		return m.any("+-")
	case 'i':
		return m.any("Tt:_-") || m.blanks()
	case '-': // the same both times
		if m.separator == 0 && m.at("-/.") {
			m.separator = m.text[0]
		}
		return m.separator != 0 && m.skip(m.separator)
	case '_':
		return m.blanks()
	case '#':
		return len(m.text) > 0 && m.text[0] >= '0' && m.text[0] <= '9'
	case '!':
		return !m.at(":")
	case '$':
		return len(m.text) == 0 || m.at(" \t])>")
	}
	return m.skip(element)
}

// readNumber reads an element that is a number.
func (m *moment) readNumber(element byte) bool {
	n := 0
	switch element {
	case 'Y':
		m.ctime = m.weekday && m.clock // and the year stands last
		return m.number(&m.year, 4, 4, 1970, 9999)
	case 'c':
		fits := m.number(&n, 2, 2, 0, 99)
		m.year = 2000 + n
		return fits
	case 'n': // with slashes some write the month first; only a number over 12 tells
		fits := m.number(&m.month, 1, 2, 1, 31)
		if m.separator == '/' && m.day > 0 && m.day <= 12 {
			if m.vague = m.month <= 12; !m.vague {
				m.day, m.month = m.month, m.day
			}
		}
		return fits && m.month <= 12
	case 'd':
		return m.number(&m.day, 1, 2, 1, 31)
	case 'D':
		m.number(&n, 8, 8, 19700101, 99991231)
		m.year, m.month, m.day = n/10000, n/100%100, n%100
		return m.month >= 1 && m.month <= 12 && m.day >= 1 && m.day <= 31
	case 'H':
		m.clock = true
		return m.number(&m.hour, 1, 2, 0, 23)
	case 'M':
		return m.number(&m.minute, 2, 2, 0, 59)
	case 'S':
		return m.number(&m.second, 2, 2, 0, 60)
	case 'x':
		m.clock = m.number(&n, 6, 6, 0, 235960)
		m.hour, m.minute, m.second = n/10000, n/100%100, n%100
		return m.clock && m.minute <= 59 && m.second <= 60
	case 'h':
		fits := m.number(&m.offset, 2, 2, 0, 14)
		m.offset *= 3600
		return fits
	case 'q':
		fits := m.number(&n, 2, 2, 0, 59)
		m.offset += 60 * n
		return fits
	case 'k':
		fits := m.number(&n, 4, 4, 0, 1459)
		m.offset = n/100*3600 + n%100*60
		return fits && n%100 <= 59
	case 'u':
		return m.closing != "" && m.number(&n, 1, 9, 0, math.MaxInt)
	default: // 0, 3, 6 or 9
		digits := 10 + int(element-'0')
		fits := m.number(&m.epoch, digits, digits, 1, math.MaxInt)
		for range 19 - digits {
			m.epoch *= 10
		}
		return fits && m.epoch > 0 // until 2262
	}
}

// half takes AM or PM.
func (m *moment) half() bool {
	hour := m.hour % 12
	if m.at("Pp") {
		hour += 12
	}
	fits := m.hour <= 12 && m.any("AaPp") && m.any("Mm")
	m.hour = hour
	return fits && (len(m.text) == 0 || m.at(" \t"+m.closing))
}

// zoneName takes a zone's name. Only UTC's names mean the same everywhere;
// behind any other the date stays one without a zone.
func (m *moment) zoneName() bool {
	n := 0
	for n < len(m.text) && m.text[n] >= 'A' && m.text[n] <= 'Z' {
		n++
	}
	name := string(m.text[:n])
	m.text = m.text[n:]
	if name == "Z" || name == "UTC" || name == "GMT" {
		m.zone, m.offset = true, 0
	} else if n < 3 || n > 5 {
		return false
	}
	return m.read('$')
}

func (m *moment) at(set string) bool {
	return len(m.text) > 0 && strings.IndexByte(set, m.text[0]) >= 0
}

func (m *moment) any(set string) bool {
	if !m.at(set) {
		return false
	}
	m.text = m.text[1:]
	return true
}

func (m *moment) skip(c byte) bool {
	if len(m.text) == 0 || m.text[0] != c {
		return false
	}
	m.text = m.text[1:]
	return true
}

func (m *moment) blanks() bool {
	n := len(m.text)
	m.text = blanks(m.text)
	return len(m.text) < n
}

// blanks takes blanks off the front of b. bytes.TrimLeft would make a set of
// them each time.
func blanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

// number takes all digits that stand here, if they are least to most and mean
// low to high; if not, number stays as it is.
func (m *moment) number(number *int, least, most, low, high int) bool {
	n, i := 0, 0
	for ; i < len(m.text) && i <= most && m.text[i] >= '0' && m.text[i] <= '9'; i++ {
		n = n*10 + int(m.text[i]-'0')
	}
	if i < least || i > most || n < low || n > high {
		return false
	}
	*number, m.text = n, m.text[i:]
	return true
}

// fraction takes a point and up to nine digits of a second.
func (m *moment) fraction(point string) bool {
	length := len(m.text)
	if !m.any(point) || !m.number(&m.nanos, 1, 9, 0, math.MaxInt) {
		return false
	}
	for i := length - len(m.text); i < 10; i++ {
		m.nanos *= 10
	}
	return true
}

// name takes a name or its first three letters, and returns which it is of
// names, from 1; 0 for none.
func (m *moment) name(names []string) int {
	if len(m.text) < 3 {
		return 0
	}
	for i, name := range names {
		if m.text[0]|' ' != name[0] {
			continue
		}
		for _, n := range [...]int{len(name), 3} {
			if len(m.text) >= n && strings.EqualFold(string(m.text[:n]), name[:n]) {
				m.text = m.text[n:]
				return i + 1
			}
		}
	}
	return 0
}

func (m *moment) stamp(meta Meta) stamp {
	if m.epoch != 0 {
		return stamp{zoned, time.Unix(0, int64(m.epoch+m.nanos))}
	}
	if !m.clock || m.day == 0 || m.vague {
		return stamp{}
	}
	s := stamp{rank: naive}
	loc := meta.Location
	switch {
	case m.zone:
		s.rank, loc = zoned, time.UTC
		if m.offset != 0 {
			loc = time.FixedZone("", m.sign*m.offset)
		}
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
		return time.Date(year, time.Month(m.month), m.day, m.hour, m.minute, m.second, m.nanos, loc)
	}
	s.time = at(year)
	// A log cannot be from the future; a day is left to zones and clocks.
	if m.year == 0 && s.time.After(meta.Read.Add(24*time.Hour)) {
		s.time = at(year - 1)
	}
	return s
}
