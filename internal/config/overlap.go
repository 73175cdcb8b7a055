package config

import (
	"slices"
	"unicode/utf8"
)

// overlap tells whether some path matches both patterns, each given as its
// elements in the syntax of path/filepath.Match.
func overlap(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool {
		return meet(compile(x), compile(y))
	})
}

// token matches any run of characters, or one character that is in the ranges
// (not in them where not is set).
type token struct {
	star   bool
	not    bool
	ranges [][2]rune
}

func (t token) has(r rune) bool {
	in := slices.ContainsFunc(t.ranges, func(b [2]rune) bool { return b[0] <= r && r <= b[1] })
	return in != t.not && r != '/'
}

// compile reads one element of a pattern that filepath.Match has found good.
func compile(p string) []token {
	next := func() (r rune) {
		r, n := utf8.DecodeRuneInString(p)
		p = p[n:]
		return r
	}
	char := func() rune { // one that a backslash may keep from being special
		r := next()
		if r == '\\' {
			r = next()
		}
		return r
	}
	var tokens []token
	for p != "" {
		switch p[0] {
		case '*':
			next()
			tokens = append(tokens, token{star: true})
		case '?':
			next()
			tokens = append(tokens, token{not: true})
		case '[':
			next()
			var t token
			if p[0] == '^' {
				next()
				t.not = true
			}
			for len(t.ranges) == 0 || p[0] != ']' {
				lo := char()
				hi := lo
				if p[0] == '-' {
					next()
					hi = char()
				}
				t.ranges = append(t.ranges, [2]rune{lo, hi})
			}
			next()
			tokens = append(tokens, t)
		default:
			r := char()
			tokens = append(tokens, token{ranges: [][2]rune{{r, r}}})
		}
	}
	return tokens
}

// meet tells whether some text matches both: the usual dynamic programme over
// the two, where cell j of row i is "a[i:] and b[j:] meet".
func meet(a, b []token) bool {
	below := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		row := make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				row[j] = true
			case i < len(a) && a[i].star:
				row[j] = below[j] || j < len(b) && row[j+1]
			case j < len(b) && b[j].star:
				row[j] = row[j+1] || i < len(a) && below[j]
			case i < len(a) && j < len(b):
				row[j] = below[j+1] && common(a[i], b[j])
			}
		}
		below = row
	}
	return below[0]
}

// common tells whether one character is in both. Membership changes only at
// the ends of ranges, so it is enough to look there and at one place far away.
func common(a, b token) bool {
	both := func(r rune) bool { return r >= 0 && r <= utf8.MaxRune && a.has(r) && b.has(r) }
	for _, e := range slices.Concat(a.ranges, b.ranges) {
		if both(e[0]-1) || both(e[0]) || both(e[1]) || both(e[1]+1) {
			return true
		}
	}
	return both('a')
}
