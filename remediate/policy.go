package remediate

import (
	"math"
	"math/bits"
	"time"
)

// Policy is what qwatch may do, as the configuration says.
type Policy struct {
	DryRun bool // only a label: plans and audit lines carry it

	// Corroborate: act only on what the kernel itself shows.
	Corroborate bool
	Factor      float64
	MinBacklog  int
	MaxBacklog  int
	Cooldown    time.Duration // between two raises of one socket
	GiveUpAfter int           // raises that did not end the incident
	Containers  bool          // change sockets of other network namespaces too
	Keep        bool          // give a restarted uWSGI the limit that it had
	// MaxWait bounds a raise under overload: no longer than this may the last
	// connection in the queue wait at the measured accept rate.
	MaxWait time.Duration

	Sysctl     bool
	SysctlFile string
	Also       map[string]int // companions of somaxconn: key and least value

	Relisten bool

	Reload         When
	ReloadHow      string
	ReloadTimeout  time.Duration
	ReloadCooldown time.Duration // between two reloads of one uWSGI
	ReloadsPerHour int           // on this host
}

// When says when a raise is followed by a reload.
type When string

// The values of policy.reload.when.
const (
	Needed When = "needed" // where the running socket cannot be raised in place
	Always When = "always"
	Never  When = "never"
)

// Target is the listen backlog to reach from limit: limit × factor rounded up
// to a power of two, at least MinBacklog, at most MaxBacklog. It may be at or
// below limit: then the ceiling is reached.
func (p Policy) Target(limit int) int {
	want := math.Ceil(float64(limit) * p.Factor)
	target := p.MaxBacklog
	if want < float64(p.MaxBacklog) {
		target = 1 << bits.Len(uint(max(want, 1)-1))
	}
	return min(max(target, p.MinBacklog), p.MaxBacklog)
}
