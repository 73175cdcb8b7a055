package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
	"qwatch/internal/kernel"
	"qwatch/internal/sysctld"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
)

// Observe looks at everything: the sockets and who owns them, the sysctls, and
// what qwatch may do here. It walks over /proc, so it is for incidents and for
// people, not for each second. What could not be looked at, or has not answered
// in time, stands in Snapshot.Unseen; an error means that nothing could.
func (h *Host) Observe(ctx context.Context) (facts.Snapshot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	options := h.options.Load()
	wait := &budget{options.Patience}
	before, _, err := h.dump(ctx)
	if err != nil {
		return facts.Snapshot{}, err
	}
	if err := h.walk(ctx, options, wait, before); err != nil {
		return facts.Snapshot{}, err
	}
	views, unseen, err := h.dump(ctx)
	if err != nil {
		return facts.Snapshot{}, err
	}
	s := facts.Snapshot{
		At:     time.Now(),
		Booted: booted(),

		DefaultSomaxconn: defaultSomaxconn(),
		Unseen:           append(slices.Clone(h.walked.unseen), unseen...),
		HiddenOwners:     h.walked.hidden,
	}
	for _, why := range h.uncounted {
		s.Unseen = append(s.Unseen, "overflows: "+why)
	}
	settings(&s, options)
	made := makers{kernel.OpenCgroup2(), kernel.AllUsers(), make(map[string]frozen)}
	others := h.company(views)
	for _, v := range views {
		s.Sockets = append(s.Sockets, h.sockets(v, made, others)...)
	}
	if s.HiddenOwners != "" {
		s.Ownerless = h.ownerless(views)
	}
	h.rights.Store(&rights{h.walked.targets(), options.SysctlFile})
	if options.Deploys && options.Records {
		h.pressAll(s.At)
	}
	h.trust(ctx, options, wait, &s)
	h.fill(ctx, options, wait, &s)
	return s, nil
}

// sockets are the sockets of one namespace that a uWSGI holds, by address, as
// far as that is known without asking.
func (h *Host) sockets(v view, made makers, others *company) (sockets []facts.Socket) {
	tcp := 0
	var certain uint64
	for _, l := range v.listeners {
		if l.Family != kernel.Unix {
			tcp++
			certain += facts.CertainDrops(uint64(max(0, l.Drops)), v.before)
		}
	}
	somaxconn := known(v.netns.Somaxconn())
	for _, l := range v.listeners {
		o, ok := h.walked.owned[l.Inode]
		if !ok {
			continue
		}
		s := facts.Socket{
			ID:           facts.SocketID{NetNS: v.netns.ID, Inode: l.Inode},
			Family:       facts.Family(l.Family),
			Address:      l.Address(),
			First:        h.first[l.Inode],
			Length:       l.Length,
			Limit:        l.Limit,
			Refused:      facts.Refused{Drops: drops(l), Overflows: overflows(l, v, certain)},
			Master:       h.identity(o.master),
			FD:           o.fd,
			SoleListener: tcp == 1 && l.Family != kernel.Unix,
			OtherNetNS:   v.netns != h.own,
			Somaxconn:    somaxconn,
		}
		s.Ways = others.ways(o, s.Master.Unit.Value)
		s.Paused = made.paused(o.master)
		if made.itself(l, o.master) {
			s.Unit = facts.Absent[facts.SocketUnit]()
		}
		for _, p := range o.workers {
			s.Workers = append(s.Workers, facts.Worker{Process: h.identity(p), State: p.State, Ticks: p.Ticks})
		}
		sockets = append(sockets, s)
	}
	sort.Slice(sockets, func(i, j int) bool {
		a, b := &sockets[i], &sockets[j]
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID.Inode, b.ID.Inode)) < 0
	})
	return sockets
}

// makers tells who has made a socket.
type makers struct {
	cgroups  *kernel.Cgroup2
	allUsers bool              // users are told apart
	frozen   map[string]frozen // by the text of /proc/PID/cgroup
}

type frozen struct {
	is  bool
	err error // why that is not known
}

// itself reports whether the kernel shows that systemd has not made a socket of
// a service. systemd makes those of its .socket units as root, in its own cgroup
// or in the unit's (socket_address_listen_in_cgroup, src/core/socket.c).
func (m makers) itself(l kernel.Listener, master *kernel.Process) bool {
	return m.allUsers && l.UID > 0 || l.Cgroup != 0 && l.Cgroup == m.cgroups.ID(master.Cgroup)
}

// paused is uwsgi.Paused of a master. Many share a cgroup, which is asked once.
func (m makers) paused(master *kernel.Process) facts.Fact[string] {
	return uwsgi.Paused(master.PID, master.State, func() (bool, error) {
		if master.CgroupErr != nil {
			return false, master.CgroupErr
		}
		f, asked := m.frozen[master.Cgroup]
		if !asked {
			f.is, f.err = m.cgroups.Frozen(master.Cgroup)
			m.frozen[master.Cgroup] = f
		}
		return f.is, f.err
	})
}

// maxOwnerless is how many of them a snapshot holds: most are nobody's business,
// and they only say whether an address is bound at all.
const maxOwnerless = 4096

// ownerless are the listening sockets that no uWSGI is seen to hold.
func (h *Host) ownerless(views []view) (found []facts.Address) {
	for _, v := range views {
		for _, l := range v.listeners {
			if _, ok := h.walked.owned[l.Inode]; !ok && len(found) < maxOwnerless {
				found = append(found, facts.Address{Family: facts.Family(l.Family), Text: l.Address()})
			}
		}
	}
	return found
}

// known is a number that was read, or why it could not be.
func known(v int, err error) facts.Fact[int] {
	if err != nil {
		return facts.Unknown[int](err.Error())
	}
	return facts.Known(v)
}

// overflows is facts.OverflowsSinceBirth of one socket. certain is the sum of
// what all sockets of the namespace certainly dropped.
func overflows(l kernel.Listener, v view, certain uint64) facts.Fact[uint64] {
	d := drops(l)
	own, known := d.Get()
	switch {
	case d.IsAbsent():
		return facts.Absent[uint64]()
	case !known:
		return facts.Unknown[uint64](d.Why)
	}
	return facts.OverflowsSinceBirth(uint64(own), v.before, certain-facts.CertainDrops(uint64(own), v.before))
}

// booted is when the kernel started, zero if it does not say.
func booted() time.Time {
	since, err := kernel.SinceBoot()
	if err != nil {
		return time.Time{}
	}
	return time.Now().Add(-since)
}

// defaultSomaxconn is SOMAXCONN of the running kernel (include/linux/socket.h;
// 19f92a030ca6 in Linux 5.4).
func defaultSomaxconn() facts.Fact[int] {
	var name unix.Utsname
	_ = unix.Uname(&name) // it does not fail
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return facts.Unknown[int](fmt.Sprintf("the kernel calls its version %q", release))
	}
	if major > 5 || major == 5 && minor >= 4 {
		return facts.Known(4096)
	}
	return facts.Known(128)
}

// note adds what could not be looked at, if there is an error.
func note(snapshot *facts.Snapshot, what string, err error) {
	if err != nil {
		snapshot.Unseen = append(snapshot.Unseen, what+": "+err.Error())
	}
}

// settings adds the kernel parameters: those that hold now, and those that a
// boot would set. A key that this kernel or namespace lacks is missing.
func settings(s *facts.Snapshot, options *Options) {
	s.Sysctl = make(map[string]int)
	for _, key := range options.Sysctls {
		v, err := kernel.Sysctl(sysctld.Path(key))
		if err == nil {
			s.Sysctl[key] = v
		} else if !errors.Is(err, fs.ErrNotExist) {
			note(s, key, err)
		}
	}
	var err error
	s.File, err = valuesIn(options.SysctlFile)
	note(s, "what "+options.SysctlFile+" sets", err)
	s.Boot, s.WinningFile, err = boot(options)
	note(s, "what a boot would set", err)
}

// maxSysctlFile is more than a sysctl.d file has.
const maxSysctlFile = 1 << 20

// valuesIn reads what a sysctl.d file sets; nil if there is no such file.
func valuesIn(path string) (map[string]int, error) {
	if path == "" {
		return nil, nil
	}
	text, err := bounded.ReadFile(path, maxSysctlFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return sysctld.Values(text), nil
}

// boot tells what the next boot would set the keys of the options to, and which
// file would win for all of them. The error names files that could not be read: one
// of them may set any key to anything.
func boot(options *Options) (values map[string]facts.Fact[facts.BootValue], winning string, err error) {
	loaded, err := sysctld.Load(bounded.FS{Size: maxSysctlFile, Entries: 4096})
	reader := sysctld.Procps
	if _, err := os.Stat("/run/systemd/system"); err == nil { // sd_booted(3)
		reader = sysctld.Systemd
	}
	values = make(map[string]facts.Fact[facts.BootValue])
	for _, key := range options.Sysctls {
		s, set := loaded.Winner(reader, key)
		switch v, ok := s.Int(); {
		case err != nil:
			values[key] = facts.Unknown[facts.BootValue](err.Error())
		case !set:
			values[key] = facts.Absent[facts.BootValue]()
		case !ok:
			values[key] = facts.Unknown[facts.BootValue](fmt.Sprintf("%s:%d sets it to no one number", s.File, s.Number))
		default:
			values[key] = facts.Known(facts.BootValue{Value: v, File: s.File, Line: s.Number})
		}
	}
	if file := options.SysctlFile; file != "" {
		winning = filepath.Join(filepath.Dir(file), loaded.WinningName(filepath.Base(file), options.Sysctls...))
	}
	return values, winning, err
}
