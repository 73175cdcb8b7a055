package kernel

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// File is a file or a folder to which a path leads.
type File struct {
	FileID
	Path string // without links
	Dir  bool
	// Changed is when it, or a link or a moved folder on its way, last changed,
	// and By which of them that was.
	Changed time.Time
	By      string
	// Gone says that By was there before Changed, and is no more.
	Gone bool
}

// Same reports whether both are one file.
func (s File) Same(o File) bool { return s.FileID == o.FileID }

// consider takes the time of one more file.
func (s *File) consider(by string, at time.Time) {
	if s.By == "" || at.After(s.Changed) {
		s.Changed, s.By, s.Gone = at, by, false
	}
}

// changed is when a file changed. The kernel sets ctime with each change, of
// mtime too: rsync and tar set mtime back, and one that lies after ctime was set
// to a time at which nothing changed.
func changed(st *unix.Stat_t) time.Time { return time.Unix(st.Ctim.Unix()) }

// Look looks at what a path leads to, which the process must be allowed to read.
// It blocks as ReadFile does.
func (r Root) Look(name string) (File, error) { return r.look(name, toRead) }

// LookProgram is Look at what the process must be allowed to execute.
func (r Root) LookProgram(name string) (File, error) { return r.look(name, toRun) }

func (r Root) look(name string, want uint32) (s File, err error) {
	on := func(at string, st, above *unix.Stat_t) {
		// A folder that was moved here keeps its mtime, but not its ctime, and its
		// new place has changed in the same moment.
		moved := st.Ctim.Nano() > st.Mtim.Nano() && above.Mtim.Nano() >= st.Ctim.Nano()-int64(time.Second)
		if moved || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			s.consider(at, changed(st))
		}
	}
	err = r.walk(name, want, on, func(_ int, at string, st *unix.Stat_t) error {
		s.Path, s.FileID = at, idOf(st)
		switch kind := st.Mode & unix.S_IFMT; {
		case kind == unix.S_IFDIR: // what is in it changes without it
			s.Dir = true
		case kind != unix.S_IFREG:
			return bounded.ErrNotRegular
		default:
			s.consider(at, changed(st))
		}
		return nil
	})
	return s, whyNot("look at", name, err)
}

// whyNot is the error of a look at a path, nil for nil.
func whyNot(op, name string, err error) error {
	if err == nil {
		return nil
	}
	err = &os.PathError{Op: op, Path: name, Err: err}
	if errors.Is(err, ErrBlind) {
		return Explain(LookBelow, "", err)
	}
	return err
}

// Bound is how much a search may look at, over all its folders.
type Bound struct {
	Entries int
	Until   time.Time

	seen map[FileID]bool // folders
}

// maxLinked is how many folders links may lead to, one in the other.
const maxLinked = 8

// Names says which names a search looks at.
type Names struct {
	Files  func(name string) bool // whose times count
	Leave  func(path string) bool // folders that are left out
	Within bool                   // whether to look into folders at all; else they count as files
	// Source is the file from which another in a folder beside it was made, "" for
	// none: Python's __pycache__/shop.cpython-311.pyc is made from shop.py. The
	// folder is Made.
	Source func(made string) string
	Made   string
}

// Newest finds the newest file at and below a folder, By "" where there is none.
// Links are followed. What the process may not read or search is left out: it
// loads nothing from there. The error says that there is more than may be looked
// at. It blocks as ReadFile does.
func (r Root) Newest(dir string, n Names, b *Bound) (File, error) {
	if b.seen == nil {
		b.seen = map[FileID]bool{}
	}
	s := search{root: r, names: n, bound: b}
	err := s.path(dir, 0)
	if NotThere(err) {
		err = nil
	}
	return s.found, err
}

// search is one Newest.
type search struct {
	root  Root
	names Names
	bound *Bound
	found File
}

// NotThere reports whether an error of a search says that there is nothing for the
// process to load: no such file, or none that it may read. Of any other it is not
// known.
func NotThere(err error) bool {
	return !errors.Is(err, ErrBlind) && (errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, errKernelsOwn) || errors.Is(err, bounded.ErrNotRegular) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR))
}

// path searches a folder that is given by its path.
func (s *search) path(name string, links int) error {
	return s.root.walk(name, toRead, nil, func(fd int, _ string, st *unix.Stat_t) error {
		return s.dir(fd, name, st, 0, links)
	})
}

// dir searches an open folder that the process may search.
func (s *search) dir(at int, name string, st *unix.Stat_t, depth, links int) error {
	id := idOf(st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || s.bound.seen[id] {
		return nil
	}
	if depth > maxNested/2 {
		return &bounded.TooMuchError{Max: maxNested / 2, What: "folders in each other"}
	}
	s.bound.seen[id] = true
	if s.root.as != nil {
		if err := s.root.as.may(toRead, at, st); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return whyNot("open", name, s.root.blind(err))
	}
	f := os.NewFile(uintptr(fd), "/proc/self/fd/"+strconv.Itoa(fd))
	defer f.Close()
	below, err := s.entries(f, name, links)
	if err == nil {
		err = s.gone(fd, name, st)
	}
	for i := 0; i < len(below) && err == nil; i++ {
		if err = s.below(fd, below[i], path.Join(name, below[i]), depth+1, links); NotThere(err) {
			err = nil
		}
	}
	return err
}

// gone looks for files that are no more in an open folder, while what was made
// from them is. They went when the folder last changed, or before.
func (s *search) gone(fd int, name string, st *unix.Stat_t) error {
	if s.names.Source == nil || s.found.By != "" && !changed(st).After(s.found.Changed) {
		return nil
	}
	made, err := unix.Openat(fd, s.names.Made, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err = s.root.blind(err); NotThere(err) {
		return nil
	}
	in := path.Join(name, s.names.Made)
	if err != nil {
		return whyNot("open", in, err)
	}
	f := os.NewFile(uintptr(made), in)
	defer f.Close()
	names, err := bounded.NamesIn(f, maxGlob)
	if s.bound.Entries -= len(names); cut(err) || s.bound.Entries < 0 {
		err = whyNot("search", in, errTooMuch)
	}
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, m := range names {
		source := s.names.Source(m)
		var is unix.Stat_t
		if source != "" && errors.Is(unix.Fstatat(fd, source, &is, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT) {
			s.found.consider(path.Join(name, source), changed(st))
			s.found.Gone = true
			break
		}
	}
	return nil
}

// below searches a folder in an open one.
func (s *search) below(fd int, entry, name string, depth, links int) error {
	child, err := unix.Openat(fd, entry, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return whyNot("open", name, s.root.blind(err))
	}
	defer unix.Close(child)
	var st unix.Stat_t
	if err := s.root.check(child, toSearch, &st); err != nil {
		return err
	}
	return s.dir(child, name, &st, depth, links)
}

// entries looks at what is in a folder, and returns the folders in it that are to
// be searched.
func (s *search) entries(f *os.File, name string, links int) (below []string, err error) {
	for {
		list, err := f.ReadDir(512)
		if s.bound.Entries -= len(list); s.bound.Entries < 0 || time.Now().After(s.bound.Until) {
			return nil, whyNot("search", name, errTooMuch)
		}
		for _, e := range list {
			if err := s.entry(f, e, name, links, &below); err != nil {
				return nil, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			slices.Sort(below)
			return below, nil
		case err != nil:
			return nil, err
		}
	}
}

var errTooMuch = errors.New("there is more below it than is looked at")

func (s *search) entry(f *os.File, e fs.DirEntry, in string, links int, below *[]string) error {
	name, kind := e.Name(), e.Type()
	full := path.Join(in, name)
	switch {
	case kind.IsDir() && s.names.Within:
		if !s.names.Leave(full) {
			*below = append(*below, name)
		}
	case (kind.IsRegular() || kind.IsDir()) && s.names.Files(name):
		var st unix.Stat_t
		err := s.root.blind(unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW))
		if err == nil {
			s.found.consider(full, changed(&st))
		} else if !NotThere(err) {
			return whyNot("stat", full, err)
		}
	case kind&fs.ModeSymlink != 0 && !s.names.Leave(full):
		s.bound.Entries -= 16 // each is a walk of its own
		to, err := s.root.Look(full)
		switch {
		case NotThere(err): // it leads nowhere, or to what is not for it
		case err != nil:
			return err
		case !to.Dir && s.names.Files(name):
			s.found.consider(to.By, to.Changed)
		case to.Dir && s.names.Within && links < maxLinked:
			if to.By != "" {
				s.found.consider(to.By, to.Changed)
			}
			if err := s.path(full, links+1); err != nil && !NotThere(err) {
				return err
			}
		}
	}
	return nil
}

// Running is the program that a process executes, with the name that it had.
func Running(pid int) (s File, err error) {
	exe := procPath(pid, "exe")
	if s.Path, err = os.Readlink(exe); err != nil {
		return s, Explain(SeeProgram, "", err)
	}
	s.Path, _ = asItCalls(pid, s.Path)
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil {
		return s, &os.PathError{Op: "stat", Path: exe, Err: err}
	}
	s.FileID = idOf(&st)
	return s, nil
}

// WorkDir is the folder in which a process is, and whether its name is gone.
func WorkDir(pid int) (s File, deleted bool, err error) {
	link := procPath(pid, "cwd")
	if s.Path, err = os.Readlink(link); err != nil {
		return s, false, Explain(ReadRoot, "", err)
	}
	s.Path, deleted = asItCalls(pid, s.Path)
	var st unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return s, deleted, &os.PathError{Op: "stat", Path: link, Err: err}
	}
	s.FileID, s.Dir = idOf(&st), true
	return s, deleted, nil
}

// asItCalls is what a link of /proc/PID is called by the process itself, which may
// live in a root of its own.
func asItCalls(pid int, link string) (name string, deleted bool) {
	name, deleted = strings.CutSuffix(link, " (deleted)")
	if root, err := os.Readlink(procPath(pid, "root")); err == nil && root != "/" {
		if below, ok := strings.CutPrefix(name, root+"/"); ok {
			name = "/" + below
		}
	}
	return name, deleted
}

// maxGlob bounds what one folder of a pattern may hold.
const maxGlob = 1 << 14

// Glob lists what there is of a pattern with one component that holds a "*", as
// far as the process may see it, sorted. The error says that there may be more.
func (r Root) Glob(pattern string) (found []string, err error) {
	all := parts(pattern)
	i := slices.IndexFunc(all, func(s string) bool { return strings.Contains(s, "*") })
	if i < 0 {
		if _, err = r.Look(pattern); err == nil {
			found = append(found, pattern)
		} else if NotThere(err) {
			err = nil
		}
		return found, err
	}
	dir := "/" + path.Join(all[:i]...)
	err = r.walk(dir, toSearch, nil, func(at int, _ string, st *unix.Stat_t) error {
		if r.as != nil && r.as.may(toRead, at, st) != nil {
			return nil
		}
		fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return r.blind(err)
		}
		f := os.NewFile(uintptr(fd), dir)
		defer f.Close()
		names, unread := bounded.NamesIn(f, maxGlob)
		for _, name := range names {
			full := path.Join(dir, name, path.Join(all[i+1:]...))
			if is, _ := path.Match(all[i], name); !is {
				continue
			}
			if _, err := r.Look(full); err == nil {
				found = append(found, full)
			} else if !NotThere(err) {
				return err
			}
		}
		return unread
	})
	slices.Sort(found)
	if NotThere(err) {
		err = nil
	}
	return found, whyNot("search", dir, err)
}
