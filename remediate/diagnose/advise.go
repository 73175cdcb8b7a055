package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/advice"
)

// advice is what an administrator should do, the most pressing first.
func (m measured) advice(d Diagnosis) []string {
	urgent := m.urgent()
	switch d.Kind {
	case FalseAlarm:
		return append(urgent, "nothing is wrong with the queue: uWSGI reads such numbers where it runs emulated (an amd64 image on ARM): run an image for this CPU")
	case Idle:
		return append(urgent, m.persist()...)
	case Stall:
		return append(urgent, m.unstick()...)
	case Respawn:
		return append(urgent, m.awaitWorkers()...)
	}
	return append(urgent, m.relieve(d)...)
}

// urgent is what to do whatever the state of the queue.
func (m measured) urgent() (list []string) {
	s := m.socket
	for _, mark := range m.Marks {
		if mark.Kind == matcher.MarkNoStart {
			list = append(list, fmt.Sprintf("a uWSGI refused to start, its listen being over somaxconn (%d): raise somaxconn first or lower listen", mark.Limit))
			break
		}
	}
	if s.Somaxconn > 0 && s.Configured > s.Somaxconn && s.SocketUnit == "" { // core/socket.c:127
		list = append(list, fmt.Sprintf("raise somaxconn to %d before any restart: with %d and listen = %d uWSGI refuses to start", s.Configured, s.Somaxconn, s.Configured))
	}
	if m.marked(matcher.MarkTooFast, time.Minute) {
		list = append(list, "find out why workers die as soon as they start: uWSGI's log says so above \"respawning too fast\"")
	} else if m.marked(matcher.MarkDied, time.Minute) {
		list = append(list, "find out what kills the workers: signal 9 is most often the kernel for want of memory (journalctl -k -g 'Out of memory')")
	}
	return list
}

// unstick is what to do about workers that are stuck.
func (m measured) unstick() (list []string) {
	var stopped []string
	for _, w := range m.socket.Workers {
		if w.Stopped() {
			stopped = append(stopped, fmt.Sprint(w.PID))
		}
	}
	if len(stopped) > 0 {
		return []string{"let the stopped workers go on: kill -CONT " + strings.Join(stopped, " ")}
	}
	if count(m.socket.Workers, waitsOnSharedLock) > 0 || m.marked(matcher.MarkDeadlock, time.Minute) {
		list = append(list, "set thunder-lock-watchdog = true in uWSGI's configuration, or leave thunder-lock out: the lock outlived a worker that died with it")
	}
	how := "uWSGI"
	switch master := m.socket.Master; {
	case master.Container != "":
		how = "the container " + master.Container
	case master.Unit != "":
		how += ": systemctl restart " + master.Unit
	}
	return append(list,
		fmt.Sprintf("restart %s (a graceful reload would wait for the stuck workers)", how),
		advice.Harakiri(m.socket),
		"a longer queue would only let more clients wait for nothing")
}

// awaitWorkers is what to do while workers start.
func (m measured) awaitWorkers() []string {
	list := []string{"wait until the workers are up, then the queue drains by itself"}
	if m.Now.At.Sub(m.Now.startOf(m.socket.Master)) >= young {
		list = append(list, "replace workers one at a time: touch-chain-reload with lazy-apps = true, and no thunder-lock beside it")
	}
	return append(list, m.persist()...)
}

// relieve is what to do about a queue that fills, by a burst or for good.
func (m measured) relieve(d Diagnosis) (list []string) {
	if bound := d.MaxTarget > 0 && d.MaxTarget <= m.socket.Limit; !d.AtCeiling && !bound {
		target := m.Bounds.Target
		if d.MaxTarget > 0 {
			target = min(target, d.MaxTarget)
		}
		list = append(list, m.lengthen(target)...)
	}
	if d.AcceptRate < 0 && m.pile >= overloadProof {
		list = append(list, "add `stats = 127.0.0.1:9191` to uWSGI's configuration and to a [[source]] of qwatch's: what the workers take cannot be measured otherwise")
	}
	if d.Kind == Overload || d.AtCeiling {
		list = append(list, advice.BuysSeconds, m.moreWorkers())
		if share, ok := m.short.cpu(); ok && share >= 0.5 {
			list = append(list, "the workers compute: more of them help only as far as CPUs are idle")
		} else {
			list = append(list, advice.Harakiri(m.socket))
		}
	}
	if m.marked(matcher.MarkHarakiri, time.Minute) {
		list = append(list, "look at the requests that harakiri ends: each has held a worker for all that time")
	}
	if d.AtCeiling {
		list = append(list, m.persist()...)
	}
	return list
}

// moreWorkers says how many workers would do, as far as the numbers tell.
func (m measured) moreWorkers() string {
	n := len(m.socket.Workers)
	if m.rate <= 0 || m.dropped == 0 || n == 0 {
		return advice.MoreWorkers(n)
	}
	// A client that is turned away comes again (TCP's SYN retransmission), so
	// this is the most that it may take.
	need := max(n+1, int(math.Ceil(float64(n)*(m.rate+m.dropped)/m.rate)))
	beside := fmt.Sprintf("%s connections a second were turned away beside the %s taken, retries counted", number(m.dropped), number(m.rate))
	if need > 8*n {
		return fmt.Sprintf("more workers (processes) than its %d are not enough by far: %s", n, beside)
	}
	return fmt.Sprintf("up to %d workers (processes) instead of %d: %s", need, n, beside)
}

// persist says what keeps the limit over a restart, if nothing does.
func (m measured) persist() []string {
	if s := m.socket; s.Configured > 0 && s.Configured < s.Limit && s.SocketUnit == "" {
		return []string{fmt.Sprintf("%s, or a restart brings %d back", advice.SetListen(s, s.Limit), s.Configured)}
	}
	return nil
}

// lengthen says how to give the socket this limit for good.
func (m measured) lengthen(target int) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	s := m.socket
	if s.Somaxconn > 0 && s.Somaxconn < target {
		target := max(target, s.Configured)
		switch {
		case s.OtherNetNS && s.Master.Container != "":
			say("give the container %s its own somaxconn, the host's does not reach it: compose `sysctls: [net.core.somaxconn=%d]` or `docker run --sysctl net.core.somaxconn=%d`",
				s.Master.Container, target, target)
			say("on Kubernetes set it in the pod's securityContext.sysctls, which the kubelet must allow (--allowed-unsafe-sysctls=net.core.somaxconn)")
		case s.OtherNetNS:
			say("raise somaxconn in its network namespace, the host's does not reach it: nsenter -t %d -n sysctl -w net.core.somaxconn=%d", s.Master.PID, target)
		default:
			say("set net.core.somaxconn = %d in %s", target, cmp.Or(m.Bounds.SysctlFile, "/etc/sysctl.d/90-qwatch.conf"))
		}
	}
	switch {
	case s.SocketUnit != "":
		say("set Backlog=%d under [Socket] by `systemctl edit %s`, at least as much as somaxconn shall give: uWSGI's listen has no say", target, s.SocketUnit)
	case s.Configured < target || s.Configured == 0:
		say("%s, so that it outlasts a restart", advice.SetListen(s, target))
	case s.Limit < s.Configured:
		say("restart uWSGI to get the listen = %d that it is configured to: a reload does not do it, and before 2.0.18 `socket = :0` ignored it", s.Configured)
	}
	return list
}
