package remediate

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// Kind says why an accept queue is full.
type Kind string

// The kinds of fullness.
const (
	Idle     Kind = "idle"     // it is not full
	Burst    Kind = "burst"    // more came at once than it holds; also where nothing else is proven
	Overload Kind = "overload" // it fills faster than the workers empty it
	Stall    Kind = "stall"    // nothing takes from it
	Respawn  Kind = "respawn"  // it filled while workers were starting
	False    Kind = "false"    // it is not full, the record's numbers are garbage
)

// Bind names what sets the limit of a socket.
type Bind string

// The settings that can bind, as `doctor` reports them.
const (
	BindListen    Bind = "listen"         // uWSGI's own listen
	BindSomaxconn Bind = "somaxconn"      // net.core.somaxconn of the socket's namespace
	BindUnit      Bind = "systemd-socket" // Backlog= of the .socket unit
	BindUnknown   Bind = "unknown"
)

// Look is a socket as Observe showed it at one moment.
type Look struct {
	At, Booted time.Time // as in Facts
	Socket     facts.Socket
	Stats      *facts.Stats // nil where no stats server is configured or answers
}

// Signs is all that a diagnosis is made from.
type Signs struct {
	// Now is the newest look and Before the oldest of the last minute, zero
	// where there is none; Between are those between them in the order of
	// time. How the workers fared from one look to the next is what proves a
	// stall: 2 s tell whether they are locked up, 15 s whether they do
	// nothing.
	Now, Before Look
	Between     []Look
	// Readings are those of the last minute in the order of time, of all
	// sockets.
	Readings []facts.Sample
	// Alone says that no other socket of the namespace accepts TCP
	// connections, so that PassiveOpens counts those of this one.
	Alone   bool
	Marks   []matcher.Mark // lines of this uWSGI in the last minute
	Garbage bool           // the record's numbers cannot be true
	Policy  Policy
}

// Diagnosis says why a queue is full, and what to do about it.
type Diagnosis struct {
	Kind  Kind
	Binds Bind
	// AtCeiling says that the limit is at policy.max_backlog or over it.
	AtCeiling bool
	// Sure is false where Kind is only what is left: later signs may show
	// another one.
	Sure    bool
	Reasons []string // each a sentence; the first says why it is this Kind
	Advice  []string // what an administrator should do, each a sentence
	// AcceptRate is how many connections the workers take each second, -1
	// where that is not known.
	AcceptRate float64
	// Wait is how long the last connection in the queue has to wait at that
	// rate, 0 where that is not known.
	Wait time.Duration
	// MaxTarget is the longest queue in which nobody waits longer than
	// policy.max_wait; 0 where that bounds nothing.
	MaxTarget int
	// Doubt says what may turn out to be a Stall within a few seconds, "" where
	// nothing looks so: until then a raise should wait.
	Doubt string
}

// forbids reports whether a longer queue would be wrong, and why.
func (d Diagnosis) forbids() (bool, string) {
	switch d.Kind {
	case Stall, Respawn, False:
		return true, d.Reasons[0]
	}
	return false, ""
}

const (
	// clockTick is the unit of /proc/PID/stat: USER_HZ is 100 wherever uWSGI
	// and Go run.
	clockTick = 10 * time.Millisecond

	// lockProof is how long workers must have waited on locks, and stallProof
	// how long nothing must have been taken, to be called stuck. Slow requests
	// take several seconds.
	lockProof  = 2 * time.Second
	stallProof = 15 * time.Second
	// doubtful is how long a queue may have been full for a doubt to count: it
	// is proven or gone by then, looks being up to 2 s apart.
	doubtful = 6 * time.Second
	// overloadProof is how long a queue must have been half full.
	overloadProof = 10 * time.Second
	// young is a worker that has hardly begun; a reload starts all of them
	// within together.
	young    = 10 * time.Second
	together = 5 * time.Second
	// falseLooks is how often the kernel must disagree with the record.
	falseLooks = 5
	// measurable is the least time to draw a rate from.
	measurable = 2 * time.Second
)

// Diagnose is pure. With a few seconds of evidence the kind is Burst and not
// sure: whatever forbids a raise is proven, not guessed.
func Diagnose(signs Signs) Diagnosis {
	e := newExam(signs)
	d := Diagnosis{AcceptRate: e.rate, AtCeiling: e.s.Limit >= e.Policy.MaxBacklog}
	var bindReason string
	d.Binds, bindReason = binds(e.s)
	d.Kind, d.Sure, d.Reasons = e.kind()
	if d.Kind == Burst || d.Kind == Overload {
		d.Doubt = e.doubt()
	}
	if e.rate > 0 {
		const century = 100 * 365 * 24 * 3600 // within a Duration
		d.Wait = time.Duration(min(float64(e.s.Length)/e.rate, century) * float64(time.Second))
	}
	if d.Kind == Overload && e.Policy.MaxWait > 0 {
		d.MaxTarget = max(1, int(min(e.most*e.Policy.MaxWait.Seconds(), math.MaxInt32)))
	}
	d.Reasons = append(d.Reasons, e.work(d.Kind, d.Wait)...)
	if d.Kind != False {
		d.Reasons = append(d.Reasons, bindReason)
	}
	d.Advice = e.advice(d)
	return d
}

// exam is the signs, sorted.
type exam struct {
	Signs
	s        facts.Socket
	own      []facts.Sample // of this socket
	evidence facts.Evidence
	rate     float64 // accepted each second, -1 unknown
	most     float64 // no more than this, where the rate is not known; -1 unknown
	dropped  float64 // overflows each second, 0 unknown

	// pile is how long the queue has been at least half full without a break.
	pile time.Duration
	// short is from a look of some 2 s ago to now, long from one of 15 s ago;
	// without such a look short is as much as there is, and long is empty.
	short, long span
}

// span is two looks at one uWSGI. It is empty where there is only one.
type span struct {
	before, now Look
	apart       time.Duration
}

func newExam(signs Signs) exam {
	e := exam{Signs: signs, s: signs.Now.Socket, rate: -1, most: -1}
	for _, r := range e.Readings {
		if r.ID == e.s.ID {
			e.own = append(e.own, r)
		}
	}
	e.evidence = facts.Weigh(e.s, e.Readings, time.Time{})
	for _, before := range e.earlier() {
		apart := e.Now.At.Sub(before.At)
		if !before.Socket.Master.Same(e.s.Master) || apart <= 0 {
			continue
		}
		if e.short.apart == 0 || apart >= lockProof {
			e.short = span{before, e.Now, apart}
		}
		if apart >= stallProof {
			e.long = e.short
		}
	}
	if len(e.own) > 0 {
		last := e.own[len(e.own)-1]
		for _, r := range slices.Backward(e.own) {
			if !facts.HalfFull(r.Length, r.Limit) {
				break
			}
			e.pile = last.At.Sub(r.At)
		}
		// A calm time before the queue filled says nothing of what the workers
		// can do.
		over := e.pile
		if over < measurable {
			over = e.evidence.Over
		}
		if over >= measurable {
			since := last.At.Add(-over)
			n, known := e.accepted(since)
			if n >= 0 {
				e.most = float64(n) / over.Seconds()
			}
			if known {
				e.rate = e.most
			}
			if e.Alone {
				e.dropped = float64(facts.Weigh(e.s, e.own, since).Overflows) / over.Seconds()
			}
		}
	}
	for _, s := range []span{e.short, e.long} {
		if n, known := s.answered(); known && s.apart >= measurable {
			e.rate = float64(n) / s.apart.Seconds()
			e.most = e.rate
		}
	}
	return e
}

// earlier are the looks before the newest.
func (e exam) earlier() []Look { return append([]Look{e.Before}, e.Between...) }

// accepted is how many connections were taken from the queue since a moment,
// or where that is not known, the most that it can have been; -1 where nothing
// is known. PassiveOpens counts each connection that enters an accept queue of
// the namespace (tcp_create_openreq_child, net/ipv4/tcp_minisocks.c), so with
// others that accept only their absence is known.
func (e exam) accepted(since time.Time) (n int, known bool) {
	own := slices.DeleteFunc(slices.Clone(e.own), func(r facts.Sample) bool { return r.At.Before(since) })
	if len(own) < 2 || e.s.Family == facts.Unix {
		return -1, false
	}
	first, last := own[0], own[len(own)-1]
	if last.Opens < first.Opens {
		return -1, false
	}
	// The length is read just before the counter.
	n = max(0, int(last.Opens-first.Opens)-(last.Length-first.Length))
	return n, n == 0 || e.Alone
}

// kind finds out why the queue is full.
func (e exam) kind() (kind Kind, sure bool, reasons []string) {
	full := e.evidence.Corroborates() || e.s.Full()
	if e.Garbage && !full && e.evidence.Samples >= falseLooks {
		return False, true, []string{fmt.Sprintf("the log's numbers cannot be true, and the kernel shows no full queue: %s", e.evidence)}
	}
	if !full && !facts.HalfFull(e.s.Length, e.s.Limit) {
		return Idle, e.evidence.Samples > 0, []string{fmt.Sprintf("the queue is not full: it holds %d of %d", e.s.Length, e.s.Limit)}
	}
	if why := e.stalled(); why != "" {
		return Stall, true, []string{"nothing takes connections from the queue: " + why}
	}
	if why := e.respawning(); why != "" {
		return Respawn, true, []string{"the queue filled while workers were starting: " + why}
	}
	if !full {
		return Idle, e.evidence.Samples > 0, []string{fmt.Sprintf("the queue is not full, though it holds %d of %d", e.s.Length, e.s.Limit)}
	}
	if e.pile >= overloadProof && e.rate > 0 {
		return Overload, true, []string{fmt.Sprintf("more comes than the workers take: at least half full for %s, while they take %s connections a second",
			e.pile.Round(time.Second), number(e.rate))}
	}
	if e.pile >= overloadProof && e.rate < 0 && e.most > 0 && e.short.working() {
		return Overload, false, []string{fmt.Sprintf("more comes than the workers take: at least half full for %s, while they take no more than %s connections a second (all that its network namespace takes)",
			e.pile.Round(time.Second), number(e.most))}
	}
	if i := slices.IndexFunc(e.own, facts.Sample.Full); i >= 0 {
		if slices.ContainsFunc(e.own[i:], func(r facts.Sample) bool { return !facts.HalfFull(r.Length, r.Limit) }) {
			return Burst, true, []string{"the queue drains again: the connections came in a burst"}
		}
	}
	state := "is"
	if !e.s.Full() {
		state = "was"
	}
	return Burst, false, []string{fmt.Sprintf("the queue %s full; watched for %s, which shows no other reason than many connections at once", state, short(e.evidence.Over))}
}

// stalled says why nothing takes connections, "" where that is not proven.
func (e exam) stalled() string {
	workers := e.s.Workers
	if n := len(workers); n > 0 && count(workers, facts.Worker.Stopped) == n {
		return fmt.Sprintf("%s stopped (SIGSTOP or a debugger)", all(n))
	}
	if !e.s.Full() {
		return ""
	}
	return cmp.Or(e.helpless(), e.deadlocked(), e.idleLong())
}

// helpless says what all workers have been waiting for that only somebody else
// can end.
func (e exam) helpless() string {
	workers, apart := e.s.Workers, e.short.apart
	if apart < lockProof || !e.short.same() || !e.short.mayHaveFrozen() ||
		count(workers, facts.Worker.Helpless) < len(workers) || count(e.short.before.Socket.Workers, facts.Worker.Helpless) < len(workers) {
		return ""
	}
	if n, known := e.accepted(e.short.before.At); known && n > 0 {
		return ""
	}
	if n, known := e.short.answered(); known && n > 0 {
		return ""
	}
	shared := count(workers, func(w facts.Worker) bool { return w.Waits == facts.WaitsOnSharedLock })
	switch {
	case count(workers, facts.Worker.Dead) == len(workers):
		return fmt.Sprintf("%s dead for %s, and the master does not replace them", all(len(workers)), short(apart))
	case count(workers, func(w facts.Worker) bool { return w.State == 'D' }) == len(workers):
		return fmt.Sprintf("%s in uninterruptible sleep for %s (a disk or network file system that does not answer)", all(len(workers)), short(apart))
	case shared > 0:
		return fmt.Sprintf("%d of %d workers have waited %s for a lock that uWSGI shares between them (its thunder lock, uwsgi.lock), and the others cannot give it back", shared, len(workers), short(apart))
	}
	return fmt.Sprintf("%s waiting for a lock that nobody gives back, for %s and without CPU time (deadlock)", all(len(workers)), short(apart))
}

// doubt says that the workers look helpless, where they have not been seen for
// long enough to tell. Without it a raise could come first: the third record is
// written 2 s after the first, which is when the workers are first looked at.
func (e exam) doubt() string {
	n := len(e.s.Workers)
	if n == 0 || !e.s.Full() || e.fullFor() >= doubtful || count(e.s.Workers, facts.Worker.Helpless) < n {
		return ""
	}
	before := e.short.before.Socket.Workers
	if e.short.apart >= lockProof && e.short.same() && count(before, facts.Worker.Helpless) == len(before) {
		return "" // they were seen for long enough, and some have worked
	}
	return fmt.Sprintf("%s waiting for what only somebody else can end; whether that is a stall shows within a few seconds", all(n))
}

// deadlocked takes uWSGI's word where the kernel shows the same.
func (e exam) deadlocked() string {
	var at time.Time
	for _, m := range e.Marks {
		if m.Kind == matcher.MarkDeadlock && e.Now.At.Sub(m.At) < time.Minute && m.At.After(at) {
			at = m.At
		}
	}
	if at.IsZero() || e.Now.At.Sub(at) < lockProof {
		return ""
	}
	if n, known := e.accepted(at); known && n == 0 || e.short.apart >= lockProof && e.short.frozen() {
		return "uWSGI's deadlock-detector spoke up, and no connection was taken since"
	}
	return ""
}

// idleLong says that nothing was done for so long that no request explains it.
func (e exam) idleLong() string {
	fullFor := e.fullFor()
	if fullFor < stallProof {
		return ""
	}
	if e.long.frozen() {
		return fmt.Sprintf("full for %s, and for %s no worker has run at all", short(fullFor), short(e.long.apart))
	}
	taken, known := e.accepted(e.own[len(e.own)-1].At.Add(-fullFor))
	answered, counted := e.long.answered()
	if e.short.apart >= lockProof && e.short.asleep() && (known && taken == 0 || counted && answered == 0 && e.long.asleep()) {
		return fmt.Sprintf("full for %s, in which no connection was taken, and the workers use no CPU time", short(fullFor))
	}
	return ""
}

// respawning says what shows that the queue filled before its workers were
// there, "" where that is not shown. Workers that have just started are no
// proof: they may be as busy as any.
func (e exam) respawning() string {
	reloaded := e.marked(matcher.MarkReloaded, young)
	if count(e.s.Workers, facts.Worker.Dead) == len(e.s.Workers) {
		began := e.Now.Booted.Add(time.Duration(e.s.Master.Start) * clockTick)
		switch {
		case reloaded || slices.ContainsFunc(e.earlier(), func(l Look) bool {
			return l.Socket.Master.Same(e.s.Master) && count(l.Socket.Workers, facts.Worker.Dead) < len(l.Socket.Workers)
		}):
			return "uWSGI is reloading, and no worker is there yet"
		case !e.Now.Booted.IsZero() && e.Now.At.Sub(began) < young:
			return "uWSGI has just been started, and no worker is there yet"
		}
		return ""
	}
	if e.Now.Booted.IsZero() || e.marked(matcher.MarkHarakiri, time.Minute) {
		return "" // those that harakiri replaces were stuck, and are not the reason
	}
	var births []time.Time
	for _, w := range e.s.Workers {
		if w.Dead() {
			continue
		}
		births = append(births, e.Now.Booted.Add(time.Duration(w.Start)*clockTick))
	}
	slices.SortFunc(births, time.Time.Compare)
	first, last := births[0], births[len(births)-1]
	fresh := slices.DeleteFunc(slices.Clone(births), func(t time.Time) bool { return e.Now.At.Sub(t) >= young })
	replaced := len(fresh) == len(births) && last.Sub(first) <= together
	dying := e.marked(matcher.MarkDied, young) || e.marked(matcher.MarkTooFast, young) || e.marked(matcher.MarkBuried, young)
	if !replaced && !(2*len(fresh) > len(births) && dying) {
		return ""
	}
	// Workers that have once emptied the queue are not the reason either.
	born := fresh[0]
	if slices.ContainsFunc(e.own, func(r facts.Sample) bool {
		if r.At.Before(last) || facts.HalfFull(r.Length, r.Limit) {
			return false
		}
		n, known := e.accepted(r.At)
		return known && n > 0 || e.s.Family == facts.Unix
	}) {
		return ""
	}
	what := fmt.Sprintf("%d of %d workers started within the last %s", len(fresh), len(births), short(e.Now.At.Sub(born)))
	seen := len(e.own) > 0 && !e.own[0].At.After(born)
	n, known := e.accepted(born.Add(-time.Second))
	switch {
	case seen && !e.own[len(e.own)-1].At.Add(-e.pile).After(born):
		return what + ", into a queue that was full already"
	case seen && known && n == 0:
		return what + ", and none has taken a connection yet"
	case reloaded:
		return what + ", and the log shows a reload"
	case dying:
		return what + ", and the log shows that workers die"
	}
	return ""
}

// work tells how busy the workers are.
func (e exam) work(kind Kind, wait time.Duration) (reasons []string) {
	if wait > 0 {
		reasons = append(reasons, fmt.Sprintf("the last of %d in the queue waits %s", e.s.Length, short(wait)))
	}
	if st := e.Now.Stats; st != nil {
		r := fmt.Sprintf("the stats server counts %d of %d workers busy", st.Busy, st.Workers)
		if st.Response > 0 {
			r += fmt.Sprintf(", %s a request", short(st.Response))
		}
		reasons = append(reasons, r)
	}
	if share, ok := e.short.cpu(); ok {
		r := fmt.Sprintf("its %d workers use %.0f%% of a CPU each", len(e.s.Workers), 100*share)
		if kind == Overload && share < 0.2 {
			r += ", so they mostly wait: for a database, another service or slow clients"
		}
		reasons = append(reasons, r)
	}
	return reasons
}

// marked reports whether a line of this kind is newer than so long.
func (e exam) marked(kind matcher.MarkKind, within time.Duration) bool {
	return slices.ContainsFunc(e.Marks, func(m matcher.Mark) bool {
		return m.Kind == kind && e.Now.At.Sub(m.At) < within
	})
}

// fullFor is how long every reading up to the last was full.
func (e exam) fullFor() time.Duration {
	var since time.Time
	for _, r := range slices.Backward(e.own) {
		if !r.Full() {
			break
		}
		since = r.At
	}
	if since.IsZero() {
		return 0
	}
	return e.own[len(e.own)-1].At.Sub(since)
}

// same reports whether the workers of both looks are the same processes.
func (s span) same() bool {
	before := s.before.Socket.Workers
	return len(before) > 0 && slices.EqualFunc(before, s.now.Socket.Workers, func(a, b facts.Worker) bool { return a.Process.Same(b.Process) })
}

// answered is how many requests the stats server counted between the looks.
func (s span) answered() (n uint64, known bool) {
	before, now := s.before.Stats, s.now.Stats
	if before == nil || now == nil || now.Requests < before.Requests {
		return 0, false
	}
	return now.Requests - before.Requests, true
}

// cpu is the share of a CPU that each worker used between the looks.
func (s span) cpu() (share float64, ok bool) {
	if s.apart < measurable || !s.same() {
		return 0, false
	}
	var ticks uint64
	for i, w := range s.now.Socket.Workers {
		ticks += w.Ticks - s.before.Socket.Workers[i].Ticks
	}
	return float64(ticks) * clockTick.Seconds() / s.apart.Seconds() / float64(len(s.now.Socket.Workers)), true
}

// asleep reports whether the workers used no CPU time worth counting.
func (s span) asleep() bool {
	share, ok := s.cpu()
	return ok && share < 0.01
}

// working reports whether any worker ran between the looks.
func (s span) working() bool { return s.apart >= measurable && !(s.same() && s.mayHaveFrozen()) }

// frozen reports whether no thread of any worker has run between the looks.
func (s span) frozen() bool {
	return s.same() && s.mayHaveFrozen() &&
		!slices.ContainsFunc(s.now.Socket.Workers, func(w facts.Worker) bool { return w.Switches == 0 })
}

// mayHaveFrozen is frozen where nothing is known to the contrary.
func (s span) mayHaveFrozen() bool {
	return slices.EqualFunc(s.now.Socket.Workers, s.before.Socket.Workers, func(a, b facts.Worker) bool {
		return a.Ticks == b.Ticks && (a.Switches == b.Switches || a.Switches == 0 || b.Switches == 0)
	})
}

// binds names what sets the limit of a socket, and says why.
func binds(s facts.Socket) (Bind, string) {
	at := ""
	if s.ConfiguredAt != "" && s.ConfiguredAt != "default" {
		at = " (" + s.ConfiguredAt + ")"
	}
	switch {
	case s.SocketUnit != "" && (s.Somaxconn == 0 || s.Limit < s.Somaxconn):
		return BindUnit, fmt.Sprintf("the limit %d is Backlog= of %s; uWSGI's listen has no say", s.Limit, s.SocketUnit)
	case s.SocketUnit != "":
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn: Backlog= of %s is cut to it", s.Limit, s.SocketUnit)
	case s.Somaxconn > 0 && s.Limit == s.Somaxconn && s.Configured >= s.Somaxconn:
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn; uWSGI is configured to listen = %d%s", s.Limit, s.Configured, at)
	case s.Configured > 0 && s.Limit == s.Configured && s.ConfiguredAt == "default":
		return BindListen, fmt.Sprintf("the limit %d is uWSGI's default, since its configuration sets no listen", s.Limit)
	case s.Configured > 0 && s.Limit == s.Configured:
		return BindListen, fmt.Sprintf("the limit %d is uWSGI's listen%s", s.Limit, at)
	case s.Configured == 0 && s.Somaxconn > 0 && s.Limit == s.Somaxconn:
		return BindSomaxconn, fmt.Sprintf("the limit %d is somaxconn; what uWSGI is configured to is not known", s.Limit)
	case s.Configured > 0 && s.Limit > s.Configured:
		return BindUnknown, fmt.Sprintf("the limit %d was raised while uWSGI ran: it is configured to listen = %d%s", s.Limit, s.Configured, at)
	case s.Configured > 0:
		return BindUnknown, fmt.Sprintf("the limit %d is neither somaxconn (%d) nor listen = %d%s: one of them was lower when the socket was made", s.Limit, s.Somaxconn, s.Configured, at)
	}
	return BindUnknown, fmt.Sprintf("what sets the limit %d is not known", s.Limit)
}

// advice is what an administrator should do, the most pressing first.
func (e exam) advice(d Diagnosis) (advice []string) {
	say := func(format string, args ...any) { advice = append(advice, fmt.Sprintf(format, args...)) }
	harakiri := func() {
		say("set harakiri = 30 (seconds) in uWSGI's configuration, so that stuck workers are replaced")
	}
	s := e.s
	if m := slices.IndexFunc(e.Marks, func(m matcher.Mark) bool { return m.Kind == matcher.MarkNoStart }); m >= 0 {
		say("a uWSGI refused to start, its listen being over somaxconn (%d): raise somaxconn first or lower listen", e.Marks[m].Limit)
	}
	if s.Somaxconn > 0 && s.Configured > s.Somaxconn && s.SocketUnit == "" { // core/socket.c:127
		say("raise somaxconn to %d before any restart: with %d and listen = %d uWSGI refuses to start", s.Configured, s.Somaxconn, s.Configured)
	}
	if e.marked(matcher.MarkTooFast, time.Minute) {
		say("find out why workers die as soon as they start: uWSGI's log says so above \"respawning too fast\"")
	} else if e.marked(matcher.MarkDied, time.Minute) {
		say("find out what kills the workers: signal 9 is most often the kernel for want of memory (journalctl -k -g 'Out of memory')")
	}
	switch d.Kind {
	case False:
		say("nothing is wrong with the queue: uWSGI reads such numbers where it runs emulated (an amd64 image on ARM): run an image for this CPU")
		return advice
	case Idle:
		return append(advice, e.persist()...)
	case Stall:
		var stopped []string
		for _, w := range s.Workers {
			if w.Stopped() {
				stopped = append(stopped, fmt.Sprint(w.PID))
			}
		}
		if len(stopped) > 0 {
			say("let the stopped workers go on: kill -CONT %s", strings.Join(stopped, " "))
			return advice
		}
		shared := slices.ContainsFunc(s.Workers, func(w facts.Worker) bool { return w.Waits == facts.WaitsOnSharedLock })
		if shared || e.marked(matcher.MarkDeadlock, time.Minute) {
			say("set thunder-lock-watchdog = true in uWSGI's configuration, or leave thunder-lock out: the lock outlived a worker that died with it")
		}
		how := "uWSGI"
		switch m := s.Master; {
		case m.Container != "":
			how = "the container " + m.Container
		case m.Unit != "":
			how += ": systemctl restart " + m.Unit
		}
		say("restart %s (a graceful reload would wait for the stuck workers)", how)
		harakiri()
		say("a longer queue would only let more clients wait for nothing")
		return advice
	case Respawn:
		say("wait until the workers are up, then the queue drains by itself")
		if e.Now.At.Sub(e.Now.Booted.Add(time.Duration(s.Master.Start)*clockTick)) >= young {
			say("replace workers one at a time: touch-chain-reload with lazy-apps = true, and no thunder-lock beside it")
		}
		return append(advice, e.persist()...)
	}

	bound := d.MaxTarget > 0 && d.MaxTarget <= s.Limit
	if !d.AtCeiling && !bound {
		target := e.Policy.Target(s.Limit)
		if d.MaxTarget > 0 {
			target = min(target, d.MaxTarget)
		}
		advice = append(advice, e.lengthen(target)...)
	}
	if d.AcceptRate < 0 && e.pile >= overloadProof {
		say("add `stats = 127.0.0.1:9191` to uWSGI's configuration and to a [[source]] of qwatch's: what the workers take cannot be measured otherwise")
	}
	if d.Kind == Overload || d.AtCeiling {
		say("a longer queue buys seconds, not capacity")
		say("%s", e.moreWorkers())
		if share, ok := e.short.cpu(); ok && share >= 0.5 {
			say("the workers compute: more of them help only as far as CPUs are idle")
		} else {
			harakiri()
		}
	}
	if e.marked(matcher.MarkHarakiri, time.Minute) {
		say("look at the requests that harakiri ends: each has held a worker for all that time")
	}
	if d.AtCeiling {
		advice = append(advice, e.persist()...)
	}
	return advice
}

// moreWorkers says how many workers would do, as far as the numbers tell.
func (e exam) moreWorkers() string {
	n := len(e.s.Workers)
	if e.rate <= 0 || e.dropped == 0 || n == 0 {
		return fmt.Sprintf("give uWSGI more workers (processes) than its %d, or make the requests shorter", n)
	}
	// A client that is turned away comes again (TCP's SYN retransmission), so
	// this is the most that it may take.
	need := max(n+1, int(math.Ceil(float64(n)*(e.rate+e.dropped)/e.rate)))
	beside := fmt.Sprintf("%s connections a second were turned away beside the %s taken, retries counted", number(e.dropped), number(e.rate))
	if need > 8*n {
		return fmt.Sprintf("more workers (processes) than its %d are not enough by far: %s", n, beside)
	}
	return fmt.Sprintf("up to %d workers (processes) instead of %d: %s", need, n, beside)
}

// persist says what keeps the limit over a restart, if nothing does.
func (e exam) persist() []string {
	if s := e.s; s.Configured > 0 && s.Configured < s.Limit && s.SocketUnit == "" {
		return []string{fmt.Sprintf("%s, or a restart brings %d back", setListen(s, s.Limit), s.Configured)}
	}
	return nil
}

// lengthen says how to give the socket this limit for good.
func (e exam) lengthen(target int) (advice []string) {
	say := func(format string, args ...any) { advice = append(advice, fmt.Sprintf(format, args...)) }
	s := e.s
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
			say("set net.core.somaxconn = %d in %s", target, cmp.Or(e.Policy.SysctlFile, "/etc/sysctl.d/90-qwatch.conf"))
		}
	}
	switch {
	case s.SocketUnit != "":
		say("set Backlog=%d under [Socket] by `systemctl edit %s`, at least as much as somaxconn shall give: uWSGI's listen has no say", target, s.SocketUnit)
	case s.Configured < target || s.Configured == 0:
		say("%s, so that it outlasts a restart", setListen(s, target))
	case s.Limit < s.Configured:
		say("restart uWSGI to get the listen = %d that it is configured to: a reload does not do it, and before 2.0.18 `socket = :0` ignored it", s.Configured)
	}
	return advice
}

// setListen writes the line as the file at ConfiguredAt would have it.
func setListen(s facts.Socket, n int) string {
	file, _, _ := strings.Cut(s.ConfiguredAt, ":")
	line := fmt.Sprintf("listen = %d", n)
	switch filepath.Ext(file) {
	case ".yaml", ".yml":
		line = fmt.Sprintf("listen: %d", n)
	case ".json", ".js":
		line = fmt.Sprintf(`"listen": %d`, n)
	case ".xml":
		line = fmt.Sprintf("<listen>%d</listen>", n)
	}
	switch {
	case s.Configured == 0 || s.ConfiguredAt == "" || s.ConfiguredAt == "default":
		return fmt.Sprintf("set `%s` in uWSGI's configuration", line)
	case s.ConfiguredAt == "command line":
		return fmt.Sprintf("start uWSGI with `--listen %d` (now %d)", n, s.Configured)
	case strings.HasPrefix(s.ConfiguredAt, "environment"):
		return fmt.Sprintf("set `UWSGI_LISTEN=%d` in uWSGI's environment (now %d)", n, s.Configured)
	}
	return fmt.Sprintf("set `%s` in %s (now %d)", line, s.ConfiguredAt, s.Configured)
}

func count(workers []facts.Worker, is func(facts.Worker) bool) (n int) {
	for _, w := range workers {
		if is(w) {
			n++
		}
	}
	return n
}

// all is the subject of a sentence about every worker.
func all(n int) string {
	if n == 1 {
		return "its only worker is"
	}
	return fmt.Sprintf("all %d workers are", n)
}

// short writes a time for people.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// number writes a rate for people.
func number(rate float64) string {
	if rate >= 10 {
		return fmt.Sprintf("%.0f", rate)
	}
	return fmt.Sprintf("%.1f", rate)
}
