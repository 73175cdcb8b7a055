package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"qwatch/internal/bounded"
	"qwatch/internal/kernel"
	"qwatch/remediate/facts"
)

// respawn are the options with which workers are replaced one by one while the
// master stays: then the oldest of them says nothing of when the master was
// reloaded (core/uwsgi.c, uwsgi_base_options).
var respawn = []string{
	"max-requests", "max-requests-delta", "max-worker-lifetime", "min-worker-lifetime", "max-worker-lifetime-delta",
	"reload-on-as", "reload-on-rss", "evil-reload-on-as", "evil-reload-on-rss", "reload-on-uss", "reload-on-pss",
	"cheaper", "cheap", "idle", "harakiri", "touch-workers-reload", "touch-worker-reload", "reload-on-exception",
	"reload-on-exception-type", "reload-on-exception-value", "reload-on-exception-repr",
}

var errReloadUnseen = errors.New("it was reloaded before qwatch looked, and its log does not say when")

// executed is a test's to replace.
var executed = kernel.Executed

// since tells since when the master executes what it does, and since when its
// application is loaded. Both are never later than the truth.
func (l *look) since(m *Memory) {
	oldest := sync.OnceValue(func() facts.Fact[time.Time] { return l.oldest(m) })
	l.d.Since = l.executed(m, oldest)
	if l.d.Loaded = l.d.Since; l.on("lazy", "lazy-apps") { // each worker loads it when it starts
		l.d.Loaded = oldest()
	}
}

// oldest is when the oldest of the master's children started: a master is
// executed before it has any.
func (l *look) oldest(m *Memory) facts.Fact[time.Time] {
	children, err := kernel.Children(l.p.PID, l.names)
	if err != nil {
		return facts.Unknown[time.Time](err.Error())
	}
	first := facts.Unknown[time.Time]("it has no workers")
	for _, c := range children {
		if at := m.startOf(c.Start); first.State != facts.StateKnown || at.Before(first.Value) {
			first = facts.Known(at)
		}
	}
	return first
}

func (l *look) executed(m *Memory, oldest func() facts.Fact[time.Time]) facts.Fact[time.Time] {
	if l.again.Unread != nil {
		return facts.Unknown[time.Time](l.again.Unread.Error())
	}
	if at, err := executed(l.p.PID); err == nil {
		return facts.Known(at)
	}
	// uWSGI counts its reloads in its environment, which the kernel shows as it
	// was at the last execve(2) (core/init.c, uwsgi_setup_reload; since 1.4).
	if _, reloaded := l.again.Variable("UWSGI_RELOADS"); !reloaded {
		return facts.Known(m.startOf(l.p.Start))
	}
	if at, seen := m.since(l.p, l.d.Image); seen {
		return facts.Known(at)
	}
	first := oldest()
	if at, ok := l.logged(m.startOf(l.p.Start), first); ok {
		return facts.Known(at)
	}
	for _, name := range respawn {
		if l.on(name) {
			return facts.Unknown[time.Time](fmt.Sprintf("%v; %s replaces its workers one by one", errReloadUnseen, name))
		}
	}
	return first
}

const (
	// maxLogs is how many of a master's open files are looked into for a reload, with
	// log-master not the first, and logTail how much of the end of each.
	maxLogs = 8
	logTail = 4 << 20
)

// logged finds the last reload in what the master writes: uWSGI says that it goes,
// executes itself, reads and imports all, and says that it is there again
// (core/uwsgi.c, uwsgi_start). What an application prints may look the same: a time
// that cannot be is not believed.
func (l *look) logged(start time.Time, first facts.Fact[time.Time]) (at time.Time, ok bool) {
	files, _ := kernel.OpenWritten(l.p.PID, maxLogs) // without them the log does not say when
	for _, f := range files {
		defer f.Close()
	}
	for _, f := range files {
		info, err := f.Stat()
		var text []byte
		if err == nil {
			if _, err = f.Seek(-min(logTail, info.Size()), io.SeekEnd); err == nil {
				text, _ = bounded.ReadAll(f, logTail)
			}
		}
		if err != nil || !inLocalTime(text, info.ModTime()) {
			continue
		}
		at, ok = reloadIn(text, kernel.OwnPID(l.p.PID))
		child, known := first.Get()
		if ok && known && at.After(start.Add(-time.Second)) && at.Before(child.Add(time.Second)) {
			return at, true
		}
	}
	return at, false
}

// lineTime reads the date before one of uWSGI's lines, as log-date writes it
// without a form of its own (core/logging.c).
func lineTime(line []byte) (time.Time, bool) {
	const form = "Mon Jan _2 15:04:05 2006"
	if len(line) < len(form) || !bytes.HasPrefix(line[len(form):], []byte(" - ")) {
		return time.Time{}, false
	}
	at, err := time.ParseInLocation(form, string(line[:len(form)]), time.Local)
	return at, err == nil
}

// inLocalTime reports whether a log has the time of this host: its last date is
// about when it was last written. A container may have another zone.
func inLocalTime(text []byte, written time.Time) bool {
	lines := bytes.Split(text[max(0, len(text)-1<<16):], []byte("\n"))
	for _, line := range slices.Backward(lines) {
		if at, ok := lineTime(line); ok {
			gap := written.Sub(at)
			return gap > -2*time.Second && gap < 14*time.Minute
		}
	}
	return false
}

// reloadIn finds the last reload of a master in a log: when it went, which is
// before it read anything. In a log that several masters share it is not known
// which of them went.
func reloadIn(text []byte, pid int) (at time.Time, ok bool) {
	back := []byte(fmt.Sprintf("gracefully (RE)spawned uWSGI master process (pid: %d)\n", pid))
	master := []byte("spawned uWSGI master process (pid: ")
	end := bytes.LastIndex(text, back)
	if end < 0 || bytes.Count(text, master) != bytes.Count(text, append(master, fmt.Sprintf("%d)\n", pid)...)) {
		return at, false
	}
	start := bytes.LastIndex(text[:end], []byte("binary reloading uWSGI...\n"))
	if start < 0 {
		return at, false
	}
	return lineTime(text[bytes.LastIndexByte(text[:start], '\n')+1:])
}
