// Package helpcmd is `quayctl help`: commands, and topics that are none.
package helpcmd

import (
	"fmt"
	"strings"

	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/spf13/cobra"
)

// Topics are the names of the help texts that belong to no command.
func Topics() []string { return []string{"exit-codes"} }

// New returns the command. unknown makes the error of a command that parent does not have.
func New(f *cli.Factory, unknown func(parent *cobra.Command, name string) error) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND...|exit-codes]",
		Short: "Show help for a command, or the exit codes",
		Example: `  quayctl help install
  quayctl help user create
  quayctl help exit-codes`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			if len(args) == 0 {
				names = Topics()
			}
			for _, c := range at.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] == "exit-codes" {
				_, err := fmt.Fprint(f.IO.Out, ExitCodes())
				return err
			}
			at := cmd.Root()
			for _, name := range args {
				next := child(at, name)
				if next == nil {
					return unknown(at, name)
				}
				at = next
			}
			return at.Help()
		},
	}
}

func child(parent *cobra.Command, name string) *cobra.Command {
	for _, c := range parent.Commands() {
		if c.Name() == name || c.HasAlias(name) {
			return c
		}
	}
	return nil
}

// ExitCodes is the text of `help exit-codes`.
func ExitCodes() string {
	var b strings.Builder
	b.WriteString("quayctl ends with one of these codes. The name is \"code\" in the error of --output json.\n")
	for _, d := range cli.ExitCodes() {
		fmt.Fprintf(&b, "\n%4d  %s\n      %s\n      %s\n", d.Code, d.Name, d.Meaning, d.ThenDo)
	}
	return b.String()
}
