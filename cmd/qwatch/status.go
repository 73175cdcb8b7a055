package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"qwatch/internal/daemon"
	"qwatch/internal/text"
	"qwatch/remediate/facts"
)

func newStatus(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask the running daemon",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	watch := cmd.Flags().Bool("watch", false, "print it again each second")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(e, cmd, *path)
		if err != nil {
			return err
		}
		if cfg.Socket == "" {
			return &exit{exitFailed, errors.New("the status API is off"), `set socket = "/run/qwatch/qwatch.sock"`}
		}
		for {
			if err := printStatus(cmd.Context(), e.stdout, cfg.Socket, *asJSON); err != nil {
				return &exit{exitFailed, fmt.Errorf("no answer from a daemon at %s: %w", cfg.Socket, err), "is it running? systemctl status qwatch"}
			}
			if !*watch {
				return nil
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
	return cmd
}

func printStatus(ctx context.Context, w io.Writer, socket string, asJSON bool) error {
	s, err := daemon.FetchStatus(ctx, socket)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	fmt.Fprintf(w, "qwatch %s since %s: %s\n", s.Version, s.Started.Local().Format(time.DateTime), s.Summary())
	if s.Cannot == nil {
		fmt.Fprintln(w, "what it cannot do here is not known yet")
	}
	for _, step := range facts.AllSteps() {
		if why, is := s.Cannot[step]; is {
			fmt.Fprintf(w, "cannot do %s here: %s\n", step, text.Line(why))
		}
	}
	table := func(head string, rows int, row func(i int) string) {
		if rows == 0 {
			return
		}
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, head)
		for i := range rows {
			fmt.Fprintln(t, oneRow(row(i)))
		}
		t.Flush()
	}
	table("SOCKET\tUWSGI\tQUEUE\tHITS", len(s.Sockets), func(i int) string {
		q := s.Sockets[i]
		master := fmt.Sprint(q.PID)
		if q.Unit != nil {
			master += " " + *q.Unit
		}
		return fmt.Sprintf("%s\t%s\t%d of %d\t%d", q.Socket, master, q.Length, q.Limit, q.Hits)
	})
	table("INCIDENT\tSOCKET\tSTATE\tHITS\tPEAK\tLAST", len(s.Incidents), func(i int) string {
		n := s.Incidents[i]
		state := n.State
		if n.Outlook != nil {
			state += ": " + *n.Outlook
		}
		return fmt.Sprintf("%s\t%s\t%s\t%d\t%d of %d\t%s", n.ID, n.Socket, state, n.Hits, n.Peak, n.Limit, n.Last.Local().Format(time.DateTime))
	})
	table("ACTION\tTARGET\tCHANGE\tRESULT\tTIME", len(s.Actions), func(i int) string {
		a := s.Actions[i]
		change := ""
		if a.From != nil && a.To != nil {
			change = fmt.Sprintf("%d → %d", *a.From, *a.To)
		}
		result := string(a.Result)
		if a.Error != "" {
			result += ": " + a.Error
		}
		return strings.Join([]string{string(a.Action), a.Target, change, result, a.Time.Local().Format(time.DateTime)}, "\t")
	})
	table("SOURCE\tKIND\tLINES\tHITS\tERROR", len(s.Sources), func(i int) string {
		src := s.Sources[i]
		lines, trouble := "-", "-"
		if src.Lines != nil {
			lines = fmt.Sprint(*src.Lines)
		}
		if src.Error != nil {
			trouble = *src.Error
		}
		return fmt.Sprintf("%s\t%s\t%s\t%d\t%s", src.Name, src.Kind, lines, src.Hits, trouble)
	})
	return nil
}

// oneRow keeps the cells of a row on one line, whatever stands in them.
func oneRow(row string) string {
	cells := strings.Split(row, "\t")
	for i := range cells {
		cells[i] = text.Line(cells[i])
	}
	return strings.Join(cells, "\t")
}
