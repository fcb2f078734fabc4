package schema_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/metadata/schema"
)

// childEnv makes this test binary a migrator of the database it names.
const childEnv = "SCHEMA_TEST_MIGRATE"

func TestMain(m *testing.M) {
	if dsn := os.Getenv(childEnv); dsn != "" {
		if _, err := schema.Migrate(context.Background(), dsn, schema.Options{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pgtest.Main(m)
}

const recorded = "../../../test/contract/schema/"

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(recorded + name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// catalogue is what the recorded query says of a database, in canonical form.
func catalogue(t *testing.T, db *pgtest.DB) any {
	t.Helper()
	var text []byte
	if err := db.Super().QueryRow(t.Context(), string(read(t, "catalog.sql"))).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

// rows is the content of every table and the state of every sequence in public.
func rows(t *testing.T, db *pgtest.DB) map[string]string {
	t.Helper()
	conn := db.Super()
	content := map[string]string{}
	for _, table := range schema.Tables() {
		var text string
		query := `SELECT coalesce(json_agg(x ORDER BY x::text), '[]')::text FROM public.` + pgx.Identifier{table}.Sanitize() + ` x`
		if err := conn.QueryRow(t.Context(), query).Scan(&text); err != nil {
			t.Fatal(err)
		}
		content[table] = text
	}
	sequences, err := conn.Query(t.Context(), `SELECT sequencename, coalesce(last_value, 0) FROM pg_sequences WHERE schemaname = 'public'`)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var value int64
	if _, err := pgx.ForEachRow(sequences, []any{&name, &value}, func() error { content[name] = fmt.Sprint(value); return nil }); err != nil {
		t.Fatal(err)
	}
	return content
}

func migrate(t *testing.T, db *pgtest.DB) schema.Result {
	t.Helper()
	result, err := schema.Migrate(t.Context(), db.DSN, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func check(t *testing.T, db *pgtest.DB) schema.Report {
	t.Helper()
	report, err := schema.Check(t.Context(), db.DSN, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// wantRecorded fails unless the database is the recorded one to the letter.
func wantRecorded(t *testing.T, db *pgtest.DB) {
	t.Helper()
	if diff := cmp.Diff(decode(t, read(t, "catalog.json")), catalogue(t, db)); diff != "" {
		t.Error(diff)
	}
}

func TestAnEmptyDatabaseBecomesTheRecordedOne(t *testing.T) {
	db := pgtest.Empty(t)
	if report := check(t, db); report.State != schema.Empty || report.UpToDate() || !slices.Equal(report.Pending, []string{"00001_legacy.sql"}) || report.Revision != "" {
		t.Errorf("before: %+v", report)
	}
	result := migrate(t, db)
	if result.Found != schema.Empty || result.Adopted || result.Revision != schema.Head || !slices.Equal(result.Applied, []string{"00001_legacy.sql"}) {
		t.Errorf("%+v", result)
	}
	wantRecorded(t, db)

	var seed struct {
		Rows map[string]any `json:"rows"`
	}
	if err := json.Unmarshal(read(t, "seed.json"), &seed); err != nil {
		t.Fatal(err)
	}
	content := rows(t, db)
	for _, table := range schema.Tables() {
		want, ok := seed.Rows[table]
		if !ok {
			want = []any{}
		}
		byID := cmp.Transformer("sorted", func(list []any) []any {
			return slices.SortedFunc(slices.Values(list), func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		})
		if diff := cmp.Diff(want, decode(t, []byte(content[table])), cmp.FilterPath(func(p cmp.Path) bool { return len(p) <= 2 }, byID)); diff != "" {
			t.Errorf("rows of %s: %s", table, diff)
		}
	}
	// A new row takes the id after the last seeded one.
	var id int64
	if err := db.Conn().QueryRow(t.Context(), `INSERT INTO logentrykind (name) VALUES ('another') RETURNING id`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	if want := int64(len(seed.Rows["logentrykind"].([]any)) + 1); id != want {
		t.Errorf("id %d, want %d", id, want)
	}

	if report := check(t, db); report.State != schema.Managed || !report.UpToDate() || report.Revision != schema.Head {
		t.Errorf("after: %+v", report)
	}
	if again := migrate(t, db); again.Found != schema.Managed || len(again.Applied) != 0 || again.Adopted {
		t.Errorf("again: %+v", again)
	}
}

// legacy is the recorded populated database as a legacy server left it, without anything of ours.
func legacy(t testing.TB) *pgtest.DB {
	t.Helper()
	db := pgtest.Populated(t)
	db.Exec(`DROP SCHEMA quay_appliance CASCADE`)
	return db
}

func TestALegacyDatabaseIsAdoptedUnchanged(t *testing.T) {
	db := legacy(t)
	structure, content := catalogue(t, db), rows(t, db)
	unchanged := func(when string) {
		t.Helper()
		if diff := cmp.Diff(structure, catalogue(t, db)); diff != "" {
			t.Errorf("%s, structure: %s", when, diff)
		}
		if diff := cmp.Diff(content, rows(t, db)); diff != "" {
			t.Errorf("%s, content: %s", when, diff)
		}
	}
	if report := check(t, db); report.State != schema.Legacy || report.UpToDate() || len(report.Pending) != 0 {
		t.Errorf("before: %+v", report)
	}
	unchanged("after a check")
	if result := migrate(t, db); !result.Adopted || result.Found != schema.Legacy || len(result.Applied) != 0 {
		t.Errorf("%+v", result)
	}
	unchanged("after adoption")
	wantRecorded(t, db)
	if result := migrate(t, db); result.Adopted || result.Found != schema.Managed {
		t.Errorf("again: %+v", result)
	}
	unchanged("after the second run")
}

func TestOtherDatabasesAreRefusedAndLeftAlone(t *testing.T) {
	var revision *schema.RevisionError
	var foreign *schema.ForeignError
	var newer *schema.NewerError
	for _, c := range []struct {
		name  string
		make  func(testing.TB) *pgtest.DB
		sql   string
		kind  any
		words []string
	}{
		{"another revision", legacy, `UPDATE alembic_version SET version_num = 'c3d4e5f6a7b8'`, &revision, []string{"c3d4e5f6a7b8", schema.Head, "upgrade it", "newer release"}},
		{"two revisions", legacy, `INSERT INTO alembic_version VALUES ('c3d4e5f6a7b8')`, &revision, []string{"2 rows", "c3d4e5f6a7b8", schema.Head, "finish"}},
		{"no revision", legacy, `DELETE FROM alembic_version`, &revision, []string{"0 rows", schema.Head}},
		{"another revision, ours", pgtest.Populated, `UPDATE alembic_version SET version_num = 'c3d4e5f6a7b8'`, &revision, []string{"c3d4e5f6a7b8"}},
		{"a program's own tables", pgtest.Empty, `CREATE TABLE customers (id int); CREATE VIEW rich AS SELECT * FROM customers`, &foreign, []string{"customers", "rich", "empty database"}},
		{"a table is missing", legacy, `DROP TABLE manifestblob, tagpullstatistics`, &foreign, []string{"manifestblob", "tagpullstatistics", schema.Head, "backup"}},
		{"a newer release's", pgtest.Populated, `INSERT INTO quay_appliance.goose_db_version (version_id, is_applied) VALUES (99, true)`, &newer, []string{"99", "newer release"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := c.make(t)
			db.Exec(c.sql)
			everything := func() (names string) {
				t.Helper()
				err := db.Super().QueryRow(t.Context(), `SELECT string_agg(n.nspname || '.' || c.relname || '/' || c.relkind::text, ' ' ORDER BY 1)
					FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_|^information_schema$'`).Scan(&names)
				if err != nil {
					t.Fatal(err)
				}
				return names
			}
			before := everything()
			_, merr := schema.Migrate(t.Context(), db.DSN, schema.Options{})
			_, cerr := schema.Check(t.Context(), db.DSN, schema.Options{})
			for _, err := range []error{merr, cerr} {
				if !errors.As(err, c.kind) {
					t.Fatalf("error %v of type %T", err, err)
				}
				for _, word := range c.words {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("%q does not mention %s", err, word)
					}
				}
			}
			if after := everything(); after != before {
				t.Errorf("before %s\nafter  %s", before, after)
			}
		})
	}
}

func TestARoleWithoutRightsIsToldTheRemedy(t *testing.T) {
	db := pgtest.Empty(t)
	role := "stranger_" + db.Name
	db.Exec(`CREATE ROLE ` + role + ` LOGIN`)
	t.Cleanup(func() { db.Exec(`DROP ROLE ` + role) })
	_, err := schema.Migrate(t.Context(), strings.Replace(db.DSN, "quay@", role+"@", 1), schema.Options{})
	if err == nil || !strings.Contains(err.Error(), "ALTER DATABASE") || !strings.Contains(err.Error(), db.Name) {
		t.Error(err)
	}
}

func TestManyMigratorsDoTheWorkOnce(t *testing.T) {
	db := pgtest.Empty(t)
	var group sync.WaitGroup
	results := make([]schema.Result, 6)
	for i := range results {
		group.Go(func() {
			var err error
			if results[i], err = schema.Migrate(t.Context(), db.DSN, schema.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	worked := 0
	for _, r := range results {
		worked += len(r.Applied)
	}
	if worked != 1 {
		t.Errorf("the one migration ran %d times: %+v", worked, results)
	}
	wantRecorded(t, db)
}

// interruptions are points within a migration: the command that is about to run, and how often it ran before.
var interruptions = map[string]struct {
	tag string
	nth int
}{
	"before anything":        {"CREATE SCHEMA", 1},
	"own record":             {"CREATE TABLE", 1},
	"extension":              {"CREATE EXTENSION", 1},
	"first table":            {"CREATE TABLE", 2},
	"in the midst of tables": {"CREATE TABLE", 50},
	"first index":            {"CREATE INDEX", 1},
	"last foreign key":       {"ALTER TABLE", 146},
}

// halt makes the nth command of a kind wait for an advisory lock that the test holds, and returns what waits for that
// moment and what lets the command go.
func halt(t *testing.T, db *pgtest.DB, tag string, nth int) (reached func(), release func()) {
	t.Helper()
	ctx := context.Background()
	admin := db.Super()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := admin.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE SCHEMA halt`)
	exec(`GRANT USAGE ON SCHEMA halt TO PUBLIC`)
	// A sequence counts across transactions and for every role.
	exec(`CREATE SEQUENCE halt.seen`)
	exec(`GRANT ALL ON SEQUENCE halt.seen TO PUBLIC`)
	exec(`CREATE FUNCTION halt.here() RETURNS event_trigger LANGUAGE plpgsql AS $$
		BEGIN IF nextval('halt.seen') = ` + fmt.Sprint(nth) + ` THEN PERFORM pg_advisory_xact_lock(4711); END IF; END $$`)
	exec(`CREATE EVENT TRIGGER halt ON ddl_command_start WHEN TAG IN ('` + tag + `') EXECUTE FUNCTION halt.here()`)
	exec(`SELECT pg_advisory_lock(4711)`)
	reached = func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for waiting := false; !waiting; {
			err := admin.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&waiting)
			if err != nil {
				t.Fatalf("%s number %d was never reached: %v", tag, nth, err)
			}
		}
	}
	release = func() {
		t.Helper()
		exec(`SELECT pg_advisory_unlock(4711)`)
		exec(`DROP EVENT TRIGGER halt`)
		exec(`DROP SCHEMA halt CASCADE`)
	}
	return reached, release
}

func TestAKilledMigrationIsFinishedByTheNext(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(interruptions)) {
		point := interruptions[name]
		t.Run(name, func(t *testing.T) {
			db := pgtest.Empty(t)
			reached, release := halt(t, db, point.tag, point.nth)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+db.DSN)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			reached()
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Fatal("the migration ended before it was killed")
			}
			release()
			if result := migrate(t, db); len(result.Applied) != 1 {
				t.Errorf("%+v", result)
			}
			wantRecorded(t, db)
		})
	}
}

func TestACancelledMigrationIsFinishedByTheNext(t *testing.T) {
	db := pgtest.Empty(t)
	reached, release := halt(t, db, "CREATE TABLE", 20)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := schema.Migrate(ctx, db.DSN, schema.Options{})
		ended <- err
	}()
	reached()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	release()
	migrate(t, db)
	wantRecorded(t, db)
}

func TestTheBaselineIsWhatTheGeneratorWrites(t *testing.T) {
	out := t.TempDir() + "/baseline.sql"
	if text, err := exec.Command("go", "run", "./generate", "-out", out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	want, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("migrations/00001_legacy.sql")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(have)); diff != "" {
		t.Error(diff)
	}
}
