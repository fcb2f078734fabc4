// Package docs writes the parts of docs/ that repeat what the program says: a page for each command, the exit codes and the
// preflight checks. A test fails when the files in docs/ are not what it writes.
package docs

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/preflight"
	"github.com/quayctl/quayctl/internal/quayctl"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go run ./generate ../../../docs

const note = "<!-- Written by `make generate`; change the program instead. -->\n\n"

// Tree is the command tree as on a machine without an installation.
func Tree() *cobra.Command {
	io, _, _, _ := iostreams.Test()
	return quayctl.NewRoot(&cli.Factory{IO: io, Clock: clock.Real{}, Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler)})
}

// Files gives every generated file: its path below docs/, and its text.
func Files() map[string]string {
	files := map[string]string{"exit-codes.md": exitCodes(), "preflight.md": checks()}
	Walk(Tree(), func(cmd *cobra.Command) { files[Page(cmd)] = page(cmd) })
	return files
}

// Walk visits cmd and everything below it that users see.
func Walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			Walk(sub, visit)
		}
	}
}

// Page is the path below docs/ of the page about cmd.
func Page(cmd *cobra.Command) string {
	return "quayctl/" + strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".md"
}

func link(cmd *cobra.Command) string {
	return fmt.Sprintf("[%s](%s)", cmd.CommandPath(), strings.TrimPrefix(Page(cmd), "quayctl/"))
}

func page(cmd *cobra.Command) string {
	var b strings.Builder
	b.WriteString(note)
	fmt.Fprintf(&b, "# %s\n\n", cmd.CommandPath())
	if short := strings.TrimSuffix(cmd.Short, "."); !strings.HasPrefix(cmd.Long, short) {
		fmt.Fprintf(&b, "%s.\n\n", short)
	}
	if cmd.Long != "" {
		fmt.Fprintf(&b, "%s\n\n", strings.TrimSpace(cmd.Long))
	}
	use := cmd.UseLine()
	if cmd.HasSubCommands() {
		use = cmd.CommandPath() + " COMMAND [flags]"
	}
	fmt.Fprintf(&b, "```\n%s\n```\n", use)
	if cmd.HasSubCommands() {
		b.WriteString("\n## Commands\n\n| command | what it does |\n|---|---|\n")
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				fmt.Fprintf(&b, "| %s | %s |\n", link(sub), sub.Short)
			}
		}
	}
	if cmd.Example != "" {
		b.WriteString("\n## Examples\n\n```sh\n")
		for line := range strings.Lines(cmd.Example) {
			b.WriteString(strings.TrimPrefix(line, "  "))
		}
		b.WriteString("\n```\n")
	}
	flags(&b, "Flags", cmd.NonInheritedFlags())
	flags(&b, "Flags of every command", cmd.InheritedFlags())
	b.WriteString("\n[Exit codes](../exit-codes.md)")
	if cmd.HasParent() {
		fmt.Fprintf(&b, " · up: %s", link(cmd.Parent()))
	}
	b.WriteString("\n")
	return b.String()
}

func flags(b *strings.Builder, title string, set *pflag.FlagSet) {
	if !set.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n| flag | default | meaning |\n|---|---|---|\n", title)
	set.VisitAll(func(fl *pflag.Flag) {
		if fl.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(fl)
		name := "--" + fl.Name
		if fl.Shorthand != "" {
			name = "-" + fl.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		otherwise := ""
		if fl.DefValue != "" && fl.DefValue != "false" && fl.DefValue != "[]" {
			otherwise = "`" + fl.DefValue + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", cell(name), cell(otherwise), cell(usage))
	})
}

// cell escapes what would end a cell of a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\n", " "), "|", `\|`)
}

func exitCodes() string {
	var b strings.Builder
	b.WriteString(note + `# Exit codes

quayctl ends with one of these codes, the same in every command. No number is ever given another meaning.
The name is ` + "`code`" + ` in the error that ` + "`--output json`" + ` writes to standard output:

` + "```json" + `
{
  "schema": "quayctl/error/v1",
  "error": {
    "code": "not-installed",
    "exit_code": 9,
    "message": "installation: there is none: /etc/quay knows of no data",
    "thing": "installation",
    "cause": "there is none: /etc/quay knows of no data",
    "remedy": "install first: quayctl install; …"
  }
}
` + "```" + `

| code | name | meaning | what to do |
|---|---|---|---|
`)
	for _, d := range cli.ExitCodes() {
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", d.Code, d.Name, cell(d.Meaning), cell(d.ThenDo))
	}
	return b.String()
}

func checks() string {
	var b strings.Builder
	b.WriteString(note + `# Preflight

Before quayctl changes anything it measures whether the machine can hold the registry. A finding of class ` + "`block`" + `
ends the command with exit code 3 and nothing changed; one of class ` + "`warn`" + ` is told, and the command goes on.
Each finding names what was found, what is needed, the cause and the remedy. With ` + "`--output json`" + ` the whole report
is in ` + "`error.details`" + `.

A check is waived by its name: ` + "`quayctl install --ignore-preflight=memory`" + `. Its finding is still told.

| check | class | what is measured | what helps |
|---|---|---|---|
`)
	for _, c := range preflight.Checks() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name, c.Class, cell(c.Measures), cell(c.Helps))
	}
	return b.String()
}
