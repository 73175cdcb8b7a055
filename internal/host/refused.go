package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"qwatch/internal/uwsgiconf"
	"qwatch/systemd"
)

// Services is the part of systemd.Manager that Refused asks.
type Services interface {
	Service(ctx context.Context, unit string) (systemd.Service, error)
}

// Refused finds the listen backlog with which the uWSGI of a unit that is not
// running would start, and where that is configured. The log's word that it
// did not come up is not taken: a unit that runs is an error, as is one that
// starts no uWSGI.
func (h *Host) Refused(ctx context.Context, unit string) (listen int, at string, err error) {
	h.mu.Lock()
	options := h.options
	h.mu.Unlock()
	if options.Services == nil {
		return 0, "", errors.New("no systemd runs here")
	}
	s, err := options.Services.Service(ctx, unit)
	switch {
	case err != nil:
		return 0, "", err
	case s.Active == "active" || s.Active == "reloading":
		return 0, "", fmt.Errorf("%s is %s", unit, s.Active)
	case len(s.Args) == 0 || !slices.Contains(options.Processes, filepath.Base(s.Args[0])):
		return 0, "", fmt.Errorf("%s does not start a uWSGI itself", unit)
	}
	in := uwsgiconf.Input{Args: s.Args, Environ: s.Environ, Dirs: []string{filepath.Join("/", s.Dir)}}
	if in.Hostname, err = os.Hostname(); err != nil {
		return 0, "", err
	}
	read, done, err := readerOf("/")
	if err != nil {
		return 0, "", err
	}
	defer done()
	in.Read = read
	setting, err := uwsgiconf.Find(in)
	if err != nil {
		return 0, "", fmt.Errorf("the configured listen of %s: %w", unit, err)
	}
	if setting.Unread != nil {
		return 0, "", fmt.Errorf("the configuration of %s: %w", unit, setting.Unread)
	}
	return setting.Listen, setting.At, nil
}
