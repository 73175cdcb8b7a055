package kernel

import (
	"bytes"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

// maxMaps is how much of /proc/PID/maps is read: a process has as many mappings
// as it likes.
const maxMaps = 1 << 20

var errNoShared = errors.New("it shares no memory with its children")

// Executed is when a process made the first of the memory that it shares with its
// children, and that it has had since it last called execve(2). uWSGI makes some
// before it reads its configuration (core/uwsgi.c, uwsgi_calloc_shared). The
// kernel keeps such memory as a file without a name (shmem_zero_setup, mm/shmem.c),
// and its times are those of all files. To follow /proc/PID/map_files needs
// CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE (proc_map_files_get_link).
func Executed(pid int) (first time.Time, err error) {
	text, err := bounded.ReadFile(procPath(pid, "maps"), maxMaps)
	if err != nil { // also where it is cut: the rest may hold the first
		return first, err
	}
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 6 || len(fields[1]) != 4 || fields[1][3] != 's' || !bytes.Equal(fields[5], []byte("/dev/zero")) {
			continue
		}
		var st unix.Stat_t
		name := procPath(pid, "map_files/"+string(fields[0]))
		if err := unix.Stat(name, &st); err != nil {
			return time.Time{}, &os.PathError{Op: "stat", Path: name, Err: err}
		}
		// Nobody reads it as a file, so that it still has its first atime.
		if at := time.Unix(st.Atim.Unix()); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if first.IsZero() {
		return first, errNoShared
	}
	return first, nil
}

// OwnPID is the number that a process has in its own namespace, the one that is
// asked for where that is not known (proc_pid_status(5), NSpid).
func OwnPID(pid int) int {
	status, err := read(procPath(pid, "status"))
	if err != nil {
		return pid
	}
	if pids, err := numbers(status, "NSpid"); err == nil && len(pids) > 0 {
		return pids[len(pids)-1]
	}
	return pid
}

// SinceBoot is how long ago the kernel started, by the clock of Stat.Start
// (proc_pid_stat(5), time_namespaces(7)).
func SinceBoot() (time.Duration, error) {
	var since unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since)
	return time.Duration(since.Nano()), err
}
