package bulk

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOverlongLines reads texts with lines over the edge: each record must
// come once, whole and in order, wherever blocks end and whatever stands
// between the records.
func TestOverlongLines(t *testing.T) {
	complete := regexp.MustCompile(`ab\*[0-9]+;`)
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		between := [][]string{
			{""}, {"}{"}, {"", "}{"}, {"", "\n"}, {"}{", "\n"}, {"", "}{", "}", "{", "\n", "\r\n"},
		}[rnd.IntN(6)]
		const edge = 40
		var text strings.Builder
		var want []string
		for n := range rnd.IntN(30) {
			record := fmt.Sprintf("ab*%d;", n)
			want = append(want, record)
			text.WriteString(strings.Repeat("ab"[:rnd.IntN(3)], rnd.IntN(edge)))
			text.WriteString(between[rnd.IntN(len(between))])
			text.WriteString(record)
			text.WriteString(between[rnd.IntN(len(between))])
		}
		opt := Options{
			Literal: "ab*",
			Workers: 1 + rnd.IntN(3),
			sizes:   sizes{mapped: 1 + rnd.Int64N(200), stream: 1 + rnd.IntN(200), edge: edge},
		}
		for _, path := range []string{Stdin, write(t, text.String())} {
			pieces, _ := read(t, opt, path, strings.NewReader(text.String()))
			var got []string
			rest := text.String()
			for _, piece := range pieces {
				got = append(got, complete.FindAllString(piece, -1)...)
				_, after, found := strings.Cut(rest, piece)
				if !found || strings.Contains(piece, "\n") {
					t.Fatalf("%q with %+v: piece %q is none", text.String(), opt.sizes, piece)
				}
				if len(piece) > 2*edge {
					t.Fatalf("%q with %+v: piece %q is over the limit", text.String(), opt.sizes, piece)
				}
				rest = after
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%q with %+v: pieces %q: records (-want +got):\n%s", text.String(), opt.sizes, pieces, diff)
			}
		}
	}
}

func TestSpans(t *testing.T) {
	for _, test := range []struct {
		text string
		edge int
		want []string
	}{
		{"x\nab*}{ab*\nx", 8, []string{"ab*}{ab*"}},
		{"x\nab*}{ab*\nx", 7, []string{"ab*}", "{ab*"}},
		{"ab*}{ab*", 8, []string{"ab*}{ab*"}},
		{"ab*}{ab*", 7, []string{"ab*}", "{ab*"}},
		{"xxab*xab*xxxxxxxxxab*xxxxx", 6, []string{"xxab*x", "ab*xx", "xxxxxxab*xx"}},
	} {
		var got []string
		c := cutter{&finder{literal: "ab*"}, []byte("}{"), test.edge}
		for _, s := range c.spans(nil, []byte(test.text), 0, len(test.text)) {
			got = append(got, test.text[s.start:s.end])
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q with an edge of %d (-want +got):\n%s", test.text, test.edge, diff)
		}
	}
}

// TestJSONWithoutNewlines is what uWSGI's json encoder writes without nl.
func TestJSONWithoutNewlines(t *testing.T) {
	var text strings.Builder
	var want []string
	for i := range 5000 {
		if i%3 == 0 {
			object := fmt.Sprintf(`{"ts":%d,"msg":"%s"}`, i, strings.ReplaceAll(record(i), `"`, `\"`))
			text.WriteString(object)
			want = append(want, object)
		} else {
			fmt.Fprintf(&text, `{"ts":%d,"msg":"GET /"}`, i)
		}
	}
	for _, sizes := range []sizes{{}, {mapped: 10_000, stream: 10_000, edge: 4096}} {
		for _, path := range []string{Stdin, write(t, text.String())} {
			got, totals := read(t, Options{sizes: sizes}, path, strings.NewReader(text.String()))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			if totals.Lines != 1 {
				t.Errorf("%d lines, want 1", totals.Lines)
			}
		}
	}
}

// repeat gives a text several times.
type repeat struct {
	text  string
	at    int
	times int
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.times == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.text[r.at:])
	if r.at += n; r.at == len(r.text) {
		r.at, r.times = 0, r.times-1
	}
	return n, nil
}

func TestEndlessLineTakesNoMemory(t *testing.T) {
	text := strings.Repeat("\x00", 1<<20-len(record(0))) + record(0)
	const times = 256
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	hits := 0
	totals := Read(t.Context(), []string{Stdin}, &repeat{text: text, times: times}, Options{Literal: literal, Workers: 2}, func(_ string, piece []byte) {
		hits += bytes.Count(piece, []byte(literal))
	})
	runtime.ReadMemStats(&after)
	if hits != times || totals.Lines != 1 || totals.Bytes != times<<20 {
		t.Errorf("%d hits in %+v, want %d in 1 line of %d MiB", hits, totals, times, times)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 16<<20 {
		t.Errorf("%d bytes allocated for a line of %d MiB", taken, times)
	}
}

// FuzzRead compares with naive reading, or where a line is over the edge, the
// number of literals.
func FuzzRead(f *testing.F) {
	f.Add([]byte("ab*\nxab*ab*\n\nab"), byte(3), byte(8))
	f.Add([]byte("{ab*}{x}{ab*ab*}{}\n"), byte(1), byte(6))
	f.Add([]byte(strings.Repeat("aab*", 40)), byte(10), byte(9))
	f.Fuzz(func(t *testing.T, text []byte, size, edge byte) {
		text = text[:min(len(text), 2000)] // in blocks of a byte more would take seconds
		opt := Options{
			Literal: "ab*",
			Workers: 2,
			sizes:   sizes{mapped: 1 + int64(size), stream: 1 + int(size), edge: max(6, int(edge))},
		}
		want, totals := naive(string(text), opt.Literal)
		overlong := false
		for line := range bytes.SplitSeq(text, []byte("\n")) {
			overlong = overlong || len(line) > opt.sizes.edge
		}
		if unpacker(text) != nil {
			return
		}
		for _, path := range []string{Stdin, write(t, string(text))} {
			got, gotTotals := read(t, opt, path, bytes.NewReader(text))
			if diff := cmp.Diff(totals, gotTotals); diff != "" {
				t.Errorf("totals (-want +got):\n%s", diff)
			}
			if !overlong {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("candidates (-want +got):\n%s", diff)
				}
				continue
			}
			rest, found := string(text), 0
			for _, piece := range got {
				_, after, ok := strings.Cut(rest, piece)
				if !ok {
					t.Errorf("piece %q of %q is none", piece, got)
				}
				rest = after
				found += strings.Count(piece, opt.Literal)
			}
			if want := bytes.Count(text, []byte(opt.Literal)); found != want {
				t.Errorf("%d literals in %q, want %d", found, got, want)
			}
		}
	})
}
