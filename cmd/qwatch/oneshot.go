package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"qwatch/internal/config"
	"qwatch/internal/text"
	"qwatch/internal/trail"
	"qwatch/matcher"
	"qwatch/remediate"
)

// withHost runs a command that looks at the host by hand. An error of f without
// an exit status of its own is a failure.
func withHost(e env, cmd *cobra.Command, path string, f func(*config.Config, outside) error) error {
	cfg, err := loadConfig(e, cmd, path)
	if err != nil {
		return err
	}
	h, err := openHost(cfg, patience)
	if err != nil {
		return err
	}
	defer h.close()
	err = f(cfg, h)
	if x := new(exit); err != nil && !errors.As(err, &x) {
		return &exit{exitFailed, err, ""}
	}
	return err
}

// confirm asks on standard error and reads the answer from standard input. The
// error says that nothing was done.
func confirm(e env, question string) error {
	fmt.Fprintf(e.stderr, "%s [y/N] ", question)
	var answer string
	if _, err := fmt.Fscanln(e.stdin, &answer); err == nil && (answer == "y" || answer == "Y" || answer == "yes") {
		return nil
	}
	return &exit{exitFailed, errors.New("nothing was done: not confirmed"), "say yes, or use --yes"}
}

// makePlans looks at the host for a while and makes one plan for each socket,
// or one that says that there is none.
func makePlans(ctx context.Context, h outside, cfg *config.Config, address string) ([]remediate.Plan, error) {
	survey, err := newSurvey(ctx, h, cfg.Policy)
	if err != nil {
		return nil, err
	}
	if survey.history, err = readTrail(cfg); err != nil {
		return nil, err
	}
	history := survey.history
	snapshot, now := survey.facts, time.Now()
	var cases []remediate.Case
	for i, s := range snapshot.Sockets {
		if address == "" || s.AnswersTo(address) || s.Name() == address {
			cases = append(cases, survey.ask(s, i+1))
		}
	}
	if len(cases) > 0 {
		return remediate.DecidePass(cfg.Policy, cases, func() []remediate.Case { return nil }, history, now), nil
	}
	return []remediate.Plan{remediate.Decide(cfg.Policy, remediate.Case{
		Incident: matcher.Incident{Socket: address}, Facts: snapshot, Lost: none(address, snapshot.HiddenOwners), Serial: 1,
	}, history, now)}, nil
}

// none says that no socket has the address, "" for any, and no more than was seen.
func none(address, hidden string) error {
	who, why := "no uWSGI", ""
	if hidden != "" {
		who, why = "no uWSGI that qwatch may see", ", and not all of them could be looked into: "+hidden
	}
	if address == "" {
		return fmt.Errorf("%s has a listening socket on this host%s", who, why)
	}
	return fmt.Errorf("%s listens on %s%s", who, address, why)
}

// readTrail reads what was done before.
func readTrail(cfg *config.Config) (remediate.History, error) {
	history, err := trail.Read(filepath.Join(cfg.StateDir, auditFile))
	if err != nil {
		return nil, &exit{exitFailed, err, "read it as root, or name the configuration that qwatch ran with: -c FILE"}
	}
	return history, nil
}

// printActions writes the actions of a plan for people.
func printActions(w io.Writer, actions []remediate.Action) {
	for _, a := range actions {
		fmt.Fprintf(w, "  %s\n      because %s\n", text.Line(fmt.Sprint(a)), text.Line(a.Describe().Why))
	}
}

// outcome is the error of a command that carried plans out.
func outcome(done []remediate.Done) error {
	failed := false
	for _, d := range done {
		if j := d.Judgement; j.Result == remediate.NoEffect || j.Result == remediate.Worse {
			return &exit{exitFailed, fmt.Errorf("%s at %s: %s", j.Result, d.Plan.Name, j.Why), "qwatch doctor tells what else to change"}
		}
		failed = failed || d.Err != nil || len(d.Outcomes) < len(d.Plan.Actions) ||
			slices.ContainsFunc(d.Outcomes, func(o remediate.Outcome) bool { return o.Err != nil })
	}
	if failed {
		return &exit{exitFailed, errors.New("not all of it could be done, or judged"), "the lines above say what failed and why"}
	}
	return nil
}
