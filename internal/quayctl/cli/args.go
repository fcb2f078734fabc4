package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// Args demands exactly the arguments that are named, as they stand in the command's usage line.
func Args(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return Usagef("missing argument: %s", strings.Join(names[len(args):], " "))
		case len(args) > len(names):
			return Usagef("unexpected argument %q", args[len(names)])
		}
		return nil
	}
}
