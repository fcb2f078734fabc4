package appliance

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/quadlet"
)

// KeyPair is a certificate chain and its key, PEM.
type KeyPair struct{ Certificate, Key []byte }

// Request is what a user wants installed.
type Request struct {
	Hostname string
	Port     int
	User     string   // the first user
	Password string   // of the first user; empty: the one that is kept, or a new one
	Settings []byte   // config.yaml to begin with; nil for the one that is kept, or a new one
	Pair     *KeyPair // nil: the installation's own CA
}

// Source is the bundle as an installation uses it.
type Source interface {
	Manifest() *bundle.Manifest
	RawManifest() []byte
	ImageTar(component string) (io.ReadCloser, error)
	ExtractBinary(w io.Writer) error
}

// Install is one run of an installation. All fields are required but those that say otherwise.
type Install struct {
	Layout     Layout
	Request    Request
	Source     Source
	Profile    *quadlet.Profile
	Components []*quadlet.Component
	Journal    *Journal
	Clock      clock.Clock
	Podman     Podman
	Systemd    Systemd
	Host       Host
	Database   Database
	FrontDoor  FrontDoor
	// Absent is what Absent told before anything was run; nil will do.
	Absent []string
	// Progress counts bytes of images that have been handed to Podman; it may be nil.
	Progress func(component string, n int)

	making   sync.Mutex
	mu       sync.Mutex
	info     PodmanInfo
	units    []*quadlet.Unit
	password string
	made     bool // the file of the password was made in this run
	valid    bool // password is the user's
	ownCA    bool
	resumed  bool
}

// The steps, by name.
const (
	StepDirectories = "directories"
	StepSettings    = "settings"
	StepCertificate = "certificate"
	StepBinary      = "binary"
	StepPodman      = "podman"
	StepDBImage     = "database-image"
	StepImages      = "images"
	StepUnits       = "units"
	StepLink        = "link"
	StepDatabase    = "database"
	StepMigrate     = "migrate"
	StepStart       = "start"
	StepReady       = "ready"
	StepUser        = "user"
	StepProve       = "prove"
	StepEnable      = "enable"
	StepRecord      = "record"
)

// InstallSteps names the steps of an installation, in an order in which they may run.
func InstallSteps() []string {
	var names []string
	for _, s := range (&Install{}).Steps() {
		names = append(names, s.Name)
	}
	return names
}

// Steps gives the steps.
func (i *Install) Steps() []Step {
	return []Step{
		{StepDirectories, "make directories", nil, i.directories},
		{StepPodman, "ask Podman", []string{StepDirectories}, i.podman},
		{StepDBImage, "load image of the database", []string{StepPodman}, i.databaseImage},
		{StepSettings, "write settings", []string{StepDirectories}, i.settings},
		{StepCertificate, "make certificate", []string{StepSettings}, i.certificate},
		{StepUnits, "render units", []string{StepPodman}, i.renderUnits},
		{StepLink, "put units in place", []string{StepUnits}, i.link},
		{StepImages, "load images", []string{StepDBImage}, i.images},
		{StepDatabase, "start database", []string{StepLink, StepDBImage, StepCertificate}, i.database},
		{StepBinary, "keep quayctl", []string{StepImages}, i.binary},
		{StepMigrate, "build database schema", []string{StepDatabase, StepImages}, i.migrate},
		{StepUser, "make first user", []string{StepMigrate}, i.user},
		{StepStart, "start services", []string{StepMigrate}, i.start},
		{StepReady, "wait until ready", []string{StepStart}, i.ready},
		{StepProve, "push and pull an image", []string{StepReady, StepUser}, i.prove},
		{StepEnable, "start at boot", []string{StepProve}, i.enable},
		{StepRecord, "record state", []string{StepEnable, StepBinary}, i.record},
	}
}

// Result is what an installation led to.
type Result struct {
	URL          string                `json:"url"`
	Hostname     string                `json:"hostname"`
	Port         int                   `json:"port"`
	User         string                `json:"user"`
	PasswordFile string                `json:"password_file"`
	CAFile       string                `json:"ca_file,omitempty"` // empty when the certificate was given
	Version      string                `json:"version"`
	Profile      string                `json:"profile"`
	DataDir      string                `json:"data_dir"`
	ConfigDir    string                `json:"config_dir"`
	Images       map[string]ImageState `json:"images"`
	Resumed      bool                  `json:"resumed"`  // an interrupted installation was finished
	Attached     bool                  `json:"attached"` // kept data were taken over
	Proof        string                `json:"proof"`    // push-pull, or answer when the first user's password is not known any more
	Steps        []Timing              `json:"steps"`
}

// Run installs. It may be run again after any failure or interruption, and comes to the same end.
func (i *Install) Run(ctx context.Context, o Observer) (*Result, error) {
	attached := exists(i.Layout.ConfigFile())
	records := i.Journal.Records()
	if last, ok := LastOperation(records); ok && last.Name == "install" && !last.Complete() {
		i.resumed, attached = true, false
	}
	t := &Transaction{Journal: i.Journal, Operation: "install", Version: i.Source.Manifest().Version, Observer: o}
	timings, err := t.Run(ctx, i.Steps())
	// Podman's service is on for no longer than it is needed, also after a failure.
	err = errors.Join(err, i.restPodman(context.WithoutCancel(ctx)))
	if err != nil {
		return nil, err
	}
	r := &Result{
		URL: "https://" + ServerHostname(i.Request.Hostname, i.Request.Port), Hostname: i.Request.Hostname, Port: i.Request.Port,
		User: i.Request.User, PasswordFile: i.Layout.AdminPassword(), Version: i.Source.Manifest().Version, Profile: i.Profile.Name,
		DataDir: i.Layout.Data, ConfigDir: i.Layout.Config, Images: i.imageStates(), Resumed: i.resumed, Attached: attached,
		Proof: "push-pull", Steps: timings,
	}
	if i.ownCA {
		r.CAFile = i.Layout.CACert()
	}
	if !i.valid {
		r.Proof, r.PasswordFile = "answer", ""
	}
	return r, nil
}

// mkdir makes a directory and those above it, recording those that were not there. The last is of kind k.
func (i *Install) mkdir(path string, mode fs.FileMode, r Resource) error {
	// Steps that run at the same time have directories in common.
	i.making.Lock()
	defer i.making.Unlock()
	dirs, err := missing(path)
	if err != nil || len(dirs) == 0 {
		return err
	}
	for n, d := range dirs {
		resource := Resource{Kind: Dir, Name: d}
		if n == len(dirs)-1 && r.Kind != "" {
			resource = r
			resource.Name = d
		}
		if err := i.Journal.Creating(resource); err != nil {
			return err
		}
		m := fs.FileMode(0o755)
		if d == path {
			m = mode
		}
		if err := makeDir(d, m); err != nil {
			return err
		}
	}
	return nil
}

// creating records a file that will be made, unless it is there.
func (i *Install) creating(path string, keep bool) error {
	if exists(path) {
		return nil
	}
	return i.Journal.Creating(Resource{Kind: File, Name: path, Keep: keep})
}

const (
	postgresID = 70
	daemonID   = quadlet.DefaultUser
)

func (i *Install) directories(ctx context.Context) error {
	l := i.Layout
	for _, d := range i.Absent {
		if d != l.Config && exists(d) {
			if err := i.Journal.Creating(Resource{Kind: Dir, Name: d}); err != nil {
				return err
			}
		}
	}
	if err := i.mkdir(l.Config, 0o700, Resource{Kind: Dir, Keep: true}); err != nil {
		return err
	}
	// What `user create` writes there goes with the settings.
	if err := i.mkdir(l.Passwords(), 0o700, Resource{Kind: Tree, Keep: true}); err != nil {
		return err
	}
	if err := i.creating(l.pointer(), true); err != nil {
		return err
	}
	if err := writePointer(l); err != nil {
		return err
	}
	if err := os.Chmod(l.Data, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var own []Ownership
	var labels []string
	for _, d := range []struct {
		name string
		id   int
		mode fs.FileMode
		keep bool
	}{
		{"releases", -1, 0o700, false}, {"conf", daemonID, 0o500, false}, {"tls", daemonID, 0o500, false},
		{"keys", daemonID, 0o700, true}, {"storage", daemonID, 0o700, true}, {"postgresql", postgresID, 0o700, true},
		// Sticky and not the daemons' own: none of them can put a link in the place of run/pg, which is root's to mount.
		{"run", 0, fs.ModeSticky | 0o777, false}, {"run/pg", postgresID, 0o755, false},
	} {
		path := filepath.Join(l.Data, d.name)
		if err := i.mkdir(path, 0o700, Resource{Kind: Tree, Keep: d.keep}); err != nil {
			return err
		}
		if d.id >= 0 {
			own = append(own, Ownership{path, d.id, d.mode})
			labels = append(labels, path)
		}
	}
	if err := i.Host.Own(ctx, own); err != nil {
		return err
	}
	return i.Host.Label(ctx, labels...)
}

func (i *Install) settings(ctx context.Context) error {
	l := i.Layout
	base := i.Request.Settings
	kept, err := os.ReadFile(l.ConfigFile())
	switch {
	case err == nil && base != nil:
		// New settings, old secrets: without them what is in the database could not be read any more.
		if base, err = keepSecrets(base, kept); err != nil {
			return err
		}
	case err == nil:
		base = kept
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read settings: %w", err)
	}
	text, err := settings(base, ServerHostname(i.Request.Hostname, i.Request.Port), i.Request.User)
	if err != nil {
		return err
	}
	for _, f := range []string{l.ConfigFile(), l.AdminPassword()} {
		if err := i.creating(f, true); err != nil {
			return err
		}
	}
	if err := writeFile(l.ConfigFile(), text, 0o600); err != nil {
		return err
	}
	password, made, err := ensurePassword(l, i.Request.Password)
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.password, i.made = password, made
	i.mu.Unlock()
	return i.Host.Copy(ctx, []CopyFile{{l.ConfigFile(), Ownership{filepath.Join(l.Data, "conf", config.FileName), daemonID, 0o400}}})
}

// keepSecrets puts the secrets of an earlier configuration into a new one that has none.
func keepSecrets(base, kept []byte) ([]byte, error) {
	var have, old map[string]any
	if err := yaml.Unmarshal(base, &have); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	if err := yaml.Unmarshal(kept, &old); err != nil {
		return nil, fmt.Errorf("read kept settings: %w", err)
	}
	secrets := map[string]any{}
	for _, k := range []string{"SECRET_KEY", "DATABASE_SECRET_KEY", "PAGE_TOKEN_KEY"} {
		if v, ok := old[k]; ok && have[k] == nil {
			secrets[k] = v
		}
	}
	if len(secrets) == 0 {
		return base, nil
	}
	add, err := yaml.Marshal(secrets)
	if err != nil {
		return nil, err
	}
	return merge(base, add)
}

func (i *Install) certificate(ctx context.Context) error {
	l := i.Layout
	files := []string{l.Cert(), l.CertKey()}
	if i.Request.Pair == nil {
		files = append(files, l.CACert(), l.CAKey())
	}
	for _, f := range files {
		if err := i.creating(f, true); err != nil {
			return err
		}
	}
	own, err := ensureCertificate(l, certificateNames(i.Request.Hostname, i.Host.Names()), i.Request.Pair, i.Clock.Now())
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.ownCA = own
	i.mu.Unlock()
	if own {
		if err := i.trust(); err != nil {
			return err
		}
	}
	tls := filepath.Join(l.Data, "tls")
	return i.Host.Copy(ctx, []CopyFile{
		{l.Cert(), Ownership{filepath.Join(tls, "ssl.cert"), daemonID, 0o400}},
		{l.CertKey(), Ownership{filepath.Join(tls, "ssl.key"), daemonID, 0o400}},
	})
}

// trust has the clients on this machine trust the own CA for this registry.
func (i *Install) trust() error {
	dir := filepath.Join(i.Layout.Trust, ServerHostname(i.Request.Hostname, i.Request.Port))
	if err := i.mkdir(dir, 0o755, Resource{}); err != nil {
		return err
	}
	ca, err := os.ReadFile(i.Layout.CACert())
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	file := filepath.Join(dir, "ca.crt")
	ours := slices.Contains(Inventory(i.Journal.Records()), Resource{Kind: File, Name: file})
	if theirs, err := os.ReadFile(file); err == nil && !ours && !bytes.Equal(theirs, ca) {
		file = filepath.Join(dir, "quayctl-ca.crt") // clients trust every *.crt there
	}
	if err := i.creating(file, false); err != nil {
		return err
	}
	return writeFile(file, ca, 0o644)
}

func (i *Install) database(ctx context.Context) error {
	return i.Systemd.Start(ctx, quadlet.Service(databaseComponent, ""))
}

func (i *Install) migrate(ctx context.Context) error {
	return i.Systemd.Start(ctx, quadlet.Service("migrate", ""))
}

// firstSlot is the slot that a new installation runs.
const firstSlot = "a"

func (i *Install) start(ctx context.Context) error {
	if err := i.Systemd.Start(ctx, quadlet.SocketName); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, c := range i.Components {
		if c.Oneshot || c.Name == databaseComponent {
			continue
		}
		slot := ""
		if len(c.Slots) > 0 {
			slot = firstSlot
		}
		group.Go(func() error { return i.Systemd.Start(groupCtx, quadlet.Service(c.Name, slot)) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return i.Systemd.Start(ctx, quadlet.TargetName)
}

// readyLimit bounds the wait for services that have said that they are ready.
const readyLimit = 60 * time.Second

func (i *Install) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range i.Components {
		if !c.Notify || c.Name == databaseComponent {
			continue
		}
		slot := ""
		if len(c.Slots) > 0 {
			slot = firstSlot
		}
		group.Go(func() error {
			if err := i.Host.Ready(ctx, i.Layout.AdminSocket(c.Name, slot)); err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (i *Install) user(ctx context.Context) error {
	email := i.Request.User + "@" + mailDomain(i.Request.Hostname)
	// A run that was interrupted may have made the user with a password that was given then.
	valid, err := i.Database.EnsureUser(ctx, i.Layout.DSN(), i.Request.User, email, i.password, i.resumed && i.Request.Password != "")
	switch {
	case err != nil:
		return err
	case valid:
		err = writePassword(i.Layout, i.password)
	case i.made: // data were taken over whose user has another password
		err = os.Remove(i.Layout.AdminPassword())
	}
	i.valid = valid
	return err
}

// mailDomain makes an address of a host that has none of its own: addresses must have a domain, which nothing sends to.
func mailDomain(host string) string {
	if strings.Contains(host, ".") && strings.Trim(host, "0123456789.") != "" {
		return host
	}
	return "localhost.localdomain"
}

func (i *Install) prove(ctx context.Context) error {
	roots, err := os.ReadFile(i.Layout.Cert())
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	if i.ownCA {
		if roots, err = os.ReadFile(i.Layout.CACert()); err != nil {
			return fmt.Errorf("read CA: %w", err)
		}
	}
	name := "quayctl-probe-" + strings.ToLower(rand.Text()[:12])
	p := Proof{Hostname: i.Request.Hostname, Port: i.Request.Port, Roots: roots, User: i.Request.User, Repository: i.Request.User + "/" + name}
	if i.valid {
		p.Password = i.password
	}
	if err := i.forgetProbes(ctx); err != nil { // of a run that was interrupted
		return err
	}
	if i.valid {
		if err := i.Journal.Creating(Resource{Kind: Probe, Name: p.Repository}); err != nil {
			return err
		}
	}
	err = i.FrontDoor.Prove(ctx, p)
	return errors.Join(err, i.forgetProbes(context.WithoutCancel(ctx)))
}

// forgetProbes removes the repositories that were made to prove the front door.
func (i *Install) forgetProbes(ctx context.Context) error {
	for _, r := range Inventory(i.Journal.Records()) {
		if r.Kind != Probe {
			continue
		}
		namespace, name, _ := strings.Cut(r.Name, "/")
		if err := i.Database.Forget(ctx, i.Layout.DSN(), namespace, name); err != nil {
			return err
		}
		if err := i.Journal.Append(Record{Event: Removed, Resource: &r}); err != nil {
			return err
		}
	}
	return nil
}

// binary keeps quayctl for later, unless there is one that is not the installation's.
func (i *Install) binary(context.Context) error {
	l := i.Layout
	ours := slices.Contains(Inventory(i.Journal.Records()), Resource{Kind: File, Name: l.Binary})
	if exists(l.Binary) && !ours {
		return nil
	}
	if err := i.mkdir(filepath.Dir(l.Binary), 0o755, Resource{}); err != nil {
		return err
	}
	if err := i.creating(l.Binary, false); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := i.Source.ExtractBinary(&b); err != nil {
		return err
	}
	return writeFile(l.Binary, b.Bytes(), 0o755)
}

func (i *Install) imageStates() map[string]ImageState {
	all := map[string]ImageState{}
	for _, c := range quadlet.Images(i.Components) {
		if image, ok := i.Source.Manifest().Image(c); ok {
			all[c] = ImageState{Name: image.Name, ID: image.ID, Digest: image.Digest}
		}
	}
	return all
}

func (i *Install) record(context.Context) error {
	now := i.Clock.Now().UTC()
	s := &State{
		Version: i.Source.Manifest().Version, Profile: i.Profile.Name, Installed: now, Updated: now,
		Hostname: i.Request.Hostname, Port: i.Request.Port, User: i.Request.User, Images: i.imageStates(), Slot: firstSlot,
		Units: map[string]string{}, OwnCA: i.ownCA,
	}
	for _, c := range i.Components {
		s.Components = append(s.Components, ComponentState{Name: c.Name, Image: c.Image, Slots: c.Slots, Oneshot: c.Oneshot})
	}
	for _, u := range i.units {
		sum := sha256.Sum256([]byte(u.String()))
		s.Units[u.Name] = hex.EncodeToString(sum[:])
	}
	for _, r := range Inventory(i.Journal.Records()) {
		if r.Kind != PodmanSocket {
			s.Inventory = append(s.Inventory, r)
		}
	}
	return s.Write(i.Layout)
}
