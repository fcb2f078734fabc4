// Package uninstallcmd is `quayctl uninstall`.
package uninstallcmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quayctl/quayctl/internal/appliance"
	"github.com/quayctl/quayctl/internal/host"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/prompt"
	"github.com/quayctl/quayctl/internal/quayctl/steps"
	"github.com/spf13/cobra"
)

type options struct {
	factory    *cli.Factory
	deleteData bool
	yes        bool
	format     cli.Format
}

// New returns the command.
func New(f *cli.Factory) *cobra.Command { return newCmd(f, run) }

func newCmd(f *cli.Factory, runF func(context.Context, *options) error) *cobra.Command {
	o := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "uninstall [flags]",
		Short: "Remove the registry from this machine",
		Long: `Remove the registry from this machine: its services, units, images and quayctl itself,
everything the installation has made, and nothing else.

The data (images, database, keys) and the settings with their secrets stay, and a later
install takes them over, unless --delete-data is given: then they are deleted too, for good.`,
		Example: `  quayctl uninstall
  quayctl uninstall --yes --delete-data`,
		Args:              cli.Args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runF(cmd.Context(), o) },
	}
	cmd.Flags().BoolVar(&o.deleteData, "delete-data", false, "delete images, database, settings and secrets too")
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask for consent")
	cli.AddOutputFlag(cmd, &o.format)
	return cmd
}

// result is the JSON shape, schema quayctl/uninstall/v1.
type result struct {
	DataDeleted bool               `json:"data_deleted"`
	DataDir     string             `json:"data_dir,omitempty"`   // where the data stay
	ConfigDir   string             `json:"config_dir,omitempty"` // where the settings stay
	Seconds     float64            `json:"seconds"`
	Steps       []appliance.Timing `json:"steps"`
}

func run(ctx context.Context, o *options) error {
	f := o.factory
	l, err := f.Installation()
	if err != nil {
		return err
	}
	if err := o.refuse(l); err != nil {
		return err
	}
	if err := o.consent(ctx, l); err != nil {
		return err
	}
	lock, err := cli.AcquireLock(l.Lock(), "uninstall")
	if err != nil {
		return err
	}
	defer lock.Release() //nolint:errcheck // the process ends
	began := f.Clock.Now()
	systemd, err := host.OpenSystemd(ctx, l.Rootless)
	if err != nil {
		return err
	}
	defer systemd.Close()
	missing := appliance.CheckData(l)
	journal, err := appliance.OpenForInstall(l, f.Clock)
	if err != nil {
		return err
	}
	defer journal.Close() //nolint:errcheck // every record is synced
	if missing != nil {
		if err := appliance.Recover(l, journal); err != nil {
			return err
		}
	}
	reporter := f.Progress()
	defer reporter.Close()
	u := &appliance.Uninstall{
		Layout: l, DeleteData: o.deleteData, Journal: journal, Podman: host.NewPodman(l.Rootless, l.Runtime), Systemd: systemd,
		Host: &host.Machine{Rootless: l.Rootless, UID: f.UID},
	}
	timings, err := u.Run(ctx, &steps.Observer{Reporter: reporter})
	var step *appliance.StepError
	if errors.As(err, &step) && !errors.Is(err, cli.ErrInterrupted) {
		return cli.NewError(cli.ExitFailure, step.Title, step.Err, "when the cause is removed, run the same command again: it takes up where it stopped")
	}
	if err != nil {
		return err
	}
	reporter.Close()
	r := result{DataDeleted: o.deleteData, Seconds: f.Clock.Now().Sub(began).Round(time.Millisecond).Seconds(), Steps: timings}
	if !o.deleteData {
		r.DataDir, r.ConfigDir = l.Data, l.Config
	}
	if o.format == cli.FormatJSON {
		return cli.WriteJSON(f.IO.Out, "uninstall", 1, r)
	}
	if o.deleteData {
		_, err = fmt.Fprintln(f.IO.Out, "Quay is removed, with all its data.")
		return err
	}
	_, err = fmt.Fprintf(f.IO.Out, "Quay is removed. What stays, for a later install to take over:\n\n  data       %s\n  settings   %s (with secrets)\n\nTo delete them too, with the quayctl of the bundle: ./quayctl uninstall --delete-data\n", l.Data, l.Config)
	return err
}

// refuse ends a removal of which nothing is left but kept data, unless those shall go.
func (o *options) refuse(l appliance.Layout) error {
	if err := appliance.CheckData(l); err != nil && !o.deleteData {
		return cli.NewError(cli.ExitUnhealthy, "installation", err,
			"mount their file system, or restore them; if they are lost: quayctl uninstall --delete-data, which leaves quayctl itself and the images in Podman's store")
	}
	records, err := appliance.ReadJournal(l.JournalFile())
	if err != nil {
		return err
	}
	if last, ok := appliance.LastOperation(records); ok && last.Name == "uninstall" && last.Complete() && !o.deleteData {
		return cli.NewError(cli.ExitNotInstalled, "installation", fmt.Errorf("it is removed already; its data stay in %s and its settings in %s", l.Data, l.Config),
			"delete them with `quayctl uninstall --delete-data`, or take them over with `quayctl install`")
	}
	return nil
}

func (o *options) consent(ctx context.Context, l appliance.Layout) error {
	f := o.factory
	if o.yes {
		return nil
	}
	if !f.IO.CanPrompt() {
		return cli.NewError(cli.ExitUsage, "consent", errors.New("there is no terminal to ask on"), "give --yes")
	}
	if o.deleteData {
		return prompt.Typed(ctx, f.IO, prompt.Accessible(f.Getenv),
			fmt.Sprintf("This deletes all images, the database and the secrets of the registry in %s and %s, for good.", l.Data, l.Config), "delete")
	}
	yes, err := prompt.Confirm(ctx, f.IO, prompt.Accessible(f.Getenv), "Remove Quay from this machine?", "The data in "+l.Data+" and the settings in "+l.Config+" stay.")
	if err != nil {
		return err
	}
	if !yes {
		return cli.NewError(cli.ExitInterrupted, "", errors.New("cancelled; nothing was changed"), "")
	}
	return nil
}
