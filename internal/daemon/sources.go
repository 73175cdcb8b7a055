package daemon

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/internal/exposition"
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
	counted *exposition.Counter // records that the core does not get
	refresh func()              // has the status line made anew

	registry *file.Registry // of all followers of files, from the first change on
	window   atomic.Int64   // [group] window, a time.Duration
	failed   chan error     // holds the first error that ended a source
	changed  chan struct{}  // holds a token for look

	mu   sync.Mutex
	list []*running
	hits map[string]uint64 // by tailer.Status.Name
}

func newSources(c *core, log zerolog.Logger) *sources {
	return &sources{
		out: c.in.hits, marks: c.in.marks, log: log, tally: c.report.tally, origins: c.report.origins,
		counted: c.report.counts.hits, refresh: c.report.refresh,
		failed: make(chan error, 1), changed: make(chan struct{}, 1),
		hits: map[string]uint64{},
	}
}

func (s *sources) all() []*running {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

func (s *sources) hitsOf(name string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits[name]
}

// maxHits is of how many names hits are counted until those are forgotten that
// nobody follows any more: anybody may make files one after the other.
const maxHits = 1024

// forgetHits keeps hits small. It is called again and again.
func (s *sources) forgetHits() {
	s.mu.Lock()
	counted := slices.Collect(maps.Keys(s.hits))
	s.mu.Unlock()
	if len(counted) <= maxHits {
		return
	}
	followed := map[string]bool{} // looked at after counted, so that a name that comes meanwhile stays
	for _, r := range s.all() {
		for _, st := range r.Status() {
			followed[st.Name] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range counted {
		if !followed[name] {
			delete(s.hits, name)
		}
	}
}

// change makes the sources those of a configuration, and runs them until ctx
// ends. One that follows the same as before goes on; what the others leave, the
// new ones take up.
func (s *sources) change(ctx context.Context, cfg *config.Config, opts Options) error {
	s.window.Store(int64(cfg.Group.Window))
	globs, units := sourcesOf(cfg)
	s.origins.configure(globs)
	state := func(name string) string {
		if !opts.KeepState {
			return ""
		}
		return filepath.Join(cfg.StateDir, name)
	}
	if s.registry == nil {
		s.registry = file.NewRegistry(state("positions.json"), s.fileEvent)
	}
	files := func(kind string, group []string, rest []string) *running {
		r := newRunning(kind, slices.Concat(group, rest))
		r.globs = group
		r.make = func(h tailer.Handler) (tailer.Source, error) {
			return file.New(file.Options{
				Globs: group, Rest: rest, FromStart: opts.FromStart, Registry: s.registry,
				Cut: matcher.Cut, Continues: matcher.Continues, Events: s.fileEvent,
			}, h)
		}
		return r
	}
	var wanted []*running
	for _, group := range file.Apart(globs) {
		wanted = append(wanted, files("files", group, nil))
	}
	if len(units) > 0 {
		r := newRunning("journal", units)
		r.make = func(h tailer.Handler) (tailer.Source, error) {
			return journal.New(journal.Options{
				Units: units, FromStart: opts.FromStart, StateFile: state("journal.json"), Report: s.journalTrouble,
			}, h)
		}
		wanted = append(wanted, r)
	}
	rest := files("rest", nil, append([]string{}, globs...)) // not nil, also where there are none
	s.drop(func(old *running) bool { return !old.same(rest) && !slices.ContainsFunc(wanted, old.same) })
	if slices.ContainsFunc(s.all(), rest.same) || s.registry.HasRest(globs) {
		wanted = append(wanted, rest)
	}
	return s.start(ctx, wanted)
}

// sourcesOf are the globs and the units that a configuration has followed.
func sourcesOf(cfg *config.Config) (globs, units []string) {
	for _, src := range cfg.Sources {
		globs = append(globs, src.Files...)
		for _, unit := range src.Journal {
			if !slices.Contains(units, unit) { // two of a name could not be told apart in status and metrics
				units = append(units, unit)
			}
		}
	}
	return globs, units
}

// handle finds the hits in a chunk. It waits while the core is busy: the text
// is still in its file. The core takes hits until all sources have ended.
//
// What stood in its source before this start and is older than window is counted,
// and that is all: it tells of another time. Log dates carry no zone, so they are
// asked only there; what comes in since is new whatever its date says.
func (s *sources) handle(r *running, c tailer.Chunk) {
	meta := matcher.Meta{Source: c.Source, Read: c.Time, PID: c.PID, Unit: c.Unit, Continued: c.Middle}
	old, window := func(time.Time) bool { return false }, time.Duration(s.window.Load())
	if now := time.Now(); !c.Stood.IsZero() {
		meta.Read = c.Stood // dates what has no date of its own
		old = func(at time.Time) bool { return now.Sub(at) > window }
	}
	matcher.Scan(c.Text, meta, func(h matcher.Hit) {
		s.origins.of(c.Source) // the core remembers it, and may not look
		if r.left.Load() {
			return // it hung there, and another one reads this again
		}
		s.mu.Lock()
		s.hits[c.Name]++
		s.mu.Unlock()
		if old(h.At) {
			s.counted.Add(1)
			return
		}
		s.out <- h
	})
	matcher.ScanMarks(c.Text, meta, func(m matcher.Mark) {
		if old(m.At) {
			return
		}
		if s.origins.of(c.Source); r.left.Load() {
			return
		}
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
