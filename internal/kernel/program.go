package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Program is the executable of a process.
type Program struct {
	Path string
	// Loose says who besides root can have changed it, "" where nobody can.
	Loose string
	// Unseen is why Loose is not known, nil where it is.
	Unseen error
}

// ProgramOf looks at the executable of a process: the file itself, whatever its
// name leads to by now, and the directory in which it stands. It blocks while
// their file system does not answer.
func ProgramOf(pid int) (Program, error) {
	exe := procPath(pid, "exe")
	link, err := os.Readlink(exe)
	if err != nil {
		return Program{}, Explain(SeeProgram, "", err)
	}
	p := Program{Path: strings.TrimSuffix(link, " (deleted)")}
	var file unix.Stat_t
	if err := unix.Stat(exe, &file); err != nil {
		return p, &os.PathError{Op: "stat", Path: exe, Err: err}
	}
	if p.Loose = loose(&file, "it"); p.Loose != "" {
		return p, nil
	}
	// An old release may be gone with its directory.
	var dir *unix.Stat_t
	if dir, p.Unseen = directoryOf(pid, p.Path, &file); p.Unseen == nil {
		p.Loose = loose(dir, "its directory "+filepath.Dir(p.Path))
	}
	return p, nil
}

// directoryOf is the directory in which the executable stands. Its path is that
// of the process' mount namespace, but not of its chroot. Where it was replaced
// it is the directory of that name.
func directoryOf(pid int, path string, file *unix.Stat_t) (*unix.Stat_t, error) {
	var dir unix.Stat_t
	for _, root := range []string{"", procPath(pid, "root")} {
		var there unix.Stat_t
		if unix.Stat(root+path, &there) == nil && idOf(&there) == idOf(file) {
			if err := unix.Stat(filepath.Dir(root+path), &dir); err == nil {
				return &dir, nil
			}
		}
	}
	at := filepath.Dir(procPath(pid, "root") + path)
	if err := unix.Stat(at, &dir); err != nil {
		return nil, &os.PathError{Op: "stat", Path: at, Err: err}
	}
	return &dir, nil
}

// loose says who besides root, and root's group, can change a file or a
// directory.
func loose(st *unix.Stat_t, what string) string {
	switch {
	case st.Uid != 0:
		return fmt.Sprintf("%s is uid %d's", what, st.Uid)
	case st.Mode&0o002 != 0, st.Mode&0o020 != 0 && st.Gid != 0:
		return fmt.Sprintf("%s may be written by others than root (mode %04o, group %d)", what, st.Mode&0o7777, st.Gid)
	}
	return ""
}
