package bulk

import "bytes"

// finder looks for a literal by the byte of it that is rarest in the text at
// hand, which bytes.IndexByte finds at the speed of memory, and compares the
// rest only there. Which byte is rare depends on the log (every uWSGI request
// line has a 'q', Apache ones have many '"'), so it is learned from the text
// and not from a table.
type finder struct {
	literal string
	rare    int // index in literal of the byte that is looked for
}

// index returns where the literal first starts in text, -1 if nowhere.
func (f *finder) index(text []byte) int {
	last := len(text) - len(f.literal) // the last possible start
	for start := 0; start <= last; {
		i := bytes.IndexByte(text[start+f.rare:last+f.rare+1], f.literal[f.rare])
		if i < 0 {
			return -1
		}
		start += i
		if string(text[start:start+len(f.literal)]) == f.literal {
			return start
		}
		start++
	}
	return -1
}

// learn picks the byte of the literal that occurs least in the sample, and
// keeps to the one that it has where others are as rare.
func (f *finder) learn(sample []byte) {
	var seen [256]int
	for _, c := range sample {
		seen[c]++
	}
	for i := range len(f.literal) {
		if seen[f.literal[i]] < seen[f.literal[f.rare]] {
			f.rare = i
		}
	}
}
