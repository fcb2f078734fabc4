// Package schema builds the legacy database schema on an empty PostgreSQL and adopts a database that the
// legacy server made.
//
// Two records say how far a database is. alembic_version, in public, is the legacy server's own and stays
// at its head, so that either server starts on the same database. Ours, the list of migrations goose has
// run, lies in the schema quay_appliance, outside of everything the legacy server and its dumps of public know.
package schema

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/quayctl/quayctl/internal/metadata"
)

//go:generate go run ./generate

//go:embed migrations/*.sql
var files embed.FS

// Head is the alembic revision this release reads and writes.
const Head = "9fa37f66a9b6"

// baseline is the number of the migration that equals the whole legacy schema at Head.
const baseline = 1

const (
	ownSchema    = "quay_appliance"
	versionTable = ownSchema + ".goose_db_version"
	// lockID keeps two migrators of one database apart. Any fixed number will do.
	lockID = 7_236_982_140
)

// State is what a database is found to be.
type State string

// The states in which a database can be worked with; every other one is an error.
const (
	Empty   State = "empty"   // nothing in public: everything will be built
	Legacy  State = "legacy"  // made by the legacy server, at Head: will be adopted unchanged
	Managed State = "managed" // built or adopted by this appliance
)

// Report is what Check found.
type Report struct {
	State    State    `json:"state"`
	Revision string   `json:"revision"` // the database's alembic revision, "" when it is empty
	Expected string   `json:"expected"` // Head
	Pending  []string `json:"pending"`  // migrations that would run, by file name; empty, never nil
}

// UpToDate says that Migrate would change nothing.
func (r Report) UpToDate() bool { return r.State == Managed && len(r.Pending) == 0 }

// Result is what Migrate did.
type Result struct {
	Found    State         `json:"found"`    // before
	Revision string        `json:"revision"` // after
	Applied  []string      `json:"applied"`  // migrations that ran, by file name; empty, never nil
	Adopted  bool          `json:"adopted"`  // a legacy database was taken over
	Duration time.Duration `json:"duration"` // nanoseconds, with the wait for another migrator
}

// RevisionError refuses a database whose alembic_version is not Head.
type RevisionError struct {
	Found    []string // usually one; none when the table is empty
	Expected string
}

func (e *RevisionError) Error() string {
	if len(e.Found) != 1 {
		return fmt.Sprintf("database schema: alembic_version has %d rows (%s), expected the single revision %s; "+
			"an upgrade of the legacy server was interrupted: finish it there first", len(e.Found), strings.Join(e.Found, ", "), e.Expected)
	}
	return fmt.Sprintf("database schema is at revision %s, this release works with %s; if the database is older, upgrade it with the "+
		"legacy release that ends at %s, if it is newer, use a newer release of this appliance; nothing was changed", e.Found[0], e.Expected, e.Expected)
}

// NewerError refuses a database that a newer release of this appliance has migrated.
type NewerError struct {
	Found, Known int64 // numbers of migrations
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("database schema has migration %d of a newer release, this release knows them up to %d; "+
		"use the newer release, or restore the backup made before it; nothing was changed", e.Found, e.Known)
}

// ForeignError refuses a database that holds something else.
type ForeignError struct {
	Database  string
	Relations []string // what lies in public, at most ten names
	Missing   []string // set when alembic_version is at Head, yet these tables of it are not there
}

func (e *ForeignError) Error() string {
	if len(e.Missing) > 0 {
		return fmt.Sprintf("database %s claims revision %s but lacks %s; restore it from a complete backup; nothing was changed",
			e.Database, Head, strings.Join(e.Missing, ", "))
	}
	return fmt.Sprintf("database %s is not empty and not a registry's: it has %s in schema public and no alembic_version; "+
		"name an empty database, or the right one; nothing was changed", e.Database, strings.Join(e.Relations, ", "))
}

// Options of Migrate and Check.
type Options struct {
	Logger  *slog.Logger // nil: silent
	AppName string       // application_name of the connections; "" = quay-migrate
	Now     func() time.Time
	// LockWait bounds the wait for another migrator, in whole seconds; 0 = 10 minutes.
	LockWait time.Duration
}

// Migrate brings the database at dsn to what this release needs: an empty one is built, a legacy one at Head is
// adopted without a change in public, a managed one gets the migrations it lacks. The errors RevisionError,
// NewerError and ForeignError mean that nothing was changed. Each migration is one transaction: whatever
// interrupts Migrate, running it again finishes the work. Several may run at once; one works, the others wait.
func Migrate(ctx context.Context, dsn string, opts Options) (_ Result, err error) {
	m, err := open(dsn, opts)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, m.db.Close()) }()
	start := m.now()

	conn, err := m.db.Conn(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("connect to database %s: %w", m.name, err)
	}
	defer func() {
		if cerr := conn.Close(); err == nil {
			err = cerr
		}
	}()
	wait := opts.LockWait
	if wait == 0 {
		wait = 10 * time.Minute
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID), lock.WithLockTimeout(1, uint64(max(1, wait/time.Second))))
	if err != nil {
		return Result{}, err
	}
	// The lock is held around the look at the database as well as around goose's run, which is therefore
	// given no locker of its own.
	if err := locker.SessionLock(ctx, conn); err != nil {
		return Result{}, fmt.Errorf("wait for another migration of database %s: %w", m.name, err)
	}
	defer func() {
		// After a failure the connection may be gone, and the lock with it: the failure itself is the news.
		if uerr := locker.SessionUnlock(context.WithoutCancel(ctx), conn); err == nil {
			err = uerr
		}
	}()

	report, err := m.look(ctx, conn)
	if err != nil {
		return Result{}, err
	}
	result := Result{Found: report.State, Revision: Head, Applied: []string{}}
	if report.UpToDate() {
		result.Duration = m.now().Sub(start)
		return result, nil
	}
	if err := m.prepare(ctx, conn, report.State); err != nil {
		return Result{}, err
	}
	result.Adopted = report.State == Legacy
	done, err := m.provider.Up(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("migrate database %s: %w", m.name, err)
	}
	for _, d := range done {
		result.Applied = append(result.Applied, d.Source.Path)
	}
	result.Duration = m.now().Sub(start)
	return result, nil
}

// Check says what Migrate would do, and changes nothing.
func Check(ctx context.Context, dsn string, opts Options) (_ Report, err error) {
	m, err := open(dsn, opts)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, m.db.Close()) }()
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("connect to database %s: %w", m.name, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return m.look(ctx, conn)
}

type migrator struct {
	db       *sql.DB
	store    database.Store
	provider *goose.Provider
	name     string // of the database
	now      func() time.Time
}

func open(dsn string, opts Options) (*migrator, error) {
	cfg, err := metadata.ParseDSN(dsn, nil)
	if err != nil {
		return nil, err
	}
	if opts.AppName == "" {
		opts.AppName = "quay-migrate"
	}
	cfg.RuntimeParams["application_name"] = opts.AppName
	// The migrations name no schema; whatever the role's or the database's own setting, they mean public.
	cfg.RuntimeParams["search_path"] = "public"
	// One round trip a statement: each of the several hundred statements runs once.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol

	sub, err := fs.Sub(files, "migrations")
	if err != nil {
		return nil, err
	}
	store, err := database.NewStore(database.DialectPostgres, versionTable)
	if err != nil {
		return nil, err
	}
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	now := opts.Now
	if now == nil {
		now = time.Now
	}
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(2) // the lock's and goose's
	provider, err := goose.NewProvider(database.DialectCustom, db, sub,
		goose.WithStore(store), goose.WithSlog(logger), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read migrations: %w", err), db.Close())
	}
	return &migrator{db: db, store: store, provider: provider, name: cfg.Database, now: now}, nil
}

// look finds out what the database is.
func (m *migrator) look(ctx context.Context, conn *sql.Conn) (Report, error) {
	report := Report{Expected: Head, Pending: []string{}}
	applied, err := m.applied(ctx, conn)
	if err != nil {
		return Report{}, err
	}
	sources := m.provider.ListSources()
	if newest := sources[len(sources)-1].Version; applied > newest {
		return Report{}, &NewerError{Found: applied, Known: newest}
	}
	relations, err := queryStrings(ctx, conn, relationsQuery)
	if err != nil {
		return Report{}, fmt.Errorf("read catalogue of database %s: %w", m.name, err)
	}
	switch {
	case len(relations) == 0:
		report.State, applied = Empty, 0
	case !slices.Contains(relations, "alembic_version"):
		return Report{}, &ForeignError{Database: m.name, Relations: firstTen(relations)}
	default:
		revisions, err := queryStrings(ctx, conn, "SELECT version_num FROM public.alembic_version ORDER BY version_num")
		if err != nil {
			return Report{}, fmt.Errorf("read alembic_version of database %s: %w", m.name, err)
		}
		if len(revisions) != 1 || revisions[0] != Head {
			return Report{}, &RevisionError{Found: revisions, Expected: Head}
		}
		if missing := missingTables(relations); len(missing) > 0 {
			return Report{}, &ForeignError{Database: m.name, Missing: firstTen(missing)}
		}
		report.Revision, report.State = Head, Managed
		if applied < baseline {
			report.State, applied = Legacy, baseline
		}
	}
	for _, source := range sources {
		if source.Version > applied {
			report.Pending = append(report.Pending, source.Path)
		}
	}
	return report, nil
}

// applied is the number of the newest migration our own record names, 0 without such a record.
func (m *migrator) applied(ctx context.Context, conn *sql.Conn) (int64, error) {
	var exists bool
	if err := conn.QueryRowContext(ctx, "SELECT to_regclass('"+versionTable+"') IS NOT NULL").Scan(&exists); err != nil {
		return 0, fmt.Errorf("read catalogue of database %s: %w", m.name, err)
	}
	if !exists {
		return 0, nil
	}
	version, err := m.store.GetLatestVersion(ctx, conn)
	if errors.Is(err, database.ErrVersionNotFound) {
		return 0, nil
	}
	return version, err
}

// prepare makes our own record, in one transaction. A legacy database is thereby adopted: its record says that the
// baseline has run. One that was emptied by hand starts a new record.
func (m *migrator) prepare(ctx context.Context, conn *sql.Conn, state State) (err error) {
	if state == Managed {
		return nil
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("prepare schema %s of database %s: %w", ownSchema, m.name, explain(err)), ignoreDone(tx.Rollback()))
		}
	}()
	for _, statement := range []string{"CREATE SCHEMA IF NOT EXISTS " + ownSchema, "DROP TABLE IF EXISTS " + versionTable} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if err := m.store.CreateVersionTable(ctx, tx); err != nil {
		return err
	}
	// goose expects the row of version 0, which it writes itself when it makes the table.
	versions := []int64{0}
	if state == Legacy {
		versions = append(versions, baseline)
	}
	for _, v := range versions {
		if err := m.store.Insert(ctx, tx, database.InsertRequest{Version: v}); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// relationsQuery lists what lies in public and belongs to no extension.
const relationsQuery = `
SELECT c.relname::text FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname`

func queryStrings(ctx context.Context, conn *sql.Conn, query string) (_ []string, err error) {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var values []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, rows.Err()
}

// Tables are the names of the legacy schema's tables, sorted.
func Tables() []string {
	text, err := files.ReadFile("migrations/00001_legacy.sql")
	if err != nil {
		panic(err) // embedded: cannot fail
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "CREATE TABLE "); ok {
			names = append(names, strings.Trim(strings.TrimSuffix(rest, " (\n"), `"`))
		}
	}
	slices.Sort(names)
	return names
}

// Sources calls visit with each migration, in order.
func Sources(visit func(name string, file fs.File) error) error {
	return fs.WalkDir(files, "migrations", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := files.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(visit(entry.Name(), file), file.Close())
	})
}

func missingTables(relations []string) []string {
	return slices.DeleteFunc(Tables(), func(name string) bool { return slices.Contains(relations, name) })
}

func firstTen(names []string) []string {
	if len(names) <= 10 {
		return names
	}
	return append(slices.Clone(names[:10]), fmt.Sprintf("and %d more", len(names)-10))
}

// explain adds the remedy to the one refusal a sound database is likely to give.
func explain(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("%w; the role must own the database: run ALTER DATABASE … OWNER TO … as a superuser", err)
	}
	return err
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
