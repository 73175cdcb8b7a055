package bulk

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const literal = "*** uWSGI listen queue of socket"

func record(n int) string {
	return fmt.Sprintf(`Sun Nov 22 13:45:46 2026 - %s "127.0.0.1:%d" (fd: 3) full !!! (129/128) ***`, literal, n)
}

// read reads one file and returns the candidates.
func read(t *testing.T, opt Options, path string, stdin io.Reader) ([]string, Totals) {
	t.Helper()
	if opt.Literal == "" {
		opt.Literal = literal
	}
	opt.Seam = "}{"
	var got []string
	totals := Read(t.Context(), []string{path}, stdin, opt, func(from string, text []byte) {
		if from != path {
			t.Errorf("emitted for %q, want %q", from, path)
		}
		got = append(got, string(text))
	})
	return got, totals
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// naive is what Read must find in a text without overlong lines.
func naive(text, literal string) ([]string, Totals) {
	var lines []string
	totals := Totals{Files: 1, Bytes: int64(len(text)), Lines: int64(strings.Count(text, "\n"))}
	if text != "" && !strings.HasSuffix(text, "\n") {
		totals.Lines++
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, literal) {
			lines = append(lines, line)
		}
	}
	return lines, totals
}

func TestReadFindsWhatNaiveReadingFinds(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	for name, text := range map[string]string{
		"empty":            "",
		"newline only":     "\n",
		"no final newline": "a\n" + record(1),
		"crlf":             "a\r\n" + record(1) + "\r\nb\r\n",
		"record only":      record(1) + "\n",
		"two in a line":    record(1) + record(2) + "\n",
		"neighbours":       record(1) + "\n" + record(2) + "\n\n" + record(3),
		"cut literal":      literal[1:] + "\n" + literal[:20] + "\n" + literal[20:] + "\n" + literal,
		"long line":        "a\n" + long + record(1) + "\nb\n" + record(2) + "\n",
		"NUL, not UTF-8":   "\x00\xff\n\x00" + record(1) + "\xff\x00\n",
	} {
		for _, sizes := range []sizes{{}, {mapped: 97, stream: 97, edge: 64 << 10}, {mapped: 4096, stream: 4096, edge: 64 << 10}} {
			want, totals := naive(text, literal)
			path := write(t, text)
			for how, path := range map[string]string{"file": path, "stream": Stdin} {
				t.Run(fmt.Sprint(name, "/", how, sizes.mapped), func(t *testing.T) {
					got, gotTotals := read(t, Options{sizes: sizes, Workers: 3}, path, strings.NewReader(text))
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("candidates (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(totals, gotTotals); diff != "" {
						t.Errorf("totals (-want +got):\n%s", diff)
					}
				})
			}
		}
	}
}

// TestReadRandom reads random texts of which half the lines are candidates, in
// blocks of random size.
func TestReadRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		var text strings.Builder
		for range rnd.IntN(40) {
			text.WriteString(strings.Repeat("q", rnd.IntN(30)))
			if rnd.IntN(2) == 0 {
				text.WriteString("ab*")
			}
			text.WriteString(strings.Repeat("a", rnd.IntN(30)))
			text.WriteString(strings.Repeat("\n", rnd.IntN(3)))
		}
		opt := Options{
			Literal: "ab*",
			Workers: 1 + rnd.IntN(4),
			sizes:   sizes{mapped: 1 + rnd.Int64N(100), stream: 1 + rnd.IntN(100), edge: 5000},
		}
		want, totals := naive(text.String(), opt.Literal)
		for _, path := range []string{Stdin, write(t, text.String())} {
			got, gotTotals := read(t, opt, path, strings.NewReader(text.String()))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%q with %+v: candidates (-want +got):\n%s", text.String(), opt.sizes, diff)
			}
			if diff := cmp.Diff(totals, gotTotals); diff != "" {
				t.Fatalf("%q with %+v: totals (-want +got):\n%s", text.String(), opt.sizes, diff)
			}
		}
	}
}
