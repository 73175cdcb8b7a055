package main

import (
	"context"
	"time"

	"qwatch/remediate"
	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

// A survey looks this often: long enough for a queue that is full in waves to
// show, and for how the workers fare.
const (
	surveyLooks = 12
	surveyEvery = 200 * time.Millisecond
)

// survey is what a command by hand finds out about the host.
type survey struct {
	facts  facts.Snapshot
	record diagnose.Record
	policy remediate.Policy
}

// newSurvey looks at the host for a while.
func newSurvey(ctx context.Context, h outside, policy remediate.Policy) (*survey, error) {
	s := &survey{policy: policy}
	before, err := h.Observe(ctx)
	if err != nil {
		return nil, err
	}
	s.record.AddSnapshot(before)
	for range surveyLooks {
		samples, err := h.Sample(ctx)
		if err != nil {
			return nil, err
		}
		s.record.AddSamples(samples, time.Now())
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(surveyEvery):
		}
	}
	s.facts, err = h.Observe(ctx)
	return s, err
}

func (s *survey) diagnose(socket facts.Socket) diagnose.Diagnosis {
	return s.record.Diagnose(s.facts, socket, s.policy.Bounds(socket), false)
}

// ask is the case of one socket; serial tells plans of one survey apart.
func (s *survey) ask(socket facts.Socket, serial int) remediate.Case {
	return remediate.Case{
		Facts: s.facts, Socket: socket, Serial: serial,
		Evidence:  facts.Weigh(socket, s.record.Samples(), time.Time{}),
		Diagnosis: s.diagnose(socket),
	}
}

// report tells of the host. journal says whether one is to be followed.
func (s *survey) report(journal bool) remediate.Report {
	diagnoses := map[facts.SocketID]diagnose.Diagnosis{}
	for _, socket := range s.facts.Sockets {
		diagnoses[socket.ID] = s.diagnose(socket)
	}
	return remediate.MakeReport(s.policy, s.facts, diagnoses, journal)
}
