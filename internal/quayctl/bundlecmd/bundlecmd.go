// Package bundlecmd is `quayctl bundle`: create, inspect and verify offline bundles.
package bundlecmd

import (
	"crypto/ecdsa"
	"errors"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
)

// New gives the command `bundle` with its subcommands.
func New(f *cli.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Make, inspect and verify offline bundles",
		Long: `Make, inspect and verify the appliance's offline bundles.

A bundle is one tar file with quayctl, all images, the profiles, a bill of materials (SPDX)
and a signed manifest with the SHA-256 of each of them. It has no directory at its top, so
unpack it in an empty directory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.Help(); err != nil {
				return err
			}
			return cli.Usagef("name one of the commands: create, inspect, verify")
		},
	}
	cmd.AddCommand(newCreate(f, runCreate), newInspect(f, runInspect), newVerify(f, runVerify))
	return cmd
}

// Keys gives the public keys to verify with: that of the file, or the one this binary was built with.
func Keys(file string) ([]*ecdsa.PublicKey, error) {
	if file != "" {
		k, err := bundle.ReadPublicKey(file)
		if err != nil {
			return nil, cli.NewError(cli.ExitUsage, "", err, "give a PEM file with an ECDSA P-256 public key, as cosign generate-key-pair or openssl ec -pubout writes it")
		}
		return []*ecdsa.PublicKey{k}, nil
	}
	k, err := bundle.CompiledKey()
	if err != nil || k == nil {
		return nil, err
	}
	return []*ecdsa.PublicKey{k}, nil
}

// AsError gives a bundle's violation the exit code and the remedy it has everywhere in quayctl; other errors pass unchanged.
func AsError(err error) error {
	var e *bundle.Error
	if !errors.As(err, &e) {
		return err
	}
	return &cli.Error{Code: cli.ExitBundle, Cause: err, Remedy: e.Kind.Remedy(), Details: map[string]string{
		"bundle": e.Bundle, "kind": string(e.Kind), "member": e.Member, "found": e.Found, "expected": e.Expected,
	}}
}

// path gives the bundle that the arguments name; without any, the directory that quayctl lies in.
func path(f *cli.Factory, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	return bundle.DefaultPath(f.Executable)
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return cli.Usagef("%s takes one bundle, not %d", cmd.CommandPath(), len(args))
	}
	return nil
}

const hostArch = runtime.GOARCH
