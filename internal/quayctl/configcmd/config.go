// Package configcmd is `quayctl config`.
package configcmd

import (
	"fmt"

	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/spf13/cobra"
)

// New returns the command with its subcommands.
func New(f *cli.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Work with the registry's configuration",
		Example: "  quayctl config validate config.yaml",
	}
	cmd.AddCommand(newValidate(f, validate))
	return cmd
}

type validateOptions struct {
	factory *cli.Factory
	format  cli.Format
	file    string
}

// validation is the JSON shape, schema quayctl/config-validation/v1.
type validation struct {
	File     string          `json:"file"`
	Valid    bool            `json:"valid"`
	Problems config.Problems `json:"problems"`
	Unknown  []string        `json:"unknown_keys"` // kept, without effect
}

func newValidate(f *cli.Factory, runF func(*validateOptions) error) *cobra.Command {
	opts := &validateOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a config.yaml and tell everything that is wrong with it",
		Long: `Check a config.yaml as the registry's services will read it, and tell everything
that is wrong with it: the key, the cause and the remedy. Values that may be
secret are never shown. Nothing is changed, and no installation is needed.

The exit code is 6 when there are problems. Keys that nothing knows are kept
and have no effect; they are told, and are no problem.`,
		Example: `  quayctl config validate /etc/quay/config.yaml
  quayctl config validate config.yaml --output json`,
		Args: cli.Args("FILE"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(_ *cobra.Command, args []string) error {
			opts.file = args[0]
			return runF(opts)
		},
	}
	cli.AddOutputFlag(cmd, &opts.format)
	return cmd
}

func validate(opts *validateOptions) error {
	c, err := config.LoadFile(opts.file)
	if err != nil {
		return cli.NewError(cli.ExitConfig, "", err, "give the path of a readable YAML file with one mapping of keys to values")
	}
	v := validation{File: opts.file, Problems: c.Validate(), Unknown: c.Unknown()}
	v.Valid = len(v.Problems) == 0
	if v.Problems == nil {
		v.Problems = config.Problems{}
	}
	if v.Unknown == nil {
		v.Unknown = []string{}
	}
	if err := write(opts, v); err != nil || v.Valid {
		return err
	}
	return cli.Exit(cli.ExitConfig)
}

func write(opts *validateOptions, v validation) error {
	io := opts.factory.IO
	if opts.format == cli.FormatJSON {
		return cli.WriteJSON(io.Out, "config-validation", 1, v)
	}
	p := io.OutPalette()
	for _, problem := range v.Problems {
		key := problem.Key
		if problem.Value != "" {
			key += " (" + problem.Value + ")"
		}
		fmt.Fprintf(io.Out, "%s %s: %s\n  remedy: %s\n", p.Red("error:"), p.Bold(key), problem.Cause, problem.Remedy)
	}
	for _, key := range v.Unknown {
		fmt.Fprintf(io.Out, "%s %s: nothing knows this key; it has no effect\n", p.Yellow("note:"), p.Bold(key))
	}
	summary := p.Green(v.File + " is valid")
	if n := len(v.Problems); n == 1 {
		summary = v.File + " has 1 problem"
	} else if n > 1 {
		summary = fmt.Sprintf("%s has %d problems", v.File, n)
	}
	_, err := fmt.Fprintln(io.Out, summary)
	return err
}
