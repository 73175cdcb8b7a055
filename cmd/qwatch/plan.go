package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"qwatch/internal/config"
	"qwatch/internal/daemon"
	"qwatch/internal/text"
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
		return withHost(e, cmd, *path, func(cfg *config.Config, h outside) error {
			plans, err := makePlans(cmd.Context(), h, cfg, *socket)
			if err != nil {
				return err
			}
			if err := printPlans(e, plans, *asJSON); err != nil {
				return err
			}
			if err := notFound(plans, *socket, exitUsage, ""); err != nil {
				return err
			}
			if slices.ContainsFunc(plans, func(p remediate.Plan) bool { return p.Verdict == remediate.Act }) {
				return &exit{status: exitProblem}
			}
			return nil
		})
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
		return withHost(e, cmd, *path, func(cfg *config.Config, h outside) error {
			log := newLog(e, cfg.Log)
			audit, err := openTrail(cfg, log)
			if err != nil {
				return err
			}
			defer audit.Close()
			plans, err := makePlans(cmd.Context(), h, cfg, *socket)
			if err != nil {
				return err
			}
			if err := printPlans(e, plans, *asJSON); err != nil {
				return err
			}
			if err := notFound(plans, *socket, exitFailed, "nothing was done: "); err != nil {
				return err
			}
			plans = slices.DeleteFunc(plans, func(p remediate.Plan) bool { return p.Verdict != remediate.Act })
			if len(plans) == 0 {
				return nil
			}
			if !*yes {
				if err := confirm(e, "Do it?"); err != nil {
					return err
				}
			}
			if err := outcome(daemon.Act(cmd.Context(), plans, h, h.actor(cfg, audit), audit, log)); err != nil {
				return err
			}
			if cfg.Policy.DryRun {
				fmt.Fprintf(e.stderr, "qwatch: nothing was changed: this is a dry run until dry_run = false stands in %s\n", *path)
			}
			return nil
		})
	}
	return cmd
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
		fmt.Fprintf(e.stdout, "%s: %s: %s\n", text.Line(name), p.Verdict, text.Line(p.Reason))
		printActions(e.stdout, p.Actions)
		for _, a := range p.Advice {
			fmt.Fprintf(e.stdout, "  advice: %s\n", text.Line(a))
		}
	}
	return nil
}

// notFound is the error of a command about a socket that no uWSGI has.
func notFound(plans []remediate.Plan, socket string, status int, words string) error {
	if i := slices.IndexFunc(plans, func(p remediate.Plan) bool { return p.Code == remediate.CodeNotFound }); i >= 0 && socket != "" {
		return &exit{status, errors.New(words + plans[i].Reason), "qwatch doctor shows the sockets that it can see"}
	}
	return nil
}
