package host

import (
	"context"
	"errors"
	"fmt"

	"qwatch/internal/uwsgi"
	"qwatch/systemd"
)

// Services is the part of systemd.Manager that Refused asks.
type Services interface {
	Service(ctx context.Context, unit string) (systemd.Service, error)
}

// Refused finds the listen backlog with which the uWSGI of a unit that is not
// running would start, and where that is configured. The log's word that it
// did not come up is not taken: a unit that runs is an error, as is one that
// starts no uWSGI. It takes a second at most.
func (h *Host) Refused(ctx context.Context, unit string) (listen int, at string, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	c, err := h.lookups.refused.One(ctx, unit)
	if err != nil {
		return 0, "", fmt.Errorf("how %s starts: %w", unit, err)
	}
	return c.Listen, c.At, nil
}

// askRefused is the question of Refused.
func (h *Host) askRefused(ctx context.Context, unit string) (uwsgi.Config, error) {
	options := h.options.Load()
	if options.Services == nil {
		return uwsgi.Config{}, errNoSystemd
	}
	s, err := options.Services.Service(ctx, unit)
	switch {
	case err != nil:
		return uwsgi.Config{}, err
	case s.Active == "active" || s.Active == "reloading":
		return uwsgi.Config{}, errors.New("it is " + s.Active)
	}
	c := uwsgi.Command(s.Args, s.Environ, s.Dir, options.Processes)
	return c, c.Unread
}
