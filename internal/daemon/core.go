package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"qwatch/remediate/facts"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/systemd"
)

// Host is what the daemon needs of the host.
type Host interface {
	// Observe shows everything that a decision may depend on.
	Observe(ctx context.Context) (facts.Snapshot, error)
	// Sample looks at the accept queues only.
	Sample(ctx context.Context) ([]facts.Sample, error)
	// Refused finds with which listen backlog a unit that is down would start,
	// and where that is configured.
	Refused(ctx context.Context, unit string) (listen int, at string, err error)
}

const (
	// lookEvery is how often the queues are looked at while an incident waits
	// for what the kernel shows, and lookLeast the least time between two
	// looks, however many hits come.
	lookEvery = 250 * time.Millisecond
	lookLeast = 100 * time.Millisecond
	// observeLeast is the least time between two full observations.
	observeLeast = 500 * time.Millisecond
	// evidenceSpan is how far back readings count as evidence.
	evidenceSpan = 15 * time.Second
	keepReadings = 8192
	// admitted is how many sockets of one user may have hits at a time.
	admitted = 64
	// logDelay is how much later than the kernel a log may tell of a full
	// queue: uWSGI's master looks once a second.
	logDelay = 1500 * time.Millisecond
	// keepClosed is how many closed incidents status shows.
	keepClosed = 50
)

// core owns everything that changes while qwatch runs: the book, what was
// read of the kernel, and what became of each incident. Only its own goroutine
// (loop) touches it.
type core struct {
	host     Host
	newActor func(*config.Config) remediate.Actor
	trail    *remediate.Trail
	log      zerolog.Logger

	actor remediate.Actor
	next  *config.Config // to be taken over when the action under way has ended

	policy remediate.Policy
	probe  time.Duration
	quiet  time.Duration
	book   *matcher.Book

	hits  chan matcher.Hit
	marks chan matcher.Mark
	calls chan func(ctx context.Context)
	acted chan acted
	// changed holds a token when something happened that a status line tells.
	changed chan struct{}

	facts    facts.Snapshot // the newest observation
	factsErr string         // the error of the last one, said once
	signs
	looked   time.Time
	cases    map[string]*openCase // by incident id
	closed   []matcher.Incident   // newest last
	lastPlan map[string]string    // plan id by incident id
	turns    map[int]int          // plans begun by user, since an incident was open
	// admitted are the sockets of each user that have hits, and when the last
	// one came.
	admitted   map[int]map[string]time.Time
	considered time.Time // when all cases were
	acting     bool
	spoke      map[facts.SocketID]time.Time    // last hit from a log
	silent     map[facts.SocketID]matcher.Hit  // of the last probe, unless the log speaks too
	probed     map[facts.SocketID]facts.Sample // by the last probe
	socketHit  map[facts.SocketID]uint64
	probeHits  uint64
	kept       map[facts.SocketID]bool // sockets that Keep has seen
	down       map[string]time.Time    // when a uWSGI that would not start was looked at, by unit or source
	downSaid   map[string]string       // and what was said of it
	warned     map[string]bool         // warnings about the next boot
	counts     counts
}

// openCase is an open incident and what became of it.
type openCase struct {
	incident matcher.Incident
	socket   facts.SocketID
	uid      int // who runs the uWSGI, -1 where there is none
	lost     error
	said     map[remediate.Code]bool // plans that were logged since the last action
	held     time.Time               // no plan before: the trail took no word of the last one
}

// acted is what an action's goroutine reports when it is done.
type acted struct {
	plan     remediate.Plan
	outcomes []remediate.Outcome
}

func newCore(host Host, newActor func(*config.Config) remediate.Actor, trail *remediate.Trail, log zerolog.Logger) *core {
	return &core{
		host: host, newActor: newActor, trail: trail, log: log,
		hits:      make(chan matcher.Hit, 256),
		marks:     make(chan matcher.Mark, 256),
		calls:     make(chan func(context.Context)),
		acted:     make(chan acted),
		changed:   make(chan struct{}, 1),
		cases:     map[string]*openCase{},
		lastPlan:  map[string]string{},
		turns:     map[int]int{},
		admitted:  map[int]map[string]time.Time{},
		spoke:     map[facts.SocketID]time.Time{},
		silent:    map[facts.SocketID]matcher.Hit{},
		probed:    map[facts.SocketID]facts.Sample{},
		kept:      map[facts.SocketID]bool{},
		down:      map[string]time.Time{},
		downSaid:  map[string]string{},
		warned:    map[string]bool{},
		socketHit: map[facts.SocketID]uint64{},
		counts:    newCounts(),
	}
}

// configure takes a new configuration over, after the action under way.
// Incidents, cooldowns and readings stay.
func (c *core) configure(cfg *config.Config) {
	if c.acting {
		c.next = cfg
		return
	}
	c.next = nil
	c.actor = c.newActor(cfg)
	c.policy = cfg.Policy
	c.probe = cfg.Probe.Interval
	c.quiet = cfg.Group.Quiet
	if c.book == nil {
		c.book = matcher.NewBook(cfg.Group.Window, cfg.Group.Quiet, cfg.Group.Threshold)
		return
	}
	c.book.Configure(cfg.Group.Window, cfg.Group.Quiet, cfg.Group.Threshold)
}

// loop runs until the sources are done, which end with ctx, and then until the
// action under way has ended.
func (c *core) loop(ctx context.Context, sourcesDone <-chan struct{}) error {
	c.recover(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var nextProbe time.Time
	for {
		now := time.Now()
		if c.probe > 0 && !now.Before(nextProbe) {
			c.look(ctx, now)
			c.meet(ctx, now)
			c.probeHit(ctx, now)
			nextProbe = now.Add(c.probe)
		}
		c.expire(now)
		if c.undecided() && now.Sub(c.looked) >= lookEvery {
			c.look(ctx, now)
			c.consider(ctx, now)
		}
		timer.Reset(c.wakeAfter(now, nextProbe))
		select {
		case <-sourcesDone:
			if c.acting {
				c.finished(<-c.acted)
			}
			return nil
		case h := <-c.hits:
			c.hit(ctx, h)
		case m := <-c.marks:
			c.mark(ctx, m)
		case call := <-c.calls:
			call(ctx)
		case a := <-c.acted:
			c.finished(a)
			if c.next != nil {
				c.configure(c.next)
			}
			// Where raising in place failed, a reload may be next.
			now := time.Now()
			c.look(ctx, now)
			c.observe(ctx, now, 0)
			c.consider(ctx, now)
		case <-timer.C:
		}
	}
}

// wakeAfter is how long nothing needs to be done if nothing happens.
func (c *core) wakeAfter(now, nextProbe time.Time) time.Duration {
	at := now.Add(24 * time.Hour)
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if c.probe > 0 {
		earlier(nextProbe)
	}
	if t, ok := c.book.Next(); ok {
		earlier(t)
	}
	if c.undecided() {
		earlier(c.looked.Add(lookEvery))
	}
	return max(0, at.Sub(now))
}

// undecided reports whether an incident is open that looking again may decide.
func (c *core) undecided() bool {
	if c.acting {
		return false
	}
	for _, oc := range c.cases {
		if oc.lost == nil {
			return true
		}
	}
	return false
}

// touch lets systemd's status line be made anew.
func (c *core) touch() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// call runs f in the core's goroutine and waits for it.
func (c *core) call(ctx context.Context, f func(context.Context)) error {
	done := make(chan struct{})
	select {
	case c.calls <- func(ctx context.Context) { f(ctx); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// observe brings the facts up to date unless they are younger than least.
func (c *core) observe(ctx context.Context, now time.Time, least time.Duration) {
	if now.Sub(c.facts.At) < least {
		return
	}
	snapshot, err := c.host.Observe(ctx)
	if err != nil {
		if text := err.Error(); ctx.Err() == nil && text != c.factsErr {
			c.factsErr = text
			c.log.Error().Err(err).Msg("cannot observe the host; nothing is done until that works")
		}
		return
	}
	c.factsErr = ""
	c.facts = snapshot
	c.saw(snapshot)
	alive := map[facts.SocketID]bool{}
	for _, s := range snapshot.Sockets {
		alive[s.ID] = true
	}
	gone := func(id facts.SocketID) bool { return !alive[id] }
	maps.DeleteFunc(c.spoke, func(id facts.SocketID, _ time.Time) bool { return gone(id) })
	maps.DeleteFunc(c.socketHit, func(id facts.SocketID, _ uint64) bool { return gone(id) })
	maps.DeleteFunc(c.probed, func(id facts.SocketID, _ facts.Sample) bool { return gone(id) })
	maps.DeleteFunc(c.kept, func(id facts.SocketID, _ bool) bool { return gone(id) })
	c.warnOfBoot()
	c.keep(ctx, now)
}

// warnOfBoot says which settings a reboot would lose, each once.
func (c *core) warnOfBoot() {
	for _, loss := range remediate.BootLosses(c.policy, c.facts) {
		if text := loss.String(); !c.warned[text] {
			c.warned[text] = true
			c.log.Warn().Str(eventField, systemd.EventBootLoses).Str("key", loss.Key).Str("file", loss.Winner.File).
				Int("line", loss.Winner.Line).Int("from", loss.Ours).Int("to", loss.Winner.Value).Msg(text)
		}
	}
}

// keep gives a restarted uWSGI the limit that its socket had, before the queue
// is full again. Each new socket is looked at once.
func (c *core) keep(ctx context.Context, now time.Time) {
	for _, s := range c.facts.Sockets {
		if c.acting || ctx.Err() != nil {
			return
		}
		if c.kept[s.ID] {
			continue
		}
		history, err := c.trail.History()
		if err != nil {
			return // consider says so
		}
		c.kept[s.ID] = true
		plan := remediate.Keep(c.policy, c.facts, s, history, now)
		if plan.Verdict != remediate.Act {
			continue
		}
		e := c.log.Warn().Str(eventField, systemd.EventLimitKept).Str("plan", plan.ID)
		logPlan(e, plan).Msg(sentence(plan))
		c.advise(plan)
		c.begin(ctx, plan)
	}
}

// look takes a reading of every queue.
func (c *core) look(ctx context.Context, now time.Time) {
	c.looked = now
	readings, err := c.host.Sample(ctx)
	if err != nil {
		if text := err.Error(); ctx.Err() == nil && text != c.factsErr {
			c.factsErr = text
			c.log.Error().Err(err).Msg("cannot look at the accept queues")
		}
		return
	}
	c.read(readings, now)
}

// hit takes one record from a log.
func (c *core) hit(ctx context.Context, h matcher.Hit) {
	now := time.Now()
	c.counts.hits.Inc()
	if now.Sub(c.looked) >= lookLeast {
		c.look(ctx, now)
	}
	c.observe(ctx, now, observeLeast)
	socket, err := facts.Locate(h, c.facts.Sockets)
	// All records that fit no socket share one incident for each source: what
	// strangers write must not fill the memory or the journal.
	key := "lost/" + h.Source
	if err == nil {
		key, h.Socket = socket.Key(), socket.Name()
		c.spoke[socket.ID] = now
		c.socketHit[socket.ID]++
	}
	c.enter(ctx, key, h, socket.ID, err, now)
}

// meet observes the host when the last look found a socket that is new.
func (c *core) meet(ctx context.Context, now time.Time) {
	for i := len(c.readings) - 1; i >= 0 && !c.readings[i].At.Before(c.looked); i-- {
		if _, known := c.facts.Find(c.readings[i].ID); !known {
			c.observe(ctx, now, 0)
			return
		}
	}
}

// probeHit makes hits of queues that the last look found full, or overflown
// since the probe before, although the log is silent: a UNIX socket never
// prints the line, an old uWSGI on IPv6 neither. uWSGI's line comes up to a
// second late, so a hit waits for the next probe.
func (c *core) probeHit(ctx context.Context, now time.Time) {
	for id, h := range c.silent {
		delete(c.silent, id)
		c.observe(ctx, now, observeLeast)
		socket, ok := c.facts.Find(id)
		if !ok || c.spoke[id].Add(c.probe+logDelay).After(now) {
			continue
		}
		c.probeHits++
		c.socketHit[id]++
		h.Socket, h.PID, h.Unit = socket.Name(), socket.Master.PID, socket.Master.Unit
		c.enter(ctx, socket.Key(), h, id, nil, now)
	}
	for i := len(c.readings) - 1; i >= 0 && !c.readings[i].At.Before(c.looked); i-- {
		r := c.readings[i]
		before, known := c.probed[r.ID]
		c.probed[r.ID] = r
		socket, _ := c.facts.Find(r.ID)
		// A burst may come and go between two probes. Where no other socket
		// accepts connections, the overflows that it leaves are this one's.
		burst := known && r.Overflows > before.Overflows && socket.SoleListener
		if burst && !r.Full() {
			r.Length = r.Limit + 1
		}
		if r.Full() {
			c.silent[r.ID] = matcher.Hit{FD: -1, Length: r.Length, Limit: r.Limit, Source: "probe"}
		}
	}
}

// enter puts a hit in the book and considers what it means.
func (c *core) enter(ctx context.Context, key string, h matcher.Hit, id facts.SocketID, lost error, now time.Time) {
	// The book runs on the clock of this host: a record's own time can be
	// anything.
	h.At = now
	uid := -1
	if s, ok := c.facts.Find(id); ok {
		uid = s.Master.UID
	}
	if !c.admit(uid, key, now) {
		return
	}
	incident, event := c.book.Add(key, h, now)
	switch event {
	case matcher.Opened:
		oc := &openCase{incident: incident, socket: id, uid: uid, lost: lost, said: map[remediate.Code]bool{}}
		c.touch()
		c.cases[incident.ID] = oc
		c.counts.incidents.Inc()
		c.event(zerolog.WarnLevel, systemd.EventIncidentOpened, oc).
			Int("hits", incident.Hits).Str("source", h.Source).
			Msgf("listen queue of %s is full: %d records say so, the last one %d of %d", incident.Socket, incident.Hits, h.Length, h.Limit)
	case matcher.Updated:
		oc := c.cases[incident.ID]
		oc.incident, oc.socket, oc.lost = incident, id, lost
	default:
		return
	}
	if event == matcher.Opened || now.Sub(c.considered) >= lookLeast {
		c.consider(ctx, now)
	}
}

// admit lets in only so many sockets of one user, so that nobody can fill the
// book and keep the loop busy with full queues that he makes himself.
func (c *core) admit(uid int, key string, now time.Time) bool {
	mine := c.admitted[uid]
	if _, ok := mine[key]; !ok && len(mine) >= admitted {
		maps.DeleteFunc(mine, func(_ string, last time.Time) bool { return now.Sub(last) > c.quiet })
		if len(mine) >= admitted {
			return false
		}
	}
	if mine == nil {
		mine = map[string]time.Time{}
		c.admitted[uid] = mine
	}
	mine[key] = now
	return true
}

// expire closes the incidents that have been quiet.
func (c *core) expire(now time.Time) {
	for _, incident := range c.book.Expire(now) {
		c.touch()
		oc := c.cases[incident.ID]
		delete(c.cases, incident.ID)
		if c.closed = append(c.closed, incident); len(c.closed) > keepClosed {
			delete(c.lastPlan, c.closed[0].ID)
			c.closed = slices.Delete(c.closed, 0, 1)
		}
		oc.incident = incident
		c.event(zerolog.InfoLevel, systemd.EventIncidentClosed, oc).Int("hits", incident.Hits).
			Msgf("incident at %s is over: %d records in %s, longest queue %d", incident.Socket, incident.Hits,
				incident.Last.Sub(incident.First).Round(time.Second), incident.Peak)
	}
	if len(c.cases) == 0 {
		clear(c.turns)
	}
}

// event begins a log line about a case.
func (c *core) event(level zerolog.Level, name string, oc *openCase) *zerolog.Event {
	e := c.log.WithLevel(level).Str(eventField, name).
		Str("socket", oc.incident.Socket).Str("incident", oc.incident.ID)
	if s, ok := c.facts.Find(oc.socket); ok {
		return e.Int("length", s.Length).Int("limit", s.Limit)
	}
	return e.Int("length", oc.incident.Peak).Int("limit", oc.incident.Limit)
}

// consider decides about every open incident and begins to act on the first
// that asks for it: the users in turn, and each user's incidents in the order
// in which they began. Any user may run a thousand processes called uwsgi with
// full queues; nobody else's uWSGI shall wait for all of them.
func (c *core) consider(ctx context.Context, now time.Time) {
	c.considered = now
	open := slices.SortedFunc(maps.Values(c.cases), func(a, b *openCase) int {
		return cmp.Or(cmp.Compare(c.turns[a.uid], c.turns[b.uid]), a.incident.First.Compare(b.incident.First))
	})
	for _, oc := range open {
		if c.acting || ctx.Err() != nil {
			return
		}
		if now.Before(oc.held) {
			continue
		}
		c.observe(ctx, now, observeLeast)
		history, err := c.trail.History()
		if err != nil {
			c.log.Error().Err(err).Msg("cannot read what was done before; nothing is done now")
			return
		}
		plan := c.decide(oc, history, now)
		if plan.Verdict != remediate.Act {
			c.say(oc, plan)
			continue
		}
		c.lastPlan[oc.incident.ID] = plan.ID
		c.turns[oc.uid]++
		clear(oc.said)
		c.say(oc, plan)
		// After a raise it is no news that the queue is not full, nor that
		// the next raise must wait.
		oc.said[remediate.CodeUncorroborated], oc.said[remediate.CodeCooldown] = true, true
		c.begin(ctx, plan)
	}
}

func (c *core) decide(oc *openCase, history remediate.History, now time.Time) remediate.Plan {
	cs := remediate.Case{Incident: oc.incident, Facts: c.facts, Lost: oc.lost}
	if oc.lost == nil {
		var found bool
		if cs.Socket, found = c.facts.Find(oc.socket); !found {
			cs.Lost = fmt.Errorf("%s is no longer listened on", oc.incident.Socket)
		}
		since := now.Add(-evidenceSpan)
		if last, ok := history.LastRaise(cs.Socket); ok && last.After(since) && !last.After(now) {
			since = last
		}
		cs.Evidence = facts.Weigh(oc.socket, c.readings, since)
		cs.Diagnosis = c.diagnose(c.policy, c.facts, cs.Socket, oc.incident.Peak == 0)
	}
	return remediate.Decide(c.policy, cs, history, now)
}

// say logs a plan, each kind of answer once for each action taken: an incident
// brings a hit each second, and the same answer to each.
func (c *core) say(oc *openCase, plan remediate.Plan) {
	if oc.said[plan.Code] {
		return
	}
	oc.said[plan.Code] = true
	c.counts.plans.WithLabelValues(string(plan.Verdict), string(plan.Code)).Inc()
	level, name := zerolog.InfoLevel, ""
	switch {
	case plan.Code == remediate.CodeGaveUp:
		level, name = zerolog.ErrorLevel, systemd.EventGaveUp
	case plan.Verdict == remediate.Refuse:
		level, name = zerolog.WarnLevel, systemd.EventPlanRefused
	}
	e := c.log.WithLevel(level).Str("plan", plan.ID)
	if name != "" {
		e = e.Str(eventField, name)
	}
	logPlan(e, plan).Msg(sentence(plan))
	c.advise(plan)
}

// sentence is a plan as one that stands alone.
func sentence(plan remediate.Plan) string {
	if plan.Verdict == remediate.Act && strings.Contains(plan.Reason, plan.Name) {
		return "plan: " + plan.Reason
	}
	return fmt.Sprintf("%s %s: %s", verdictWords[plan.Verdict], plan.Name, plan.Reason)
}

func (c *core) advise(plan remediate.Plan) {
	for _, a := range plan.Advice {
		e := c.log.Info().Str("socket", plan.Name).Str("plan", plan.ID)
		if plan.Incident != "" {
			e = e.Str("incident", plan.Incident)
		}
		e.Msgf("advice for %s: %s", plan.Name, a)
	}
}

var verdictWords = map[remediate.Verdict]string{
	remediate.Act:     "plan for",
	remediate.Wait:    "waiting with",
	remediate.Refuse:  "leaving alone",
	remediate.Nothing: "nothing to do for",
}

// logPlan puts all members of a plan's JSON on a log line.
func logPlan(e *zerolog.Event, plan remediate.Plan) *zerolog.Event {
	text, err := json.Marshal(plan)
	if err != nil {
		return e.AnErr("plan_error", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return e.AnErr("plan_error", err)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if string(members[name]) != "null" {
			e = e.RawJSON(name, members[name])
		}
	}
	return e
}
