// Package completioncmd is `quayctl completion`.
package completioncmd

import (
	"slices"
	"strings"

	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/spf13/cobra"
)

// New returns the command.
func New(f *cli.Factory) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Write the completion script of a shell",
		Long: `Write the script that completes commands, flags and their values in a shell.
It belongs to this quayctl: write it again after an upgrade.`,
		Example: `  # this shell only
  source <(quayctl completion bash)
  # every new shell
  quayctl completion bash > /etc/bash_completion.d/quayctl
  quayctl completion zsh > "${fpath[1]}/_quayctl"
  quayctl completion fish > ~/.config/fish/completions/quayctl.fish
  quayctl completion powershell >> $PROFILE`,
		ValidArgs: shells,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cli.Args("SHELL")(cmd, args); err != nil {
				return err
			}
			if !slices.Contains(shells, args[0]) {
				e := cli.Usagef("there is no completion for %q", args[0])
				e.Remedy = "give one of " + strings.Join(shells, ", ")
				return e
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), f.IO.Out
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			default:
				return root.GenPowerShellCompletionWithDesc(out)
			}
		},
	}
}
