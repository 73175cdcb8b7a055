package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"qwatch/internal/daemon"
	"qwatch/internal/trail"
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
		ctx := cmd.Context()
		cfg, err := loadConfig(e, cmd, *path)
		if err != nil {
			return err
		}
		h, err := openHost(cfg)
		if err != nil {
			return err
		}
		defer h.close()
		snapshot, err := h.Observe(ctx)
		if err != nil {
			return &exit{exitFailed, err, ""}
		}
		history, err := trail.Read(filepath.Join(cfg.StateDir, auditFile))
		if err != nil {
			return &exit{exitFailed, err, "read it as root, or name the configuration that qwatch ran with: -c FILE"}
		}
		plan, stays := remediate.PlanUndo(cfg.Policy, snapshot, history, time.Now())
		if err := printUndo(e, plan, stays, *asJSON); err != nil {
			return err
		}
		if plan.Verdict != remediate.Act {
			return nil
		}
		if !*yes && !confirm(e, "Put it back?") {
			return &exit{exitFailed, errors.New("nothing was done: not confirmed"), "say yes, or use --yes"}
		}
		log := newLog(e, cfg.Log)
		audit, err := openTrail(cfg, log)
		if err != nil {
			return err
		}
		defer audit.Close()
		// What was asked for by hand is done, also where the daemon is set to
		// a dry run.
		plan.DryRun = false
		return outcome(plan, daemon.PutBack(ctx, plan, h.acting(audit), audit, log))
	}
	return cmd
}

// outcome is the error of a command that carried a plan out.
func outcome(plan remediate.Plan, outcomes []remediate.Outcome) error {
	failed := len(outcomes) < len(plan.Actions)
	for _, o := range outcomes {
		failed = failed || o.Err != nil
	}
	if failed {
		return &exit{exitFailed, errors.New("not all of it could be done"), "the lines above say what failed and why"}
	}
	return nil
}

// undoJSON is a plan and what stays beside it.
type undoJSON struct {
	remediate.Plan
	stays []remediate.LeftAlone
}

func (u undoJSON) MarshalJSON() ([]byte, error) {
	plan, err := json.Marshal(u.Plan)
	if err != nil {
		return nil, err
	}
	stays, err := json.Marshal(u.stays)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(plan[:len(plan)-1], `,"stays":%s}`, stays), nil
}

func printUndo(e env, plan remediate.Plan, stays []remediate.LeftAlone, asJSON bool) error {
	if asJSON {
		if stays == nil {
			stays = []remediate.LeftAlone{}
		}
		return json.NewEncoder(e.stdout).Encode(undoJSON{plan, stays})
	}
	fmt.Fprintf(e.stdout, "%s\n", plan.Reason)
	for _, a := range plan.Actions {
		fmt.Fprintf(e.stdout, "  %s\n      because %s\n", a, remediate.Describe(a).Why)
	}
	for _, s := range stays {
		fmt.Fprintf(e.stdout, "  stays: %s\n      because %s\n", s.What, s.Why)
	}
	return nil
}
