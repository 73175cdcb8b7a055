package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"qwatch/internal/config"
	"qwatch/internal/daemon"
	"qwatch/remediate"
)

func newUndo(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "undo",
		Short: "Put back what qwatch changed, where that is safe",
		Long: `Show what qwatch changed on this host and put it back, the newest change first:
only where the host still is as qwatch left it, and never below the largest
listen backlog that is configured or running.`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withHost(e, cmd, *path, func(cfg *config.Config, h outside) error {
			snapshot, err := h.Observe(cmd.Context())
			if err != nil {
				return err
			}
			history, err := readTrail(cfg)
			if err != nil {
				return err
			}
			plan, stays := remediate.PlanUndo(cfg.Policy, snapshot, history, time.Now())
			if err := printUndo(e, plan, stays, *asJSON); err != nil {
				return err
			}
			if plan.Verdict != remediate.Act {
				return nil
			}
			if !*yes {
				if err := confirm(e, "Put it back?"); err != nil {
					return err
				}
			}
			log := newLog(e, cfg.Log)
			audit, err := openTrail(cfg, log)
			if err != nil {
				return err
			}
			defer audit.Close()
			// What was asked for by hand is done, also where the daemon is set
			// to a dry run.
			plan.DryRun = false
			return outcome(daemon.Act(cmd.Context(), []remediate.Plan{plan}, h, h.acting(cfg, audit), audit, log))
		})
	}
	return cmd
}

// printUndo writes a plan, and beside it what stays.
func printUndo(e env, plan remediate.Plan, stays []remediate.LeftAlone, asJSON bool) error {
	if asJSON {
		whole, err := json.Marshal(plan)
		if err != nil {
			return err
		}
		left, err := json.Marshal(append([]remediate.LeftAlone{}, stays...)) // never null
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "%s,\"stays\":%s}\n", whole[:len(whole)-1], left)
		return err
	}
	fmt.Fprintf(e.stdout, "%s\n", plan.Reason)
	printActions(e.stdout, plan.Actions)
	for _, s := range stays {
		fmt.Fprintf(e.stdout, "  stays: %s\n      because %s\n", s.What, s.Why)
	}
	return nil
}
