package daemon

import (
	"bytes"
	"context"
	"strings"
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
func (h hanging) Status() []tailer.Status   { return nil }
func (h hanging) Ready() <-chan struct{}    { return h.ready }
func (h hanging) Run(context.Context) error { <-h.release; return nil }
func (h hanging) Alive(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// A source that hangs keeps neither the end nor the watchdog back.
func TestHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := hanging{make(chan struct{}), make(chan struct{})}
		s := newSources(newCore(nil, nil, nil, zerolog.Nop()), zerolog.New(&log))
		s.list = []tailer.Source{h}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.run(ctx) }()
		within, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		if err := s.alive(within); err != nil {
			t.Errorf("it never was ready: %v", err)
		}
		began := time.Now()
		cancel()
		if err := <-ended; err != nil || time.Since(began) != stopTime {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if !strings.Contains(log.String(), "files /nfs/*.log does not stop and is left behind") {
			t.Errorf("%s", log.String())
		}
		close(h.ready)
		within, stop = context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := s.alive(within); err == nil {
			t.Error("it was ready and stands still, and that is no error")
		}
		close(h.release)
	})
}

// Nor READY.
func TestReadyWithoutHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		cfg := config.Default()
		d := &Daemon{log: zerolog.New(&log), opts: Options{Config: cfg}}
		d.core = newCore(nil, nil, nil, zerolog.Nop())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		up := make(chan struct{})
		close(up)
		began := time.Now()
		d.await(ctx, []<-chan struct{}{make(chan struct{}), up, make(chan struct{})})
		if took := time.Since(began); took != readyTime || !strings.Contains(log.String(), "2 of 3 sources have not come up within 20s") {
			t.Errorf("%s: %s", took, log.String())
		}
	})
}
