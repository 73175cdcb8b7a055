package host

import (
	"context"
	"errors"
	"fmt"

	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

// Services is the part of systemd.Manager that tells of services.
type Services interface {
	Service(ctx context.Context, unit string) (systemd.Service, error)
	Main(ctx context.Context, unit string) (pid int, canReload bool, err error)
}

// Refused finds the listen backlog with which the uWSGI of a unit that is not
// running would start, and where that is configured. The log's word that it
// did not come up is not taken: of a unit that has not failed it is unknown, be it
// that it runs or that somebody has stopped it, as of one that starts no uWSGI. It
// takes a second at most.
func (h *Host) Refused(ctx context.Context, unit string) facts.Fact[facts.Setting] {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	c, err := h.lookups.refused.One(ctx, unit)
	if err != nil {
		return facts.Unknown[facts.Setting](fmt.Sprintf("how %s starts: %v", unit, err))
	}
	return c.Listen
}

// askRefused is the question of Refused.
func (h *Host) askRefused(ctx context.Context, unit string) (facts.Config, error) {
	options := h.options.Load()
	if options.Services == nil {
		return facts.Config{}, errNoSystemd
	}
	s, err := options.Services.Service(ctx, unit)
	if err == nil {
		err = s.Refused()
	}
	if err != nil {
		return facts.Config{}, err
	}
	c := uwsgi.Starting(uwsgi.Command{Args: s.Args, Environ: s.Environ, Dir: s.Dir, User: s.User, Group: s.Group}, options.Processes)
	if unread := c.Unread(); unread != "" {
		return c, errors.New(unread)
	}
	return c, nil
}
