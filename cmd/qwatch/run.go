package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"qwatch/internal/config"
	"qwatch/internal/daemon"
	"qwatch/internal/host"
	"qwatch/internal/trail"
	"qwatch/remediate"
	"qwatch/systemd"
)

func newRun(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Args:  cobra.NoArgs,
	}
	r := runner{env: e, cmd: cmd}
	r.path = configFlag(cmd)
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "plan, log and record; change nothing")
	cmd.Flags().StringArrayVar(&r.files, "file", nil, "follow the files of this `glob` instead of the configured sources")
	cmd.Flags().StringArrayVar(&r.units, "journal", nil, "follow this `unit` in the journal instead of the configured sources")
	cmd.Flags().BoolVar(&r.fromStart, "from-start", false, "at the very first start read files from their beginning")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) }
	return cmd
}

// runner is one `qwatch run`.
type runner struct {
	env          env
	cmd          *cobra.Command
	path         *string
	dryRun       bool
	files, units []string
	fromStart    bool
}

// load reads the configuration with the flags on top.
func (r *runner) load() (*config.Config, error) {
	cfg, err := loadConfig(r.env, r.cmd, *r.path)
	if err != nil {
		return nil, err
	}
	if r.dryRun {
		setMode(cfg, true)
	}
	globs := slices.Clone(r.files)
	for i, glob := range globs {
		if globs[i], err = filepath.Abs(glob); err != nil {
			return nil, &exit{exitUsage, err, "name the files by absolute paths"}
		}
	}
	if err := cfg.UseSources(globs, r.units); err != nil {
		return nil, &exit{exitUsage, err, "see qwatch run --help"}
	}
	return cfg, nil
}

func (r *runner) run(ctx context.Context) error {
	// A crash ends by a signal: Go's own exit status for it is that of a bad
	// configuration, after which systemd starts nothing again.
	debug.SetTraceback("crash")
	cfg, err := r.load()
	if err != nil {
		return err
	}
	log := newLog(r.env, cfg.Log)
	for _, w := range cfg.Warnings() {
		log.Warn().Msg(w)
	}
	audit, err := openTrail(cfg, log)
	if err != nil {
		return err
	}
	defer audit.Close()
	unlock, err := trail.LockState(cfg.StateDir)
	switch {
	case err == nil:
		defer unlock()
	case cfg.Policy.DryRun && !errors.Is(err, trail.ErrRunning):
		log.Warn().Err(err).Msg("the dry run goes on without keeping positions")
	default:
		return &exit{exitFailed, err, "stop the other one, or set another state_dir"}
	}
	h, err := openHost(cfg, daemonPatience)
	if err != nil {
		return err
	}
	defer h.close()
	watchdog, err := systemd.WatchdogInterval(r.env.getenv, os.Getpid())
	if err != nil {
		log.Warn().Err(err).Msg("the watchdog is not answered")
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d := daemon.New(daemon.Options{
		Version: version, Config: cfg, FromStart: r.fromStart, KeepState: unlock != nil,
		Host: h, Trail: audit, Cannot: h.Cannot, Holder: host.Holder, Log: log,
		Configure: func(cfg *config.Config) remediate.Actor {
			h.Configure(h.options(cfg))
			return h.actor(cfg, audit)
		},
		Notifier: systemd.NewNotifier(r.env.getenv), Watchdog: watchdog,
		Reread: r.load, ConfigFile: *r.path,
	})
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-hup:
				d.Reload()
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := d.Run(ctx); err != nil {
		return &exit{exitFailed, fmt.Errorf("the daemon stopped: %w", err), "see the log above"}
	}
	log.Info().Msg("qwatch has stopped")
	return nil
}
