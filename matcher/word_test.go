package matcher

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScanWords(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []Word
	}{
		{"...gracefully killing workers...\nGracefully killing worker 2 (pid: 11473)...\nworker 1 buried after 1 seconds\n", []Word{{WordOrdered, 0, 0}, {WordKilling, 2, 11473}}},
		{"gracefully (RE)spawned uWSGI master process (pid: 11467)", []Word{{MarkReloaded, 0, 11467}}},
		{"WSGI app 0 (mountpoint='') ready in 31 seconds on interpreter 0x7efdb5360018 pid: 11467 (default app)\r\n", []Word{{WordReady, 31, 11467}}},
		{"WSGI app 1 (mountpoint='/a longer one') ready in 0 seconds on interpreter 0x1 pid: 7", []Word{{WordReady, 0, 7}}},
		{"PSGI app 0 (/srv/app.psgi) loaded in 2 seconds at 0x7f (interpreter 0x55)", []Word{{WordReady, 2, 0}}},
		{"RACK app 0 loaded in 4 seconds at 0x7f (GC frequency: 1)", []Word{{WordReady, 4, 0}}},
		{"unable to load app 0 (mountpoint='') (callable not found or import error)\n*** no app loaded. going in full dynamic mode ***\n", []Word{{WordUnable, 0, 0}, {WordDynamic, 0, 0}}},
		{"*** no app loaded. GAME OVER ***\nOOPS ! failed loading app in worker 1 (pid 14173)\nOOPS ! failed loading app in worker 2 (pid 14173) :( trying again...\n",
			[]Word{{WordBroken, 0, 0}, {WordBroken, 0, 14173}, {WordBroken, 0, 14173}}},
		{"--- no python application found, check your startup logs for errors ---", []Word{{WordNoApp, 0, 0}}},
		{"invalid request block size: 21573 (max 4096)...skip", []Word{{WordGarbled, 0, 0}}},
		{"Wed Nov 25 19:27:48 2026 - chain next victim is worker 1\nWed Nov 25 19:27:49 2026 - chain is still waiting for worker 3...\nWed Nov 25 19:27:50 2026 - chain reloading complete\n",
			[]Word{{WordOrdered, 0, 0}, {WordWaiting, 3, 0}, {WordChained, 0, 0}}},
		{"Wed Nov 25 19:27:48 2026 - worker 2 (pid: 14173) is taking too much time to die...NO MERCY !!!\n", []Word{{WordMercy, 2, 14173}}},
		{"Wed Nov 25 19:27:48 2026 - mule 2 (pid: 14173) is taking too much time to die...NO MERCY !!!\n", nil},
		{"Sun Nov 22 13:46:00 2026 - *** HARAKIRI ON WORKER 2 (pid: 77, try: 1, graceful: yes) ***\nDAMN ! worker 2 (pid: 77) died, killed by signal 9 :( trying respawn ...\n",
			[]Word{{MarkHarakiri, 2, 77}, {MarkDied, 2, 77}}},
		{"[pid: 11589|app: 0|req: 1/1] 127.0.0.1 () {18 vars in 169 bytes} [Wed Nov 25 19:26:57 2026] GET / => generated 2 bytes in 0 msecs (HTTP/1.0 200) 1 headers in 45 bytes (1 switches on core 0)",
			[]Word{{WordAnswered, 200, 11589}}},
		{"[pid: 11696|app: -1|req: -1/1] 127.0.0.1 () {18 vars in 169 bytes} [Wed Nov 25 19:27:02 2026] GET /(HTTP/1.0%20200) => generated 21 bytes in 0 msecs (HTTP/1.0 500) 2 headers in 83 bytes (0 switches on core 0)",
			[]Word{{WordAnswered, 500, 11696}}},
		{"[pid: 1|app: 0|req: 1/1] 10.0.0.1 () {40 vars in 700 bytes} [Wed Nov 25 19:26:57 2026] GET /x => generated 2 bytes in 40 msecs via sendfile() (HTTP/1.1 304) 1 headers in 45 bytes (3 switches on core 12)",
			[]Word{{WordAnswered, 304, 1}}},
		{`{"log":"unable to load app 0 (mountpoint='') (callable not found or import error)\n","stream":"stderr","time":"2026-11-22T13:46:00Z"}` + "\n", []Word{{WordUnable, 0, 0}}},
		{"user said: unable to load app 0 (mountpoint='') (callable not found or import error)", nil},
		{"spawned uWSGI worker 1 (pid: 11588, cores: 1)", nil},
	} {
		var got []Word
		ScanWords([]byte(tt.text), Meta{}, func(w Word) { got = append(got, w) })
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", tt.text, diff)
		}
	}
	ScanWords([]byte("*** no app loaded. GAME OVER ***\n"), Meta{Unit: "qwatch.service"}, func(w Word) { t.Errorf("its own: %v", w) })
}
