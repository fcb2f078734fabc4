package metadata

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/quayctl/quayctl/internal/clock"
)

type routeKey struct{}

// Track gives a context that remembers a write made with it, or with any context derived from it. A server calls it
// once for each request, a worker for each item of work.
func Track(ctx context.Context) context.Context {
	return context.WithValue(ctx, routeKey{}, new(atomic.Bool))
}

// ForceWriter gives a context whose reads go to the writer.
func ForceWriter(ctx context.Context) context.Context {
	forced := new(atomic.Bool)
	forced.Store(true)
	return context.WithValue(ctx, routeKey{}, forced)
}

func writerForced(ctx context.Context) bool {
	mark, _ := ctx.Value(routeKey{}).(*atomic.Bool)
	return mark != nil && mark.Load()
}

func markWritten(ctx context.Context) {
	if mark, _ := ctx.Value(routeKey{}).(*atomic.Bool); mark != nil {
		mark.Store(true)
	}
}

// replica reads from the replica, and from the writer while the replica does not answer.
type replica struct {
	pool, writer *pgxpool.Pool
	clock        clock.Clock
	logger       *slog.Logger
	// pausedUntil is the time in Unix nanoseconds up to which the replica is left alone after a failure.
	pausedUntil atomic.Int64
}

func (r *replica) current() *pgxpool.Pool {
	if r.clock.Now().UnixNano() < r.pausedUntil.Load() {
		return r.writer
	}
	return r.pool
}

// failed says whether err means the replica rather than the query, and if so leaves the replica alone for a while.
func (r *replica) failed(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || !IsUnavailable(err) {
		return false
	}
	now := r.clock.Now()
	if before := r.pausedUntil.Swap(now.Add(readerPause).UnixNano()); before < now.UnixNano() {
		r.logger.WarnContext(ctx, "read replica does not answer, reading from the writer",
			slog.Any("error", err), slog.Duration("for", readerPause))
	}
	return true
}

// Exec implements sqlc.DBTX.
func (r *replica) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	pool := r.current()
	tag, err := pool.Exec(ctx, query, args...)
	if pool == r.pool && r.failed(ctx, err) {
		return r.writer.Exec(ctx, query, args...)
	}
	return tag, err
}

// Query implements sqlc.DBTX. A replica that fails halfway through the rows fails the query.
func (r *replica) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	pool := r.current()
	rows, err := pool.Query(ctx, query, args...)
	if pool != r.pool {
		return rows, err
	}
	if r.failed(ctx, err) {
		return r.writer.Query(ctx, query, args...)
	}
	if err != nil {
		return rows, err
	}
	again := func() (pgx.Rows, error) { return r.writer.Query(ctx, query, args...) }
	return &replicaRows{Rows: rows, failed: func(err error) bool { return r.failed(ctx, err) }, again: again}, nil
}

// replicaRows are rows of the replica. A connection that broke while it lay in the pool shows only here, at the first
// row: then the query is asked again.
type replicaRows struct {
	pgx.Rows
	failed func(error) bool
	again  func() (pgx.Rows, error) // nil once the first row was asked for
	err    error                    // of again
}

// Next implements pgx.Rows.
func (r *replicaRows) Next() bool {
	more := r.Rows.Next()
	if again := r.again; again != nil {
		r.again = nil
		if !more && r.failed(r.Rows.Err()) {
			rows, err := again()
			if err != nil {
				r.err = err
				return false
			}
			r.Rows = rows
			return r.Rows.Next()
		}
	}
	return more
}

// Err implements pgx.Rows.
func (r *replicaRows) Err() error {
	if r.err != nil {
		return r.err
	}
	return r.Rows.Err()
}

// QueryRow implements sqlc.DBTX.
func (r *replica) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	pool := r.current()
	row := pool.QueryRow(ctx, query, args...)
	if pool != r.pool {
		return row
	}
	return rowFunc(func(dest ...any) error {
		err := row.Scan(dest...)
		if r.failed(ctx, err) {
			return r.writer.QueryRow(ctx, query, args...).Scan(dest...)
		}
		return err
	})
}

type rowFunc func(dest ...any) error

func (f rowFunc) Scan(dest ...any) error { return f(dest...) }

// CopyFrom implements sqlc.DBTX where a query asks for it. It always writes, so it goes to the writer.
func (r *replica) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	markWritten(ctx)
	return r.writer.CopyFrom(ctx, table, columns, rows)
}

// SendBatch implements sqlc.DBTX where a query asks for it. A batch is not asked again: part of it may have run.
func (r *replica) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	return r.current().SendBatch(ctx, batch)
}
