package daemon

import (
	"context"
	"slices"
	"time"

	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

const (
	// signSpan is how far back a diagnosis looks.
	signSpan = time.Minute
	// looksApart is the least time between two observations that are kept for
	// it, which bounds their number.
	looksApart   = 2 * time.Second
	keepMarks    = 1024
	keepReadings = 8192
)

// signs is what diagnoses are made from, the oldest first.
type signs struct {
	past     []facts.Snapshot
	marks    []matcher.Mark // At is when they were read
	readings []facts.Sample
}

// saw keeps an observation.
func (s *signs) saw(f facts.Snapshot) {
	s.past = slices.DeleteFunc(s.past, func(old facts.Snapshot) bool { return f.At.Sub(old.At) > signSpan })
	if n := len(s.past); n == 0 || f.At.Sub(s.past[n-1].At) >= looksApart {
		s.past = append(s.past, f)
	}
}

// heard keeps one of uWSGI's other lines.
func (s *signs) heard(m matcher.Mark, now time.Time) {
	m.At = now
	s.marks = slices.DeleteFunc(s.marks, func(old matcher.Mark) bool { return now.Sub(old.At) > signSpan })
	if len(s.marks) < keepMarks {
		s.marks = append(s.marks, m)
	}
}

// read keeps readings.
func (s *signs) read(readings []facts.Sample, now time.Time) {
	s.readings = append(s.readings, readings...)
	old := 0
	for old < len(s.readings) && now.Sub(s.readings[old].At) > signSpan {
		old++
	}
	s.readings = slices.Delete(s.readings, 0, max(old, len(s.readings)-keepReadings))
}

// diagnose says why the queue of a socket is full.
func (s *signs) diagnose(p remediate.Policy, f facts.Snapshot, socket facts.Socket, garbage bool) remediate.Diagnosis {
	in := remediate.Signs{
		Now:      remediate.Look{At: f.At, Booted: f.Booted, Socket: socket, Stats: socket.Stats},
		Readings: s.readings, Alone: socket.SoleListener, Garbage: garbage, Policy: p,
	}
	for _, old := range s.past {
		before, ok := old.Find(socket.ID)
		if !ok || !old.At.Before(f.At) {
			continue
		}
		look := remediate.Look{At: old.At, Booted: old.Booted, Socket: before, Stats: before.Stats}
		if in.Before.At.IsZero() {
			in.Before = look
		} else {
			in.Between = append(in.Between, look)
		}
	}
	for _, m := range s.marks {
		if socket.Wrote(m.Writer, m.Unit, m.Source) {
			in.Marks = append(in.Marks, m)
		}
	}
	return remediate.Diagnose(in)
}

// A survey looks this often: long enough for a queue that is full in waves to
// show, and for how the workers fare.
const (
	surveyLooks = 12
	surveyEvery = 200 * time.Millisecond
)

// Survey is what a command by hand finds out about the host.
type Survey struct {
	Facts  facts.Snapshot
	signs  signs
	policy remediate.Policy
}

// NewSurvey looks at the host for a while.
func NewSurvey(ctx context.Context, host Host, policy remediate.Policy) (*Survey, error) {
	s := &Survey{policy: policy}
	before, err := host.Observe(ctx)
	if err != nil {
		return nil, err
	}
	s.signs.saw(before)
	for range surveyLooks {
		readings, err := host.Sample(ctx)
		if err != nil {
			return nil, err
		}
		s.signs.read(readings, time.Now())
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(surveyEvery):
		}
	}
	s.Facts, err = host.Observe(ctx)
	return s, err
}

// Plan makes the plan for one socket; serial tells plans of one survey apart.
func (s *Survey) Plan(socket facts.Socket, history remediate.History, serial int, now time.Time) remediate.Plan {
	return remediate.Decide(s.policy, remediate.Case{
		Facts: s.Facts, Socket: socket, Serial: serial,
		Evidence:  facts.Weigh(socket, s.signs.readings, time.Time{}),
		Diagnosis: s.signs.diagnose(s.policy, s.Facts, socket, false),
	}, history, now)
}

// Checkup examines the host. journal says whether one is to be followed.
func (s *Survey) Checkup(journal bool) remediate.Report {
	diagnoses := map[facts.SocketID]remediate.Diagnosis{}
	for _, socket := range s.Facts.Sockets {
		diagnoses[socket.ID] = s.signs.diagnose(s.policy, s.Facts, socket, false)
	}
	return remediate.MakeReport(s.policy, s.Facts, diagnoses, journal)
}
