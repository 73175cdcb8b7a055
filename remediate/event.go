package remediate

import (
	"context"
	"math"
	"time"

	"qwatch/remediate/facts"
)

// Event is one line of the audit trail.
type Event struct {
	Time     time.Time  `json:"time"`
	Plan     string     `json:"plan"`
	Incident string     `json:"incident,omitempty"`
	Socket   string     `json:"socket,omitempty"`
	PID      int        `json:"pid,omitempty"`   // the uWSGI master
	Start    uint64     `json:"start,omitempty"` // and when it started, as Process.Start
	Unit     string     `json:"unit,omitempty"`  // its systemd unit
	Inode    uint64     `json:"inode,omitempty"` // the socket
	NetNS    uint64     `json:"netns,omitempty"` // and its network namespace
	Action   ActionKind `json:"action"`
	Target   string     `json:"target"`
	From     *int       `json:"from"`
	To       *int       `json:"to"`              // as planned; of a judge the socket's limit
	Now      *int       `json:"now,omitempty"`   // as read back from the kernel
	Slope    *float64   `json:"slope,omitempty"` // of a judge, as Judgement.Slope
	ReloadEvent
	DryRun bool   `json:"dry_run"`
	Result Result `json:"result"`
	Error  string `json:"error,omitempty"`
	Why    string `json:"why"`
}

// ReloadEvent is what the line of a reload has beside the others: the way taken,
// and what the reload did.
type ReloadEvent struct {
	Way           string   `json:"way,omitempty"`
	WorkersBefore *int     `json:"workers_before,omitempty"`
	WorkersAfter  *int     `json:"workers_after,omitempty"`
	Unserved      *float64 `json:"unserved_seconds,omitempty"` // for how long nobody was accepted
	Cut           *int     `json:"cut,omitempty"`              // requests that were cut off, at least
	// Late marks a second word about a reload: it ended after nobody waited for
	// it any more.
	Late bool `json:"late,omitempty"`
}

// reloadEvent is what an outcome tells of a reload.
func reloadEvent(r Reload, o Outcome) (e ReloadEvent) {
	e.Way = r.Way.String()
	if o.Served != nil {
		gap, cut := math.Round(10*o.Served.Intake.Unserved.Seconds())/10, o.Served.Cut()
		e.WorkersBefore, e.WorkersAfter, e.Unserved, e.Cut = &o.Served.Before, &o.Served.After, &gap, &cut
	}
	return e
}

// eventOf is the audit line for an action of a plan.
func eventOf(p Plan, a Action, at time.Time, o Outcome) Event {
	d, socket := a.Describe(), p.Socket
	if r, ok := a.(Relisten); ok {
		socket = r.Socket // an undo is about several
	}
	e := Event{
		Time: at.UTC(), Plan: p.ID, Incident: p.Incident, Socket: p.Name,
		PID: socket.Master.PID, Start: socket.Master.Start, Unit: socket.Master.Unit.Value, Inode: socket.ID.Inode, NetNS: socket.ID.NetNS,
		Action: d.Kind, Target: d.Target, From: d.From, To: d.To, DryRun: p.DryRun,
		Result: o.Result, Why: d.Why,
	}
	if r, ok := a.(Reload); ok {
		e.ReloadEvent = reloadEvent(r, o)
	}
	if o.Now >= 0 {
		e.Now = &o.Now
	}
	if o.Err != nil {
		e.Error = o.Err.Error()
	}
	return e
}

// about reports whether the event is about this socket, as far as it tells: an
// inode alone, or a name, may be another's by now.
func (e Event) about(s facts.Socket) bool {
	return e.Inode == s.ID.Inode && (e.NetNS == 0 || e.NetNS == s.ID.NetNS) && (e.PID == 0 || e.by(s.Master))
}

// Recorder takes down what is done. The events are kept for good, all of them,
// when Append returns without an error.
type Recorder interface {
	Append(...Event) error
}

// Trail is the audit trail of a host, which several qwatch processes share.
type Trail interface {
	Recorder
	// History returns the newest events, the oldest first.
	History() (History, error)
	// Lock keeps everybody else from a pass of raises until unlock is called.
	// It waits for them until ctx ends.
	Lock(ctx context.Context) (unlock func(), err error)
	// Hold is Lock for one uWSGI or unit, which what names: who reloads one
	// keeps nobody from another.
	Hold(ctx context.Context, what string) (unlock func(), err error)
}
