package locks_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// process makes locks as another process would, on a connection of their own.
func process(t *testing.T, dsn string, c clock.Clock) *locks.Postgres {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["application_name"] = "quay-test"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	l := locks.NewPostgres(pool, c, slog.New(slog.DiscardHandler))
	t.Cleanup(l.Close)
	return l
}

func acquire(t *testing.T, l locks.Locker, name string) locks.Lease {
	t.Helper()
	lease, err := l.Acquire(t.Context(), name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func backends(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'quay-test-locks' AND datname = current_database()").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOneHolder(t *testing.T) {
	db := pgtest.Empty(t)
	a, b := process(t, db.DSN, clock.Real{}), process(t, db.DSN, clock.Real{})
	lease := acquire(t, a, "x")
	for _, l := range []locks.Locker{a, b} {
		if _, err := l.Try(t.Context(), "x", time.Hour); !errors.Is(err, locks.ErrHeld) || !strings.Contains(err.Error(), "lock x") {
			t.Errorf("Try of a held lock = %v, want ErrHeld that names it", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Acquire(ended, "x", time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire with an ended context = %v", err)
		}
		acquire(t, l, "y").Release() // another name is free
	}
	if err := lease.Check(t.Context()); err != nil {
		t.Errorf("Check of a held lock = %v", err)
	}
	lease.Release()
	lease.Release()
	if err := lease.Check(t.Context()); !errors.Is(err, locks.ErrLost) {
		t.Errorf("Check of a released lock = %v, want ErrLost", err)
	}
	acquire(t, b, "x").Release()
}

// Many goroutines of three processes: never two inside, everybody gets in, and each process uses one connection.
func TestExclusion(t *testing.T) {
	db := pgtest.Empty(t)
	watcher := db.Super()
	var inside, entered atomic.Int32
	var wg sync.WaitGroup
	const each = 10
	for range 3 {
		l := process(t, db.DSN, clock.Real{})
		for range each {
			wg.Go(func() {
				lease, err := l.Acquire(context.WithoutCancel(t.Context()), "x", time.Hour)
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				entered.Add(1)
				inside.Add(-1)
				lease.Release()
			})
		}
	}
	wg.Wait()
	if n := entered.Load(); n != 3*each {
		t.Errorf("%d got the lock, want %d", n, 3*each)
	}
	if n := backends(t, watcher); n > 3 {
		t.Errorf("%d connections for 3 processes", n)
	}
}

func TestManyNamesOneConnection(t *testing.T) {
	db := pgtest.Empty(t)
	l := process(t, db.DSN, clock.Real{})
	for i := range 50 {
		defer acquire(t, l, strings.Repeat("x", i)).Release()
	}
	if n := backends(t, db.Super()); n != 1 {
		t.Errorf("50 locks take %d connections, want 1", n)
	}
}

// A caller that gives up must not take the locks of others with it.
func TestCancelledWaiterLeavesOthersAlone(t *testing.T) {
	db := pgtest.Empty(t)
	a, b := process(t, db.DSN, clock.Real{}), process(t, db.DSN, clock.Real{})
	mine := acquire(t, a, "mine")
	theirs := acquire(t, b, "theirs")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := a.Acquire(ctx, "theirs", time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Acquire = %v, want the deadline", err)
	}
	if err := mine.Check(t.Context()); err != nil {
		t.Error(err)
	}
	theirs.Release()
	acquire(t, a, "theirs").Release()
	mine.Release()
}

func TestTimeToLive(t *testing.T) {
	db := pgtest.Empty(t)
	fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	a, b := process(t, db.DSN, fake), process(t, db.DSN, clock.Real{})
	lease, err := a.Acquire(t.Context(), "x", 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l, err := b.Acquire(context.WithoutCancel(t.Context()), "x", time.Hour)
		if err != nil {
			t.Error(err)
			return
		}
		l.Release()
	}()
	for fake.Sleepers() == 0 {
		select {
		case <-done:
			t.Fatal("a held lock was given away")
		default:
		}
	}
	fake.Advance(31 * time.Second)
	<-done
	if err := lease.Check(t.Context()); !errors.Is(err, locks.ErrLost) {
		t.Errorf("Check after the time to live = %v, want ErrLost", err)
	}
}

// A server that ends the connection ends the locks; whoever asks next gets a new connection.
func TestConnectionLost(t *testing.T) {
	db := pgtest.Empty(t)
	l := process(t, db.DSN, clock.Real{})
	lease := acquire(t, l, "x")
	db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quay-test-locks' AND datname = current_database()")
	if err := lease.Check(t.Context()); !errors.Is(err, locks.ErrLost) {
		t.Errorf("Check = %v, want ErrLost", err)
	}
	lease.Release()
	acquire(t, l, "x").Release()

	acquire(t, l, "y").Release()
	db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quay-test-locks' AND datname = current_database()")
	acquire(t, l, "y").Release()
}

func TestIdleConnectionIsClosed(t *testing.T) {
	db := pgtest.Empty(t)
	watcher := db.Super()
	fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	l := process(t, db.DSN, fake)
	acquire(t, l, "x").Release()
	if err := fake.AwaitSleepers(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	fake.Advance(2 * time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for backends(t, watcher) != 0 {
		if ctx.Err() != nil {
			t.Fatal("the connection stays open without locks")
		}
	}
	acquire(t, l, "x").Release()
}

func TestClosed(t *testing.T) {
	db := pgtest.Empty(t)
	l := process(t, db.DSN, clock.Real{})
	lease := acquire(t, l, "x")
	l.Close()
	if err := lease.Check(t.Context()); !errors.Is(err, locks.ErrLost) {
		t.Errorf("Check = %v, want ErrLost", err)
	}
	if _, err := l.Acquire(t.Context(), "y", time.Hour); err == nil {
		t.Error("a closed Locker gives locks")
	}
	lease.Release()
}
