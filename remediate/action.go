package remediate

import (
	"context"
	"fmt"
	"time"

	"qwatch/remediate/facts"
)

// Action is one change to the host, written down before it is made: what is,
// what shall be, and why. It is compare-and-swap: an Applier answers Stale
// unless the host still is as the action says.
type Action interface {
	fmt.Stringer
	isAction()
}

// SetSysctl sets a kernel parameter of a network namespace: first its line in
// the sysctl.d file, then the live value.
type SetSysctl struct {
	Key      string
	From, To int // the live value
	// Space is a process in the namespace, zero for qwatch's own.
	Space facts.Process
	// File is the sysctl.d file to keep the value over a boot, "" for none;
	// FileFrom is what it holds for Key now, 0 for nothing. A file that holds
	// more than To is left as it is.
	File     string
	FileFrom int
	// Companion marks a key that is raised along with somaxconn; its failure
	// stops nothing.
	Companion bool
	// Undo allows To < From and takes the line out of File; else an Applier
	// refuses to lower.
	Undo bool
	Why  string
}

// Relisten calls listen(2) again on the running socket, through a duplicate
// of the master's descriptor (pidfd_getfd(2)).
type Relisten struct {
	Socket   facts.Socket
	From, To int // the socket's limit
	Undo     bool
	Why      string
}

// Reload asks a uWSGI master for a graceful reload. It is done when new
// workers run and the socket listens.
type Reload struct {
	Socket  facts.Socket
	How     How
	Timeout time.Duration
	Why     string
}

// Start starts a systemd unit whose uWSGI refused to come up.
type Start struct {
	Unit    string
	Timeout time.Duration
	Why     string
}

func (SetSysctl) isAction() {}
func (Relisten) isAction()  {}
func (Reload) isAction()    {}
func (Start) isAction()     {}

func (a SetSysctl) String() string {
	if a.Space != (facts.Process{}) {
		return fmt.Sprintf("set %s from %d to %d in the namespace of %s", a.Key, a.From, a.To, a.Space)
	}
	s := fmt.Sprintf("set %s from %d to %d", a.Key, a.From, a.To)
	switch {
	case a.File == "":
		return s
	case a.Undo:
		return s + ", taken out of " + a.File
	}
	return s + ", kept in " + a.File
}

func (a Relisten) String() string {
	return fmt.Sprintf("listen again on %s of uWSGI %d: backlog from %d to %d", a.Socket.Name(), a.Socket.Master.PID, a.From, a.To)
}

func (a Reload) String() string {
	return fmt.Sprintf("reload uWSGI %d gracefully (%s)", a.Socket.Master.PID, a.How)
}

func (a Start) String() string { return "start " + a.Unit }

// Status is how an action ended.
type Status string

// The results of an action, as the audit trail writes them.
const (
	Planned Status = "planned" // dry run: it would have been done
	Started Status = "started" // about to be done
	Applied Status = "applied" // done and read back
	Skipped Status = "skipped" // nothing to do: the host already is so
	Stale   Status = "stale"   // the host is no longer as the plan saw it
	Failed  Status = "failed"
)

// Result is an Applier's answer. Was and Now are the values before and after
// as read back from the kernel, -1 where there is no number. Err is nil but
// for Stale and Failed.
type Result struct {
	Status   Status
	Was, Now int
	Err      error
	// Note says how it was done where that is not plain from the action
	// ("2 new workers after 1.2s").
	Note string
}

// Applier changes the host by one action.
type Applier interface {
	Apply(ctx context.Context, a Action) Result
}
