package daemon

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// tally is what all messages go through that strangers can cause: who may write
// a log, or make files beside it, or run a uWSGI, could fill the journal with
// them. Of each kind from each source the first are said, then, every minute,
// how many more there were.
type tally struct {
	log zerolog.Logger

	mu    sync.Mutex
	heard map[topic]*heard
}

// topic is what messages have in common.
type topic struct {
	source string // whose they are, as origins name it
	kind   string // what happens, in words
	event  string // of package systemd, "" for none
}

// heard is what there was about a topic since the last minute.
type heard struct {
	said, more int
	last       string // what the last one was about
}

const (
	// tallyEvery is how often the numbers are said.
	tallyEvery = time.Minute
	// maxTopics bounds what is remembered: beyond it all sources are one.
	maxTopics = 256
)

func newTally(log zerolog.Logger) *tally {
	return &tally{log: log, heard: map[topic]*heard{}}
}

// first reports whether a message is to be said; else it counts. about is what
// just this one is about.
func (t *tally) first(s topic, about string) bool { return t.among(1, s, about) }

// among is first for the first most messages.
func (t *tally) among(most int, s topic, about string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.heard[s]
	if h == nil && len(t.heard) >= maxTopics {
		s.source = "other sources"
		h = t.heard[s]
	}
	if h == nil {
		h = &heard{}
		t.heard[s] = h
	}
	if h.said < most {
		h.said++
		return true
	}
	h.more++
	h.last = about
	return false
}

// run says the numbers until ctx ends.
func (t *tally) run(ctx context.Context) error {
	tick := time.NewTicker(tallyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			t.tell()
			return nil
		case <-tick.C:
			t.tell()
		}
	}
}

// tell says how many more there were, and forgets what there was nothing more
// of: it is news again.
func (t *tally) tell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []topic
	for s, h := range t.heard {
		if h.more == 0 {
			delete(t.heard, s)
			continue
		}
		all = append(all, s)
	}
	sort.Slice(all, func(i, j int) bool { return fmt.Sprint(all[i]) < fmt.Sprint(all[j]) })
	for _, s := range all {
		h := t.heard[s]
		e := t.log.Warn().Int("more", h.more).Str("source", s.source)
		if s.event != "" {
			e = e.Str(eventField, s.event)
		}
		e.Msgf("%s: %d more within a minute: %s; the last one: %s", s.source, h.more, s.kind, h.last)
		h.more = 0
	}
}
