package daemon

import (
	"context"
	"slices"

	"github.com/rs/zerolog"

	"qwatch/internal/config"
	"qwatch/remediate/facts"
)

// tellRights tries once, at the start, what this process may do, and says what
// it may not: a sandbox forbids things that its rights would allow, and nobody
// should learn that from a raise that fails.
func (d *Daemon) tellRights(ctx context.Context) error {
	if _, err := d.Status(ctx); err != nil { // tells which processes to try them on
		return nil // ctx ended
	}
	cannot := d.opts.Cannot(ctx)
	if cannot == nil { // null is for what is not known
		cannot = map[facts.Step]string{}
	}
	cfg := d.opts.Config
	for _, step := range facts.AllSteps() {
		why, is := cannot[step]
		if !is || ctx.Err() != nil || !wants(cfg, step) {
			continue
		}
		level, words := zerolog.WarnLevel, "qwatch cannot do %s here: %s"
		// To see is what it needs nevertheless.
		if cfg.Policy.AssumeRights && step != facts.StepJournal && step != facts.StepContainers {
			level, words = zerolog.InfoLevel, "this process could not do %s, which its plans assume: %s"
		}
		d.log.WithLevel(level).Str("action", string(step)).Msgf(words, step, why)
	}
	// Where qwatch acts, each look at the host tries it anew.
	_ = d.core.call(ctx, func(context.Context) { d.core.cannot = cannot }) // an error is that ctx ended
	return nil
}

// wants reports whether a step is made use of.
func wants(cfg *config.Config, step facts.Step) bool {
	return cfg.Policy.Wants(step, followsJournal(cfg))
}

func followsJournal(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Sources, func(src config.Source) bool { return len(src.Journal) > 0 })
}

// cannotDo is what a status tells of the rights: the newest trial of those steps
// that are made use of; nil until they were tried.
func (c *core) cannotDo() map[facts.Step]string {
	if c.cannot == nil {
		return nil
	}
	looked := !c.settings.policy.AssumeRights && !c.view.snapshot.At.IsZero()
	out := map[facts.Step]string{}
	for _, step := range facts.AllSteps() {
		why := c.cannot[step]
		if looked && step != facts.StepContainers { // which no look tries
			why = c.view.snapshot.WhyNot(step)
		}
		if why != "" && c.settings.policy.Wants(step, c.settings.journal) {
			out[step] = why
		}
	}
	return out
}
