package matcher

import (
	"bytes"
	"regexp"
	"strconv"
)

// record is uWSGI's line from its first star to its last: since 2.0
// (core/master.c:295) with the socket's name and fd, before with a number.
var record = regexp.MustCompile(`^\*\*\* uWSGI listen queue of socket ` +
	`(?:"([^"]+)" \(fd: (-?\d{1,20})\)|(-?\d{1,20}))` +
	` full !!! \((-?\d{1,20})/(-?\d{1,20})\) \*\*\*`)

const stars = "***"

// maxName is longer than any address that a socket can be bound to (a UNIX
// socket's has 108 bytes).
const maxName = 255

// maxPrefix bounds what is looked at in front of a record. Wrappers are short;
// the longest are structured data of RFC 5424.
const maxPrefix = 4 << 10

// records reads b, the rest of a line that begins with a record, and returns
// nil unless all of it is records, each further one behind a date and " - ".
func (o origin) records(b []byte) []Hit {
	var hits []Hit
	line := o.stamp
	for {
		m := record.FindSubmatchIndex(b)
		if m == nil || m[3]-m[2] > maxName {
			return nil
		}
		hits = append(hits, o.hit(b, m))
		b = bytes.TrimLeft(b[m[1]:], " \t\r")
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

func (o origin) hit(b []byte, m []int) Hit {
	group := func(i int) string {
		if m[2*i] < 0 {
			return ""
		}
		return string(b[m[2*i]:m[2*i+1]])
	}
	h := Hit{
		Socket: group(1), FD: number(group(2)),
		Length: number(group(4)), Limit: number(group(5)),
		At: o.stamp.time, Source: o.meta.Source, PID: o.pid, Unit: o.unit,
	}
	if old := group(3); old != "" {
		h.Old, h.Socket, h.FD = true, old, number(old)
	}
	// The kernel holds one more than the limit. Four times leaves room for a
	// limit that somebody lowered while the queue was long.
	h.Garbage = h.Length <= 0 || h.Limit < 0 || h.Length > 4*(h.Limit+1)
	return h
}

// number is -1 for what no fd and no queue length can be.
func number(s string) int {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return -1
	}
	return int(n)
}
