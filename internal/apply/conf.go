package apply

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
	"qwatch/internal/kernel"
	"qwatch/internal/text"
)

var errLinked = errors.New("qwatch follows no links and writes to regular files only")

// conf is a file in a directory that is held open, so that neither can be
// exchanged for a link under way.
type conf struct {
	fd   int    // of the directory
	dir  string // its path
	name string
}

// confText is a conf file as it was read.
type confText struct {
	there bool
	text  []byte
	stat  unix.Stat_t
}

// openConf opens the file's directory, and makes it if it is missing.
func openConf(path string) (f *conf, made bool, err error) {
	f = &conf{dir: filepath.Dir(path), name: filepath.Base(path)}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	f.fd, err = unix.Open(f.dir, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		if err = unix.Mkdir(f.dir, 0o755); err == nil {
			made = true
			f.fd, err = unix.Open(f.dir, flags, 0)
		}
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, false, fmt.Errorf("%s is a link or not a directory: %w", f.dir, errLinked)
	}
	if err != nil {
		return nil, false, refused("open", f.dir, err)
	}
	return f, made, nil
}

func (f *conf) close() { unix.Close(f.fd) }

func (f *conf) file() string { return filepath.Join(f.dir, f.name) }

// read reads the file. One that does not exist has no text.
func (f *conf) read() (confText, error) {
	// O_NONBLOCK: a FIFO must not hold it up.
	fd, err := unix.Openat(f.fd, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return confText{}, nil
	case errors.Is(err, unix.ELOOP):
		return confText{}, fmt.Errorf("%s is a symbolic link: %w", f.file(), errLinked)
	case err != nil:
		return confText{}, refused("open", f.file(), err)
	}
	file := os.NewFile(uintptr(fd), f.file())
	defer file.Close()
	s := confText{there: true}
	if err := unix.Fstat(fd, &s.stat); err != nil {
		return confText{}, refused("stat", f.file(), err)
	}
	if s.stat.Mode&unix.S_IFMT != unix.S_IFREG || s.stat.Nlink > 1 {
		return confText{}, fmt.Errorf("%s is not a regular file or has %s: %w", f.file(), text.Plural(int(s.stat.Nlink), "hard link", "hard links"), errLinked)
	}
	info, err := file.Stat()
	if err != nil {
		return confText{}, err
	}
	if info.Size() > 1<<20 {
		return confText{}, fmt.Errorf("%s has %d bytes, more than a sysctl.d file can need", f.file(), info.Size())
	}
	s.text = make([]byte, info.Size())
	if _, err := file.ReadAt(s.text, 0); err != nil && len(s.text) > 0 {
		return confText{}, fmt.Errorf("%w: %w", err, errGone) // it shrinks while it is read
	}
	return s, nil
}

// write puts text in the file's place in one step, or removes the file where
// text is nil; old is what was read before. A crash leaves the old or the new
// file, and perhaps a temporary one that no sysctl reader reads: its name
// begins with a dot and does not end in .conf. The next write removes it.
func (f *conf) write(text []byte, old confText) error {
	if err := f.sweep(); err != nil {
		return err
	}
	if text == nil {
		if err := f.unchanged(old); err != nil {
			return err
		}
		if err := unix.Unlinkat(f.fd, f.name, 0); err != nil {
			return refused("remove", f.file(), err)
		}
		return f.sync()
	}
	temp := f.temp() + rand.Text() + tempSuffix
	if err := f.writeTemp(temp, text, old); err != nil {
		unix.Unlinkat(f.fd, temp, 0)
		return err
	}
	err := f.unchanged(old)
	if err == nil {
		if err = unix.Renameat(f.fd, temp, f.fd, f.name); err == nil {
			return f.sync()
		}
		err = refused("rename to", f.file(), err)
	}
	unix.Unlinkat(f.fd, temp, 0)
	return err
}

const tempSuffix = ".tmp"

func (f *conf) temp() string { return "." + f.name + "." }

func (f *conf) writeTemp(name string, text []byte, old confText) error {
	path := filepath.Join(f.dir, name)
	fd, err := unix.Openat(f.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return refused("create", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	_, err = file.Write(text)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err == nil && old.there {
		err = keepOwner(file, old.stat)
	}
	if err == nil {
		err = file.Sync()
	}
	// Close tells of a write that failed late (NFS, quota).
	if err := errors.Join(err, file.Close()); err != nil {
		return refused("write", path, err)
	}
	return nil
}

// keepOwner gives file the owner and group of old. Where it has them nothing is
// asked of the kernel: the service's SystemCallFilter= has no fchown.
func keepOwner(file *os.File, old unix.Stat_t) error {
	var now unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &now); err != nil {
		return err
	}
	if now.Uid == old.Uid && now.Gid == old.Gid {
		return nil
	}
	return file.Chown(int(old.Uid), int(old.Gid))
}

// unchanged compares the file with what was read of it.
func (f *conf) unchanged(old confText) error {
	var now unix.Stat_t
	err := unix.Fstatat(f.fd, f.name, &now, unix.AT_SYMLINK_NOFOLLOW)
	there := !errors.Is(err, unix.ENOENT)
	if there && err != nil {
		return refused("stat", f.file(), err)
	}
	o := old.stat
	if there != old.there || there && (now.Ino != o.Ino || now.Size != o.Size || now.Mtim != o.Mtim || now.Ctim != o.Ctim) {
		return fmt.Errorf("%s: %w", f.file(), errGone)
	}
	return nil
}

// sweep removes what a crash has left.
func (f *conf) sweep() error {
	names, err := bounded.Names(f.held(), 4096)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, f.temp()) && strings.HasSuffix(name, tempSuffix) {
			unix.Unlinkat(f.fd, name, 0)
		}
	}
	return nil
}

// held is a path to the directory that is held open, not to what has its name
// by now.
func (f *conf) held() string { return "/proc/self/fd/" + strconv.Itoa(f.fd) }

// sync makes the change of name survive a power cut.
func (f *conf) sync() error {
	if err := unix.Fsync(f.fd); err != nil {
		return refused("fsync", f.dir, err)
	}
	return nil
}

// refused is the error of an operation on a path, with what would allow it.
func refused(op, path string, err error) error {
	var wrapped *os.PathError
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return kernel.Explain(kernel.WriteDirectory, "", &os.PathError{Op: op, Path: path, Err: err})
}
