// Package restartcmd is `quayctl restart`.
package restartcmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/quayctl/quayctl/internal/appliance"
	"github.com/quayctl/quayctl/internal/host"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/steps"
	"github.com/spf13/cobra"
)

type options struct {
	factory    *cli.Factory
	components []string
	format     cli.Format
}

// New returns the command.
func New(f *cli.Factory) *cobra.Command { return newCmd(f, run) }

func newCmd(f *cli.Factory, runF func(context.Context, *options) error) *cobra.Command {
	o := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "restart [COMPONENT...]",
		Short: "Restart components, or all, without failing requests",
		Long: `Restart components of the registry, or all of them, one after the other.

The front door (edge) is replaced by a second one before it stops, and waits for the
registry while that restarts: clients notice nothing but a moment's delay.`,
		Example: `  quayctl restart
  quayctl restart edge`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			l, err := f.Installation()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			s, err := appliance.ReadState(l)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return restartable(s), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.components = args
			return runF(cmd.Context(), o)
		},
	}
	cli.AddOutputFlag(cmd, &o.format)
	return cmd
}

// restartable are the components that run, in the order in which they are restarted.
func restartable(s *appliance.State) []string {
	var all []string
	for _, c := range s.Components {
		if !c.Oneshot {
			all = append(all, c.Name)
		}
	}
	return all
}

func run(ctx context.Context, o *options) error {
	f := o.factory
	l, err := f.Installation()
	if err != nil {
		return err
	}
	lock, err := cli.AcquireLock(l.Lock(), "restart")
	if err != nil {
		return err
	}
	defer lock.Release() //nolint:errcheck // the process ends
	state, err := appliance.ReadState(l)
	if missing := appliance.CheckData(l); missing != nil {
		return cli.NewError(cli.ExitUnhealthy, "installation", missing, "mount their file system, or restore them from a backup")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return cli.NewError(cli.ExitNotInstalled, "installation", errors.New("it is not complete"), "finish it with `quayctl install`")
	}
	if err != nil {
		return err
	}
	known := restartable(state)
	for _, c := range o.components {
		if !strings.Contains(" "+strings.Join(known, " ")+" ", " "+c+" ") {
			return cli.NewError(cli.ExitUsage, "component", fmt.Errorf("there is no %q", c), "give one of: "+strings.Join(known, ", "))
		}
	}
	components := o.components
	if len(components) == 0 {
		components = known
	}
	systemd, err := host.OpenSystemd(ctx, l.Rootless)
	if err != nil {
		return err
	}
	defer systemd.Close()
	journal, err := appliance.OpenJournal(l.JournalFile(), f.Clock)
	if err != nil {
		return err
	}
	defer journal.Close() //nolint:errcheck // every record is synced
	reporter := f.Progress()
	defer reporter.Close()
	r := &appliance.Restart{
		Layout: l, State: state, Components: components, Journal: journal, Clock: f.Clock, Systemd: systemd,
		Host: &host.Machine{Rootless: l.Rootless, UID: f.UID},
	}
	began := f.Clock.Now()
	timings, err := r.Run(ctx, &steps.Observer{Reporter: reporter})
	var step *appliance.StepError
	if errors.As(err, &step) && !errors.Is(err, cli.ErrInterrupted) {
		return cli.NewError(cli.ExitUnhealthy, step.Title, step.Err, "see `quayctl status` and `quayctl logs`")
	}
	if err != nil {
		return err
	}
	reporter.Close()
	took := f.Clock.Now().Sub(began).Round(time.Millisecond).Seconds()
	if o.format == cli.FormatJSON {
		return cli.WriteJSON(f.IO.Out, "restart", 1, struct {
			Components []string           `json:"components"`
			Seconds    float64            `json:"seconds"`
			Steps      []appliance.Timing `json:"steps"`
		}{components, took, timings})
	}
	_, err = fmt.Fprintf(f.IO.Out, "Restarted and ready after %.1f s: %s\n", took, strings.Join(components, ", "))
	return err
}
