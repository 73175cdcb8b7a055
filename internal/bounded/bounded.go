// Package bounded reads what strangers own: files that others may put in the
// place of a log, texts whose length a process chooses, folders that anybody may
// fill, archives that grow without end. Nothing here waits on a FIFO or a
// device, and nothing returns more than it was asked for.
package bounded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is the error of a path that leads to no regular file.
var ErrNotRegular = errors.New("not a regular file")

// TooMuchError says that there was more than is read.
type TooMuchError struct {
	Max  int64
	What string // "bytes", "entries"
}

func (e *TooMuchError) Error() string {
	return fmt.Sprintf("it has more than %d %s, of which no more are read", e.Max, e.What)
}

// Open opens a regular file for reading. What is in its place instead is never
// opened: that could block, or do something (fifo(7), watchdog devices).
func Open(path string) (*os.File, error) {
	failed := func(err error) (*os.File, error) { return nil, &os.PathError{Op: "open", Path: path, Err: err} }
	at, err := open(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(at)
	fd, err := Reopen(at)
	if err != nil {
		return failed(err)
	}
	// Go polls what does not block. A FUSE that hangs is asked then, while a lock
	// is held that all of this process's polling needs (fuse_file_poll, epoll_ctl).
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return failed(err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Reopen opens for reading what an O_PATH descriptor stands for, if that is a
// regular file.
func Reopen(at int) (fd int, err error) {
	var st unix.Stat_t
	switch err := unix.Fstat(at, &st); {
	case err != nil:
		return -1, err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return -1, ErrNotRegular
	}
	// O_NONBLOCK: a lease on the file must not make anybody wait (fcntl(2)).
	return open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC)
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// ReadFile reads a regular file of at most max bytes. Of a longer one it returns
// the first max, with a TooMuchError.
func ReadFile(path string, most int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var size int64 // 0 where nobody knows, as in /proc
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	b, err := readAll(f, most, size)
	if err != nil {
		return b, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return b, nil
}

// ReadAll reads all of r, as ReadFile does.
func ReadAll(r io.Reader, most int64) ([]byte, error) { return readAll(r, most, 0) }

// readAll takes no more memory than it returns where the size is known.
func readAll(r io.Reader, most, size int64) ([]byte, error) {
	var text bytes.Buffer
	text.Grow(int(min(size, most)) + 2*bytes.MinRead)
	_, err := text.ReadFrom(io.LimitReader(r, most+1))
	b := text.Bytes()
	if int64(len(b)) > most {
		return b[:most], &TooMuchError{most, "bytes"}
	}
	return b, err
}

// Names lists the names in a folder, at most so many; of more it returns the
// first, with a TooMuchError. The order is the file system's.
func Names(path string, most int) ([]string, error) {
	dir, err := OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return NamesIn(dir, most)
}

// NamesIn is Names of an open folder.
func NamesIn(dir *os.File, most int) ([]string, error) {
	names, err := dir.Readdirnames(most + 1)
	switch {
	case errors.Is(err, io.EOF): // there are none
		return nil, nil
	case err != nil:
		return nil, err
	case len(names) > most:
		return names[:most], &os.PathError{Op: "read", Path: dir.Name(), Err: &TooMuchError{int64(most), "entries"}}
	}
	return names, nil
}

// Reader is r as long as ctx lasts and it has brought no more than most bytes:
// then its error is ctx's, or a TooMuchError. It is for what grows as it is
// read.
func Reader(ctx context.Context, r io.Reader, most int64) io.Reader {
	return &reader{ctx, r, most, most}
}

type reader struct {
	ctx        context.Context
	r          io.Reader
	left, most int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	if r.left < 0 {
		return 0, &TooMuchError{r.most, "bytes"}
	}
	if int64(len(p)) > r.left+1 {
		p = p[:r.left+1]
	}
	n, err := r.r.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return n - 1, &TooMuchError{r.most, "bytes"}
	}
	return n, err
}

// Entries lists a folder sorted by name, at most so many entries as Names.
func Entries(path string, most int) ([]fs.DirEntry, error) {
	dir, err := OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(most + 1)
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case len(entries) > most:
		entries, err = entries[:most], &os.PathError{Op: "read", Path: path, Err: &TooMuchError{int64(most), "entries"}}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// OpenDir opens a folder.
func OpenDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// FS is the whole file system as an io/fs: regular files of at most Size bytes,
// folders of at most Entries.
type FS struct {
	Size    int64
	Entries int
}

// Open opens a regular file.
func (f FS) Open(name string) (fs.File, error) { return Open("/" + name) }

// Stat follows links.
func (f FS) Stat(name string) (fs.FileInfo, error) { return os.Stat("/" + name) }

// ReadFile reads a regular file.
func (f FS) ReadFile(name string) ([]byte, error) { return ReadFile("/"+name, f.Size) }

// ReadDir lists a folder.
func (f FS) ReadDir(name string) ([]fs.DirEntry, error) { return Entries("/"+name, f.Entries) }

// OpenFile is os.OpenFile of a regular file, which it may make: what is there
// instead is not waited for.
func OpenFile(path string, flags int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK|unix.O_NOCTTY, perm)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// local are the file systems whose answers come from the kernel and a disk
// (linux/magic.h and the sources of those that are not in it). Those of all others
// may come from another machine or another process, and then they may never come.
var local = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.NILFS_SUPER_MAGIC,
	unix.REISERFS_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC, unix.SQUASHFS_MAGIC, unix.ISOFS_SUPER_MAGIC,
	unix.UDF_SUPER_MAGIC, unix.EROFS_SUPER_MAGIC_V1, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
	unix.ECRYPTFS_SUPER_MAGIC, unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC,
	0x2fc12fc1 /* zfs */, 0xca451a4e /* bcachefs */, 0x3153464a /* jfs */, 0x7366746e, /* ntfs3 */
}

// MayHang says whether the answers of an open file's file system may come from
// elsewhere: unless it is known to be one of the kernel's own. To ask may hang, too.
func MayHang(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) != nil || !slices.Contains(local, int64(uint32(st.Type)))
}
