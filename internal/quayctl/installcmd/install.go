// Package installcmd is `quayctl install`.
package installcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/quayctl/quayctl/internal/appliance"
	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/host"
	"github.com/quayctl/quayctl/internal/metadata/users"
	"github.com/quayctl/quayctl/internal/preflight"
	"github.com/quayctl/quayctl/internal/quadlet"
	"github.com/quayctl/quayctl/internal/quayctl/bundlecmd"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/progress"
	"github.com/quayctl/quayctl/internal/quayctl/prompt"
	"github.com/quayctl/quayctl/internal/quayctl/steps"
	"github.com/quayctl/quayctl/profiles"
	"github.com/quayctl/quayctl/quadlets"
	"github.com/spf13/cobra"
)

type options struct {
	factory        *cli.Factory
	profile        string
	hostname       string
	port           int
	dataDir        string
	config         string
	cert, key      string
	user           string
	passwordStdin  bool
	bundle         string
	publicKey      string
	nonInteractive bool
	yes            bool
	waive          []string
	format         cli.Format
}

const (
	defaultProfile = "registry-only"
	defaultPort    = 8443
	defaultUser    = "admin"
)

// New returns the command.
func New(f *cli.Factory) *cobra.Command { return newCmd(f, run) }

func newCmd(f *cli.Factory, runF func(context.Context, *options) error) *cobra.Command {
	o := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "install [flags]",
		Short: "Install the registry from a bundle",
		Long: `Install the registry on this machine from an offline bundle: by default the one
that quayctl was unpacked from. Nothing is fetched from anywhere.

Run as root it installs for the machine, run as any other user for that user alone.
On a terminal it asks what the flags do not say. The result names the file with
the first user's password; the password itself is never shown.

Interrupted, by Ctrl-C or a power cut, it is finished by running it again. Data that
an uninstallation kept are taken over, with their users, keys and certificate authority.`,
		Example: `  quayctl install --profile=registry-only
  quayctl install --hostname registry.example.com --port 443 --ssl-cert tls.crt --ssl-key tls.key
  quayctl install --non-interactive --init-user ops --init-password-stdin --output json < password`,
		Args:              cli.Args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runF(cmd.Context(), o) },
	}
	fl := cmd.Flags()
	fl.StringVar(&o.profile, "profile", defaultProfile, "`registry-only, full or FILE`: which components to install")
	fl.StringVar(&o.hostname, "hostname", "", "`name` or address that clients use (default: this machine's host name)")
	fl.IntVar(&o.port, "port", defaultPort, "TCP `port` of HTTPS")
	fl.StringVar(&o.dataDir, "data-dir", "", "`directory` of images and database (default /var/lib/quay, rootless ~/.local/share/quay)")
	fl.StringVar(&o.config, "config", "", "config.yaml `file` to begin with; what the appliance decides itself is set in it")
	fl.StringVar(&o.cert, "ssl-cert", "", "certificate chain `file`, PEM (default: made by an own certificate authority)")
	fl.StringVar(&o.key, "ssl-key", "", "key `file` of the certificate, PEM")
	fl.StringVar(&o.user, "init-user", defaultUser, "`name` of the first user, an administrator")
	fl.BoolVar(&o.passwordStdin, "init-password-stdin", false, "read the first user's password from standard input (default: made up)")
	fl.StringVar(&o.bundle, "bundle", "", "bundle: `file or directory` (default: the directory of quayctl)")
	fl.StringVar(&o.publicKey, "key", "", "public key `file` that the bundle must be signed with (default: the one compiled in)")
	fl.BoolVar(&o.nonInteractive, "non-interactive", false, "ask nothing, also on a terminal")
	fl.BoolVarP(&o.yes, "yes", "y", false, "ask nothing, also on a terminal")
	cli.AddIgnorePreflightFlag(cmd, &o.waive)
	cli.AddOutputFlag(cmd, &o.format)
	if err := cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"registry-only", "full"}, cobra.ShellCompDirectiveDefault)); err != nil {
		panic(err) // the flag does not exist: a programming error
	}
	return cmd
}

func run(ctx context.Context, o *options) error {
	f := o.factory
	began := f.Clock.Now()
	layout, resumed, err := o.layout()
	if err != nil {
		return err
	}
	if err := o.ask(ctx, &layout); err != nil {
		return err
	}
	request, err := o.request()
	if err != nil {
		return err
	}
	profile, err := readProfile(o.profile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(layout.Runtime, 0o700); err != nil {
		return fmt.Errorf("make directory of the lock: %w", err)
	}
	lock, err := cli.AcquireLock(layout.Lock(), "install")
	if err != nil {
		return err
	}
	defer lock.Release() //nolint:errcheck // the process ends
	// Again under the lock: another process may just have finished.
	if err := refuseInstalled(layout); err != nil {
		return err
	}
	if err := refuseForeign(layout, request.Pair); err != nil {
		return err
	}
	absent, err := appliance.Absent(layout)
	if err != nil {
		return err
	}
	reporter := f.Progress()
	defer reporter.Close()

	b, verified, err := o.openBundle(ctx, reporter)
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // it was only read
	components, err := chooseComponents(profile, b.Manifest())
	if err != nil {
		return err
	}
	checked, err := o.preflight(ctx, layout, request, b.Manifest(), components, resumed)
	if err != nil {
		return err
	}
	systemd, err := host.OpenSystemd(ctx, layout.Rootless)
	if err != nil {
		return err
	}
	defer systemd.Close()
	journal, err := appliance.OpenForInstall(layout, f.Clock)
	if err != nil {
		return err
	}
	defer journal.Close() //nolint:errcheck // every record is synced
	install := &appliance.Install{
		Layout: layout, Request: *request, Source: b, Profile: profile, Components: components, Journal: journal, Clock: f.Clock, Absent: absent,
		Podman: host.NewPodman(layout.Rootless, layout.Runtime), Systemd: systemd, Host: &host.Machine{Rootless: layout.Rootless, UID: f.UID},
		Database: &host.Database{Clock: f.Clock, Log: f.Log}, FrontDoor: host.FrontDoor{},
	}
	before := f.Clock.Now().Sub(began)
	result, err := install.Run(ctx, &steps.Observer{Reporter: reporter})
	if err != nil {
		return asError(err)
	}
	reporter.Close()
	for i := range result.Steps {
		result.Steps[i].Start += before
	}
	result.Steps = append([]appliance.Timing{verified.since(began), checked.since(began)}, result.Steps...)
	return o.tell(result, f.Clock.Now().Sub(began))
}

// layout is where to install, and whether an interrupted installation is there.
func (o *options) layout() (appliance.Layout, bool, error) {
	f := o.factory
	if o.dataDir != "" && (!filepath.IsAbs(o.dataDir) || filepath.Clean(o.dataDir) == "/") {
		return appliance.Layout{}, false, cli.NewError(cli.ExitUsage, "--data-dir", fmt.Errorf("%q is no absolute path below /", o.dataDir), "give one such as /srv/quay")
	}
	l, err := f.Layout(o.dataDir)
	if err != nil {
		return l, false, err
	}
	data, found, err := appliance.FindData(l)
	if err != nil {
		return l, false, err
	}
	if found && o.dataDir != "" && filepath.Clean(o.dataDir) != data {
		return l, false, cli.NewError(cli.ExitUsage, "--data-dir", fmt.Errorf("the settings in %s belong to the data in %s", l.Config, data),
			"leave --data-dir out to go on with those data, or remove them first: quayctl uninstall --delete-data")
	}
	if found {
		if l, err = f.Layout(data); err != nil {
			return l, false, err
		}
	}
	if found {
		if err := appliance.CheckData(l); err != nil {
			return l, false, cli.NewError(cli.ExitPreflight, "installation", err,
				"mount their file system, or restore them from a backup; to begin anew without them: quayctl uninstall --delete-data")
		}
	}
	if err := l.Validate(); err != nil {
		return l, false, cli.NewError(cli.ExitUsage, "--data-dir", err, "")
	}
	if err := refuseInstalled(l); err != nil {
		return l, false, err
	}
	return l, found, nil
}

func refuseInstalled(l appliance.Layout) error {
	installed, err := appliance.Installed(l)
	if err != nil {
		return err
	}
	records, err := appliance.ReadJournal(l.JournalFile())
	if err != nil {
		return err
	}
	if last, ok := appliance.LastOperation(records); ok && last.Name == "uninstall" && !last.Complete() {
		return cli.NewError(cli.ExitAlreadyInstalled, "installation", fmt.Errorf("its removal, begun %s, was interrupted", last.Began.Format(time.RFC3339)),
			"finish it first: quayctl uninstall")
	}
	if !installed {
		return nil
	}
	s, err := appliance.ReadState(l)
	if err != nil {
		return err
	}
	return cli.NewError(cli.ExitAlreadyInstalled, "installation", fmt.Errorf("version %s is installed already, at %s", s.Version, s.URL()),
		"look at it with `quayctl status`, restart it with `quayctl restart`, remove it with `quayctl uninstall` (which keeps the data)")
}

// refuseForeign ends an installation that would overwrite what is not its own.
func refuseForeign(l appliance.Layout, pair *appliance.KeyPair) error {
	err := appliance.Foreign(l, pair)
	var foreign *appliance.ForeignError
	if errors.As(err, &foreign) {
		return cli.NewError(cli.ExitPreflight, "installation", err, foreign.Remedy)
	}
	return err
}

// ask asks a person on a terminal what the flags do not say, and finds the defaults otherwise.
func (o *options) ask(ctx context.Context, l *appliance.Layout) error {
	f := o.factory
	if o.hostname == "" {
		o.hostname = defaultHostname(ctx)
	}
	if !f.IO.CanPrompt() || o.nonInteractive || o.yes || o.passwordStdin || o.format == cli.FormatJSON {
		return nil
	}
	a, err := prompt.Install(ctx, f.IO, prompt.Accessible(f.Getenv), prompt.InstallAnswers{
		Hostname: o.hostname, Port: o.port, DataDir: l.Data, CertFile: o.cert, KeyFile: o.key, InitUser: o.user,
	})
	if err != nil {
		return err
	}
	o.hostname, o.port, o.cert, o.key, o.user = a.Hostname, a.Port, a.CertFile, a.KeyFile, a.InitUser
	if a.DataDir != l.Data {
		o.dataDir = a.DataDir
		if *l, _, err = o.layout(); err != nil {
			return err
		}
	}
	return nil
}

// defaultHostname is this machine's name with its domain where the resolver knows one.
func defaultHostname(ctx context.Context) string {
	name, err := os.Hostname()
	if err != nil || strings.Contains(name, ".") {
		return name
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var r net.Resolver
	if full, err := r.LookupCNAME(ctx, name); err == nil && strings.HasPrefix(full, name+".") {
		if full = strings.TrimSuffix(full, "."); full != name {
			return full
		}
	}
	return name
}

// request reads the files and the password that the flags name.
func (o *options) request() (*appliance.Request, error) {
	r := &appliance.Request{Hostname: strings.ToLower(o.hostname), Port: o.port, User: o.user}
	if o.port < 1 || o.port > 65535 {
		return nil, cli.Usagef("--port %d: a port is a number from 1 to 65535", o.port)
	}
	if r.Hostname == "" {
		return nil, cli.NewError(cli.ExitUsage, "--hostname", errors.New("this machine has no host name"), "give the name that clients will use")
	}
	if err := cli.ValidHostname(r.Hostname); err != nil {
		return nil, cli.NewError(cli.ExitUsage, "--hostname", fmt.Errorf("%q is no host name", o.hostname),
			err.Error()+"; the port is given by --port")
	}
	if err := users.ValidateUsername(o.user); err != nil {
		return nil, cli.NewError(cli.ExitUsage, "--init-user", err, "give another name")
	}
	if (o.cert == "") != (o.key == "") {
		return nil, cli.NewError(cli.ExitUsage, "--ssl-cert and --ssl-key", errors.New("only one of them is given"), "give both, or neither to have a certificate made")
	}
	if o.cert != "" {
		cert, err := os.ReadFile(o.cert)
		if err != nil {
			return nil, cli.NewError(cli.ExitUsage, "--ssl-cert", err, "")
		}
		key, err := os.ReadFile(o.key)
		if err != nil {
			return nil, cli.NewError(cli.ExitUsage, "--ssl-key", err, "")
		}
		r.Pair = &appliance.KeyPair{Certificate: cert, Key: key}
	}
	if o.config != "" {
		b, err := os.ReadFile(o.config)
		if err != nil {
			return nil, cli.NewError(cli.ExitConfig, "--config", err, "give the path of a readable config.yaml")
		}
		if _, err := config.Parse(b); err != nil {
			return nil, cli.NewError(cli.ExitConfig, o.config, err, "check it with `quayctl config validate "+o.config+"`")
		}
		r.Settings = b
	}
	if o.passwordStdin {
		if o.factory.IO.InIsTerminal() {
			return nil, cli.NewError(cli.ExitUsage, "--init-password-stdin", errors.New("standard input is a terminal, which would show it"), "pipe it in, or leave the flag out, and one is made up")
		}
		const most = 4096
		b, err := io.ReadAll(io.LimitReader(o.factory.IO.In, most+1))
		if err != nil {
			return nil, fmt.Errorf("read password from standard input: %w", err)
		}
		r.Password = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
		if len(b) > most || r.Password == "" {
			return nil, cli.Usagef("the password on standard input is empty or longer than %d bytes", most)
		}
		if err := users.ValidatePassword(r.Password); err != nil {
			return nil, cli.NewError(cli.ExitUsage, "password", err, "give another password")
		}
	}
	return r, nil
}

// readProfile gives a built-in profile by its name, or one from a file.
func readProfile(name string) (*quadlet.Profile, error) {
	b, err := fs.ReadFile(profiles.Files, name+".yaml")
	if err == nil {
		return quadlet.ParseProfile(name, b)
	}
	if b, err = os.ReadFile(name); err != nil {
		return nil, cli.NewError(cli.ExitUsage, "--profile", fmt.Errorf("%q is neither a profile nor a file: %w", name, err), "give registry-only, full, or the path of a profile")
	}
	p, err := quadlet.ParseProfile(name, b)
	if err != nil {
		return nil, cli.NewError(cli.ExitConfig, "--profile", err, "correct the profile; see `quayctl help install` for the built-in ones")
	}
	return p, nil
}

// chooseComponents gives the profile's components, if the bundle has an image for each.
func chooseComponents(p *quadlet.Profile, m *bundle.Manifest) ([]*quadlet.Component, error) {
	components, err := quadlet.Components(quadlets.Files, p)
	var unknown *quadlet.UnknownComponentError
	if err != nil && !errors.As(err, &unknown) {
		return nil, cli.NewError(cli.ExitConfig, "--profile", err, "")
	}
	var lacking []string
	if unknown != nil {
		for _, c := range p.Components {
			_, inBundle := m.Image(c)
			if _, err := fs.Stat(quadlets.Files, c+".yaml"); err != nil && !inBundle {
				lacking = append(lacking, c)
			}
		}
		if len(lacking) == 0 {
			return nil, cli.NewError(cli.ExitPreflight, "profile "+p.Name, err, "use the quayctl that lies in this bundle")
		}
	}
	for _, image := range quadlet.Images(components) {
		if _, ok := m.Image(image); !ok {
			lacking = append(lacking, image)
		}
	}
	if len(lacking) > 0 {
		return nil, cli.NewError(cli.ExitPreflight, "profile "+p.Name, fmt.Errorf("this bundle (version %s) carries no image of %s", m.Version, strings.Join(lacking, ", ")),
			"install --profile="+defaultProfile+", or use a bundle that has them")
	}
	return components, nil
}

// timing is one of the steps before anything is changed.
type timing struct {
	name       string
	start, end time.Time
}

func (t timing) since(began time.Time) appliance.Timing {
	return appliance.Timing{Step: t.name, Start: t.start.Sub(began), Took: t.end.Sub(t.start)}
}

func (o *options) openBundle(ctx context.Context, r *progress.Reporter) (*bundle.Bundle, timing, error) {
	f := o.factory
	t := timing{name: "verify", start: f.Clock.Now()}
	keys, err := bundlecmd.Keys(o.publicKey)
	if err != nil {
		return nil, t, err
	}
	path := o.bundle
	if path == "" {
		if path, err = bundle.DefaultPath(f.Executable); err != nil {
			return nil, t, bundlecmd.AsError(err)
		}
	}
	task := r.Task("verify bundle", 0)
	b, err := bundle.Open(ctx, path, bundle.OpenOptions{Keys: keys, Arch: runtime.GOARCH})
	task.Done(err)
	t.end = f.Clock.Now()
	return b, t, bundlecmd.AsError(err)
}

func (o *options) preflight(ctx context.Context, l appliance.Layout, r *appliance.Request, m *bundle.Manifest, components []*quadlet.Component, resumed bool) (timing, error) {
	f := o.factory
	t := timing{name: "preflight", start: f.Clock.Now()}
	var archives, unpacked []int64
	for _, c := range quadlet.Images(components) {
		if image, ok := m.Image(c); ok {
			archives, unpacked = append(archives, image.Size), append(unpacked, image.DiskSize)
		}
	}
	target := preflight.Target{
		Purpose: preflight.Install, Hostname: r.Hostname, Port: r.Port, DataDir: l.Data, BundleArch: m.Arch, Built: m.Created,
		MinPodman: m.Requires.Podman, Space: preflight.SpaceFor(archives, unpacked),
	}
	if resumed {
		target.OwnPort = r.Port
	}
	if r.Pair != nil {
		target.Certificate, target.Key, target.CertificateFile, target.KeyFile = r.Pair.Certificate, r.Pair.Key, o.cert, o.key
	}
	report, err := preflight.Run(ctx, f.Host(), target, o.waive)
	t.end = f.Clock.Now()
	if err != nil {
		return t, err
	}
	return t, cli.ReportPreflight(f.IO, report)
}

// asError gives failures of steps their exit codes and remedies.
func asError(err error) error {
	var step *appliance.StepError
	var problems config.Problems
	switch {
	case errors.As(err, new(*bundle.Error)):
		return bundlecmd.AsError(err)
	case errors.Is(err, cli.ErrInterrupted):
		return err
	case errors.As(err, &problems):
		return cli.NewError(cli.ExitConfig, "settings", err, "correct the keys that are named")
	case errors.As(err, &step):
		code := cli.ExitFailure
		switch step.Step {
		case appliance.StepDatabase, appliance.StepMigrate, appliance.StepStart, appliance.StepReady, appliance.StepProve:
			code = cli.ExitUnhealthy
		}
		return cli.NewError(code, step.Title, step.Err, "when the cause is removed, run the same command again: it takes up where it stopped; `quayctl uninstall` removes what is there")
	}
	return err
}

// tell writes the result.
func (o *options) tell(r *appliance.Result, took time.Duration) error {
	f := o.factory
	if o.format == cli.FormatJSON {
		return cli.WriteJSON(f.IO.Out, "install", 1, struct {
			*appliance.Result
			Seconds float64 `json:"seconds"`
		}{r, took.Round(time.Millisecond).Seconds()})
	}
	w := f.IO.Out
	fmt.Fprintf(w, "Quay %s is installed and healthy after %.1f s", r.Version, took.Seconds())
	switch {
	case r.Resumed:
		fmt.Fprint(w, "; an interrupted installation was finished")
	case r.Attached:
		fmt.Fprint(w, "; the data that were there have been taken over")
	}
	fmt.Fprintf(w, ".\n\n  registry   %s\n  user       %s\n", r.URL, r.User)
	if r.PasswordFile != "" {
		fmt.Fprintf(w, "  password   in %s\n", r.PasswordFile)
	} else {
		fmt.Fprintf(w, "  password   as it was set; `quayctl user reset-password %s` sets another\n", r.User)
	}
	if r.CAFile != "" {
		fmt.Fprintf(w, "  CA         %s (trusted on this machine; other machines need it too)\n", r.CAFile)
	}
	fmt.Fprintf(w, "  data       %s\n  settings   %s\n\n", r.DataDir, r.ConfigDir)
	server := appliance.ServerHostname(r.Hostname, r.Port)
	if r.PasswordFile != "" {
		fmt.Fprintf(w, "Sign in with:\n  podman login -u %s --password-stdin %s < %s\n\n", r.User, server, r.PasswordFile)
	}
	fmt.Fprintln(w, "Where the time went, in seconds:")
	table := cli.NewTable("step", "from", "took")
	for _, s := range r.Steps {
		table.Row(s.Step, seconds(s.Start), seconds(s.Took))
	}
	return table.Write(f.IO)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 2, 64) }
