package facts

import (
	"fmt"
	"time"

	"qwatch/internal/text"
)

// Deploy is what a reload of a uWSGI would bring: the master executes its program
// anew, reads its configuration anew, and imports what is on disk by then.
type Deploy struct {
	// Since is when the master last did so: at its start, or at a reload.
	Since Fact[time.Time]
	// Loaded is when the application was loaded, at the earliest: another time
	// where each worker loads it for itself (lazy-apps).
	Loaded Fact[time.Time]
	// Lost is what a reload needs and would not find, absent where all is there.
	Lost Fact[string]
	// Program is what the reload would execute, absent where that is the file that
	// runs.
	Program Fact[File]
	// Config is the newest file of the configuration, and Source the newest that
	// the application can load; absent where there are none.
	Config, Source Fact[File]
	// Asks is what the configuration says now, and Ran what it said when the
	// master read it.
	Asks, Ran Fact[Setup]
	// Image tells the program that runs from the one after a reload; 0 where that
	// is not known.
	Image uint64
}

// File is a file that a reload would read.
type File struct {
	Path string
	At   time.Time // when it, or a link on its way, last changed
	// Instead is the path of the file that it stands in for, "" where it is the
	// same by name.
	Instead string
	// Gone says that it was there, and went at that time or before.
	Gone bool
}

// Setup is what a uWSGI serves, and with how many processes.
type Setup struct {
	Listens   []Listen
	Processes int
	Cheaper   int // so many it starts with, 0 for all
}

// Listen is one address of a configuration.
type Listen struct {
	Address  string // as it is written
	Protocol string // the option that names it, "http-socket"
}

// Known to a second: a process starts at a tick, uWSGI's log has seconds, and
// qwatch looks once a second.
const startTolerance = 2 * time.Second

// Younger reports whether a file changed after a time.
func (f File) Younger(since time.Time) bool { return f.At.Sub(since) > startTolerance }

// clock writes a time so that it differs from the other beside it.
func clock(t, other time.Time) string {
	day, minute := "2006-01-02", "15:04"
	switch {
	case t.Format(day) != other.Format(day):
		return t.Format(day + " " + minute)
	case t.Format(minute) == other.Format(minute):
		return t.Format("15:04:05")
	}
	return t.Format(minute)
}

// WhyNoDeploy says why a reload of the socket's uWSGI would bring what it has
// never run, or would not find what it needs, "" where it would do neither. deploy
// allows what is merely younger. chain is a reload of the workers alone, which leaves
// the master as it is.
func (s Socket) WhyNoDeploy(deploy, chain bool) string {
	if harm := s.DeployHarm(deploy, chain); harm != "" {
		return harm
	}
	return s.Deploy.unseen(deploy, chain)
}

// DeployHarm is what WhyNoDeploy says of what is seen, "" where there is nothing or
// it is not known.
func (s Socket) DeployHarm(deploy, chain bool) string {
	d := s.Deploy
	other, replaced := d.Program.Get()
	switch lost, is := d.Lost.Get(); {
	case is:
		return fmt.Sprintf("a reload would not find what it needs: %s; put it back first", lost)
	case !chain && replaced && other.Gone:
		return fmt.Sprintf("a reload would not find its program: %s leads to nothing that it may execute; put it back first", text.Line(other.Path))
	case !chain && replaced && other.Instead != "":
		return fmt.Sprintf("a reload would execute %s, and %s is what runs; start it anew by hand", text.Line(other.Path), text.Line(other.Instead))
	}
	differs := ""
	if !chain {
		differs = d.differs(s)
	}
	if differs != "" || deploy {
		return differs
	}
	return d.brings(chain)
}

// brings says what a reload would bring that was never loaded.
func (d Deploy) brings(chain bool) string {
	bring := func(f Fact[File], at Fact[time.Time], always bool) string {
		file, known := f.Get()
		since, dated := at.Get()
		switch {
		case !known || !always && (!dated || !file.Younger(since)):
			return ""
		case file.Gone:
			return fmt.Sprintf("a reload would not find %s, which is gone, at %s or before (this uWSGI runs since %s); reload by hand",
				text.Line(file.Path), clock(file.At, since), clock(since, file.At))
		case !dated:
			return fmt.Sprintf("a reload would bring %s, which this uWSGI has never loaded; reload by hand", text.Line(file.Path))
		}
		return fmt.Sprintf("a reload would bring %s of %s, which this uWSGI (since %s) has never loaded; reload by hand",
			text.Line(file.Path), clock(file.At, since), clock(since, file.At))
	}
	var found []string
	if !chain {
		found = append(found, bring(d.Program, d.Since, true), bring(d.Config, d.Since, false))
	}
	for _, why := range append(found, bring(d.Source, d.Loaded, false)) {
		if why != "" {
			return why
		}
	}
	return ""
}

// unseen says what of it could not be seen. Where deploy allows what is younger,
// whether something is does not matter.
func (d Deploy) unseen(deploy, chain bool) string {
	const hand = "; reload by hand"
	switch {
	case d.Lost.Unseen() != "":
		return "whether a reload would find all that it needs is not known: " + d.Lost.Unseen() + hand
	case !chain && d.Program.Unseen() != "":
		return "what a reload would execute is not known: " + d.Program.Unseen() + hand
	case d.Source.Unseen() != "":
		return "what a reload would load is not known: " + d.Source.Unseen() + hand
	case !chain && d.Config.Unseen() != "":
		return "what a reload would read is not known: " + d.Config.Unseen() + hand
	case !chain && d.reread() && d.Asks.Unseen() != "":
		return "what uWSGI would serve after a reload is not known: " + d.Asks.Unseen() + hand
	case deploy && !chain && d.reread() && d.Ran.Unseen() != "":
		return "what uWSGI's configuration said when it was read is not known, and so not whether it says the same now: " + d.Ran.Unseen() + hand
	case deploy:
		return ""
	case !chain && d.Config.State == StateKnown && d.Since.State != StateKnown:
		return "when this uWSGI was last reloaded is not known, and so not whether a reload would bring what it has never loaded: " + d.Since.Unseen() + hand
	case d.Source.State == StateKnown && d.Loaded.State != StateKnown:
		return "when this uWSGI has loaded its application is not known, and so not whether a reload would bring what it has never loaded: " + d.Loaded.Unseen() + hand
	}
	return ""
}

// differs says how the configuration, where it is another by now, would make the
// socket another.
func (d Deploy) differs(s Socket) string {
	if !d.reread() {
		return ""
	}
	asks, known := d.Asks.Get()
	if !known {
		return ""
	}
	now, there := asks.at(s)
	ran, remembered := d.Ran.Get()
	before, was := ran.at(s)
	const change = "a reload would make it another: its configuration now has "
	switch {
	case !there && !(remembered && !was):
		return change + fmt.Sprintf("no socket %s; reload by hand", text.Line(s.Address))
	case !remembered && (asks.Cheaper != 0 || len(s.Workers) == 0 || len(s.Workers) == asks.Processes):
		return ""
	case !remembered:
		return change + fmt.Sprintf("%s, and %d of them run; reload by hand", text.Plural(asks.Processes, "process", "processes"), len(s.Workers))
	case now.Protocol != before.Protocol:
		return change + fmt.Sprintf("%s = %s, and was started with %s; reload by hand", now.Protocol, text.Line(now.Address), before.Protocol)
	case asks.Processes != ran.Processes:
		return change + fmt.Sprintf("%s, and was started with %d; reload by hand", text.Plural(asks.Processes, "process", "processes"), ran.Processes)
	case asks.Cheaper != ran.Cheaper:
		return change + fmt.Sprintf("cheaper = %d, and was started with %d; reload by hand", asks.Cheaper, ran.Cheaper)
	}
	return ""
}

// reread reports whether the configuration may be another than the one that the
// master has read.
func (d Deploy) reread() bool {
	file, some := d.Config.Get()
	since, dated := d.Since.Get()
	return !d.Config.IsAbsent() && !(some && dated && !file.Younger(since))
}

// at finds the socket in a setup.
func (u Setup) at(s Socket) (Listen, bool) {
	for _, l := range u.Listens {
		if s.Bound().MayBe(l.Address) {
			return l, true
		}
	}
	return Listen{}, false
}
