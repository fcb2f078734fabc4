package metadata_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// opened is a DB on test databases of its own; without a replica's DSN there is none.
func opened(t *testing.T, o metadata.Options) *metadata.DB {
	t.Helper()
	if o.AppName == "" {
		o.AppName = "quay-test"
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	o.Logger = slog.New(slog.DiscardHandler)
	db, err := metadata.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// applicationName is what the server calls the connection that answers.
func applicationName(t *testing.T, ctx context.Context, q sqlc.DBTX) string {
	t.Helper()
	var name string
	if err := q.QueryRow(ctx, "SELECT current_setting('application_name')").Scan(&name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReadsGoToTheReaderUntilTheContextHasWritten(t *testing.T) {
	pg := pgtest.New(t)
	db := opened(t, metadata.Options{WriterDSN: pg.DSN, Readers: []metadata.Address{{DSN: pg.DSN}}})
	const reader, writer = "quay-test-ro", "quay-test-rw"

	request, other := metadata.Track(t.Context()), metadata.Track(t.Context())
	inner, cancel := context.WithCancel(request)
	defer cancel()
	check := func(when string, ctx context.Context, want string) {
		t.Helper()
		if got := applicationName(t, ctx, db.Reader(ctx)); got != want {
			t.Errorf("%s: read by %s, want %s", when, got, want)
		}
	}
	check("before any write", request, reader)
	check("without tracking", t.Context(), reader)
	check("forced", metadata.ForceWriter(t.Context()), writer)

	if _, err := db.Write(inner).AddStorageLocation(inner, "written"); err != nil {
		t.Fatal(err)
	}
	check("after a write deeper down", request, writer)
	check("in another request", other, reader)

	err := db.Tx(other, func(ctx context.Context, tx pgx.Tx) error {
		if name := applicationName(t, ctx, tx); name != writer {
			t.Errorf("transaction on %s", name)
		}
		check("inside a transaction", ctx, writer)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	check("after a transaction", other, writer)
	check("without tracking, after all", t.Context(), reader)
}

func TestTheReaderRefusesWrites(t *testing.T) {
	pg := pgtest.New(t)
	db := opened(t, metadata.Options{WriterDSN: pg.DSN, Readers: []metadata.Address{{DSN: pg.DSN}}})
	_, err := db.Read(t.Context()).AddStorageLocation(t.Context(), "astray")
	if !metadata.IsReadOnly(err) {
		t.Errorf("a write on the reader: %v", err)
	}
}

func TestReadsGoToTheWriterWhileTheReplicaIsDown(t *testing.T) {
	pg, replica := pgtest.New(t), pgtest.New(t)
	now := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	db := opened(t, metadata.Options{WriterDSN: pg.DSN, Readers: []metadata.Address{{DSN: replica.DSN}}, Clock: now})
	ctx := t.Context()
	read := func() string {
		t.Helper()
		if _, err := db.Read(ctx).StorageLocations(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Reader(ctx).Exec(ctx, "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		return applicationName(t, ctx, db.Reader(ctx))
	}
	if got := read(); got != "quay-test-ro" {
		t.Fatalf("read by %s", got)
	}
	admin := pg.Super()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := admin.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("ALTER DATABASE " + replica.Name + " ALLOW_CONNECTIONS false")
	exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", replica.Name)
	for range 3 {
		if got := read(); got != "quay-test-rw" {
			t.Errorf("read by %s while the replica is down", got)
		}
	}
	exec("ALTER DATABASE " + replica.Name + " ALLOW_CONNECTIONS true")
	if got := read(); got != "quay-test-rw" {
		t.Errorf("read by %s before the pause is over", got)
	}
	now.Advance(time.Minute)
	if got := read(); got != "quay-test-ro" {
		t.Errorf("read by %s after the replica is back", got)
	}
}

func TestReadsAreSpreadOverAllReplicas(t *testing.T) {
	pg, first, second := pgtest.New(t), pgtest.New(t), pgtest.New(t)
	db := opened(t, metadata.Options{WriterDSN: pg.DSN, Readers: []metadata.Address{{DSN: first.DSN}, {DSN: second.DSN}}, MaxReader: 2})
	// Each of two queries holds its connection until the other one has its own.
	var both, ended sync.WaitGroup
	both.Add(2)
	names := make(chan string, 2)
	for range 2 {
		ended.Go(func() {
			rows, err := db.Reader(t.Context()).Query(t.Context(), "SELECT current_database()")
			both.Done()
			if err != nil {
				t.Error(err)
				return
			}
			both.Wait()
			name, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
			if err != nil {
				t.Error(err)
			}
			names <- name
		})
	}
	ended.Wait()
	close(names)
	seen := map[string]bool{}
	for name := range names {
		seen[name] = true
	}
	if !seen[first.Name] || !seen[second.Name] {
		t.Errorf("read from %v, want %s and %s", seen, first.Name, second.Name)
	}
}

func TestConfigNamesTheDatabases(t *testing.T) {
	c, err := config.Parse([]byte(`
DB_URI: postgresql+psycopg2://quay:secret@db/quay
DB_CONNECTION_ARGS: {threadlocals: true, autorollback: true, sslmode: disable}
DB_READ_REPLICAS:
- {DB_URI: "postgresql://quay@replica1/quay", DB_CONNECTION_ARGS: {sslmode: require}}
- {DB_URI: "postgresql://quay@replica2/quay"}
`))
	if err != nil {
		t.Fatal(err)
	}
	o := metadata.FromConfig(c)
	if o.WriterDSN != "postgresql+psycopg2://quay:secret@db/quay" || o.WriterArgs["sslmode"] != "disable" ||
		len(o.Readers) != 2 || o.Readers[0].DSN != "postgresql://quay@replica1/quay" || o.Readers[0].Args["sslmode"] != "require" || o.Readers[1].DSN != "postgresql://quay@replica2/quay" {
		t.Errorf("%+v", o)
	}
}

func TestPoolsHoldTheirLimitsAndLeakNothing(t *testing.T) {
	pg := pgtest.New(t)
	const writers, readers = 3, 4
	db := opened(t, metadata.Options{WriterDSN: pg.DSN, Readers: []metadata.Address{{DSN: pg.DSN}}, MaxWriter: writers, MaxReader: readers})
	admin := pg.Super()
	connections := func() map[string]int {
		t.Helper()
		rows, err := admin.Query(t.Context(), `SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'quay-test-%' GROUP BY 1`, pg.Name)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		var name string
		var n int
		if _, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error { seen[name] = n; return nil }); err != nil {
			t.Fatal(err)
		}
		return seen
	}

	var wrong atomic.Int64
	boom := errors.New("boom")
	work := func(i int) error {
		ctx := metadata.Track(context.Background())
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := db.Read(canceled).StorageLocations(canceled); !errors.Is(err, context.Canceled) {
			wrong.Add(1)
		}
		if _, err := db.Read(ctx).StorageLocations(ctx); err != nil {
			return err
		}
		if _, err := db.Reader(ctx).Exec(ctx, "no SQL at all"); err == nil {
			wrong.Add(1)
		}
		err := db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			if i%2 == 0 {
				return boom
			}
			_, err := sqlc.New(tx).AddStorageLocation(ctx, "shared")
			return err
		})
		if i%2 == 0 && errors.Is(err, boom) {
			return nil
		}
		return err
	}
	var group errgroup.Group
	for i := range 500 {
		group.Go(func() error { return work(i) })
	}
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	most := map[string]int{}
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			running = false
		default:
			for name, n := range connections() {
				most[name] = max(most[name], n)
			}
		}
	}
	if most["quay-test-rw"] > writers || most["quay-test-ro"] > readers || len(most) != 2 {
		t.Errorf("connections at the busiest moment: %v, limits %d and %d", most, writers, readers)
	}
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d queries ended otherwise than they had to", n)
	}
	w, r := db.Stat()
	if w.AcquiredConns() != 0 || r.AcquiredConns() != 0 {
		t.Errorf("connections never given back: %d of the writer, %d of the reader", w.AcquiredConns(), r.AcquiredConns())
	}
	for name, n := range connections() {
		t.Logf("%s idle: %d", name, n)
	}
	db.Close()
	waitGone(t, admin, pg.Name)
}

// waitGone waits until the server has none of the pools' connections; a backend ends a moment after its client.
func waitGone(t *testing.T, admin *pgx.Conn, database string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		var n int
		err := admin.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'quay-test-%'`, database).Scan(&n)
		if err != nil {
			t.Fatalf("connections are left after Close: %v", err)
		}
		if n == 0 {
			return
		}
	}
}

func TestATransactionThatPanicsIsRolledBackAndGivesItsConnectionBack(t *testing.T) {
	pg := pgtest.New(t)
	db := opened(t, metadata.Options{WriterDSN: pg.DSN, MaxWriter: 1})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = db.Tx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if _, err := sqlc.New(tx).AddStorageLocation(ctx, "half"); err != nil {
				t.Error(err)
			}
			panic("half way")
		})
	}()
	// With one connection in the pool, this would wait forever had it not come back.
	locations, err := db.Read(t.Context()).StorageLocations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range locations {
		if l.Name == "half" {
			t.Error("the row of a transaction that panicked is there")
		}
	}
}

func TestErrorsAreTold(t *testing.T) {
	pg := pgtest.New(t)
	db := opened(t, metadata.Options{WriterDSN: pg.DSN})
	ctx := t.Context()
	_, err := db.Writer().Exec(ctx, `INSERT INTO visibility (name) VALUES ('public')`)
	if !metadata.IsUniqueViolation(err) || !metadata.IsUniqueViolation(err, "other", "visibility_name") || metadata.IsUniqueViolation(err, "other") {
		t.Errorf("unique violation: %v", err)
	}
	_, err = db.Writer().Exec(ctx, `INSERT INTO star (user_id, repository_id, created) VALUES (1, 1, now())`)
	if !metadata.IsForeignKeyViolation(err) || metadata.IsUniqueViolation(err) {
		t.Errorf("foreign key violation: %v", err)
	}
	gone := opened(t, metadata.Options{WriterDSN: "postgresql://nobody@/nothing?host=" + t.TempDir()})
	if err := gone.Ping(ctx); !metadata.IsUnavailable(err) || !strings.Contains(err.Error(), "reach database") {
		t.Errorf("unreachable: %v", err)
	}
	if metadata.IsUnavailable(pgx.ErrNoRows) || metadata.IsUnavailable(nil) {
		t.Error("no rows is no failure of the server")
	}
}

func TestTimesAreWrittenInUTC(t *testing.T) {
	pg := pgtest.New(t)
	db := opened(t, metadata.Options{WriterDSN: pg.DSN})
	instant := time.Date(2026, 11, 23, 1, 30, 0, 123456000, time.FixedZone("east", 5*3600))
	var text string
	var back time.Time
	var null *time.Time
	err := db.Writer().QueryRow(t.Context(), `SELECT $1::timestamp::text, $1::timestamp, $2::timestamp`, instant, null).Scan(&text, &back, &null)
	if err != nil {
		t.Fatal(err)
	}
	if text != "2026-11-22 20:30:00.123456" || !back.Equal(instant) || null != nil {
		t.Errorf("%s came back as %s, %v", text, back, null)
	}
}

func TestAddressesOfConfigYAML(t *testing.T) {
	for _, c := range []struct {
		dsn  string
		args map[string]any
		want string // host, port, user, password, database, TLS or not
	}{
		{"postgresql://quay:secret@db.example.com:6432/registry", nil, "db.example.com 6432 quay secret registry prefer"},
		{"postgresql+psycopg2://quay:p%40ss@db/registry?sslmode=disable", nil, "db 5432 quay p@ss registry plain"},
		{"postgres://quay@/quay?host=/run/quay/pg", nil, "/run/quay/pg 5432 quay  quay plain"},
		{"postgresql://quay@db/quay?keepalives=1&keepalives_idle=10&gssencmode=disable", map[string]any{"threadlocals": true, "autorollback": true, "sslmode": "disable", "connect_timeout": 7}, "db 5432 quay  quay plain"},
		{"postgresql://quay@db/quay?sslmode=disable", map[string]any{"sslmode": "require"}, "db 5432 quay  quay tls"},
	} {
		cfg, err := metadata.ParseDSN(c.dsn, c.args)
		if err != nil {
			t.Errorf("%s: %v", c.dsn, err)
			continue
		}
		security := "plain"
		if cfg.TLSConfig != nil {
			security = "tls"
			if len(cfg.Fallbacks) > 0 {
				security = "prefer"
			}
		}
		got := strings.Join([]string{cfg.Host, itoa(cfg.Port), cfg.User, cfg.Password, cfg.Database, security}, " ")
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.dsn, got, c.want)
		}
		if len(cfg.RuntimeParams) > 0 {
			t.Errorf("%s: would send %v to the server", c.dsn, cfg.RuntimeParams)
		}
	}
	for _, dsn := range []string{"mysql+pymysql://u:hunter2@h/d", "sqlite:///x.db", "u:hunter2@h/d", "postgresql://u:hun%ter2@h/d", "postgresql://u:hunter2@h:port/d"} {
		_, err := metadata.ParseDSN(dsn, nil)
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "hun%ter2") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func itoa(n uint16) string { return strconv.Itoa(int(n)) }
