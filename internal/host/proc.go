package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"qwatch/remediate/facts"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/systemd"
)

// process is a running uWSGI process: a master, a worker, a router.
type process struct {
	facts.Process
	ppid  int
	state byte
	ticks uint64

	netns uint64 // 0 where it may not be known
	// sockets are the sockets that it holds: inode to lowest descriptor.
	// denied says why they could not be listed.
	sockets map[uint64]int
	denied  error
}

// processes lists the running processes whose comm, or the base name of whose
// executable, is one of names. hidden is true where /proc does not show the
// processes of others (hidepid, proc(5)).
//
// It is the only walk over the whole of /proc, some 10 µs for each process of
// the host.
func (h *Host) processes() (found []process, hidden bool, err error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, false, err
	}
	defer proc.Close()
	entries, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, false, err
	}
	hidden = !slices.Contains(entries, "1")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry)
		if err != nil {
			continue
		}
		match, err := h.named(pid)
		hidden = hidden || errors.Is(err, fs.ErrPermission)
		if !match {
			continue
		}
		// A process that ends while it is read is none of ours any more.
		if p, err := h.process(pid); err == nil {
			found = append(found, p)
		}
	}
	return found, hidden, nil
}

// named reports whether a process counts as uWSGI. An application may rename
// its process (setproctitle sets comm), so the executable is asked too.
func (h *Host) named(pid int) (bool, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	comm, err := h.read(dir + "/comm")
	if err != nil {
		return false, err
	}
	if slices.Contains(h.options.Processes, string(bytes.TrimSuffix(comm, []byte("\n")))) {
		return true, nil
	}
	exe, err := os.Readlink(dir + "/exe")
	if err != nil {
		return false, nil // a kernel thread, or another user's process
	}
	exe = strings.TrimSuffix(exe, " (deleted)") // replaced by an upgrade
	return slices.Contains(h.options.Processes, filepath.Base(exe)), nil
}

// process reads one process.
func (h *Host) process(pid int) (process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	st, err := h.stat(pid)
	if err != nil {
		return process{}, err
	}
	p := process{ppid: st.ppid, state: st.state, ticks: st.ticks}
	p.PID, p.Start, p.Comm = pid, st.start, st.comm

	status, err := h.read(dir + "/status")
	if err != nil {
		return process{}, err
	}
	p.UID = effectiveUID(status)
	cgroup, _ := h.read(dir + "/cgroup") // a kernel may have none
	p.Unit, p.Container = systemd.UnitOfCgroup(string(cgroup))
	p.netns = h.netnsOf(dir)
	p.sockets, p.denied = sockets(dir)

	// The files above were of one process only if it still is the same.
	if again, err := h.stat(pid); err != nil || again.start != st.start {
		return process{}, fs.ErrNotExist
	}
	return p, nil
}

// netnsOf is the network namespace of a process. Without the right to ask for
// it, one's own can still be told: each namespace has inodes of its own below
// /proc/PID/net (proc_register, fs/proc/generic.c).
func (h *Host) netnsOf(dir string) uint64 {
	if id, err := netnsID(dir); err == nil {
		return id
	}
	if id, err := inode(dir + "/net/netstat"); err == nil && id == h.netstatInode {
		return h.home.id
	}
	return 0
}

// sockets lists the sockets that a process holds. For another user's process
// that needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
func sockets(dir string) (map[uint64]int, error) {
	dir += "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	held := make(map[uint64]int)
	link := make([]byte, 64)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		n, err := unix.Readlinkat(int(d.Fd()), name, link)
		switch {
		case errors.Is(err, unix.ENOENT): // closed meanwhile
			continue
		case err != nil:
			return nil, &os.PathError{Op: "readlink", Path: dir + "/" + name, Err: err}
		}
		inode, ok := socketInode(link[:n])
		if !ok {
			continue
		}
		if lowest, ok := held[inode]; !ok || fd < lowest {
			held[inode] = fd
		}
	}
	return held, nil
}

// socketInode reads "socket:[4711]".
func socketInode(link []byte) (uint64, bool) {
	digits, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok {
		return 0, false
	}
	digits, ok = bytes.CutSuffix(digits, []byte("]"))
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(digits), 10, 64)
	return inode, err == nil
}

// read reads a small file of /proc; the bytes hold until the next read.
func (h *Host) read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, h.buf)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return h.buf[:n], nil
}

// stat is what /proc/PID/stat tells.
type stat struct {
	comm         string
	state        byte
	ppid         int
	ticks, start uint64
}

func (h *Host) stat(pid int) (stat, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	b, err := h.read(path)
	if err != nil {
		return stat{}, err
	}
	st, err := parseStat(b)
	if err != nil {
		return stat{}, fmt.Errorf("%s: %w", path, err)
	}
	return st, nil
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The comm in it is the
// process' own choice and may hold blanks, parentheses and newlines, so it ends
// at the last parenthesis.
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("no command name in parentheses")
	}
	st := stat{comm: string(b[open+1 : end])}
	fields := bytes.Fields(b[end+1:]) // from field 3, the state
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("only %d fields behind the command name", len(fields))
	}
	st.state = fields[0][0]
	ppid, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return stat{}, err
	}
	st.ppid = ppid
	utime, err := strconv.ParseUint(string(fields[11]), 10, 64)
	if err != nil {
		return stat{}, err
	}
	stime, err := strconv.ParseUint(string(fields[12]), 10, 64)
	if err != nil {
		return stat{}, err
	}
	st.ticks = utime + stime
	st.start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return st, err
}

// effectiveUID reads the second number of "Uid:" in /proc/PID/status, -1 if it
// is not there. The owner of /proc/PID would be root for a uWSGI that has
// dropped its rights (proc(5), "dumpable").
func effectiveUID(status []byte) int {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte("Uid:"))
		if !ok {
			continue
		}
		if ids := bytes.Fields(rest); len(ids) > 1 {
			if uid, err := strconv.Atoi(string(ids[1])); err == nil {
				return uid
			}
		}
	}
	return -1
}

// owner is who holds a listening socket.
type owner struct {
	master  *process
	fd      int // in the master; -1 where it may not be known
	workers []*process
}

// owners tells for each socket which master holds it: the topmost holder in the
// chain of parents, since the workers and routers are its children and inherit
// the socket. Where several hold it without being related (uWSGI's zerg mode,
// orphaned workers) it is the oldest.
func owners(procs []process) map[uint64]owner {
	byPID := make(map[int]*process, len(procs))
	for i := range procs {
		byPID[procs[i].PID] = &procs[i]
	}
	all := make(map[uint64]owner)
	for i := range procs {
		for inode, fd := range procs[i].sockets {
			if parent, ok := byPID[procs[i].ppid]; ok {
				if _, ok := parent.sockets[inode]; ok {
					continue // not the topmost
				}
			}
			if o, ok := all[inode]; !ok || older(&procs[i], o.master) {
				all[inode] = owner{master: &procs[i], fd: fd}
			}
		}
	}
	for inode, o := range all {
		o.workers = children(procs, o.master, func(p *process) bool {
			_, holds := p.sockets[inode]
			return holds || p.state == 'Z' // a zombie has lost its descriptors
		})
		all[inode] = o
	}
	return all
}

func older(p, q *process) bool {
	if p.Start != q.Start {
		return p.Start < q.Start
	}
	return p.PID < q.PID
}

func children(procs []process, parent *process, keep func(*process) bool) (found []*process) {
	for i := range procs {
		if p := &procs[i]; p.ppid == parent.PID && p != parent && keep(p) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(p, q *process) int { return p.PID - q.PID })
	return found
}

// guess names the owner of a socket by the command lines of those uWSGI whose
// descriptors may not be listed. It answers only where just one fits: the same
// user (or root, who binds before the rights are dropped), the same namespace,
// and an argument that ends in the port or is the path.
func guess(l listener, netns uint64, procs []process, args func(pid int) []string) (owner, bool) {
	var fits []*process
	for i := range procs {
		p := &procs[i]
		if p.denied != nil && p.netns == netns && (l.uid == p.UID || l.uid <= 0) && mentions(args(p.PID), l) {
			fits = append(fits, p)
		}
	}
	fits = slices.DeleteFunc(slices.Clone(fits), func(p *process) bool {
		return slices.ContainsFunc(fits, func(q *process) bool { return q.PID == p.ppid })
	})
	if len(fits) != 1 {
		return owner{}, false
	}
	workers := children(procs, fits[0], func(*process) bool { return true })
	return owner{master: fits[0], fd: -1, workers: workers}, true
}

// mentions reports whether a command line names the socket: --socket
// 127.0.0.1:5000, --socket=:5000, --http-socket /run/app.sock.
func mentions(args []string, l listener) bool {
	want := l.address()
	if l.family != facts.Unix {
		want = ":" + strconv.Itoa(int(l.addr.Port()))
	}
	return slices.ContainsFunc(args, func(arg string) bool {
		if l.family != facts.Unix {
			return strings.HasSuffix(arg, want)
		}
		return arg == want || strings.HasSuffix(arg, "="+want)
	})
}

// arguments are the command line of a process; the kernel shows it to everybody.
func arguments(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return nil
	}
	return split(b)
}

// logs are the regular files that a process has open for writing, as their
// names are now.
func logs(pid int) (paths []string) {
	dir := "/proc/" + strconv.Itoa(pid)
	entries, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return nil // walk says so
	}
	for _, e := range entries {
		path, err := os.Readlink(dir + "/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(path, "/") {
			continue
		}
		info, err := os.Stat(dir + "/fd/" + e.Name())
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		path = strings.TrimSuffix(path, " (deleted)")
		if text, err := os.ReadFile(dir + "/fdinfo/" + e.Name()); err == nil && writable(text) && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// writable reads the open flags of /proc/PID/fdinfo/FD, which are octal.
func writable(fdinfo []byte) bool {
	for line := range bytes.Lines(fdinfo) {
		digits, ok := bytes.CutPrefix(line, []byte("flags:"))
		if !ok {
			continue
		}
		flags, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 8, 32)
		return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
	}
	return false
}

// waits tells what all threads of a process wait for, and how often they gave
// up or lost the CPU: "" and 0 where that may not be known, or they wait for
// different things. The system call of another's thread needs CAP_SYS_PTRACE,
// and no Yama that forbids it (proc_pid_syscall, fs/proc/base.c).
func waits(pid int) (on facts.Waits, switches uint64) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return "", 0
	}
	for i, t := range threads {
		status, err := os.ReadFile(dir + "/" + t.Name() + "/status")
		if err != nil {
			return "", 0
		}
		switches += switchesIn(status)
		call, _ := os.ReadFile(dir + "/" + t.Name() + "/syscall")
		switch w := waitIn(call); {
		case i == 0 || on != "" && w == facts.WaitsOnSharedLock:
			on = w
		case w == "":
			on = ""
		}
	}
	return on, switches
}

// switchesIn adds up both counters of /proc/PID/task/TID/status.
func switchesIn(status []byte) (n uint64) {
	for line := range bytes.Lines(status) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		if string(key) == "voluntary_ctxt_switches" || string(key) == "nonvoluntary_ctxt_switches" {
			v, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
			n += v
		}
	}
	return n
}

// waitIn reads /proc/PID/task/TID/syscall: a number and six arguments, or
// "running". A futex(2) without a time-out is a lock that somebody has, and
// the kind with priority inheritance is that of uWSGI's robust mutexes
// (core/lock.c uwsgi_lock_fast_init). Python's locks with a time-out, its
// sleep and its sockets wait otherwise.
func waitIn(call []byte) facts.Waits {
	f := strings.Fields(string(call))
	if len(f) < 5 || f[0] != strconv.Itoa(unix.SYS_FUTEX) || f[4] != "0x0" {
		return ""
	}
	op, err := strconv.ParseUint(f[2], 0, 64)
	if err != nil {
		return ""
	}
	const command = 0x7f // FUTEX_CMD_MASK, include/uapi/linux/futex.h
	switch op & command {
	case 0, 9: // FUTEX_WAIT, FUTEX_WAIT_BITSET
		return facts.WaitsOnLock
	case 6, 13: // FUTEX_LOCK_PI, FUTEX_LOCK_PI2
		return facts.WaitsOnSharedLock
	}
	return ""
}
