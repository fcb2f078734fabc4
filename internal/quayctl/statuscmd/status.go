// Package statuscmd is `quayctl status`.
package statuscmd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/quayctl/quayctl/internal/appliance"
	"github.com/quayctl/quayctl/internal/host"
	"github.com/quayctl/quayctl/internal/metadata/schema"
	"github.com/quayctl/quayctl/internal/quadlet"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type options struct {
	factory *cli.Factory
	watch   bool
	every   time.Duration
	format  cli.Format
}

// New returns the command.
func New(f *cli.Factory) *cobra.Command { return newCmd(f, run) }

func newCmd(f *cli.Factory, runF func(context.Context, *options) error) *cobra.Command {
	o := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show whether the registry is healthy, and of what it consists",
		Long: `Show whether the registry is healthy: its components with the images they run,
the certificate, the database, the disk, and the last change made to it.

The exit code is 0 when it is healthy and 5 when it is not.`,
		Example: `  quayctl status
  quayctl status --watch
  quayctl status --output json`,
		Args:              cli.Args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.every <= 0 {
				return cli.Usagef("--interval %s: give a time longer than 0, such as 2s", o.every)
			}
			return runF(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "show it again and again until Ctrl-C")
	cmd.Flags().DurationVar(&o.every, "interval", 2*time.Second, "`time` between two looks with --watch")
	cli.AddOutputFlag(cmd, &o.format)
	return cmd
}

// Status is the JSON shape, schema quayctl/status/v1.
type Status struct {
	Healthy       bool                 `json:"healthy"`
	Problems      []string             `json:"problems"` // why it is not healthy
	Version       string               `json:"version"`
	Profile       string               `json:"profile"`
	URL           string               `json:"url"`
	DataDir       string               `json:"data_dir"`
	ConfigDir     string               `json:"config_dir"`
	Components    []Component          `json:"components"`
	Certificate   Certificate          `json:"certificate"`
	Database      Database             `json:"database"`
	Disk          Disk                 `json:"disk"`
	ChangedUnits  []string             `json:"changed_units"` // unit files that differ from what was rendered
	StartsAtBoot  bool                 `json:"starts_at_boot"`
	LastOperation *appliance.Operation `json:"last_operation"`
}

// Component is one component, or the slot of it that runs.
type Component struct {
	Name    string    `json:"name"`
	Slot    string    `json:"slot,omitempty"`
	Unit    string    `json:"unit"`
	Active  string    `json:"active"` // as systemd says: active, failed …
	Sub     string    `json:"sub"`
	Since   time.Time `json:"since,omitzero"`
	Healthy bool      `json:"healthy"`
	Error   string    `json:"error,omitempty"`
	Image   string    `json:"image"`  // name
	ID      string    `json:"id"`     // recorded, sha256:…
	Digest  string    `json:"digest"` // recorded, of the image's manifest
	Runs    string    `json:"runs"`   // ID of the image that the container runs; empty when there is none
}

// Certificate is that of the front door.
type Certificate struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after,omitzero"`
	Days     int       `json:"days"` // until it expires
	OwnCA    bool      `json:"own_ca"`
	Error    string    `json:"error,omitempty"`
}

// Database is the state of the database.
type Database struct {
	Revision string `json:"revision"`
	Expected string `json:"expected"`
	Size     int64  `json:"size"` // bytes
	Users    int64  `json:"users"`
	Repos    int64  `json:"repositories"`
	Error    string `json:"error,omitempty"`
}

// Disk is the file system of the data, in bytes.
type Disk struct {
	Total int64  `json:"total"`
	Free  int64  `json:"free"`
	Blobs int64  `json:"blobs"` // of all images, as the database knows them
	Error string `json:"error,omitempty"`
}

// certificateWarning is how near the end of the certificate has to be to count as a problem.
const certificateWarning = 14 * 24 * time.Hour

// lookLimit bounds every question.
const lookLimit = 3 * time.Second

func run(ctx context.Context, o *options) error {
	f := o.factory
	l, err := f.Installation()
	if err != nil {
		return err
	}
	for {
		s, err := look(ctx, f, l)
		if err != nil {
			return err
		}
		if o.watch && f.IO.OutIsTerminal() {
			fmt.Fprint(f.IO.Out, "\x1b[H\x1b[2J")
		}
		if err := o.tell(s); err != nil {
			return err
		}
		if !o.watch {
			if !s.Healthy {
				return cli.Exit(cli.ExitUnhealthy)
			}
			return nil
		}
		if f.Clock.Sleep(ctx, o.every) != nil { // Ctrl-C is how one stops watching
			return cli.Exit(cli.ExitInterrupted)
		}
	}
}

// look asks everything at the same time.
func look(ctx context.Context, f *cli.Factory, l appliance.Layout) (*Status, error) {
	state, err := appliance.ReadState(l)
	records, journalErr := appliance.ReadJournal(l.JournalFile())
	last, any := appliance.LastOperation(records)
	if missing := appliance.CheckData(l); missing != nil {
		return nil, cli.NewError(cli.ExitUnhealthy, "installation", missing, "mount their file system, or restore them from a backup")
	}
	if errors.Is(err, fs.ErrNotExist) {
		e := cli.NewError(cli.ExitNotInstalled, "installation", fmt.Errorf("it was removed; its data stay in %s", l.Data), "take them over with `quayctl install`")
		if any && (last.Name != "uninstall" || !last.Complete()) {
			e = cli.NewError(cli.ExitUnhealthy, "installation", fmt.Errorf("it is not complete: %s stopped at %q", last.Name, last.Step), "run `quayctl "+last.Name+"` again: it takes up where it stopped")
		}
		return nil, e
	}
	if err := errors.Join(err, journalErr); err != nil {
		return nil, err
	}
	s := &Status{
		Version: state.Version, Profile: state.Profile, URL: state.URL(), DataDir: l.Data, ConfigDir: l.Config, Problems: []string{},
		ChangedUnits: []string{}, Database: Database{Expected: schema.Head}, Certificate: Certificate{OwnCA: state.OwnCA},
	}
	if any {
		s.LastOperation = &last
	}
	for _, c := range state.Components {
		image := state.Images[c.Image]
		row := Component{Name: c.Name, Unit: quadlet.Service(c.Name, ""), Image: image.Name, ID: image.ID, Digest: image.Digest}
		if len(c.Slots) > 0 {
			row.Slot, row.Unit = state.Slot, quadlet.Service(c.Name, state.Slot)
		}
		s.Components = append(s.Components, row)
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	var wg sync.WaitGroup
	health := make([]error, len(s.Components))
	var units []appliance.UnitState
	var unitsErr, factsErr error
	var facts host.Facts
	var running map[string]string
	wg.Go(func() { units, unitsErr = unitStates(ctx, l, s) })
	wg.Go(func() { facts, factsErr = (&host.Database{Clock: f.Clock, Log: f.Log}).Facts(ctx, l.DSN()) })
	wg.Go(func() { running = runningImages(ctx) })
	for i, c := range state.Components {
		if c.Oneshot || c.Name == "postgresql" {
			continue
		}
		wg.Go(func() { health[i] = host.Health(ctx, l.AdminSocket(c.Name, s.Components[i].Slot)) })
	}
	s.Disk = disk(l.Data)
	s.Certificate.read(l, f.Clock.Now())
	s.ChangedUnits = append(s.ChangedUnits, changed(l, state)...)
	noBoot := notAtBoot(ctx, f, l)
	s.StartsAtBoot = noBoot == ""
	wg.Wait()

	for i := range s.Components {
		c := &s.Components[i]
		err := unitsErr
		if unitsErr == nil {
			c.Active, c.Sub, c.Since = units[i].Active, units[i].Sub, units[i].Since
			if !units[i].Running() {
				err = fmt.Errorf("%s is %s (%s)", c.Unit, c.Active, c.Sub)
			}
		}
		c.Runs = running[strings.TrimSuffix(c.Unit, ".service")]
		if err == nil {
			err = health[i]
		}
		if err == nil && c.Name == "postgresql" {
			err = factsErr
		}
		if err == nil && c.Runs != "" && c.Runs != c.ID {
			err = fmt.Errorf("it runs the image %s, recorded is %s", c.Runs, c.ID)
		}
		c.Healthy = err == nil
		if err != nil {
			c.Error = err.Error()
			s.Problems = append(s.Problems, c.Name+": "+c.Error)
		}
	}
	s.Database.Revision, s.Database.Size, s.Database.Users, s.Database.Repos, s.Disk.Blobs = facts.Revision, facts.Size, facts.Users, facts.Repos, facts.Blobs
	switch {
	case factsErr != nil:
		s.Database.Error = factsErr.Error()
	case facts.Revision != schema.Head:
		s.Database.Error = fmt.Sprintf("its schema is at revision %s, this release needs %s", facts.Revision, schema.Head)
		s.Problems = append(s.Problems, "database: "+s.Database.Error)
	}
	if s.Certificate.Error != "" {
		s.Problems = append(s.Problems, "certificate: "+s.Certificate.Error)
	}
	if noBoot != "" {
		s.Problems = append(s.Problems, "it does not start at boot: "+noBoot)
	}
	s.Healthy = len(s.Problems) == 0
	return s, nil
}

// notAtBoot says what keeps the registry from starting at boot and what to do, or nothing.
func notAtBoot(ctx context.Context, f *cli.Factory, l appliance.Layout) string {
	if _, err := os.Stat(filepath.Join(l.Wants, quadlet.TargetName)); err != nil {
		systemctl := "systemctl"
		if l.Rootless {
			systemctl += " --user"
		}
		return fmt.Sprintf("%s is not enabled: run `%s enable %s`", quadlet.TargetName, systemctl, quadlet.TargetName)
	}
	lingers, err := (&host.Machine{Rootless: l.Rootless, UID: f.UID}).Lingering(ctx)
	if err != nil {
		return err.Error()
	}
	if !lingers {
		return "the user's services run only while he is signed in: run `loginctl enable-linger`"
	}
	return ""
}

func unitStates(ctx context.Context, l appliance.Layout, s *Status) ([]appliance.UnitState, error) {
	systemd, err := host.OpenSystemd(ctx, l.Rootless)
	if err != nil {
		return nil, err
	}
	defer systemd.Close()
	var names []string
	for _, c := range s.Components {
		names = append(names, c.Unit)
	}
	return systemd.Units(ctx, names...)
}

// runningImages gives the image IDs, with sha256:, of running containers by name. Asking the program changes nothing,
// while asking the API would start Podman's service. Without an answer nothing is compared.
func runningImages(ctx context.Context) map[string]string {
	out, err := exec.CommandContext(ctx, "podman", "ps", "--filter=name=^"+quadlet.Prefix, "--format=json").Output() //nolint:gosec // a constant
	if err != nil {
		return nil
	}
	var containers []struct {
		Names   []string
		ImageID string
	}
	if json.Unmarshal(out, &containers) != nil {
		return nil
	}
	ids := map[string]string{}
	for _, c := range containers {
		for _, n := range c.Names {
			ids[n] = "sha256:" + strings.TrimPrefix(c.ImageID, "sha256:")
		}
	}
	return ids
}

func disk(path string) Disk {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Disk{Error: err.Error()}
	}
	return Disk{Total: int64(fs.Blocks) * fs.Bsize, Free: int64(fs.Bavail) * fs.Bsize}
}

func (c *Certificate) read(l appliance.Layout, now time.Time) {
	b, err := os.ReadFile(l.Cert())
	if err == nil {
		certs, parseErr := appliance.Certificates(b)
		if err = parseErr; err == nil {
			leaf := certs[0]
			c.Subject, c.NotAfter = strings.Join(leaf.DNSNames, ", "), leaf.NotAfter
			c.Days = int(leaf.NotAfter.Sub(now) / (24 * time.Hour))
			if now.Add(certificateWarning).After(leaf.NotAfter) {
				err = fmt.Errorf("it expires %s", leaf.NotAfter.Format(time.DateOnly))
			}
		}
	}
	if err != nil {
		c.Error = err.Error()
	}
}

// changed lists the unit files that are not as they were rendered.
func changed(l appliance.Layout, s *appliance.State) []string {
	var all []string
	for name, want := range s.Units {
		dir := l.Units
		if strings.HasSuffix(name, ".container") {
			dir = l.Quadlets
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		sum := sha256.Sum256(b)
		if err != nil || hex.EncodeToString(sum[:]) != want {
			all = append(all, filepath.Join(dir, name))
		}
	}
	return all
}

func (o *options) tell(s *Status) error {
	f := o.factory
	if o.format == cli.FormatJSON {
		return cli.WriteJSON(f.IO.Out, "status", 1, s)
	}
	p, w, now := f.IO.OutPalette(), f.IO.Out, f.Clock.Now()
	verdict := p.Green("healthy")
	if !s.Healthy {
		verdict = p.Red("not healthy")
	}
	fmt.Fprintf(w, "%s  %s  (version %s, %s)\n\n", verdict, s.URL, s.Version, s.Profile)
	table := cli.NewTable("component", "state", "since", "health", "image")
	for _, c := range s.Components {
		name, since, health := c.Name, "-", "ok"
		if c.Slot != "" {
			name += " (" + c.Slot + ")"
		}
		if !c.Since.IsZero() {
			since = age(now.Sub(c.Since))
		}
		if !c.Healthy {
			health = "failing"
		}
		table.Row(name, c.Active+" ("+c.Sub+")", since, health, fmt.Sprintf("%.19s", c.Digest))
	}
	if err := table.Write(f.IO); err != nil {
		return err
	}
	fmt.Fprintf(w, "\ncertificate  %d days left, until %s\n", s.Certificate.Days, s.Certificate.NotAfter.Format(time.DateOnly))
	fmt.Fprintf(w, "database     schema %s, %s, %s, %s\n", s.Database.Revision, cli.Bytes(s.Database.Size),
		count(s.Database.Users, "user", "users"), count(s.Database.Repos, "repository", "repositories"))
	fmt.Fprintf(w, "disk         %s of %s free in %s, images take %s\n", cli.Bytes(s.Disk.Free), cli.Bytes(s.Disk.Total), s.DataDir, cli.Bytes(s.Disk.Blobs))
	if op := s.LastOperation; op != nil {
		outcome := "done"
		switch {
		case op.Error != "":
			outcome = "failed: " + op.Error
		case !op.Complete():
			outcome = "interrupted at " + op.Step
		}
		fmt.Fprintf(w, "last change  %s %s, %s\n", op.Name, op.Began.Format(time.RFC3339), outcome)
	}
	for _, u := range s.ChangedUnits {
		fmt.Fprintf(w, "%s %s was changed by hand\n", p.Yellow("note:"), u)
	}
	for _, problem := range s.Problems {
		fmt.Fprintf(w, "%s %s\n", p.Red("problem:"), problem)
	}
	return nil
}

// count says n things: "1 user", "2 users".
func count(n int64, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
