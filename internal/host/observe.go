package host

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"qwatch/remediate"
)

// Observe looks at everything: the sockets and who owns them, the sysctls, and
// what qwatch may do here. It walks over /proc, so it is for incidents and for
// people, not for each second. What could not be looked at stands in
// Facts.Unseen; an error means that nothing could.
func (h *Host) Observe(ctx context.Context) (remediate.Facts, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, _, err := h.dump(ctx)
	if err != nil {
		return remediate.Facts{}, err
	}
	if err := h.walk(before); err != nil {
		return remediate.Facts{}, err
	}
	views, unseen, err := h.dump(ctx)
	if err != nil {
		return remediate.Facts{}, err
	}
	facts := remediate.Facts{
		At:     time.Now(),
		Sysctl: h.sysctls(),
		Unseen: append(slices.Clone(h.unseen), unseen...),
	}
	for _, v := range views {
		overflows, _, err := v.space.counters(h.buf)
		if err != nil {
			return remediate.Facts{}, err
		}
		somaxconn := v.space.limit(h.buf)
		first := len(facts.Sockets)
		for _, l := range v.listeners {
			o, ok := h.owned[l.inode]
			if !ok {
				continue
			}
			facts.Sockets = append(facts.Sockets, remediate.Socket{
				ID:        remediate.SocketID{NetNS: v.space.id, Inode: l.inode},
				Family:    l.family,
				Address:   l.address(),
				Length:    l.length,
				Limit:     l.limit,
				Master:    o.master.Process,
				FD:        o.fd,
				Workers:   workersOf(o),
				Foreign:   v.space != h.home,
				Somaxconn: somaxconn,
				Overflows: overflows,
			})
		}
		slices.SortFunc(facts.Sockets[first:], func(a, b remediate.Socket) int {
			return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID.Inode, b.ID.Inode))
		})
	}
	if !h.options.AssumeRights {
		facts.Cannot = h.cannot()
	}
	return facts, nil
}

func workersOf(o owner) (found []remediate.Worker) {
	for _, p := range o.workers {
		found = append(found, remediate.Worker{Process: p.Process, State: p.state, Ticks: p.ticks})
	}
	return found
}

// sysctls reads the live values of the keys of the options. A key that this
// kernel or namespace lacks is missing.
func (h *Host) sysctls() map[string]int {
	values := make(map[string]int)
	for _, key := range h.options.Sysctls {
		b, err := h.read("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
		if err != nil {
			continue
		}
		if v, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil {
			values[key] = v
		}
	}
	return values
}
