package host

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"qwatch/remediate/facts"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/sysctld"
)

// Observe looks at everything: the sockets and who owns them, the sysctls, and
// what qwatch may do here. It walks over /proc, so it is for incidents and for
// people, not for each second. What could not be looked at stands in
// Facts.Unseen; an error means that nothing could.
func (h *Host) Observe(ctx context.Context) (facts.Snapshot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, _, err := h.dump(ctx)
	if err != nil {
		return facts.Snapshot{}, err
	}
	if err := h.walk(before); err != nil {
		return facts.Snapshot{}, err
	}
	views, unseen, err := h.dump(ctx)
	if err != nil {
		return facts.Snapshot{}, err
	}
	snapshot := facts.Snapshot{
		At:     time.Now(),
		Booted: booted(),

		DefaultSomaxconn: defaultSomaxconn(),
		Sysctl:           h.sysctls(),
		Unseen:           append(slices.Clone(h.unseen), unseen...),
	}
	snapshot.File, err = valuesIn(h.options.SysctlFile)
	note(&snapshot, "what "+h.options.SysctlFile+" sets", err)
	snapshot.Boot, snapshot.WinningFile, err = h.boot()
	note(&snapshot, "what a boot would set", err)
	masters := make(map[int]configuration)
	for _, v := range views {
		overflows, _, err := v.space.counters(h.buf)
		if err != nil {
			return facts.Snapshot{}, err
		}
		somaxconn := v.space.limit(h.buf)
		first := len(snapshot.Sockets)
		tcp := 0
		for _, l := range v.listeners {
			if l.family != facts.Unix {
				tcp++
			}
		}
		for _, l := range v.listeners {
			o, ok := h.owned[l.inode]
			if !ok {
				continue
			}
			c, ok := masters[o.master.PID]
			if !ok {
				c.logs = logs(o.master.PID)
				c.backlog, c.at, err = h.configured(o.master.Process)
				if err != nil {
					c.unread = err.Error()
				}
				note(&snapshot, fmt.Sprintf("the configuration of uWSGI %d", o.master.PID), err)
				masters[o.master.PID] = c
			}
			snapshot.Sockets = append(snapshot.Sockets, facts.Socket{
				ID:           facts.SocketID{NetNS: v.space.id, Inode: l.inode},
				Family:       l.family,
				Address:      l.address(),
				Length:       l.length,
				Limit:        l.limit,
				Master:       o.master.Process,
				FD:           o.fd,
				Workers:      workersOf(o),
				Logs:         c.logs,
				SoleListener: tcp == 1 && l.family != facts.Unix,
				OtherNetNS:   v.space != h.home,
				Somaxconn:    somaxconn,
				Overflows:    overflows,
				Configured:   c.backlog,
				ConfiguredAt: c.at,
				Unread:       c.unread,
			})
		}
		slices.SortFunc(snapshot.Sockets[first:], func(a, b facts.Socket) int {
			return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID.Inode, b.ID.Inode))
		})
	}
	h.findSocketUnits(ctx, &snapshot)
	h.fillStats(ctx, &snapshot)
	if !h.options.AssumeRights {
		snapshot.Cannot = h.cannot()
	}
	return snapshot, nil
}

// booted is when the kernel started, zero if it does not say.
func booted() time.Time {
	var since unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &since) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(since.Nano()))
}

// defaultSomaxconn is SOMAXCONN of the running kernel (include/linux/socket.h;
// 19f92a030ca6 in Linux 5.4), 0 if it does not say which it is.
func defaultSomaxconn() int {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return 0
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		return 0
	}
	if major > 5 || major == 5 && minor >= 4 {
		return 4096
	}
	return 128
}

// configuration is what the sockets of one master share.
type configuration struct {
	logs    []string
	backlog int
	at      string
	unread  string
}

// note adds what could not be looked at, if there is an error.
func note(snapshot *facts.Snapshot, what string, err error) {
	if err != nil {
		snapshot.Unseen = append(snapshot.Unseen, what+": "+err.Error())
	}
}

// findSocketUnits fills in Socket.SocketUnit. systemd is asked once for each
// socket; a failure is asked again.
func (h *Host) findSocketUnits(ctx context.Context, snapshot *facts.Snapshot) {
	if h.options.SocketUnits == nil {
		return
	}
	answers := make(map[facts.SocketID]string)
	for i := range snapshot.Sockets {
		s := &snapshot.Sockets[i]
		if s.Master.Unit == "" {
			continue
		}
		answer, known := h.socketUnits[s.ID]
		if !known {
			unit, _, err := h.options.SocketUnits.SocketUnitFor(ctx, s.Master.Unit, s.Address)
			if err != nil {
				note(snapshot, "the .socket unit of "+s.Name(), err)
				continue
			}
			answer = unit.Unit
		}
		s.SocketUnit, answers[s.ID] = answer, answer
	}
	h.socketUnits = answers
}

func workersOf(o owner) (found []facts.Worker) {
	for _, p := range o.workers {
		w := facts.Worker{Process: p.Process, State: p.state, Ticks: p.ticks}
		w.Waits, w.Switches = waits(p.PID)
		found = append(found, w)
	}
	return found
}

// sysctls reads the live values of the keys of the options. A key that this
// kernel or namespace lacks is missing.
func (h *Host) sysctls() map[string]int {
	values := make(map[string]int)
	for _, key := range h.options.Sysctls {
		b, err := h.read("/proc/sys/" + sysctld.Path(key))
		if err != nil {
			continue
		}
		if v, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil {
			values[key] = v
		}
	}
	return values
}

// valuesIn reads what a sysctl.d file sets; nil if there is no such file.
func valuesIn(path string) (map[string]int, error) {
	info, err := os.Stat(path)
	switch {
	case path == "" || errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return sysctld.Values(text), nil
}

// boot tells what the next boot would set the keys of the options to, and which
// file would win for all of them. The error names files that could not be
// read; the rest is good.
func (h *Host) boot() (values map[string]facts.BootValue, winning string, err error) {
	boot, err := sysctld.Load(os.DirFS("/"))
	reader := sysctld.Procps
	if _, err := os.Stat("/run/systemd/system"); err == nil { // sd_booted(3)
		reader = sysctld.Systemd
	}
	values = make(map[string]facts.BootValue)
	for _, key := range h.options.Sysctls {
		s, ok := boot.Winner(reader, key)
		if !ok {
			continue
		}
		if v, ok := s.Int(); ok {
			values[key] = facts.BootValue{Value: v, File: s.File, Line: s.Number}
		}
	}
	if file := h.options.SysctlFile; file != "" {
		winning = filepath.Join(filepath.Dir(file), boot.WinningName(filepath.Base(file), h.options.Sysctls...))
	}
	return values, winning, err
}
