package matcher

import (
	"bytes"
	"strings"
	"testing"
)

func TestCut(t *testing.T) {
	const rec = `*** uWSGI listen queue of socket "127.0.0.1:5000" (fd: 3) full !!! (129/128) ***`
	xs := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name, text string
		settled    bool
		want       string // what is left
	}{
		{"nothing", "", false, ""},
		{"half a line", "ab", false, "ab"},
		{"half a line, settled", "ab", true, "ab"},
		{"lines", "a\nb\nc", false, "c"},
		{"one object", `{"a":1}`, false, `{"a":1}`},
		{"one object, settled", `{"a":1}`, true, ""},
		{"half an object, settled", `{"a":1`, true, `{"a":1`},
		{"an object's string holds a seam", `{"a":"}{`, false, `{"a":"}{`},
		{"escaped quote", `{"a":"\"}{`, false, `{"a":"\"}{`},
		{"two objects", `{"a":{}}{"b"`, false, `{"b"`},
		{"two objects, settled", `{"a":{}}{"b":1}`, true, ""},
		{"objects, then another thing", `{"a":1}{"b":2}, c`, true, `{"b":2}, c`},
		{"an object, then another thing, settled", `{"a":1} `, true, `{"a":1} `},
		{"long", xs(LongLine), false, xs(len(Literal) - 1)},
		{"long, not yet", xs(LongLine - 1), false, xs(LongLine - 1)},
		{"long, a seam", xs(LongLine) + "}{" + xs(9000), false, "{" + xs(9000)},
		{"long, half a record", xs(LongLine) + rec[:50], false, rec[:50]},
		{"long, a record's first bytes", xs(LongLine) + rec[:9], false, xs(len(Literal)-10) + rec[:9]},
		{"long, one object", `{"a":"` + xs(LongLine), true, xs(len(Literal) - 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.text[Cut([]byte(tt.text), tt.settled):]; got != tt.want {
				t.Errorf("left %.100q (%d bytes), want %.100q (%d)", got, len(got), tt.want, len(tt.want))
			}
		})
	}
}

func TestContinues(t *testing.T) {
	for _, tt := range []struct {
		before, text string
		want         bool
	}{
		{"", "a", false}, {"a\n", "b", false}, {"a", "b", true}, {"a", "", true}, {"\x00", "b", false},
		{`{"a":1}`, `{"b":2}`, false}, {`{"a":1}`, "", false}, {`{"a":1}`, "x", true}, {"a", "{", true},
	} {
		if got := Continues([]byte(tt.before), []byte(tt.text)); got != tt.want {
			t.Errorf("%q, %q: %v, want %v", tt.before, tt.text, got, tt.want)
		}
	}
}

// FuzzCut hides records in a line without an end and reads it in pieces.
func FuzzCut(f *testing.F) {
	const rec = `*** uWSGI listen queue of socket "127.0.0.1:5000" (fd: 3) full !!! (129/128) ***`
	f.Add([]byte("abc"), uint16(4000))
	f.Add([]byte(`{"a":"`), uint16(60000))
	f.Add([]byte(Literal), uint16(9))
	f.Fuzz(func(t *testing.T, filler []byte, step uint16) {
		if len(filler) == 0 || len(filler) > 5000 || step == 0 {
			return
		}
		var text []byte
		for len(text) < 3*LongLine {
			text = append(append(text, filler...), rec...)
		}
		var got []byte
		records, start := 0, 0
		for end := 0; end < len(text); {
			end = min(end+int(step)+len(filler), len(text))
			for k := Cut(text[start:end], false); k > 0; k = Cut(text[start:end], false) {
				got = append(got, text[start:start+k]...)
				records += bytes.Count(text[start:start+k], []byte(rec))
				start += k
			}
			if end-start >= LongLine {
				t.Fatalf("%d bytes wait", end-start)
			}
		}
		records += bytes.Count(text[start:], []byte(rec))
		if got = append(got, text[start:]...); !bytes.Equal(got, text) {
			t.Fatal("text was lost or doubled")
		}
		// A filler with quotes, braces or newlines ends lines and objects
		// inside a record's text; that is not the cut's doing.
		if want := bytes.Count(text, []byte(rec)); records != want && !bytes.ContainsAny(filler, "{}\"\n\\") {
			t.Errorf("%d records whole, want %d", records, want)
		}
	})
}

// TestCutAndScan reads an endless line of objects in pieces of every length:
// where all of them arrive, no record is lost.
func TestCutAndScan(t *testing.T) {
	object := `{"ts":1,"msg":` + inJSON(plainRecord) + `}`
	line := []byte(strings.Repeat(object, 5))
	for step := 1; step <= len(line); step++ {
		hits, start := 0, 0
		for end := 0; end < len(line); {
			end = min(end+step, len(line))
			settled := end == len(line)
			for k := Cut(line[start:end], settled); k > 0; k = Cut(line[start:end], settled) {
				Scan(line[start:start+k], Meta{Continued: Continues(line[:start], line[start:])}, func(Hit) { hits++ })
				start += k
			}
		}
		if hits != 5 || start != len(line) {
			t.Errorf("in steps of %d: %d hits, want 5; %d bytes left", step, hits, len(line)-start)
		}
	}
}
