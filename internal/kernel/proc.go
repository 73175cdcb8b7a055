package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// Stat is what /proc/PID/stat tells (proc_pid_stat(5)).
type Stat struct {
	Comm  string
	State byte // R S D T t Z X
	PPID  int
	Ticks uint64 // CPU time used, user and system, in clock ticks
	Start uint64 // clock ticks from boot to the process' start
	// ArgsSize is how many bytes the command line had at the start, 0 where
	// that may not be known. What Args shows is shorter where the process has
	// written over it (get_mm_cmdline, fs/proc/base.c).
	ArgsSize uint64
	// Image tells one program that the process has executed from the next: where
	// the kernel has put it and its stack, which is another place each time
	// (randomize_va_space, proc_sys_kernel(5)). 0 where that may not be known.
	Image uint64
}

// Process is one process as it was at one moment.
type Process struct {
	PID int
	Stat
	// UID is the effective one, RealUID the real one; -1 where it is not shown.
	UID, RealUID int
	Signals
	Cgroup string // /proc/PID/cgroup, "" where the kernel has none
	// CgroupErr says why Cgroup could not be read, nil where it was.
	CgroupErr error

	NetNS uint64 // the inode of its network namespace, 0 where it may not be known
	// Sockets are the sockets that it holds: inode to lowest descriptor.
	// Denied says why they could not be listed, and Cut why there may be more of
	// them.
	Sockets     map[uint64]int
	Denied, Cut error
}

// Processes lists the running processes that have one of names, as Named says.
// own is the namespace of the caller, whose id is known without a right. seen
// tells what the list lacks.
//
// It is the only walk over the whole of /proc, some 10 µs for each process of
// the host.
func Processes(names []string, own *NetNS) (found []Process, seen Seen, err error) {
	pids, err := everybody()
	if err != nil {
		return nil, seen, err
	}
	seen = Seen{Hidden: !slices.Contains(pids, 1), Left: map[int]int{}}
	of := map[int]int{} // processes by user
	var all []Process
	for _, pid := range pids {
		match, err := Named(pid, names)
		seen.Hidden = seen.Hidden || errors.Is(err, fs.ErrPermission)
		if !match {
			continue
		}
		// A process that ends while it is read is none of ours any more.
		p, err := readProcess(pid)
		if err != nil {
			continue
		}
		if of[p.UID]++; of[p.UID] > budgetOf(p.UID, 1).processes {
			seen.Left[p.UID]++
			continue
		}
		all = append(all, p)
	}
	strangers := Strangers(maps.Keys(of))
	budgets := map[int]*budget{}
	for _, p := range all {
		of := budgets[p.UID]
		if of == nil {
			of = budgetOf(p.UID, strangers)
			budgets[p.UID] = of
		}
		if of.processes--; of.processes < 0 || of.descriptors <= 0 {
			seen.Left[p.UID]++
			continue
		}
		if p.place(own) != nil {
			continue
		}
		p.hold(of)
		found = append(found, p)
	}
	return found, seen, nil
}

// Seen says what a list of processes lacks.
type Seen struct {
	// Hidden is true where /proc does not show the processes of others (hidepid,
	// proc(5)).
	Hidden bool
	// Left counts for each user the processes that were left out, since no more
	// of one user are looked at.
	Left map[int]int
}

// budget is what one user's processes may cost a walk: anybody may run a thousand
// that look like uWSGI, with many descriptors each, and a walk that takes a second
// makes all that it has seen too old to act on.
type budget struct{ processes, descriptors int }

// Foreign reports whether a uid may be anybody's: it is none of root's and of the
// system's own users (login.defs(5), UID_MIN), or not known.
func Foreign(uid int) bool { return uid < 0 || uid >= 1000 }

// Strangers counts the users that may be anybody's.
func Strangers(uids iter.Seq[int]) (n int) {
	for uid := range uids {
		if Foreign(uid) {
			n++
		}
	}
	return n
}

// Share is what one user of no system's has of what is there for all of them
// together: most where there are few users, and never less than least. One person
// may have 65536 users (subuid(5)).
func Share(all, most, least, users int) int {
	return max(least, min(most, all/max(1, users)))
}

func budgetOf(uid, strangers int) *budget {
	if !Foreign(uid) {
		return &budget{processes: 4096, descriptors: 1 << 18}
	}
	return &budget{processes: Share(4096, 1024, 16, strangers), descriptors: Share(1<<17, 1<<15, 64, strangers)}
}

// hold reads which sockets the process holds.
func (p *Process) hold(of *budget) {
	var read int
	p.Sockets, read, p.Denied = sockets(p.PID, of.descriptors)
	of.descriptors -= read
	if cut(p.Denied) {
		p.Denied, p.Cut = nil, p.Denied
	}
	// All that was read was of one process only if it still is the same.
	if again, err := ReadStat(p.PID); err != nil || again.Start != p.Start {
		p.Sockets = nil
	}
}

// maxPIDs is more than a kernel can run (PID_MAX_LIMIT, include/linux/threads.h).
const maxPIDs = 5 << 20

func everybody() ([]int, error) {
	entries, err := bounded.Names("/proc", maxPIDs)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(entries))
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Named reports whether the comm of a process, or the base name of its
// executable, is one of names. An application may rename its process
// (setproctitle sets comm), so the executable is asked too. The error says that
// the process is not shown.
func Named(pid int, names []string) (bool, error) {
	comm, err := read(procPath(pid, "comm"))
	if err != nil {
		return false, err
	}
	name := string(bytes.TrimSuffix(comm, []byte("\n")))
	if slices.Contains(names, name) {
		return true, nil
	}
	if exe := Executable(pid); exe != "" {
		return slices.Contains(names, filepath.Base(exe)), nil
	}
	return alternative(name, names), nil
}

// alternative reports whether a comm is one of names as Debian's alternatives
// have it, uwsgi_python3 or uwsgi_rack-ruby3.1: a link to the very same
// executable, of which others see nothing else.
func alternative(comm string, names []string) bool {
	name, language, ok := strings.Cut(comm, "_")
	return ok && slices.Contains(names, name) && slices.ContainsFunc(
		[]string{"python", "psgi", "rack", "php", "lua", "jvm", "jwsgi", "ring", "servlet", "mono"},
		func(prefix string) bool { return strings.HasPrefix(language, prefix) })
}

// Executable is the path of a process' executable, "" for a kernel thread and
// where it may not be known.
func Executable(pid int) string {
	exe, _ := os.Readlink(procPath(pid, "exe"))
	return strings.TrimSuffix(exe, " (deleted)") // replaced by an upgrade
}

// readProcess reads who a process is.
func readProcess(pid int) (Process, error) {
	st, err := ReadStat(pid)
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, Stat: st}
	status, err := read(procPath(pid, "status"))
	if err != nil {
		return Process{}, err
	}
	p.RealUID, p.UID = uids(status)
	p.Signals = signalsOrNone(status)
	return p, nil
}

// place reads where it lives.
func (p *Process) place(own *NetNS) error {
	cgroup, err := read(procPath(p.PID, "cgroup"))
	if p.Cgroup = string(cgroup); !errors.Is(err, fs.ErrNotExist) { // a kernel may have none
		p.CgroupErr = err
	}
	p.NetNS = netnsOf(p.PID, own)
	// The files above were of one process only if it still is the same.
	if again, err := ReadStat(p.PID); err != nil || again.Start != p.Start {
		return fs.ErrNotExist
	}
	return nil
}

// netnsOf is the network namespace of a process, 0 where it may not be known.
// Without the right to ask for it, one's own can still be told: each namespace
// has inodes of its own below /proc/PID/net (proc_register, fs/proc/generic.c).
func netnsOf(pid int, own *NetNS) uint64 {
	if id, err := inode(procPath(pid, "ns/net")); err == nil {
		return id
	}
	if id, err := inode(procPath(pid, "net/netstat")); err == nil && id == own.netstatInode {
		return own.ID
	}
	return 0
}

// ReadStat reads /proc/PID/stat.
func ReadStat(pid int) (Stat, error) {
	path := procPath(pid, "stat")
	b, err := read(path)
	if err != nil {
		return Stat{}, err
	}
	st, err := parseStat(b)
	if err != nil {
		return Stat{}, fmt.Errorf("%s: %w", path, err)
	}
	return st, nil
}

// parseStat reads /proc/PID/stat. The comm in it is the process' own choice and
// may hold blanks, parentheses and newlines, so it ends at the last parenthesis.
func parseStat(b []byte) (Stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Stat{}, errors.New("no command name in parentheses")
	}
	st := Stat{Comm: string(b[open+1 : end])}
	fields := bytes.Fields(b[end+1:]) // from field 3, the state
	if len(fields) < 20 || len(fields[0]) != 1 {
		return Stat{}, fmt.Errorf("too few fields behind the command name: %d", len(fields))
	}
	st.State = fields[0][0]
	var err error
	if st.PPID, err = strconv.Atoi(string(fields[1])); err != nil {
		return Stat{}, err
	}
	number := func(i int) (n uint64) {
		if err == nil && i < len(fields) {
			n, err = strconv.ParseUint(string(fields[i]), 10, 64)
		}
		return n
	}
	st.Ticks = number(11) + number(12)
	st.Start = number(19)
	st.ArgsSize = number(46) - number(45)
	if number(45) != 0 { // else it shows neither
		st.Image = number(23)<<16 ^ number(25)
	}
	if err != nil {
		return Stat{}, err
	}
	return st, nil
}

// uids reads the first two numbers of "Uid:" in /proc/PID/status, -1 where they
// are not there. The owner of /proc/PID would be root for a uWSGI that has
// dropped its rights (proc(5), "dumpable").
func uids(status []byte) (real, effective int) {
	value, err := field(status, "Uid")
	ids := bytes.Fields(value)
	if err != nil || len(ids) < 2 {
		return -1, -1
	}
	real, realErr := strconv.Atoi(string(ids[0]))
	effective, effectiveErr := strconv.Atoi(string(ids[1]))
	if realErr != nil || effectiveErr != nil {
		return -1, -1
	}
	return real, effective
}

// maxEntries is how many descriptors, or threads, of one process are looked at,
// the lowest first: a listening socket is opened before its connections. Their
// number is the process' own choice, up to its limits.
const maxEntries = 1 << 16

// entries lists a directory of /proc/PID. The caller closes dir. more says that
// there are more entries than most, nil where these are all.
func entries(pid int, name string, most int) (dir *os.File, names []string, more, err error) {
	if dir, err = os.Open(procPath(pid, name)); err != nil {
		return nil, nil, nil, err
	}
	names, err = bounded.NamesIn(dir, most)
	if err != nil && !cut(err) {
		dir.Close()
		return nil, nil, nil, err
	}
	return dir, names, err, nil
}

// cut reports whether an error says only that there was more than was read.
func cut(err error) bool {
	var more *bounded.TooMuchError
	return errors.As(err, &more)
}

// Sockets lists the sockets that a process holds: inode to lowest descriptor.
// Where there may be more of them the error says so, beside those that were
// found. For another user's process it needs CAP_SYS_PTRACE and
// CAP_DAC_READ_SEARCH.
func Sockets(pid int) (map[uint64]int, error) {
	held, _, err := sockets(pid, maxEntries)
	return held, err
}

// sockets is Sockets of so many descriptors at most, and says how many it read.
func sockets(pid, most int) (_ map[uint64]int, read int, err error) {
	dir, names, more, err := entries(pid, "fd", min(most, maxEntries))
	if err != nil {
		return nil, 0, err
	}
	defer dir.Close()
	held := make(map[uint64]int)
	link := make([]byte, 64)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		n, err := unix.Readlinkat(int(dir.Fd()), name, link)
		switch {
		case errors.Is(err, unix.ENOENT): // closed meanwhile
			continue
		case err != nil:
			return nil, 0, &os.PathError{Op: "readlink", Path: dir.Name() + "/" + name, Err: err}
		}
		inode, ok := socketInode(link[:n])
		if !ok {
			continue
		}
		if lowest, ok := held[inode]; !ok || fd < lowest {
			held[inode] = fd
		}
	}
	return held, len(names), more
}

// socketInode reads "socket:[4711]".
func socketInode(link []byte) (uint64, bool) {
	digits, socket := bytes.CutPrefix(link, []byte("socket:["))
	digits, whole := bytes.CutSuffix(digits, []byte("]"))
	if !socket || !whole {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(digits), 10, 64)
	return inode, err == nil
}

// HasOpen reports whether a process has a file open. It needs the rights of
// Sockets, and blocks as Written does.
func HasOpen(pid int, id FileID) (bool, error) {
	dir, names, more, err := entries(pid, "fd", maxEntries)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Stat(dir.Name()+"/"+name, &st); err == nil && idOf(&st) == id {
			return true, nil
		}
	}
	return false, more
}
