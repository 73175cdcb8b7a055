package matcher

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type row struct {
	hits         int
	source, line string
}

func rows(t testing.TB, file string) (rows []row) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSuffix(text, "\n"), "\t", 3)
		if len(f) != 3 {
			t.Fatalf("%s: not a row: %q", file, text)
		}
		n, err := strconv.Atoi(f[0])
		if err != nil {
			t.Fatalf("%s: %v in %q", file, err, text)
		}
		rows = append(rows, row{n, f[1], f[2]})
	}
	return rows
}

func scan(text string, meta Meta) (hits []Hit) {
	Scan([]byte(text), meta, func(h Hit) { hits = append(hits, h) })
	return hits
}

func TestSamples(t *testing.T) {
	for _, file := range []string{"testdata/lines.tsv", "testdata/more.tsv"} {
		var all strings.Builder
		total := 0
		for _, r := range rows(t, file) {
			for _, end := range []string{"\n", "\r\n", ""} {
				if got := len(scan(r.line+end, Meta{})); got != r.hits {
					t.Errorf("%s: %s: %d hits, want %d, end %q, in\n%q", file, r.source, got, r.hits, end, r.line)
				}
			}
			all.WriteString(r.line + "\n")
			total += r.hits
		}
		for _, text := range []string{all.String(), strings.ReplaceAll(all.String(), "\n", "\r\n"), strings.TrimSuffix(all.String(), "\n")} {
			if got := len(scan(text, Meta{})); got != total {
				t.Errorf("%s in one chunk: %d hits, want %d", file, got, total)
			}
		}
	}
}

// TestPatterns compiles what else only a line compiles that could fit.
func TestPatterns(t *testing.T) {
	for _, w := range wrapperForms {
		w.line()
	}
}

func TestHit(t *testing.T) {
	read := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	meta := Meta{Source: "/var/log/uwsgi.log", Read: read, PID: 7, Unit: "u.service", Location: time.FixedZone("", 3600)}
	hit := func(change func(*Hit)) []Hit {
		h := Hit{Socket: "127.0.0.1:5000", FD: 3, Length: 101, Limit: 100, At: read, Source: meta.Source, PID: 7, Unit: "u.service"}
		change(&h)
		return []Hit{h}
	}
	const rec = `*** uWSGI listen queue of socket "127.0.0.1:5000" (fd: 3) full !!! (101/100) ***`
	quoted := strings.ReplaceAll(rec, `"`, `\"`)
	tests := []struct {
		name, line string
		want       []Hit
	}{
		{"no date", rec, hit(func(*Hit) {})},
		{"numbers over int32", strings.ReplaceAll(rec, "101/100", "18446744073709551615/4294967295"),
			hit(func(h *Hit) { h.Length, h.Limit, h.Garbage = -1, -1, true })},
		{"emulated CPU", strings.ReplaceAll(rec, "101/100", "50125680/64"),
			hit(func(h *Hit) { h.Length, h.Limit, h.Garbage = 50125680, 64, true })},
		{"nothing waits", strings.ReplaceAll(rec, "101/100", "0/0"),
			hit(func(h *Hit) { h.Length, h.Limit, h.Garbage = 0, 0, true })},
		{"limit 0", strings.ReplaceAll(rec, "101/100", "1/0"), hit(func(h *Hit) { h.Length, h.Limit = 1, 0 })},
		{"fd negative", strings.ReplaceAll(rec, "fd: 3", "fd: -1"), hit(func(h *Hit) { h.FD = -1 })},
		{"old", `*** uWSGI listen queue of socket 4 full !!! (-1/128) ***`,
			hit(func(h *Hit) {
				h.Socket, h.FD, h.Old, h.Length, h.Limit, h.Garbage = "4", 4, true, -1, 128, true
			})},
		{"ctime in the location", "Sun Nov 22 13:45:46 2026 - " + rec,
			hit(func(h *Hit) { h.At = time.Date(2026, 11, 22, 12, 45, 46, 0, time.UTC) })},
		{"own zone", "[22/Nov/2026:13:46:14 +0200] - " + rec,
			hit(func(h *Hit) { h.At = time.Date(2026, 11, 22, 11, 46, 14, 0, time.UTC) })},
		{"ctime before an encoder's date", "2026-11-22 13:40:52 Sun Nov 22 13:40:51 2026 - " + rec,
			hit(func(h *Hit) { h.At = time.Date(2026, 11, 22, 12, 40, 51, 0, time.UTC) })},
		{"ctime before syslog's", "Nov 22 13:40:52 web uwsgi[12]: Sun Nov 22 13:40:51 2026 - " + rec,
			hit(func(h *Hit) { h.At = time.Date(2026, 11, 22, 12, 40, 51, 0, time.UTC) })},
		{"syslog of last year", "Nov 30 13:40:52 web uwsgi[12]: " + rec,
			hit(func(h *Hit) { h.At = time.Date(2025, 11, 30, 12, 40, 52, 0, time.UTC) })},
		{"docker's moment before ctime", `{"log":"Sun Nov 22 03:45:46 2026 - ` + quoted + `\n","stream":"stderr","time":"2026-11-22T13:45:46.5Z"}`,
			hit(func(h *Hit) { h.At = time.Date(2026, 11, 22, 13, 45, 46, 5e8, time.UTC) })},
		{"CRI", "2026-11-22T13:45:46.5Z stderr F Sun Nov 22 03:45:46 2026 - " + rec,
			hit(func(h *Hit) { h.At = time.Date(2026, 11, 22, 13, 45, 46, 5e8, time.UTC) })},
		{"journal", `{"__CURSOR":"s","__REALTIME_TIMESTAMP":"1537051130000000","_PID":"9911","_SYSTEMD_UNIT":"uwsgi.service","MESSAGE":"` + quoted + `"}`,
			hit(func(h *Hit) { h.At = time.Unix(1537051130, 0).UTC() })},
		{"epoch number", `{"msg":"` + quoted + `","ts":1537051130123}`,
			hit(func(h *Hit) { h.At = time.UnixMilli(1537051130123).UTC() })},
		{"the line's date", rec + " Tue Jun 2 17:33:28 2015 - " + rec, append(
			hit(func(h *Hit) { h.At = time.Date(2015, 6, 2, 16, 33, 28, 0, time.UTC) }),
			hit(func(h *Hit) { h.At = time.Date(2015, 6, 2, 16, 33, 28, 0, time.UTC) })...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := scan(tt.line, meta)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if got := scan(rec, Meta{}); len(got) != 1 || !got[0].At.IsZero() {
		t.Errorf("no date and no Read: %v, want one hit with a zero At", got)
	}
}

var uninteresting = bytes.Repeat([]byte(`[pid: 1698|app: 0|req: 4/4] 127.0.0.1 () {18 vars in 242 bytes} [Sun Nov 22 13:51:52 2026] GET /a => generated 3 bytes in 0 msecs (HTTP/1.0 200) 1 headers in 111 bytes (1 switches on core 0)`+"\n"), 1000)

func TestNoAllocation(t *testing.T) {
	emit := func(Hit) { t.Error("a hit") }
	if n := testing.AllocsPerRun(100, func() { Scan(uninteresting, Meta{Source: "x"}, emit) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkUninteresting(b *testing.B) {
	b.SetBytes(int64(len(uninteresting)))
	b.ReportAllocs()
	for b.Loop() {
		Scan(uninteresting, Meta{}, nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/line")
}

func BenchmarkHit(b *testing.B) {
	run := func(name, line string) {
		b.Run(name, func(b *testing.B) {
			text := []byte(line + "\n")
			b.ReportAllocs()
			for b.Loop() {
				Scan(text, Meta{}, func(Hit) {})
			}
		})
	}
	run("bare", plainRecord)
	for _, name := range slices.Sorted(maps.Keys(wrappers)) {
		run(name, wrappers[name](plainRecord))
	}
	run("all samples", sampleHits(b))
}

// sampleHits are all lines of the samples that hold records.
func sampleHits(b *testing.B) string {
	var lines []string
	for _, file := range []string{"testdata/lines.tsv", "testdata/more.tsv"} {
		for _, r := range rows(b, file) {
			if r.hits > 0 {
				lines = append(lines, r.line)
			}
		}
	}
	return strings.Join(lines, "\n")
}
