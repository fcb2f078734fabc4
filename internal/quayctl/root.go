// Package quayctl is the command tree and the life of one run of it.
package quayctl

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/quayctl/quayctl/internal/quayctl/bundlecmd"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/completioncmd"
	"github.com/quayctl/quayctl/internal/quayctl/configcmd"
	"github.com/quayctl/quayctl/internal/quayctl/helpcmd"
	"github.com/quayctl/quayctl/internal/quayctl/installcmd"
	"github.com/quayctl/quayctl/internal/quayctl/logscmd"
	"github.com/quayctl/quayctl/internal/quayctl/restartcmd"
	"github.com/quayctl/quayctl/internal/quayctl/statuscmd"
	"github.com/quayctl/quayctl/internal/quayctl/uninstallcmd"
	"github.com/quayctl/quayctl/internal/quayctl/usercmd"
	"github.com/quayctl/quayctl/internal/quayctl/versioncmd"
	"github.com/spf13/cobra"
)

// usage is the second half of every help text.
const usage = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND [flags]{{else}}{{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

More: quayctl help COMMAND, quayctl help exit-codes{{end}}
`

// NewRoot returns the whole command tree.
func NewRoot(f *cli.Factory) *cobra.Command {
	var debug bool
	root := &cobra.Command{
		Use:   "quayctl",
		Short: "Install and run a container registry on this machine",
		Long: `quayctl installs a container registry on this machine from one offline bundle,
and looks after it: status, users, logs, removal.

Run as root it works on the installation of the machine, run as any other user
on that user's own.`,
		Example: `  quayctl install --profile=registry-only
  quayctl status
  quayctl user create alice --email alice@example.com`,
		SilenceErrors: true,
		SilenceUsage:  true,
		// Cobra's own suggestions end up within the message; suggest writes them as a remedy.
		DisableSuggestions: true,
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:               cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
		PersistentPreRun: func(*cobra.Command, []string) {
			if debug {
				f.Log = slog.New(slog.NewTextHandler(f.IO.Err, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
		},
	}
	root.SetUsageTemplate(usage)
	root.SetIn(f.IO.In)
	root.SetOut(f.IO.Out)
	root.SetErr(f.IO.Err)
	root.PersistentFlags().BoolVar(&debug, "debug", false, "write what quayctl does in detail to standard error")
	root.PersistentFlags().BoolP("help", "h", false, "show help for the command")
	root.AddCommand(
		installcmd.New(f),
		statuscmd.New(f),
		restartcmd.New(f),
		uninstallcmd.New(f),
		logscmd.New(f),
		usercmd.New(f),
		configcmd.New(f),
		bundlecmd.New(f),
		versioncmd.New(f),
		completioncmd.New(f),
	)
	root.SetHelpCommand(helpcmd.New(f, unknownCommand))
	root.InitDefaultHelpCmd()
	for _, sub := range root.Commands() {
		group(sub)
	}
	return root
}

// Main runs quayctl with the process's arguments and returns its exit code.
func Main(v cli.Version) int { return start(cli.System(v), os.Args[1:]) }

// start runs quayctl as a process. The first interrupt or termination signal cancels the command's context, the
// second ends the process at once.
func start(f *cli.Factory, args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		<-signals
		cancel(cli.ErrInterrupted)
		<-signals
		os.Exit(int(cli.ExitInterrupted))
	}()
	return int(Run(ctx, f, args))
}

// Run runs the command tree with args, reports an error if there is one, and returns the exit code.
func Run(ctx context.Context, f *cli.Factory, args []string) cli.ExitCode {
	root := NewRoot(f)
	root.SetArgs(args)
	// Cobra does not tell whether a help text could be written.
	help := &output{Writer: f.IO.Out}
	root.SetOut(help)
	entered := false
	markEntry(root, &entered)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = help.err
	}
	if err == nil {
		return cli.ExitOK
	}
	e := cli.AsError(ctx, err)
	if !entered && help.err == nil && e.Code == cli.ExitFailure {
		e = usageError(cmd, err)
	}
	if e.Code == cli.ExitUsage && e.Remedy == "" {
		e.Remedy = seeHelp(cmd)
	}
	e.Report(f.IO, outputFormat(cmd, args))
	return e.Code
}

// output remembers the first error of writing to it.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// markEntry makes every command note that it was entered: an error before that is one of usage.
func markEntry(cmd *cobra.Command, entered *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*entered = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		markEntry(sub, entered)
	}
}

// outputFormat is the format the user asked for, also when the flags could not be parsed.
func outputFormat(cmd *cobra.Command, args []string) cli.Format {
	if fl := cmd.Flags().Lookup("output"); fl != nil && fl.Changed {
		return cli.Format(fl.Value.String())
	}
	for i, a := range args {
		switch {
		case a == "--":
			return cli.FormatTable
		case a == "--output=json", a == "-ojson", a == "-o=json":
			return cli.FormatJSON
		case (a == "--output" || a == "-o") && i+1 < len(args) && args[i+1] == "json":
			return cli.FormatJSON
		}
	}
	return cli.FormatTable
}
