package host

import (
	"errors"
	"slices"
	"time"

	"qwatch/internal/deploy"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
)

const (
	// deploysDeadline is how long the files of one uWSGI may take.
	deploysDeadline = 5 * time.Second
	// deploysAge is how long what was seen of them serves. Before a reload they are
	// looked at again.
	deploysAge = 30 * time.Second
)

// watch looks which masters were executed anew.
func (h *Host) watch(options *Options) {
	if !options.Deploys {
		return
	}
	var masters []uwsgi.Process
	seen := make(map[int]bool)
	for _, o := range h.walked.owned {
		if !seen[o.master.PID] {
			seen[o.master.PID] = true
			masters = append(masters, uwsgi.ProcessOf(h.identity(o.master)))
		}
	}
	h.memory.Watch(masters)
}

// deployKey is a master as it was executed last: what was seen before that is of
// no use.
type deployKey struct {
	uwsgi.Process
	image uint64
}

func (h *Host) deployKeys() (keys []deployKey) {
	for _, p := range h.reloadable {
		keys = append(keys, deployKey{p, h.memory.Image(p)})
	}
	return keys
}

// hurry looks at what reloads would bring as soon as a queue is full: a plan comes
// a second or two after it, and does not wait for a large application.
func (h *Host) hurry(samples []facts.Sample) {
	if slices.ContainsFunc(samples, facts.Sample.Full) {
		h.lookups.deploys.Start(h.deployKeys())
	}
}

// reloadable are the masters of which it is asked what a reload would bring.
func reloadable(options *Options, sockets []facts.Socket) (masters []uwsgi.Process) {
	for i := range sockets {
		if s := &sockets[i]; options.Deploys && s.Untrusted.State != facts.StateKnown {
			masters = append(masters, uwsgi.ProcessOf(s.Master))
		}
	}
	return masters
}

var errNoDeploys = errors.New("it is not looked at, since the policy has no reloads, or not for this uWSGI")

// deploy is what a reload of a socket's master would bring.
func (h *Host) deploy(s *facts.Socket) facts.Deploy {
	master := uwsgi.ProcessOf(s.Master)
	if !slices.Contains(h.reloadable, master) {
		return deploy.Unseen(errNoDeploys)
	}
	a := h.lookups.deploys.Get(deployKey{master, h.memory.Image(master)})
	if !a.Within(2 * deploysAge) {
		return deploy.Unseen(a.Err)
	}
	return a.Value
}
