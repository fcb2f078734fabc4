package locks

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/quayctl/quayctl/internal/clock"
)

const (
	// A lock that another process holds is asked for again after firstWait, and then ever less often.
	firstWait   = 5 * time.Millisecond
	longestWait = 250 * time.Millisecond
	// statementLimit bounds a question to the server. It does not depend on callers: cancelling a statement
	// would close the connection and with it every lock of the process.
	statementLimit = 10 * time.Second
	// idleLimit is after which time without any lock the connection is closed.
	idleLimit = time.Minute
)

// Postgres makes locks of PostgreSQL's session-level advisory locks. However many locks a process holds, they take
// one connection, and none after a minute without.
type Postgres struct {
	connect func(context.Context) (*pgx.Conn, error)
	clock   clock.Clock
	log     *slog.Logger

	mu   sync.Mutex
	held map[string]chan struct{} // locks of this process; the channel is closed when one ends

	session  sync.Mutex // guards the rest, and keeps statements apart
	conn     *pgx.Conn
	life     int // counts connections: locks of an earlier one are lost
	locks    int // held on conn
	stopIdle context.CancelFunc
	closed   bool
}

// NewPostgres makes locks on the server of a pool, by a connection of their own that names itself like the pool's, with
// -locks at the end.
func NewPostgres(pool *pgxpool.Pool, c clock.Clock, log *slog.Logger) *Postgres {
	config := pool.Config().ConnConfig
	config.RuntimeParams["application_name"] += "-locks"
	return &Postgres{
		connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, config) },
		clock:   c, log: log, held: map[string]chan struct{}{},
	}
}

// Close ends all locks.
func (p *Postgres) Close() {
	p.session.Lock()
	defer p.session.Unlock()
	p.closed = true
	p.hangUp()
}

// Acquire implements Locker.
func (p *Postgres) Acquire(ctx context.Context, name string, ttl time.Duration) (Lease, error) {
	return p.acquire(ctx, name, ttl, true)
}

// Try implements Locker.
func (p *Postgres) Try(ctx context.Context, name string, ttl time.Duration) (Lease, error) {
	return p.acquire(ctx, name, ttl, false)
}

func (p *Postgres) acquire(ctx context.Context, name string, ttl time.Duration, wait bool) (Lease, error) {
	ended, err := p.reserve(ctx, name, wait)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	life, err := p.take(ctx, name, wait)
	if err != nil {
		p.free(name, ended)
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	expiry, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &lease{p: p, name: name, life: life, ended: ended, cancel: cancel}
	go func() {
		if p.clock.Sleep(expiry, ttl) == nil {
			p.log.Warn("a lock has outlived its time", "lock", name, "ttl", ttl)
			l.Release()
		}
	}()
	return l, nil
}

// reserve makes the lock this goroutine's within the process.
func (p *Postgres) reserve(ctx context.Context, name string, wait bool) (chan struct{}, error) {
	for {
		p.mu.Lock()
		other := p.held[name]
		if other == nil {
			ended := make(chan struct{})
			p.held[name] = ended
			p.mu.Unlock()
			return ended, nil
		}
		p.mu.Unlock()
		if !wait {
			return nil, ErrHeld
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (p *Postgres) free(name string, ended chan struct{}) {
	p.mu.Lock()
	delete(p.held, name)
	p.mu.Unlock()
	close(ended)
}

// take makes the lock this process's.
func (p *Postgres) take(ctx context.Context, name string, wait bool) (life int, err error) {
	for pause := firstWait; ; pause = min(2*pause, longestWait) {
		got, life, err := p.try(ctx, name)
		if err != nil || got {
			return life, err
		}
		if !wait {
			return 0, ErrHeld
		}
		if err := p.clock.Sleep(ctx, pause); err != nil {
			return 0, err
		}
	}
}

func (p *Postgres) try(ctx context.Context, name string) (got bool, life int, err error) {
	if err := ctx.Err(); err != nil {
		return false, 0, err
	}
	p.session.Lock()
	defer p.session.Unlock()
	if p.closed {
		return false, 0, fmt.Errorf("locks are closed: %w", context.Canceled)
	}
	if p.stopIdle != nil {
		p.stopIdle()
		p.stopIdle = nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementLimit)
	defer cancel()
	if p.conn != nil && p.conn.IsClosed() {
		p.hangUp()
	}
	fresh := p.conn == nil
	for {
		if p.conn == nil {
			if p.conn, err = p.connect(ctx); err != nil {
				return false, 0, fmt.Errorf("connect: %w", err)
			}
		}
		err = p.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", key(name)).Scan(&got)
		if err == nil {
			break
		}
		p.hangUp()
		if fresh {
			return false, 0, err
		}
		fresh = true // the server may have gone and come back since the connection was made
	}
	if got {
		p.locks++
	} else if p.locks == 0 {
		p.idle()
	}
	return got, p.life, nil
}

// release gives the lock back to the server.
func (p *Postgres) release(name string, life int) {
	p.session.Lock()
	defer p.session.Unlock()
	if p.conn == nil || life != p.life {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementLimit)
	defer cancel()
	if _, err := p.conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", key(name)); err != nil {
		p.log.Warn("a lock could not be released; closing its connection, which ends it", "lock", name, "error", err)
		p.hangUp()
		return
	}
	if p.locks--; p.locks == 0 {
		p.idle()
	}
}

// check asks the server whether the connection of a lock still lives.
func (p *Postgres) check(ctx context.Context, life int) error {
	p.session.Lock()
	defer p.session.Unlock()
	if p.conn == nil || life != p.life {
		return ErrLost
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementLimit)
	defer cancel()
	if err := p.conn.Ping(ctx); err != nil {
		p.hangUp()
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return nil
}

// idle closes the connection after a while without locks. The caller holds p.session.
func (p *Postgres) idle() {
	if p.stopIdle != nil {
		p.stopIdle()
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stopIdle = cancel
	go func() {
		if p.clock.Sleep(ctx, idleLimit) != nil {
			return
		}
		p.session.Lock()
		defer p.session.Unlock()
		if ctx.Err() == nil && p.locks == 0 {
			p.hangUp()
		}
	}()
}

// hangUp closes the connection, and with it every lock on it. The caller holds p.session.
func (p *Postgres) hangUp() {
	if p.stopIdle != nil {
		p.stopIdle()
		p.stopIdle = nil
	}
	if p.conn == nil {
		return
	}
	if p.locks > 0 {
		p.log.Warn("the connection that holds locks is gone", "locks", p.locks)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementLimit)
	defer cancel()
	_ = p.conn.Close(ctx)
	p.conn = nil
	p.locks = 0
	p.life++
}

// key is the advisory lock of a name: the first eight bytes, big-endian, of SHA-256("lock:" + name).
func key(name string) int64 {
	sum := sha256.Sum256([]byte("lock:" + name))
	return int64(binary.BigEndian.Uint64(sum[:])) //nolint:gosec // any bits will do
}

type lease struct {
	p      *Postgres
	name   string
	life   int
	ended  chan struct{}
	cancel context.CancelFunc
	once   sync.Once
}

// Check implements Lease.
func (l *lease) Check(ctx context.Context) error {
	select {
	case <-l.ended:
		return fmt.Errorf("lock %s: %w", l.name, ErrLost)
	default:
	}
	if err := l.p.check(ctx, l.life); err != nil {
		return fmt.Errorf("lock %s: %w", l.name, err)
	}
	return nil
}

// Release implements Lease.
func (l *lease) Release() {
	l.once.Do(func() {
		l.cancel()
		l.p.release(l.name, l.life)
		l.p.free(l.name, l.ended)
	})
}
