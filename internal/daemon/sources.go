package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"qwatch/internal/config"
	"qwatch/matcher"
	"qwatch/systemd"
	"qwatch/tailer"
	"qwatch/tailer/file"
	"qwatch/tailer/journal"
)

// eventField is the log field that names an event of package systemd.
const eventField = "event"

// sources are those of the newest configuration.
type sources struct {
	out   chan<- matcher.Hit
	marks chan<- matcher.Mark
	log   zerolog.Logger
	// What is told of files goes through tally.
	tally   *tally
	origins *origins
	counted prometheus.Counter // records that the core does not get

	mu   sync.Mutex
	list []tailer.Source
	hits map[string]uint64 // by tailer.Status.Name
}

func newSources(c *core, log zerolog.Logger) *sources {
	return &sources{
		out: c.in.hits, marks: c.in.marks, log: log, tally: c.report.tally, origins: c.report.origins,
		counted: c.report.counts.hits,
		hits:    map[string]uint64{},
	}
}

func (s *sources) all() []tailer.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

func (s *sources) hitsOf(name string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits[name]
}

// start makes the sources of a configuration; run runs them. Where the old
// ones left off the new ones go on.
func (s *sources) start(cfg *config.Config, opts Options) ([]<-chan struct{}, error) {
	var list []tailer.Source
	state := func(name string) string {
		if !opts.KeepState {
			return ""
		}
		return filepath.Join(cfg.StateDir, name)
	}
	var globs, units []string
	for _, src := range cfg.Sources {
		globs = append(globs, src.Files...)
		for _, unit := range src.Journal {
			if !slices.Contains(units, unit) { // two of a name could not be told apart in status and metrics
				units = append(units, unit)
			}
		}
	}
	s.origins.configure(globs)
	handle := func(c tailer.Chunk) { s.handle(c, cfg.Group.Window) }
	if len(globs) > 0 {
		files, err := file.New(file.Options{
			Globs: globs, FromStart: opts.FromStart, StateFile: state("positions.json"),
			Cut: matcher.Cut, Continues: matcher.Continues, Events: s.fileEvent,
		}, handle)
		if err != nil {
			return nil, err
		}
		list = append(list, files)
	}
	if len(units) > 0 {
		entries, err := journal.New(journal.Options{
			Units: units, FromStart: opts.FromStart, StateFile: state("journal.json"), Report: s.journalTrouble,
		}, handle)
		if err != nil {
			return nil, err
		}
		list = append(list, entries)
	}
	s.mu.Lock()
	s.list = list
	s.mu.Unlock()
	ready := make([]<-chan struct{}, len(list))
	for i, src := range list {
		ready[i] = src.Ready()
	}
	return ready, nil
}

// stopTime is how long the end of a source is waited for. One that hangs, in a
// read of a file system that is gone, keeps nobody from stopping, nor from a new
// configuration.
const stopTime = 5 * time.Second

// run runs the sources until ctx ends.
func (s *sources) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, src := range s.all() {
		g.Go(func() error {
			ended := make(chan error, 1)
			go func() { ended <- src.Run(ctx) }()
			err := s.await(ctx, src, ended)
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", src, err)
			}
			return nil
		})
	}
	// Without any source the probe still works.
	g.Go(func() error { <-ctx.Done(); return nil })
	return g.Wait()
}

// await waits for the end of a source, and not for ever once ctx has ended.
func (s *sources) await(ctx context.Context, src tailer.Source, ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(stopTime):
		s.log.Error().Str("source", fmt.Sprint(src)).Msgf("%s does not stop and is left behind; what it has read since its last checkpoint may be read twice", src)
		return nil
	}
}

func isReady(src tailer.Source) bool {
	select {
	case <-src.Ready():
		return true
	default:
		return false
	}
}

// handle finds the hits in a chunk. It waits while the core is busy: the text
// is still in its file. The core takes hits until all sources have ended.
//
// What stood in its source before this start and is older than window is counted,
// and that is all: it tells of another time. Log dates carry no zone, so they are
// asked only there; what comes in since is new whatever its date says.
func (s *sources) handle(c tailer.Chunk, window time.Duration) {
	meta := matcher.Meta{Source: c.Source, Read: c.Time, PID: c.PID, Unit: c.Unit, Continued: c.Middle}
	old := func(time.Time) bool { return false }
	if now := time.Now(); !c.Stood.IsZero() {
		meta.Read = c.Stood // dates what has no date of its own
		old = func(at time.Time) bool { return now.Sub(at) > window }
	}
	matcher.Scan(c.Text, meta, func(h matcher.Hit) {
		s.origins.of(c.Source) // the core remembers it, and may not look
		s.mu.Lock()
		s.hits[c.Name]++
		s.mu.Unlock()
		if old(h.At) {
			s.counted.Inc()
			return
		}
		s.out <- h
	})
	matcher.ScanMarks(c.Text, meta, func(m matcher.Mark) {
		if old(m.At) {
			return
		}
		s.origins.of(c.Source)
		s.marks <- m
	})
}

// fileEvent logs what the follower of files tells.
func (s *sources) fileEvent(e file.Event) {
	words, event := fileEventWords[e.Kind], ""
	log := s.log.Debug()
	switch e.Kind {
	case file.Truncated, file.Lost:
		event = systemd.EventLinesLost
	case file.Unreadable:
		event = systemd.EventSourceUnreadable
		if errors.Is(e.Err, fs.ErrPermission) {
			words = "is not readable for this service; " + readCure
		}
	case file.Polling, file.Unsaved, file.TooMany:
	default:
		words = ""
	}
	if words != "" {
		if !s.tally.first(topic{s.origins.of(e.Source), words, event}, e.Source) {
			return
		}
		log = s.log.Warn()
	}
	if event != "" {
		log = log.Str(eventField, event)
	}
	if e.Err != nil {
		log = log.Err(e.Err)
	}
	if e.Detail != "" {
		log = log.Str("detail", e.Detail)
	}
	log.Str("source", e.Source).Msgf("%s %s", e.Source, cmp.Or(words, fileEventWords[e.Kind]))
}

// readCure is what lets a service without privileges read a log. uWSGI makes its
// logs with mode 0640, in the group that it runs in (core/logging.c, logto).
const readCure = "let its group adm read it (chgrp adm), or install the drop-in audit-reads-all.conf"

var fileEventWords = map[file.EventKind]string{
	file.Rotated:    "was rotated; the old file is read to its end",
	file.Truncated:  "was cut in place; lines that were not read yet and are in no copy are lost",
	file.Recovered:  "was read on in a rotated, copied or compressed file",
	file.Lost:       "had unread lines and is nowhere to be found",
	file.Unreadable: "cannot be read; it is tried again",
	file.Readable:   "can be read again",
	file.Polling:    "gives no events; it is looked at four times a second",
	file.TooMany:    "has more files than are followed for one user",
	file.Unsaved:    "cannot keep positions; after a restart lines may be read twice",
}

func (s *sources) journalTrouble(err error) {
	event := systemd.EventSourceUnreadable
	if errors.Is(err, journal.ErrGap) {
		event = systemd.EventLinesLost
	}
	if !s.tally.first(topic{"journal", "trouble with the journal", event}, err.Error()) {
		return
	}
	s.log.Warn().Str(eventField, event).Str("source", "journal").Err(err).Msg("trouble with the journal; it is tried again")
}

// alive reports whether the loop of every source turns that once was ready. One
// that never was hangs in something that it would hang in again after a restart,
// by which all others would be lost too.
func (s *sources) alive(ctx context.Context) error {
	for _, src := range s.all() {
		if !isReady(src) {
			continue
		}
		if err := src.Alive(ctx); err != nil {
			return fmt.Errorf("%s stands still: %w", src, err)
		}
	}
	return nil
}
