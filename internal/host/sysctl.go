package host

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/sysctld"
	"qwatch/remediate"
)

var netKey = regexp.MustCompile(`^net(\.[a-zA-Z0-9_-]+)+$`)

// setSysctlIn sets the live value in the network namespace of another process:
// net.* of /proc/sys is that of the thread which opens it.
func setSysctlIn(a remediate.SetSysctl) (r remediate.Outcome) {
	if a.File != "" {
		return failed(-1, fmt.Errorf("no sysctl.d file of this host reaches the namespace of %s", a.NetNSOf))
	}
	pidfd, err := openProcess(a.NetNSOf)
	if err != nil {
		return failure(-1, err)
	}
	// As long as this is open the pid stays that process's.
	defer unix.Close(pidfd)
	err = inNamespaceOf(a.NetNSOf.PID, func() error {
		r = setSysctl(a)
		return nil
	})
	if err != nil {
		return failed(-1, fmt.Errorf("network namespace of %s: %w; needs CAP_SYS_PTRACE and CAP_SYS_ADMIN", a.NetNSOf, err))
	}
	return r
}

// setSysctl writes the file first: after a crash between the two a boot gives
// what was wanted, and the next plan finds the live value still to be set.
func setSysctl(a remediate.SetSysctl) remediate.Outcome {
	if !netKey.MatchString(a.Key) {
		return failed(-1, fmt.Errorf("sysctl %q is not a plain key below net", a.Key))
	}
	live := "/proc/sys/" + sysctld.Path(a.Key)
	was, err := readInt(live)
	switch {
	case errors.Is(err, os.ErrNotExist) && a.Companion:
		return remediate.Outcome{Result: remediate.Skipped, Now: -1, Note: "this kernel or namespace has no " + a.Key}
	case err != nil:
		return failed(-1, err)
	}
	if r, ok := compare(a.Key, was, a.From, a.To, a.Undo); !ok {
		return r
	}
	done := remediate.Outcome{Result: remediate.Applied, Now: was}
	putBack := func() error { return nil }
	if a.File != "" {
		var changed bool
		if putBack, changed, done.Note, err = setFile(a); err != nil {
			return failure(was, err)
		}
		if !changed && a.To == was {
			done.Result = remediate.Skipped
		}
	}
	if a.To == was {
		return done
	}
	if err := writeInt(live, a.To); err != nil {
		r := failed(was, errors.Join(err, putBack()))
		r.Now, _ = readInt(live)
		return r
	}
	done.Now, err = readInt(live)
	if err == nil && done.Now != a.To {
		err = fmt.Errorf("%s is %d after %d was written: the kernel does not take that much", a.Key, done.Now, a.To)
	}
	if err != nil {
		r := failed(was, errors.Join(err, putBack()))
		r.Now = done.Now
		return r
	}
	return done
}

func readInt(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1, err
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return -1, fmt.Errorf("%s holds %q, not one number", path, bytes.TrimSpace(b))
	}
	return n, nil
}

func writeInt(path string, n int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(strconv.Itoa(n) + "\n")
		err = errors.Join(err, f.Close())
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w; needs CAP_NET_ADMIN in the user namespace that owns the network namespace", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w; /proc/sys is mounted read-only: by ProtectKernelTunables=yes of the service, or by the container", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w; the kernel refuses %d", err, n)
	}
	return err
}

// setFile makes the change in the sysctl.d file. putBack undoes it.
func setFile(a remediate.SetSysctl) (putBack func() error, changed bool, note string, err error) {
	f, made, err := openConf(a.File)
	if err != nil {
		return nil, false, "", err
	}
	defer f.close()
	if made {
		note = "made the folder " + f.folder
	}
	old, err := f.read()
	if err != nil {
		return nil, false, "", err
	}
	if holds := sysctld.Value(old.text, a.Key); holds != a.FileFrom {
		return nil, false, "", fmt.Errorf("%s sets %s to %d, not %d: %w", a.File, a.Key, holds, a.FileFrom, errGone)
	}
	text := sysctld.Set(old.text, a.Key, a.To, a.From, a.Why)
	if a.Undo {
		text = sysctld.Unset(old.text, a.Key)
	}
	if bytes.Equal(text, old.text) {
		return func() error { return nil }, false, note, nil
	}
	if err := f.write(text, old); err != nil {
		return nil, false, "", err
	}
	return func() error { return restore(a.File, text, old) }, true, note, nil
}

// restore brings back the text of a file that still is as qwatch left it.
func restore(path string, ours []byte, old snapshot) error {
	f, _, err := openConf(path)
	if err != nil {
		return err
	}
	defer f.close()
	now, err := f.read()
	if err != nil {
		return err
	}
	if !bytes.Equal(now.text, ours) {
		return fmt.Errorf("%s was changed by somebody else and stays: %w", path, errGone)
	}
	text := old.text
	if !old.there {
		text = nil
	}
	return f.write(text, now)
}

var errLinked = errors.New("qwatch follows no links and writes to regular files only")

// conf is a file in a folder that is held open, so that neither can be
// exchanged for a link under way.
type conf struct {
	dir          int
	folder, name string
}

// snapshot is a conf file as it was read.
type snapshot struct {
	there bool
	text  []byte
	stat  unix.Stat_t
}

// openConf opens the file's folder, and makes it if it is missing.
func openConf(path string) (f *conf, made bool, err error) {
	f = &conf{folder: filepath.Dir(path), name: filepath.Base(path)}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	f.dir, err = unix.Open(f.folder, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		if err = unix.Mkdir(f.folder, 0o755); err == nil {
			made = true
			f.dir, err = unix.Open(f.folder, flags, 0)
		}
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, false, fmt.Errorf("%s is a link or no folder: %w", f.folder, errLinked)
	}
	if err != nil {
		return nil, false, f.explain("open", f.folder, err)
	}
	return f, made, nil
}

func (f *conf) close() { unix.Close(f.dir) }

func (f *conf) path() string { return filepath.Join(f.folder, f.name) }

// read reads the file. One that does not exist has no text.
func (f *conf) read() (snapshot, error) {
	// O_NONBLOCK: a FIFO must not hold us up.
	fd, err := unix.Openat(f.dir, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return snapshot{}, nil
	case errors.Is(err, unix.ELOOP):
		return snapshot{}, fmt.Errorf("%s is a symbolic link: %w", f.path(), errLinked)
	case err != nil:
		return snapshot{}, f.explain("open", f.path(), err)
	}
	file := os.NewFile(uintptr(fd), f.path())
	defer file.Close()
	s := snapshot{there: true}
	if err := unix.Fstat(fd, &s.stat); err != nil {
		return snapshot{}, f.explain("stat", f.path(), err)
	}
	if s.stat.Mode&unix.S_IFMT != unix.S_IFREG || s.stat.Nlink > 1 {
		return snapshot{}, fmt.Errorf("%s is no regular file or has %d hard links: %w", f.path(), s.stat.Nlink, errLinked)
	}
	info, err := file.Stat()
	if err != nil {
		return snapshot{}, err
	}
	if info.Size() > 1<<20 {
		return snapshot{}, fmt.Errorf("%s has %d bytes, more than a sysctl.d file can need", f.path(), info.Size())
	}
	s.text = make([]byte, info.Size())
	if _, err := file.ReadAt(s.text, 0); err != nil && len(s.text) > 0 {
		return snapshot{}, fmt.Errorf("%w: %w", err, errGone) // it shrinks while it is read
	}
	return s, nil
}

// write puts text in the file's place in one step, or removes the file where
// text is nil; old is what was read before. A crash leaves the old or the new
// file, and perhaps a temporary one that no sysctl reader looks at: its name
// begins with a dot and does not end in .conf. The next write removes it.
func (f *conf) write(text []byte, old snapshot) error {
	if err := f.sweep(); err != nil {
		return err
	}
	if text == nil {
		if err := f.unchanged(old); err != nil {
			return err
		}
		if err := unix.Unlinkat(f.dir, f.name, 0); err != nil {
			return f.explain("remove", f.path(), err)
		}
		return f.sync()
	}
	temp := f.temp() + rand.Text() + tempSuffix
	if err := f.writeTemp(temp, text, old); err != nil {
		unix.Unlinkat(f.dir, temp, 0)
		return err
	}
	err := f.unchanged(old)
	if err == nil {
		if err = unix.Renameat(f.dir, temp, f.dir, f.name); err == nil {
			return f.sync()
		}
		err = f.explain("rename to", f.path(), err)
	}
	unix.Unlinkat(f.dir, temp, 0)
	return err
}

const tempSuffix = ".tmp"

func (f *conf) temp() string { return "." + f.name + "." }

func (f *conf) writeTemp(name string, text []byte, old snapshot) error {
	path := filepath.Join(f.folder, name)
	fd, err := unix.Openat(f.dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return f.explain("create", path, err)
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
		return f.explain("write", path, err)
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
func (f *conf) unchanged(old snapshot) error {
	var now unix.Stat_t
	err := unix.Fstatat(f.dir, f.name, &now, unix.AT_SYMLINK_NOFOLLOW)
	there := !errors.Is(err, unix.ENOENT)
	if there && err != nil {
		return f.explain("stat", f.path(), err)
	}
	o := old.stat
	if there != old.there || there && (now.Ino != o.Ino || now.Size != o.Size || now.Mtim != o.Mtim || now.Ctim != o.Ctim) {
		return fmt.Errorf("%s: %w", f.path(), errGone)
	}
	return nil
}

// sweep removes what a crash has left.
func (f *conf) sweep() error {
	entries, err := os.ReadDir(f.held())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, f.temp()) && strings.HasSuffix(name, tempSuffix) {
			unix.Unlinkat(f.dir, name, 0)
		}
	}
	return nil
}

// held is a path to the folder that is held open, not to what has its name
// by now.
func (f *conf) held() string { return "/proc/self/fd/" + strconv.Itoa(f.dir) }

// sync makes the change of name survive a power cut.
func (f *conf) sync() error {
	if err := unix.Fsync(f.dir); err != nil {
		return f.explain("fsync", f.folder, err)
	}
	return nil
}

func (f *conf) explain(op, path string, err error) error {
	var wrapped *os.PathError
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	err = &os.PathError{Op: op, Path: path, Err: err}
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w; mounted read-only, or not in ReadWritePaths= of the service", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w; make room, or set policy.sysctl file to another folder", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w; needs the owner of %s, root, or CAP_DAC_OVERRIDE", err, f.folder)
	}
	return err
}
