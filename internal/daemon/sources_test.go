package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"qwatch/internal/config"
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
