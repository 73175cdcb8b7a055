// Package sysctld reads and edits sysctl.d(5) files: which line sets a kernel
// parameter at boot, and how to add one without harming the others. It works
// on bytes and an fs.FS; it never touches the host.
package sysctld

import (
	"path"
	"strconv"
	"strings"
)

// Line is one setting in a sysctl.d file.
type Line struct {
	// Key is the parameter as a path below /proc/sys: net/core/somaxconn. It
	// may be a glob.
	Key   string
	Value string
	// Exclude is true for a key without "=" behind a "-": no glob sets it,
	// and for systemd-sysctl no line before this one either.
	Exclude bool
	// Number is the line's place in the file, from 1.
	Number int

	// The value is text[start:end] of what Parse was given.
	start, end int
	// lineStart is the offset of the line's first byte, lineEnd that behind
	// its line ending.
	lineStart, lineEnd int
}

// Int is the value as the kernel reads a number (simple_strtoul with base 0:
// decimal, 0x, leading 0 for octal). It is false for anything else, such as
// the three numbers of net.ipv4.tcp_rmem.
func (l Line) Int() (int, bool) {
	digits, minus := strings.CutPrefix(l.Value, "-")
	base := 10
	switch {
	case strings.HasPrefix(digits, "0x"), strings.HasPrefix(digits, "0X"):
		base, digits = 16, digits[2:]
	case len(digits) > 1 && digits[0] == '0':
		base, digits = 8, digits[1:]
	}
	n, err := strconv.ParseUint(digits, base, 63)
	if minus {
		return -int(n), err == nil
	}
	return int(n), err == nil
}

const (
	endings = "\n\r\x00" // read_line() of systemd ends a line at each of them
	blanks  = " \t\n\r"  // WHITESPACE of systemd
)

// Parse returns the settings in text in their order, as systemd-sysctl reads
// them (parse_line in src/sysctl/sysctl.c). Comments and lines that are no
// setting are left out.
func Parse(text []byte) []Line {
	s := string(text)
	var lines []Line
	for at, number := 0, 1; at < len(s); number++ {
		end := len(s)
		next := end
		if i := strings.IndexAny(s[at:], endings); i >= 0 {
			end = at + i
			next = end + 1
			if s[end] == '\r' && next < len(s) && s[next] == '\n' {
				next++
			}
		}
		if l, ok := parseLine(s[at:end]); ok {
			l.Number = number
			l.start, l.end = l.start+at, l.end+at
			l.lineStart, l.lineEnd = at, next
			lines = append(lines, l)
		}
		at = next
	}
	return lines
}

func parseLine(s string) (Line, bool) {
	text := strings.Trim(s, blanks)
	if text == "" || text[0] == '#' || text[0] == ';' {
		return Line{}, false
	}
	key, value, assigned := strings.Cut(text, "=")
	key, minus := strings.CutPrefix(key, "-")
	key = Path(strings.Trim(key, blanks))
	if key == "" || !assigned && !minus {
		return Line{}, false
	}
	l := Line{Key: key, Value: strings.Trim(value, blanks), Exclude: !assigned}
	if assigned {
		l.start = strings.Index(s, "=") + 1
		rest := s[l.start:]
		l.start += len(rest) - len(strings.TrimLeft(rest, blanks))
		l.end = l.start + len(l.Value)
	}
	return l, true
}

// Path turns a key into a path below /proc/sys. The first separator says
// which way the key is written: a "." there makes the dots slashes and the
// slashes dots, for interfaces whose name has a dot (sysctl.d(5)).
func Path(key string) string {
	if i := strings.IndexAny(key, "/."); i >= 0 && key[i] == '.' {
		key = swapped(key)
	}
	if key == "" {
		return ""
	}
	return strings.TrimPrefix(path.Clean(key), "/")
}

// isGlob tells whether a key is a pattern (string_is_glob of systemd).
func isGlob(key string) bool { return strings.ContainsAny(key, "*?[") }

// Value is the number that a sysctl.d file sets for key, 0 where it sets none
// or something that is no number.
func Value(text []byte, key string) int { return Values(text)[swapped(Path(key))] }

// Values is Value for every key that the file sets by name, with dots for
// slashes; settings that are no number are left out.
func Values(text []byte) map[string]int {
	values := map[string]int{}
	for _, l := range Parse(text) {
		name := swapped(l.Key)
		delete(values, name)
		if n, ok := l.Int(); ok && !isGlob(l.Key) {
			values[name] = n
		}
	}
	return values
}

// swapped has slashes for dots and dots for slashes.
func swapped(key string) string { return strings.NewReplacer(".", "/", "/", ".").Replace(key) }
