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
	// Describe puts the action into the words of the audit trail.
	Describe() Description
}

// SetSysctl sets a kernel parameter of a network namespace: first its line in
// the sysctl.d file, then the live value.
type SetSysctl struct {
	Key      string
	From, To int // the live value
	// NetNSOf is a process in the network namespace, zero for qwatch's own.
	NetNSOf facts.Process
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

// Reload asks a uWSGI master for a reload. It is done when a new generation of
// workers serves people, as facts.Served has it.
type Reload struct {
	Socket  facts.Socket
	Way     Way
	Deploy  bool // also where it brings files that are younger than the uWSGI
	Timeout time.Duration
	Why     string
}

// Start starts a systemd unit whose uWSGI refused to come up.
type Start struct {
	Unit    string
	Timeout time.Duration
	Why     string
}

func (a SetSysctl) String() string {
	if a.NetNSOf != (facts.Process{}) {
		return fmt.Sprintf("set %s from %d to %d in the namespace of %s", a.Key, a.From, a.To, a.NetNSOf)
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
	return fmt.Sprintf("reload uWSGI %d (%s)", a.Socket.Master.PID, a.Way)
}

func (a Start) String() string { return "start " + a.Unit }

// ActionKind is an action in one word, as plans and the audit trail write it.
type ActionKind string

// The kinds of actions. A judge changes nothing: its event says what became of
// the others.
const (
	actionSysctl   ActionKind = "sysctl"
	actionRelisten ActionKind = "relisten"
	actionReload   ActionKind = "reload"
	actionStart    ActionKind = "start"
	actionJudge    ActionKind = "judge"
)

// Description is an action in the words of the audit trail.
type Description struct {
	Kind     ActionKind
	Target   string // the key, the socket, the master or the unit
	From, To *int   // nil where the action has no numbers
	Why      string
}

// Describe implements Action. A key of another namespace is not to be taken for
// qwatch's own in the trail.
func (a SetSysctl) Describe() Description {
	target := a.Key
	if a.NetNSOf.PID != 0 {
		target += " of " + a.NetNSOf.String()
	}
	return Description{actionSysctl, target, &a.From, &a.To, a.Why}
}

// Describe implements Action.
func (a Relisten) Describe() Description {
	return Description{actionRelisten, a.Socket.Name(), &a.From, &a.To, a.Why}
}

// Describe implements Action.
func (a Reload) Describe() Description {
	return Description{actionReload, a.Socket.Master.String(), nil, nil, a.Why}
}

// Describe implements Action.
func (a Start) Describe() Description { return Description{actionStart, a.Unit, nil, nil, a.Why} }

// Result is how an action ended, or what a judge says of a plan.
type Result string

// The results of an action, as the audit trail writes them.
const (
	Planned Result = "planned" // dry run: it would have been done
	Started Result = "started" // about to be done
	Applied Result = "applied" // done and read back
	Skipped Result = "skipped" // nothing to do: the host already is so
	Stale   Result = "stale"   // the host is no longer as the plan saw it
	Failed  Result = "failed"
)

// The results of a plan that changed the host, as its judge writes them.
const (
	Fixed    Result = "fixed"     // the limit is raised and the queue no longer full
	NoEffect Result = "no-effect" // it is still full, or its limit is as it was
	Worse    Result = "worse"     // the socket or its master is gone, or its limit lower
)

// Outcome is one action and how it ended. An Applier need not fill in Action.
type Outcome struct {
	Action Action
	Result Result
	// Now is the value as the kernel shows it afterwards, -1 where the action
	// has no number or the value is not known.
	Now int
	Err error // why it is Stale, Failed or not recorded; nil for the rest
	// Note says how it was done where that is not plain from the action
	// ("2 new workers after 1.2s").
	Note string
	// Served is what was seen of a reload that was asked for, nil for all else.
	Served *facts.Served
	// Late, where it is not nil, goes on waiting for what was not done in time,
	// until ctx ends at the latest. It is called once, or never.
	Late func(ctx context.Context) Outcome
}

// Applier changes the host by one action.
type Applier interface {
	Apply(ctx context.Context, a Action) Outcome
}
