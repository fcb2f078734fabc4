package quayctl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// unknownCommand is the error of a command that parent does not have.
func unknownCommand(parent *cobra.Command, name string) error {
	e := cli.Usagef("unknown command %q for %q", name, parent.CommandPath())
	var names []string
	for _, c := range parent.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			names = append(names, c.Name())
		}
	}
	if near := nearest(name, names); near != "" {
		e.Remedy = "did you mean `" + parent.CommandPath() + " " + near + "`?"
	} else {
		e.Remedy = seeHelp(parent)
	}
	return e
}

func seeHelp(cmd *cobra.Command) string { return "see `" + cmd.CommandPath() + " --help`" }

// group makes a command that holds others fail without one of them, and with an unknown one.
func group(cmd *cobra.Command) {
	if !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		if err := cmd.Help(); err != nil {
			return err
		}
		var names []string
		for _, c := range cmd.Commands() {
			names = append(names, c.Name())
		}
		e := cli.Usagef("%q needs a command", cmd.CommandPath())
		e.Remedy = "give one of " + strings.Join(names, ", ")
		return e
	}
	for _, sub := range cmd.Commands() {
		group(sub)
	}
}

// usageError words what the libraries say about a command line: err came before the command was entered.
func usageError(cmd *cobra.Command, err error) *cli.Error {
	e := &cli.Error{Code: cli.ExitUsage, Cause: err, Remedy: seeHelp(cmd)}
	var unknown *pflag.NotExistError
	var lacking *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		if unknown.GetSpecifiedShortnames() != "" { // one letter is no hint
			break
		}
		var names []string
		for _, fl := range allFlags(cmd) {
			names = append(names, fl.Name)
		}
		if near := nearest(unknown.GetSpecifiedName(), names); near != "" {
			e.Remedy = "did you mean --" + near + "?"
		}
	case errors.As(err, &lacking):
		e.Thing, e.Cause = "--"+lacking.GetFlag().Name, errors.New("its value is missing")
		e.Remedy = fmt.Sprintf("give it as --%s=%s", lacking.GetFlag().Name, placeholder(lacking.GetFlag()))
	case errors.As(err, &invalid):
		e.Thing, e.Cause = "--"+invalid.GetFlag().Name, fmt.Errorf("%q is not a value it takes: %s", invalid.GetValue(), expected(invalid.GetFlag(), errors.Unwrap(invalid)))
	default:
		if missing := missingFlags(cmd); missing != "" {
			e.Cause = errors.New("missing: " + missing)
		}
	}
	return e
}

// placeholder names the value of a flag as its help text does.
func placeholder(fl *pflag.Flag) string {
	name, _ := pflag.UnquoteUsage(fl)
	return strings.ToUpper(strings.ReplaceAll(name, " ", "-"))
}

// expected says what kind of value a flag takes; why is what its parser said.
func expected(fl *pflag.Flag, why error) string {
	switch fl.Value.Type() {
	case "int":
		return "give a whole number"
	case "bool":
		return "give true or false, or the flag alone"
	case "duration":
		return "give a time such as 500ms, 2s or 1m30s"
	}
	return why.Error()
}

// missingFlags lists the flags that a command demands and was not given.
func missingFlags(cmd *cobra.Command) string {
	var missing []string
	cmd.Flags().VisitAll(func(fl *pflag.Flag) {
		if required := fl.Annotations[cobra.BashCompOneRequiredFlag]; len(required) > 0 && required[0] == "true" && !fl.Changed {
			missing = append(missing, "--"+fl.Name)
		}
	})
	return strings.Join(missing, ", ")
}
