package host

import (
	"errors"
	"fmt"
	"io/fs"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
)

// maxLogs is how many of a master's open files are looked into.
const maxLogs = 8

// written is where a master writes.
type written struct {
	paths  []string // the regular files that it has open for writing
	output kernel.Output
	unread error // why none of them can be read
	blind  error // why output is not known
}

func askWritten(p uwsgi.Process) (w written, err error) {
	if w.paths, err = kernel.Written(p.PID); err != nil {
		return w, err
	}
	if w.output, w.blind = kernel.OutputOf(p.PID); w.blind != nil && !errors.Is(w.blind, fs.ErrPermission) {
		return w, w.blind
	}
	files, err := kernel.OpenWritten(p.PID, maxLogs)
	for _, f := range files {
		f.Close()
	}
	w.unread = err
	return w, nil
}

// sight is by what it can be seen whether the app is loaded after a reload.
func (l *lookups) sight(options *Options, s *facts.Socket, journal facts.Fact[string]) facts.Fact[facts.Sight] {
	var sight facts.Sight
	if s.Stats != nil {
		sight.Stats = s.Stats.Address
	}
	a := l.logs.Get(uwsgi.ProcessOf(s.Master))
	unit := s.Master.Unit.Value
	why := ""
	switch w := a.Value; {
	case !a.Within(fileAge):
		why = "where it logs: " + a.Err.Error()
	case w.output == kernel.OutputJournal && unit != "":
		if sight.Journal = unit; !journal.IsAbsent() {
			sight.Journal, why = "", fmt.Sprintf("it logs to the journal: %s", journal.Value+journal.Unseen())
		}
	case len(w.paths) == 0 && w.output == kernel.OutputJournal:
		why = "it logs to the journal, and its unit is not known"
	case len(w.paths) == 0 && w.blind != nil:
		why = "where it logs: " + w.blind.Error()
	case len(w.paths) == 0:
		why = "it logs to no file and not to the journal"
	case w.unread != nil && !options.AssumeRights:
		why = "its log: " + w.unread.Error()
	default:
		sight.Files = true
	}
	if sight == (facts.Sight{}) {
		return facts.Unknown[facts.Sight](why + ", and [[source]] stats names no stats server of it")
	}
	return facts.Known(sight)
}
