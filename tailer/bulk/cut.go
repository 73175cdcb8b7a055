package bulk

import "bytes"

// span is a part of a text: text[start:end].
type span struct{ start, end int }

// cutter cuts candidates out of a text: the lines that hold the literal. Of a
// line longer than edge it cuts pieces that together hold each literal once,
// with what follows it, so that memory stays bounded whatever the text is:
//
//   - at a seam, behind its first byte;
//   - where there is none within edge bytes, just before a later literal.
//
// The text must reach edge bytes before the first and behind the last byte
// that a candidate may start at, or to the beginning or end of the file. edge
// is at least twice the literal's length, and the literal holds no newline.
type cutter struct {
	find *finder
	seam []byte
	edge int
}

// spans returns the candidates whose literal starts in text[from:to], in
// order. They do not overlap.
func (c cutter) spans(dst []span, text []byte, from, to int) []span {
	literal := len(c.find.literal)
	l := line{text: text, edge: c.edge, left: -1, searched: max(0, from-c.edge), right: -1, known: from}
	cut := 0 // end of the last candidate
	for p := from; p < to; {
		i := c.find.index(text[p:min(to+literal-1, len(text))])
		if i < 0 {
			break
		}
		p += i
		s, whole := l.around(p)
		if !whole || s.end-s.start > c.edge {
			s = c.piece(&l, span{max(s.start, cut), s.end}, p)
		}
		dst = append(dst, s)
		cut = s.end
		p = max(s.end, p+literal)
	}
	return dst
}

// piece cuts down s, which is what around gives for the literal at p.
func (c cutter) piece(l *line, s span, p int) span {
	if i := bytes.LastIndex(l.text[s.start:p], c.seam); i >= 0 {
		s.start += i + 1
	}
	body := p + len(c.find.literal)
	if i := bytes.Index(l.text[body:s.end], c.seam); i >= 0 {
		s.end = body + i + 1
	} else if l.right < 0 {
		if i := bytes.LastIndex(l.text[body:s.end], []byte(c.find.literal)); i >= 0 {
			s.end = body + i
		} else if p+c.edge < len(l.text) {
			s.end -= len(c.find.literal) - 1 // one may begin there
		}
	}
	return s
}

// line finds the line around one position after the other, in rising order, as
// far as it stands within edge bytes of it:
//
//	         |<------ edge ------>|<------ edge ------>|
//	..\n.....[....................p..................\n].....
//	  left   low                                     right  high
//
// Here the line's beginning is out of reach. What was looked at once is not
// looked at again, so that it takes linear time however many positions an
// endless line holds.
type line struct {
	text     []byte
	edge     int
	left     int // the last newline before searched, -1 if none
	searched int // the last position
	right    int // the first newline at or behind the last position, -1 if none
	known    int // up to where right was looked for
}

// around returns the part of the line within edge bytes of p, without its
// newline, and says whether that is all of it.
func (l *line) around(p int) (s span, whole bool) {
	low, high := max(0, p-l.edge), min(len(l.text), p+l.edge+1) // with a newline behind edge bytes
	near := max(l.searched, low)
	if i := bytes.LastIndexByte(l.text[near:p], '\n'); i >= 0 {
		l.left = near + i
	}
	l.searched = p
	s.start, whole = l.left+1, true
	if l.left < low {
		s.start, whole = low, p < l.edge // the beginning of the file starts a line too
	}

	if l.known < p || l.right < p && l.right >= 0 {
		l.right, l.known = -1, p
	}
	if l.right < 0 && l.known < high {
		if i := bytes.IndexByte(l.text[l.known:high], '\n'); i >= 0 {
			l.right = l.known + i
		}
		l.known = high
	}
	if s.end = l.right; l.right < 0 {
		s.end = high
		whole = whole && p+l.edge >= len(l.text) // so does its end end one
	}
	return s, whole
}
