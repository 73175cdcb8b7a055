package matcher

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func marks(text string, meta Meta) (found []Mark) {
	ScanMarks([]byte(text), meta, func(m Mark) { found = append(found, m) })
	return found
}

func TestScanMarks(t *testing.T) {
	read := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	at := time.Date(2026, 11, 22, 13, 46, 0, 0, time.UTC)
	tests := []struct {
		name, text string
		want       []Mark
	}{
		{"harakiri", "Sun Nov 22 13:46:00 2026 - *** HARAKIRI ON WORKER 2 (pid: 77, try: 1, graceful: yes) ***\n",
			[]Mark{{Kind: MarkHarakiri, At: at}}},
		{"harakiri before 2.0.22", "Sun Nov 22 13:46:00 2026 - *** HARAKIRI ON WORKER 2 (pid: 77, try: 1) ***\n",
			[]Mark{{Kind: MarkHarakiri, At: at}}},
		{"deadlock", "[deadlock-detector] a process holding a robust mutex died. recovering...\n", []Mark{{Kind: MarkDeadlock, At: read}}},
		{"deadlock, who", "[deadlock-detector] pid 77 was holding lock thunder (0x7f0a)\n", []Mark{{Kind: MarkDeadlock, At: read}}},
		{"reload", "gracefully (RE)spawned uWSGI master process (pid: 77)", []Mark{{Kind: MarkReloaded, At: read}}},
		{"buried, before another line", "worker 3 buried after 1 seconds\r\nRespawned uWSGI worker 3 (new pid: 78)\r\n",
			[]Mark{{Kind: MarkBuried, At: read}}},
		{"killed", "DAMN ! worker 1 (pid: 91) died, killed by signal 9 :( trying respawn ...\n", []Mark{{Kind: MarkDied, At: read}}},
		{"died", "DAMN ! worker 1 (pid: 91) died :( trying respawn ...\n", []Mark{{Kind: MarkDied, At: read}}},
		{"killed, unasked", "DAMN ! worker 1 (pid: 91) MYSTERIOUSLY killed by signal 9 :( trying respawn ...\n", []Mark{{Kind: MarkDied, At: read}}},
		{"crash loop", "worker respawning too fast !!! i have to sleep a bit (2 seconds)...\n", []Mark{{Kind: MarkTooFast, At: read}}},
		{"start refused, between other lines", "one\nListen queue size is greater than the system max net.core.somaxconn (128).\ntwo\n",
			[]Mark{{Kind: MarkNoStart, Limit: 128, At: read}}},
		{"syslog", "<30>Nov 22 13:46:00 web uwsgi[9]: worker 3 buried after 1 seconds\n", []Mark{{Kind: MarkBuried, At: at}}},
		{"Kubernetes", "2026-11-22T13:46:00Z stderr F Listen queue size is greater than the system max net.core.somaxconn (128).\n",
			[]Mark{{Kind: MarkNoStart, Limit: 128, At: at}}},
		{"Docker", `{"log":"worker 3 buried after 1 seconds\n","stream":"stderr","time":"2026-11-22T13:46:00Z"}` + "\n",
			[]Mark{{Kind: MarkBuried, At: at}}},
		{"journal", `{"__CURSOR":"s=1","_PID":"5","_SYSTEMD_UNIT":"app.service","MESSAGE":"worker 3 buried after 1 seconds"}`,
			[]Mark{{Kind: MarkBuried, At: read}}},
		{"a forged unit", `{"_SYSTEMD_UNIT":"slow.service","_PID":"1","MESSAGE":"Listen queue size is greater than the system max net.core.somaxconn (128)."}`,
			[]Mark{{Kind: MarkNoStart, Limit: 128, At: read}}},
		{"of two times the later in the text", `{"time":"2026-11-22T13:45:00Z","msg":"worker 3 buried after 1 seconds","ts":"2026-11-22T13:46:00Z"}`,
			[]Mark{{Kind: MarkBuried, At: at}}},
		{"a time as a number", `{"ts":1795355160,"msg":"worker 3 buried after 1 seconds"}`, []Mark{{Kind: MarkBuried, At: at}}},
		{"under a key that says nothing", `{"zzz":"worker 3 buried after 1 seconds"}`, []Mark{{Kind: MarkBuried, At: read}}},
		{"nested", `{"jsonPayload":{"message":"worker 3 buried after 1 seconds"}}`, []Mark{{Kind: MarkBuried, At: read}}},
		{"quoted beside a message", `{"zzz":"worker 3 buried after 1 seconds","msg":"x"}`, nil},
		{"a request log's other key", `{"zzz":"worker 3 buried after 1 seconds","method":"GET"}`, nil},
		{"an object, then another thing", `{"msg":"worker 3 buried after 1 seconds"} x`, nil},
		{"qwatch's own", `{"SYSLOG_IDENTIFIER":"qwatch","MESSAGE":"worker 3 buried after 1 seconds"}`, nil},

		{"behind words", "user said: worker 3 buried after 1 seconds\n", nil},
		{"before words", "worker 3 buried after 1 seconds (he said)\n", nil},
		{"in a request", `[pid: 1|app: 0|req: 4/4] 127.0.0.1 () {18 vars in 242 bytes} [Sun Nov 22 13:51:52 2026] GET /[deadlock-detector] a process holding a robust mutex died. recovering... => generated 3 bytes in 0 msecs (HTTP/1.0 200)`, nil},
		{"under a request's key", `{"uri":"worker 3 buried after 1 seconds","msg":"x"}`, nil},
		{"a gateway's harakiri", "*** HARAKIRI ON GATEWAY http 1 (pid: 9) ***\n", nil},
		{"no number", "Listen queue size is greater than the system max net.core.somaxconn (x).\n", nil},
		{"two on a line", "worker 1 buried after 1 secondsworker 2 buried after 1 seconds\n", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := marks(test.text, Meta{Read: read, Location: time.UTC})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if got := marks("worker 3 buried after 1 seconds\n", Meta{Unit: "qwatch.service"}); got != nil {
		t.Errorf("from qwatch's own unit: %v", got)
	}
	if got := marks("worker 3 buried after 1 seconds\n", Meta{Continued: true}); got != nil {
		t.Errorf("from the rest of a cut line: %v", got)
	}
}

// Of the collected samples just these are marks.
func TestMarksInSamples(t *testing.T) {
	samples, err := os.ReadFile("testdata/lines.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for row := range strings.Lines(string(samples)) {
		_, row, _ = strings.Cut(row, "\t")
		_, line, _ := strings.Cut(row, "\t")
		for _, m := range marks(line, Meta{}) {
			got = append(got, fmt.Sprintf("%s limit %d", m.Kind, m.Limit))
		}
	}
	want := []string{
		"deadlock limit 0",
		"reloaded limit 0",
		"no-start limit 128",
		"died limit 0",
		"deadlock limit 0",
		"buried limit 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func FuzzScanMarks(f *testing.F) {
	f.Add("worker 3 buried after 1 seconds\n")
	f.Add(`{"log":"*** HARAKIRI ON WORKER 2 (pid: 77, try: 1) ***\n"}`)
	f.Add("<30>Nov 22 13:46:00 web uwsgi[9]: DAMN ! worker 1 (pid: 91) died :( trying respawn ...\n")
	f.Fuzz(func(t *testing.T, text string) {
		whole := marks(text, Meta{})
		var parts []Mark
		for line := range strings.Lines(text) {
			parts = append(parts, marks(line, Meta{})...)
		}
		if diff := cmp.Diff(parts, whole); diff != "" {
			t.Errorf("line by line and at once differ (-lines +whole)\n%s", diff)
		}
		for _, m := range whole {
			if m.Limit < 0 {
				t.Errorf("%+v", m)
			}
		}
	})
}

// BenchmarkMarks says what ScanMarks adds to Scan on a request log
// without any.
func BenchmarkMarks(b *testing.B) {
	line := "[pid: 1698|app: 0|req: 4/4] 127.0.0.1 () {38 vars in 742 bytes} [Sun Nov 22 13:51:52 2026] GET /api/users?page=3 => generated 3123 bytes in 12 msecs (HTTP/1.1 200) 7 headers in 311 bytes (1 switches on core 0)\n"
	text := bytes.Repeat([]byte(line), 1<<20/len(line))
	b.Run("Scan", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			Scan(text, Meta{}, func(Hit) {})
		}
	})
	b.Run("ScanMarks", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			ScanMarks(text, Meta{}, func(Mark) {})
		}
	})
	for _, f := range markForms {
		b.Run(string(f.kind), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				find(text, 0, f.needle)
			}
		})
	}
}
