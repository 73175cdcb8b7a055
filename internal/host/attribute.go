package host

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

// socketUnitsAge is how long what systemd says of a service's .socket units
// serves.
const socketUnitsAge = 30 * time.Second

// suspect is a uWSGI whose descriptors may not be listed, with what tells whether
// a socket is its own.
type suspect struct {
	*kernel.Process
	master bool   // it ends all on SIGQUIT, which a worker ignores (core/master.c)
	unit   string // its service, "" for none
	cgroup uint64 // as kernel.Cgroup2 has it
	claim  uwsgi.Claim
	// units are the .socket units of its service, and unitsErr says why they
	// are not known.
	units    []systemd.SocketUnit
	unitsErr error
}

// names reports whether what it says of itself names the socket.
func (s *suspect) names(bound facts.Address) bool {
	return slices.ContainsFunc(s.claim.Addresses, bound.MayBe)
}

// activated reports whether a .socket unit of its service holds the socket.
func (s *suspect) activated(bound facts.Address) bool {
	return slices.ContainsFunc(s.units, func(u systemd.SocketUnit) bool { return slices.ContainsFunc(u.Listen, bound.IsListen) })
}

// attribution tells the owners of sockets without a right to see who holds them.
// What a process says of itself is not enough: anybody may be called uwsgi and
// name any address. The kernel knows in whose cgroup a TCP socket was made; one
// that systemd made, systemd names.
type attribution struct {
	inCgroup func(text string) (pids []int, err error)
	suspects []suspect
	all      []kernel.Process // that are called uWSGI
	init     uint64           // the cgroup of systemd itself
	allUsers bool             // users are told apart
}

// attribute adds the owners of the sockets that have none yet, as far as they
// can be told.
func (h *Host) attribute(ctx context.Context, options *Options, wait *budget, w *walk, views []view) {
	cgroups := kernel.OpenCgroup2()
	a := attribution{inCgroup: cgroups.Processes, all: w.procs, allUsers: kernel.AllUsers()}
	for i := range w.procs {
		if p := &w.procs[i]; p.Denied != nil && p.State != 'Z' {
			master, _ := kernel.Catches(p.PID, unix.SIGQUIT)
			a.suspects = append(a.suspects, suspect{Process: p, master: master, unit: h.identity(p).Unit.Value, cgroup: cgroups.ID(p.Cgroup)})
		}
	}
	if len(a.suspects) == 0 {
		return
	}
	if text, err := kernel.CgroupOf(1); err == nil {
		a.init = cgroups.ID(text)
	}
	h.ask(ctx, options, wait, &a)
	for _, v := range views {
		for _, l := range v.listeners {
			if _, ok := w.owned[l.Inode]; ok {
				continue
			}
			switch s, why := a.owner(l, v.netns.ID); {
			case s != nil:
				workers := children(w.procs, s.Process)
				w.owned[l.Inode] = owner{master: s.Process, fd: -1, workers: workers}
			case why != "":
				w.unseen = append(w.unseen, fmt.Sprintf("whose %s is: %s", l.Address(), why))
			}
		}
	}
}

// ask asks what the suspects say, and systemd about their services.
func (h *Host) ask(ctx context.Context, options *Options, wait *budget, a *attribution) {
	l := &h.lookups
	var keys []uwsgi.Process
	var services []string
	masters := make(map[int]bool)
	for _, s := range a.suspects {
		masters[s.PID] = s.master
	}
	for _, s := range a.suspects {
		if s.master || !masters[s.PPID] { // a worker says what its master does
			keys = append(keys, uwsgi.ProcessOf(h.identity(s.Process)))
		}
		if s.unit != "" && options.SocketUnits != nil && !slices.Contains(services, s.unit) {
			services = append(services, s.unit)
		}
	}
	wait.wait(ctx, l.claims.Start(keys), l.activated.Start(services))
	for i := range a.suspects {
		s := &a.suspects[i]
		if !s.master && masters[s.PPID] {
			continue
		}
		if answer := l.claims.Get(uwsgi.ProcessOf(h.identity(s.Process))); answer.Within(fileAge) {
			s.claim = answer.Value
		} else {
			s.claim.Unread = answer.Err
		}
		if s.unit != "" && options.SocketUnits != nil {
			answer := l.activated.Get(s.unit)
			if s.units = answer.Value; !answer.Within(socketUnitsAge) {
				s.unitsErr = answer.Err
			}
		}
	}
}

// owner finds the uWSGI of a socket. It is nil where none is proven to be; why
// says what points to one nevertheless, "" where nothing does.
func (a *attribution) owner(l kernel.Listener, netns uint64) (s *suspect, why string) {
	bound := facts.Address{Family: facts.Family(l.Family), Text: l.Address()}
	fits := func(keep func(*suspect) bool) (found []*suspect) {
		for i := range a.suspects {
			if s := &a.suspects[i]; s.NetNS == netns && keep(s) {
				found = append(found, s)
			}
		}
		return topmost(found)
	}
	named := fits(func(s *suspect) bool { return s.names(bound) })
	switch {
	case l.Family == kernel.Unix || l.Cgroup == a.init && a.init != 0:
		if held := fits(func(s *suspect) bool { return s.activated(bound) }); len(held) > 0 && l.UID <= 0 {
			return a.only(held, named, "systemd made it for %s")
		}
		dark := slices.IndexFunc(named, func(s *suspect) bool { return s.unitsErr != nil })
		switch {
		case l.Family == kernel.Unix:
			return a.unixOwner(l, named)
		case dark >= 0:
			return nil, fmt.Sprintf("systemd made it, and whether for %s is not known: %v", named[dark].unit, named[dark].unitsErr)
		}
	case l.Cgroup == 0:
		if len(named) > 0 {
			return nil, fmt.Sprintf("uWSGI %d names it, and this kernel does not say in which cgroup it was made (Linux 5.9)", named[0].PID)
		}
		return nil, ""
	}
	same := fits(func(s *suspect) bool { return s.cgroup != 0 && s.cgroup == l.Cgroup })
	if len(same) > 0 {
		return a.only(same, named, "it was made in %s")
	}
	// In no cgroup of their own users are all that tells them apart.
	if own := slices.DeleteFunc(slices.Clone(named), func(s *suspect) bool { return s.cgroup != 0 }); len(own) > 0 && a.init == 0 {
		return a.unixOwner(l, own)
	}
	if len(named) > 0 {
		return nil, fmt.Sprintf("uWSGI %d names it, but it was made in another cgroup", named[0].PID)
	}
	return nil, ""
}

// only is the one of those to which a socket may belong: the one of them that
// names it, or the only master where nothing else runs.
func (a *attribution) only(held, named []*suspect, where string) (*suspect, string) {
	both := slices.DeleteFunc(slices.Clone(held), func(s *suspect) bool { return !slices.Contains(named, s) })
	if len(both) == 1 {
		return both[0], ""
	}
	masters := slices.DeleteFunc(slices.Clone(held), func(s *suspect) bool { return !s.master })
	if len(both) == 0 && len(masters) == 1 && a.alone(masters[0]) {
		return masters[0], ""
	}
	// Of one that names other addresses most likely all was read that matters.
	dark := slices.DeleteFunc(slices.Clone(held), func(s *suspect) bool { return s.claim.Unread == nil || len(s.claim.Addresses) > 0 })
	place := held[0].unit
	if place == "" {
		place = "the cgroup of uWSGI " + fmt.Sprint(held[0].PID)
	}
	why := fmt.Sprintf(where, place)
	switch {
	case len(both) > 1:
		return nil, fmt.Sprintf("%s, where %d uWSGI name it; %s", why, len(both), kernel.SeeAll)
	case len(dark) > 0:
		return nil, fmt.Sprintf("%s, and whether uWSGI %d listens there cannot be read: %v; %s", why, dark[0].PID, dark[0].claim.Unread, kernel.SeeAll)
	}
	return nil, fmt.Sprintf("%s, and no uWSGI there names it; %s", why, kernel.SeeAll)
}

// alone reports whether all processes in the cgroup of a uWSGI are uWSGI's.
func (a *attribution) alone(s *suspect) bool {
	pids, err := a.inCgroup(s.Cgroup)
	return err == nil && !slices.ContainsFunc(pids, func(pid int) bool {
		return !slices.ContainsFunc(a.all, func(p kernel.Process) bool { return p.PID == pid })
	})
}

// unixOwner is the owner of a socket of which no cgroup is known: the only uWSGI
// that names it, and runs as the user who made it. A user can claim no more than
// what is his.
func (a *attribution) unixOwner(l kernel.Listener, named []*suspect) (*suspect, string) {
	same := slices.DeleteFunc(slices.Clone(named), func(s *suspect) bool { return s.UID != l.UID || l.UID < 0 })
	switch {
	case len(named) == 0:
		return nil, ""
	case !a.allUsers:
		return nil, fmt.Sprintf("uWSGI %d names it, and in a user namespace (PrivateUsers=) users cannot be told apart; %s", named[0].PID, kernel.SeeAll)
	case len(same) == 1:
		return same[0], ""
	case len(same) == 0:
		return nil, fmt.Sprintf("uWSGI %d names it, but runs as another user (%d) than who made it (%d); %s", named[0].PID, named[0].UID, l.UID, kernel.SeeAll)
	}
	return nil, fmt.Sprintf("%d uWSGI of the user %d name it; %s", len(same), l.UID, kernel.SeeAll)
}

// topmost leaves out those whose parent is there too: workers and routers, which
// have their master's command line.
func topmost(found []*suspect) []*suspect {
	return slices.DeleteFunc(slices.Clone(found), func(s *suspect) bool {
		return !s.master && slices.ContainsFunc(found, func(p *suspect) bool { return p.PID == s.PPID })
	})
}
