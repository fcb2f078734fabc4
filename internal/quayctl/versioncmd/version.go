// Package versioncmd is `quayctl version`.
package versioncmd

import (
	"crypto/fips140"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/spf13/cobra"
)

// podmanModule is the module whose bindings speak to Podman.
const podmanModule = "github.com/containers/podman/v5"

// info is the JSON shape, schema quayctl/version/v1.
type info struct {
	Version        string `json:"version"`
	Commit         string `json:"commit"` // empty when built without
	Go             string `json:"go"`
	Platform       string `json:"platform"` // "linux/amd64"
	FIPS           fips   `json:"fips140"`
	PodmanBindings string `json:"podman_bindings"` // module version; empty when not linked
}

type fips struct {
	Enabled  bool   `json:"enabled"`
	Enforced bool   `json:"enforced"` // approved algorithms only, anything else fails
	Module   string `json:"module"`   // "v1.0.0", or "latest" for the one of the Go release
}

type options struct {
	factory *cli.Factory
	format  cli.Format
}

// New returns the command.
func New(f *cli.Factory) *cobra.Command { return newCmd(f, run) }

func newCmd(f *cli.Factory, runF func(*options) error) *cobra.Command {
	opts := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of quayctl and of what it is built with",
		Long: `Show the version of quayctl, the commit it was built from, and the state of
the FIPS 140-3 cryptographic module that it is built with.`,
		Example: `  quayctl version
  quayctl version --output json`,
		Args:              cli.Args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return runF(opts) },
	}
	cli.AddOutputFlag(cmd, &opts.format)
	return cmd
}

func run(opts *options) error {
	v := info{
		Version:  opts.factory.Version.Version,
		Commit:   opts.factory.Version.Commit,
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		FIPS:     fips{Enabled: fips140.Enabled(), Enforced: fips140.Enforced(), Module: fips140.Version()},
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, m := range build.Deps {
			if m.Path == podmanModule {
				v.PodmanBindings = m.Version
			}
		}
	}
	if opts.format == cli.FormatJSON {
		return cli.WriteJSON(opts.factory.IO.Out, "version", 1, v)
	}
	state := "off"
	switch {
	case v.FIPS.Enforced:
		state = "enforced"
	case v.FIPS.Enabled:
		state = "on"
	}
	_, err := fmt.Fprintf(opts.factory.IO.Out, `quayctl %s
commit           %s
go               %s %s
fips 140-3       %s (module %s)
podman bindings  %s
`, v.Version, orNone(v.Commit), v.Go, v.Platform, state, v.FIPS.Module, orNone(v.PodmanBindings))
	return err
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
