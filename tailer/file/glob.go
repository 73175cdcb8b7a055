package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"qwatch/internal/bounded"
)

// matches says whether path is to be followed.
func matches(globs []string, path string) bool {
	return !isCompressed(path) && slices.ContainsFunc(globs, func(g string) bool {
		return doublestar.PathMatchUnvalidated(g, path)
	})
}

// scope is what the globs come to.
type scope struct {
	names map[string]bool  // paths that match, whether or not they can be read
	dirs  map[string]bool  // directories where a change can change names; true: one that a symlink stands in or leads to
	errs  map[string]error // directories that cannot be listed
	step  func()           // is told that it goes on
}

// expand finds what the globs come to. Where a glob's directory does not exist yet, the nearest
// one above it is in dirs.
func expand(globs []string, step func()) scope {
	s := scope{names: map[string]bool{}, dirs: map[string]bool{}, errs: map[string]error{}, step: step}
	for _, g := range globs {
		base, pattern := doublestar.SplitPattern(g)
		s.note(existing(base), false)
		if !strings.ContainsAny(pattern, `*?[{\`) {
			if _, err := os.Lstat(g); !gone(err) && !isCompressed(g) {
				s.names[g] = true
			}
			continue
		}
		// The directories that the expansion lists are those to watch.
		found, _ := doublestar.Glob(lister{base, s}, pattern)
		for _, f := range found {
			if path := filepath.Join(base, f); !isCompressed(path) {
				s.names[path] = true
			}
		}
	}
	chains := map[string]string{}
	for path := range s.names {
		dir := filepath.Dir(path)
		if _, ok := chains[dir]; !ok {
			chains[dir] = s.chain(dir)
		}
		s.chain(filepath.Join(chains[dir], filepath.Base(path)))
	}
	return s
}

func (s scope) note(dir string, linked bool) { s.dirs[dir] = s.dirs[dir] || linked }

// chain resolves path and adds each directory that a symlink on its way stands
// in, and the one where it ends.
func (s scope) chain(path string) string {
	for range 40 { // as many as the kernel follows
		s.step()
		at := "/"
		rest := strings.Split(strings.TrimPrefix(path, "/"), "/")
		again := false
		for i, part := range rest {
			next := filepath.Join(at, part)
			target, err := os.Readlink(next)
			if err != nil {
				at = next
				continue
			}
			s.note(at, true)
			if !filepath.IsAbs(target) {
				target = filepath.Join(at, target)
			}
			path = filepath.Join(append([]string{target}, rest[i+1:]...)...)
			if dir := filepath.Dir(path); len(rest) == i+1 {
				s.note(existing(dir), true)
			}
			again = true
			break
		}
		if !again {
			break
		}
	}
	return path
}

// existing is dir, or the nearest directory above it that exists.
func existing(dir string) string {
	for {
		if st, err := os.Stat(dir); err == nil && st.IsDir() || dir == "/" || dir == "." {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// maxEntries is how many entries of one directory are looked at.
const maxEntries = 1 << 16

// lister is a file system (io/fs) that notes which directories are listed.
type lister struct {
	base string
	s    scope
}

// Open opens a file below base.
func (l lister) Open(name string) (fs.File, error) { return bounded.Open(filepath.Join(l.base, name)) }

// Stat follows symlinks.
func (l lister) Stat(name string) (fs.FileInfo, error) { return os.Stat(filepath.Join(l.base, name)) }

// ReadDir lists a directory and notes it, or why it cannot be listed.
func (l lister) ReadDir(name string) ([]fs.DirEntry, error) {
	l.s.step()
	dir := filepath.Join(l.base, name)
	entries, err := bounded.Entries(dir, maxEntries)
	var more *bounded.TooMuchError
	switch {
	case errors.As(err, &more):
		l.s.note(dir, false)
		l.s.errs[dir] = err
		err = nil
	case err == nil:
		l.s.note(dir, false)
	case !gone(err):
		l.s.errs[dir] = err
	}
	return entries, err
}

// related says whether name is what a rotation may call the file that was
// named log, or its copy: "app.log.1", "app.log-20261122", "app-20261122.log",
// "app.1.log". Both are base names.
func related(log, name string) bool {
	if name == log {
		return false
	}
	name = strings.TrimSuffix(name, ".tmp")
	if rest, ok := strings.CutPrefix(name, log); ok {
		return rest == "" || strings.ContainsRune(".-_~", rune(rest[0]))
	}
	ext := filepath.Ext(log)
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(log, ext))
	return ok && ext != "" && len(rest) > 1 && strings.ContainsRune(".-_", rune(rest[0])) &&
		rest[1] >= '0' && rest[1] <= '9' && strings.Contains(rest, ext)
}
