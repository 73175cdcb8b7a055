// Package text makes text that strangers wrote fit to be shown. Names of
// sockets, files and processes come from logs and from any user; nothing in
// them may move a terminal's cursor, turn the order of what stands beside
// them, hide, or begin a new line.
package text

import (
	"io"
	"strconv"
	"strings"
	"unicode"
)

// hidden are the characters that have no glyph of their own. Everything else
// passes, also what this version of Unicode does not know yet: next year's
// emoji may be in a name, so unicode.IsPrint would be too strict.
var hidden = []*unicode.RangeTable{
	unicode.Cc, // controls: escape sequences begin with them
	unicode.Cf, // format: bidi overrides, zero-width joiners, tags
	unicode.Zl, // line separator
	unicode.Zp, // paragraph separator
	unicode.Co, // private use: what they show is for the font to say
	unicode.Noncharacter_Code_Point,
	// The other parts of Default_Ignorable_Code_Point (DerivedCoreProperties.txt).
	unicode.Variation_Selector,
	unicode.Other_Default_Ignorable_Code_Point,
}

func line(r rune) rune {
	if ' ' <= r && r <= '~' {
		return r
	}
	if unicode.IsOneOf(hidden, r) {
		return unicode.ReplacementChar
	}
	return r
}

func lines(r rune) rune {
	if r == '\n' || r == '\t' {
		return r
	}
	return line(r)
}

// Line returns s with U+FFFD for each character that has no glyph of its own
// (control and format characters, line ends, variation selectors, private use)
// and for each byte that is not UTF-8. Two different texts may become the same.
// Nothing is allocated where nothing has to change, and a second pass changes
// nothing.
func Line(s string) string { return strings.Map(line, s) }

// Lines is Line for text of several lines: newlines and tabs pass.
func Lines(s string) string { return strings.Map(lines, s) }

// Plural is a number and what it counts: "1 source", "2 sources".
func Plural(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return strconv.Itoa(n) + " " + many
}

// Writer returns a writer to w that puts all text through Lines. It may be
// JSON: what its encoder has escaped stays. A character must come whole, in one
// Write, whose count is that of the bytes taken.
func Writer(w io.Writer) io.Writer { return writer{w} }

type writer struct{ to io.Writer }

func (w writer) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.to, Lines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
