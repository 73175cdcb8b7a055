package jsonscan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestSkip(t *testing.T) {
	for text, want := range map[string]int{
		``: -1, `x`: -1, `"`: -1, `"a`: -1, `"a\"`: -1, `{`: -1, `{"a":1`: -1, `[[]`: -1, `{"}`: -1,
		`""`: 2, `"a"b`: 3, `"\""`: 4, `"\\"b`: 4, `{}{}`: 2, `{"a":"}"}x`: 9, `[1,[2]],`: 7, `1,2`: 1, `null}`: 4, `1 ]`: 2,
		`,`: 0, `]`: 0, `[1}`: 3, ` "a"`: 4, `1 "a",`: 5,
	} {
		if got := Skip([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// walk prints what a Walker gives.
func walk(text string) string {
	var out []string
	w := Walk([]byte(text))
	for w.Next() {
		out = append(out, fmt.Sprintf("%s=%s", w.Key, w.Value))
	}
	if w.Whole() {
		out = append(out, "whole")
	}
	return strings.Join(out, " ")
}

func TestWalk(t *testing.T) {
	tests := []struct{ text, want string }{
		{`{}`, "whole"},
		{`[ ]`, "whole"},
		{`{"a":1}`, "a=1 whole"},
		{`{"a":1}x`, "a=1 whole"},
		{"{ \"a\" : 1 ,\r\n\t\"b\" : [ 1, 2 ] }", "a=1 b=[ 1, 2 ] whole"},
		{`{"a":{"b":"}"},"c":null}`, `a={"b":"}"} c=null whole`},
		{`{"a\"b":"c\\"}`, `a\"b="c\\" whole`},
		{`{"a":1,"a":2}`, "a=1 a=2 whole"},
		{`[1,"a",[2],null]`, `=1 ="a" =[2] =null whole`},
		{``, ""},
		{`x`, ""},
		{`"a"`, ""},
		{`{`, ""},
		{`{"a"`, ""},
		{`{"a":`, ""},
		{`{"a":}`, ""},
		{`{"a":1`, ""},
		{`{"a":"b"`, `a="b"`},
		{`{"a":"b",`, `a="b"`},
		{`{"a":"b\"}`, ""},
		{`{"a":[1,2}`, `a=[1,2}`},
		{`{"a":["b}`, ""},
		{`{"a":]}`, ""},
		{`{1:2}`, ""},
		{`["a"}`, `="a"`},
		{`-- Boot --`, ""},
		// Not whole, and still read.
		{`{"a":1,}`, "a=1"},
		{`{,"a":1}`, "a=1"},
		{`{"a":1,,"b":2}`, "a=1 b=2"},
		{`{"a":"b" "c":"d"}`, `a="b" c="d"`},
		{`{"a" "b"}`, `a="b"`},
		{`{"a"::"b"}`, `a="b"`},
		{`{"a":,"b":1}`, ""},
		{`[1,,2]`, "=1 =2"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, walk(tt.text)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.text, diff)
		}
	}
	if w := (Walker{}); w.Next() || w.Whole() {
		t.Error("the zero Walker has a value")
	}
}

func TestUnquote(t *testing.T) {
	for value, want := range map[string]string{
		`""`: "", `"a"`: "a", `"\"\\\/\b\f\r\n\té\u00e9"`: "\"\\/\b\f\r\n\téé",
		`"\ud83d\ude00"`: "😀", `"\uD83D\uDE00x"`: "😀x",
		`"\ud83dx"`: "\ufffdx", `"\ude00\ud83d"`: "\ufffd\ufffd", `"\ud83d\u0041"`: "\ufffdA", `"\ud83d\u00"`: "\ufffd\\u00",
		`"\u12"`: `\u12`, `"\u12g4"`: `\u12g4`, `"\x\'"`: "x'", `"a\"`: `a\`, "\"\xff\\n\"": "\xff\n",
	} {
		if got := string(Unquote([]byte(value))); got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
	for _, value := range []string{``, `"`, `1`, `null`, `[97]`, `{}`} {
		if got := Unquote([]byte(value)); got != nil {
			t.Errorf("%s: %q, want nil", value, got)
		}
	}
}

func TestAppendBytes(t *testing.T) {
	for array, want := range map[string]string{
		`[]`: "", `[104,105]`: "hi", "[ 0, 255 ,\t10\r\n]": "\x00\xff\n",
	} {
		if got, ok := AppendBytes(nil, []byte(array)); !ok || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", array, got, ok, want)
		}
	}
	for _, array := range []string{`[256]`, `[-1]`, `[1.5]`, `[1e2]`, `["a"]`, `[null]`, `[18446744073709551617]`} {
		if got, ok := AppendBytes(nil, []byte(array)); ok {
			t.Errorf("%s: %q, want none", array, got)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	text := []byte(`{"__CURSOR":"s=1;i=2","A":[1,2,{"b":null}],"_PID":"77","MESSAGE":[104,105],"N":null}`)
	buf := make([]byte, 0, 100)
	n := testing.AllocsPerRun(100, func() {
		for w := Walk(text[:Skip(text)]); w.Next(); {
			buf = append(buf[:0], Unquote(w.Value)...)
			if w.Value[0] == '[' {
				buf, _ = AppendBytes(buf, w.Value)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestHostile holds the time linear. Anything quadratic would take hours here.
func TestHostile(t *testing.T) {
	began := time.Now()
	for _, part := range []string{`{`, `[`, `"`, `\`, `,`, `:`, ` `, `"a":`, `"a":1,`, `[1],`, `\u00`, `\ud83d`, `1 `} {
		text := []byte(`{"a":"` + strings.Repeat(part, 4<<20/len(part)))
		for _, text := range [][]byte{text, text[5:], text[6:], append([]byte{'['}, text[6:]...), append([]byte{'{'}, text[6:]...)} {
			Skip(text)
			for w := Walk(text); w.Next(); {
			}
			Unquote(append(text, '"'))
			AppendBytes(nil, text)
		}
	}
	if d := time.Since(began); d > time.Minute {
		t.Errorf("%v", d)
	}
}

// FuzzJSON compares with encoding/json all that is JSON, and sees to it that
// nothing else makes trouble.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{
		`{"a":1}`, `{ "a" : [ 1, "x", [ ], { } ], "b" : null }`, `{"a\n":"\ud83d\ude00\ud83d\u0041"}`, `[104,105,256]`, `{"a":,"b" "c"}`, `"a`,
		`{"a":[1}`, `[-1e5,true]`, `{"":{"":{"":""}}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for w := Walk(text); w.Next(); {
			Unquote(w.Value)
			AppendBytes(nil, w.Value)
		}
		if n := Skip(text); n > len(text) || n < -1 {
			t.Fatalf("%d of %d", n, len(text))
		}
		if json.Valid(text) && utf8.Valid(text) {
			compare(t, bytes.TrimSpace(text))
		}
	})
}

// compare holds what stands in value, which is JSON, to what encoding/json says.
func compare(t *testing.T, value []byte) {
	if n := Skip(append(bytes.Clone(value), ']')); n != len(value) {
		t.Fatalf("%s: skipped %d of %d", value, n, len(value))
	}
	w := Walk(value)
	switch value[0] {
	case '"':
		var want string
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatal(err)
		}
		if got := Unquote(value); string(got) != want || got == nil {
			t.Fatalf("%s: %q, want %q", value, got, want)
		}
		return
	case '[':
		var want []json.RawMessage
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatal(err)
		}
		for _, want := range want {
			if !w.Next() || w.Key != nil || !bytes.Equal(w.Value, want) {
				t.Fatalf("%s: %s, want %s", value, w.Value, want)
			}
			compare(t, want)
		}
		sameBytes(t, value)
	case '{':
		d := json.NewDecoder(bytes.NewReader(value))
		d.Token()
		for d.More() {
			key, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			var want json.RawMessage
			if err := d.Decode(&want); err != nil {
				t.Fatal(err)
			}
			if !w.Next() || string(Unquote(fmt.Appendf(nil, `"%s"`, w.Key))) != key || !bytes.Equal(w.Value, want) {
				t.Fatalf("%s: %s: %s, want %s: %s", value, w.Key, w.Value, key, want)
			}
			compare(t, want)
		}
	default:
		return
	}
	if w.Next() || !w.Whole() {
		t.Fatalf("%s: %s is left, whole %v", value, w.Value, w.Whole())
	}
}

func sameBytes(t *testing.T, array []byte) {
	var numbers []json.Number
	if json.Unmarshal(array, &numbers) != nil || bytes.ContainsAny(array, `"n`) {
		return
	}
	var want []byte
	good := true
	for _, n := range numbers {
		var b uint8
		good = good && json.Unmarshal([]byte(n), &b) == nil
		want = append(want, b)
	}
	if got, ok := AppendBytes(nil, array); ok != good || good && !bytes.Equal(got, want) {
		t.Fatalf("%s: %q, %v, want %q, %v", array, got, ok, want, good)
	}
}
