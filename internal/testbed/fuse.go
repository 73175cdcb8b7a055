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

	"golang.org/x/sys/unix"
)

// FUSE is a file system of one folder that stops to answer when it is told to,
// like a dead NFS or a FUSE daemon that stalls: whoever asks it something then
// waits in the kernel. It is read only, and grows by Append.
//
// It speaks the protocol of linux/fuse.h, version 7.31, as far as a reader of files
// asks.
type FUSE struct {
	dev, ended int // ended is one end of a pipe whose other is closed

	mu      sync.Mutex
	files   []*fuseFile // by their number, from firstFile on
	hangs   bool
	polled  bool
	waiting [][]byte // questions that came since
	asked   chan struct{}
}

type fuseFile struct {
	name string
	text []byte
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
	var end [2]int
	if err := unix.Pipe2(end[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	f := &FUSE{dev: fd, ended: end[0], asked: make(chan struct{}, 1)}
	var served sync.WaitGroup
	served.Go(f.serve)
	t.Cleanup(func() {
		unix.Close(end[1])
		served.Wait()
		unix.Close(fd) // all that wait get an error
		unix.Close(end[0])
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
			file.text = append(file.text, text...)
			return
		}
	}
	f.files = append(f.files, &fuseFile{name, []byte(text)})
}

// Hang stops the answers. Asked tells when the next question has come.
func (f *FUSE) Hang() (asked <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangs, f.asked = true, make(chan struct{}, 1)
	return f.asked
}

// Release answers everything.
func (f *FUSE) Release() {
	f.mu.Lock()
	waiting := f.waiting
	f.hangs, f.waiting = false, nil
	f.mu.Unlock()
	for _, q := range waiting {
		f.answer(q)
	}
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
		fds := []unix.PollFd{{Fd: int32(f.dev), Events: unix.POLLIN}, {Fd: int32(f.ended), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); errors.Is(err, unix.EINTR) {
			continue
		}
		if fds[1].Revents != 0 {
			return
		}
		n, err := unix.Read(f.dev, buf)
		if errors.Is(err, unix.ENODEV) {
			return
		}
		if err != nil { // the question was taken back
			continue
		}
		f.mu.Lock()
		wait := f.hangs
		if wait {
			f.waiting = append(f.waiting, bytes.Clone(buf[:n]))
			select {
			case f.asked <- struct{}{}:
			default:
			}
		}
		f.mu.Unlock()
		if !wait {
			f.answer(buf[:n])
		}
	}
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
	fuseFlush       = 25
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
	f.mu.Lock()
	defer f.mu.Unlock()
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
		order.PutUint32(out[8:], 1) // FOPEN_DIRECT_IO
	case fuseRead:
		text := f.files[node-firstFile].text
		out = part(text, order.Uint64(body[8:]), order.Uint32(body[16:]))
	case fuseReaddir:
		out = part(f.entries(), order.Uint64(body[8:]), order.Uint32(body[16:]))
	case fuseStatfs:
		out = make([]byte, 80)
	case fuseRelease, fuseReleasedir, fuseFlush:
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
		order.PutUint64(a[8:], uint64(len(f.files[node-firstFile].text)))
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
