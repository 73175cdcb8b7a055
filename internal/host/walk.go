package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sort"
	"time"

	"qwatch/internal/kernel"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

// maxNetNS is how many network namespaces besides the own one are looked into,
// and maxNetNSOf how many in which the uWSGI of one user but root are: anybody may
// make thousands of them.
const (
	maxNetNS   = 128
	maxNetNSOf = 16
	// maxSocketsOf is how many sockets of one user but root are looked at, and
	// sampled, and maxStrangers how many of all users of no system's together.
	maxSocketsOf = 1024
	maxStrangers = 2048
	// maxUsers is of how many users one sentence each says what was left out.
	maxUsers = 8
)

// walk is what a walk over /proc has found.
type walk struct {
	options *Options // that it went by
	at      time.Time
	procs   []kernel.Process
	owned   map[uint64]owner // by the socket's inode
	known   map[uint64]bool  // all inodes that were listening then, owned or not
	seen    kernel.Seen
	unseen  []string
	hidden  string // why a uWSGI may hold a socket that is not in owned, "" where none can
}

// stale reports whether the owners must be looked up again. Sockets that were
// there at the last walk and had no uWSGI do not count: most listening sockets
// of a host are somebody else's.
func (w *walk) stale(options *Options, views []view, now time.Time) bool {
	age := now.Sub(w.at)
	if age >= rewalk || w.options != options {
		return true
	}
	return age >= walkGap && slices.ContainsFunc(views, func(v view) bool {
		return slices.ContainsFunc(v.listeners, func(l kernel.Listener) bool { return !w.known[l.Inode] })
	})
}

func (w *walk) note(err error) { w.unseen = append(w.unseen, err.Error()) }

// hide notes why the owners of sockets are not seen.
func (w *walk) hide(err error) {
	w.note(err)
	w.hidden = cmp.Or(w.hidden, err.Error())
}

// walk finds the uWSGI processes, opens the namespaces in which they live, and
// tells the owners of the sockets. views is what was listening just before: a
// socket that appears during the walk is new to the next Sample.
func (h *Host) walk(ctx context.Context, options *Options, wait *budget, views []view) error {
	procs, seen, err := kernel.Processes(options.Processes, h.own)
	if err != nil {
		return err
	}
	w := walk{options: options, at: time.Now(), procs: procs, seen: seen, known: make(map[uint64]bool)}
	var alone map[int]int
	w.owned, alone = owners(procs)
	if seen.Hidden {
		w.hide(othersHidden())
	}
	w.left(seen.Left, "%d more uWSGI of %s: no more of one user are looked at", w.hide)
	w.left(alone, "the workers of %d sockets of %s: no more of one user are looked at", w.note)
	h.openNetNS(&w)
	for _, v := range views {
		for _, l := range v.listeners {
			w.known[l.Inode] = true
		}
	}
	h.attribute(ctx, options, wait, &w, views)
	w.limit(h.first)
	h.remember(&w)
	// A zombie has lost its descriptors, whatever right there is.
	for _, p := range roots(procs, func(p *kernel.Process) bool { return p.Denied != nil && p.State != 'Z' }) {
		w.hide(kernel.Explain(kernel.ListOpen, fmt.Sprintf("the sockets of uWSGI %d (uid %d)", p.PID, p.UID), p.Denied))
	}
	shortened := make(map[int]int)
	for _, p := range procs {
		if p.Cut != nil {
			shortened[p.UID]++
		}
	}
	w.left(shortened, "all the sockets of %d uWSGI of %s: more descriptors than are looked at", w.hide)
	h.walked = w
	return nil
}

// othersHidden says why there may be processes that are not seen.
func othersHidden() error {
	return kernel.Explain(kernel.SeeProcesses, "the processes of other users", kernel.Hidden("/proc is mounted with hidepid"))
}

// left says what was left out of each user, those with the most first, and of the
// others together.
func (w *walk) left(of map[int]int, format string, say func(error)) {
	uids := slices.Collect(maps.Keys(of))
	sort.Slice(uids, func(i, j int) bool {
		if of[uids[i]] != of[uids[j]] {
			return of[uids[i]] > of[uids[j]]
		}
		return uids[i] < uids[j]
	})
	rest := 0
	for i, uid := range uids {
		switch {
		case i >= maxUsers:
			rest += of[uid]
		case uid < 0:
			say(fmt.Errorf(format, of[uid], "users that /proc does not show"))
		default:
			say(fmt.Errorf(format, of[uid], fmt.Sprintf("user %d", uid)))
		}
	}
	if rest > 0 {
		say(fmt.Errorf(format, rest, fmt.Sprintf("%d other users", len(uids)-maxUsers)))
	}
}

// remember keeps since when sockets were seen, as long as they are there: what has
// no owner for a while has not come anew.
func (h *Host) remember(w *walk) {
	first := make(map[uint64]time.Time, len(w.owned))
	for inode, at := range h.first {
		if w.known[inode] {
			first[inode] = at
		}
	}
	for inode := range w.owned {
		if _, seen := first[inode]; !seen {
			first[inode] = w.at
		}
	}
	h.first = first
}

// limit leaves the sockets out that one user has too many of: those that were seen
// last.
func (w *walk) limit(first map[uint64]time.Time) {
	of := make(map[int][]uint64)
	for inode, o := range w.owned {
		if uid := o.master.UID; uid != 0 { // -1 where it is not shown
			of[uid] = append(of[uid], inode)
		}
	}
	strangers, left := kernel.Strangers(maps.Keys(of)), make(map[int]int)
	for uid, inodes := range of {
		most := maxSocketsOf
		if kernel.Foreign(uid) {
			most = kernel.Share(maxStrangers, maxSocketsOf, 8, strangers)
		}
		if len(inodes) <= most {
			continue
		}
		sort.Slice(inodes, func(i, j int) bool {
			a, seen := first[inodes[i]]
			b, was := first[inodes[j]]
			switch {
			case seen != was:
				return seen
			case !a.Equal(b):
				return a.Before(b)
			}
			return inodes[i] < inodes[j]
		})
		for _, inode := range inodes[most:] {
			delete(w.owned, inode)
		}
		left[uid] = len(inodes) - most
	}
	w.left(left, "%d more sockets of %s: no more of one user are looked at", w.hide)
}

// openNetNS opens the namespaces in which a uWSGI lives and that are not open
// yet, and closes those that none lives in any more: an open one would outlive
// its container.
func (h *Host) openNetNS(w *walk) {
	for _, n := range slices.Clone(h.netns[1:]) {
		if !slices.ContainsFunc(w.procs, func(p kernel.Process) bool { return p.NetNS == n.ID }) {
			h.closeNetNS(n)
		}
	}
	failed := make(map[uint64]bool)
	of, left := make(map[int]int), make(map[int]int) // namespaces by user
	for _, n := range h.netns[1:] {
		if i := slices.IndexFunc(w.procs, func(p kernel.Process) bool { return p.NetNS == n.ID }); i >= 0 {
			of[w.procs[i].UID]++
		}
	}
	alive := func(p *kernel.Process) bool { return p.State != 'Z' } // a zombie has no namespace
	for _, p := range roots(w.procs, alive) {
		if failed[p.NetNS] || slices.ContainsFunc(h.netns, func(n *kernel.NetNS) bool { return n.ID == p.NetNS }) {
			continue
		}
		name := fmt.Sprintf("uWSGI %d", p.PID)
		if c := h.identity(p).Container; c != "" {
			name += " in " + c
		}
		if p.NetNS == 0 {
			w.hide(kernel.Explain(kernel.EnterNetNS, name, kernel.Hidden("it lives in another network namespace")))
			continue
		}
		if len(h.netns) > maxNetNS || p.UID != 0 && of[p.UID] >= maxNetNSOf {
			failed[p.NetNS] = true
			left[p.UID]++
			continue
		}
		of[p.UID]++
		n, err := kernel.OpenNetNSOf(p.PID)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended meanwhile
		}
		if err != nil {
			failed[p.NetNS] = true
			w.hide(fmt.Errorf("%s: its network namespace %d: %w", name, p.NetNS, err))
			continue
		}
		h.netns = append(h.netns, n)
	}
	w.left(left, "%d more network namespaces with a uWSGI of %s: no more are looked into", w.hide)
}

func (h *Host) closeNetNS(n *kernel.NetNS) {
	n.Close()
	h.netns = slices.DeleteFunc(h.netns, func(m *kernel.NetNS) bool { return m == n })
}

// identity names a process as facts do. The container in which qwatch itself
// runs is its host.
func (h *Host) identity(p *kernel.Process) facts.Process {
	f := facts.Process{PID: p.PID, Start: p.Start, Comm: p.Comm, UID: facts.Unknown[int]("/proc does not show it")}
	if p.UID >= 0 {
		f.UID = facts.Known(p.UID)
	}
	var unit string
	switch unit, f.Container = systemd.UnitOfCgroup(p.Cgroup); {
	case p.CgroupErr != nil:
		f.Unit = facts.Unknown[string](p.CgroupErr.Error())
	case unit == "":
		f.Unit = facts.Absent[string]()
	default:
		f.Unit = facts.Known(unit)
	}
	if f.Container == h.container {
		f.Container = ""
	}
	return f
}

// roots are the processes to which keep applies and whose parent is not such a
// one: masters and emperors, not their workers.
func roots(procs []kernel.Process, keep func(*kernel.Process) bool) (found []*kernel.Process) {
	kept := make(map[int]bool)
	for i := range procs {
		kept[procs[i].PID] = keep(&procs[i])
	}
	for i := range procs {
		if p := &procs[i]; kept[p.PID] && !kept[p.PPID] {
			found = append(found, p)
		}
	}
	return found
}

// maxWorkersOf is how many workers the sockets of one user have together at
// most. Each that has ended, and that its master has not taken note of, may be a
// worker of all of them.
const maxWorkersOf = 1 << 14

// addWorkers adds the workers to the owners, and tells for how many sockets of each
// user that was too many.
func addWorkers(procs []kernel.Process, all map[uint64]owner) (alone map[int]int) {
	of := make(map[int]int)
	alone = make(map[int]int)
	users, below := make(map[int]bool), make(map[int][]*kernel.Process)
	for i := range procs {
		p := &procs[i]
		users[p.UID] = true
		below[p.PPID] = append(below[p.PPID], p)
	}
	for _, found := range below {
		sort.Slice(found, func(i, j int) bool { return found[i].PID < found[j].PID })
	}
	most := kernel.Share(1<<15, maxWorkersOf, 64, kernel.Strangers(maps.Keys(users)))
	for _, inode := range slices.Sorted(maps.Keys(all)) {
		o := all[inode]
		uid := o.master.UID
		if of[uid] >= maxWorkersOf || kernel.Foreign(uid) && of[uid] >= most {
			alone[uid]++
			continue
		}
		for _, p := range below[o.master.PID] {
			if _, holds := p.Sockets[inode]; p != o.master && (holds || p.State == 'Z') { // a zombie has lost its descriptors
				o.workers = append(o.workers, p)
			}
		}
		of[uid] += len(o.workers)
		all[inode] = o
	}
	return alone
}

func older(p, q *kernel.Process) bool {
	if p.Start != q.Start {
		return p.Start < q.Start
	}
	return p.PID < q.PID
}

func children(procs []kernel.Process, parent *kernel.Process) (found []*kernel.Process) {
	for i := range procs {
		if p := &procs[i]; p.PPID == parent.PID && p != parent {
			found = append(found, p)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].PID < found[j].PID })
	return found
}
