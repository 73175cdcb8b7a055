package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"qwatch/internal/text"
	"qwatch/remediate"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

// report says what happens: a line of log, its event, a count, and a token for
// systemd's status line. What does not change is said once.
type report struct {
	log    zerolog.Logger
	counts counts
	// changed holds a token when something happened that a status line tells.
	changed chan struct{}
	said    map[string]string // the newest words about a subject
	// What strangers cause goes through tally, by its origin.
	tally   *tally
	origins *origins
	// refusals are the newest words about each uWSGI that would not start.
	refusals map[string]string
}

func newReport(log zerolog.Logger) report {
	return report{
		log: log, counts: newCounts(), changed: make(chan struct{}, 1), said: map[string]string{},
		tally: newTally(log), origins: &origins{known: map[string]origin{}}, refusals: map[string]string{},
	}
}

// maxSaid bounds what is remembered of what was said.
const maxSaid = 1024

// news reports whether this was not the last word about a subject.
func (r *report) news(subject, words string) bool {
	if r.said[subject] == words {
		return false
	}
	if len(r.said) >= maxSaid {
		clear(r.said)
	}
	r.said[subject] = words
	return true
}

// refresh lets systemd's status line be made anew.
func (r *report) refresh() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// unseen says that the host, or the trail, cannot be seen. It returns why the
// host cannot, "" where it can.
func (r *report) unseen(ctx context.Context, host, history error) string {
	text := ""
	for _, e := range []struct {
		subject, words string
		err            error
	}{
		{"host", "cannot look at the host; nothing is done until that works", host},
		{"trail", "cannot read what was done before; nothing is done until that works", history},
	} {
		switch {
		case e.err == nil:
			delete(r.said, e.subject)
		case ctx.Err() == nil:
			if e.subject == "host" {
				text = e.err.Error()
			}
			if r.news(e.subject, e.err.Error()) {
				r.log.Error().Err(e.err).Msg(e.words)
			}
		}
	}
	return text
}

// silent says that the host does not answer.
func (r *report) silent(ctx context.Context, since time.Duration) string {
	text := fmt.Sprintf("no answer within %s", silence)
	if ctx.Err() == nil && r.news("host", text) { // at the end nobody looks any more
		r.log.Error().Dur("after", since).Msg("the host has not answered for a second (a slow /proc, or a slow disk with the audit trail?); nothing is done until it does")
	}
	return text
}

// event begins a log line about an incident.
func (r *report) event(level zerolog.Level, name string, oc *openCase, s facts.Snapshot) *zerolog.Event {
	e := r.log.WithLevel(level).Str(eventField, name).
		Str("socket", oc.incident.Socket).Str("incident", oc.incident.ID)
	if socket, ok := s.Find(oc.id); ok {
		return e.Int("length", socket.Length).Int("limit", socket.Limit)
	}
	return e.Int("length", oc.incident.Peak).Int("limit", oc.incident.Limit)
}

// opened tells of a new incident: of each one that the kernel confirms, but for
// more of one user than a host has at a time; of the others only the first from
// each source.
func (r *report) opened(oc *openCase, s facts.Snapshot) {
	r.refresh()
	if oc.uid != strangers {
		r.counts.incidents.Add(1)
	}
	r.maybeTell(oc, s)
}

func (r *report) maybeTell(oc *openCase, s facts.Snapshot) {
	most, what := 1, topic{r.origins.remembered(oc.opener.Source), "records say that a queue is full, and the kernel does not confirm it", systemd.EventIncidentOpened}
	switch {
	case oc.proven:
		most, what.source, what.kind = maxTold, fmt.Sprintf("uWSGI of user %d", oc.uid), "a queue is full"
		if oc.uid == strangers {
			what.source = "uWSGIs that qwatch does not act on"
		}
	case oc.lost != nil:
		what.kind = "records of a full queue fit no socket"
	}
	if r.tally.among(most, what, oc.incident.Socket) {
		r.tellOpened(oc, s)
	}
}

// maxTold is how many incidents of one user are told of at a time.
const maxTold = 32

func (r *report) tellOpened(oc *openCase, s facts.Snapshot) {
	h := oc.opener
	oc.told = true
	r.event(zerolog.WarnLevel, systemd.EventIncidentOpened, oc, s).Int("hits", oc.incident.Hits).Str("source", h.Source).
		Msgf("listen queue of %s is full: %s so, the last one %d of %d",
			oc.incident.Socket, text.Plural(oc.incident.Hits, "record says", "records say"), h.Length, h.Limit)
}

func (r *report) closed(oc *openCase, s facts.Snapshot) {
	r.refresh()
	if !oc.told {
		return
	}
	i := oc.incident
	r.event(zerolog.InfoLevel, systemd.EventIncidentClosed, oc, s).Int("hits", i.Hits).
		Msgf("incident at %s is over: %s in %s, longest queue %d", i.Socket, text.Plural(i.Hits, "record", "records"), i.Last.Sub(i.First).Round(time.Second), i.Peak)
}

// plan says what was decided, each kind of answer once for each action taken:
// an incident brings a hit each second, and the same answer to each. What was
// not told of is told now, where something is done about it or the kernel has
// come to confirm it.
func (r *report) plan(oc *openCase, plan remediate.Plan, s facts.Snapshot, proven bool) {
	if oc.said[plan.Code] {
		return
	}
	oc.said[plan.Code] = true
	if oc.uid != strangers {
		r.counts.plans.Add(1, string(plan.Verdict), string(plan.Code))
	}
	switch {
	case oc.told:
	case plan.Verdict == remediate.Act:
		r.tellOpened(oc, s)
	case proven && !oc.proven:
		oc.proven = true
		r.maybeTell(oc, s)
	}
	if !oc.told {
		return
	}
	level, name := zerolog.InfoLevel, ""
	switch {
	case plan.Code == remediate.CodeGaveUp:
		level, name = zerolog.ErrorLevel, systemd.EventGaveUp
	case plan.Verdict == remediate.Refuse:
		level, name = zerolog.WarnLevel, systemd.EventPlanRefused
	}
	e := r.log.WithLevel(level).Str("plan", plan.ID)
	if name != "" {
		e = e.Str(eventField, name)
	}
	r.told(e, plan)
}

func (r *report) kept(plan remediate.Plan) {
	r.told(r.log.Warn().Str(eventField, systemd.EventLimitKept).Str("plan", plan.ID), plan)
}

func (r *report) startRefused(source string, plan remediate.Plan) {
	known := r.refusals[plan.Name] == plan.Reason
	if len(r.refusals) >= maxRefused {
		clear(r.refusals)
	}
	r.refusals[plan.Name] = plan.Reason
	what := topic{r.origins.remembered(source), "a uWSGI says that it would not start", systemd.EventStartRefused}
	if plan.Verdict == remediate.Act || !known && r.tally.first(what, plan.Name) {
		r.told(r.log.Error().Str(eventField, systemd.EventStartRefused).Str("plan", plan.ID).Str("source", source), plan)
	}
}

// told ends a log line with a plan, and gives its advice.
func (r *report) told(e *zerolog.Event, plan remediate.Plan) {
	logPlan(e, plan).Msg(sentence(plan))
	for _, a := range plan.Advice {
		e := r.log.Info().Str("socket", plan.Name).Str("plan", plan.ID)
		if plan.Incident != "" {
			e = e.Str("incident", plan.Incident)
		}
		e.Msgf("advice for %s: %s", plan.Name, a)
	}
}

func (r *report) bootLoss(loss remediate.BootLoss) {
	if text := loss.String(); r.news("boot value of "+loss.Key, text) {
		r.log.Warn().Str(eventField, systemd.EventBootLoses).Str("key", loss.Key).Str("file", loss.Winner.File).
			Int("line", loss.Winner.Line).Int("from", loss.Ours).Int("to", loss.Winner.Value).Msg(text)
	}
}

func (r *report) acted(outcomes []remediate.Outcome) {
	for _, o := range outcomes {
		r.counts.actions.Add(1, string(o.Action.Describe().Kind), string(o.Result))
		if o.Served != nil && o.Late == nil { // of what goes on the second word counts
			r.counts.unserved.Add(o.Served.Intake.Unserved.Seconds())
			r.counts.cut.Add(float64(o.Served.Cut()))
		}
	}
}

func (r *report) recovered(begun, end remediate.Event) {
	how := string(end.Result)
	if end.Error != "" {
		how += ", " + end.Error
	}
	r.log.Warn().Str(eventField, systemd.EventActionRecovered).Str("socket", begun.Socket).Str("incident", begun.Incident).
		Str("plan", begun.Plan).Str("action", string(begun.Action)).Str("result", string(end.Result)).
		Msgf("a former qwatch was interrupted at %s of %s: %s; it is not done again", begun.Action, begun.Target, how)
}

// sentence is a plan as one that stands alone.
func sentence(plan remediate.Plan) string {
	if plan.Verdict == remediate.Act && strings.Contains(plan.Reason, plan.Name) {
		return "plan: " + plan.Reason
	}
	return fmt.Sprintf("%s %s: %s", verdictWords[plan.Verdict], plan.Name, plan.Reason)
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
