package remediate

import (
	"fmt"
	"maps"
	"slices"

	"qwatch/remediate/advice"
	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

// Report is what `qwatch doctor` shows: what binds each queue, what a cold
// start and a reboot would give, what qwatch may do here, and what is wrong.
type Report struct {
	Somaxconn *int                `json:"somaxconn"`
	Boot      BootReport          `json:"boot"`
	Sockets   []QueueReport       `json:"sockets"`
	Can       map[facts.Step]bool `json:"can"`
	// Problems are sentences, each with its cure, the worst first.
	Problems []string `json:"problems"`
	Unseen   []string `json:"unseen"`
	// HiddenOwners is Snapshot.HiddenOwners.
	HiddenOwners string `json:"-"`
}

// BootReport is what a reboot would set somaxconn to, and which file; no file
// means that the kernel's own default holds. What could not be seen is null, and
// Unseen says why.
type BootReport struct {
	Somaxconn *int    `json:"somaxconn"`
	File      *string `json:"file"`
	Unseen    string  `json:"unseen,omitempty"`
}

// QueueReport is one accept queue in a Report.
type QueueReport struct {
	Socket    string       `json:"socket"`
	Family    facts.Family `json:"family"`
	PID       int          `json:"pid"`
	Unit      *string      `json:"unit"`
	Container *string      `json:"container"`
	// Trusted says whether qwatch acts on it, null where that was not seen; of a
	// container policy.containers decides.
	Trusted      *bool         `json:"trusted"`
	NetNS        uint64        `json:"netns"`
	Length       int           `json:"length"`
	Limit        int           `json:"limit"`
	Drops        *uint32       `json:"drops"`     // the kernel's count, null where it has none
	Overflows    *uint64       `json:"overflows"` // of them, null where they cannot be told apart
	Configured   *int          `json:"configured"`
	ConfiguredAt *string       `json:"configured_at"`
	Binds        diagnose.Bind `json:"binds"`
	Workers      int           `json:"workers"`
	State        diagnose.Kind `json:"state"`
	Reasons      []string      `json:"reasons"`
	Advice       []string      `json:"advice"`
	// Known has a key for each fact that there is, null where it could not be
	// seen, and Unseen says why for those. What is seen not to be is missing.
	Known  map[string]any    `json:"known"`
	Unseen map[string]string `json:"unseen"`
}

// know adds a fact; show is what stands for its value.
func know[T any](q *QueueReport, name string, f facts.Fact[T], show func(T) any) {
	if v, ok := f.Get(); ok {
		q.Known[name] = show(v)
	} else if why := f.Unseen(); why != "" {
		q.Known[name], q.Unseen[name] = nil, why
	}
}

func itself[T any](v T) any { return v }

// report is what the report of a host says of one socket.
func (p Policy) report(s facts.Socket, d diagnose.Diagnosis) QueueReport {
	q := QueueReport{
		Socket: s.Name(), Family: s.Family, PID: s.Master.PID, Unit: ptr(s.Master.Unit.Value), Container: ptr(s.Master.Container),
		Trusted: p.trusted(s), NetNS: s.ID.NetNS, Length: s.Length, Limit: s.Limit, Drops: known(s.Refused.Drops), Overflows: known(s.Refused.Overflows), Binds: d.Binds, Workers: len(s.Workers), State: d.Kind,
		Reasons: append([]string{}, d.Reasons...), Advice: append(append([]string{}, d.Advice...), slices.Concat(p.distance(s), p.bring(s))...),
		Known: map[string]any{}, Unseen: map[string]string{},
	}
	if listen, ok := s.Config.Listen.Get(); ok {
		q.Configured, q.ConfiguredAt = &listen.Listen, &listen.At
	}
	know(&q, "configured", s.Config.Listen, func(v facts.Setting) any { return v.Listen })
	know(&q, "reload_ends", s.Config.ReloadEnds, itself)
	know(&q, "socket_unit", s.Unit, func(v facts.SocketUnit) any { return v.Name })
	if unit, ok := s.Unit.Get(); ok {
		know(&q, "backlog", unit.Backlog, itself)
	}
	know(&q, "drops", s.Refused.Drops, itself)
	know(&q, "overflows", s.Refused.Overflows, itself)
	know(&q, "unit", s.Master.Unit, itself)
	know(&q, "uid", s.Master.UID, itself)
	if why := s.Untrusted.Unseen(); why != "" {
		q.Unseen["trusted"] = why
	}
	know(&q, "somaxconn", s.Somaxconn, itself)
	return q
}

// Wants reports whether the policy makes use of a step. journal says whether a
// journal is to be followed.
func (p Policy) Wants(s facts.Step, journal bool) bool {
	switch s {
	case facts.StepSysctl, facts.StepSysctlFile:
		return p.Sysctl
	case facts.StepRelisten:
		return p.Relisten
	case facts.StepReload:
		return p.Reload != Never
	case facts.StepContainers:
		return p.Containers
	}
	return journal
}

// MakeReport makes the report of a host from its facts and the diagnosis of each
// of its sockets. journal says whether a journal is to be followed.
func MakeReport(p Policy, f facts.Snapshot, diagnoses map[facts.SocketID]diagnose.Diagnosis, journal bool) Report {
	c := Report{
		Sockets: []QueueReport{}, Can: map[facts.Step]bool{},
		Problems: []string{}, Unseen: append([]string{}, f.Unseen...), HiddenOwners: f.HiddenOwners,
	}
	if live, seen := f.Sysctl[somaxconn]; seen {
		c.Somaxconn = &live
	}
	boot := f.SomaxconnAtBoot()
	if v, ok := boot.Get(); ok {
		c.Boot = BootReport{Somaxconn: &v.Value, File: ptr(v.File)}
	} else {
		c.Boot.Unseen = boot.Unseen()
	}
	var full, risky []string
	for _, s := range f.Sockets {
		d := diagnoses[s.ID]
		c.Sockets = append(c.Sockets, p.report(s, d))
		if d.Kind != diagnose.Idle && d.Kind != diagnose.FalseAlarm {
			full = append(full, fmt.Sprintf("the accept queue of %s is full, %d of %d (%s): %s", s.Name(), s.Length, s.Limit, d.Kind,
				slices.Concat(d.Advice, []string{"see qwatch plan"})[0]))
		}
		risky = append(risky, risks(s, boot, p.SysctlFile)...)
	}
	c.Problems = append(append(c.Problems, full...), risky...)
	for _, loss := range BootLosses(p, f) {
		c.Problems = append(c.Problems, loss.String())
	}
	for _, step := range facts.Steps() {
		why := f.WhyNot(step)
		c.Can[step] = why == ""
		if why != "" && p.Wants(step, journal) {
			c.Problems = append(c.Problems, fmt.Sprintf("qwatch cannot do %s here: %s", step, why))
		}
	}
	return c
}

// trusted is QueueReport.Trusted.
func (p Policy) trusted(s facts.Socket) *bool {
	if s.Untrusted.State == facts.StateUnknown {
		return nil
	}
	trusted := s.Untrusted.IsAbsent() && (p.Containers || !s.Foreign())
	return &trusted
}

// distance says why qwatch does not act on a socket, and how it would.
func (p Policy) distance(s facts.Socket) []string {
	switch why, refused := s.Untrusted.Get(); {
	case refused:
		return []string{"qwatch only shows this one: " + why}
	case s.Foreign() && !p.Containers:
		return []string{"qwatch only shows this one: policy.containers is off"}
	}
	return nil
}

// bring says why a raise of the socket would go without a reload, for what that
// would bring.
func (p Policy) bring(s facts.Socket) []string {
	if p.Reload != Always || !s.Untrusted.IsAbsent() {
		return nil
	}
	way, _ := p.way(s)
	why := s.WhyNoDeploy(p.ReloadDeploy, !way.Wholly(s))
	if why == "" {
		return nil
	}
	return []string{"qwatch would not reload this one: " + why}
}

// known is a fact as JSON has it.
func known[T any](f facts.Fact[T]) *T {
	if v, ok := f.Get(); ok {
		return &v
	}
	return nil
}

// risks tells what a cold start of the socket's uWSGI, or a reboot, would
// bring.
func risks(s facts.Socket, boot facts.Fact[facts.BootValue], file string) []string {
	var out []string
	listen, known := s.Config.Listen.Get()
	if before := advice.BeforeRestart(s); before != "" {
		out = append(out, fmt.Sprintf("%s: %s", s.Master, before))
	} else if known && !s.OtherNetNS && boot.State == facts.StateKnown && listen.Listen > boot.Value.Value {
		out = append(out, fmt.Sprintf("after a reboot %s would not start: it is configured to listen = %d (%s), and somaxconn would be %d: %s",
			s.Master, listen.Listen, listen.At, boot.Value.Value, advice.Somaxconn(s, listen.Listen, file)[0]))
	}
	for _, how := range advice.KeepLimit(s) {
		out = append(out, fmt.Sprintf("the limit %d of %s holds until the next restart only: %s", s.Limit, s.Name(), how))
	}
	return out
}

// BootLoss is a setting in qwatch's own sysctl.d file that the next boot would
// not bring: another file is read later and sets less.
type BootLoss struct {
	Key    string
	Ours   int
	File   string // qwatch's
	Winner facts.BootValue
	Better string // a name for qwatch's file that would win
}

func (l BootLoss) String() string {
	return fmt.Sprintf("a reboot would set %s to %d, not to %d: %s:%d is read after %s; change that line, or set policy.sysctl.file = %q",
		l.Key, l.Winner.Value, l.Ours, l.Winner.File, l.Winner.Line, l.File, l.Better)
}

// BootLosses returns the settings of qwatch's file that would lose at the next
// boot, by key.
func BootLosses(p Policy, f facts.Snapshot) []BootLoss {
	var losses []BootLoss
	for _, key := range slices.Sorted(maps.Keys(f.File)) {
		if winner, ok := f.Boot[key].Get(); ok && winner.Value < f.File[key] && winner.File != p.SysctlFile {
			losses = append(losses, BootLoss{key, f.File[key], p.SysctlFile, winner, f.WinningFile})
		}
	}
	return losses
}
