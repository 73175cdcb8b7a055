package main

import (
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manual is qwatch(1) but for the commands, which stand where manualCommands
// is.
//
//go:embed qwatch.1.in
var manual string

const manualCommands = ".\\\" COMMANDS\n"

// newMan prints the manual page. The package is built with it; the commands'
// own help is its source, so that the two cannot differ.
func newMan(e env) *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "Print the manual page qwatch(1)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			before, after, _ := strings.Cut(manual, manualCommands)
			var b strings.Builder
			b.WriteString(before)
			for _, c := range cmd.Root().Commands() {
				if c.IsAvailableCommand() {
					manCommand(&b, c)
				}
			}
			b.WriteString(after)
			_, err := io.WriteString(e.stdout, b.String())
			return err
		},
	}
}

func manCommand(b *strings.Builder, c *cobra.Command) {
	_, args, _ := strings.Cut(c.Use, " ")
	fmt.Fprintf(b, ".SS \"%s\"\n", roff(strings.TrimSpace("qwatch "+c.Name()+" "+args)))
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	for line := range strings.Lines(text) {
		switch line = strings.TrimRight(line, "\n"); {
		case line == "":
			b.WriteString(".PP\n")
		case strings.HasPrefix(line, "  "): // an example
			fmt.Fprintf(b, ".br\n\\ \\ %s\n", roff(strings.TrimSpace(line)))
		default:
			b.WriteString(roff(line) + "\n")
		}
	}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", roff(f.Name))
		if name != "" && f.Value.Type() != "bool" {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(name))
		}
		b.WriteString("\n" + roff(usage))
		if d := f.DefValue; d != "" && d != "false" && d != "[]" && d != "0" {
			fmt.Fprintf(b, " (default %s)", roff(d))
		}
		b.WriteString("\n")
	})
}

// roff escapes what groff_man(7) would read as its own.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
