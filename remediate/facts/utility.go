package facts

import "fmt"

// Utility is an address at which a uWSGI listens, and where no application answers.
type Utility struct {
	Address string // as it is written
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
		if !s.Bound().MayBe(u.Address) {
			continue
		}
		if u.Stats {
			return fmt.Sprintf("gives statistics there (%s)", u.At)
		}
		return fmt.Sprintf("hands out its sockets there (%s)", u.At)
	}
	return ""
}
