package remediate

import (
	"fmt"
	"math"
	"math/bits"
	"time"

	"qwatch/remediate/facts"
)

// Policy is what qwatch may do. Package config reads it; the ranges are those
// that it holds the file to.
type Policy struct {
	DryRun bool // only a label: plans and audit lines carry it
	// AssumeRights plans as a qwatch with all rights would: what only a missing
	// right keeps from being seen ends no plan, but is said in it.
	AssumeRights bool

	// Corroborate: act only on what the kernel itself shows.
	Corroborate bool
	Factor      float64 // target = limit × Factor; more than 1, at most 16
	// MinBacklog ≤ target ≤ MaxBacklog; both from 1 to 65535.
	MinBacklog, MaxBacklog int
	Cooldown               time.Duration // between two raises of one socket; 0 is none
	GiveUpAfter            int           // raises that did not end the incident; at least 1
	Containers             bool          // change sockets of other network namespaces too
	Keep                   bool          // give a restarted uWSGI the limit that it had
	// MaxWait bounds a raise under overload: no longer than this may the last
	// connection in the queue wait at the measured accept rate. More than 0.
	MaxWait time.Duration

	Sysctl     bool   // raise net.core.somaxconn and Also
	SysctlFile string // a .conf file right in /etc/sysctl.d or /run/sysctl.d
	// Also are the keys that are raised with somaxconn, dotted and below net.,
	// and their least values, from 1 to 2³¹-1.
	Also map[string]int

	Relisten bool // raise the running socket's limit in place

	Reload         When
	ReloadHow      How
	ReloadDeploy   bool          // also where it brings files that are younger than the uWSGI
	ReloadTimeout  time.Duration // more than 0
	ReloadCooldown time.Duration // between two reloads of one uWSGI; 0 is none
	ReloadsPerHour int           // on this host; 0 is none at all
}

// When says when a raise is followed by a reload.
type When string

// The values of policy.reload.when.
const (
	Needed When = "needed" // where a reload raises the limit, and nothing else does; with uWSGI until 2.0 nowhere
	Always When = "always"
	Never  When = "never"
)

// Method is a way to ask uWSGI for a graceful reload.
type Method string

// The methods of policy.reload.how.
const (
	MethodAuto    Method = "auto"    // chain where uWSGI can, else systemd where that reloads this master alone, else signal
	MethodSignal  Method = "signal"  // SIGHUP to the master
	MethodSystemd Method = "systemd" // reload of the unit
	MethodFIFO    Method = "fifo"    // uWSGI's master-fifo
	MethodTouch   Method = "touch"   // a file that uWSGI watches for a reload, as touch-reload
	MethodChain   Method = "chain"   // one worker after the other, by uWSGI's master-fifo
)

// How is a Method and, for MethodFIFO and MethodTouch alone, the absolute path
// that it needs.
type How struct {
	Method Method
	Path   string
}

// String writes h as the configuration has it: "signal", "fifo:/run/fifo".
func (h How) String() string {
	if h.Path == "" {
		return string(h.Method)
	}
	return string(h.Method) + ":" + h.Path
}

// Distrusts says why qwatch may not act on the socket's uWSGI, "" where it may.
// Where rights are assumed a plan goes on though one is missing to tell, and says
// so (unproven).
func (p Policy) Distrusts(s facts.Socket) string {
	why, refused := s.Untrusted.Get()
	switch unseen := s.Untrusted.Unseen(); {
	case refused:
		return "the uWSGI is none that qwatch acts on: " + why
	case unseen != "" && !p.AssumeRights:
		return "whether qwatch may act on the uWSGI could not be seen: " + unseen
	}
	return ""
}

// unproven is what a plan adds that assumes rights, of a socket that is not known
// to be one to act on.
func unproven(s facts.Socket) string {
	if why := s.Untrusted.Unseen(); why != "" {
		return "; not proven here, and needed to act: that qwatch may act on it (" + why + ")"
	}
	return ""
}

// target is the listen backlog to reach from limit: limit × factor rounded up
// to a power of two, at least MinBacklog, at most MaxBacklog. It may be at or
// below limit: then the ceiling is reached.
func (p Policy) target(limit int) int {
	target, _ := p.aim(limit)
	return target
}

// aim is target, and in a clause why it is that.
func (p Policy) aim(limit int) (target int, why string) {
	want := math.Ceil(float64(limit) * p.Factor)
	target, why = p.MaxBacklog, "policy.max_backlog"
	if want < float64(p.MaxBacklog) {
		target, why = 1<<bits.Len(uint(max(want, 1)-1)), fmt.Sprintf("%d × %v, rounded up to a power of two", limit, p.Factor)
	}
	if target < p.MinBacklog {
		target, why = p.MinBacklog, "policy.min_backlog"
	}
	if target > p.MaxBacklog {
		target, why = p.MaxBacklog, "policy.max_backlog"
	}
	return target, why
}
