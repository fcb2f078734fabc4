// Package metadata is the way to the registry's PostgreSQL: one pool of connections for the writer and, where a read
// replica is configured, one for the reader, both with hard limits.
//
// Rules of routing:
//
//   - Read(ctx) goes to the replica, unless there is none, it does not answer, or ctx demands the writer.
//   - ctx demands the writer after ForceWriter, and, if Track was called on it (once for each request), from the first
//     Write or Tx on: what a request has written it must be able to read.
//   - Write(ctx) and Tx go to the writer.
//
// Timestamps in the legacy schema carry no zone and mean UTC: both pools write time.Time values as UTC.
package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// Limits of a pool's connections and of what they may do.
const (
	DefaultMaxConns = 10

	connectTimeout   = 10 * time.Second
	statementTimeout = 60 * time.Second
	idleInTxTimeout  = 60 * time.Second
	maxIdleTime      = 30 * time.Second // an idle backend costs megabytes
	idleCheckPeriod  = 10 * time.Second
	maxLifetime      = time.Hour
	// readerPause is how long reads go to the writer after the replica failed.
	readerPause = 10 * time.Second
)

// Options of Open.
type Options struct {
	WriterDSN  string         // DB_URI
	WriterArgs map[string]any // DB_CONNECTION_ARGS
	Readers    []Address      // DB_READ_REPLICAS; the reader pool's connections are spread over them
	MaxWriter  int            // hard limit of connections; 0 = DefaultMaxConns
	MaxReader  int            // likewise, of all replicas together
	AppName    string         // quay-<daemon>; the pools append -rw and -ro for application_name
	Clock      clock.Clock
	Logger     *slog.Logger
}

// Address is a database as config.yaml names it, see ParseDSN.
type Address struct {
	DSN  string
	Args map[string]any
}

// FromConfig is what config.yaml says about the database; limits, AppName, Clock and Logger are left to the caller.
func FromConfig(c *config.Config) Options {
	o := Options{WriterDSN: c.DBURI.Reveal(), WriterArgs: c.DBConnectionArgs}
	for _, r := range c.DBReadReplicas {
		o.Readers = append(o.Readers, Address{DSN: r.DBURI.Reveal(), Args: r.DBConnectionArgs})
	}
	return o
}

// DB is safe for concurrent use.
type DB struct {
	writer *pgxpool.Pool
	reader *replica // nil without one
}

// Open reads the addresses and makes the pools. It does not connect: a daemon may start before its database, see Ping.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.AppName == "" || o.Clock == nil || o.Logger == nil {
		return nil, errors.New("open database: AppName, Clock and Logger are needed")
	}
	writer, err := newPool(ctx, []Address{{o.WriterDSN, o.WriterArgs}}, o.MaxWriter, o.AppName+"-rw", false)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := &DB{writer: writer}
	if len(o.Readers) > 0 {
		reader, err := newPool(ctx, o.Readers, o.MaxReader, o.AppName+"-ro", true)
		if err != nil {
			writer.Close()
			return nil, fmt.Errorf("open read replica: %w", err)
		}
		db.reader = &replica{pool: reader, writer: writer, clock: o.Clock, logger: o.Logger}
	}
	return db, nil
}

func newPool(ctx context.Context, addresses []Address, limit int, appName string, readOnly bool) (*pgxpool.Pool, error) {
	var cfg *pgxpool.Config
	servers := make([]*pgx.ConnConfig, len(addresses))
	for i, a := range addresses {
		plain, err := PlainDSN(a.DSN, a.Args)
		if err != nil {
			return nil, err
		}
		parsed, err := pgxpool.ParseConfig(plain)
		if err != nil {
			return nil, fmt.Errorf("read database address: %w", err)
		}
		if cfg == nil {
			cfg = parsed
		}
		servers[i] = parsed.ConnConfig
		prepare(servers[i], appName, readOnly)
	}
	if limit <= 0 {
		limit = DefaultMaxConns
	}
	cfg.MaxConns = int32(min(limit, 1000))
	cfg.MaxConnIdleTime = maxIdleTime
	cfg.HealthCheckPeriod = idleCheckPeriod
	cfg.MaxConnLifetime = maxLifetime
	cfg.MaxConnLifetimeJitter = maxLifetime / 10
	if len(servers) > 1 {
		var next atomic.Uint64
		cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			*c = *servers[next.Add(1)%uint64(len(servers))].Copy()
			return nil
		}
	}
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamp", OID: pgtype.TimestampOID, Codec: utcCodec{&pgtype.TimestampCodec{}}})
		return nil
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// prepare sets what holds for every connection, leaving what the address itself says about timeouts.
func prepare(c *pgx.ConnConfig, appName string, readOnly bool) {
	if c.ConnectTimeout == 0 || c.ConnectTimeout > connectTimeout {
		c.ConnectTimeout = connectTimeout
	}
	c.RuntimeParams["application_name"] = appName
	setDefault(c.RuntimeParams, "statement_timeout", milliseconds(statementTimeout))
	setDefault(c.RuntimeParams, "idle_in_transaction_session_timeout", milliseconds(idleInTxTimeout))
	if readOnly {
		c.RuntimeParams["default_transaction_read_only"] = "on"
	}
}

// setDefault leaves what the address itself says.
func setDefault(params map[string]string, key, value string) {
	if _, set := params[key]; !set {
		params[key] = value
	}
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// Close waits until every connection has come back and closes it.
func (db *DB) Close() {
	if db.reader != nil {
		db.reader.pool.Close()
	}
	db.writer.Close()
}

// Ping asks the writer for an answer. A replica that is down is no failure: reads go to the writer meanwhile.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.writer.Ping(ctx); err != nil {
		return fmt.Errorf("reach database: %w", err)
	}
	return nil
}

// Writer is the writer's pool, for what Write and Tx do not cover: LISTEN, advisory locks, batches.
func (db *DB) Writer() *pgxpool.Pool { return db.writer }

// Reader is where reads of ctx go, see the rules of routing.
func (db *DB) Reader(ctx context.Context) sqlc.DBTX {
	if db.reader == nil || writerForced(ctx) {
		return db.writer
	}
	return db.reader
}

// Read are the queries on Reader.
func (db *DB) Read(ctx context.Context) *sqlc.Queries { return sqlc.New(db.Reader(ctx)) }

// Write are the queries on the writer, each in a transaction of its own. It marks ctx: its later reads see the write.
func (db *DB) Write(ctx context.Context) *sqlc.Queries {
	markWritten(ctx)
	return sqlc.New(db.writer)
}

// Tx runs do in one transaction on the writer, committed when do returns nil and rolled back when it fails or panics. It
// marks ctx as Write does; inside do use tx (sqlc.New(tx)), as anything else would not see its writes.
func (db *DB) Tx(ctx context.Context, do func(ctx context.Context, tx pgx.Tx) error) error {
	markWritten(ctx)
	return pgx.BeginFunc(ctx, db.writer, func(tx pgx.Tx) error { return do(ForceWriter(ctx), tx) })
}

// Stat is the state of the pools; reader is nil without a replica.
func (db *DB) Stat() (writer, reader *pgxpool.Stat) {
	if db.reader != nil {
		reader = db.reader.pool.Stat()
	}
	return db.writer.Stat(), reader
}
