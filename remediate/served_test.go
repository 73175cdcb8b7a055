package remediate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// reloaded is what was seen of a reload after which people are served: asked for
// now, it stood after a second, and was watched for ten.
func reloaded() *facts.Served {
	s := &facts.Served{
		Asked: now, Stood: now.Add(time.Second), Seen: now.Add(11 * time.Second), Renewed: true,
		Before: 4, After: 4, Least: 4, Listens: true, Mode: facts.NewMode(), Sight: facts.Sight{Files: true},
	}
	s.Later.Add(matcher.Word{Kind: matcher.WordAnswered, N: 200})
	return s
}

// An app that answers with an error at once has the emptiest queue of all: without
// people served nothing is fixed.
func TestJudgeOfAReload(t *testing.T) {
	raised := func(s *facts.Socket) { s.Limit = 1024 }
	for _, tt := range []struct {
		name   string
		served func(*facts.Served)
		socket func(*facts.Socket)
		want   Result
		why    string
	}{
		{"served", func(*facts.Served) {}, raised, Fixed, "the limit is 1024 now"},
		{"no app", func(s *facts.Served) { s.Words.Add(matcher.Word{Kind: matcher.WordUnable}) }, raised, Worse,
			`after the reload people are not served as before: the app could not be loaded ("unable to load app")`},
		{"no app, and no raise", func(s *facts.Served) { s.Words.Add(matcher.Word{Kind: matcher.WordUnable}) }, func(*facts.Socket) {}, Worse,
			"after the reload people are not served as before"},
		{"a worker is busy", func(s *facts.Served) { s.Stood, s.Left = time.Time{}, 1 }, raised, NoEffect,
			"the limit is 1024 now, was 128, but the reload was none that is known to serve people: 1 old worker of 4 still at work"},
		{"the socket is another", func(*facts.Served) {}, func(s *facts.Socket) { s.ID.Inode, s.First = 7, now }, Worse,
			"the socket that was raised is gone, and uWSGI has bound 127.0.0.1:5000 anew, with 128"},
		{"nobody came", func(s *facts.Served) { s.Later = facts.Words{} }, raised, "",
			"the limit is 1024 now, was 128; whether it is fixed the reload does not show, and nothing says that it is worse: not proven: nobody has connected in 10s since"},
		{"nobody came, and no raise", func(s *facts.Served) { s.Later = facts.Words{} }, func(*facts.Socket) {}, NoEffect, "the running socket's limit still is 128"},
		{"no raise", func(*facts.Served) {}, func(*facts.Socket) {}, NoEffect, "the running socket's limit still is 128"},
	} {
		after, s := full().Facts, reloaded()
		tt.socket(&after.Sockets[0])
		tt.served(s)
		j := judge(wholePlan(), after, facts.Evidence{Samples: 10, Limit: 1024, Over: 2 * time.Second}, s)
		if j.Result != tt.want || !strings.Contains(j.Why, tt.why) {
			t.Errorf("%s: %s %q, want %s %q", tt.name, j.Result, j.Why, tt.want, tt.why)
		}
	}
}

// The verdict comes with the end of the watch, and not another watch later.
func TestTrialOfAReload(t *testing.T) {
	p := wholePlan()
	s := reloaded()
	trial := Done{Plan: p, Outcomes: []Outcome{{Result: Applied, Served: s}}}.Trial(s.Seen)
	if !trial.Begun().Equal(s.Stood) {
		t.Errorf("begun %s", trial.Begun().Sub(now))
	}
	var looks []facts.Sample
	for at := now; at.Before(s.Seen); at = at.Add(time.Second) {
		looks = append(looks, facts.Sample{ID: p.Socket.ID, At: at, Length: 3, Limit: 1024})
	}
	if _, said := trial.Judge(facts.Snapshot{}, looks, s.Seen); said {
		t.Error("a verdict without a look at the host")
	}
	p.Socket.Limit = 1024
	j, said := trial.Judge(facts.Snapshot{At: s.Seen, Sockets: []facts.Socket{p.Socket}}, nil, s.Seen)
	if !said || j.Result != Fixed {
		t.Errorf("%v %+v", said, j)
	}
}

// Where nobody came, there is no verdict, and it is not waited for one.
func TestTrialOfAReloadThatNobodyTried(t *testing.T) {
	p, s := wholePlan(), reloaded()
	s.Later = facts.Words{}
	trial := Done{Plan: p, Outcomes: []Outcome{{Result: Failed, Served: s}}}.Trial(s.Seen)
	p.Socket.Limit = 1024
	j, said := trial.Judge(facts.Snapshot{At: s.Seen, Sockets: []facts.Socket{p.Socket}}, nil, s.Seen)
	if err := trial.Unjudged(); said || j.Result != "" || !trial.Over(s.Seen) || !errors.Is(err, ErrUnproven) || !strings.Contains(err.Error(), "nobody has connected in 10s since") {
		t.Errorf("%v %+v: %v", said, j, err)
	}
}

// What was not done in time is put right by a second word.
func TestLate(t *testing.T) {
	p := wholePlan()
	reload := p.Actions[4].(Reload)
	failed := Outcome{Action: reload, Result: Failed, Now: -1, Err: errors.New("not done after 1m30s"), Served: &facts.Served{}}
	for _, tt := range []struct {
		name string
		late func(context.Context) Outcome
		want string
	}{
		{"nobody waits", nil, ""},
		{"it came up", func(context.Context) Outcome { return Outcome{Result: Applied, Now: -1, Served: reloaded()} }, "applied"},
		{"it broke", func(context.Context) Outcome {
			return Outcome{Result: Failed, Now: -1, Err: errors.New("no"), Served: reloaded()}
		}, "failed"},
	} {
		trail := &memory{}
		r := quietly(nil, trail, nil)
		first := failed
		first.Late = tt.late
		d, ok := r.Late(t.Context(), Done{Plan: p, Outcomes: []Outcome{{Result: Applied}, first}})
		h, _ := trail.History()
		if ok != (tt.want != "") || ok != (len(h) == 1) {
			t.Errorf("%s: %v, %+v", tt.name, ok, h)
			continue
		}
		if !ok {
			continue
		}
		e := h[0]
		if string(e.Result) != tt.want || !e.Late || e.Way != "systemd:app.service" || e.Plan != p.ID || *e.WorkersBefore != 4 || *e.WorkersAfter != 4 || *e.Unserved != 0 || *e.Cut != 0 {
			t.Errorf("%s: %+v", tt.name, e)
		}
		if d.Outcomes[1].Result != e.Result || len(h.reloads()) != 1 {
			t.Errorf("%s: %+v", tt.name, d.Outcomes)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := failed
	first.Late = func(context.Context) Outcome { cancel(); return Outcome{Result: Failed, Served: reloaded()} }
	if _, ok := quietly(nil, &memory{}, nil).Late(ctx, Done{Plan: p, Outcomes: []Outcome{first}}); ok {
		t.Error("a word of a qwatch that stops")
	}
}

// Where the app cannot be seen there is no reload, and the price of one is told.
func TestDecideTellsOfAReload(t *testing.T) {
	p, c := defaults(), full()
	p.Reload = Always
	if got := Decide(p, c, nil, now); !strings.Contains(got.Reason, "; then a reload of all at once: nobody is accepted from its beginning") {
		t.Errorf("reason %q", got.Reason)
	}
	c.Socket.Sight = facts.Unknown[facts.Sight]("it logs to no file")
	got := Decide(p, c, nil, now)
	if !strings.Contains(got.Reason, "; no reload: whether uWSGI 1234 has loaded its app after a reload could not be seen: it logs to no file") ||
		len(got.Advice) != 1 || !strings.Contains(got.Advice[0], "let uWSGI log where qwatch may read it") {
		t.Errorf("%q, %q", got.Reason, got.Advice)
	}
}
