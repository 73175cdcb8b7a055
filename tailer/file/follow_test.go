package file

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"qwatch/matcher"
	"qwatch/tailer"
)

// follow runs a Files until the test or stop ends it.
func follow(t *testing.T, opt Options, h tailer.Handler) (f *Files, stop func()) {
	t.Helper()
	f, stop, err := begin(opt, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return f, stop
}

// begin runs a Files until stop is called.
func begin(opt Options, h tailer.Handler) (f *Files, stop func(), err error) {
	opt.Cut, opt.Continues = matcher.Cut, matcher.Continues
	f, err = New(opt, h)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }() // Run has no error but nil
	<-f.Ready()
	return f, func() { cancel(); <-done }, nil
}

// waitFor says whether ok becomes true within 20 s.
func waitFor(ok func() bool) bool {
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// until waits for what must come.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !waitFor(ok) {
		t.Fatalf("not within 20 s: %s", what)
	}
}

// idle waits until all that a rotation may have left has been searched for, and
// no file is busy.
func idle(f *Files) bool {
	<-f.Ready()
	return waitFor(func() (is bool) {
		answered := make(chan struct{})
		f.later(func() { is = len(f.searches)+len(f.busy) == 0; close(answered) })
		<-answered
		return is
	})
}

// sink collects text and events.
type sink struct {
	mu     sync.Mutex
	text   bytes.Buffer
	fences int // lines of the fence
	fence  string
	hold   chan struct{} // not nil: the next text of another source waits for its end
	held   chan struct{} // ended when it waits
	events []Event
}

func (s *sink) handle(c tailer.Chunk) {
	s.mu.Lock()
	if c.Source == s.fence {
		s.fences += bytes.Count(c.Text, []byte{'\n'})
		s.mu.Unlock()
		return
	}
	s.text.Write(c.Text)
	hold, held := s.hold, s.held
	s.hold = nil
	s.mu.Unlock()
	if hold != nil {
		close(held)
		<-hold
	}
}

func (s *sink) event(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// kinds lists the kinds of events, each once.
func (s *sink) kinds() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.events {
		if k := string(e.Kind); !strings.Contains(strings.Join(all, " "), k) {
			all = append(all, k)
		}
	}
	return strings.Join(all, " ")
}

// lines makes numbered lines.
func lines(what string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %d of %d, and some words to make it long enough\n", what, i, n)
	}
	return b.String()
}

// scene is a script of testdata/follow: a directory with logs, and a reader that
// can be stopped and started.
type scene struct {
	sink
	opt    Options
	files  *Files
	stop   func()
	writer *os.File // of the command open
	want   string   // all text that was handed over so far
	passed int      // fences so far
	freed  chan struct{}
}

// TestFollow plays the scenes. What is written is told apart by who may see it.
func TestFollow(t *testing.T) {
	commands := map[string]func(*scene, *testscript.TestScript, []string){
		"all": (*scene).all, "broken-state": (*scene).broken, "compress": compress, "fifo": fifo,
		"follow": (*scene).follow, "gets": (*scene).gets, "globs": (*scene).globs, "held": (*scene).waitHeld,
		"hold": (*scene).holdNext, "open": (*scene).open, "overwrite": overwrite, "pause": pauseFor,
		"put": (*scene).put, "quiet": (*scene).quiet, "release": (*scene).release, "saved-now": (*scene).savedNow,
		"seek": (*scene).seek, "status": (*scene).status, "step": (*scene).step, "told": (*scene).told, "truncate": truncate,
		"truncations": (*scene).truncations, "unfollow": (*scene).unfollow, "write": writeTo,
	}
	cmds := map[string]func(*testscript.TestScript, bool, []string){}
	for name, do := range commands {
		cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg {
				ts.Fatalf("%s cannot be negated", name)
			}
			do(ts.Value("scene").(*scene), ts, append(args, "", "")) // what is missing is empty
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "follow"),
		Setup: func(e *testscript.Env) error {
			// The fence and the state stand where no scene looks.
			aside, err := os.MkdirTemp("", "follow")
			if err != nil {
				return err
			}
			s := &scene{stop: func() {}}
			s.fence = filepath.Join(aside, "fence")
			s.opt = Options{
				Globs:     []string{s.fence, filepath.Join(e.WorkDir, "app.log")},
				StateFile: filepath.Join(aside, "positions"),
				Events:    s.event,
			}
			e.Values["scene"] = s
			e.Defer(func() {
				s.release(nil, nil)
				s.stop()
				s.writer.Close()
				os.RemoveAll(aside)
			})
			return os.WriteFile(s.fence, nil, 0o644)
		},
		Cmds: cmds,
	})
}

var repeated = regexp.MustCompile(`\{(\d+)\*([\w-]+)\}`)

// text is what an argument stands for: \n, \r, \x00 and \xff are bytes, {10*old}
// is ten lines.
func text(arg string) string {
	arg = repeated.ReplaceAllStringFunc(arg, func(s string) string {
		part := repeated.FindStringSubmatch(s)
		n, _ := strconv.Atoi(part[1])
		return lines(part[2], n)
	})
	return strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\x00`, "\x00", `\xff`, "\xff").Replace(arg)
}

// globs PATTERN...: what is followed instead of app.log
func (s *scene) globs(ts *testscript.TestScript, args []string) {
	s.opt.Globs = s.opt.Globs[:1]
	for _, g := range args[:len(args)-2] {
		s.opt.Globs = append(s.opt.Globs, ts.MkAbs(g))
	}
}

// follow [from-start]: the reader starts
func (s *scene) follow(ts *testscript.TestScript, args []string) {
	s.opt.FromStart = args[0] == "from-start"
	var err error
	s.files, s.stop, err = begin(s.opt, s.handle)
	ts.Check(err)
}

// unfollow: the reader stops
func (s *scene) unfollow(ts *testscript.TestScript, _ []string) {
	s.stop()
	s.compare(ts)
}

// gets TEXT: just this comes
func (s *scene) gets(ts *testscript.TestScript, args []string) {
	s.want += text(args[0])
	waitFor(func() bool { return len(s.String()) >= len(s.want) })
	s.pass(ts)
}

// all TEXT...: just these come, in any order
func (s *scene) all(ts *testscript.TestScript, args []string) {
	before := len(s.want)
	sum := before
	for _, a := range args {
		sum += len(text(a))
	}
	waitFor(func() bool { return len(s.String()) >= sum })
	got := s.String()[before:]
	for _, a := range args[:len(args)-2] {
		if strings.Count(got, text(a)) != 1 {
			ts.Fatalf("%q is not there once in %q", text(a), got)
		}
	}
	if s.want += got; len(s.want) != sum {
		ts.Fatalf("more than was written: %q", got)
	}
	s.pass(ts)
}

// quiet: nothing else comes, however long one waits
func (s *scene) quiet(ts *testscript.TestScript, _ []string) {
	if !idle(s.files) {
		ts.Fatalf("the reader does not come to rest")
	}
	s.pass(ts)
	s.stop()
	s.compare(ts)
}

// pass proves that nothing more has come: a line of the fence, which is written
// now, is read behind it.
func (s *scene) pass(ts *testscript.TestScript) {
	s.passed++
	appendTo(ts.Check, s.fence, "fence\n")
	if !waitFor(func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.fences >= s.passed
	}) {
		ts.Fatalf("the fence did not come")
	}
	s.compare(ts)
}

func (s *scene) compare(ts *testscript.TestScript) {
	if diff := cmp.Diff(s.want, s.String()); diff != "" {
		ts.Fatalf("text (-want +got):\n%s\nevents: %v", diff, s.kinds())
	}
}

// hold: the handler blocks at the next text
func (s *scene) holdNext(*testscript.TestScript, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.freed = make(chan struct{}), make(chan struct{})
	s.hold = s.freed
}

// held: wait until it blocks
func (s *scene) waitHeld(*testscript.TestScript, []string) { <-s.held }

// release: it goes on
func (s *scene) release(*testscript.TestScript, []string) {
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}

// step: it goes on, and blocks at the next text
func (s *scene) step(ts *testscript.TestScript, args []string) {
	freed := s.freed
	s.holdNext(ts, args)
	close(freed)
	s.waitHeld(ts, args)
}

// told [only] KIND: such an event comes, or has come; only: and no other kind
func (s *scene) told(ts *testscript.TestScript, args []string) {
	if args[0] == "only" {
		if !waitFor(func() bool { return s.kinds() == args[1] }) {
			ts.Fatalf("told: %s", s.kinds())
		}
	} else if !waitFor(func() bool { return strings.Contains(s.kinds(), args[0]) }) {
		ts.Fatalf("told: %s", s.kinds())
	}
}

func (s *scene) log(ts *testscript.TestScript) tailer.Status {
	all := s.files.Status()
	if len(all) != 2 || all[0].Name == all[1].Name {
		ts.Fatalf("status: %+v", all)
	}
	if all[0].Name == s.fence {
		return all[1]
	}
	return all[0]
}

// status ok|error: there is one name, and this is how it fares
func (s *scene) status(ts *testscript.TestScript, args []string) {
	if st := s.log(ts); (st.Error == nil) != (args[0] == "ok") {
		ts.Fatalf("status: %+v", st)
	}
}

// truncations N: so often text was lost, or may have been
func (s *scene) truncations(ts *testscript.TestScript, args []string) {
	if st := s.log(ts); strconv.FormatUint(st.Truncations, 10) != args[0] {
		ts.Fatalf("status: %+v", st)
	}
}

// saved-now: the positions are as old as this
func (s *scene) savedNow(ts *testscript.TestScript, _ []string) {
	data, err := os.ReadFile(s.opt.StateFile)
	ts.Check(err)
	c, err := decodeCheckpoint(data)
	ts.Check(err)
	c.Saved = time.Now()
	data, err = json.Marshal(c)
	ts.Check(err)
	ts.Check(os.WriteFile(s.opt.StateFile, data, 0o600))
}

// broken-state: the positions cannot be read
func (s *scene) broken(ts *testscript.TestScript, _ []string) {
	ts.Check(os.WriteFile(s.opt.StateFile, []byte("{"), 0o600))
}

// open FILE: a writer without O_APPEND keeps it open, at its end
func (s *scene) open(ts *testscript.TestScript, args []string) {
	var err error
	s.writer, err = os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_WRONLY, 0o644)
	ts.Check(err)
	_, err = s.writer.Seek(0, io.SeekEnd)
	ts.Check(err)
}

// put TEXT: it writes
func (s *scene) put(ts *testscript.TestScript, args []string) {
	_, err := s.writer.WriteString(text(args[0]))
	ts.Check(err)
}

// seek OFFSET: it goes there
func (s *scene) seek(ts *testscript.TestScript, args []string) {
	at, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	_, err = s.writer.Seek(at, io.SeekStart)
	ts.Check(err)
}

// write FILE TEXT: append to it
func writeTo(_ *scene, ts *testscript.TestScript, args []string) {
	appendTo(ts.Check, ts.MkAbs(args[0]), text(args[1]))
}

func appendTo(check func(error), path, text string) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	check(err)
	defer file.Close()
	_, err = io.WriteString(file, text)
	check(err)
}

// overwrite FILE TEXT: cut it in place, then write
func overwrite(_ *scene, ts *testscript.TestScript, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text(args[1])), 0o644))
}

// truncate FILE
func truncate(_ *scene, ts *testscript.TestScript, args []string) {
	ts.Check(os.Truncate(ts.MkAbs(args[0]), 0))
}

// fifo FILE
func fifo(_ *scene, ts *testscript.TestScript, args []string) {
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o600))
}

// pause DURATION
func pauseFor(_ *scene, ts *testscript.TestScript, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}

// compress FROM TO, which ends in .gz or .zst
func compress(_ *scene, ts *testscript.TestScript, args []string) {
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if strings.HasSuffix(args[1], ".zst") {
		var err error
		w, err = zstd.NewWriter(&b)
		ts.Check(err)
	}
	io.WriteString(w, ts.ReadFile(args[0]))
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b.Bytes(), 0o644))
	ts.Check(os.Remove(ts.MkAbs(args[0])))
}
