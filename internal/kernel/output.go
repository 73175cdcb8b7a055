package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// Output is where a process' standard error leads.
type Output string

// The kinds of Output.
const (
	OutputFile    Output = "file"
	OutputJournal Output = "journal" // the stream that systemd made (JOURNAL_STREAM, systemd.exec(5))
	OutputOther   Output = "other"   // a pipe, a terminal, another socket
)

// OutputOf tells where the standard error of a process leads. It needs the rights
// of Sockets, and blocks while a file system, or the process' memory, does not
// answer.
func OutputOf(pid int) (Output, error) {
	var st unix.Stat_t
	path := procPath(pid, "fd/2")
	if err := unix.Stat(path, &st); err != nil {
		return OutputOther, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return OutputFile, nil
	case unix.S_IFSOCK:
		environ, err := Environ(pid)
		stream := fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino)
		for _, kv := range environ {
			if kv == stream {
				return OutputJournal, nil
			}
		}
		return OutputOther, err
	}
	return OutputOther, nil
}

// maxWritten is how many files of one process Written tells: more than any uWSGI
// logs to, and anybody may have sixty thousand open.
const maxWritten = 1024

// Written are the regular files that a process has open for writing, as their
// names are now; of very many it tells those of the lowest descriptors. It blocks
// while the file system of one of them does not answer.
func Written(pid int) (paths []string, err error) {
	err = eachWritten(pid, func(fd, path string) (enough bool) {
		if info, err := os.Stat(fd); err == nil && info.Mode().IsRegular() && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
		return len(paths) >= maxWritten
	})
	return paths, err
}

// eachWritten calls each for what a process has open for writing by a path, until
// that is enough.
func eachWritten(pid int, each func(fd, path string) (enough bool)) error {
	dir, names, _, err := entries(pid, "fd", maxEntries)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range names {
		fd := dir.Name() + "/" + name
		path, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(path, "/") {
			continue
		}
		flags, err := read(procPath(pid, "fdinfo/"+name))
		if err == nil && writable(flags) && each(fd, strings.TrimSuffix(path, " (deleted)")) {
			break
		}
	}
	return nil
}

// writable reads the open flags of /proc/PID/fdinfo/FD, which are octal.
func writable(fdinfo []byte) bool {
	digits, _ := field(fdinfo, "flags")
	flags, err := strconv.ParseUint(string(digits), 8, 32)
	return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
}

// OpenFile is a regular file that a process has open for writing, opened for
// reading.
type OpenFile struct {
	*os.File
	FileID
}

// OpenRegular opens a regular file for reading.
func OpenRegular(path string) (OpenFile, error) {
	f, err := bounded.Open(path)
	if err != nil {
		return OpenFile{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return OpenFile{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return OpenFile{f, idOf(&st)}, nil
}

// OpenWritten opens for reading what Written lists, so many files at most, each
// once. It is opened with the caller's rights: the process has it open itself,
// and what is read of it is only searched. It blocks as Written does.
func OpenWritten(pid, most int) (files []OpenFile, err error) {
	seen := map[FileID]bool{}
	var failed error
	err = eachWritten(pid, func(fd, _ string) (enough bool) {
		f, err := OpenRegular(fd)
		switch {
		case errors.Is(err, bounded.ErrNotRegular):
		case err != nil:
			failed = err
		case seen[f.FileID]:
			f.Close()
		default:
			seen[f.FileID] = true
			files = append(files, f)
		}
		return len(files) >= most
	})
	if len(files) == 0 {
		err = cmp.Or(err, failed)
	}
	return files, err
}

// SameOutput reports whether the standard errors of two processes lead to the same
// place.
func SameOutput(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Stat(procPath(a, "fd/2"), &x) == nil && unix.Stat(procPath(b, "fd/2"), &y) == nil && idOf(&x) == idOf(&y)
}
