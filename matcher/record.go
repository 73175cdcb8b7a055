package matcher

import (
	"bytes"
	"math"
	"regexp"
	"strconv"

	"qwatch/internal/jsonscan"
)

// record is uWSGI's line from its first star to its last: since 2.0
// (core/master.c:295) with the socket's name and fd, before with a number. Bound
// at both ends it is matched in one pass, in half the time.
var record = regexp.MustCompile(`^\*\*\* uWSGI listen queue of socket ` +
	`(?:"(?P<name>[^"]+)" \(fd: (?P<fd>-?\d{1,20})\)|(?P<old>-?\d{1,20}))` +
	` full !!! \((?P<length>-?\d{1,20})/(?P<limit>-?\d{1,20})\) \*\*\*(?P<rest>(?s:.*))$`)

const stars = "***"

// maxName is longer than any address that a socket can be bound to (a UNIX
// socket's has 108 bytes).
const maxName = 255

// maxRecord is longer than any record.
const maxRecord = 512

// maxPrefix bounds what is looked at in front of a record. Wrappers are short;
// the longest are structured data of RFC 5424.
const maxPrefix = 4 << 10

// hits returns the records of one line, or of one line of a message inside a
// wrapper.
func (o origin) hits(b []byte, depth int) []Hit {
	if depth > maxDepth {
		return nil
	}
	b = cloudwatch(withoutColour(b))
	star := bytes.Index(b, []byte(stars))
	brace := bytes.IndexByte(b, '{')
	switch {
	case brace >= 0 && (star < 0 || brace < star):
		if o.unwrap(b[:brace], true) {
			return o.objects(b[brace:], depth)
		}
	case star >= 0 && o.unwrap(b[:star], false):
		return o.records(b[star:])
	}
	return nil
}

// objects returns the records of the JSON objects that b holds one after the
// other. uWSGI's JSON encoder without `nl` writes all of them on one line.
func (o origin) objects(b []byte, depth int) (hits []Hit) {
	for len(b) > 0 && b[0] == '{' {
		end := jsonscan.Skip(b)
		if end < 0 {
			break
		}
		if holdsRecord(b[:end]) {
			f := found{origin: o, holds: holdsRecord}
			for _, text := range f.candidates(b[:end]) {
				if h := f.message(text, depth+1); h != nil {
					hits = append(hits, h...)
					break
				}
			}
		}
		b = bytes.TrimLeft(b[end:], " \t\r,")
	}
	return hits
}

// holdsRecord says whether a value is worth a closer look.
func holdsRecord(value []byte) bool {
	if len(value) > 0 && value[0] == '{' {
		return next(value, true) >= 0
	}
	return bytes.Contains(value, []byte(needle))
}

// message returns the records of a message if each of its lines is nothing
// else. uWSGI writes a record by itself; a record among other lines of one
// message is a quotation.
func (o origin) message(text []byte, depth int) (hits []Hit) {
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		h := o.hits(line, depth)
		if h == nil {
			return nil
		}
		hits = append(hits, h...)
	}
	return hits
}

// records reads b, the rest of a line that begins with a record, and returns
// nil unless all of it is records, each further one behind a date and " - ".
func (o origin) records(b []byte) []Hit {
	var hits []Hit
	line := o.stamp
	for {
		m := firstRecord(b[:min(len(b), maxRecord)])
		if m == nil || m[3]-m[2] > maxName {
			return nil
		}
		hits = append(hits, o.hit(b, m))
		b = bytes.TrimLeft(b[m[len(m)-2]:], " \t\r")
		if len(b) == 0 {
			break
		}
		s, rest, ok := date(b, o.meta)
		if !ok || !bytes.HasPrefix(rest, []byte(" - "+stars)) {
			return nil
		}
		b = rest[len(" - "):]
		o.note(s)
		if line.rank == shapeOnly {
			line = o.stamp
		}
	}
	for i := range hits {
		if hits[i].At.IsZero() {
			if hits[i].At = line.time; line.rank == shapeOnly {
				hits[i].At = o.meta.Read
			}
		}
	}
	return hits
}

// firstRecord matches the record that b begins with, without what follows it
// where it can: the match would go on to the end. A name may hold stars.
func firstRecord(b []byte) []int {
	end := bytes.Index(b[len(stars):], []byte(stars)) + 2*len(stars)
	if m := record.FindSubmatchIndex(b[:min(len(b), end)]); m != nil {
		return m
	}
	return record.FindSubmatchIndex(b)
}

func (o origin) hit(b []byte, match []int) Hit {
	get := func(name string) []byte { return group(record, name, b, match) }
	h := Hit{
		Socket: string(get("name")), FD: number(get("fd")), Length: number(get("length")), Limit: number(get("limit")),
		At: o.stamp.time, Source: o.meta.Source, PID: o.meta.PID, Unit: o.meta.Unit,
	}
	if old := get("old"); old != nil {
		h.Old, h.Socket, h.FD = true, string(old), number(old)
	}
	// The kernel holds one more than the limit. Four times leaves room for a
	// limit that somebody lowered while the queue was long.
	h.Garbage = h.Length <= 0 || h.Limit < 0 || h.Length > 4*(h.Limit+1)
	return h
}

// number is -1 for what no fd and no queue length can be.
func number(text []byte) int {
	n, err := strconv.Atoi(string(text)) // faster than strconv.ParseInt
	if err != nil || n < 0 || n > math.MaxInt32 {
		return -1
	}
	return n
}
