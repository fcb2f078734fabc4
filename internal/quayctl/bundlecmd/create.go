package bundlecmd

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
)

type createOptions struct {
	f        *cli.Factory
	version  string
	arch     string
	source   string
	commit   string
	binaries []string
	profiles string
	signKey  string
	output   string
	cache    string
	verbose  bool
	format   cli.Format
}

func newCreate(f *cli.Factory, run func(*cobra.Command, *createOptions) error) *cobra.Command {
	o := &createOptions{f: f}
	cmd := &cobra.Command{
		Use:   "create --version VERSION --sign-key FILE [flags]",
		Short: "Build and sign a bundle from the source",
		Long: `Build and sign a bundle: the programs from the Go module in --source, unless --binary names
them, and the PostgreSQL image from Debian packages. The same source and packages give the
same bytes. The time in it is $SOURCE_DATE_EPOCH, or else that of the commit.

Needs Go, git and, for PostgreSQL, mmdebstrap (apt-get install mmdebstrap). No container engine is needed.`,
		Example: `  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out sign.pem
  quayctl bundle create --version 1.0.0 --sign-key sign.pem --source . --file dist/quay.tar`,
		Args: cli.Args(),
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd, o) },
	}
	fl := cmd.Flags()
	fl.StringVar(&o.version, "version", "", "`version` of the product, such as 1.0.0 (required)")
	fl.StringVar(&o.arch, "arch", "", "`architecture`: amd64 or arm64; default: that of this machine")
	fl.StringVar(&o.source, "source", ".", "root `directory` of the Go module to build")
	fl.StringVar(&o.commit, "commit", "", "`hash` of the source's commit; default: asked of git")
	fl.StringArrayVar(&o.binaries, "binary", nil, "`NAME=FILE`: take this static binary instead of building NAME (quayctl, registryd, edge, workers, postgresql); repeatable")
	fl.StringVar(&o.profiles, "profiles", "", "`directory` of profiles; default: profiles in the source")
	fl.StringVar(&o.signKey, "sign-key", "", "`file` with the ECDSA P-256 private key, PKCS #8 in PEM (required)")
	fl.StringVar(&o.output, "file", "", "`file` to write; default: quay-appliance-VERSION-linux-ARCH.tar")
	fl.StringVar(&o.cache, "cache", "", "`directory` for downloaded packages; default: $QUAY_CACHE, or quay-appliance in the user's cache directory")
	fl.BoolVarP(&o.verbose, "verbose", "v", false, "tell each step")
	cli.AddOutputFlag(cmd, &o.format)
	return cmd
}

func runCreate(cmd *cobra.Command, o *createOptions) error {
	ctx := cmd.Context()
	if o.version == "" || o.signKey == "" {
		return cli.Usagef("bundle create needs --version and --sign-key")
	}
	if o.arch == "" {
		o.arch = hostArch
	}
	key, err := bundle.ReadPrivateKey(o.signKey)
	if err != nil {
		return cli.NewError(cli.ExitUsage, "", err, "make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE")
	}
	binaries := map[string]string{}
	for _, b := range o.binaries {
		name, file, ok := strings.Cut(b, "=")
		if !ok || name == "" || file == "" {
			return cli.Usagef("--binary %q: expected NAME=FILE", b)
		}
		binaries[name] = file
	}
	created, err := o.created(cmd)
	if err != nil {
		return err
	}
	if o.commit == "" {
		// Not an error: the source may have come as a tar file.
		o.commit, _ = o.git(cmd, "rev-parse", "HEAD")
	}
	if o.cache == "" {
		if o.cache = o.f.Getenv("QUAY_CACHE"); o.cache == "" {
			dir, err := os.UserCacheDir()
			if err != nil {
				return cli.Usagef("no cache directory: %v: give one with --cache", err)
			}
			o.cache = filepath.Join(dir, "quay-appliance")
		}
	}
	if o.output == "" {
		o.output = bundle.FileName(o.version, o.arch)
	}
	opts := bundle.CreateOptions{
		Version: o.version, Commit: o.commit, Arch: o.arch, Created: created, Source: o.source, Binaries: binaries,
		SignKey: key, Output: o.output, CacheDir: o.cache, Log: o.f.Log,
	}
	if o.verbose {
		opts.Log = slog.New(slog.NewTextHandler(o.f.IO.Err, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	if o.profiles == "" {
		if dir := filepath.Join(o.source, "profiles"); isDir(dir) {
			o.profiles = dir
		}
	} else if !isDir(o.profiles) {
		return cli.Usagef("--profiles %s: no such directory", o.profiles)
	}
	if o.profiles != "" {
		opts.Profiles = os.DirFS(o.profiles)
	}
	m, err := bundle.Create(ctx, opts)
	if err != nil {
		return err
	}
	info, err := os.Stat(o.output)
	if err != nil {
		return fmt.Errorf("look at the bundle: %w", err)
	}
	if o.format == cli.FormatJSON {
		return cli.WriteJSON(o.f.IO.Out, "bundle", 1, describe(o.output, info.Size(), m, ""))
	}
	_, err = fmt.Fprintf(o.f.IO.Out, "%s: %s %s for linux/%s, %s\n", o.output, m.Product, m.Version, m.Arch, cli.Bytes(info.Size()))
	return err
}

// created gives the time of the source (https://reproducible-builds.org/specs/source-date-epoch/).
func (o *createOptions) created(cmd *cobra.Command) (time.Time, error) {
	epoch := o.f.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		var err error
		if epoch, err = o.git(cmd, "log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, cli.NewError(cli.ExitUsage, "time of the source", err, "set SOURCE_DATE_EPOCH to a Unix time")
		}
	}
	n, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, cli.Usagef("SOURCE_DATE_EPOCH %q is no Unix time", epoch)
	}
	return time.Unix(n, 0).UTC(), nil
}

func (o *createOptions) git(cmd *cobra.Command, args ...string) (string, error) {
	c := exec.CommandContext(cmd.Context(), "git", args...) //nolint:gosec // the arguments are our own
	c.Dir = o.source
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
