package bulk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bmatcuk/doublestar/v4"
)

// Expand returns the files that the arguments of a command name: files, Stdin,
// directories (the regular files in and below them, by name), and globs that no
// shell has expanded ("**" goes through directories). What is named twice, by
// whatever name, is in the list once, as its hits must not count twice.
// Symbolic links are followed to files, and to directories where an argument or a
// glob names them. What does not exist or cannot be looked into is in the
// second list. When ctx is done Expand returns nothing at once: a file system may
// hang.
func Expand(ctx context.Context, args []string) ([]string, []Unreadable) {
	e, _ := patiently(ctx, func() (expansion, error) { return expand(args), nil })
	return e.paths, e.unreadable
}

func expand(args []string) expansion {
	e := expansion{seen: make(map[any]bool)}
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case arg == Stdin:
			e.add(arg, Stdin)
		case err == nil && info.IsDir():
			e.directory(arg)
		case err == nil:
			e.file(arg, info)
		case errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(arg, `*?[{`):
			e.glob(arg)
		default:
			e.fail(arg, err)
		}
	}
	return e
}

type expansion struct {
	paths      []string
	seen       map[any]bool
	unreadable []Unreadable
}

func (e *expansion) add(path string, id any) {
	if !e.seen[id] {
		e.seen[id] = true
		e.paths = append(e.paths, path)
	}
}

func (e *expansion) fail(path string, err error) {
	e.unreadable = append(e.unreadable, Unreadable{path, err})
}

func (e *expansion) file(path string, info fs.FileInfo) {
	type inode struct{ dev, ino uint64 }
	stat := info.Sys().(*syscall.Stat_t)
	e.add(path, inode{stat.Dev, stat.Ino})
}

// regular adds a file that no argument names itself. Pipes, devices and
// sockets are then not meant, and might block for ever.
func (e *expansion) regular(path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		e.fail(path, err)
	case info.Mode().IsRegular():
		e.file(path, info)
	}
}

func (e *expansion) directory(root string) {
	// The slash makes WalkDir enter a link to a directory.
	filepath.WalkDir(root+"/", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			e.fail(path, err)
		case !entry.IsDir():
			e.regular(path)
		}
		return nil
	})
}

func (e *expansion) glob(pattern string) {
	paths, err := doublestar.FilepathGlob(pattern, doublestar.WithNoFollow())
	if err == nil && len(paths) == 0 {
		err = errors.New("no file matches")
	}
	if err != nil {
		e.fail(pattern, err)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			// A directory that matches is meant with its files, unless "**"
			// finds these by itself.
			if !strings.Contains(pattern, "**") {
				e.directory(path)
			}
			continue
		}
		e.regular(path)
	}
}
