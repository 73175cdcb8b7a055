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
	Somaxconn int                 `json:"somaxconn"`
	Boot      BootReport          `json:"boot"`
	Sockets   []QueueReport       `json:"sockets"`
	Can       map[facts.Step]bool `json:"can"`
	// Problems are sentences, each with its cure, the worst first.
	Problems []string `json:"problems"`
	Unseen   []string `json:"unseen"`
}

// BootReport is what a reboot would set somaxconn to, and which file; no file
// means that the kernel's own default holds.
type BootReport struct {
	Somaxconn *int    `json:"somaxconn"`
	File      *string `json:"file"`
}

// QueueReport is one accept queue in a Report.
type QueueReport struct {
	Socket       string        `json:"socket"`
	Family       facts.Family  `json:"family"`
	PID          int           `json:"pid"`
	Unit         *string       `json:"unit"`
	Container    *string       `json:"container"`
	NetNS        uint64        `json:"netns"`
	Length       int           `json:"length"`
	Limit        int           `json:"limit"`
	Configured   *int          `json:"configured"`
	ConfiguredAt *string       `json:"configured_at"`
	Binds        diagnose.Bind `json:"binds"`
	Workers      int           `json:"workers"`
	State        diagnose.Kind `json:"state"`
	Reasons      []string      `json:"reasons"`
	Advice       []string      `json:"advice"`
}

// Steps are those that a Report tells of, in the order of a remediation.
func Steps() []facts.Step {
	return []facts.Step{facts.StepSysctl, facts.StepSysctlFile, facts.StepRelisten, facts.StepReload, facts.StepJournal}
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
		Somaxconn: f.Sysctl[somaxconn], Sockets: []QueueReport{}, Can: map[facts.Step]bool{},
		Problems: []string{}, Unseen: append([]string{}, f.Unseen...),
	}
	boot, set := f.Boot[somaxconn]
	if set {
		c.Boot = BootReport{&boot.Value, &boot.File}
	} else if f.DefaultSomaxconn > 0 {
		boot.Value = f.DefaultSomaxconn
		c.Boot.Somaxconn = &boot.Value
	}
	var full, risky []string
	for _, s := range f.Sockets {
		d := diagnoses[s.ID]
		c.Sockets = append(c.Sockets, QueueReport{
			Socket: s.Name(), Family: s.Family, PID: s.Master.PID, Unit: ptr(s.Master.Unit), Container: ptr(s.Master.Container),
			NetNS: s.ID.NetNS, Length: s.Length, Limit: s.Limit, Configured: ptr(s.Configured), ConfiguredAt: ptr(s.ConfiguredAt),
			Binds: d.Binds, Workers: len(s.Workers), State: d.Kind, Reasons: append([]string{}, d.Reasons...), Advice: append([]string{}, d.Advice...),
		})
		if d.Kind != diagnose.Idle && d.Kind != diagnose.FalseAlarm {
			full = append(full, fmt.Sprintf("the accept queue of %s is full, %d of %d (%s): %s", s.Name(), s.Length, s.Limit, d.Kind,
				slices.Concat(d.Advice, []string{"see qwatch plan"})[0]))
		}
		risky = append(risky, risks(s, boot.Value, p.SysctlFile)...)
	}
	c.Problems = append(append(c.Problems, full...), risky...)
	for _, loss := range BootLosses(p, f) {
		c.Problems = append(c.Problems, loss.String())
	}
	for _, step := range Steps() {
		why, cannot := f.Cannot[step]
		c.Can[step] = !cannot
		if cannot && p.Wants(step, journal) {
			c.Problems = append(c.Problems, fmt.Sprintf("qwatch cannot do %s here: %s", step, why))
		}
	}
	return c
}

// risks tells what a cold start of the socket's uWSGI, or a reboot, would
// bring. boot is somaxconn after a reboot, 0 if unknown.
func risks(s facts.Socket, boot int, file string) []string {
	var out []string
	if before := advice.BeforeRestart(s); before != "" {
		out = append(out, fmt.Sprintf("%s: %s", s.Master, before))
	} else if !s.OtherNetNS && boot > 0 && s.Configured > boot {
		out = append(out, fmt.Sprintf("after a reboot %s would not start: it is configured to listen = %d (%s), and somaxconn would be %d: %s",
			s.Master, s.Configured, s.ConfiguredAt, boot, advice.Somaxconn(s, s.Configured, file)[0]))
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
		if winner, ok := f.Boot[key]; ok && winner.Value < f.File[key] && winner.File != p.SysctlFile {
			losses = append(losses, BootLoss{key, f.File[key], p.SysctlFile, winner, f.WinningFile})
		}
	}
	return losses
}
