// Package migrate is `workers migrate`: everything that must be true of database and key files before the daemons
// start. It is run before every start, so it changes nothing when there is nothing to change.
package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quayctl/quayctl/internal/auth/instancekey"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/schema"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// Options of Run.
type Options struct {
	// ConfigDir holds config.yaml. "" means no installation: only the schema is looked after.
	ConfigDir string
	// DSN is the database; "" means the configuration's DB_URI.
	DSN string
	// Check changes nothing and gives a PendingError when there is something to do.
	Check bool
	// JSON writes the report as one JSON object instead of lines.
	JSON   bool
	Clock  clock.Clock
	Logger *slog.Logger
}

// Report is what was done or, with Options.Check, what is to be done. It is also the JSON output.
type Report struct {
	Version  int          `json:"version"` // of this form, 1
	Check    bool         `json:"check"`
	Pending  bool         `json:"pending"` // with Check: there is something to do
	Found    schema.State `json:"found"`
	Revision string       `json:"revision"` // the database's; "" when nothing is built yet
	Expected string       `json:"expected"`
	// Migrations that ran, or are to be run, by file name.
	Migrations []string `json:"migrations"`
	// Tasks after the schema, in order; none without a configuration.
	Tasks    []Task  `json:"tasks"`
	Duration float64 `json:"duration_seconds"`
}

// Task is one boot task.
type Task struct {
	Name string `json:"name"`
	// Change is what was changed, or is to be changed; "" when all is well.
	Change string `json:"change"`
}

// PendingError is a check's answer that there is something to do.
type PendingError struct{ Report Report }

func (e *PendingError) Error() string {
	return "the database is not ready for this release: run `workers migrate`"
}

// ExitCode is the process's exit code for this error.
func (e *PendingError) ExitCode() int { return exitPending }

// Run does the work and writes the report to stdout. Refusals of a database are schema's typed errors.
func Run(ctx context.Context, o Options, stdout io.Writer) error {
	report, err := run(ctx, o)
	if err != nil {
		return err
	}
	write := report.text
	if o.JSON {
		write = report.json
	}
	if err := write(stdout); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if report.Pending {
		return &PendingError{Report: report}
	}
	return nil
}

func run(ctx context.Context, o Options) (Report, error) {
	start := o.Clock.Now()
	var cfg *config.Config
	if o.ConfigDir != "" {
		var err error
		if cfg, err = config.Load(o.ConfigDir); err != nil {
			return Report{}, err
		}
	}
	dsn, err := address(o, cfg)
	if err != nil {
		return Report{}, err
	}
	report := Report{Version: 1, Check: o.Check, Expected: schema.Head, Tasks: []Task{}}
	if err := doSchema(ctx, o, dsn, &report); err != nil {
		return Report{}, err
	}
	if cfg != nil {
		if err := doTasks(ctx, o, cfg, dsn, &report); err != nil {
			return Report{}, err
		}
	}
	report.Duration = o.Clock.Now().Sub(start).Seconds()
	return report, nil
}

// address is the database's, in pgx's form.
func address(o Options, cfg *config.Config) (string, error) {
	switch {
	case o.DSN != "":
		return metadata.PlainDSN(o.DSN, nil)
	case cfg != nil:
		return metadata.PlainDSN(cfg.DBURI.Reveal(), cfg.DBConnectionArgs)
	default:
		return "", errors.New("no database named: give --database-url, or --config-dir for its DB_URI")
	}
}

func doSchema(ctx context.Context, o Options, dsn string, report *Report) error {
	options := schema.Options{Logger: o.Logger, Now: o.Clock.Now}
	if o.Check {
		found, err := schema.Check(ctx, dsn, options)
		if err != nil {
			return err
		}
		report.Found, report.Revision, report.Migrations, report.Pending = found.State, found.Revision, found.Pending, !found.UpToDate()
		return nil
	}
	done, err := schema.Migrate(ctx, dsn, options)
	if err != nil {
		return err
	}
	report.Found, report.Revision, report.Migrations = done.Found, done.Revision, done.Applied
	return nil
}

func doTasks(ctx context.Context, o Options, cfg *config.Config, dsn string, report *Report) error {
	db, err := metadata.Open(ctx, metadata.Options{WriterDSN: dsn, MaxWriter: 2, AppName: "quay-migrate", Clock: o.Clock, Logger: o.Logger})
	if err != nil {
		return err
	}
	defer db.Close()
	pemPath, kidPath, err := instancekey.Paths(cfg, o.ConfigDir)
	if err != nil {
		return err
	}
	b := boot{
		db: db, cfg: cfg, now: o.Clock.Now(), check: o.Check,
		// Without tables nothing can be asked, and everything is to be done.
		empty: o.Check && report.Found == schema.Empty,
		keys:  instancekey.Store{DB: db, Clock: o.Clock, Config: cfg, Log: o.Logger, PEMPath: pemPath, KIDPath: kidPath},
	}
	for _, task := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"storage locations", b.locations},
		{"instance key", b.instanceKey},
	} {
		change, err := task.do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", task.name, err)
		}
		report.Tasks = append(report.Tasks, Task{Name: task.name, Change: change})
		report.Pending = report.Pending || o.Check && change != ""
	}
	return nil
}

// boot are the tasks that the legacy server does at every start.
type boot struct {
	db    *metadata.DB
	cfg   *config.Config
	keys  instancekey.Store
	now   time.Time
	check bool
	empty bool
}

// locations adds a row for every configured storage name. A read-only registry writes nothing.
func (b *boot) locations(ctx context.Context) (string, error) {
	known := map[string]bool{}
	if !b.empty {
		rows, err := b.db.Write(ctx).StorageLocations(ctx)
		if err != nil {
			return "", err
		}
		for _, r := range rows {
			known[r.Name] = true
		}
	}
	var missing []string
	for _, l := range b.cfg.Storage {
		if !known[l.Name] {
			missing = append(missing, l.Name)
		}
	}
	if len(missing) == 0 {
		return "", nil
	}
	slices.Sort(missing)
	if b.cfg.RegistryState == "readonly" {
		return "", fmt.Errorf("the database does not know %s and a registry in read-only state adds nothing; "+
			"start it once with REGISTRY_STATE normal", strings.Join(missing, ", "))
	}
	if !b.check {
		for _, name := range missing {
			if _, err := b.db.Write(ctx).AddStorageLocation(ctx, name); err != nil {
				return "", fmt.Errorf("add %s: %w", name, err)
			}
		}
	}
	return "add " + strings.Join(missing, ", "), nil
}

// instanceKey makes the key, its files and its row, or makes the row live longer.
func (b *boot) instanceKey(ctx context.Context) (string, error) {
	before, live, err := b.currentKey(ctx)
	if err != nil {
		return "", err
	}
	change := ""
	switch {
	case before == "":
		change = "make a key"
	case !live:
		change = "renew key " + before
	}
	if b.check {
		return change, nil
	}
	key, err := b.keys.Ensure(ctx)
	if err != nil {
		return "", err
	}
	if key.KeyID() != before {
		change = "make key " + key.KeyID()
	}
	return change, nil
}

// currentKey is the id of the key in its files ("" = none), and whether its row is live.
func (b *boot) currentKey(ctx context.Context) (kid string, live bool, err error) {
	key, err := instancekey.Load(b.keys.PEMPath, b.keys.KIDPath)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil || b.empty {
		return "", false, err
	}
	rows, err := b.db.Write(ctx).LiveServiceKeys(ctx, sqlc.LiveServiceKeysParams{Service: b.cfg.InstanceKeyService, Now: &b.now})
	if err != nil {
		return "", false, err
	}
	return key.KeyID(), slices.ContainsFunc(rows, func(r sqlc.LiveServiceKeysRow) bool { return r.Kid == key.KeyID() }), nil
}

func (r Report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r Report) text(w io.Writer) error {
	would := ""
	if r.Check {
		would = "to do: "
	}
	state := "up to date at revision " + r.Expected
	switch {
	case r.Found == schema.Empty:
		state = would + "build revision " + r.Expected
	case r.Found == schema.Legacy:
		state = would + "adopt the legacy database at revision " + r.Revision
	case len(r.Migrations) > 0:
		state = would + "run " + strings.Join(r.Migrations, ", ")
	}
	lines := []string{"database schema: " + state}
	for _, t := range r.Tasks {
		line := "up to date"
		if t.Change != "" {
			line = would + t.Change
		}
		lines = append(lines, t.Name+": "+line)
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// hasConfig says whether there is an installation's configuration in dir.
func hasConfig(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, config.FileName))
	return err == nil
}
