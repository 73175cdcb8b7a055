package config

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// maxAlternatives bounds what the braces of one glob may come to.
const maxAlternatives = 64

// overlap tells whether some path matches both patterns, which doublestar
// has found good.
func overlap(a, b string) bool {
	deep := func(element string) bool { return element == "**" }
	same := func(x, y string) bool {
		return meet(compile(x), compile(y), func(t token) bool { return t.star }, common)
	}
	for _, x := range expand(a) {
		for _, y := range expand(b) {
			if meet(strings.Split(x, "/"), strings.Split(y, "/"), deep, same) {
				return true
			}
		}
	}
	return false
}

// expand writes p out into patterns without braces; nil if they are more than
// maxAlternatives.
func expand(p string) []string {
	done, todo := []string{}, []string{p}
	for len(todo) > 0 {
		p, todo = todo[0], todo[1:]
		from, commas, to := braces(p)
		if from < 0 {
			done = append(done, p)
		} else {
			begin := from + 1
			for _, end := range append(commas, to) {
				todo = append(todo, p[:from]+p[begin:end]+p[to+1:])
				begin = end + 1
			}
		}
		if len(done)+len(todo) > maxAlternatives {
			return nil
		}
	}
	return done
}

// braces finds the first pair of braces and the commas right within; from is
// -1 where there is none.
func braces(p string) (from int, commas []int, to int) {
	from = -1
	depth, class := 0, false
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '{':
			if depth++; depth == 1 {
				from = i
			}
		case c == ',' && depth == 1:
			commas = append(commas, i)
		case c == '}':
			if depth--; depth == 0 {
				return from, commas, i
			}
		}
	}
	return -1, nil, 0
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

// compile reads one element of a pattern without braces.
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
			if p[0] == '^' || p[0] == '!' {
				next()
				t.not = true
			}
			for p[0] != ']' {
				lo := char()
				hi := lo
				if p[0] == '-' && p[1] != ']' {
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

// meet tells whether some sequence matches both, where a star takes any
// number of members and two others match the same member if they are common:
// the usual dynamic programme, where cell j of row i is "a[i:] and b[j:] meet".
func meet[T any](a, b []T, star func(T) bool, common func(T, T) bool) bool {
	below := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		row := make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				row[j] = true
			case i < len(a) && star(a[i]):
				row[j] = below[j] || j < len(b) && row[j+1]
			case j < len(b) && star(b[j]):
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
