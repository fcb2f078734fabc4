package quayctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// run runs the command tree as a user without an installation, and gives the exit code and what was written.
func run(t *testing.T, args ...string) (code cli.ExitCode, out, errOut *bytes.Buffer) {
	t.Helper()
	home := t.TempDir()
	s, _, out, errOut := iostreams.Test()
	f := &cli.Factory{
		IO: s, Clock: clock.Real{}, UID: 1000, Executable: os.Executable, Log: slog.New(slog.DiscardHandler),
		Getenv: func(k string) string { return map[string]string{"HOME": home}[k] },
	}
	code = Run(t.Context(), f, args)
	if entries, err := os.ReadDir(home); err != nil || len(entries) > 0 {
		t.Errorf("quayctl %s left %v behind (%v)", strings.Join(args, " "), entries, err)
	}
	return code, out, errOut
}

func tree() *cobra.Command {
	s, _, _, _ := iostreams.Test()
	return NewRoot(&cli.Factory{IO: s, Clock: clock.Real{}, Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler)})
}

func each(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		each(sub, visit)
	}
}

// misused demands exit code 2, nothing but an error object on standard output, and an error with a remedy in words.
func misused(t *testing.T, args []string, mentions string) {
	t.Helper()
	code, out, errOut := run(t, args...)
	words := errOut.String()
	if code != cli.ExitUsage || out.Len() > 0 || !strings.HasPrefix(words, "error: ") || !strings.Contains(words, "\nremedy: ") || !strings.Contains(words, mentions) {
		t.Errorf("quayctl %q: exit code %d\nout: %s\nerr: %s", args, code, out, errOut)
	}
}

// TestEveryWrongCommandLine tries on every command: an unknown flag, each flag without its value and with one that it does
// not take, and too many arguments.
func TestEveryWrongCommandLine(t *testing.T) {
	tried := 0
	each(tree(), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		with := func(args ...string) []string { return append(append([]string{}, path...), args...) }
		misused(t, with("--no-such-flag"), "unknown flag: --no-such-flag")
		misused(t, with("-Z"), "unknown shorthand flag: 'Z'")
		tried += 2
		for _, fl := range allFlags(cmd) {
			if fl.Name == "help" {
				continue
			}
			if fl.NoOptDefVal == "" {
				misused(t, with("--"+fl.Name), "--"+fl.Name+": its value is missing")
				tried++
			}
			switch fl.Value.Type() {
			case "bool", "int", "duration", "table|json", "names":
				misused(t, with("--"+fl.Name+"=no-such-value"), `--`+fl.Name+`: "no-such-value" is not a value it takes`)
				tried++
			}
		}
		if !cmd.HasSubCommands() && cmd.Args != nil {
			misused(t, with("a", "b", "c"), "")
			tried++
		}
		if cmd.HasSubCommands() {
			misused(t, with("no-such-command"), `unknown command "no-such-command"`)
			tried++
		}
	})
	if tried < 100 {
		t.Errorf("only %d command lines were tried", tried)
	}
}

// TestErrorObjectForEveryCommand: --output json gives one object with the exit code, whatever is wrong.
func TestErrorObjectForEveryCommand(t *testing.T) {
	each(tree(), func(cmd *cobra.Command) {
		if cmd.Flags().Lookup("output") == nil {
			return
		}
		for _, format := range [][]string{{"--output=json"}, {"--output", "json"}, {"-o", "json"}, {"-ojson"}} {
			args := append(strings.Fields(cmd.CommandPath())[1:], append(format, "--no-such-flag")...)
			code, out, _ := run(t, args...)
			var doc struct {
				Schema string `json:"schema"`
				Error  struct {
					Code     string `json:"code"`
					ExitCode int    `json:"exit_code"`
					Message  string `json:"message"`
				} `json:"error"`
			}
			if err := json.Unmarshal(out.Bytes(), &doc); err != nil || code != cli.ExitUsage || doc.Schema != "quayctl/error/v1" || doc.Error.Code != "usage" || doc.Error.ExitCode != 2 || doc.Error.Message == "" {
				t.Errorf("quayctl %q: exit code %d, %s (%v)", args, code, out, err)
			}
		}
	})
}

// TestHelpOfEveryCommand: --help and help say the same, with exit code 0 and nothing on standard error.
func TestHelpOfEveryCommand(t *testing.T) {
	each(tree(), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		code, out, errOut := run(t, append(path, "--help")...)
		if code != cli.ExitOK || errOut.Len() > 0 || !strings.Contains(out.String(), "Usage:\n  "+cmd.CommandPath()) {
			t.Errorf("quayctl %q --help: exit code %d\n%s%s", path, code, out, errOut)
		}
		cmd.LocalFlags().VisitAll(func(fl *pflag.Flag) {
			if !fl.Hidden && !strings.Contains(out.String(), "--"+fl.Name) {
				t.Errorf("the help of %s does not tell --%s", cmd.CommandPath(), fl.Name)
			}
		})
		for i, line := range strings.Split(out.String(), "\n") {
			if strings.HasSuffix(line, " ") || strings.Contains(line, "\t") {
				t.Errorf("the help of %s, line %d, has blanks at its end or tabs: %q", cmd.CommandPath(), i+1, line)
			}
		}
		if code, other, _ := run(t, append([]string{"help"}, path...)...); code != cli.ExitOK || other.String() != out.String() {
			t.Errorf("quayctl help %q says something else", path)
		}
	})
}

func TestNearest(t *testing.T) {
	names := []string{"install", "status", "restart", "uninstall", "logs", "user", "config", "bundle", "version", "completion", "help"}
	for word, want := range map[string]string{
		"instal": "install", "intsall": "install", "Status": "status", "stat": "status", "restrat": "restart", "log": "logs", "lgos": "logs",
		"users": "user", "conf": "config", "vresion": "version", "uninstal": "uninstall", "bogus": "", "upgrade": "", "x": "", "": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// full is a disk without space.
type full struct{}

var errFull = errors.New("no space left on device")

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestOutputThatCannotBeWritten: no command pretends that it succeeded.
func TestOutputThatCannotBeWritten(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"help"}, {"help", "exit-codes"}, {"install", "--help"}, {"version"}, {"version", "-o", "json"}, {"completion", "bash"}, {"completion", "zsh"}, {"completion", "fish"}, {"completion", "powershell"}} {
		s, _, _, errOut := iostreams.Test()
		s.Out = full{}
		f := &cli.Factory{IO: s, Clock: clock.Real{}, Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler)}
		if code := Run(t.Context(), f, args); code != cli.ExitFailure || !strings.Contains(errOut.String(), errFull.Error()) {
			t.Errorf("quayctl %q: exit code %d, %s", args, code, errOut)
		}
	}
}

func TestInterrupted(t *testing.T) {
	s, _, _, errOut := iostreams.Test()
	f := &cli.Factory{IO: s, Clock: clock.Real{}, Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cli.ErrInterrupted)
	if code := int(cli.AsError(ctx, ctx.Err()).Code); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if code := Run(ctx, f, []string{"version"}); code != cli.ExitOK || errOut.Len() > 0 {
		t.Errorf("a command that has nothing to wait for: %d, %s", code, errOut)
	}
}
