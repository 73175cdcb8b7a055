package hostile

import (
	"bufio"
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uid is the stranger's.
const uid = 12345

// roleEnv makes this program a stranger's process.
const roleEnv = "QWATCH_HOSTILE_ROLE"

// stranger is a process of a user without rights that calls itself uwsgi: its
// executable has that name.
type stranger struct {
	Args     []string // behind argv[0]
	Dir      string
	Comm     string   // "": uwsgi
	Listen   []string // "127.0.0.1:6000", a path, "@name"
	Ports    int      // so many sockets more, from 127.0.0.1:20000 on
	First    int      // which else is the first of them
	Backlog  int      // 0: 16
	Fill     bool     // more connections to each than it takes
	Cmdline  int      // MiB that /proc shows as its command line
	Dups     int      // descriptors of the last socket more
	Children int      // that hold all of it too
	Own      bool     // each of them has a socket of its own besides
	Dead     bool     // they have ended, and nobody has taken note
	Threads  int      // more
	Apart    bool     // in a network namespace of its own
	User     int      // another of the uids that he has (subuid(5)), the so manieth
	Do       string   // of deeds, for ever
	With     []string // what for
}

// deeds are what a stranger's process may go on doing.
var deeds = map[string]func(with []string){
	"swap":    swap,
	"stats":   serveStats,
	"clients": holdClients,
	"lines":   writeLines,
	"rotate":  rotate,
	"churn":   churn,
}

// start starts a process of the stranger's, and returns when it says that it is
// all there.
func (s stranger) start(r *room) (end func()) {
	r.t.Helper()
	cmd := exec.Command(r.program, s.Args...)
	role, err := os.CreateTemp(r.evil, "role-") // which the environment may not hold
	if err != nil {
		r.t.Fatal(err)
	}
	defer os.Remove(role.Name())
	if err := errors.Join(role.Chmod(0o644), gob.NewEncoder(role).Encode(s), role.Close()); err != nil {
		r.t.Fatal(err)
	}
	cmd.Args[0] = "uwsgi"
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), roleEnv+"="+role.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid + uint32(s.User), Gid: uid}}
	if s.Apart { // as anybody may who may make a user namespace
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	end = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	r.t.Cleanup(end)
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "there\n" {
		rest, _ := io.ReadAll(out)
		r.t.Fatalf("the stranger says %q%s, %v", line, rest, err)
	}
	return end
}

// play is what the stranger's process does.
func play(role string) {
	runtime.LockOSThread()
	var s stranger
	f, err := os.Open(role)
	check(err)
	check(gob.NewDecoder(f).Decode(&s))
	f.Close()
	if s.Comm == "" {
		s.Comm = "uwsgi"
	}
	check(os.WriteFile("/proc/self/comm", []byte(s.Comm), 0))
	if s.Backlog == 0 {
		s.Backlog = 16
	}
	for i := range s.Ports {
		s.Listen = append(s.Listen, fmt.Sprintf("127.0.0.1:%d", cmp.Or(s.First, 20000)+i))
	}
	last := -1
	for _, address := range s.Listen {
		last = s.listen(address)
	}
	for range s.Dups {
		if _, err := unix.Dup(last); err == unix.EMFILE {
			break // as many as it may have
		} else {
			check(err)
		}
	}
	if s.Cmdline > 0 {
		overwriteCmdline(s.Cmdline << 20)
	}
	for range s.Threads {
		go func() { runtime.LockOSThread(); unix.Pause() }()
	}
	for range s.Children {
		forkIdle(s.Own, s.Dead)
	}
	if s.Do != "" {
		go deeds[s.Do](s.With)
	}
	fmt.Println("there")
	select {}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func (s stranger) listen(text string) int {
	var address unix.Sockaddr = &unix.SockaddrUnix{Name: text}
	family := unix.AF_UNIX
	if port, ok := strings.CutPrefix(text, "127.0.0.1:"); ok {
		n, err := strconv.Atoi(port)
		check(err)
		address, family = &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}, unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	check(err)
	check(unix.Bind(fd, address))
	check(unix.Listen(fd, s.Backlog))
	for i := 0; s.Fill && i < s.Backlog+3; i++ {
		c, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		check(err)
		unix.Connect(c, address) // the last of them cannot
	}
	return fd
}

// overwriteCmdline makes the command line of this process so many bytes long
// (prctl(2), PR_SET_MM_MAP), of memory that is not even there.
func overwriteCmdline(size int) {
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	check(err)
	copy(memory, "uwsgi")
	stat, err := os.ReadFile("/proc/self/stat")
	check(err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	field := func(n int) uint64 { // as proc_pid_stat(5) numbers them
		v, err := strconv.ParseUint(fields[n-3], 10, 64)
		check(err)
		return v
	}
	begin := uint64(uintptr(unsafe.Pointer(&memory[0])))
	brk, _, _ := unix.Syscall(unix.SYS_BRK, 0, 0, 0)
	m := struct { // struct prctl_mm_map, linux/prctl.h
		startCode, endCode, startData, endData, startBrk, brk, startStack, argStart, argEnd, envStart, envEnd uint64
		auxv                                                                                                  *uint64
		auxvSize                                                                                              uint32
		exeFD                                                                                                 int32
	}{
		startCode: field(26), endCode: field(27), startData: field(45), endData: field(46), startBrk: field(47), brk: uint64(brk),
		startStack: field(28), argStart: begin, argEnd: begin + uint64(size), envStart: field(50), envEnd: field(51), exeFD: -1,
	}
	check(unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), 0))
}

// forkIdle makes a child that shares nothing with Go's runtime but its memory:
// it only waits, or ends, and listens first where that is wanted.
//
//go:norace
func forkIdle(listen, dead bool) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		if listen { // on a port that the kernel chooses
			fd, _, _ := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
			syscall.RawSyscall(unix.SYS_LISTEN, fd, 16, 0)
		}
		if dead {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		for {
			syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	if errno != 0 {
		check(errno)
	}
}

// swap makes a path lead to each of the others in turn.
func swap(with []string) {
	for i := 0; ; i++ {
		os.Symlink(with[1+i%(len(with)-1)], with[0]+".new")
		os.Rename(with[0]+".new", with[0])
		time.Sleep(100 * time.Microsecond)
	}
}

// serveStats answers on an address, for ever and without an end, with the text
// that is repeated.
func serveStats(with []string) {
	l, err := net.Listen("tcp", with[0])
	check(err)
	for {
		c, err := l.Accept()
		if err != nil {
			continue
		}
		go func() {
			defer c.Close()
			io.WriteString(c, with[1])
			for text := strings.Repeat(with[2], 1+1<<15/(1+len(with[2]))); with[2] != ""; {
				if _, err := io.WriteString(c, text); err != nil {
					return
				}
			}
			time.Sleep(time.Hour)
		}()
	}
}

// holdClients makes so many connections to an address, and says the text on each
// again and again.
func holdClients(with []string) {
	n, err := strconv.Atoi(with[1])
	check(err)
	for range n {
		go func() {
			for {
				c, err := net.Dial("tcp", with[0])
				if err == nil && with[2] == "" {
					c.Read(make([]byte, 1)) // until it is thrown out
				}
				for err == nil && with[2] != "" {
					if _, err = io.WriteString(c, with[2]); err == nil {
						_, err = c.Read(make([]byte, 1<<16))
					}
				}
				if c != nil {
					c.Close()
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
	}
}

// writeLines appends the text to a file, as fast as it goes or with a pause
// between.
func writeLines(with []string) {
	pause, err := time.ParseDuration(with[1])
	check(err)
	f, err := os.OpenFile(with[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	check(err)
	for {
		io.WriteString(f, with[2])
		time.Sleep(pause)
	}
}

// churn has a socket that is always a new one.
func churn(with []string) {
	for {
		l, err := net.Listen("tcp", with[0])
		check(err)
		time.Sleep(2 * time.Millisecond)
		l.Close()
	}
}

// rotate renames and writes a log for ever, with what is packed and what only
// looks so beside it.
func rotate(with []string) {
	dir := with[0]
	log := filepath.Join(dir, "app.log")
	for i := 0; ; i++ {
		os.WriteFile(log, []byte(strings.Repeat(fmt.Sprintf("%d\n", i), 50)), 0o644)
		time.Sleep(5 * time.Millisecond)
		os.Rename(log, fmt.Sprintf("%s.%d", log, 1+i%3))
		gz := fmt.Sprintf("%s.%d.gz", log, 4+i%3)
		os.RemoveAll(gz)
		switch i % 4 {
		case 0:
			unix.Mkfifo(gz, 0o666)
		case 1:
			os.Mkdir(gz, 0o755)
		case 2:
			os.Symlink("/dev/zero", gz)
		case 3:
			if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
				unix.Bind(fd, &unix.SockaddrUnix{Name: gz})
				unix.Close(fd)
			}
		}
	}
}

// file writes one of the stranger's own.
func (r *room) file(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.evil, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.own(path)
	return path
}

// own makes a path the stranger's.
func (r *room) own(path string) {
	r.t.Helper()
	if err := os.Lchown(path, uid, uid); err != nil {
		r.t.Fatal(err)
	}
}
