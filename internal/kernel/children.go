package kernel

import (
	"bytes"
	"io/fs"
	"slices"
	"strconv"

	"qwatch/internal/bounded"
)

// Children lists the processes below a parent that have one of names, zombies
// left out.
func Children(parent int, names []string) (found []Process, err error) {
	pids, ok := below(parent)
	if !ok {
		if pids, err = everybody(); err != nil {
			return nil, err
		}
	}
	for _, pid := range pids {
		st, err := ReadStat(pid)
		if err != nil || st.PPID != parent || st.State == 'Z' {
			continue
		}
		if match, _ := Named(pid, names); match {
			found = append(found, Process{PID: pid, Stat: st})
		}
	}
	return found, nil
}

const (
	// maxForkers is how many threads of a parent are asked for their children, and
	// maxChildren how many bytes each may tell.
	maxForkers  = 256
	maxChildren = 1 << 16
	// askAgain is how often they are asked where the answers differ.
	askAgain = 4
)

// below are the children of a process, of whatever name; ok is false where only a
// walk over all of /proc tells them. Where one of them ends while the kernel writes
// them down the next one may be left out (get_children_pid, fs/proc/array.c), so
// that two answers have to agree.
func below(parent int) (pids []int, ok bool) {
	before, err := askChildren(parent)
	for range askAgain {
		if err != nil {
			return nil, false
		}
		if pids, err = askChildren(parent); err == nil && slices.Equal(pids, before) {
			return pids, true
		}
		before = pids
	}
	return nil, false
}

// askChildren reads what each thread of a process has forked (proc_pid_task(5);
// CONFIG_PROC_CHILDREN).
func askChildren(parent int) (pids []int, err error) {
	threads, err := bounded.Names(procPath(parent, "task"), maxForkers)
	if err != nil {
		return nil, err
	}
	for _, thread := range threads {
		text, err := bounded.ReadFile(procPath(parent, "task/"+thread+"/children"), maxChildren)
		if err != nil {
			return nil, err
		}
		for _, word := range bytes.Fields(text) {
			pid, err := strconv.Atoi(string(word))
			if err != nil {
				return nil, fs.ErrInvalid
			}
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}
