// Package advice holds the sentences that tell an administrator what to do, a
// function each: what they say, and in the syntax of which file, is written here
// alone. They begin small and have no full stop, so that they can follow others.
package advice

import (
	"cmp"
	"fmt"
	"path"
	"strconv"
	"strings"

	"qwatch/remediate/facts"
)

// BuysSeconds says what a longer queue is good for.
const BuysSeconds = "a longer queue buys seconds, not capacity"

// MoreWorkers says what helps where a longer queue does not, to a uWSGI with so
// many workers.
func MoreWorkers(workers int) string {
	return fmt.Sprintf("give uWSGI more workers (processes) than its %d, or make the requests shorter", workers)
}

// Capacity is what is left to do for a socket for which a longer queue is no
// cure.
func Capacity(s facts.Socket) []string {
	return append([]string{BuysSeconds, MoreWorkers(len(s.Workers)), Harakiri(s)}, KeepLimit(s)...)
}

// KeepLimit says how the limit that the socket has outlasts a restart, if it
// does not.
func KeepLimit(s facts.Socket) []string {
	if next, known := s.AfterRestart().Get(); known && next < s.Limit {
		return []string{Persist(s, s.Limit)}
	}
	return nil
}

// Harakiri says how workers that are stuck end by themselves.
func Harakiri(s facts.Socket) string {
	return set(s, "harakiri", "30") + ", so that a worker is replaced when a request holds it for 30 seconds"
}

// ThunderLock says what keeps the lock that uWSGI's workers share from being
// held by a dead one.
func ThunderLock(s facts.Socket) string {
	return set(s, "thunder-lock-watchdog", "true") + ", or leave thunder-lock out: the lock outlived a worker that died with it"
}

// LazyApps says how a reload leaves some workers at work.
func LazyApps(s facts.Socket) string {
	return "replace workers one at a time: " + set(s, "lazy-apps", "true") + ", without thunder-lock, and reload by touch-chain-reload"
}

// StatsServer says how qwatch learns what the workers take.
func StatsServer(s facts.Socket) string {
	const address = "127.0.0.1:9191"
	return fmt.Sprintf("%s, and `stats = %q` in a [[source]] of qwatch's: what the workers take cannot be measured otherwise", set(s, "stats", address), address)
}

// Sight says how qwatch sees whether an app is loaded after a reload.
func Sight(s facts.Socket) string {
	const address = "127.0.0.1:9191"
	return fmt.Sprintf("let uWSGI log where qwatch may read it (%s, or the journal), or %s and `stats = %q` in a [[source]] of qwatch's: without, no reload can be seen to serve people",
		set(s, "logto", "/var/log/uwsgi/app.log"), set(s, "stats", address), address)
}

// SetListen says how uWSGI is given this listen.
func SetListen(s facts.Socket, listen int) string {
	n := strconv.Itoa(listen)
	now, known := s.Config.Listen.Get()
	if !known || now.At == "default" {
		return set(s, "listen", n)
	}
	return fmt.Sprintf("%s (now %d)", setAt(now.At, "listen", n), now.Listen)
}

// Persist says how the socket comes up with this limit the next time.
func Persist(s facts.Socket, limit int) string {
	how, restart := setEither(s, limit), "a restart"
	if unit, ok := s.Unit.Get(); ok {
		how, restart = setBacklog(unit, limit), "a restart of that unit" // one of the service changes nothing
	}
	if next, known := s.AfterRestart().Get(); known && next < s.Limit {
		return fmt.Sprintf("%s, or %s brings %d back", how, restart, next)
	}
	return how + ", so that it outlasts " + restart
}

// Restart says how a socket gets this limit that it cannot get while it runs.
func Restart(s facts.Socket, limit int) string {
	unit, isUnits := s.Unit.Get()
	switch next := s.AfterRestart(); {
	case isUnits && next.Value >= limit:
		return fmt.Sprintf("restart %s with its service to get the Backlog=%d that it has: a running socket keeps its limit", unit.Name, next.Value)
	case isUnits:
		return setBacklog(unit, limit) + " and restart that unit with its service: a running socket keeps its limit"
	case next.Value >= limit:
		return fmt.Sprintf("restart uWSGI to get the listen = %d that it is configured to: a reload does not do it, and before 2.0.18 `socket = :0` ignored it", next.Value)
	}
	how := setEither(s, limit)
	switch {
	case strings.HasPrefix(how, "start "):
	case s.Unit.Unseen() != "":
		how += ", and restart uWSGI"
	default:
		how += " and restart uWSGI"
	}
	return how + ": a running socket keeps its limit, also over most reloads"
}

func setBacklog(unit facts.SocketUnit, limit int) string {
	return fmt.Sprintf("set Backlog=%d under [Socket] by `systemctl edit %s`", limit, unit.Name)
}

// setEither is SetListen, and the other way where it may be the right one.
func setEither(s facts.Socket, limit int) string {
	if s.Unit.Unseen() != "" {
		return fmt.Sprintf("%s, or Backlog=%d under [Socket] if a .socket unit holds it", SetListen(s, limit), limit)
	}
	return SetListen(s, limit)
}

// Trust says how qwatch comes to act on a uWSGI that it may only look at.
func Trust(s facts.Socket) []string {
	if s.Untrusted.IsAbsent() {
		return nil
	}
	if s.Untrusted.Unseen() != "" {
		return []string{fmt.Sprintf("let qwatch see what %s runs, as root or with CAP_SYS_PTRACE, or name its user in `users = [...]` under [probe] of qwatch's configuration", s.Master)}
	}
	return []string{fmt.Sprintf("qwatch acts on services of the system's own systemd; name the user of %s in `users = [...]` under [probe] of qwatch's configuration if it shall act on this one too, or raise it yourself", s.Master)}
}

// Somaxconn says how this somaxconn is set for good where the socket lives.
// file is a sysctl.d file of the host, "" for the usual one.
func Somaxconn(s facts.Socket, value int, file string) []string {
	switch {
	case s.OtherNetNS && s.Master.Container != "":
		return []string{
			fmt.Sprintf("give the container %s its own somaxconn, which no file of the host reaches and each start of it sets anew: compose `sysctls: [net.core.somaxconn=%d]` or `docker run --sysctl net.core.somaxconn=%d`",
				s.Master.Container, value, value),
			"on Kubernetes set it in the pod's securityContext.sysctls, which the kubelet must allow (allowedUnsafeSysctls: [net.core.somaxconn])",
		}
	case s.OtherNetNS:
		return []string{fmt.Sprintf("set net.core.somaxconn = %d where its network namespace is made, which no file of the host reaches (for now: nsenter -t %d -n sysctl -w net.core.somaxconn=%d)", value, s.Master.PID, value)}
	}
	file = cmp.Or(file, "/etc/sysctl.d/90-qwatch.conf")
	return []string{fmt.Sprintf("set net.core.somaxconn = %d in %s and load it: sysctl -p %s", value, file, file)}
}

// BeforeRestart says what a uWSGI needs before it can start again, "" where it
// can or that is not known: it makes no socket while listen is over somaxconn (core/socket.c,
// create_server_socket), and ends.
func BeforeRestart(s facts.Socket) string {
	listen, known := s.Config.Listen.Get()
	somaxconn, seen := s.Somaxconn.Get()
	if !known || !seen || listen.Listen <= somaxconn {
		return ""
	}
	what := "uWSGI refuses to start"
	if s.Unit.State == facts.StateKnown {
		what += " if it makes any socket of its own (stats, http)"
	}
	return fmt.Sprintf("raise somaxconn to %d before any restart: with %d and listen = %d (%s) %s", listen.Listen, somaxconn, listen.Listen, listen.At, what)
}

// set says how uWSGI is given an option, where the rest of its configuration
// stands.
func set(s facts.Socket, option, value string) string {
	at := s.Config.Listen.Value.At
	if i := strings.LastIndexByte(at, ':'); i >= 0 {
		at = at[:i] // without the line, which is listen's
	}
	if s.Config.File != "" || at == "default" {
		at = s.Config.File
	}
	return setAt(at, option, value)
}

// setAt says how uWSGI is given an option where facts.Setting.At says,
// or in a file; "" is somewhere.
func setAt(at, option, value string) string {
	switch {
	case at == "command line" && value == "true":
		return fmt.Sprintf("start uWSGI with `--%s`", option)
	case at == "command line":
		return fmt.Sprintf("start uWSGI with `--%s %s`", option, value)
	case strings.HasPrefix(at, "environment"):
		return fmt.Sprintf("set `UWSGI_%s=%s` in uWSGI's environment", strings.ToUpper(strings.ReplaceAll(option, "-", "_")), value)
	}
	line := option + " = " + value
	switch extension, _, _ := strings.Cut(path.Ext(at), ":"); extension {
	case ".yaml", ".yml":
		line = option + ": " + value
	case ".json", ".js":
		if strings.Contains(value, ":") {
			value = strconv.Quote(value)
		}
		line = fmt.Sprintf("%q: %s", option, value)
	case ".xml":
		line = fmt.Sprintf("<%s>%s</%s>", option, value, option)
	}
	return fmt.Sprintf("set `%s` in %s", line, cmp.Or(at, "uWSGI's configuration"))
}
