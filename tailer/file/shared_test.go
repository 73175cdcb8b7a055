package file

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qwatch/internal/testbed"
	"qwatch/matcher"
	"qwatch/tailer"
)

// team are several followers with one registry.
type team struct {
	t      *testing.T
	state  string
	ledger ledger
	handle tailer.Handler // the ledger's, if nothing else
	told   sink
	shared *Registry
	all    []*mate
	n      int // numbered lines written so far
}

type mate struct {
	*Files
	cancel context.CancelFunc
	done   chan struct{}
}

func newTeam(t *testing.T) *team {
	w := &team{t: t, state: filepath.Join(t.TempDir(), "positions")}
	w.handle = w.ledger.handle
	t.Cleanup(w.stop)
	return w
}

// start starts a follower for each list of globs, and does not wait for it.
func (w *team) start(globs ...[]string) {
	if w.shared == nil {
		w.shared = NewRegistry(w.state, w.told.event)
	}
	var made []*mate
	for _, g := range globs {
		f, err := New(Options{Globs: g, Registry: w.shared, Cut: matcher.Cut, Continues: matcher.Continues, Events: w.told.event}, w.handle)
		if err != nil {
			w.t.Fatal(err)
		}
		made = append(made, &mate{Files: f, done: make(chan struct{})})
	}
	for _, m := range made {
		var ctx context.Context
		ctx, m.cancel = context.WithCancel(context.Background())
		go func() { m.Run(ctx); close(m.done) }()
	}
	w.all = append(w.all, made...)
}

func (w *team) ready() {
	w.t.Helper()
	for _, m := range w.all {
		until(w.t, m.String()+" is ready", func() bool {
			select {
			case <-m.Ready():
				return true
			default:
				return false
			}
		})
	}
}

func (w *team) stop() {
	for _, m := range w.all {
		m.cancel()
	}
	for _, m := range w.all {
		<-m.done
	}
	w.all, w.shared = nil, nil
}

// write appends numbered lines to a file.
func (w *team) write(path string, lines int) {
	w.t.Helper()
	var text strings.Builder
	for range lines {
		text.Write(numbered(w.n))
		w.n++
	}
	write(w.t, path, text.String())
}

// once waits until all lines that were written are there, and looks whether one
// came twice.
func (w *team) once() {
	w.t.Helper()
	all := func() bool {
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		return len(w.ledger.seen) == w.n
	}
	if !waitFor(all) {
		w.t.Errorf("lines are missing")
	}
	for range 2 { // the second may have something to do as the first has let something go
		for _, m := range w.all {
			if !idle(m.Files) {
				w.t.Errorf("%s does not come to rest", m)
			}
		}
	}
	if v := w.ledger.judge(w.n, nil); v != (verdict{}) {
		w.t.Fatalf("of %d lines: %+v; told: %v; %v", w.n, v, w.told.events, w.ledger.seen)
	}
}

// Two followers whose names lead to the same files hand each line over once.
func TestSharedInode(t *testing.T) {
	for _, kind := range []string{"hard link", "symlink", "same glob"} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarts %v", kind, restart), func(t *testing.T) {
				w := newTeam(t)
				one, two := t.TempDir(), t.TempDir()
				app, web := filepath.Join(one, "app.log"), filepath.Join(two, "web.log")
				globs := [][]string{{filepath.Join(one, "*")}, {filepath.Join(two, "*")}}
				write(t, app, "")
				switch kind {
				case "hard link":
					must(t, os.Link(app, web))
				case "symlink":
					must(t, os.Symlink(app, web))
				default:
					globs[1], web = globs[0], app
				}
				w.start(globs...)
				w.ready()
				round := func(what string, do func()) {
					t.Helper()
					do()
					if w.once(); t.Failed() {
						t.Fatalf("after: %s", what)
					}
					if restart {
						w.stop()
						w.start(globs...)
						w.ready()
					}
				}
				copyTruncate := func(path, to string) {
					copyFile(t, path, to)
					must(t, os.Truncate(path, 0))
				}
				round("lines", func() { w.write(app, 100); w.write(web, 100) })
				round("copytruncate", func() { copyTruncate(app, app+".1"); w.write(web, 50) })
				round("copytruncate by the other name", func() { copyTruncate(web, web+".2"); w.write(app, 50) })
				round("rename", func() {
					rename(t, app, app+".3")
					w.write(app, 30)
					w.write(web, 30)
					w.write(app+".3", 30)
				})
				round("rename of the other name", func() {
					if kind == "symlink" {
						must(t, os.Remove(web))
					} else {
						rename(t, web, web+".4")
					}
					w.write(web, 30)
					w.write(app, 30)
				})
				if kinds := w.told.kinds(); strings.Contains(kinds, "lost") || strings.Contains(kinds, "unreadable") {
					t.Errorf("told: %v", w.told.events)
				}
			})
		}
	}
}

// What was not read when a file was cut stands in a copy that only the follower of
// another name sees.
func TestCopyBesideAnotherName(t *testing.T) {
	w := newTeam(t)
	one, two := t.TempDir(), t.TempDir()
	app, web := filepath.Join(one, "app.log"), filepath.Join(two, "web.log")
	gate, held := make(chan struct{}), make(chan struct{}, 1)
	w.handle = func(c tailer.Chunk) {
		w.ledger.handle(c)
		select {
		case held <- struct{}{}:
			<-gate
		default:
		}
	}
	write(t, app, "")
	must(t, os.Link(app, web))
	w.start([]string{app})
	w.ready()
	w.start([]string{filepath.Join(two, "*")})
	w.ready()
	w.write(app, 10)
	until(t, "the first is held", func() bool { return len(held) == 1 })
	w.write(app, 10)
	copyFile(t, web, web+".1")
	must(t, os.Truncate(web, 0))
	w.write(app, 5)
	close(gate)
	w.once()
	w.stop()
	w.write(web, 10)
	w.start([]string{app}, []string{filepath.Join(two, "*")})
	w.once()
}

// What the owner of an inode lets go the other one reads on, from where it was.
func TestOwnerLetsGo(t *testing.T) {
	w := newTeam(t)
	one, two := t.TempDir(), t.TempDir()
	app, web := filepath.Join(one, "app.log"), filepath.Join(two, "web.log")
	write(t, app, "")
	w.start([]string{app})
	w.ready()
	must(t, os.Link(app, web))
	w.start([]string{web})
	w.ready()
	w.write(web, 10)
	w.once()
	owns := func(i int) bool {
		all := w.all[i].Status()
		return len(all) == 1 && all[0].Lines > 0
	}
	if !owns(0) || owns(1) {
		t.Errorf("the first does not follow it: %v, %v", w.all[0].Status(), w.all[1].Status())
	}
	must(t, os.Remove(app))
	until(t, "the first lets it go", func() bool {
		w.shared.mu.Lock()
		defer w.shared.mu.Unlock()
		for _, o := range w.shared.owners {
			if o.by == w.all[1].Files {
				return true
			}
		}
		return false
	})
	w.write(web, 10)
	w.once()
	if !owns(1) {
		t.Errorf("%v", w.all[1].Status())
	}
}

// The files of one user have one budget over all followers.
func TestFilesOfOneUserOverAll(t *testing.T) {
	testbed.Needs(t, "root")
	w := newTeam(t)
	const more = 30
	var globs [][]string
	for d := range 2 {
		dir := t.TempDir()
		for i := range maxOfUser/2 + more/2 {
			path := filepath.Join(dir, fmt.Sprintf("%d.log", i))
			write(t, path, "")
			must(t, os.Chown(path, 4711+d/2, -1))
		}
		globs = append(globs, []string{filepath.Join(dir, "*.log")})
	}
	w.start(globs...)
	w.ready()
	n := 0
	for _, m := range w.all {
		n += len(m.Status())
	}
	if n != maxOfUser || w.shared.ofUser(4711) != maxOfUser {
		t.Errorf("%d files are followed", n)
	}
}

// hangs says whether a follower hangs: it is at work, and comes to nothing new.
func hangs(f *Files) bool {
	return waitFor(func() bool {
		before, rests := f.Pulse()
		time.Sleep(200 * time.Millisecond)
		after, restsStill := f.Pulse()
		return !rests && !restsStill && before == after
	})
}

// A file system that hangs keeps none of the others waiting, from before the start
// or later, and when it answers, nothing of it was lost; also over a restart.
func TestHangingFileSystem(t *testing.T) {
	testbed.Needs(t, "fuse")
	w := newTeam(t)
	bad, good := t.TempDir(), t.TempDir()
	fuse := testbed.MountFUSE(t, bad)
	defer fuse.Release()
	grow := func(lines int) {
		for range lines {
			fuse.Append("app.log", string(numbered(w.n)))
			w.n++
		}
	}
	fuse.Append("app.log", "")
	path := filepath.Join(good, "app.log")
	globs := [][]string{{filepath.Join(bad, "*.log")}, {filepath.Join(good, "*.log")}}
	write(t, path, "")
	w.start(globs...)
	w.ready()
	grow(10)
	w.write(path, 10)
	w.once()

	// It begins to hang.
	asked := fuse.Hang()
	<-asked
	if !hangs(w.all[0].Files) {
		t.Fatal("it does not hang")
	}
	seen := func() int {
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		return len(w.ledger.seen)
	}
	prompt := func(lines int) {
		t.Helper()
		want, began := seen()+lines, time.Now()
		w.write(path, lines)
		until(t, "the others' lines", func() bool { return seen() == want })
		t.Logf("the others' lines took %s", time.Since(began))
	}
	prompt(10)
	rename(t, path, path+".1")
	prompt(10)
	grow(10) // nobody sees them yet
	fuse.Append("born.log", string(numbered(w.n)))
	w.n++
	time.Sleep(max(lateAfter, slack)) // then a checkpoint of all would make it none of the news
	w.write(path, 10)
	until(t, "a checkpoint that says what is late", func() bool {
		data, _ := os.ReadFile(w.state)
		var c checkpoint
		return json.Unmarshal(data, &c) == nil && len(c.Late) == 1 && slices.Equal(c.Late[0].Globs, globs[0]) && len(c.Files) == 3
	})

	// It is left behind, as the process ends or the configuration changes, and
	// does not wake.
	first := w.all[0]
	first.cancel()
	first.Leave()
	for _, m := range w.all[1:] {
		m.cancel()
		<-m.done
	}
	w.all, w.shared = nil, nil
	w.start(globs...)
	until(t, "the other one is ready", func() bool { return isReady(w.all[1].Files) })
	if isReady(w.all[0].Files) {
		t.Fatal("it does not hang")
	}
	prompt(10)
	fuse.Append("new.log", string(numbered(w.n))) // is born while the next one cannot look
	w.n++

	// It answers.
	fuse.Release()
	<-first.done
	w.ready()
	grow(10)
	w.once()
	if kinds := w.told.kinds(); strings.Contains(kinds, "lost") {
		t.Errorf("told: %v", w.told.events)
	}
}

func isReady(f *Files) bool {
	select {
	case <-f.Ready():
		return true
	default:
		return false
	}
}

// One that was left behind hands nothing over when it wakes, and its successor
// has its files meanwhile, also those that it can reach under other globs.
func TestLeftBehind(t *testing.T) {
	testbed.Needs(t, "fuse")
	w := newTeam(t)
	bad, good := t.TempDir(), t.TempDir()
	fuse := testbed.MountFUSE(t, bad)
	defer fuse.Release()
	fuse.Append("app.log", "")
	path := filepath.Join(good, "app.log")
	write(t, path, "")
	w.start([]string{filepath.Join(bad, "*.log"), path})
	w.ready()
	w.write(path, 10)
	w.once()
	until(t, "they are saved", func() bool {
		data, _ := os.ReadFile(w.state)
		c, err := decodeCheckpoint(data)
		return err == nil && slices.ContainsFunc(c.Files, func(p position) bool { return p.Path == path && p.Off > 0 })
	})
	asked := fuse.Hang()
	<-asked
	old := w.all[0]
	if !hangs(old.Files) {
		t.Fatal("it does not hang")
	}
	w.write(path, 10)
	old.cancel()
	old.Leave()
	w.all = nil
	if w.shared.HasRest([]string{path}) {
		t.Error("the file that hangs is to be looked for once more")
	}
	w.start([]string{path})
	w.ready()
	w.write(path, 10)
	w.once()
	fuse.Release()
	<-old.done
	w.write(path, 10)
	w.once()
}

// Positions of names that are configured no more are read to their end, by a
// follower of their own.
func TestRest(t *testing.T) {
	w := newTeam(t)
	one, two := filepath.Join(t.TempDir(), "one.log"), filepath.Join(t.TempDir(), "two.log")
	write(t, one, "")
	write(t, two, "")
	w.start([]string{one}, []string{two})
	w.ready()
	w.write(one, 10)
	w.write(two, 10)
	w.once()
	w.stop()
	w.write(one, 10)
	w.write(two, 10)
	w.shared = NewRegistry(w.state, w.told.event)
	if w.shared.HasRest([]string{one, two}) || !w.shared.HasRest([]string{two}) {
		t.Error("what is left is not known")
	}
	f, err := New(Options{Rest: []string{two}, Registry: w.shared, Cut: matcher.Cut, Continues: matcher.Continues, Events: w.told.event}, w.ledger.handle)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.start([]string{two})
	go func() { f.Run(ctx); close(done) }()
	w.once()
	cancel()
	<-done
}
