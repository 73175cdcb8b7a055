package facts

import "fmt"

// WhyNoReload says why a graceful reload would do harm to the socket or its
// uWSGI, or could, "" where it would not. somaxconn is what net.core.somaxconn
// of the socket's network namespace is when the reload comes: uWSGI compares its
// configured listen with it when it starts, and the exec of a reload is a start
// (core/uwsgi.c, uwsgi_start).
func (s Socket) WhyNoReload(somaxconn int) string {
	switch {
	case s.SocketUnit != "":
		// systemd's LISTEN_FDS are meant for one process id and gone after the
		// first start: "The -s/--socket option is missing", and uWSGI ends.
		return fmt.Sprintf("systemd holds the socket (%s), and uWSGI does not find it again after a reload", s.SocketUnit)
	case s.UnitUnknown != "":
		return fmt.Sprintf("it is not known whether systemd holds the socket (%s), and then uWSGI would not find it again after a reload", s.UnitUnknown)
	case s.ReloadEnds != "":
		return "it would end uWSGI: " + s.ReloadEnds
	case s.Unread != "":
		return fmt.Sprintf("uWSGI's configuration is not known (%s), and exit-on-reload or a listen over somaxconn in it would make the reload its end", s.Unread)
	case s.Configured > somaxconn:
		return fmt.Sprintf("uWSGI is configured to listen = %d (%s), and with somaxconn %d it would not come up again", s.Configured, s.ConfiguredAt, somaxconn)
	}
	return ""
}
