package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// origins name where the text of a source comes from: the configured glob that
// it matches and who owns the file. Anybody can make any number of files, but
// not under another's name.
type origins struct {
	mu    sync.Mutex
	globs []string
	known map[string]origin // by the source's name
}

type origin struct {
	name string
	at   time.Time // when the owner was looked up
}

const (
	// originAge is how long the owner of a file is taken for what it was.
	originAge  = 10 * time.Second
	maxOrigins = 1024
)

func (o *origins) configure(globs []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.globs, o.known = globs, map[string]origin{}
}

// of is the origin of a source. It looks at the file, so it is for the goroutine
// that reads it.
func (o *origins) of(source string) string {
	if !filepath.IsAbs(source) {
		return source // the journal's
	}
	o.mu.Lock()
	known, globs := o.known[source], o.globs
	o.mu.Unlock()
	if known.name != "" && time.Since(known.at) < originAge {
		return known.name
	}
	name := fmt.Sprintf("%s, files of %s", globOf(globs, source), owner(source))
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.known) >= maxOrigins {
		clear(o.known)
	}
	o.known[source] = origin{name, time.Now()}
	return name
}

// remembered is the origin of a source as it was last looked at.
func (o *origins) remembered(source string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch known := o.known[source]; {
	case known.name != "":
		return known.name
	case filepath.IsAbs(source):
		return globOf(o.globs, source)
	}
	return source
}

// globOf is the configured glob that a file matches, or that a directory stands
// above or below.
func globOf(globs []string, path string) string {
	for _, g := range globs {
		if doublestar.PathMatchUnvalidated(g, path) {
			return g
		}
	}
	for _, g := range globs {
		base, _ := doublestar.SplitPattern(g)
		if base == path || strings.HasPrefix(path, base+"/") || strings.HasPrefix(base, path+"/") {
			return g
		}
	}
	return "other paths"
}

// owner is who owns a file, or the directory that it was deleted from.
func owner(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		info, err = os.Lstat(filepath.Dir(path))
	}
	if err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			return fmt.Sprintf("user %d", st.Uid)
		}
	}
	return "an unknown user"
}
