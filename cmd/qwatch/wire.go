package main

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"qwatch/internal/apply"
	"qwatch/internal/config"
	"qwatch/internal/host"
	"qwatch/internal/text"
	"qwatch/internal/trail"
	"qwatch/remediate"
	"qwatch/systemd"
	"qwatch/tailer"
	"qwatch/tailer/journal"
)

// auditFile is the audit trail's name in the state directory.
const auditFile = "audit.jsonl"

// newLog makes the log that a configuration asks for.
func newLog(e env, cfg config.Log) zerolog.Logger {
	format := cfg.Format
	file, isFile := e.stderr.(*os.File)
	if format == config.FormatAuto {
		switch {
		case isFile && systemd.OnJournal(file, e.getenv):
			format = config.FormatJournald
		case isFile && term.IsTerminal(int(file.Fd())):
			format = config.FormatConsole
		default:
			format = config.FormatJSON
		}
	}
	var w io.Writer = e.stderr
	switch format {
	case config.FormatJournald:
		w = systemd.NewJournalWriter(e.stderr)
	case config.FormatConsole:
		w = zerolog.ConsoleWriter{
			Out: e.stderr, NoColor: e.getenv("NO_COLOR") != "" || !isFile || !term.IsTerminal(int(file.Fd())),
			TimeFormat: time.TimeOnly,
			// Fields are quoted where they need it, the message is not.
			FormatMessage: func(message any) string {
				s, _ := message.(string)
				return text.Line(s)
			},
			FieldsExclude: []string{
				"event", "id", "code", "verdict", "reason", "actions", "dry_run", "advice",
			},
		}
	}
	level, _ := zerolog.ParseLevel(cfg.Level) // checked
	// Names in an event come from logs and from any user. Here it is JSON yet:
	// what is escaped in it is for the writers that undo that.
	return zerolog.New(text.Writer(w)).Level(level).With().Timestamp().Logger()
}

// outside is all that the commands know of the host.
type outside struct {
	*host.Host
	units    *systemd.Manager // nil where no systemd runs
	patience time.Duration
}

// A command that somebody waits for waits longer for what does not answer than
// the daemon, for which the next look is soon.
const (
	patience       = time.Second
	daemonPatience = 50 * time.Millisecond
)

// openHost opens the host for a configuration.
func openHost(cfg *config.Config, patience time.Duration) (outside, error) {
	o := outside{patience: patience}
	if _, err := os.Stat("/run/systemd/system"); err == nil { // sd_booted(3)
		o.units = systemd.NewManager()
	}
	var err error
	o.Host, err = host.New(o.options(cfg))
	if err != nil {
		return outside{}, &exit{exitFailed, err, "qwatch needs Linux with sock_diag and /proc"}
	}
	return o, nil
}

func (o outside) close() {
	o.Host.Close()
	if o.units != nil {
		o.units.Close()
	}
}

// setMode sets what follows from acting or a dry run, which plans what the acting
// service would do, whatever its own rights.
func setMode(cfg *config.Config, dryRun bool) {
	cfg.Policy.DryRun, cfg.Policy.AssumeRights = dryRun, dryRun
}

// options is what a configuration means for the host.
func (o outside) options(cfg *config.Config) host.Options {
	options := host.Options{
		Processes:    cfg.Probe.Processes,
		Users:        cfg.Probe.Users,
		Sysctls:      append([]string{"net.core.somaxconn"}, slices.Sorted(maps.Keys(cfg.Policy.Also))...),
		SysctlFile:   cfg.Policy.SysctlFile,
		AssumeRights: cfg.Policy.AssumeRights,
		ReloadPath:   cfg.Policy.ReloadHow.Path,
		Patience:     o.patience,
		Deploys:      cfg.Policy.Reload == remediate.Always,
		Records:      !cfg.Policy.Corroborate,
	}
	for _, src := range cfg.Sources {
		if src.Stats != "" && !slices.Contains(options.Stats, src.Stats) {
			options.Stats = append(options.Stats, src.Stats)
		}
	}
	if o.units != nil {
		options.SocketUnits, options.Services = o.units, o.units
	}
	return options
}

// actor is where acting and a dry run part.
func (o outside) actor(cfg *config.Config, trail remediate.Recorder) remediate.Actor {
	if cfg.Policy.DryRun {
		return remediate.DryRun{Trail: trail}
	}
	return o.acting(cfg, trail)
}

// acting is the actor that changes the host.
func (o outside) acting(cfg *config.Config, trail remediate.Recorder) remediate.Actor {
	var units apply.Units // not a nil *systemd.Manager in it
	if o.units != nil {
		units = o.units
	}
	a := apply.New(cfg.Probe.Processes, units)
	if o.units != nil {
		a.Follow = followUnit
	}
	return remediate.Acting{Applier: a, Trail: trail}
}

// followUnit hands over what a unit logs to the journal from now on.
func followUnit(ctx context.Context, unit string, entry func([]byte)) (<-chan struct{}, error) {
	j, err := journal.New(journal.Options{Units: []string{unit}}, func(c tailer.Chunk) { entry(c.Text) })
	if err != nil {
		return nil, err
	}
	go j.Run(ctx)
	return j.Ready(), nil
}

// openTrail opens the audit trail. A dry run that may not write there keeps it
// in memory, and says so.
func openTrail(cfg *config.Config, log zerolog.Logger) (*trail.Trail, error) {
	t, err := trail.Open(filepath.Join(cfg.StateDir, auditFile))
	if err != nil && cfg.Policy.DryRun {
		log.Warn().Err(err).Msg("the dry run goes on without an audit trail on disk")
		return &trail.Trail{}, nil
	}
	if err != nil {
		return nil, &exit{exitFailed, err, "qwatch changes nothing that it cannot record; make state_dir writable"}
	}
	return t, nil
}
