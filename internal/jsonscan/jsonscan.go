// Package jsonscan reads JSON where it stands: it finds values, and neither
// decodes nor copies what nobody asked for. Nearly all text that passes through
// it is of no interest, and encoding/json would cost ten times as much.
//
// It reads all that is JSON (RFC 8259), and is lenient where text is not:
// uWSGI's JSON encoder fills in a template that an administrator wrote by hand.
// No text makes it panic, and each function takes linear time.
package jsonscan

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Skip returns the length of the value that text begins with, -1 where its end
// is not in text, 0 where there is no value. Only quotes and the depth of
// brackets count, so any bracket closes any other. A number or a word ends at
// the comma or the bracket behind it, or with the string or the brackets that
// stand in it. It does not allocate.
func Skip(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			n := quoted(text[i:])
			if n < 0 {
				return -1
			}
			i += n - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return -1
}

// quoted returns the length of the string that text begins with, with its
// quotes, -1 if it has no end.
func quoted(text []byte) int {
	for i := 1; ; i++ {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		slash := i
		for slash > 1 && text[slash-1] == '\\' {
			slash--
		}
		if (i-slash)%2 == 0 {
			return i + 1
		}
	}
}

// Walker goes through an object or an array in the order of the text:
//
//	for w := jsonscan.Walk(text); w.Next(); {
//		use(w.Key, w.Value)
//	}
//
// It does not allocate. Commas and colons that are missing or too many do not
// stop it, but see Whole. The zero Walker has nothing.
type Walker struct {
	Key   []byte // of a member, between its quotes and still escaped; nil for an element
	Value []byte // as Skip finds it, without blanks around it; a part of text, never empty

	rest    []byte
	closing byte // '}' or ']', 0 for none
	commas  int  // wanted in front of the next value
	wrong   bool // there were more commas or colons, or fewer
	whole   bool
}

// Walk returns a Walker for the object or the array that text begins with; the
// zero Walker where it begins with neither.
func Walk(text []byte) Walker {
	if len(text) > 0 && (text[0] == '{' || text[0] == '[') {
		return Walker{rest: text[1:], closing: text[0] + 2} // in ASCII the closing one is two further
	}
	return Walker{}
}

// Next goes to the next member or element. It is false behind the last one,
// and where what follows is none.
func (w *Walker) Next() bool {
	text, commas := separators(w.rest, ',')
	w.rest = nil
	if len(text) == 0 || w.closing == 0 {
		return false
	}
	if text[0] == w.closing {
		w.whole = !w.wrong && commas == 0
		return false
	}
	w.wrong = w.wrong || commas != w.commas
	w.commas = 1
	if w.closing == '}' {
		n := quoted(text)
		if text[0] != '"' || n < 0 {
			return false
		}
		w.Key = text[1 : n-1]
		var colons int
		text, colons = separators(text[n:], ':')
		w.wrong = w.wrong || colons != 1
	}
	n := Skip(text)
	if n <= 0 {
		return false
	}
	w.rest = text[n:]
	for n > 1 && text[n-1] <= ' ' {
		n--
	}
	w.Value = text[:n]
	return true
}

// Whole says, once Next was false, whether the object or the array has an end
// and the right number of commas and colons. Its values can still be no JSON.
func (w *Walker) Whole() bool { return w.whole }

// separators takes blanks and separators off the front of text.
func separators(text []byte, separator byte) (rest []byte, n int) {
	for i, c := range text {
		switch c {
		case ' ', '\t', '\r', '\n':
		case separator:
			n++
		default:
			return text[i:], n
		}
	}
	return nil, n
}

// Unquote returns what a string means, nil for any other value. value is the
// string with its quotes; the result is a part of it if it has no backslash,
// else newly allocated. See AppendString.
func Unquote(value []byte) []byte {
	if len(value) < 2 || value[0] != '"' {
		return nil
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1]
	}
	return AppendString(make([]byte, 0, len(value)), value)
}

// AppendString appends what a string means; value is the string with its
// quotes. Bytes that are no UTF-8 stay as they are, half a surrogate pair
// becomes U+FFFD, and of an escape that JSON does not know the character
// behind the backslash stays (of \u without four hexadecimal digits both).
func AppendString(dst, value []byte) []byte {
	b := value[1 : len(value)-1]
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 == len(b) {
			dst = append(dst, b[i])
			continue
		}
		i++
		if j := strings.IndexByte("nrtbf", b[i]); j >= 0 {
			dst = append(dst, "\n\r\t\b\f"[j])
			continue
		}
		if b[i] != 'u' { // a quote, a backslash, a slash
			dst = append(dst, b[i])
			continue
		}
		r := hex(b[i+1:])
		if r < 0 {
			dst = append(dst, '\\', 'u')
			continue
		}
		i += 4
		if utf16.IsSurrogate(r) && bytes.HasPrefix(b[i+1:], []byte(`\u`)) {
			if pair := utf16.DecodeRune(r, hex(b[i+3:])); pair != utf8.RuneError {
				r = pair
				i += 6
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

// hex is the value of the four hexadecimal digits that b begins with, -1 if it
// does not.
func hex(b []byte) rune {
	n, err := strconv.ParseUint(string(b[:min(4, len(b))]), 16, 16)
	if err != nil || len(b) < 4 {
		return -1
	}
	return rune(n)
}

// AppendBytes appends the bytes that an array of numbers stands for, as in
// [104,105]: so journalctl prints a field that is not UTF-8 or has control
// characters. It is false where an element is anything but a decimal number of
// 0 to 255.
func AppendBytes(dst, array []byte) ([]byte, bool) {
	n, digits := 0, false
	for _, c := range array {
		switch c {
		case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			if n, digits = n*10+int(c-'0'), true; n > 255 {
				return dst, false
			}
		case '[', ']', ',', ' ', '\t', '\r', '\n':
			if digits {
				dst = append(dst, byte(n))
			}
			n, digits = 0, false
		default:
			return dst, false
		}
	}
	return dst, true
}
