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
	facts   facts.Snapshot
	record  diagnose.Record
	policy  remediate.Policy
	history remediate.History // no older than the looks
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

func (s *survey) looks() remediate.Looks {
	return remediate.Looks{Policy: s.policy, Facts: s.facts, Record: &s.record, History: s.history, Now: time.Now()}
}

// ask is the case of one socket; serial tells plans of one survey apart.
func (s *survey) ask(socket facts.Socket, serial int) remediate.Case {
	return remediate.Case{
		Facts: s.facts, Socket: socket, Serial: serial,
		Evidence:  s.looks().Evidence(socket, time.Time{}),
		Diagnosis: s.looks().Diagnose(socket, false),
	}
}

// report tells of the host. journal says whether one is to be followed.
func (s *survey) report(journal bool) remediate.Report {
	diagnoses := map[facts.SocketID]diagnose.Diagnosis{}
	for _, socket := range s.facts.Sockets {
		diagnoses[socket.ID] = s.looks().Diagnose(socket, false)
	}
	return remediate.MakeReport(s.policy, s.facts, diagnoses, journal)
}
