package service

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Flags is the command line that all daemons share. A daemon adds its own flags to Set before Parse.
type Flags struct {
	// Set takes a daemon's own flags.
	Set *flag.FlagSet
	// ConfigDir holds config.yaml. Default: $QUAYCONF/stack if QUAYCONF is set, else /conf/stack.
	ConfigDir string
	// Listen are the public addresses, in ParseAddr's notation; checked by Parse.
	Listen []string
	// Admin is the private address, in ParseAddr's notation; checked by Parse. Empty is none.
	Admin string
	// LogLevel is the least level that is written.
	LogLevel slog.Level
	// DrainLimit bounds the drain; the unit's stop timeout must be longer.
	DrainLimit time.Duration

	name string
}

// NewFlags returns the shared flags of the daemon called name.
func NewFlags(name string) *Flags {
	f := &Flags{Set: flag.NewFlagSet(name, flag.ContinueOnError), name: name, ConfigDir: defaultConfigDir(os.Getenv)}
	f.Set.StringVar(&f.ConfigDir, "config-dir", f.ConfigDir, "`directory` that holds config.yaml")
	f.Set.Func("listen", "public `address`: unix:PATH, tcp:HOST:PORT or systemd (may be repeated)", func(s string) error {
		_, err := ParseAddr(s)
		f.Listen = append(f.Listen, s)
		return err
	})
	f.Set.Func("admin", "private `address` for /livez, /readyz, /metrics and /version", func(s string) error {
		_, err := ParseAddr(s)
		f.Admin = s
		return err
	})
	f.Set.TextVar(&f.LogLevel, "log-level", slog.LevelInfo, "least `level` that is logged: debug, info, warn or error")
	f.Set.DurationVar(&f.DrainLimit, "drain-limit", DefaultDrainLimit, "how long requests in flight may take after a stop, a `time` like 30s")
	return f
}

func defaultConfigDir(getenv func(string) string) string {
	if conf := getenv("QUAYCONF"); conf != "" {
		return filepath.Join(conf, "stack")
	}
	return "/conf/stack"
}

// Parse reads args, which do not include the program's name. When done is true the process shall end
// with code: 0 after --help or --version (on stdout), 2 after a mistake (told on stderr with the usage).
func (f *Flags) Parse(args []string, stdout, stderr io.Writer) (code int, done bool) {
	version := f.Set.Bool("version", false, "print the version and exit")
	f.Set.SetOutput(io.Discard)
	err := f.Set.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.usage(stdout)
		return 0, true
	case err != nil:
		return f.Mistake(stderr, err.Error()), true
	case f.Set.NArg() > 0:
		return f.Mistake(stderr, fmt.Sprintf("unexpected argument %q", f.Set.Arg(0))), true
	case *version:
		fmt.Fprintln(stdout, f.name, BuildVersion())
		return 0, true
	}
	return 0, false
}

// Mistake tells what is wrong with the command line, prints the usage and returns the exit code 2.
func (f *Flags) Mistake(stderr io.Writer, what string) int {
	fmt.Fprintf(stderr, "%s: %s\n", f.name, what)
	f.usage(stderr)
	return 2
}

func (f *Flags) usage(w io.Writer) {
	fmt.Fprintf(w, "Usage: %s [flags]\n", f.name)
	f.Set.VisitAll(func(g *flag.Flag) {
		argument, text := flag.UnquoteUsage(g)
		left := "--" + g.Name
		if argument != "" {
			left += " " + strings.ToUpper(argument)
		}
		if g.DefValue != "" && g.DefValue != "false" {
			text += " (default " + g.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-28s %s\n", left, text)
	})
}

// Logger writes JSON lines to w, which is standard error and with it the journal.
func (f *Flags) Logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: f.LogLevel})).With("daemon", f.name)
}
