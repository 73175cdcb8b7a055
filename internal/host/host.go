// Package host is the only package that reads or changes the kernel, /etc or
// another process. It shows the host as remediate.Facts and applies
// remediate.Actions to it.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"qwatch/remediate/facts"
	"slices"
	"sync"
	"time"

	"qwatch/systemd"
)

// Options say what a Host looks at.
type Options struct {
	// Processes are the names of what counts as uWSGI: the comm of a process
	// or the base name of its executable.
	Processes []string
	// Sysctls are the keys whose live values Observe reads.
	Sysctls []string
	// SysctlFile is qwatch's file in sysctl.d, "" for none.
	SysctlFile string
	// AssumeRights leaves Facts.Cannot empty. A dry run shows what the acting
	// service would do, though it has no right itself.
	AssumeRights bool
	// SocketUnits finds the .socket unit behind a service's socket, nil where
	// there is no systemd.
	SocketUnits SocketUnits
	// Stats are the addresses of uWSGI stats servers, as readStats takes them.
	Stats []string
	// Services tells how a unit is started, nil where there is no systemd.
	Services Services
}

// SocketUnits is the part of systemd.Manager that Observe asks.
type SocketUnits interface {
	SocketUnitFor(ctx context.Context, service, address string) (unit systemd.SocketUnit, found bool, err error)
}

const (
	// Sample walks /proc again after rewalk: so late is a uWSGI noticed that
	// inherited a socket which was there before it (systemd's .socket units).
	rewalk = 30 * time.Second
	// maxSpaces is how many network namespaces besides the own one are looked
	// into: any user may make thousands of them.
	maxSpaces = 64
	// A new listening socket makes it walk at once, but not more often than
	// this.
	walkGap = time.Second
)

// Host looks at this host through sock_diag and /proc. Its methods may be
// called from several goroutines; one looks at a time.
type Host struct {
	options Options

	mu           sync.Mutex
	buf          []byte // for the files of /proc, none of which is as large
	spaces       []*namespace
	home         *namespace // qwatch's own, and the first of spaces
	netstatInode uint64     // of home's /proc/net/netstat

	stats map[string]statsAnswer // by address

	// What the last walk over /proc found.
	walked time.Time
	procs  []process
	owned  map[uint64]owner // by the socket's inode
	known  map[uint64]bool  // all inodes that were listening then, owned or not
	unseen []string

	// socketUnits are systemd's answers, "" for none. A socket keeps its unit.
	socketUnits map[facts.SocketID]string
}

// New opens the namespace that the caller runs in; those of containers are
// opened when a uWSGI is found in them.
func New(options Options) (*Host, error) {
	home, err := openNamespace()
	if err != nil {
		return nil, fmt.Errorf("observe this host: %w", err)
	}
	netstat, err := inode("/proc/thread-self/net/netstat")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("observe this host: %w", err), home.close())
	}
	return &Host{
		options:      options,
		buf:          make([]byte, 64<<10),
		spaces:       []*namespace{home},
		home:         home,
		netstatInode: netstat,
	}, nil
}

// Configure sets other options. The next look at the host goes by them.
func (h *Host) Configure(options Options) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.options = options
	h.walked = time.Time{}
}

// Close gives back what New and the looks at the host have opened.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, n := range h.spaces {
		errs = append(errs, n.close())
	}
	h.spaces = nil
	return errors.Join(errs...)
}

// Sample reads the accept queues of all uWSGI sockets. It is made to be called
// each second: it dumps the listening sockets and reads two files for each
// namespace, and walks over /proc only when a listening socket has appeared,
// or every 30 seconds.
func (h *Host) Sample(ctx context.Context) ([]facts.Sample, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	views, _, err := h.dump(ctx)
	if err != nil {
		return nil, err
	}
	if h.stale(views, time.Now()) {
		if err := h.walk(views); err != nil {
			return nil, err
		}
		if views, _, err = h.dump(ctx); err != nil {
			return nil, err
		}
	}
	var readings []facts.Sample
	for _, v := range views {
		first := len(readings)
		for _, l := range v.listeners {
			if _, ok := h.owned[l.inode]; ok {
				readings = append(readings, facts.Sample{
					ID:     facts.SocketID{NetNS: v.space.id, Inode: l.inode},
					At:     v.at,
					Length: l.length,
					Limit:  l.limit,
				})
			}
		}
		if len(readings) == first {
			continue
		}
		overflows, opens, err := v.space.counters(h.buf)
		if err != nil {
			return nil, err
		}
		for i := range readings[first:] {
			readings[first+i].Overflows, readings[first+i].Opens = overflows, opens
		}
	}
	return readings, nil
}

// stale reports whether the owners must be looked up again. Sockets that were
// there at the last walk and had no uWSGI do not count: most listening sockets
// of a host are somebody else's.
func (h *Host) stale(views []view, now time.Time) bool {
	age := now.Sub(h.walked)
	if age >= rewalk {
		return true
	}
	return age >= walkGap && slices.ContainsFunc(views, func(v view) bool {
		return slices.ContainsFunc(v.listeners, func(l listener) bool { return !h.known[l.inode] })
	})
}

// view is one namespace's listening sockets.
type view struct {
	space     *namespace
	at        time.Time
	listeners []listener
}

// dump lists the listening sockets of all open namespaces, and says what could
// not be listed. Only the own namespace must answer.
func (h *Host) dump(ctx context.Context) (views []view, unseen []string, err error) {
	if len(h.spaces) == 0 {
		return nil, nil, errors.New("observe this host: already closed")
	}
	for _, n := range slices.Clone(h.spaces) {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		found, missing, err := n.dump()
		switch {
		case err != nil && n == h.home:
			return nil, nil, errors.Join(err, n.redial())
		case err != nil:
			// The next walk opens it again.
			unseen = append(unseen, fmt.Sprintf("sockets in the network namespace %d: %v", n.id, err))
			h.leave(n)
			continue
		}
		for _, family := range missing {
			unseen = append(unseen, fmt.Sprintf("listening %s sockets: this kernel has no sock_diag for them; load %s", family, module(family)))
		}
		views = append(views, view{space: n, at: time.Now(), listeners: found})
	}
	return views, unseen, nil
}

func module(family facts.Family) string {
	if family == facts.Unix {
		return "unix_diag"
	}
	return "tcp_diag"
}

// walk finds the uWSGI processes, opens the namespaces in which they live, and
// tells the owners of the sockets. views is what was listening just before: a
// socket that appears during the walk is new to the next look.
func (h *Host) walk(views []view) error {
	procs, hidden, err := h.processes()
	if err != nil {
		return err
	}
	h.procs, h.walked, h.unseen = procs, time.Now(), nil
	if hidden {
		h.unseen = append(h.unseen, "the processes of other users: /proc is mounted with hidepid; needs CAP_SYS_PTRACE or the group of its gid= option")
	}
	h.enter()
	h.owned = owners(procs)
	h.known = make(map[uint64]bool)
	for _, v := range views {
		for _, l := range v.listeners {
			h.known[l.inode] = true
			if _, ok := h.owned[l.inode]; ok {
				continue
			}
			if o, ok := guess(l, v.space.id, procs, arguments); ok {
				h.owned[l.inode] = o
				h.unseen = append(h.unseen, fmt.Sprintf("the owner of %s: taken to be uWSGI %d by its command line", l.address(), o.master.PID))
			}
		}
	}
	// A zombie has lost its descriptors, whoever may look.
	for _, p := range roots(procs, func(p *process) bool { return p.denied != nil && p.state != 'Z' }) {
		h.unseen = append(h.unseen, fmt.Sprintf("the sockets of uWSGI %d (uid %d): %v; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH", p.PID, p.UID, p.denied))
	}
	return nil
}

// enter opens the namespaces in which a uWSGI lives and that are not open yet,
// and closes those that none lives in any more: an open one would outlive its
// container.
func (h *Host) enter() {
	for _, n := range slices.Clone(h.spaces[1:]) {
		if !slices.ContainsFunc(h.procs, func(p process) bool { return p.netns == n.id }) {
			h.leave(n)
		}
	}
	failed := make(map[uint64]bool)
	alive := func(p *process) bool { return p.state != 'Z' } // a zombie has no namespace
	for _, p := range roots(h.procs, alive) {
		if failed[p.netns] || slices.ContainsFunc(h.spaces, func(n *namespace) bool { return n.id == p.netns }) {
			continue
		}
		if p.netns == 0 {
			h.unseen = append(h.unseen, fmt.Sprintf("uWSGI %d%s: it lives in another network namespace; needs CAP_SYS_PTRACE and CAP_SYS_ADMIN", p.PID, h.place(p)))
			continue
		}
		if len(h.spaces) > maxSpaces {
			failed[p.netns] = true
			h.unseen = append(h.unseen, fmt.Sprintf("uWSGI %d%s: more than %d network namespaces hold a uWSGI", p.PID, h.place(p), maxSpaces))
			continue
		}
		n, err := enterNamespace(p.PID)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended meanwhile
		}
		if err != nil {
			failed[p.netns] = true
			h.unseen = append(h.unseen, fmt.Sprintf("uWSGI %d%s: its network namespace %d: %v; needs CAP_SYS_PTRACE and CAP_SYS_ADMIN", p.PID, h.place(p), p.netns, err))
			continue
		}
		h.spaces = append(h.spaces, n)
	}
}

func (h *Host) leave(n *namespace) {
	n.close()
	h.spaces = slices.DeleteFunc(h.spaces, func(m *namespace) bool { return m == n })
}

// place says where a process runs, to be put behind its pid.
func (h *Host) place(p *process) string {
	if p.Container == "" {
		return ""
	}
	return " in " + p.Container
}

// roots are the processes to which keep applies and whose parent is not such a
// one: masters and emperors, not their workers.
func roots(procs []process, keep func(*process) bool) (found []*process) {
	kept := make(map[int]bool)
	for i := range procs {
		kept[procs[i].PID] = keep(&procs[i])
	}
	for i := range procs {
		if p := &procs[i]; kept[p.PID] && !kept[p.ppid] {
			found = append(found, p)
		}
	}
	return found
}
