package host

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"qwatch/internal/kernel"
	"qwatch/internal/text"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
)

// owner is who holds a listening socket.
type owner struct {
	master  *kernel.Process
	fd      int // in the master; -1 where it may not be known
	workers []*kernel.Process
	// sharers are other masters that hold it, and emperor is who has bound it for
	// the master, nil for nobody.
	sharers []*kernel.Process
	emperor *kernel.Process
}

// owners tells for each socket which master holds it: the topmost holder in the
// chain of parents, since the workers and routers are its children and inherit
// the socket. What an emperor holds is that of its vassal, whose listen queue it
// is, where one runs (core/emperor.c, on-demand). Where several hold it without
// being related (uWSGI's zerg mode, orphaned workers) it is the oldest. alone
// counts for each user the sockets whose workers are not looked at.
func owners(procs []kernel.Process) (all map[uint64]owner, alone map[int]int) {
	byPID := make(map[int]*kernel.Process, len(procs))
	for i := range procs {
		byPID[procs[i].PID] = &procs[i]
	}
	tops := make(map[uint64][]*kernel.Process)
	held := make(map[uint64][]*kernel.Process) // by masters below another holder
	for i := range procs {
		p := &procs[i]
		for inode := range p.Sockets {
			if parent, ok := byPID[p.PPID]; ok {
				if _, ok := parent.Sockets[inode]; ok { // not the topmost
					if uwsgi.IsMaster(p.Signals) {
						held[inode] = append(held[inode], p)
					}
					continue
				}
			}
			tops[inode] = append(tops[inode], p)
		}
	}
	parents := parentsOf(procs)
	all = make(map[uint64]owner, len(tops))
	for inode, holders := range tops {
		top := slices.MinFunc(holders, func(p, q *kernel.Process) int {
			if older(p, q) {
				return -1
			}
			return 1
		})
		// A worker whose parent has gone, or what an application has forked twice,
		// is no master.
		o := owner{master: top, sharers: slices.DeleteFunc(holders, func(p *kernel.Process) bool {
			return p == top || uwsgi.IsWorker(p.Signals) && !parents[p.PID]
		})}
		// A worker that was just forked looks like a master without children.
		below := slices.DeleteFunc(held[inode], func(p *kernel.Process) bool { return !parents[p.PID] })
		if len(below) == 1 && below[0].PPID == top.PID && uwsgi.IsEmperor(top.Signals) {
			o.master, o.emperor = below[0], top
		} else {
			o.sharers = append(o.sharers, below...)
		}
		o.fd = o.master.Sockets[inode]
		all[inode] = o
	}
	return all, addWorkers(procs, all)
}

// parentsOf are the numbers of those that have a child among them.
func parentsOf(procs []kernel.Process) map[int]bool {
	parents := make(map[int]bool)
	for i := range procs {
		parents[procs[i].PPID] = true
	}
	return parents
}

// maxNamed is how many uWSGIs one sentence names.
const maxNamed = 8

// company tells of the uWSGIs that a reload could reach besides the one that it is
// meant for.
type company struct {
	procs     []kernel.Process
	addresses map[int][]string // by master
	units     map[string][]*kernel.Process
	byMaster  map[int]facts.Ways

	seen kernel.Seen
	// blind are, by user, the processes of which not all sockets could be listed,
	// and lost those of which it is not known what they are, or of a leader its unit.
	blind, lost map[int][]*kernel.Process
}

// company looks at all that a walk has found.
func (h *Host) company(views []view) *company {
	c := &company{
		procs: h.walked.procs, addresses: make(map[int][]string), units: make(map[string][]*kernel.Process), byMaster: make(map[int]facts.Ways),
		seen: h.walked.seen, blind: make(map[int][]*kernel.Process), lost: make(map[int][]*kernel.Process),
	}
	for _, v := range views {
		for _, l := range v.listeners {
			if o, ok := h.walked.owned[l.Inode]; ok {
				c.addresses[o.master.PID] = append(c.addresses[o.master.PID], l.Address())
			}
		}
	}
	parents := parentsOf(c.procs)
	for i := range c.procs {
		p := &c.procs[i]
		if p.Denied != nil && p.State != 'Z' || p.Cut != nil {
			c.blind[p.UID] = append(c.blind[p.UID], p)
		}
		if p.CgroupErr != nil && leads(p, parents) || p.Signals.Unknown && p.State != 'Z' {
			c.lost[p.UID] = append(c.lost[p.UID], p)
		}
		if unit := h.identity(p).Unit.Value; unit != "" && leads(p, parents) {
			c.units[unit] = append(c.units[unit], p)
		}
	}
	return c
}

// leads reports whether a process is a master or an emperor. A child that was just
// forked looks like its parent.
func leads(p *kernel.Process, parents map[int]bool) bool {
	return uwsgi.IsEmperor(p.Signals) || uwsgi.IsMaster(p.Signals) && parents[p.PID]
}

// ways are those of a socket, as far as they are known without asking.
func (c *company) ways(o owner, unit string) facts.Ways {
	w, ok := c.byMaster[o.master.PID]
	if !ok {
		w = c.of(o.master, unit)
		c.byMaster[o.master.PID] = w
	}
	switch {
	case len(o.sharers) > 0:
		w.Sharers = facts.Known(strings.Join(c.names(o.sharers), ", "))
	case o.fd < 0:
		w.Sharers = facts.Unknown[string](kernel.SeeAll)
	case w.Hidden != "":
		w.Sharers = facts.Unknown[string](w.Hidden)
	default:
		w.Sharers = facts.Absent[string]()
		if p := c.first(c.blind, o); p != nil {
			w.Sharers = facts.Unknown[string](kernel.Explain(kernel.ListOpen, fmt.Sprintf("the sockets of uWSGI %d (uid %d)", p.PID, p.UID), cmp.Or(p.Denied, p.Cut)).Error())
		}
	}
	return w
}

// near are the users whose processes may have to do with a master: root, those of
// the system, and its own. What belongs to another could not be at the socket
// without one of those, and anybody may run thousands that cannot be looked into.
func near(uid int, master *kernel.Process) bool { return uid == master.UID || !kernel.Foreign(uid) }

// first is one of these that may have to do with a socket, nil for none: what is of
// its master's own, or the emperor above it, shares it in any case.
func (c *company) first(of map[int][]*kernel.Process, o owner) *kernel.Process {
	for _, uid := range slices.Sorted(maps.Keys(of)) {
		if !near(uid, o.master) {
			continue
		}
		for _, p := range of[uid] {
			emperor := p.PID == o.master.PPID && uwsgi.IsEmperor(p.Signals)
			if p.PID != o.master.PID && p.PPID != o.master.PID && !emperor {
				return p
			}
		}
	}
	return nil
}

// hidden says why there may be processes near a master that are not seen at all.
func (c *company) hidden(master *kernel.Process) string {
	if c.seen.Hidden {
		return othersHidden().Error()
	}
	for _, uid := range slices.Sorted(maps.Keys(c.seen.Left)) {
		if n := c.seen.Left[uid]; n > 0 && near(uid, master) {
			return fmt.Sprintf("%d more uWSGI of user %d: no more of one user are looked at", n, uid)
		}
	}
	switch p := c.first(c.lost, owner{master: master}); {
	case p == nil && master.Signals.Unknown, p != nil && p.Signals.Unknown:
		return "this /proc does not tell which signals a process takes, by which a master, an emperor and a worker are known (SigCgt)"
	case p != nil:
		return fmt.Sprintf("the unit of uWSGI %d: %v", p.PID, p.CgroupErr)
	}
	return ""
}

func (c *company) of(master *kernel.Process, unit string) (w facts.Ways) {
	var vassals, others []*kernel.Process
	own := children(c.procs, master)
	if w.Emperor = uwsgi.IsEmperor(master.Signals); w.Emperor {
		vassals, own = own, nil
	}
	for _, p := range own {
		switch {
		case uwsgi.IsEmperor(p.Signals):
			vassals = append(vassals, children(c.procs, p)...)
		case uwsgi.IsRouter(p.Signals) && w.Router == "":
			w.Router = name(p)
		}
	}
	for _, p := range c.units[unit] {
		if p != master && !slices.Contains(vassals, p) {
			others = append(others, p)
		}
	}
	w.Hidden = c.hidden(master)
	w.Vassals, w.Others = c.names(vassals), c.names(others)
	return w
}

func name(p *kernel.Process) string { return fmt.Sprintf("%s %d", text.Line(p.Comm), p.PID) }

// names are the processes in words, with what they listen at.
func (c *company) names(procs []*kernel.Process) (names []string) {
	for i, p := range procs {
		if i == maxNamed {
			return append(names, text.Plural(len(procs)-i, "more", "more"))
		}
		n := name(p)
		if at := c.addresses[p.PID]; len(at) > 0 {
			n += " (" + text.Line(strings.Join(at[:min(len(at), maxNamed)], ", ")) + ")"
		}
		names = append(names, n)
	}
	return names
}
