package facts

import (
	"fmt"
	"slices"
	"time"

	"qwatch/internal/text"
)

// Mode is how a uWSGI is configured to reload, as far as that decides what a
// reload costs.
type Mode struct {
	Lazy, LazyApps bool
	Cheaper        int           // the fewest workers, and those of a start; 0 where their number is fixed
	Cores          int           // requests that one worker holds at a time (threads, async); 1 at least
	Mercy          time.Duration // worker-reload-mercy
	Harakiri       time.Duration // 0 for none
	Loop           string        // asyncio, gevent, greenlet, ugreen; "" for none
	Recycles       bool          // workers end by themselves (max-requests and its like)
	// Announced says that there is an app whose loading uWSGI tells of: one of
	// Python, Perl, Ruby or Mono, which is loaded at the start.
	Announced bool
}

// NewMode is what uWSGI does where nothing is configured (core/init.c).
func NewMode() Mode { return Mode{Cores: 1, Mercy: time.Minute} }

// Cuts says which requests a reload cuts off, even where all goes well; "" where
// none.
func (m Mode) Cuts() string {
	switch m.Loop {
	case "":
		return ""
	case "greenlet", "asyncio", "ugreen":
		return fmt.Sprintf("its loop %s cuts every request that is in flight at a reload, also by hand", m.Loop)
	case "gevent":
		return fmt.Sprintf("with gevent, websockets and other long requests hold a reload for %s, and then are cut", text.Plural(int(m.Mercy.Seconds()), "second", "seconds"))
	}
	return fmt.Sprintf("what its loop %s does with requests in flight at a reload is not known", m.Loop)
}

// CutsAll reports whether every request in flight is cut (core/uwsgi.c,
// gracefully_kill: "still not found a way to gracefully reload in async mode").
func (m Mode) CutsAll() bool {
	return slices.Contains([]string{"greenlet", "asyncio", "ugreen"}, m.Loop)
}

// Least is how many workers there have to be after a reload of so many.
func (m Mode) Least(before int) int {
	if m.Cheaper > 0 {
		return min(before, m.Cheaper)
	}
	return before
}

// Price says what a reload costs before it is made. wholly says that the master is
// executed anew, and chain that one worker is reloaded after the other.
func (s Socket) Price(wholly, chain bool) string {
	m, known := s.Config.Mode.Get()
	if !known {
		return "what a reload would cost is not known: " + s.Config.Mode.Unseen()
	}
	price := "a reload of all at once: nobody is accepted from its beginning until the longest request has ended and the app is loaded anew"
	switch {
	case chain && len(s.Workers) == 1: // there are no others
		price = "a chain reload of its only worker: nobody is accepted from its beginning until the request in flight has ended and the app is loaded anew"
	case chain:
		price = "a chain reload: one worker after the other, and the others go on"
	case !wholly && !m.Lazy && !m.LazyApps:
		price = "each worker is forked anew when its requests have ended, with the app that the master has loaded"
	case m.Lazy || !wholly:
		price = "each worker is reloaded when its requests have ended; nobody is accepted while all of them load the app"
	case m.LazyApps:
		price = "a reload of all at once: nobody is accepted from its beginning until the longest request has ended and each worker has loaded the app (lazy-apps)"
	}
	price += fmt.Sprintf("; a worker that has not ended its requests after %s is killed (worker-reload-mercy)", text.Plural(int(m.Mercy.Seconds()), "second", "seconds"))
	if m.Harakiri > 0 {
		price += fmt.Sprintf(", and a request of more than %s is cut (harakiri)", m.Harakiri)
	}
	if cuts := m.Cuts(); cuts != "" {
		price += "; " + cuts
	}
	if s.Stats != nil {
		price += "; in flight " + text.Plural(s.Stats.Busy, "worker is busy", "workers are busy")
	}
	return price
}
