package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quayctl/quayctl/internal/preflight"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
	"github.com/spf13/cobra"
)

// AddIgnorePreflightFlag gives cmd the flag --ignore-preflight, with completion.
func AddIgnorePreflightFlag(cmd *cobra.Command, names *[]string) {
	cmd.Flags().Var((*waivers)(names), "ignore-preflight", "go on in spite of what the preflight check `NAME` finds; may be given more than once")
	// The only error is that the flag does not exist or has a completion already: a programming error.
	if err := cmd.RegisterFlagCompletionFunc("ignore-preflight", cobra.FixedCompletions(preflight.Names(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}

// waivers is a flag of names of preflight checks, one or several with commas between.
type waivers []string

// String is what help texts show as the default.
func (w *waivers) String() string { return strings.Join(*w, ",") }

// Set implements pflag.Value.
func (w *waivers) Set(s string) error {
	for _, name := range strings.Split(s, ",") {
		if !slices.Contains(preflight.Names(), name) {
			return fmt.Errorf("there are %s", strings.Join(preflight.Names(), ", "))
		}
		*w = append(*w, name)
	}
	return nil
}

// Type implements pflag.Value.
func (w *waivers) Type() string { return "names" }

// Host returns the machine for preflight checks.
func (f *Factory) Host() *preflight.Host { return preflight.NewHost(f.UID, f.Getenv, f.Clock) }

// ReportPreflight writes the findings of r, if there are any, to standard error, and returns nil if they do not stand in
// the way, or else an *Error with ExitPreflight whose details are the report.
func ReportPreflight(io *iostreams.IOStreams, r *preflight.Report) error {
	p := io.ErrPalette()
	if err := r.Write(io.Err, preflight.Style{Good: p.Green, Bad: p.Red, Doubt: p.Yellow, Name: p.Bold}, false); err != nil {
		return err
	}
	failures := r.Failures()
	if len(failures) == 0 {
		return nil
	}
	var causes, remedies []string
	for _, f := range failures {
		causes = append(causes, f.Cause)
		if f.Remedy != "" {
			remedies = append(remedies, f.Remedy)
		}
	}
	thing := "preflight"
	if n := len(failures); n > 1 {
		thing = fmt.Sprintf("preflight, %d findings", n)
	}
	return &Error{Code: ExitPreflight, Thing: thing, Cause: errors.New(strings.Join(causes, "; ")), Remedy: strings.Join(remedies, "\n"), Details: r}
}
