package remediate

import (
	"encoding/json"

	"qwatch/remediate/facts"
)

// Verdict is what Decide makes of an incident.
type Verdict string

// The verdicts of a plan.
const (
	Act     Verdict = "act"     // the actions should be taken now
	Wait    Verdict = "wait"    // not now: look again
	Refuse  Verdict = "refuse"  // not for this incident as things stand
	Nothing Verdict = "nothing" // there is nothing to do
)

// Code is a plan's reason in one word, for programs and for telling whether
// two plans say the same.
type Code string

// The codes of a plan.
const (
	codeFull           Code = "full"
	codeNotFull        Code = "not-full"
	CodeNotFound       Code = "not-found"
	codeUnseen         Code = "unseen"
	codeOtherNetNS     Code = "foreign"
	CodeUntrusted      Code = "untrusted"
	codeService        Code = "service"
	codeGarbage        Code = "garbage"
	CodeUncorroborated Code = "uncorroborated"
	CodeCooldown       Code = "cooldown"
	codeCeiling        Code = "ceiling"
	CodeGaveUp         Code = "gave-up"
	codeStall          Code = "stall"
	codeRespawn        Code = "respawn"
	CodePaused         Code = "paused"
	codeUnproven       Code = "unproven"
	codeMaxWait        Code = "max-wait"
	codePowerless      Code = "powerless"
	codeSteppedAside   Code = "stepped-aside"
	codeKept           Code = "kept"
	codeUndo           Code = "undo"
	codeStartRefused   Code = "start-refused"
)

// Plan is what should be done about one incident, and why. It is data: to
// show it and to do it are the same plan.
type Plan struct {
	ID       string // the incident's id and a number
	Incident string // the incident's id, "" for a plan that was asked for
	Name     string // the socket, as Socket.Name gives it
	DryRun   bool
	Verdict  Verdict
	Code     Code
	Reason   string
	Socket   facts.Socket // as the plan saw it; zero if it was not found
	Unit     string       // the systemd unit that the plan is about, if it is about one that is down
	Target   int          // the limit to reach, 0 if none
	Actions  []Action
	// Seen is the trail's newest event about the socket when the plan was
	// made, for History.Stale, and SeenReload that of a reload of its master.
	Seen, SeenReload string

	Advice []string // what an administrator should do, each a sentence
}

// actionJSON is the shape of one action in a plan, as users script against it.
type actionJSON struct {
	Action ActionKind `json:"action"`
	Target string     `json:"target"`
	From   *int       `json:"from"`
	To     *int       `json:"to"`
	Why    string     `json:"why"`
}

// MarshalJSON writes the plan as `qwatch plan --json` and the daemon's log
// show it.
func (p Plan) MarshalJSON() ([]byte, error) {
	out := struct {
		ID       *string      `json:"id"`
		Incident *string      `json:"incident"`
		Socket   *string      `json:"socket"`
		DryRun   bool         `json:"dry_run"`
		Verdict  Verdict      `json:"verdict"`
		Code     Code         `json:"code"`
		Reason   string       `json:"reason"`
		Length   *int         `json:"length"`
		Limit    *int         `json:"limit"`
		Target   *int         `json:"target"`
		Actions  []actionJSON `json:"actions"`
		Advice   []string     `json:"advice,omitempty"`
	}{
		ID: ptr(p.ID), Incident: ptr(p.Incident), Socket: ptr(p.Name), DryRun: p.DryRun,
		Verdict: p.Verdict, Code: p.Code, Reason: p.Reason, Target: ptr(p.Target),
		Actions: []actionJSON{}, Advice: p.Advice,
	}
	if p.Socket.ID != (facts.SocketID{}) {
		out.Length, out.Limit = &p.Socket.Length, &p.Socket.Limit
	}
	for _, a := range p.Actions {
		d := a.Describe()
		out.Actions = append(out.Actions, actionJSON{d.Kind, d.Target, d.From, d.To, d.Why})
	}
	return json.Marshal(out)
}

// ptr makes an absent value of a zero one: JSON shows null, never "".
func ptr[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}
