package facts

import (
	"cmp"
	"fmt"
)

// WhyNoReload says why a graceful reload would do harm to the socket or its
// uWSGI, or could, "" where it would not. somaxconn is what net.core.somaxconn
// of the socket's network namespace is when the reload comes: uWSGI compares its
// configured listen with it when it starts, and the exec of a reload is a start
// (core/uwsgi.c, uwsgi_start).
func (s Socket) WhyNoReload(somaxconn Fact[int]) string {
	const itsEnd = "exit-on-reload or a listen over somaxconn in it would make the reload its end"
	listen, known := s.Config.reloads().Get()
	unread := cmp.Or(s.Config.reloads().Unseen(), s.Config.ReloadEnds.Unseen())
	harm := s.ReloadHarm(somaxconn)
	switch {
	case harm != "":
		return harm
	case s.Unit.Unseen() != "":
		return fmt.Sprintf("it is not known whether systemd holds the socket (%s), and then uWSGI would not find it again after a reload", s.Unit.Unseen())
	case unread != "":
		return fmt.Sprintf("uWSGI's configuration is not known (%s), and %s", unread, itsEnd)
	case !known:
		return fmt.Sprintf("uWSGI's configuration sets no listen that is known, and %s", itsEnd)
	case somaxconn.State != StateKnown:
		return fmt.Sprintf("somaxconn is not known (%s), and with one below uWSGI's listen = %d (%s) it would not come up again", somaxconn.Unseen(), listen.Listen, listen.At)
	}
	return ""
}

// ReloadHarm is what WhyNoReload says of what is seen, "" where there is no harm or
// it is not known.
func (s Socket) ReloadHarm(somaxconn Fact[int]) string {
	listen, known := s.Config.reloads().Get()
	if unit, ok := s.Unit.Get(); ok {
		// systemd's LISTEN_FDS are meant for one process id and gone after the
		// first start: "The -s/--socket option is missing", and uWSGI ends.
		return fmt.Sprintf("systemd holds the socket (%s), and uWSGI does not find it again after a reload", unit.Name)
	}
	switch ends := s.Config.ReloadEnds; {
	case ends.Value != "":
		return "it would end uWSGI: " + ends.Value
	case known && somaxconn.State == StateKnown && listen.Listen > somaxconn.Value:
		return fmt.Sprintf("uWSGI is configured to listen = %d (%s), and with somaxconn %d it would not come up again", listen.Listen, listen.At, somaxconn.Value)
	}
	return ""
}
