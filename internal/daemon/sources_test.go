package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/tailer"
)

// Globs of several sources, and of one, may match the same file: each line is
// handed over once.
func TestOverlappingFilesAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.log")
	write := func(socket int) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprintf(f, "*** uWSGI listen queue of socket %d full !!! (129/128) ***\n", socket)
	}
	write(1)
	cfg := config.Default()
	cfg.Sources = []config.Source{
		{Files: []string{filepath.Join(dir, "*.log"), file}}, {Files: []string{filepath.Join(dir, "**")}}, {Files: []string{file}},
	}
	core := newCore(nil, nil, nil, zerolog.Nop())
	s := newSources(core, zerolog.Nop())
	ready, err := s.start(cfg, Options{FromStart: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	for _, r := range ready {
		<-r
	}
	write(2)
	write(3)
	var got []string
	for range 3 {
		got = append(got, (<-core.in.hits).Socket)
	}
	if diff := cmp.Diff([]string{"1", "2", "3"}, got); diff != "" {
		t.Errorf("hits (-want +got):\n%s", diff)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A unit that two sources name is one source of lines.
func TestUnitsAreFollowedOnce(t *testing.T) {
	cfg := config.Default()
	cfg.Sources = []config.Source{
		{Journal: []string{"web.service", "w*.service"}}, {Journal: []string{"app.service", "web.service"}},
	}
	s := newSources(newCore(nil, nil, nil, zerolog.Nop()), zerolog.Nop())
	if _, err := s.start(cfg, Options{}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, src := range s.all() {
		for _, st := range src.Status() {
			names = append(names, st.Name)
		}
	}
	if diff := cmp.Diff([]string{"web.service", "w*.service", "app.service"}, names); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

// What stood in a source before the start, and is old, is counted only; what comes
// in since is new whatever its date says.
func TestOldText(t *testing.T) {
	now := time.Now()
	dated := func(at time.Time) string { return at.Format(time.ANSIC) + " - " }
	const record = "*** uWSGI listen queue of socket %d full !!! (129/128) ***\n"
	const mark = "Listen queue size is greater than the system max net.core.somaxconn (128).\n"
	for _, tt := range []struct {
		name, date string
		stood      time.Time
		taken      bool
	}{
		{"new", dated(now), time.Time{}, true},
		{"new, of another zone", dated(now.Add(-11 * time.Hour)), time.Time{}, true},
		{"new, without a date", "", time.Time{}, true},
		{"stood, but is young", dated(now.Add(-10 * time.Second)), now, true},
		{"stood, and is old", dated(now.Add(-2 * time.Minute)), now, false},
		{"stood, and comes from a zone ahead", dated(now.Add(2 * time.Hour)), now, true},
		{"stood, without a date, written to just now", "", now.Add(-10 * time.Second), true},
		{"stood, without a date, and is old", "", now.Add(-2 * time.Minute), false},
	} {
		core := newCore(nil, nil, nil, zerolog.Nop())
		s := newSources(core, zerolog.Nop())
		text := tt.date + fmt.Sprintf(record, 3) + mark
		s.handle(tailer.Chunk{Source: "a", Name: "a", Time: now, Stood: tt.stood, Text: []byte(text)}, 30*time.Second)
		if got := len(core.in.hits) == 1; got != tt.taken || s.hitsOf("a") != 1 {
			t.Errorf("%s: taken %v, %d counted", tt.name, got, s.hitsOf("a"))
		}
		// The mark has no date: it is as old as the file.
		if got, want := len(core.in.marks) == 1, tt.stood.IsZero() || now.Sub(tt.stood) < time.Minute; got != want {
			t.Errorf("%s: its mark taken %v", tt.name, got)
		}
	}
}
