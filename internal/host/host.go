// Package host looks at this host, and shows it as facts: who holds the accept
// queues of uWSGI, what limits them, and what qwatch may do about it. It changes
// nothing; package apply does.
package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"qwatch/internal/deploy"
	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
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
	// AssumeRights leaves Snapshot.Cannot empty. A dry run shows what the acting
	// service would do, though it has no right itself.
	AssumeRights bool
	// SocketUnits tells which .socket units there are for a service, nil where
	// there is no systemd.
	SocketUnits SocketUnits
	// Stats are the addresses of uWSGI stats servers, as uwsgi.ReadStats takes them.
	Stats []string
	// Users are the names or numbers of users whose uWSGIs are trusted, whatever
	// started them.
	Users []string
	// Services tells how a unit is started, nil where there is no systemd.
	Services Services
	// ReloadPath is the file that policy.reload.how names, "" for none.
	ReloadPath string
	// Deploys looks at what a reload of each master would bring, and whom its
	// unit's would reach. What it would bring is looked at anew for each look at a
	// queue that is about to be decided about: one that was seen half full, or to
	// overflow, and with Records any, since a record alone may decide.
	Deploys, Records bool
	// Patience is how long one Observe or Sample waits, in all, for what may
	// never answer: stats servers, systemd, files; for the threads of all workers
	// it is 300 ms at least. What has not answered by then is unknown, and waited
	// for no more until it has answered once.
	Patience time.Duration
}

// SocketUnits is the part of systemd.Manager that Observe asks.
type SocketUnits interface {
	SocketUnits(ctx context.Context, service string) ([]systemd.SocketUnit, error)
}

const (
	// rewalk is how old the last walk over /proc gets: so late is a uWSGI
	// noticed that inherited a socket which was there before it (systemd's
	// .socket units).
	rewalk = 30 * time.Second
	// A new listening socket makes Sample walk at once, but not more often than
	// this.
	walkGap = time.Second
)

// Host looks at this host through sock_diag and /proc. Its methods may be
// called from several goroutines. Observe and Sample run one at a time; nothing
// but these and Close waits for them.
type Host struct {
	options atomic.Pointer[Options]
	rights  atomic.Pointer[rights] // that are tried next
	lookups lookups
	// container is the one in which qwatch runs, "" for none.
	container string

	mu     sync.Mutex
	netns  []*kernel.NetNS
	own    *kernel.NetNS // qwatch's own, and the first of netns
	memory deploy.Memory // of masters, while Options.Deploys
	// reloadable are the masters of the last Observe that may be reloaded.
	reloadable []uwsgi.Process
	pressed    pressed
	walked     walk                 // the last walk over /proc
	first      map[uint64]time.Time // when each uWSGI's socket was seen first, by inode
	// uncounted says what the last Sample could not read.
	uncounted []string
}

// New opens the namespace that the caller runs in; those of containers are
// opened when a uWSGI is found in them.
func New(options Options) (*Host, error) {
	own, err := kernel.OpenNetNS()
	if err != nil {
		return nil, fmt.Errorf("observe this host: %w", err)
	}
	h := &Host{netns: []*kernel.NetNS{own}, own: own, container: ownContainer()}
	h.options.Store(&options)
	h.lookups.init(h)
	return h, nil
}

// ownContainer is the container of this process, where its cgroup shows one:
// in a cgroup namespace of its own it shows none.
func ownContainer() string {
	cgroup, err := kernel.CgroupOf(os.Getpid())
	if err != nil { // a kernel may have none
		return ""
	}
	_, container := systemd.UnitOfCgroup(cgroup)
	return container
}

// Configure sets other options. The next Observe or Sample goes by them.
func (h *Host) Configure(options Options) { h.options.Store(&options) }

// Close gives back what New, Observe and Sample have opened.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lookups.forget()
	var errs []error
	for _, n := range h.netns {
		errs = append(errs, n.Close())
	}
	h.netns = nil
	return errors.Join(errs...)
}

// Sample reads the accept queues of all uWSGI sockets. It is made to be called
// each second: it dumps the listening sockets and reads two files for each
// namespace, and walks over /proc only when a listening socket has appeared,
// or every 30 seconds.
func (h *Host) Sample(ctx context.Context) ([]facts.Sample, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	options := h.options.Load()
	views, _, err := h.dump(ctx)
	if err != nil {
		return nil, err
	}
	if h.walked.stale(options, views, time.Now()) {
		if err := h.walk(ctx, options, &budget{options.Patience}, views); err != nil {
			return nil, err
		}
		if views, _, err = h.dump(ctx); err != nil {
			return nil, err
		}
	}
	h.watch(options)
	var samples []facts.Sample
	h.uncounted = nil
	for _, v := range views {
		samples = h.sample(v, samples)
	}
	h.hurry(options, samples)
	return samples, nil
}

// sample adds the samples of one namespace.
func (h *Host) sample(v view, samples []facts.Sample) []facts.Sample {
	first := len(samples)
	all := facts.Neighbours{}
	for _, l := range v.listeners {
		all = with(all, l)
		if _, ok := h.walked.owned[l.Inode]; !ok {
			continue
		}
		samples = append(samples, facts.Sample{
			ID:         facts.SocketID{NetNS: v.netns.ID, Inode: l.Inode},
			At:         v.at,
			Length:     l.Length,
			Limit:      l.Limit,
			Drops:      drops(l),
			Neighbours: with(facts.Neighbours{}, l), // to be taken from all
			Before:     v.before,
		})
	}
	if len(samples) == first {
		return samples
	}
	after, err := v.netns.Counters()
	opens, opensErr := v.netns.Opens()
	uncounted := ""
	if err := cmp.Or(err, opensErr); err != nil {
		uncounted = fmt.Sprintf("the counters of the network namespace %d: %v", v.netns.ID, err)
		h.uncounted = append(h.uncounted, uncounted)
	}
	for i := range samples[first:] {
		s := &samples[first+i]
		s.Uncounted = uncounted
		s.Overflows, s.Opens, s.OtherDrops = after.Overflows, opens, after.OtherDrops
		s.Neighbours.Drops = all.Drops - s.Neighbours.Drops
		s.Neighbours.Sum = all.Sum - s.Neighbours.Sum
	}
	return samples
}

// with adds a socket to a set.
func with(n facts.Neighbours, l kernel.Listener) facts.Neighbours {
	if l.Family != kernel.Unix {
		n.Drops += uint64(max(0, l.Drops))
		n.Sum += l.Inode * 0x9e3779b97f4a7c15 // so that sums of few inodes differ
	}
	return n
}

// drops are what a socket has refused.
func drops(l kernel.Listener) facts.Fact[uint32] {
	switch {
	case l.Family == kernel.Unix:
		return facts.Absent[uint32]()
	case l.Drops < 0:
		return facts.Unknown[uint32]("this kernel does not count the drops of a socket (SK_MEMINFO_DROPS, Linux 4.7)")
	}
	return facts.Known(uint32(l.Drops))
}

// view is one namespace's listening sockets.
type view struct {
	netns     *kernel.NetNS
	before    facts.Refusals // just before them
	at        time.Time
	listeners []kernel.Listener
}

// dump lists the listening sockets of all open namespaces, and says what could
// not be listed. Only the own namespace must answer.
func (h *Host) dump(ctx context.Context) (views []view, unseen []string, err error) {
	if len(h.netns) == 0 {
		return nil, nil, errors.New("observe this host: already closed")
	}
	for _, n := range slices.Clone(h.netns) {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		before, err := n.Counters()
		var found []kernel.Listener
		var missing []kernel.Family
		if err == nil {
			found, missing, err = n.Listeners()
		}
		switch {
		case err != nil && n == h.own:
			return nil, nil, errors.Join(err, n.Redial())
		case err != nil:
			// The next walk opens it again.
			unseen = append(unseen, fmt.Sprintf("sockets in the network namespace %d: %v", n.ID, err))
			h.closeNetNS(n)
			continue
		}
		for _, family := range missing {
			unseen = append(unseen, fmt.Sprintf("listening %s sockets: this kernel has no sock_diag for them; load %s", family, family.Module()))
		}
		views = append(views, view{n, facts.Refusals{Overflows: before.Overflows, Other: before.OtherDrops}, time.Now(), found})
	}
	return views, unseen, nil
}
