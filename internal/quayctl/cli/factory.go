// Package cli is what every command of quayctl is built from: the factory of
// its dependencies, its output, its errors and exit codes, its lock.
//
// A command lives in a package of its own, internal/quayctl/<verb>cmd, which exports
//
//	func New(f *cli.Factory) *cobra.Command
//
// and keeps an options struct and a run function that takes the options, so
// that a test can inspect what the flags became without running anything.
package cli

import (
	"io"
	"log/slog"
	"os"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
	"github.com/quayctl/quayctl/internal/quayctl/progress"
)

// Version is what this binary is.
type Version struct {
	Version string // of the product, such as "1.0.0"; "dev" when built without one
	Commit  string // full hash; empty when unknown
}

// Factory holds what commands need from outside. Every field may be replaced in tests.
type Factory struct {
	IO      *iostreams.IOStreams
	Clock   clock.Clock
	Version Version
	// Getenv is os.Getenv.
	Getenv func(string) string
	// UID is the effective user: 0 installs for the whole machine, any other for that user (rootless).
	UID int
	// Executable gives the path of the running binary with symbolic links resolved; the default
	// bundle is the directory it lies in.
	Executable func() (string, error)
	// Log takes what matters for finding faults; discarded unless --debug is given, then to Err.
	Log *slog.Logger
}

// System returns the factory of this process.
func System(v Version) *Factory {
	return &Factory{
		IO:         iostreams.System(os.Getenv),
		Clock:      clock.Real{},
		Version:    v,
		Getenv:     os.Getenv,
		UID:        os.Geteuid(),
		Executable: os.Executable,
		Log:        slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// Rootless tells whether the installation belongs to a user other than root.
func (f *Factory) Rootless() bool { return f.UID != 0 }

// Progress returns a reporter on standard error. The caller closes it.
func (f *Factory) Progress() *progress.Reporter { return progress.New(f.IO, f.Clock) }
