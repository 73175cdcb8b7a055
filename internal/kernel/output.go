package kernel

import (
	"errors"
	"fmt"
	"os"
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

// OpenFile is a regular file that a process has open for writing, opened for
// reading.
type OpenFile struct {
	*os.File
	Dev, Ino uint64
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
	return OpenFile{f, st.Dev, st.Ino}, nil
}

// OpenWritten opens for reading what Written lists, so many files at most, each
// once. It is opened with the caller's rights: the process has it open itself,
// and what is read of it is only searched. It blocks as Written does.
func OpenWritten(pid, most int) (files []OpenFile, err error) {
	dir, names, _, err := entries(pid, "fd", maxEntries)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	seen := map[[2]uint64]bool{}
	for _, name := range names {
		path := dir.Name() + "/" + name
		if to, err := os.Readlink(path); err != nil || !strings.HasPrefix(to, "/") {
			continue
		}
		flags, readErr := read(procPath(pid, "fdinfo/"+name))
		if readErr != nil || !writable(flags) {
			continue
		}
		f, openErr := OpenRegular(path)
		if errors.Is(openErr, bounded.ErrNotRegular) {
			continue
		}
		if openErr != nil {
			err = openErr
			continue
		}
		if seen[[2]uint64{f.Dev, f.Ino}] || len(files) >= most {
			f.Close()
			continue
		}
		seen[[2]uint64{f.Dev, f.Ino}] = true
		files = append(files, f)
	}
	if len(files) > 0 {
		err = nil
	}
	return files, err
}

// SameOutput reports whether the standard errors of two processes lead to the same
// place.
func SameOutput(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Stat(procPath(a, "fd/2"), &x) == nil && unix.Stat(procPath(b, "fd/2"), &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
