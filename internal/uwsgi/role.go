package uwsgi

import (
	"fmt"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/remediate/facts"
)

// What a process of a uWSGI is shows in the signals that it takes, whoever looks
// (uWSGI 2.0, by strace and core/*.c): a child has its parent's handlers until it
// sets its own.

// IsMaster reports whether the signals are those of a master, which ends all on
// SIGQUIT (core/master.c, master_loop), or of a child that it has just forked. An
// application that takes SIGUSR2 (faulthandler) does so in the master too, where that
// has loaded it; a worker whose application takes SIGQUIT looks the same.
func IsMaster(s kernel.Signals) bool {
	return s.Catches(unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1) && !IsEmperor(s)
}

// IsEmperor reports whether the signals are those of an emperor: the only one that
// takes SIGURG (core/emperor.c, emperor_loop).
func IsEmperor(s kernel.Signals) bool { return s.Catches(unix.SIGQUIT, unix.SIGURG) && !IsWorker(s) }

// IsRouter reports whether the signals are those of a gateway, such as the http
// router (core/gateway.c, gateway_respawn).
func IsRouter(s kernel.Signals) bool {
	return s.Ignores(unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM) && s.Catches(unix.SIGTERM)
}

// IsWorker reports whether the signals are those of a worker that has set its own
// handlers, as it does once its application is loaded: before that SIGHUP does not
// end it (core/uwsgi.c, uwsgi_worker_run). One that ignores SIGUSR2, as an
// application may, has SIGQUIT no longer from its master.
func IsWorker(s kernel.Signals) bool {
	return s.Catches(unix.SIGHUP) && (s.Catches(unix.SIGUSR2) || !s.Catches(unix.SIGQUIT))
}

// Paused says why a process does not run though it could: it is stopped (state is
// that of /proc/PID/stat), or its cgroup is frozen; absent where neither is so.
// frozen is asked only where it matters.
func Paused(pid int, state byte, frozen func() (bool, error)) facts.Fact[string] {
	if state == 'T' {
		return facts.Known(fmt.Sprintf("uWSGI %d is stopped (SIGSTOP, SIGTSTP)", pid))
	}
	switch is, err := frozen(); {
	case err != nil:
		return facts.Unknown[string](err.Error())
	case is:
		return facts.Known(fmt.Sprintf("the cgroup of uWSGI %d is frozen (docker pause, systemctl freeze)", pid))
	}
	return facts.Absent[string]()
}
