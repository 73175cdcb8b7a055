package file

import (
	"bytes"
	"strings"
	"testing"
)

const record = `*** uWSGI listen queue of socket "127.0.0.1:5000" (fd: 3) full !!! (129/128) ***`

func TestCut(t *testing.T) {
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
		{"objects, then another thing", `{"a":1}{"b":2}, c`, true, `{"b":2}, c`},
		{"long", xs(longLine), false, xs(len(recordStart) - 1)},
		{"long, not yet", xs(longLine - 1), false, xs(longLine - 1)},
		{"long, a seam", xs(longLine) + "}{" + xs(9000), false, "{" + xs(9000)},
		{"long, half a record", xs(longLine) + record[:50], false, record[:50]},
		{"long, a record's first bytes", xs(longLine) + record[:9], false, xs(len(recordStart)-10) + record[:9]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.text[cut([]byte(tt.text), tt.settled):]; got != tt.want {
				t.Errorf("left %.100q (%d bytes), want %.100q (%d)", got, len(got), tt.want, len(tt.want))
			}
		})
	}
}

// FuzzCut hides records in a line without an end and reads it in pieces.
func FuzzCut(f *testing.F) {
	f.Add([]byte("abc"), uint16(4000))
	f.Add([]byte(`{"a":"`), uint16(60000))
	f.Add([]byte(recordStart), uint16(9))
	f.Fuzz(func(t *testing.T, filler []byte, step uint16) {
		if len(filler) == 0 || len(filler) > 5000 || step == 0 {
			return
		}
		var text []byte
		for len(text) < 3*longLine {
			text = append(append(text, filler...), record...)
		}
		var got []byte
		records, start := 0, 0
		for end := 0; end < len(text); {
			end = min(end+int(step)+len(filler), len(text))
			for k := cut(text[start:end], false); k > 0; k = cut(text[start:end], false) {
				got = append(got, text[start:start+k]...)
				records += bytes.Count(text[start:start+k], []byte(record))
				start += k
			}
		}
		records += bytes.Count(text[start:], []byte(record))
		if got = append(got, text[start:]...); !bytes.Equal(got, text) {
			t.Fatal("text was lost or doubled")
		}
		// A filler with quotes, braces or newlines ends lines and objects
		// inside a record's text; that is not the tailer's cut.
		if want := bytes.Count(text, []byte(record)); records != want && !bytes.ContainsAny(filler, "{}\"\n\\") {
			t.Errorf("%d records whole, want %d", records, want)
		}
	})
}

func TestRelated(t *testing.T) {
	for name, want := range map[string]bool{
		"app.log": false, "app.log.1": true, "app.log-20261122": true, "app.log.1.gz": true, "app.log~": true,
		"app-20261122.log": true, "app-20261122.log.gz": true, "app.1.log": true, "app-error.log": false,
		"app2.log": false, "app.logs": false, "ap.log": false, "app": false,
	} {
		if got := related("app.log", name); got != want {
			t.Errorf("related(app.log, %s) = %v, want %v", name, got, want)
		}
	}
}
