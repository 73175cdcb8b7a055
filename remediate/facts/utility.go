package facts

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Utility is an address at which a uWSGI listens, and where no application answers.
type Utility struct {
	Address string // as it is written
	// Others are all other addresses at which this uWSGI listens, where Address has
	// port 0 and none of these: the kernel chooses one, and what is none of the
	// others is this. nil where more than one may have been chosen so.
	Others []string
	// Stats says that it gives statistics there; else it hands out sockets, to the
	// instances of a zerg.
	Stats bool
	At    string // the option, and where it stands: "stats, /etc/uwsgi/app.ini:3"
}

// Serves says what uWSGI does at the socket where that is no application's, "" where
// it is one's, or its configuration does not say. A queue there holds nobody up who
// uses an application.
func (s Socket) Serves() string {
	if s.Config.Utilities == nil {
		return ""
	}
	for _, u := range *s.Config.Utilities {
		if !s.Bound().MayBe(u.Address) && !u.chosen(s.Bound()) {
			continue
		}
		if u.Stats {
			return fmt.Sprintf("gives statistics there (%s)", u.At)
		}
		return fmt.Sprintf("hands out its sockets there (%s)", u.At)
	}
	return ""
}

// chosen reports whether the kernel has chosen this address for the one with port 0.
func (u Utility) chosen(a Address) bool {
	host, zero := strings.CutSuffix(u.Address, ":0")
	at, err := netip.ParseAddrPort(a.Text)
	if !zero || u.Others == nil || err != nil || slices.ContainsFunc(u.Others, a.MayBe) {
		return false
	}
	return a.MayBe(fmt.Sprintf("%s:%d", host, at.Port()))
}
