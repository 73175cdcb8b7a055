package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"qwatch/internal/jsonscan"
	"qwatch/tailer"
)

func TestEntryText(t *testing.T) {
	tests := []struct {
		name, message, want string
		none                bool
	}{
		{name: "plain", message: `"listen queue"`, want: "listen queue\n"},
		{name: "empty", message: `""`, want: "\n"},
		{name: "its own newline", message: `"a\n"`, want: "a\n"},
		{name: "several lines", message: `"a\nb"`, want: "a\nb\n"},
		{name: "escapes", message: `"\"\\\/\b\f\r\té\u00e9\ud83d\ude00"`, want: "\"\\/\b\f\r\téé😀\n"},
		{name: "half a surrogate pair", message: `"\ud83dx"`, want: "\ufffdx\n"},
		{name: "bytes", message: `[104,105,0,255,10]`, want: "hi\x00\xff\n"},
		{name: "bytes with spaces", message: `[ 104, 105 ]`, want: "hi\n"},
		{name: "no bytes", message: `[]`, want: "\n"},
		{name: "given twice", message: `["a","b"]`, want: "a\nb\n"},
		{name: "given twice, once as bytes, once too long", message: `[[104,105], null, "b]"]`, want: "hi\nb]\n"},
		{name: "too long", message: `null`, none: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := parseEntry([]byte(`{"A":"\"_PID\":\"1\"", "__CURSOR" : "s=1;i=2","N":null,"_PID":"77","MESSAGE":` + tt.message +
				`,"_SYSTEMD_UNIT":"a.service","__REALTIME_TIMESTAMP":"1795363656429332"}` + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			got := []string{string(e.cursor), string(e.pid), string(jsonscan.Unquote(e.unit)), e.time().UTC().Format(time.RFC3339Nano)}
			want := []string{"s=1;i=2", "77", "a.service", "2026-11-22T16:07:36.429332Z"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
			text, ok := e.appendText(nil)
			if ok == tt.none {
				t.Errorf("has text: %v", ok)
			}
			if diff := cmp.Diff(tt.want, string(text)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEntrySyntax(t *testing.T) {
	for _, line := range []string{
		"", "{", `{"a"`, `{"a":`, `{"a":}`, `{"a":"b"`, `{"a":"b",`, `{"a":"b",}`, `{"a":"b" "c":"d"}`, `{"a":"b\"}`, `{"a":[1,2}`,
		`{"a":["b}`, `{"a":{"b":"c"}}`, `{"a":]}`, `-- Boot --`, "No entries",
	} {
		if e, err := parseEntry([]byte(line)); err == nil {
			t.Errorf("parseEntry(%q) = %+v, want an error", line, e)
		}
	}
}

// FuzzEntry compares with encoding/json wherever that one can read the
// line too.
func FuzzEntry(f *testing.F) {
	for _, m := range []string{`"a\nb\u00e9"`, `[104,105]`, `["a",[98]]`, `null`, `[[]]`, `[null]`, `[ ]`, `"\ud83d\ude00\ud83d"`} {
		f.Add([]byte(`{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1","_PID":"1","_SYSTEMD_UNIT":"a","SYSLOG_IDENTIFIER":"b","MESSAGE":` + m + `}`))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseEntry(line)
		var text []byte
		var ok bool
		if err == nil {
			text, ok = e.appendText(nil)
		}
		var want struct{ MESSAGE json.RawMessage }
		if json.Unmarshal(line, &want) != nil || !utf8.Valid(line) || bytes.Count(line, []byte{'{'}) != 1 {
			return
		}
		if err != nil {
			t.Fatalf("refused, but it is JSON: %q", line)
		}
		if bytes.Contains(line, []byte(`\u`)) || bytes.Count(bytes.ToUpper(line), []byte(`"MESSAGE"`)) != 1 {
			return // keys with escapes or in small letters, keys given twice: not what journalctl prints
		}
		wantText, ok2, known := referenceText(want.MESSAGE)
		if known && (ok != ok2 || !bytes.Equal(text, wantText)) {
			t.Fatalf("text %q, %v; want %q, %v", text, ok, wantText, ok2)
		}
	})
}

// referenceText is appendText by encoding/json; known is false for values that
// no journal entry has.
func referenceText(m json.RawMessage) (text []byte, ok, known bool) {
	var value any
	if json.Unmarshal(m, &value) != nil {
		return nil, false, false
	}
	one := func(value any) (text string, ok, known bool) {
		switch v := value.(type) {
		case nil:
			return "", false, true
		case string:
			text = v
		case []any:
			if bytes.ContainsAny(m, "-.eE") {
				return "", false, false
			}
			for _, b := range v {
				n, isNumber := b.(float64)
				if !isNumber || n > 255 {
					return "", false, false
				}
				text += string([]byte{byte(n)})
			}
		default:
			return "", false, false
		}
		return strings.TrimSuffix(text, "\n") + "\n", true, true
	}
	list, isList := value.([]any)
	if _, isBytes, bytesKnown := one(value); !isList || isBytes && bytesKnown {
		s, ok, known := one(value)
		return []byte(s), ok, known
	}
	for _, v := range list {
		s, some, known := one(v)
		if !known {
			return nil, false, false
		}
		text, ok = append(text, s...), ok || some
	}
	return text, ok, true
}

func TestRetry(t *testing.T) {
	var got []string
	for _, failures := range []int{1, 2, 3, 6, 7, 100, 1 << 40} {
		got = append(got, backoff(failures).String())
	}
	if diff := cmp.Diff([]string{"1s", "2s", "4s", "32s", "1m0s", "1m0s", "1m0s"}, got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestNewUnits(t *testing.T) {
	tests := []struct {
		units, filter []string
		wants, not    []string
		err           bool
	}{
		{units: nil, err: true},
		{units: []string{""}, err: true},
		{units: []string{"uwsgi@[.service"}, err: true},
		{
			units:  []string{"uwsgi.service", `uwsgi@a\x2db.service`},
			filter: []string{"_SYSTEMD_UNIT=uwsgi.service", `_SYSTEMD_UNIT=uwsgi@a\x2db.service`},
			wants:  []string{"uwsgi.service", `uwsgi@a\\x2db.service`},
			not:    []string{"uwsgi2.service", ""},
		},
		{
			units: []string{"uwsgi@*.service", "app.service"},
			wants: []string{"uwsgi@a.service", "app.service", `uwsgi@a\\x2db.service`},
			not:   []string{"uwsgi.service", "uwsgi@a.socket", ""},
		},
		{
			units: []string{"*"},
			wants: []string{"session-1.scope"},
			not:   []string{"qwatch.service", "qwatch-audit.service"},
		},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.units, " "), func(t *testing.T) {
			j, err := New(Options{Units: tt.units}, func(tailer.Chunk) {})
			if err != nil {
				if !tt.err {
					t.Fatal(err)
				}
				return
			}
			if tt.err {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.filter, j.filter); diff != "" {
				t.Errorf("filter (-want +got):\n%s", diff)
			}
			for _, u := range tt.wants {
				if j.unit(fmt.Appendf(nil, `"%s"`, u)).pattern < 0 {
					t.Errorf("%q is not wanted", u)
				}
			}
			for _, u := range tt.not {
				if j.unit(fmt.Appendf(nil, `"%s"`, u)).pattern >= 0 {
					t.Errorf("%q is wanted", u)
				}
			}
		})
	}
}

// rig runs a Journal against testdata/journalctl.
type rig struct {
	t       *testing.T
	dir     string
	opts    Options
	cancel  context.CancelFunc
	done    chan error
	journal *Journal
	chunks  chan tailer.Chunk

	mu      sync.Mutex
	reports []string
}

func newRig(t *testing.T, parts ...string) *rig {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("FAKE", dir)
	r := &rig{t: t, dir: dir}
	r.parts(parts...)
	command, err := filepath.Abs("testdata/journalctl")
	if err != nil {
		t.Fatal(err)
	}
	r.opts = Options{
		Units:     []string{"a.service"},
		StateFile: filepath.Join(dir, "journal.cursor"),
		Command:   command,
		Report: func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reports = append(r.reports, err.Error())
		},
	}
	return r
}

// parts says what the fake does from its next start on.
func (r *rig) parts(parts ...string) {
	r.t.Helper()
	os.Remove(filepath.Join(r.dir, "starts"))
	for i, p := range parts {
		if err := os.WriteFile(filepath.Join(r.dir, fmt.Sprint("part.", i+1)), []byte(p), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) start() {
	r.t.Helper()
	r.chunks = make(chan tailer.Chunk, 100)
	j, err := New(r.opts, func(c tailer.Chunk) {
		c.Text = bytes.Clone(c.Text)
		r.chunks <- c
	})
	if err != nil {
		r.t.Fatal(err)
	}
	j.backoff = func(int) time.Duration { return time.Millisecond }
	ctx, cancel := context.WithCancel(r.t.Context())
	r.journal, r.cancel, r.done = j, cancel, make(chan error, 1)
	go func() { r.done <- j.Run(ctx) }()
	<-j.Ready()
	r.t.Cleanup(r.stop)
}

func (r *rig) stop() {
	if r.cancel == nil {
		return
	}
	// An entry that is still being handled would be read again.
	if err := r.journal.Alive(context.Background()); err != nil {
		r.t.Error(err)
	}
	r.cancel()
	r.cancel = nil
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

// wants waits for these texts, and for nothing else before them.
func (r *rig) wants(texts ...string) (last tailer.Chunk) {
	r.t.Helper()
	for _, want := range texts {
		select {
		case last = <-r.chunks:
			if diff := cmp.Diff(want, string(last.Text)); diff != "" {
				r.t.Fatalf("text (-want +got):\n%s", diff)
			}
		case <-time.After(20 * time.Second):
			r.t.Fatalf("%q did not come; status %+v", want, r.journal.Status())
		}
	}
	return last
}

func (r *rig) file(name string) string {
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *rig) reported() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.reports)
}

// eventually waits for something that another process or goroutine does.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

// say is a shell command that prints entry number n of a.service, unless other
// fields are given as "NAME=value".
func say(n int, fields ...string) string {
	e := map[string]string{
		"__CURSOR":             fmt.Sprintf("s=f;i=%d", n),
		"__REALTIME_TIMESTAMP": fmt.Sprint(1_700_000_000_000_000 + n),
		"_SYSTEMD_UNIT":        "a.service",
		"_PID":                 "99999999",
		"SYSLOG_IDENTIFIER":    "uwsgi",
		"MESSAGE":              fmt.Sprint("m", n),
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		e[name] = value
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return "cat <<'END'\n" + string(b) + "\nEND\n"
}

func TestRestartsAtCursor(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := newRig(t,
		say(1)+say(2)+`printf '{"__CURS'; echo boom >&2; exit 3`,
		say(2)+say(3)+`echo boom >&2; exit 3`,
		say(3)+say(4))
	r.start()
	last := r.wants("m1\n", "m2\n", "m3\n", "m4\n")
	r.stop()
	last.Text = nil
	want := tailer.Chunk{Source: "journal:a.service", Name: "a.service", Time: time.UnixMicro(1_700_000_000_000_004), Stood: time.UnixMicro(1_700_000_000_000_004), PID: 99999999, Unit: "a.service"}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("chunk (-want +got):\n%s", diff)
	}
	args := strings.Split(strings.TrimSpace(r.file("args")), "\n")
	common := "--follow --merge --output=json --output-fields=MESSAGE,_PID,_SYSTEMD_UNIT,SYSLOG_IDENTIFIER --all --no-tail --no-pager "
	if id, err := os.ReadFile(machineID); err == nil {
		common += "_MACHINE_ID=" + strings.TrimSpace(string(id)) + " "
	}
	wantArgs := []string{common + "--since=@T", common + "--cursor=s=f;i=2", common + "--cursor=s=f;i=3"}
	args[0] = args[0][:strings.Index(args[0], "@")] + "@T" + args[0][strings.LastIndex(args[0], " "):]
	for i := range wantArgs {
		wantArgs[i] += " _SYSTEMD_UNIT=a.service"
	}
	if diff := cmp.Diff(wantArgs, args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{r.opts.Command + " ended: exit status 3: boom"}, r.reported()); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]tailer.Status{{Name: "a.service", Kind: "journal", Lines: 4, Bytes: 12}}, r.journal.Status()); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestPositionOverRestart(t *testing.T) {
	r := newRig(t, say(1)+say(2))
	r.start()
	r.wants("m1\n", "m2\n")
	r.eventually("the position is saved while nothing comes", func() bool { return strings.Contains(r.file("journal.cursor"), "i=2") })
	idle, err := os.Stat(r.opts.StateFile)
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	if now, err := os.Stat(r.opts.StateFile); err != nil || !os.SameFile(idle, now) {
		t.Errorf("written again without need (%v)", err)
	}

	r.parts(say(2) + say(3))
	r.start()
	r.wants("m3\n")
	r.stop()
	if got, want := r.file("journal.cursor"), `{"cursor":"s=f;i=3","time":"`+time.UnixMicro(1_700_000_000_000_003).Format(time.RFC3339Nano)+`","units":["a.service"]}`+"\n"; got != want {
		t.Errorf("state file %q, want %q", got, want)
	}
	if len(r.reported()) > 0 {
		t.Errorf("reports: %q", r.reported())
	}

	// Entry 3 and perhaps more have been vacuumed away.
	r.parts(say(7))
	r.start()
	r.wants("m7\n")
	r.stop()
	if diff := cmp.Diff([]string{ErrGap.Error()}, r.reported()); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
	if got := r.journal.Status()[0].Truncations; got != 1 {
		t.Errorf("truncations %d, want 1", got)
	}

	// Other units: entry 7 is not among them, which says nothing.
	r.reports = nil
	r.opts.Units = []string{"a.service", "b.service"}
	r.parts(say(8))
	r.start()
	r.wants("m8\n")
	r.stop()
	if len(r.reported()) > 0 {
		t.Errorf("reports: %q", r.reported())
	}
}

func TestFirstStart(t *testing.T) {
	for _, fromStart := range []bool{false, true} {
		t.Run(fmt.Sprint("from start ", fromStart), func(t *testing.T) {
			r := newRig(t)
			r.opts.FromStart = fromStart
			before := time.Now()
			for range 2 { // nothing is logged: the second start is like the first
				r.start()
				r.eventually("the child has started", func() bool { return r.file("pid") != "" })
				r.stop()
				os.Remove(filepath.Join(r.dir, "pid"))
			}
			args := strings.Split(strings.TrimSpace(r.file("args")), "\n")
			if len(args) != 2 || args[0] != args[1] {
				t.Fatalf("arguments differ: %q", args)
			}
			_, since, found := strings.Cut(args[0], "--since=@")
			if found == fromStart {
				t.Fatalf("arguments %q", args[0])
			}
			if found {
				var sec, usec int64
				if _, err := fmt.Sscanf(since, "%d.%06d ", &sec, &usec); err != nil {
					t.Fatal(err)
				}
				if at := time.UnixMicro(sec*1e6 + usec); at.Before(before.Truncate(time.Microsecond)) || at.After(time.Now()) {
					t.Errorf("since %v, want a time after %v", at, before)
				}
			}
		})
	}
}

func TestBadCursor(t *testing.T) {
	r := newRig(t, `echo "Failed to seek to cursor: Invalid argument" >&2; exit 1`, say(5))
	p := position{Cursor: "rubbish", Time: time.UnixMicro(1_600_000_000_000_007), Units: r.opts.Units}
	if err := p.save(r.opts.StateFile); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.wants("m5\n")
	r.stop()
	if got := r.file("args"); !strings.Contains(got, "--since=@1600000000.000007 ") {
		t.Errorf("arguments %q", got)
	}
	if got := r.reported(); !slices.Contains(got, ErrGap.Error()) {
		t.Errorf("reports %q", got)
	}
}

func TestBadStateFile(t *testing.T) {
	r := newRig(t, say(1))
	if err := os.WriteFile(r.opts.StateFile, []byte(`{"cursor":`), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.wants("m1\n")
	r.stop()
	if got := r.reported(); len(got) != 1 || !strings.Contains(got[0], r.opts.StateFile) {
		t.Errorf("reports %q", got)
	}
}

func TestPicksEntries(t *testing.T) {
	self := fmt.Sprint("_PID=", os.Getpid())
	r := newRig(t,
		say(1, "_SYSTEMD_UNIT=b@x.service")+
			say(2, "_SYSTEMD_UNIT=c.service")+
			say(3, self)+
			say(4, "SYSLOG_IDENTIFIER=qwatch")+
			say(5, "_SYSTEMD_UNIT=qwatch.service")+
			"echo not JSON\n"+
			`head -c 3000000 /dev/zero | tr '\0' x; echo`+"\n"+
			say(6, "MESSAGE="+strings.Repeat("y", 200_000))+
			say(7))
	r.opts.Units = []string{"a.service", "b@*", "q*"}
	r.start()
	last := r.wants("m1\n", strings.Repeat("y", 200_000)+"\n", "m7\n")
	if last.Unit != "a.service" {
		t.Errorf("unit %q", last.Unit)
	}
	r.stop()
	want := []tailer.Status{
		{Name: "a.service", Kind: "journal", Lines: 2, Bytes: 200_004},
		{Name: "b@*", Kind: "journal", Lines: 1, Bytes: 3},
		{Name: "q*", Kind: "journal"},
	}
	if diff := cmp.Diff(want, r.journal.Status()); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	wantReports := []string{
		r.opts.Command + ` printed a line that is not a journal entry: "not JSON\n"`,
		"journal: entries longer than 1048576 bytes are skipped, 1 so far",
	}
	if diff := cmp.Diff(wantReports, r.reported()); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
	if got := r.file("args"); strings.Contains(got, "_SYSTEMD_UNIT=") {
		t.Errorf("a pattern was given to journalctl: %q", got)
	}
	if got := r.file("journal.cursor"); !strings.Contains(got, "i=7") {
		t.Errorf("state file %q", got)
	}
}

func TestTrouble(t *testing.T) {
	t.Run("no journalctl", func(t *testing.T) {
		r := newRig(t)
		r.opts.Command = filepath.Join(r.dir, "none")
		r.start()
		err := r.journal.Status()[0].Error
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("status error %v", err)
		}
		r.stop()
		if len(r.reported()) != 1 {
			t.Errorf("reports %q", r.reported())
		}
	})
	t.Run("only own entries", func(t *testing.T) {
		hint := "echo 'Hint: You are currently not seeing messages from other users and the system.' >&2\n" +
			"echo '      Pass -q to turn off this notice.' >&2\n"
		r := newRig(t, hint+"exit 1", hint)
		r.start()
		r.eventually("it is started again, and the hint is in the status", func() bool {
			return r.file("starts") == "2\n" && errors.Is(r.journal.Status()[0].Error, ErrRights)
		})
		r.stop()
		if n := len(slices.DeleteFunc(r.reported(), func(s string) bool { return s != ErrRights.Error() })); n != 1 {
			t.Errorf("reports %q", r.reported())
		}
	})
	t.Run("no entries at all", func(t *testing.T) {
		r := newRig(t, "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1")
		r.start()
		r.eventually("it is reported", func() bool { return len(r.reported()) > 0 })
		r.stop()
		if want := r.opts.Command + " ended: " + ErrRights.Error() + ": No journal files were opened due to insufficient permissions."; r.reported()[0] != want {
			t.Errorf("report %q, want %q", r.reported()[0], want)
		}
	})
	t.Run("state file not writable", func(t *testing.T) {
		r := newRig(t, say(1)+say(2))
		r.opts.StateFile = filepath.Join(r.dir, "none", "journal.cursor")
		r.start()
		r.wants("m1\n", "m2\n")
		r.stop()
		if len(r.reported()) != 1 {
			t.Errorf("reports %q", r.reported())
		}
	})
}

// A child that will not end by itself, and has a child of its own that holds
// its standard output, is gone when Run returns.
func TestStopsChild(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := newRig(t, "sleep 1000 & echo $! >$FAKE/grandchild; trap '' TERM INT\n"+say(1)+"wait")
	r.start()
	r.wants("m1\n")
	r.stop()
	var pid, grandchild int
	fmt.Sscan(r.file("pid"), &pid)
	fmt.Sscan(r.file("grandchild"), &grandchild)
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child is still there: %v", err)
	}
	if err := syscall.Kill(grandchild, syscall.SIGKILL); err != nil {
		t.Errorf("the grandchild was to live: %v", err)
	}
}

// What a handler gave up because of the end is read again.
func TestHandlerGivesUp(t *testing.T) {
	r := newRig(t, say(1)+say(2)+say(3))
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	handling := make(chan struct{})
	j, err := New(r.opts, func(c tailer.Chunk) {
		if got = append(got, string(c.Text)); len(got) == 2 {
			close(handling)
			<-ctx.Done()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- j.Run(ctx) }()
	<-handling
	soon, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if err := j.Alive(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("alive while the handler blocks: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"m1\n", "m2\n"}, got); diff != "" {
		t.Errorf("handed over (-want +got):\n%s", diff)
	}
	if err := j.Alive(t.Context()); err != nil {
		t.Errorf("alive after the end: %v", err)
	}

	r.parts(say(1) + say(2) + say(3))
	r.start()
	r.wants("m2\n", "m3\n")
	if err := r.journal.Alive(t.Context()); err != nil {
		t.Errorf("alive while nothing comes: %v", err)
	}
	r.stop()
}

func TestPassesByWithoutAllocating(t *testing.T) {
	j, err := New(Options{Units: []string{"a@*"}}, func(tailer.Chunk) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range []string{"foreign.service", "a@1.service"} {
		line := fmt.Appendf(nil, `{"__CURSOR":"s=1;i=2","_SYSTEMD_UNIT":%q,"MESSAGE":"a\"b","_PID":"1","__REALTIME_TIMESTAMP":"1795363656429332"}`, unit)
		pass := func() {
			e, err := parseEntry(line)
			if err != nil {
				t.Fatal(err)
			}
			j.take(e)
		}
		pass()
		if n := testing.AllocsPerRun(100, pass); n > 0 {
			t.Errorf("%s: %v allocations", unit, n)
		}
	}
}
