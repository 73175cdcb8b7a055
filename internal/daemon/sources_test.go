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
	if err := s.change(t.Context(), cfg, Options{FromStart: true}); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.all() {
		<-r.Ready()
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
	s.drop(func(*running) bool { return true })
}

// A unit that two sources name is one source of lines.
func TestUnitsAreFollowedOnce(t *testing.T) {
	cfg := config.Default()
	cfg.Sources = []config.Source{
		{Journal: []string{"web.service", "w*.service"}}, {Journal: []string{"app.service", "web.service"}},
	}
	s := newSources(newCore(nil, nil, nil, zerolog.Nop()), zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.change(ctx, cfg, Options{}); err != nil {
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
		s.window.Store(int64(30 * time.Second))
		s.handle(new(running), tailer.Chunk{Source: "a", Name: "a", Time: now, Stood: tt.stood, Text: []byte(text)})
		if got := len(core.in.hits) == 1; got != tt.taken || s.hitsOf("a") != 1 {
			t.Errorf("%s: taken %v, %d counted", tt.name, got, s.hitsOf("a"))
		}
		// The mark has no date: it is as old as the file.
		if got, want := len(core.in.marks) == 1, tt.stood.IsZero() || now.Sub(tt.stood) < time.Minute; got != want {
			t.Errorf("%s: its mark taken %v", tt.name, got)
		}
	}
}

// Files that come and go, each with a record, do not stay counted.
func TestForgottenHits(t *testing.T) {
	core := newCore(nil, nil, nil, zerolog.Nop())
	s := newSources(core, zerolog.Nop())
	s.list = []*running{{Source: hanging{}}}
	read := func(name string) {
		s.handle(s.list[0], tailer.Chunk{Source: "unit", Name: name, Text: []byte("*** uWSGI listen queue of socket 3 full !!! (129/128) ***\n")})
		<-core.in.hits
	}
	const followed = "/nfs/a.log"
	read(followed)
	for i := range maxHits {
		s.forgetHits()
		if read(fmt.Sprint(i)); len(s.hits) != i+2 {
			t.Fatalf("%d are counted after %d", len(s.hits), i+2)
		}
	}
	if s.forgetHits(); len(s.hits) != 1 || s.hitsOf(followed) != 1 {
		t.Errorf("%v", s.hits)
	}
}

// A new configuration leaves alone what it follows as before. What it follows no
// more is read to its end.
func TestChangeKeepsWhatStays(t *testing.T) {
	var logs []string
	for range 3 {
		log := filepath.Join(t.TempDir(), "web.log")
		if err := os.WriteFile(log, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, log)
	}
	core := newCore(nil, nil, nil, zerolog.Nop())
	s := newSources(core, zerolog.Nop())
	defer s.drop(func(*running) bool { return true })
	follow := func(logs ...string) map[string]*running {
		t.Helper()
		cfg := config.Default()
		cfg.Sources = nil
		for _, log := range logs {
			cfg.Sources = append(cfg.Sources, config.Source{Files: []string{log}})
		}
		if err := s.change(t.Context(), cfg, Options{}); err != nil {
			t.Fatal(err)
		}
		all := map[string]*running{}
		for _, r := range s.all() {
			<-r.Ready()
			all[r.String()] = r
		}
		return all
	}
	before := follow(logs[0], logs[1])
	after := follow(logs[2], logs[1])
	name := func(log string) string { return "files " + log }
	if len(before) != 2 || len(after) != 3 || after[name(logs[1])] != before[name(logs[1])] || after["files of an earlier configuration"] == nil {
		t.Errorf("%v, then %v", before, after)
	}
	for i, log := range logs {
		text := fmt.Sprintf("*** uWSGI listen queue of socket %d full !!! (129/128) ***\n", i)
		if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]bool{}
	for range logs {
		got[(<-core.in.hits).Socket] = true
	}
	if len(got) != 3 {
		t.Errorf("%v", got)
	}
}
