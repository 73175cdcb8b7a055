// Package daemon runs qwatch: sources in, plans out. It is a list of tasks
// under one group; what it knows of the host and how it acts on it are handed
// in.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"qwatch/internal/config"
	"qwatch/internal/text"
	"qwatch/remediate"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

// Options of a Daemon.
type Options struct {
	Version string
	Config  *config.Config
	// FromStart reads files that are there at the very first start from
	// their beginning.
	FromStart bool
	// KeepState says whether positions are kept in the state directory.
	KeepState bool
	Host      Host
	// Configure fits the host to a configuration and returns the actor for
	// it. It is called at the start and after each good Reread.
	Configure func(*config.Config) remediate.Actor
	Trail     remediate.Trail
	// Cannot tries what this process may do, and says why what it may not is
	// not possible. It is called once, at the start; nil is not at all.
	Cannot func(ctx context.Context) map[facts.Step]string
	// Holder says who listens at a TCP address; nil where nobody can tell.
	Holder   func(address string) string
	Log      zerolog.Logger
	Notifier *systemd.Notifier
	// Watchdog is how long systemd waits for an answer, 0 if it does not.
	Watchdog time.Duration
	// Reread reads the configuration again, from ConfigFile.
	Reread     func() (*config.Config, error)
	ConfigFile string
}

// Daemon is a running qwatch.
type Daemon struct {
	opts    Options
	log     zerolog.Logger
	started time.Time
	core    *core
	sources *sources
	// readings are what status and metrics show.
	readings readings
	reload   chan struct{}
}

// New makes a daemon; Run runs it.
func New(opts Options) *Daemon {
	d := &Daemon{
		opts: opts, log: opts.Log, started: time.Now(),
		core:   newCore(opts.Host, opts.Configure, opts.Trail, opts.Log),
		reload: make(chan struct{}, 1),
	}
	d.core.configure(opts.Config)
	d.sources = newSources(d.core, opts.Log)
	d.readings.read = d.read
	return d
}

// Run runs until ctx ends; that is no error.
func (d *Daemon) Run(ctx context.Context) error {
	cfg := d.opts.Config
	g, ctx := errgroup.WithContext(ctx)
	// The core outlives the sources: what they have read is not lost.
	sourcesDone := make(chan struct{})
	g.Go(func() error { return d.core.loop(ctx, sourcesDone) })
	g.Go(func() error { return d.core.observer.run(ctx) })
	g.Go(func() error {
		defer close(sourcesDone)
		return d.follow(ctx)
	})
	g.Go(func() error { return d.sources.watchPulses(ctx) })
	g.Go(func() error { return d.core.report.tally.run(ctx) })
	g.Go(func() error { return d.watchConfig(ctx) })
	g.Go(func() error { return d.watchdog(ctx) })
	g.Go(func() error { return d.tellSystemd(ctx) })
	if d.opts.Cannot != nil {
		g.Go(func() error { return d.tellRights(ctx) })
	}
	if cfg.Socket != "" {
		g.Go(func() error { return d.serveStatus(ctx, cfg.Socket) })
	}
	if cfg.Metrics.Listen != "" {
		g.Go(func() error { return d.serveMetrics(ctx, cfg.Metrics.Listen) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// follow keeps the sources of the newest configuration running.
func (d *Daemon) follow(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer d.sources.drop(func(*running) bool { return true })
	defer stop()
	cfg := d.opts.Config
	for first := true; ; first = false {
		if err := d.sources.change(ctx, cfg, d.opts); err != nil {
			return err
		}
		announcing, done := context.WithCancel(ctx)
		go d.announce(announcing, cfg, first)
		next, err := d.nextConfig(ctx, cfg)
		done()
		if next == nil {
			return err
		}
		cfg = next
		d.notify(d.opts.Notifier.Reloading())
		if err := d.core.call(ctx, func(context.Context) { d.core.configure(cfg) }); err != nil {
			return nil // ctx ended
		}
	}
}

// nextConfig waits until another good configuration is there. It returns nil
// when ctx ends, and when a source has, with its error.
func (d *Daemon) nextConfig(ctx context.Context, old *config.Config) (*config.Config, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case err := <-d.sources.failed:
			return nil, err
		case <-d.reload:
		}
		cfg, err := d.opts.Reread()
		if err != nil {
			d.log.Error().Str(eventField, systemd.EventConfigRefused).Err(err).
				Msg("the new configuration is refused; the old one stays in force")
			continue
		}
		if reflect.DeepEqual(cfg, old) {
			d.notify(d.opts.Notifier.Reloading())
			d.ready(ctx)
			d.log.Info().Msg("the configuration is as it was")
			continue
		}
		if cfg.StateDir != old.StateDir || cfg.Socket != old.Socket || cfg.Metrics != old.Metrics || cfg.Log != old.Log {
			d.log.Warn().Msg("state_dir, socket, log and metrics change with the next restart only")
		}
		return cfg, nil
	}
}

// Reload asks for the configuration to be read again.
func (d *Daemon) Reload() {
	select {
	case d.reload <- struct{}{}:
	default: // one is asked for already
	}
}

// watchConfig reloads when the configuration file has changed. Its directory is
// watched, since editors and package managers put a new file in its place.
func (d *Daemon) watchConfig(ctx context.Context) error {
	path, err := filepath.Abs(d.opts.ConfigFile)
	if err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		err = watcher.Add(filepath.Dir(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // built-in defaults: there is nothing to watch
	}
	if err != nil {
		d.log.Warn().Err(err).Msg("changes of the configuration file are not noticed; send SIGHUP instead")
		return nil
	}
	// A file that is being written changes several times.
	const calm = 300 * time.Millisecond
	changed := time.NewTimer(0)
	<-changed.C
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-watcher.Events:
			if e.Name == path && !e.Has(fsnotify.Chmod) && !e.Has(fsnotify.Remove) {
				changed.Reset(calm)
			}
		case err := <-watcher.Errors:
			d.log.Warn().Err(err).Msg("a change of the configuration file may have been missed; send SIGHUP")
		case <-changed.C:
			d.Reload()
		}
	}
}

// readyTime is how long READY=1 waits for a source that is busy coming up, before
// the others go on without it. One that hangs is not waited for.
const readyTime = 20 * time.Second

// await waits until every source is ready, or hangs.
func (d *Daemon) await(ctx context.Context) {
	patience := time.NewTimer(readyTime)
	defer patience.Stop()
	late, all := 0, d.sources.all()
	for _, r := range all {
		select {
		case <-r.Ready():
			continue
		case <-r.pulse.found:
			continue
		case <-ctx.Done():
			return
		case <-patience.C:
			patience.Reset(0)
		}
		if !isReady(r) {
			late++
		}
	}
	if late > 0 {
		d.log.Error().Str(eventField, systemd.EventSourceUnreadable).Msgf("%d of %s not come up within %s; the others are followed", late, text.Plural(len(all), "follower has", "followers have"), readyTime)
	}
}

// announce says READY=1 when every source follows, or hangs.
func (d *Daemon) announce(ctx context.Context, cfg *config.Config, first bool) {
	if d.await(ctx); ctx.Err() != nil {
		return
	}
	d.ready(ctx)
	mode, n := map[bool]string{true: "dry run: nothing is changed", false: "acting"}[cfg.Policy.DryRun], 0
	for _, src := range cfg.Sources {
		if len(src.Files)+len(src.Journal) > 0 {
			n++
		}
	}
	e := d.log.Info().Bool("dry_run", cfg.Policy.DryRun).Int("sources", n)
	if first {
		e.Msgf("qwatch %s is ready (%s), following %s", d.opts.Version, mode, text.Plural(n, "source", "sources"))
	} else {
		e.Str(eventField, systemd.EventConfigReloaded).
			Msgf("the new configuration is in force (%s), following %s", mode, text.Plural(n, "source", "sources"))
	}
}

// ready ends a start or a reload. The status line stays until something
// happens, so it is the whole one.
func (d *Daemon) ready(ctx context.Context) {
	s, err := d.Status(ctx)
	if err != nil {
		return // ctx ended
	}
	d.notify(d.opts.Notifier.Ready(s.Summary()))
}

// tellSystemd keeps systemd's status line up to date, and says when qwatch
// stops.
func (d *Daemon) tellSystemd(ctx context.Context) error {
	defer func() { d.notify(d.opts.Notifier.Stopping("stopping")) }()
	var before string
	for {
		s, err := d.known(ctx)
		if err != nil {
			return nil // ctx ended
		}
		if text := s.Summary(); text != before {
			d.notify(d.opts.Notifier.Status(text))
			before = text
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.core.report.changed:
		}
	}
}

// notify takes the outcome of telling systemd something. It changes nothing
// that systemd could not be told.
func (d *Daemon) notify(err error) {
	if err != nil {
		d.log.Debug().Err(err).Msg("systemd could not be told")
	}
}

// Summary is the status in one line.
func (s Status) Summary() string {
	open, failing := 0, 0
	for _, i := range s.Incidents {
		if i.State == "open" {
			open++
		}
	}
	for _, src := range s.Sources {
		if src.Error != nil {
			failing++
		}
	}
	line := fmt.Sprintf("%s, %s, %s", text.Plural(len(s.Sources), "source", "sources"), text.Plural(len(s.Sockets), "socket", "sockets"), text.Plural(open, "open incident", "open incidents"))
	if failing > 0 {
		line += ", " + text.Plural(failing, "source", "sources") + " failing"
	}
	line = map[bool]string{true: "dry run; "}[s.DryRun] + line
	if n := len(s.Actions); n > 0 {
		a := s.Actions[n-1]
		line += fmt.Sprintf("; last: %s of %s %s at %s", a.Action, a.Target, a.Result, a.Time.Format(time.RFC3339))
	}
	return line
}

// watchdog answers systemd only while the real loops turn: the core, and every
// source of which a restart may help (sources.alive).
func (d *Daemon) watchdog(ctx context.Context) error {
	every := d.opts.Watchdog / 2
	if every == 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		within, cancel := context.WithTimeout(ctx, every)
		err := errors.Join(d.core.call(within, func(context.Context) {}), d.sources.alive(within))
		cancel()
		if err == nil {
			d.notify(d.opts.Notifier.Watchdog())
		} else if ctx.Err() == nil {
			d.log.Error().Err(err).Msg("a loop stands still; the watchdog is not answered")
		}
	}
}
