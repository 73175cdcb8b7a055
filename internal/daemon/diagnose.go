package daemon

import (
	"context"
	"slices"
	"time"

	"qwatch/internal/config"
	"qwatch/matcher"
	"qwatch/remediate"
)

const (
	// signSpan is how far back a diagnosis looks.
	signSpan = time.Minute
	// looksApart is the least time between two observations that are kept for
	// it, which bounds their number.
	looksApart = 2 * time.Second
	keepMarks  = 1024
)

// signs is what diagnoses are made from, the oldest first.
type signs struct {
	past     []remediate.Facts
	marks    []matcher.Mark // At is when they were read
	readings []remediate.Reading
}

// saw keeps an observation.
func (s *signs) saw(f remediate.Facts) {
	s.past = slices.DeleteFunc(s.past, func(old remediate.Facts) bool { return f.At.Sub(old.At) > signSpan })
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
func (s *signs) read(readings []remediate.Reading, now time.Time) {
	s.readings = append(s.readings, readings...)
	old := 0
	for old < len(s.readings) && now.Sub(s.readings[old].At) > signSpan {
		old++
	}
	s.readings = slices.Delete(s.readings, 0, max(old, len(s.readings)-keepReadings))
}

// diagnose says why the queue of a socket is full.
func (s *signs) diagnose(p remediate.Policy, f remediate.Facts, socket remediate.Socket, garbage bool) remediate.Diagnosis {
	in := remediate.Signs{
		Now:      remediate.Look{At: f.At, Booted: f.Booted, Socket: socket},
		Readings: s.readings, Alone: socket.Alone, Garbage: garbage, Policy: p,
	}
	for _, old := range s.past {
		if before, ok := old.Find(socket.ID); ok && old.At.Before(f.At) {
			in.Before = remediate.Look{At: old.At, Booted: old.Booted, Socket: before}
			break
		}
	}
	for _, m := range s.marks {
		if socket.Wrote(m.Writer, m.Unit, m.Source) {
			in.Marks = append(in.Marks, m)
		}
	}
	return remediate.Diagnose(in)
}

// checkupLooks and checkupEvery are how long `qwatch doctor` looks: long
// enough to see how the workers fare.
const (
	checkupLooks = 12
	checkupEvery = 200 * time.Millisecond
)

// Checkup looks at the host for a while and examines it.
func Checkup(ctx context.Context, host Host, cfg *config.Config) (remediate.Checkup, error) {
	var s signs
	policy := PolicyOf(cfg)
	before, err := host.Observe(ctx)
	if err != nil {
		return remediate.Checkup{}, err
	}
	s.saw(before)
	for range checkupLooks {
		readings, err := host.Sample(ctx)
		if err != nil {
			return remediate.Checkup{}, err
		}
		s.read(readings, time.Now())
		select {
		case <-ctx.Done():
			return remediate.Checkup{}, ctx.Err()
		case <-time.After(checkupEvery):
		}
	}
	facts, err := host.Observe(ctx)
	if err != nil {
		return remediate.Checkup{}, err
	}
	diagnoses := map[remediate.SocketID]remediate.Diagnosis{}
	for _, socket := range facts.Sockets {
		diagnoses[socket.ID] = s.diagnose(policy, facts, socket, false)
	}
	journal := slices.ContainsFunc(cfg.Sources, func(src config.Source) bool { return len(src.Journal) > 0 })
	return remediate.Examine(policy, facts, diagnoses, journal), nil
}
