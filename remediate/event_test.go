package remediate

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEventJSON(t *testing.T) {
	text, err := json.Marshal(eventOf(wholePlan(), wholePlan().Actions[4], now, Outcome{Result: Started, Now: -1}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-03-01T12:00:00Z","plan":"inc-1.1","incident":"inc-1","socket":"127.0.0.1:5000","pid":1234,"start":99,"unit":"app.service","inode":77,"netns":1,` +
		`"action":"reload","target":"uwsgi 1234 (app.service)","from":null,"to":null,"way":"systemd:app.service","dry_run":false,"result":"started","why":"policy.reload.when is always"}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEventOf(t *testing.T) {
	p := wholePlan()
	e := eventOf(p, p.Actions[0], now.In(time.FixedZone("", 3600)), Outcome{Result: Failed, Now: 512, Err: errors.New("read-only")})
	from, to, is := 128, 1024, 512
	want := Event{
		Time: now, Plan: "inc-1.1", Incident: "inc-1", Socket: "127.0.0.1:5000", PID: 1234, Start: 99, Unit: "app.service", Inode: 77, NetNS: 1,
		Action: "sysctl", Target: "net.core.somaxconn", From: &from, To: &to, Now: &is, Result: Failed, Error: "read-only",
		Why: "the accept queue of 127.0.0.1:5000 holds 129 of 128",
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if zone := e.Time.Location(); zone != time.UTC {
		t.Errorf("time in %s", zone)
	}
}

func TestEventOfJudgement(t *testing.T) {
	e := EventOfJudgement(wholePlan(), Judgement{Result: Fixed, Limit: 1024, Why: "it helps"}, now)
	from, to := 128, 1024
	want := Event{
		Time: now, Plan: "inc-1.1", Incident: "inc-1", Socket: "127.0.0.1:5000", PID: 1234, Start: 99, Unit: "app.service", Inode: 77, NetNS: 1,
		Action: "judge", Target: "127.0.0.1:5000", From: &from, To: &to, Result: Fixed, Why: "it helps",
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
