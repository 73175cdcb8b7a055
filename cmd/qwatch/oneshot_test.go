package main

import (
	"errors"
	"testing"

	"qwatch/remediate"
)

// What was not done, or not seen to help, is no success.
func TestOutcome(t *testing.T) {
	raise := remediate.Plan{Actions: []remediate.Action{remediate.Relisten{}}}
	applied := []remediate.Outcome{{Action: raise.Actions[0], Result: remediate.Applied}}
	for name, c := range map[string]struct {
		done remediate.Done
		good bool
	}{
		"nothing to do": {remediate.Done{}, true},
		"done":          {remediate.Done{Plan: raise, Outcomes: applied}, true},
		"not begun":     {remediate.Done{Plan: raise}, false},
		"failed":        {remediate.Done{Plan: raise, Outcomes: []remediate.Outcome{{Result: remediate.Failed, Err: errors.New("no")}}}, false},
		"not judged":    {remediate.Done{Plan: raise, Outcomes: applied, Err: remediate.ErrUnjudged}, false},
	} {
		if err := outcome([]remediate.Done{c.done}); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
