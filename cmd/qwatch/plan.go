package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"qwatch/internal/config"
	"qwatch/internal/daemon"
	"qwatch/internal/trail"
	"qwatch/matcher"
	"qwatch/remediate"
)

func newPlan(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "What would be done now, and why; changes nothing",
		Long: `Look at every uWSGI listen queue on this host for a second and print what
would be done about it. Exit status 3 says that there is something to do.`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	socket := cmd.Flags().String("socket", "", "only the socket with this `address`")
	asJSON := cmd.Flags().Bool("json", false, "print JSON, one plan a line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(e, cmd, *path)
		if err != nil {
			return err
		}
		h, err := openHost(cfg)
		if err != nil {
			return err
		}
		defer h.close()
		plans, err := makePlans(cmd.Context(), h, cfg, *socket)
		if err != nil {
			return err
		}
		if err := printPlans(e, plans, *asJSON); err != nil {
			return err
		}
		for _, p := range plans {
			if p.Verdict == remediate.Act {
				return &exit{status: exitProblem}
			}
		}
		return nil
	}
	return cmd
}

func newApply(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Do now what plan shows",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd)
	socket := cmd.Flags().String("socket", "", "only the socket with this `address`")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	asJSON := cmd.Flags().Bool("json", false, "print JSON, one plan a line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		cfg, err := loadConfig(e, cmd, *path)
		if err != nil {
			return err
		}
		log := newLog(e, cfg.Log)
		audit, err := openTrail(cfg, log)
		if err != nil {
			return err
		}
		defer audit.Close()
		h, err := openHost(cfg)
		if err != nil {
			return err
		}
		defer h.close()
		plans, err := makePlans(ctx, h, cfg, *socket)
		if err != nil {
			return err
		}
		if err := printPlans(e, plans, *asJSON); err != nil {
			return err
		}
		var todo []remediate.Plan
		for _, p := range plans {
			if *socket != "" && p.Code == remediate.CodeNotFound {
				return &exit{exitFailed, fmt.Errorf("nothing was done: %s", p.Reason), "qwatch doctor shows the sockets that it can see"}
			}
			if p.Verdict == remediate.Act {
				todo = append(todo, p)
			}
		}
		if len(todo) == 0 {
			return nil
		}
		if !*yes && !confirm(e, "Do it?") {
			return &exit{exitFailed, errors.New("nothing was done: not confirmed"), "say yes, or use --yes"}
		}
		for _, p := range todo {
			if err := outcome(p, daemon.Act(ctx, p, h, h.actor(cfg, audit), audit, log)); err != nil {
				return err
			}
		}
		if cfg.Policy.DryRun {
			fmt.Fprintf(e.stderr, "qwatch: nothing was changed: this is a dry run until dry_run = false stands in %s\n", *path)
		}
		return nil
	}
	return cmd
}

// confirm asks on standard error and reads the answer from standard input.
func confirm(e env, question string) bool {
	fmt.Fprintf(e.stderr, "%s [y/N] ", question)
	var answer string
	_, err := fmt.Fscanln(e.stdin, &answer)
	return err == nil && (answer == "y" || answer == "Y" || answer == "yes")
}

// makePlans looks at the host for a while and makes one plan for each socket,
// or one that says that there is none.
func makePlans(ctx context.Context, h outside, cfg *config.Config, address string) ([]remediate.Plan, error) {
	plans, err := planAll(ctx, h, cfg, address)
	if err != nil {
		return nil, &exit{exitFailed, err, ""}
	}
	return plans, nil
}

func planAll(ctx context.Context, h outside, cfg *config.Config, address string) ([]remediate.Plan, error) {
	policy := cfg.Policy
	survey, err := newSurvey(ctx, h, policy)
	if err != nil {
		return nil, err
	}
	history, err := trail.Read(filepath.Join(cfg.StateDir, auditFile))
	if err != nil {
		return nil, err
	}
	snapshot, now := survey.facts, time.Now()
	var plans []remediate.Plan
	for i, s := range snapshot.Sockets {
		if address == "" || s.AnswersTo(address) || s.Name() == address {
			plans = append(plans, survey.plan(s, history, i+1, now))
		}
	}
	if len(plans) > 0 {
		return plans, nil
	}
	lost := errors.New("no uWSGI has a listening socket on this host")
	if address != "" {
		lost = fmt.Errorf("no uWSGI listens on %s", address)
	}
	if len(snapshot.Unseen) > 0 {
		lost = fmt.Errorf("%w that qwatch could see (%s)", lost, snapshot.Unseen[0])
	}
	return []remediate.Plan{remediate.Decide(policy, remediate.Case{
		Incident: matcher.Incident{Socket: address}, Facts: snapshot, Lost: lost, Serial: 1,
	}, history, now)}, nil
}

func printPlans(e env, plans []remediate.Plan, asJSON bool) error {
	for _, p := range plans {
		if asJSON {
			if err := json.NewEncoder(e.stdout).Encode(p); err != nil {
				return err
			}
			continue
		}
		name := p.Name
		if name == "" {
			name = "this host"
		}
		fmt.Fprintf(e.stdout, "%s: %s: %s\n", name, p.Verdict, p.Reason)
		for _, a := range p.Actions {
			fmt.Fprintf(e.stdout, "  %s\n      because %s\n", a, remediate.Describe(a).Why)
		}
		for _, a := range p.Advice {
			fmt.Fprintf(e.stdout, "  advice: %s\n", a)
		}
	}
	return nil
}
