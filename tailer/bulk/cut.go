package bulk

import "bytes"

// span is a part of a text: text[start:end].
type span struct{ start, end int }

// cutter cuts candidates out of a text: the lines that hold the literal. Of a
// line longer than edge it cuts pieces that together hold each literal once,
// with what follows it, so that memory stays bounded whatever the text is:
//
//   - at "}{", where a JSON encoder without newline (uWSGI's "json" without
//     "nl") puts one record behind the other;
//   - where there is none within edge bytes, just before a later literal.
//
// The text must reach edge bytes before the first and behind the last byte
// that a candidate may start at, or to the beginning or end of the file. edge
// is at least twice the literal's length, and the literal holds no newline.
type cutter struct {
	find *finder
	edge int
}

// spans returns the candidates whose literal starts in text[from:to], in
// order. They do not overlap.
func (c cutter) spans(dst []span, text []byte, from, to int) []span {
	literal := len(c.find.literal)
	// All before floor has been looked at: left is the last newline in it, -1
	// if none; cut is the end of the last candidate. right is the first
	// newline at or after the literal, where known says how far was looked.
	// Together they make each byte be looked at once, however many literals
	// an endless line holds.
	floor, left, cut := max(0, from-c.edge), -1, 0
	right, known := -1, from
	for p := from; p < to; {
		i := c.find.index(text[p:min(to+literal-1, len(text))])
		if i < 0 {
			break
		}
		p += i
		low, high := max(0, p-c.edge), min(len(text), p+c.edge+1) // with a newline behind edge bytes

		if i := bytes.LastIndexByte(text[max(floor, low):p], '\n'); i >= 0 {
			left = max(floor, low) + i
		}
		floor = p
		start, whole := left+1, true
		if left < low {
			start, whole = low, p < c.edge // the beginning of the file starts a line too
		}

		if known < p || right < p && right >= 0 {
			right, known = -1, p
		}
		if right < 0 && known < high {
			if i := bytes.IndexByte(text[known:high], '\n'); i >= 0 {
				right = known + i
			}
			known = high
		}
		end := right
		if right < 0 {
			end = high
			whole = whole && p+c.edge >= len(text) // so does its end end one
		}

		if !whole || end-start > c.edge {
			start = max(start, cut)
			if i := bytes.LastIndex(text[start:p], []byte("}{")); i >= 0 {
				start += i + 1
			}
			body := p + literal
			if i := bytes.Index(text[body:end], []byte("}{")); i >= 0 {
				end = body + i + 1
			} else if right < 0 {
				if i := bytes.LastIndex(text[body:end], []byte(c.find.literal)); i >= 0 {
					end = body + i
				} else if p+c.edge < len(text) {
					end -= literal - 1 // one may begin there
				}
			}
		}
		dst = append(dst, span{start, end})
		cut = end
		p = max(end, p+literal)
	}
	return dst
}
