package migrate

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/service"
)

// Exit codes of the command.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitPending = 3 // --check found something to do
)

const usage = `Usage: workers migrate [flags]

Builds the database's schema, or adopts a legacy registry's database unchanged, and does what must be done once
before the daemons start. Running it again changes nothing.

  --config-dir DIR     directory that holds config.yaml (default %s)
  --database-url DSN   database to work on instead of the configuration's; where no config.yaml is found, only its
                       schema is looked after
  --check              change nothing, tell what is to be done
  --output FORMAT      text or json (default text)

Exit codes: 0 done, or nothing to do; 1 failure; 2 wrong flags; 3 --check found something to do.
`

// Main is the whole command: args are what follows "migrate". It returns the exit code. SIGTERM and SIGINT interrupt it;
// whatever it had begun, the next run finishes.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return command(ctx, args, stdout, stderr)
}

func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	defaultDir := service.NewFlags("workers").ConfigDir
	flags := flag.NewFlagSet("workers migrate", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	configDir := flags.String("config-dir", "", "")
	dsn := flags.String("database-url", "", "")
	check := flags.Bool("check", false, "")
	output := flags.String("output", "text", "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintf(stdout, usage, defaultDir)
		return exitOK
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case err == nil && *output != "text" && *output != "json":
		err = fmt.Errorf("--output %s is not known; give text or json", *output)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "workers migrate: %v\n", err)
		_, _ = fmt.Fprintf(stderr, usage, defaultDir)
		return exitUsage
	}
	dir := *configDir
	if dir == "" && (*dsn == "" || hasConfig(defaultDir)) {
		dir = defaultDir
	}
	err = Run(ctx, Options{
		ConfigDir: dir, DSN: *dsn, Check: *check, JSON: *output == "json",
		Clock: clock.Real{}, Logger: slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}, stdout)
	var pending *PendingError
	switch {
	case errors.As(err, &pending):
		_, _ = fmt.Fprintf(stderr, "workers migrate: %v\n", err)
		return pending.ExitCode()
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "workers migrate: %v\n", err)
		return exitFailure
	}
	return exitOK
}
