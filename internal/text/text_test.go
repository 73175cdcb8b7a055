package text

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"plain", "127.0.0.1:5000 ~", "127.0.0.1:5000 ~"},
		{"other scripts", "/run/队列.sock ключ عربي 한국어 हिन्दी", "/run/队列.sock ключ عربي 한국어 हिन्दी"},
		{"emoji", "🐢❤😀", "🐢❤😀"},
		{"not in Unicode yet", "\U0001fae9\u0378", "\U0001fae9\u0378"},
		{"accents, as letters and combined", "é e\u0301", "é e\u0301"},
		{"blanks", "a\u00a0b\u3000c", "a\u00a0b\u3000c"},
		{"already replaced", "a\ufffdb", "a\ufffdb"},
		{"terminal", "\x1b[2J\x07\x7f\u009b31m", "\ufffd[2J\ufffd\ufffd\ufffd31m"},
		{"line ends", "a\nb\rc\vd\u0085e\u2028f\u2029g", "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf\ufffdg"},
		{"tab", "a\tb", "a\ufffdb"},
		{"turned around", "/run/\u202egol.kcos\u2066\u200f", "/run/\ufffdgol.kcos\ufffd\ufffd"},
		{"zero width", "a\u200bb\u200dc\u00add\ufeff\u2060", "a\ufffdb\ufffdc\ufffdd\ufffd\ufffd"},
		{"no glyph", "\ufe0f\u3164\u115f\u034f\U000e0100\U000e0041", strings.Repeat("\ufffd", 6)},
		{"private use", "\ue0a0\U000f0000", "\ufffd\ufffd"},
		{"noncharacters", "\ufdd0\uffff\U0010ffff", "\ufffd\ufffd\ufffd"},
		{"not UTF-8, a mark for each byte", "a\xff\xfe\x9b\xe2\x80b", "a" + strings.Repeat("\ufffd", 5) + "b"},
		{"a surrogate", "\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Line(tt.in); got != tt.want {
				t.Errorf("Line(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestLines(t *testing.T) {
	if got, want := Lines("a\tb\nc\r\x1b\u202e"), "a\tb\nc\ufffd\ufffd\ufffd"; got != want {
		t.Errorf("Lines = %q, want %q", got, want)
	}
}

func TestPlural(t *testing.T) {
	for n, want := range []string{"0 boxes", "1 box", "2 boxes"} {
		if got := Plural(n, "box", "boxes"); got != want {
			t.Errorf("Plural(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestWriter(t *testing.T) {
	var b bytes.Buffer
	text := []byte("a\x1b\u202e\xffb\n")
	if n, err := Writer(&b).Write(text); n != len(text) || err != nil {
		t.Errorf("Write = %d, %v; want %d", n, err, len(text))
	}
	if got, want := b.String(), "a\ufffd\ufffd\ufffdb\n"; got != want {
		t.Errorf("written: %q, want %q", got, want)
	}
}

var sink string

func TestNothingIsAllocated(t *testing.T) {
	for _, s := range []string{"", "127.0.0.1:5000", "/run/队列-🐢.sock", "a\ufffdb"} {
		if n := testing.AllocsPerRun(100, func() { sink = Line(s) + Lines(s)[:0] }); n != 0 {
			t.Errorf("%q: %v allocations", s, n)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("/run/\u202egol.kcos\n\t\x1b\xff")
	f.Fuzz(func(t *testing.T, s string) {
		one, many := Line(s), Lines(s)
		if Line(one) != one || Lines(many) != many || Line(many) != one {
			t.Errorf("%q: a second pass changes %q or %q", s, one, many)
		}
		if !utf8.ValidString(one) || utf8.RuneCountInString(one) != utf8.RuneCountInString(s) {
			t.Errorf("%q became %q", s, one)
		}
		if i := strings.IndexFunc(one, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }); i >= 0 {
			t.Errorf("%q became %q", s, one)
		}
	})
}
