package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"qwatch/internal/config"
	"qwatch/internal/text"
	"qwatch/remediate/diagnose"
	"qwatch/remediate/facts"
)

func newDoctor(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Which limit binds each queue, what a reboot would give, what to change",
		Long: `Look at every uWSGI listen queue on this host for a second and print what binds
it, what a cold start and a reboot would give, what qwatch may do here (tried,
not guessed), and what is wrong, with its cure. Nothing is changed. It works
without root as far as it can. Exit status 3 says that there is a problem.`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withHost(e, cmd, *path, func(cfg *config.Config, h outside) error {
			// The rights that this process has are the question here, also
			// where the configuration asks for a dry run.
			options := h.options(cfg)
			options.AssumeRights = false
			h.Configure(options)
			var same []string
			if cmd.Flags().Changed("config") {
				abs, err := filepath.Abs(*path)
				if err != nil {
					return err
				}
				same = []string{"-c", abs}
			}
			audit := lookAsAudit(cmd.Context(), same...)
			survey, err := newSurvey(cmd.Context(), h, cfg.Policy)
			if err != nil {
				return err
			}
			// Where it may not be read, qwatch's own reloads are not told apart.
			if survey.history, err = readTrail(cfg); err != nil {
				survey.facts.Unseen = append(survey.facts.Unseen, "what qwatch did before: "+err.Error())
			}
			journal := slices.ContainsFunc(cfg.Sources, func(src config.Source) bool { return len(src.Journal) > 0 })
			report := doctorReport{Report: survey.report(journal), Unreadable: unreadable(cfg)}
			report.Audit = compare(report.Report, <-audit)
			if *asJSON {
				err = json.NewEncoder(e.stdout).Encode(report)
			} else {
				err = printReport(e.stdout, report)
			}
			if err == nil && len(report.Problems) > 0 {
				err = &exit{status: exitProblem}
			}
			return err
		})
	}
	return cmd
}

func printReport(w io.Writer, c doctorReport) error {
	var b strings.Builder
	for _, p := range c.Problems {
		fmt.Fprintf(&b, "! %s\n", text.Line(p))
	}
	if len(c.Problems) > 0 {
		b.WriteByte('\n')
	}
	if b.WriteString("somaxconn"); c.Somaxconn != nil {
		fmt.Fprintf(&b, " %d now", *c.Somaxconn)
	} else {
		b.WriteString(" could not be read")
	}
	switch {
	case c.Boot.File != nil:
		fmt.Fprintf(&b, ", %d after a reboot (%s)\n", *c.Boot.Somaxconn, text.Line(*c.Boot.File))
	case c.Boot.Somaxconn != nil:
		fmt.Fprintf(&b, ", %d after a reboot (the kernel's default)\n", *c.Boot.Somaxconn)
	default:
		fmt.Fprintf(&b, ", not known after a reboot: %s\n", text.Line(c.Boot.Unseen))
	}
	switch {
	case len(c.Sockets) == 0 && c.HiddenOwners == "":
		b.WriteString("\nno uWSGI has a listening socket here\n")
	case len(c.Sockets) == 0:
		fmt.Fprintf(&b, "\nno uWSGI that qwatch may see has a listening socket here, and not all of them could be looked into: %s\n", text.Line(c.HiddenOwners))
	}
	for _, s := range c.Sockets {
		fmt.Fprintf(&b, "\n%s  %s %4d of %d\n", text.Line(s.Socket), bar(s.Length, s.Limit), s.Length, s.Limit)
		owner := fmt.Sprintf("uwsgi %d", s.PID)
		if s.Unit != nil {
			owner += ", " + *s.Unit
		}
		if s.Container != nil {
			owner += ", in " + *s.Container
		}
		fmt.Fprintf(&b, "  %s, %s, %s\n", text.Line(owner), s.Family, text.Plural(s.Workers, "worker", "workers"))
		if s.Overflows != nil && *s.Overflows > 0 {
			fmt.Fprintf(&b, "  at least %s found its queue full since it was made\n", text.Plural(int(*s.Overflows), "connection has", "connections have"))
		}
		fmt.Fprintf(&b, "  the limit is set by %s", bindingWords[s.Binds])
		if s.Configured != nil {
			fmt.Fprintf(&b, "; a cold start gives listen = %d", *s.Configured)
			if s.ConfiguredAt != nil {
				fmt.Fprintf(&b, " (%s)", text.Line(*s.ConfiguredAt))
			}
		}
		b.WriteByte('\n')
		for _, r := range s.Reasons {
			fmt.Fprintf(&b, "  %s\n", text.Line(r))
		}
		for _, a := range s.Advice {
			fmt.Fprintf(&b, "  → %s\n", text.Line(a))
		}
	}
	b.WriteString("\nqwatch may here:")
	for _, step := range facts.Steps() {
		mark := "yes"
		if !c.Can[step] {
			mark = "no"
		}
		fmt.Fprintf(&b, "  %s %s", step, mark)
	}
	b.WriteByte('\n')
	for _, u := range c.Unseen {
		fmt.Fprintf(&b, "not seen: %s\n", text.Line(u))
	}
	for _, path := range c.Unreadable {
		fmt.Fprintf(&b, "not readable: %s\n", text.Line(path))
	}
	if c.Audit != nil {
		b.WriteString(c.Audit.String())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var bindingWords = map[diagnose.Bind]string{
	diagnose.BindListen:    "uWSGI's own listen",
	diagnose.BindSomaxconn: "somaxconn",
	diagnose.BindUnit:      "Backlog= of its .socket unit",
	diagnose.BindUnknown:   "something that could not be told",
}

// bar draws a queue in 20 columns.
func bar(length, limit int) string {
	const width = 20
	full := 0
	if limit > 0 {
		full = min(width, (length*width+limit-1)/limit)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}
