package remediate

import (
	"cmp"
	"fmt"
	"time"

	"qwatch/remediate/facts"
)

// Judgement is what the kernel shows after a plan was carried out.
type Judgement struct {
	Result Result // Fixed, NoEffect or Worse; "" where nothing proves one of them
	Limit  int    // the socket's limit now, 0 if it is gone
	// Slope is by how many connections a second the queue grows, nil where that
	// is not known.
	Slope *float64
	Why   string
}

// judged reports whether there is something to judge the plan by; an undo has no
// socket of its own.
func (p Plan) judged() bool { return p.Unit != "" || p.Socket.ID != (facts.SocketID{}) }

// judge compares a plan with what the host shows after it. e is the evidence
// since the last action. served is what was seen of a reload that was asked for,
// nil where none was: an app that answers with an error at once has the emptiest
// queue of all.
func judge(p Plan, after facts.Snapshot, e facts.Evidence, served *facts.Served) Judgement {
	if p.Unit != "" {
		for _, s := range after.Sockets {
			if s.Master.Unit.Value == p.Unit {
				return Judgement{Fixed, s.Limit, nil, fmt.Sprintf("%s runs and listens on %s with %d", p.Unit, s.Name(), s.Limit)}
			}
		}
		if after.HiddenOwners != "" {
			return Judgement{NoEffect, 0, nil, fmt.Sprintf("%s is not seen to listen yet, but not every uWSGI could be looked into: %s", p.Unit, after.HiddenOwners)}
		}
		return Judgement{NoEffect, 0, nil, p.Unit + " does not listen yet"}
	}
	s, ok := p.successor(after)
	switch {
	case !ok && after.HiddenOwners != "":
		return Judgement{Worse, 0, nil, fmt.Sprintf("no uWSGI that qwatch may see listens on %s any more, and not all of them could be looked into: %s", p.Name, after.HiddenOwners)}
	case !ok:
		return Judgement{Worse, 0, nil, fmt.Sprintf("no uWSGI listens on %s any more%s", p.Name, because(served))}
	case s.ID != p.Socket.ID && s.Limit < p.Target:
		return Judgement{Worse, s.Limit, nil, fmt.Sprintf("the socket that was raised is gone, and uWSGI has bound %s anew, with %d%s", s.Name(), s.Limit, because(served))}
	case worse(served) != "":
		return Judgement{Worse, s.Limit, nil, "after the reload people are not served as before: " + worse(served)}
	case s.Limit < p.Socket.Limit:
		return Judgement{Worse, s.Limit, nil, fmt.Sprintf("the limit fell from %d to %d", p.Socket.Limit, s.Limit)}
	case s.Limit == p.Socket.Limit:
		return Judgement{NoEffect, s.Limit, nil, fmt.Sprintf("the running socket's limit still is %d", s.Limit)}
	case s.Limit < p.Target:
		return Judgement{NoEffect, s.Limit, nil, fmt.Sprintf("the running socket's limit is %d and should be %d", s.Limit, p.Target)}
	}
	var f facts.Fault
	if served != nil {
		f, _ = served.Verdict()
	}
	if f.Why != "" && !f.Unproven {
		return Judgement{NoEffect, s.Limit, nil, fmt.Sprintf("the limit is %d now, was %d, but the reload was none that is known to serve people: %s", s.Limit, p.Socket.Limit, f.Why)}
	}
	if e.Corroborates() {
		return Judgement{NoEffect, s.Limit, nil, fmt.Sprintf("the limit is %d now, yet the queue is full again: %s", s.Limit, e)}
	}
	if f.Unproven {
		return Judgement{"", s.Limit, nil, fmt.Sprintf("the limit is %d now, was %d; whether it is fixed the reload does not show, and nothing says that it is worse: %s", s.Limit, p.Socket.Limit, f.Why)}
	}
	j := Judgement{Fixed, s.Limit, nil, fmt.Sprintf("the limit is %d now, was %d; %s", s.Limit, p.Socket.Limit, e)}
	if served != nil {
		j.Why += "; reloaded, and " + served.People()
	}
	return j
}

// worse is why a reload has made it worse, "" where it has not.
func worse(served *facts.Served) string {
	if served != nil {
		if f, bad := served.Verdict(); bad && f.Worse {
			return f.Why
		}
	}
	return ""
}

// because is what a reload says of why something is gone.
func because(served *facts.Served) string {
	if served != nil {
		if f, bad := served.Verdict(); bad && !f.Unproven {
			return ": " + f.Why
		}
	}
	return ""
}

// successor is the socket that the plan raised, as it is now. In http mode a
// reload binds uWSGI's backend socket anew, and its port changes: then it is the one
// of the master's that was seen last for the first time, and after that which was
// raised, at which an application answers.
func (p Plan) successor(now facts.Snapshot) (s facts.Socket, ok bool) {
	if s, ok = now.Find(p.Socket.ID); ok {
		return s, true
	}
	for _, o := range now.Sockets {
		if o.Serves() == "" && o.Master.Same(p.Socket.Master) && o.Family == p.Socket.Family && o.First.After(p.Socket.First) && (!ok || o.First.After(s.First)) {
			s, ok = o, true
		}
	}
	return s, ok
}

// EventOfJudgement is the audit line for a judgement.
func EventOfJudgement(p Plan, j Judgement, at time.Time) Event {
	return Event{
		Time: at.UTC(), Plan: p.ID, Incident: p.Incident, Socket: p.Name,
		PID: p.Socket.Master.PID, Start: p.Socket.Master.Start, Unit: cmp.Or(p.Socket.Master.Unit.Value, p.Unit), Inode: p.Socket.ID.Inode, NetNS: p.Socket.ID.NetNS,
		Action: actionJudge, Target: p.Name, From: &p.Socket.Limit, To: &j.Limit,
		DryRun: p.DryRun, Result: j.Result, Slope: j.Slope, Why: j.Why,
	}
}
