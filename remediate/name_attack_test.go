package remediate

import (
	"testing"
	"time"
)

// Any user can bind a UNIX socket to the relative path "127.0.0.1:5000", name
// its process uwsgi and keep its queue full. What is done about that one must
// not hold up the real one.
func TestCooldownIsNotSharedByName(t *testing.T) {
	c := full()
	impostor := past(time.Second, "inc-9.1", "relisten", Applied)
	impostor.PID, impostor.Start, impostor.Incident = c.Socket.Master.PID+1, c.Socket.Master.Start+1, "inc-9"
	if plan := Decide(defaults(), c, History{impostor}, now); plan.Verdict != Act {
		t.Errorf("held up by another master's socket of the same name: %s: %s", plan.Code, plan.Reason)
	}
	own := past(time.Second, "inc-9.1", "relisten", Applied)
	if plan := Decide(defaults(), c, History{own, impostor}, now); plan.Code != CodeCooldown {
		t.Errorf("the own cooldown does not hold: %s: %s", plan.Code, plan.Reason)
	}
}
