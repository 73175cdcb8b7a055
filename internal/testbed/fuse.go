package testbed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FUSE is a file system of one folder that stops to answer when it is told to,
// like a dead NFS or a FUSE daemon that was stopped: whoever asks it something then
// waits in the kernel. It is read only, and grows by Append.
//
// It speaks the protocol of linux/fuse.h, version 7.31, as far as a reader of files
// asks. While it hangs it does not even take the questions: whoever waits for the
// answer to one that was taken does not die of SIGKILL (request_wait_answer). Nor
// does it want to be told of a close(2), also that of a process which ends: nothing
// interrupts that (fuse_flush).
type FUSE struct {
	dev  int
	wake [2]int // a pipe: there is something new; its end is that of serve

	mu     sync.Mutex
	files  []*fuseFile // by their number, from firstFile on
	hangs  bool
	polled bool
	asked  chan struct{}
}

type fuseFile struct {
	name    string
	text    []byte
	written time.Time
}

const (
	rootNode  = 1
	firstFile = 2
)

// MountFUSE mounts one, until the end of the test. It needs "fuse".
func MountFUSE(t testing.TB, dir string) *FUSE {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", fd, os.Geteuid(), os.Getegid())
	if err := unix.Mount("qwatch-testbed", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		t.Fatalf("mount a FUSE at %s: %v", dir, err)
	}
	f := &FUSE{dev: fd}
	if err := unix.Pipe2(f.wake[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(f.serve)
	t.Cleanup(func() {
		unix.Close(f.wake[1])
		served.Wait()
		unix.Close(f.wake[0])
		unix.Close(fd) // all that wait get an error
		unix.Unmount(dir, unix.MNT_DETACH)
	})
	return f
}

// Append makes a file of the folder longer, which it makes where there is none.
func (f *FUSE) Append(name, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, file := range f.files {
		if file.name == name {
			file.text, file.written = append(file.text, text...), time.Now()
			return
		}
	}
	f.files = append(f.files, &fuseFile{name, []byte(text), time.Now()})
}

// Hang stops the answers. What it returns is closed when somebody has asked.
func (f *FUSE) Hang() (asked <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangs, f.asked = true, make(chan struct{})
	_, _ = unix.Write(f.wake[1], []byte{0})
	return f.asked
}

// Release answers everything.
func (f *FUSE) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangs = false
	_, _ = unix.Write(f.wake[1], []byte{0})
}

// Polled says whether somebody has polled a file (poll(2), epoll_ctl(2)).
func (f *FUSE) Polled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.polled
}

func (f *FUSE) serve() {
	buf := make([]byte, 1<<17+4096)
	for {
		// Not through Go's poller: that waits itself where a file here is polled.
		fds := []unix.PollFd{{Fd: int32(f.wake[0]), Events: unix.POLLIN}, {Fd: int32(f.dev), Events: unix.POLLIN}}
		if f.wasAsked() {
			fds = fds[:1]
		}
		if _, err := unix.Poll(fds, -1); errors.Is(err, unix.EINTR) {
			continue
		}
		if fds[0].Revents != 0 {
			if n, _ := unix.Read(f.wake[0], buf[:1]); n == 0 {
				return
			}
			continue
		}
		f.mu.Lock()
		if f.hangs {
			close(f.asked)
			f.asked = nil
		} else if n, err := unix.Read(f.dev, buf); err == nil { // else it was taken back
			f.answer(buf[:n])
		}
		f.mu.Unlock()
	}
}

// wasAsked says whether it hangs, and a question waits.
func (f *FUSE) wasAsked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hangs && f.asked == nil
}

// The numbers of the questions (enum fuse_opcode).
const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseOpen        = 14
	fuseRead        = 15
	fuseStatfs      = 17
	fuseRelease     = 18
	fuseInit        = 26
	fuseOpendir     = 27
	fuseReaddir     = 28
	fuseReleasedir  = 29
	fuseInterrupt   = 36
	fusePoll        = 40
	fuseBatchForget = 42
)

var order = binary.NativeEndian

// answer answers one question: struct fuse_in_header and what follows it.
func (f *FUSE) answer(q []byte) {
	code, node := order.Uint32(q[4:]), order.Uint64(q[16:])
	body := q[40:]
	var out []byte
	errno := unix.Errno(0)
	switch code {
	case fuseForget, fuseBatchForget, fuseInterrupt:
		return
	case fuseInit: // struct fuse_init_out
		out = make([]byte, 64)
		order.PutUint32(out[0:], 7)
		order.PutUint32(out[4:], 31)
		order.PutUint32(out[20:], 4096) // max_write
		order.PutUint32(out[24:], 1)    // time_gran
	case fuseLookup: // struct fuse_entry_out: no answer is kept
		errno = unix.ENOENT
		for i, file := range f.files {
			if file.name == string(bytes.TrimRight(body, "\x00")) {
				out = append(make([]byte, 40), f.attr(uint64(i)+firstFile)...)
				order.PutUint64(out, uint64(i)+firstFile)
				errno = 0
			}
		}
	case fuseGetattr: // struct fuse_attr_out
		out = append(make([]byte, 16), f.attr(node)...)
	case fuseOpen, fuseOpendir: // struct fuse_open_out
		out = make([]byte, 16)
		order.PutUint32(out[8:], 1|1<<5) // FOPEN_DIRECT_IO, FOPEN_NOFLUSH
	case fuseRead:
		text := f.files[node-firstFile].text
		out = part(text, order.Uint64(body[8:]), order.Uint32(body[16:]))
	case fuseReaddir:
		out = part(f.entries(), order.Uint64(body[8:]), order.Uint32(body[16:]))
	case fuseStatfs:
		out = make([]byte, 80)
	case fuseRelease, fuseReleasedir:
	case fusePoll:
		f.polled, errno = true, unix.ENOSYS
	default:
		errno = unix.ENOSYS
	}
	head := make([]byte, 16)
	order.PutUint32(head, uint32(len(head)+len(out)))
	order.PutUint32(head[4:], uint32(-int32(errno)))
	copy(head[8:], q[8:16])
	_, _ = unix.Write(f.dev, append(head, out...)) // an error is that nobody waits any more
}

func part(all []byte, at uint64, most uint32) []byte {
	all = all[min(at, uint64(len(all))):]
	return all[:min(uint64(most), uint64(len(all)))]
}

// attr is a struct fuse_attr.
func (f *FUSE) attr(node uint64) []byte {
	a := make([]byte, 88)
	order.PutUint64(a, node)
	mode := uint32(unix.S_IFDIR | 0o755)
	if node != rootNode {
		mode = unix.S_IFREG | 0o644
		file := f.files[node-firstFile]
		order.PutUint64(a[8:], uint64(len(file.text)))
		order.PutUint64(a[32:], uint64(file.written.Unix())) // mtime
		order.PutUint32(a[52:], uint32(file.written.Nanosecond()))
	}
	order.PutUint32(a[60:], mode)
	order.PutUint32(a[64:], 1) // nlink
	order.PutUint32(a[80:], 4096)
	return a
}

// entries are the struct fuse_dirent of all files.
func (f *FUSE) entries() (all []byte) {
	names := make([]int, len(f.files))
	for i := range names {
		names[i] = i
	}
	sort.Slice(names, func(i, j int) bool { return f.files[names[i]].name < f.files[names[j]].name })
	for _, i := range names {
		name := f.files[i].name
		e := make([]byte, 24, 24+len(name)+8)
		e = append(e, name...)
		e = append(e, make([]byte, -len(name)&7)...)
		order.PutUint64(e, uint64(i)+firstFile)
		order.PutUint64(e[8:], uint64(len(all)+len(e)))
		order.PutUint32(e[16:], uint32(len(name)))
		order.PutUint32(e[20:], unix.DT_REG)
		all = append(all, e...)
	}
	return all
}
