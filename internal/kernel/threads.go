package kernel

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Waits says what all threads of a process wait for without a time limit; ""
// for anything else, or where it is not known.
type Waits string

// What threads can wait for.
const (
	WaitsOnLock       Waits = "lock"        // futex(2), FUTEX_WAIT
	WaitsOnSharedLock Waits = "shared lock" // FUTEX_LOCK_PI: uWSGI's locks between its workers
)

// Threads tells what all threads of a process wait for, and how often they gave
// up or lost the CPU: "" and 0 where that may not be known, or they wait for
// different things. The system call of another's thread needs CAP_SYS_PTRACE,
// and no Yama that forbids it (proc_pid_syscall, fs/proc/base.c). It blocks
// while the process is in execve(2).
func Threads(pid int) (on Waits, switches uint64) {
	dir, names, more, err := entries(pid, "task", maxThreads)
	if err != nil {
		return "", 0
	}
	dir.Close()
	if more != nil { // what the others wait for is not known
		return "", 0
	}
	for i, name := range names {
		status, err := read(procPath(pid, "task/"+name+"/status"))
		if err != nil {
			return "", 0
		}
		switches += switchesIn(status)
		call, _ := read(procPath(pid, "task/"+name+"/syscall"))
		switch w := waitIn(call); {
		case i == 0 || on != "" && w == WaitsOnSharedLock:
			on = w
		case w == "":
			on = ""
		}
	}
	return on, switches
}

// maxThreads is how many threads of one process are looked at.
const maxThreads = 1024

// switchesIn adds up both counters of /proc/PID/task/TID/status.
func switchesIn(status []byte) (n uint64) {
	for _, name := range []string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"} {
		value, _ := field(status, name)
		v, _ := strconv.ParseUint(string(value), 10, 64)
		n += v
	}
	return n
}

// waitIn reads /proc/PID/task/TID/syscall: a number and six arguments, or
// "running". A futex(2) without a time-out is a lock that somebody has, and
// the kind with priority inheritance is that of uWSGI's robust mutexes
// (core/lock.c uwsgi_lock_fast_init). Python's locks with a time-out, its
// sleep and its sockets wait otherwise.
func waitIn(call []byte) Waits {
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
		return WaitsOnLock
	case 6, 13: // FUTEX_LOCK_PI, FUTEX_LOCK_PI2
		return WaitsOnSharedLock
	}
	return ""
}
