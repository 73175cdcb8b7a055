package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"qwatch/internal/config"
	"qwatch/internal/text"
)

// configFlag adds -c to a command.
func configFlag(cmd *cobra.Command) *string {
	path := cmd.Flags().StringP("config", "c", config.DefaultPath, "configuration `file`")
	_ = cmd.MarkFlagFilename("config", "toml")
	return path
}

// loadConfig reads the configuration. Where the default file does not exist
// the built-in defaults hold, which are a dry run; a file that was named must
// exist.
func loadConfig(e env, cmd *cobra.Command, path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
		cfg, err = config.BuiltIn(), nil
	}
	if err == nil {
		err = cfg.UseStateDirectory(e.getenv("STATE_DIRECTORY"))
	}
	if err != nil {
		return nil, &exit{exitUsage, err, "qwatch check -c " + path}
	}
	setMode(cfg, cfg.Policy.DryRun)
	return cfg, nil
}

func newCheck(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Is the configuration good",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config.Load(*path)
		if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
			fmt.Fprintf(e.stdout, "%s does not exist: the built-in defaults hold, which are a dry run\n", *path)
			return nil
		}
		if err != nil {
			return &exit{exitUsage, err, "name an existing file with -c"}
		}
		for _, w := range cfg.Warnings() {
			fmt.Fprintf(e.stderr, "qwatch: warning: %s\n", w)
		}
		mode := map[bool]string{true: "dry run", false: "acts"}[cfg.Policy.DryRun]
		fmt.Fprintf(e.stdout, "%s is good (%s, %s)\n", *path, mode, text.Plural(len(cfg.Sources), "source", "sources"))
		return nil
	}
	return cmd
}

func newVersion(e env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(e.stdout, "qwatch", version)
			return err
		},
	}
}
