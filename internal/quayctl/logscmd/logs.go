// Package logscmd is `quayctl logs`.
package logscmd

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/spf13/cobra"
)

// component is a part of the registry and the units that write its log.
type component struct {
	name, about string
	units       []string
}

func components() []component {
	return []component{
		{"edge", "what clients connect to", []string{"quay-edge-a.service", "quay-edge-b.service", "quay-edge.socket"}},
		{"registryd", "the registry", []string{"quay-registryd.service"}},
		{"workers", "jobs in the background", []string{"quay-workers.service"}},
		{"postgresql", "the database", []string{"quay-postgresql.service"}},
		{"migrate", "the database's migrations", []string{"quay-migrate.service"}},
	}
}

type options struct {
	factory    *cli.Factory
	components []string
	follow     bool
	since      string
	lines      int
}

// New returns the command.
func New(f *cli.Factory) *cobra.Command { return newCmd(f, run) }

func newCmd(f *cli.Factory, runF func(context.Context, *options) error) *cobra.Command {
	opts := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "logs [COMPONENT...]",
		Short: "Show what the registry's services have logged",
		Long: `Show what the registry's services have logged, from the systemd journal, oldest
first. Without a component it shows all of them.

Components: edge, registryd, workers, postgresql, migrate.`,
		Example: `  quayctl logs
  quayctl logs registryd --follow
  quayctl logs edge --since "10 min ago" --lines 500`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range components() {
				if !slices.Contains(args, c.name) {
					names = append(names, cobra.CompletionWithDesc(c.name, c.about))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.components = args
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVarP(&opts.follow, "follow", "f", false, "go on with new entries until Ctrl-C")
	cmd.Flags().StringVar(&opts.since, "since", "", "start at this `time`, as journalctl takes it: \"2026-01-31 12:00\", \"10 min ago\", today")
	cmd.Flags().IntVarP(&opts.lines, "lines", "n", 200, "show the last `N` entries; 0 for all")
	return cmd
}

// arguments is the command line of journalctl.
func arguments(opts *options) ([]string, error) {
	if opts.lines < 0 {
		return nil, cli.Usagef("--lines: %d is less than 0", opts.lines)
	}
	known := components()
	chosen := known
	if len(opts.components) > 0 {
		chosen = nil
		for _, name := range opts.components {
			i := slices.IndexFunc(known, func(c component) bool { return c.name == name })
			if i < 0 {
				var names []string
				for _, c := range known {
					names = append(names, c.name)
				}
				e := cli.Usagef("there is no component %q", name)
				e.Remedy = "use one of " + strings.Join(names, ", ")
				return nil, e
			}
			chosen = append(chosen, known[i])
		}
	}
	args := []string{"--no-pager", "--quiet", "--output=short-iso"}
	// --user-unit finds a user's entries in every journal that the user may read, --user --unit only in the
	// user's own journal file, which does not exist while the journal is volatile.
	unit := "--unit="
	if opts.factory.Rootless() {
		unit = "--user-unit="
	}
	for _, c := range chosen {
		for _, u := range c.units {
			args = append(args, unit+u)
		}
	}
	if opts.since != "" {
		args = append(args, "--since="+opts.since)
	}
	switch {
	case opts.lines > 0:
		args = append(args, fmt.Sprintf("--lines=%d", opts.lines))
	case opts.follow:
		args = append(args, "--no-tail")
	}
	if opts.follow {
		args = append(args, "--follow")
	}
	return args, nil
}

// grace is how long journalctl may take to end after it was asked to.
const grace = 5 * time.Second

func run(ctx context.Context, opts *options) error {
	args, err := arguments(opts)
	if err != nil {
		return err
	}
	if _, err := opts.factory.Installation(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...) //nolint:gosec // what the user gives is the value of an option
	cmd.Stdout, cmd.Stderr = opts.factory.IO.Out, opts.factory.IO.Err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	opts.factory.Log.Debug("run", "command", cmd.Args)
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil: // Ctrl-C is how one stops following: nothing to explain
		return cli.Exit(cli.ExitInterrupted)
	case errors.Is(err, exec.ErrNotFound):
		return cli.NewError(cli.ExitFailure, "journal", err, "journalctl is part of systemd: install it")
	case errors.As(err, &exit):
		return cli.NewError(cli.ExitFailure, "journal", err, "journalctl has told the cause above")
	}
	return err
}
