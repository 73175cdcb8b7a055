package facts

import (
	"strings"
	"testing"
	"time"

	"qwatch/matcher"
)

// served is a reload that went well: asked for at second 0, the new generation
// stood at 1, and it was watched until 11.
func served() Served {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	mode := NewMode()
	mode.Announced = true
	s := Served{
		Asked: at(0), Stood: at(1), Seen: at(11), Renewed: true, Before: 2, After: 2, Least: 2, Listens: true,
		Mode: mode, Sight: Sight{Files: true},
		Watched: Intake{Accepted: 40, Came: true},
	}
	s.say(matcher.MarkReloaded, matcher.WordReady)
	s.Prior.Add(matcher.Word{Kind: matcher.WordAnswered, N: 200})
	s.later(matcher.Word{Kind: matcher.WordAnswered, N: 200})
	return s
}

func (s *Served) say(kinds ...matcher.MarkKind) {
	for _, kind := range kinds {
		s.Words.Add(matcher.Word{Kind: kind, N: 1})
	}
}

func (s *Served) later(words ...matcher.Word) {
	for _, w := range words {
		s.Words.Add(w)
		s.Later.Add(w)
	}
}

func TestVerdict(t *testing.T) {
	silent := func(s *Served) { s.Words, s.Later, s.Prior = Words{}, Words{}, Words{} }
	stats := func(before, stood, now Counted) func(*Served) {
		return func(s *Served) {
			silent(s)
			s.Sight = Sight{Stats: "127.0.0.1:9191"}
			s.Stats = [3]Fact[Counted]{Known(before), Known(stood), Known(now)}
		}
	}
	died := matcher.Word{Kind: matcher.MarkDied, N: 1}
	undone := func(s *Served) { s.Stood = time.Time{} }
	for _, tt := range []struct {
		name string
		with func(*Served)
		want string // "" for none
		less bool   // it is not worse, only without effect
	}{
		{"served", func(*Served) {}, "", false},
		{"the master is gone", func(s *Served) { s.Ended = "the master has ended" }, "the master has ended; its log says why", false},
		{"need-app", func(s *Served) { undone(s); s.say(matcher.WordBroken) }, "uWSGI ends, since it cannot load its app (need-app)", false},
		{"no app", func(s *Served) { s.say(matcher.WordUnable) }, `the app could not be loaded ("unable to load app")`, false},
		{"no app at a request", func(s *Served) { s.say(matcher.WordNoApp) }, "requests find no app", false},
		{"there was none before either", func(s *Served) { s.say(matcher.WordNoApp); s.Prior.Add(matcher.Word{Kind: matcher.WordNoApp}) }, "", false},
		{"another port", func(s *Served) { s.Listens, s.Bound = false, []string{"127.0.0.1:5001"} }, "its socket is gone, and uWSGI listens on 127.0.0.1:5001 now", false},
		{"no port", func(s *Served) { s.Listens = false }, "its socket is gone, and uWSGI listens on no other", false},
		{"fewer workers", func(s *Served) { s.After = 1 }, "there are 1 worker, where there were 2", false},
		{"fewer workers, as cheaper has them", func(s *Served) { s.After, s.Least = 1, 1 }, "", false},
		{"one worker died once", func(s *Served) { s.later(died); s.Gone = 1 }, "", false},
		{"one died again and again", func(s *Served) { s.later(died, died); s.Gone = 1 }, "worker 1 has died 2 times within 10s of its reload", false},
		{"all died", func(s *Served) { s.later(died, matcher.Word{Kind: matcher.MarkDied, N: 2}); s.Gone = 2 }, "every new worker has died within 10s", false},
		{"all were replaced by max-requests", func(s *Served) { s.Gone = 2 }, "", false},
		{"all were replaced, and nothing says why", func(s *Served) {
			stats(Counted{Apps: 1}, Counted{Apps: 1}, Counted{Apps: 1, Requests: 9})(s)
			s.Gone = 2
		}, "every new worker has died", false},
		{"that, with max-requests", func(s *Served) {
			stats(Counted{Apps: 1}, Counted{Apps: 1}, Counted{Apps: 1, Requests: 9})(s)
			s.Gone, s.Mode.Recycles = 2, true
		}, "", false},
		{"another protocol", func(s *Served) { s.Later = Words{}; s.later(matcher.Word{Kind: matcher.WordGarbled}) }, "its socket speaks another protocol now: 1 request was said", false},
		{"one client in another protocol", func(s *Served) { s.later(matcher.Word{Kind: matcher.WordGarbled}) }, "", false},
		{"nothing but 500", func(s *Served) { s.Later = Words{}; s.later(matcher.Word{Kind: matcher.WordAnswered, N: 500}) }, "each of 1 request since was answered with a status of 500 or more", false},
		{"as before", func(s *Served) {
			s.Later, s.Prior = Words{}, Words{}
			s.later(matcher.Word{Kind: matcher.WordAnswered, N: 503})
			s.Prior.Add(matcher.Word{Kind: matcher.WordAnswered, N: 503})
		}, "", false},
		{"nobody came", func(s *Served) { s.Later, s.Watched = Words{}, Intake{} }, "not proven: nobody has connected in 10s since; 2 new workers after 1s, gracefully; ask it by hand", true},
		{"nobody came that is seen", func(s *Served) { s.Later, s.Watched = Words{}, Intake{Untold: true} }, "not proven: no request was answered in 10s since; 2 new", true},
		{"it is not seen who comes", func(s *Served) { silent(s); s.Watched = Intake{Untold: true} }, "not proven: whether anybody was served could not be seen (", true},
		{"it is not seen who comes, the stats server counts", func(s *Served) {
			stats(Counted{Apps: 1}, Counted{Apps: 1, Requests: 5}, Counted{Apps: 1, Requests: 5})(s)
			s.Watched = Intake{Untold: true}
		}, "not proven: no request was answered in 10s since", true},
		{"it is seen there alone", func(s *Served) {
			stats(Counted{Apps: 1}, Counted{Apps: 1}, Counted{Apps: 1, Requests: 5})(s)
			s.Watched = Intake{Untold: true}
		}, "", false},
		{"nobody is accepted", func(s *Served) {
			s.Later, s.Watched = Words{}, Intake{Came: true, Waiting: 300, unserved: 10 * time.Second}
		}, "300 clients wait, and nobody has been accepted for 10s", false},
		{"somebody has just come", func(s *Served) {
			s.Later, s.Watched = Words{}, Intake{Came: true, Waiting: 1, unserved: time.Second}
		}, "not proven: nobody has been accepted in 10s since", true},
		{"accepted and not answered", func(s *Served) { s.Later = Words{} }, "40 connections were accepted in 10s, and not one request was answered", false},
		{"the first requests take long", func(s *Served) { s.Later, s.Watched.Accepted = Words{}, 3 }, "", false},
		{"no request log", func(s *Served) { s.Later, s.Prior = Words{}, Words{} }, "", false},
		{"stats: served", stats(Counted{Apps: 1}, Counted{Apps: 1}, Counted{Apps: 1, Requests: 5}), "", false},
		{"stats: exceptions", stats(Counted{Apps: 1}, Counted{Apps: 1}, Counted{Apps: 1, Requests: 5, Exceptions: 5}), "each of 5 requests since raised an exception", false},

		{"a worker is busy", func(s *Served) { undone(s); s.Left = 1 }, "1 old worker of 2 still at work (worker-reload-mercy gives them 60 seconds)", true},
		{"and nobody is accepted", func(s *Served) { undone(s); s.Left = 1; s.Intake.unserved = 9 * time.Second }, "still at work (worker-reload-mercy gives them 60 seconds), nobody has been accepted for 9s", false},
		{"not by a reload", func(s *Served) { undone(s); s.Renewed = false }, "all old workers have ended, but nothing says that it was by a reload", true},
		{"nothing happened", func(s *Served) { undone(s); s.Renewed, s.After, s.Left = false, 0, 2 }, "2 old workers of 2 still at work", true},
		{"a chain that stands still", func(s *Served) {
			undone(s)
			s.Left = 1
			s.later(matcher.Word{Kind: matcher.WordWaiting, N: 1}, died, died, died)
		},
			"1 old worker of 2 still at work (worker-reload-mercy gives them 60 seconds), the chain waits for worker 1, worker 1 has died 3 times", true},
		{"stats: no app", func(s *Served) { stats(Counted{Apps: 1}, Counted{}, Counted{})(s); undone(s) }, "the stats server tells of 0 apps in a worker, and of 1 before", true},
	} {
		s := served()
		tt.with(&s)
		f, bad := s.Verdict()
		if bad != (tt.want != "") || !strings.Contains(f.Why, tt.want) || bad && f.Worse == tt.less {
			t.Errorf("%s: %v %+v, want %q", tt.name, bad, f, tt.want)
		}
	}
}

func TestCut(t *testing.T) {
	s := served()
	s.Stats[0] = Known(Counted{Busy: 3})
	if got := s.Cut(); got != 0 {
		t.Error(got)
	}
	s.say(matcher.WordMercy)
	if s.Mode.Loop = "asyncio"; s.Cut() != 4 {
		t.Error(s.Cut())
	}
}

func TestStands(t *testing.T) {
	for _, tt := range []struct {
		name string
		with func(*Served)
		want bool
	}{
		{"all", func(*Served) {}, true},
		{"an old worker", func(s *Served) { s.Left = 1 }, false},
		{"no new generation", func(s *Served) { s.Renewed = false }, false},
		{"too few", func(s *Served) { s.After = 1 }, false},
		{"another socket", func(s *Served) { s.Listens = false }, false},
		{"the app is being loaded", func(s *Served) { s.Words = Words{} }, false},
		{"not in each worker", func(s *Served) { s.Mode.LazyApps = true }, false},
		{"in each worker", func(s *Served) { s.Mode.LazyApps = true; s.say(matcher.WordReady) }, true},
		{"an app of which nothing is said", func(s *Served) { s.Words, s.Mode.Announced = Words{}, false }, true},
		{"by the stats server", func(s *Served) { s.Words, s.Stats[2] = Words{}, Known(Counted{Apps: 1}) }, true},
	} {
		s := served()
		tt.with(&s)
		if s.Stands() != tt.want {
			t.Errorf("%s: %v", tt.name, !tt.want)
		}
	}
}

func TestByWords(t *testing.T) {
	killed := matcher.Word{Kind: matcher.WordKilling}
	for _, tt := range []struct {
		name  string
		words []matcher.Word
		with  func(*Served)
		want  bool
	}{
		{"the master came up again", []matcher.Word{{Kind: matcher.MarkReloaded}}, func(*Served) {}, true},
		{"each worker was asked to end", []matcher.Word{killed, killed}, func(*Served) {}, true},
		{"one of them", []matcher.Word{killed}, func(*Served) {}, false},
		{"a chain has ended", []matcher.Word{{Kind: matcher.WordChained}}, func(*Served) {}, true},
		{"before all are gone", []matcher.Word{killed, killed}, func(s *Served) { s.Left = 1 }, false},
		{"max-requests", nil, func(*Served) {}, false},
		{"nothing can be read, lazy", nil, func(s *Served) { s.Sight, s.Mode.Lazy = Sight{Stats: "x"}, true }, true},
		{"nothing can be read", nil, func(s *Served) { s.Sight = Sight{Stats: "x"} }, false},
	} {
		s := Served{Before: 2, Sight: Sight{Files: true}}
		for _, w := range tt.words {
			s.Words.Add(w)
		}
		tt.with(&s)
		if s.ByWords(false) != tt.want {
			t.Errorf("%s: %v", tt.name, !tt.want)
		}
	}
}

func TestServedString(t *testing.T) {
	s := served()
	s.Stood = s.Asked.Add(1300 * time.Millisecond)
	for _, tt := range []struct {
		with func()
		want string
	}{
		{func() {}, "2 new workers after 1.3s, gracefully; 1 request was answered in 10s since"},
		{func() { s.Intake.Unserved = 1300 * time.Millisecond }, "2 new workers after 1.3s, gracefully, nobody accepted for 1.3 s; 1 request was answered in 10s since"},
		{func() { s.say(matcher.WordMercy, matcher.MarkHarakiri) }, "2 new workers after 1.3s, 2 requests cut, nobody accepted for 1.3 s; 1 request was answered in 10s since"},
		{func() { s.Later = Words{} }, "2 new workers after 1.3s, 2 requests cut, nobody accepted for 1.3 s; 40 connections were accepted in 10s since"},
		{func() { s.Watched = Intake{} }, "2 new workers after 1.3s, 2 requests cut, nobody accepted for 1.3 s; nobody has connected in 10s since"},
		{func() { s.Words, s.Mode.Loop = Words{}, "asyncio" }, "2 new workers after 1.3s, nobody accepted for 1.3 s; nobody has connected in 10s since"},
	} {
		tt.with()
		if got := s.String(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestWatch(t *testing.T) {
	s := served()
	if got := s.Watch(LeastWatch); got != 10*time.Second {
		t.Error(got)
	}
	s.Words.Add(matcher.Word{Kind: matcher.WordReady, N: 31})
	if got := s.Watch(LeastWatch); got != 31*time.Second {
		t.Error(got)
	}
	s.Stats[0] = Known(Counted{Took: time.Hour})
	if got := s.Watch(LeastWatch); got != 5*time.Minute {
		t.Error(got)
	}
}

func TestPrice(t *testing.T) {
	s := Socket{}
	if got := s.Price(true, false); got != "what a reload would cost is not known: it was not looked at" {
		t.Error(got)
	}
	const whole = "a reload of all at once: nobody is accepted from its beginning until the longest request has ended and the app is loaded anew; a worker that has not ended its requests after 60 seconds is killed (worker-reload-mercy)"
	for _, tt := range []struct {
		with  func(*Mode)
		chain bool
		want  string
	}{
		{func(*Mode) {}, false, whole},
		{func(m *Mode) { m.LazyApps, m.Mercy = true, 4*time.Second }, true, "a chain reload: one worker after the other, and the others go on; a worker that has not ended its requests after 4 seconds is killed (worker-reload-mercy)"},
		{func(m *Mode) { m.Harakiri = 30 * time.Second }, false, whole + ", and a request of more than 30s is cut (harakiri)"},
		{func(m *Mode) { m.Loop = "asyncio" }, false, whole + "; its loop asyncio cuts every request that is in flight at a reload, also by hand"},
		{func(m *Mode) { m.Loop = "gevent" }, false, whole + "; with gevent, websockets and other long requests hold a reload for 60 seconds, and then are cut"},
	} {
		m := NewMode()
		tt.with(&m)
		s.Config.Mode = Known(m)
		if got := s.Price(!tt.chain, tt.chain); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	s.Stats, s.Config.Mode = &Stats{Busy: 3}, Known(NewMode())
	if got := s.Price(true, false); got != whole+"; in flight 3 workers are busy" {
		t.Error(got)
	}
	s.Stats = nil
	s.Workers = make([]Worker, 1)
	if got := s.Price(false, true); !strings.HasPrefix(got, "a chain reload of its only worker: nobody is accepted ") {
		t.Error(got)
	}
	if got := s.Price(false, false); !strings.HasPrefix(got, "each worker is forked anew when its requests have ended, with the app that the master has loaded; ") {
		t.Error(got)
	}
}

// Workers that are forked from a master as it was have its app, and nothing says so.
func TestForkedWorkersStand(t *testing.T) {
	mode := NewMode()
	mode.Announced = true
	s := Served{Renewed: true, Before: 2, After: 2, Least: 2, Listens: true, Mode: mode, Sight: Sight{Files: true}}
	if s.Stands() {
		t.Error("of a master that was executed anew, before it has loaded its app")
	}
	if s.Forked = true; !s.Stands() {
		t.Error(s.loaded())
	}
}
