package sysctld

import (
	"fmt"
	"strings"

	"qwatch/internal/text"
)

// Header is what a file that qwatch makes begins with.
const Header = `# Written by qwatch, which watches uWSGI's listen queues: one was full, and the
# kernel's limits were too small for it. qwatch raises values here, never lowers
# one, and leaves lines of others alone.
# To undo: "qwatch undo". By hand: delete this file, and set the running values
# back as noted at each key.
`

const mark = "# qwatch: "

// Set returns the old text of the file with key set to value. A line that sets
// the key to less is changed in its place; one that sets it to as much or more
// stays, and nothing else is touched. Above the line stands what the running
// value was before (was) and why it was changed; names from outside in it add
// no lines. A new file gets the Header.
func Set(old []byte, key string, value, was int, why string) []byte {
	note := fmt.Sprintf("%swas %d (sysctl -w %s=%d). %s", mark, was, key, was, text.Line(why))
	note = strings.TrimRight(note, " ") + "\n"
	lines := Parse(old)
	s := string(old)
	if i := last(lines, Path(key)); i >= 0 && !lines[i].Exclude {
		l := lines[i]
		if n, ok := l.Int(); ok && n >= value {
			return old
		}
		changed := s[l.lineStart:l.start] + fmt.Sprint(value) + s[l.end:]
		if noteAbove(s, l.lineStart) >= 0 { // it tells the value before the first change
			return []byte(s[:l.lineStart] + changed)
		}
		return []byte(s[:l.lineStart] + note + changed)
	}
	switch {
	case len(strings.Trim(s, blanks)) == 0:
		s = Header
	case !strings.HasSuffix(s, "\n"):
		s += "\n"
	}
	return fmt.Appendf(nil, "%s\n%s%s = %d\n", s, note, key, value)
}

// Unset returns the text without the line that sets key and without qwatch's
// note above it. It returns nil where only the Header is left: the file can
// go.
func Unset(text []byte, key string) []byte {
	lines := Parse(text)
	i := last(lines, Path(key))
	if i < 0 || lines[i].Exclude {
		return text
	}
	s := string(text)
	from := lines[i].lineStart
	if n := noteAbove(s, from); n >= 0 {
		from = n
		if strings.HasSuffix(s[:from], "\n\n") { // the blank line that Set put there
			from--
		}
	}
	s = s[:from] + s[lines[i].lineEnd:]
	if strings.TrimRight(s, blanks) == strings.TrimRight(Header, blanks) {
		return nil
	}
	return []byte(s)
}

// last is the index of the line of key that counts, -1 if there is none.
func last(lines []Line, key string) int {
	for i := len(lines) - 1; i >= 0; i-- {
		if lines[i].Key == key {
			return i
		}
	}
	return -1
}

// noteAbove is the offset of qwatch's note in the line that ends at at, -1
// where that line is something else.
func noteAbove(s string, at int) int {
	if at == 0 || s[at-1] != '\n' {
		return -1
	}
	start := strings.LastIndexByte(s[:at-1], '\n') + 1
	if !strings.HasPrefix(s[start:], mark) {
		return -1
	}
	return start
}
