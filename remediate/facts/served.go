package facts

import (
	"fmt"
	"strings"
	"time"

	"qwatch/internal/text"
	"qwatch/matcher"
)

// Sight is by what it can be seen whether an app was loaded. None of it set is no
// sight.
type Sight struct {
	Files   bool   // uWSGI logs to regular files
	Journal string // or to the journal, as this unit
	Stats   string // the address of its stats server
	// Followed is a file that is known to hold its log, since its records came
	// from there, "" for none.
	Followed string
}

// String names what there is.
func (s Sight) String() string {
	var by []string
	if s.Files {
		by = append(by, "its log")
	}
	if s.Journal != "" {
		by = append(by, "the journal of "+s.Journal)
	}
	if s.Followed != "" {
		by = append(by, text.Line(s.Followed))
	}
	if s.Stats != "" {
		by = append(by, "its stats server "+s.Stats)
	}
	return strings.Join(by, ", ")
}

// Words reports whether uWSGI's own words can be read.
func (s Sight) Words() bool { return s.Files || s.Journal != "" || s.Followed != "" }

// Counted is what a stats server says of apps and requests.
type Counted struct {
	Requests, Exceptions uint64
	// Apps is how many apps the worker has that has the fewest, Took how long
	// the slowest took to load.
	Apps int
	Took time.Duration
	Busy int // workers with a request
}

// Served is what was seen of a uWSGI from the moment on in which it was asked for
// a reload: whether another generation of workers stands there, and whether it
// serves people.
type Served struct {
	Asked time.Time
	// Stood is when all of the new generation stood there with the app loaded,
	// zero if that was not seen; Seen is the newest look.
	Stood, Seen time.Time
	// Ended says how the master ended, "" where it goes on.
	Ended string
	// Renewed says that it was this reload which made new workers: the master
	// has executed itself anew, or uWSGI says so. A worker that max-requests ends
	// is replaced too.
	Renewed bool

	Before, After int // workers of the old generation, and of the new
	Left          int // old ones that are still at work
	Least         int // workers that there have to be
	Gone          int // new ones that have ended since Stood
	InFlight      int // requests in flight at Asked, at least, where the reload cuts them all

	// Listens says that the very socket still listens; else Bound is where uWSGI
	// listens now.
	Listens bool
	Bound   []string

	Mode  Mode
	Sight Sight
	// Forked says that the master was not executed anew, and has the app that its
	// workers get: nothing tells of its loading.
	Forked bool
	// Words are uWSGI's own since Asked, After Stood those since then, and Prior
	// those shortly before.
	Words, Later, Prior Words
	// Stats are the stats server's numbers: before, at Stood, and now.
	Stats [3]Fact[Counted]
	// Intake is what was seen at the socket since Asked, Watched since Stood.
	Intake, Watched Intake
}

// LeastWatch is for how long at least a new generation is watched.
const LeastWatch = 10 * time.Second

// mostWatch bounds it, and MoreWatch is for how long it goes on where nobody has
// come yet, at most.
const (
	mostWatch = 5 * time.Minute
	MoreWatch = time.Minute
)

// Watch is for how long the new generation has to be watched: as long as the app
// took to load, before or now, and least at least.
func (s *Served) Watch(least time.Duration) time.Duration {
	took := time.Duration(max(s.Words.Took, s.Prior.Took)) * time.Second
	for _, f := range s.Stats {
		took = max(took, f.Value.Took)
	}
	return min(max(least, took), mostWatch)
}

// Cut is how many requests were cut off, at least: each worker that was killed
// before its time had one, and some loops cut whatever is in flight.
func (s *Served) Cut() int {
	cut := 0
	if s.Mode.CutsAll() {
		cut = max(s.InFlight, s.Stats[0].Value.Busy)
	}
	return cut + s.Words.Of[matcher.WordMercy] + s.Words.Of[matcher.MarkHarakiri]
}

// ByWords reports whether all old workers have ended by a reload, as uWSGI says of
// each; where its words cannot be read, those of a reload of each worker have to
// do. chain says that one worker is reloaded after the other.
func (s *Served) ByWords(chain bool) bool {
	switch {
	case s.Left > 0: // a second master says the same (the letter f on the master FIFO)
		return false
	case s.Words.Of[matcher.MarkReloaded] > 0:
		return true
	case s.Sight.Words():
		return s.Words.Of[matcher.WordChained] > 0 || s.Words.Of[matcher.WordKilling] >= s.Before
	}
	return chain || s.Mode.Lazy
}

// Stands reports whether the old generation is gone, and the new one is there as
// it has to be, with its app loaded.
func (s *Served) Stands() bool {
	return s.Ended == "" && s.Renewed && s.Left == 0 && s.After >= s.Least && s.Listens && s.loaded() == ""
}

// loaded says why it is not seen yet that the app was loaded, "" where it was.
func (s *Served) loaded() string {
	if now, counted := s.Stats[2].Get(); counted {
		before, had := s.Stats[0].Get()
		switch {
		case had && now.Apps < before.Apps:
			return fmt.Sprintf("the stats server tells of %s in a worker, and of %d before", text.Plural(now.Apps, "app", "apps"), before.Apps)
		case now.Apps > 0:
			return ""
		}
	}
	if s.Forked || !s.Sight.Words() || !s.Mode.Announced {
		return ""
	}
	want := 1
	if s.Mode.Lazy || s.Mode.LazyApps {
		want = s.Least
	}
	if n := s.Words.Of[matcher.WordReady]; n < want {
		return fmt.Sprintf("%d of %s loaded the app", n, text.Plural(want, "worker has", "workers have"))
	}
	return ""
}

// Fault is why a reload did not do what it should.
type Fault struct {
	// Worse says that clients are not served as they were, and not only that
	// nothing came of the reload.
	Worse bool
	// Unproven says that nothing is known to be wrong, and that nobody was seen to
	// be served either: no reason to call it better or worse.
	Unproven bool
	Why      string
}

const (
	lookIntoLog = "; its log says why"
	putBack     = "; put back what was deployed last, and reload or start uWSGI by hand"
)

// Broken is why clients are not served as they were, or will not be, whatever is
// waited for; ok is false where nothing says so.
func (s *Served) Broken() (f Fault, ok bool) {
	worse := func(format string, args ...any) (Fault, bool) {
		return Fault{Worse: true, Why: fmt.Sprintf(format, args...)}, true
	}
	of := s.Words.Of
	switch {
	case s.Ended != "":
		return worse("%s%s", s.Ended, lookIntoLog)
	case of[matcher.WordBroken] > 0:
		return worse("uWSGI ends, since it cannot load its app (need-app)%s", putBack)
	case of[matcher.WordUnable] > 0:
		return worse("the app could not be loaded (\"unable to load app\"), and every request is answered with an error%s", putBack)
	case of[matcher.WordNoApp] > 0 && s.Prior.Of[matcher.WordNoApp] == 0:
		return worse("requests find no app (\"no python application found\")%s", putBack)
	case !s.Listens && len(s.Bound) > 0 && s.Renewed:
		return worse("its socket is gone, and uWSGI listens on %s now%s", strings.Join(s.Bound, ", "), putBack)
	case !s.Listens && s.Renewed && s.Left == 0 && s.After > 0:
		return worse("its socket is gone, and uWSGI listens on no other%s", putBack)
	case !s.Stood.IsZero():
		return s.unserved()
	}
	return Fault{}, false
}

// unserved is why clients are not served by a generation that stands there.
func (s *Served) unserved() (f Fault, ok bool) {
	worse := func(format string, args ...any) (Fault, bool) {
		return Fault{Worse: true, Why: fmt.Sprintf(format, args...)}, true
	}
	watched := s.Seen.Sub(s.Stood).Round(time.Second)
	worker, times := s.Later.deaths()
	lost := s.Later.lost() > 0 || !s.Sight.Words() && s.Gone > 0 && !s.Mode.Recycles
	switch answered := s.Later.Of[matcher.WordAnswered]; {
	case times > 1:
		return worse("worker %d has died %d times within %s of its reload%s", worker, times, watched, putBack)
	case lost && s.Gone >= s.Least:
		return worse("every new worker has died within %s%s", watched, putBack)
	case answered == 0 && s.Later.Of[matcher.WordGarbled] > 0:
		return worse("its socket speaks another protocol now: %s said \"invalid request block size\"%s",
			text.Plural(s.Later.Of[matcher.WordGarbled], "request was", "requests were"), putBack)
	case answered > 0 && s.Later.Failed == answered && (s.Prior.Failed == 0 || s.Prior.Failed < s.Prior.Of[matcher.WordAnswered]):
		return worse("each of %s since was answered with a status of 500 or more%s", text.Plural(answered, "request", "requests"), putBack)
	}
	then, at := s.Stats[1].Get()
	if now, is := s.Stats[2].Get(); at && is && now.Requests > then.Requests && now.Exceptions-then.Exceptions >= now.Requests-then.Requests {
		return worse("each of %s since raised an exception%s", text.Plural(int(now.Requests-then.Requests), "request", "requests"), putBack)
	}
	return Fault{}, false
}

// Verdict is why this was no reload after which people are served, once it has
// been watched for long enough, or cannot be any more; ok is false where it was.
func (s *Served) Verdict() (f Fault, ok bool) {
	if f, ok := s.Broken(); ok {
		return f, true
	}
	if s.Stood.IsZero() {
		return s.undone(), true
	}
	held := max(s.Least, 1) * max(s.Mode.Cores, 1)
	answered, logged := s.Later.Of[matcher.WordAnswered], s.Prior.Of[matcher.WordAnswered] > 0
	requests := s.Stats[2].Value.Requests - min(s.Stats[1].Value.Requests, s.Stats[2].Value.Requests)
	watched := s.Seen.Sub(s.Stood).Round(time.Second)
	switch {
	case s.After < s.Least:
		return Fault{Worse: true, Why: fmt.Sprintf("there are %s, where there were %d%s", text.Plural(s.After, "worker", "workers"), s.Before, putBack)}, true
	case answered > 0 || requests > 0:
		return Fault{}, false
	case s.Watched.Accepted == 0 && s.Watched.Waiting > 0 && s.Watched.Gap() >= longGap:
		return Fault{Worse: true, Why: fmt.Sprintf("%s, and nobody has been accepted for %s%s",
			text.Plural(s.Watched.Waiting, "client waits", "clients wait"), s.Watched.Gap().Round(time.Second), lookIntoLog)}, true
	case s.Watched.Accepted == 0:
		return Fault{Unproven: true, Why: fmt.Sprintf("not proven: %s; %s; ask it by hand", s.nobody(), s.there())}, true
	case logged && s.Watched.Accepted > 2*held:
		return Fault{Worse: true, Why: fmt.Sprintf("%s accepted in %s, and not one request was answered: does its socket speak the protocol that it spoke before?%s",
			text.Plural(s.Watched.Accepted, "connection was", "connections were"), watched, lookIntoLog)}, true
	}
	return Fault{}, false
}

// Settled reports whether a longer watch of a generation that stands would tell
// nothing more: somebody was served, or cannot be.
func (s *Served) Settled() bool {
	f, _ := s.Verdict()
	return !f.Unproven
}

// nobody says that nobody was seen to be served, as far as that could be seen.
func (s *Served) nobody() string {
	watched := s.Seen.Sub(s.Stood).Round(time.Second)
	_, counted := s.Stats[2].Get()
	switch {
	case s.Watched.Came:
		return fmt.Sprintf("nobody has been accepted in %s since", watched)
	case !s.Watched.Untold:
		return fmt.Sprintf("nobody has connected in %s since", watched)
	case s.Prior.Of[matcher.WordAnswered] > 0 || counted:
		return fmt.Sprintf("no request was answered in %s since", watched)
	}
	return "whether anybody was served could not be seen (the kernel does not count who connects to this socket alone, and there is no request log and no stats server)"
}

// undone is what is missing to a new generation.
func (s *Served) undone() Fault {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	waited := s.Seen.Sub(s.Asked).Round(time.Second)
	if s.Left > 0 {
		add("%s of %d still at work (worker-reload-mercy gives them %s)", text.Plural(s.Left, "old worker", "old workers"), s.Before, text.Plural(int(s.Mode.Mercy.Seconds()), "second", "seconds"))
	}
	if n := s.Words.Waiting; n > 0 {
		add("the chain waits for worker %d", n)
	}
	if worker, times := s.Words.deaths(); times > 0 {
		add("worker %d has died %s", worker, text.Plural(times, "time", "times"))
	}
	switch why := s.loaded(); {
	case s.Left > 0:
	case !s.Renewed:
		add("all old workers have ended, but nothing says that it was by a reload (max-requests replaces them too)")
	case s.After < s.Least:
		add("%d of %s there", s.After, text.Plural(s.Least, "new worker is", "new workers are"))
	case why != "":
		add("%s", why)
	}
	gap := max(s.Intake.Gap(), 0)
	if gap >= longGap {
		add("nobody has been accepted for %s", gap.Round(time.Second))
	}
	if len(parts) == 0 {
		add("no end was seen after %s", waited)
	}
	return Fault{Worse: gap >= longGap, Why: strings.Join(parts, ", ")}
}

// String tells how it went, of a reload that was one.
func (s *Served) String() string { return s.there() + "; " + s.People() }

// there is what stands there, and what it has cost.
func (s *Served) there() string {
	said := fmt.Sprintf("%s after %s", text.Plural(s.After, "new worker", "new workers"), s.Stood.Sub(s.Asked).Round(100*time.Millisecond))
	if cut := s.Cut(); cut > 0 {
		said += fmt.Sprintf(", %s cut", text.Plural(cut, "request", "requests"))
	} else if s.Mode.Cuts() == "" && s.Sight.Words() {
		said += ", gracefully"
	}
	if gap := s.Intake.Unserved; gap > 0 {
		said += fmt.Sprintf(", nobody accepted for %.1f s", gap.Seconds())
	}
	return said
}

// People tells who was served by the new generation.
func (s *Served) People() string {
	watched := s.Seen.Sub(s.Stood).Round(time.Second)
	requests := s.Stats[2].Value.Requests - min(s.Stats[1].Value.Requests, s.Stats[2].Value.Requests)
	switch answered := max(s.Later.Of[matcher.WordAnswered], int(requests)); {
	case answered > 0:
		return fmt.Sprintf("%s answered in %s since", text.Plural(answered, "request was", "requests were"), watched)
	case s.Watched.Accepted > 0:
		return fmt.Sprintf("%s accepted in %s since", text.Plural(s.Watched.Accepted, "connection was", "connections were"), watched)
	}
	return s.nobody()
}
