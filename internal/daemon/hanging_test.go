package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/tailer"
)

// hanging is a source that stands in a system call which does not come back.
type hanging struct {
	ready   chan struct{}
	release chan struct{}
}

func (h hanging) String() string            { return "files /nfs/*.log" }
func (h hanging) Status() []tailer.Status   { return []tailer.Status{{Name: "/nfs/a.log", Kind: "file"}} }
func (h hanging) Ready() <-chan struct{}    { return h.ready }
func (h hanging) Run(context.Context) error { <-h.release; return nil }

// silent is one that is to be asked.
type silent struct{ hanging }

func (silent) Alive(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// telling is one that tells its pulse.
type telling struct {
	hanging
	step  *atomic.Int64
	rests bool
}

func (h telling) Pulse() (int64, bool) { return h.step.Load(), h.rests }

// given makes the sources of a test.
func given(ctx context.Context, t *testing.T, log io.Writer, list ...tailer.Source) *sources {
	s := newSources(newCore(nil, nil, nil, zerolog.Nop()), zerolog.New(log))
	var wanted []*running
	for i, src := range list {
		r := newRunning("test", []string{fmt.Sprint(i)})
		r.make = func(tailer.Handler) (tailer.Source, error) { return src, nil }
		wanted = append(wanted, r)
	}
	if err := s.start(ctx, wanted); err != nil {
		t.Fatal(err)
	}
	return s
}

// A source that hangs keeps neither the end nor the watchdog back.
func TestHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := silent{hanging{make(chan struct{}), make(chan struct{})}}
		ctx, cancel := context.WithCancel(t.Context())
		s := given(ctx, t, &log, h)
		within, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		if err := s.alive(within); err != nil {
			t.Errorf("it never was ready: %v", err)
		}
		began, all := time.Now(), s.all()
		cancel()
		s.drop(func(*running) bool { return true })
		if took := time.Since(began); took != stopTime || !all[0].left.Load() {
			t.Errorf("after %s", took)
		}
		if !strings.Contains(log.String(), "files /nfs/*.log does not stop and is left behind") {
			t.Errorf("%s", log.String())
		}
		close(h.ready)
		s.list = all
		within, stop = context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := s.alive(within); err == nil {
			t.Error("it was ready and stands still, and that is no error")
		}
		close(h.release)
	})
}

// Nor READY. That it hangs is told once, and its status says so until it answers.
func TestReadyWithoutHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		cfg := config.Default()
		d := &Daemon{log: zerolog.New(&log), opts: Options{Config: cfg}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		up := telling{hanging{make(chan struct{}), make(chan struct{})}, new(atomic.Int64), true}
		close(up.ready)
		late := hanging{make(chan struct{}), make(chan struct{})} // comes up, but slowly
		stuck := telling{hanging{make(chan struct{}), make(chan struct{})}, new(atomic.Int64), false}
		defer func() { close(up.release); close(late.release); close(stuck.release) }()
		d.sources = given(ctx, t, &log, up, stuck)
		go d.sources.watchPulses(ctx)
		began := time.Now()
		d.await(ctx)
		if took := time.Since(began); took > time.Second {
			synctest.Wait()
			t.Errorf("%s: %s", took, log.String())
		}
		r := d.sources.all()[1]
		r.globs = []string{"/nfs/*.log"}
		want := []tailer.Status{{Name: "/nfs/a.log", Kind: "file", Error: errHangs}, {Name: "/nfs/*.log", Kind: "file", Error: errHangs}}
		if got := r.status(); !slices.Equal(got, want) {
			t.Errorf("%v", got)
		}
		if err := d.sources.alive(ctx); err != nil {
			t.Error(err)
		}
		for range 600 { // however often somebody looks
			time.Sleep(100 * time.Millisecond)
			d.sources.look()
		}
		synctest.Wait()
		if n := strings.Count(log.String(), "files /nfs/*.log: does not answer (its file system hangs?)"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log.String())
		}
		stuck.step.Add(1)
		for r.pulse.hangs.Load() {
			time.Sleep(10 * time.Millisecond)
			d.sources.look()
		}
		synctest.Wait()
		if got := r.status(); !slices.Equal(got, stuck.Status()) || !strings.Contains(log.String(), "files /nfs/*.log answers again") {
			t.Errorf("%v\n%s", got, log.String())
		}

		d.sources.list = append(d.sources.list, given(ctx, t, &log, late).list...)
		began = time.Now()
		d.await(ctx)
		synctest.Wait()
		if took := time.Since(began); took != readyTime || !strings.Contains(log.String(), "1 of 3 followers have not come up within 20s") {
			t.Errorf("%s: %s", took, log.String())
		}
	})
}
