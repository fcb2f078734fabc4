// Package actionlog writes the legacy action log (table logentry3).
//
// Entries that arrive while others are being written go to the database together in one statement; a caller returns when
// its own entry is committed, so nothing that was acknowledged is missing from the log. Where the configuration
// allows pulls without strict logging, pulls do not wait, and Drain makes sure that a clean stop loses none.
package actionlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
)

const (
	maxBatch     = 500
	maxWaiting   = 10_000 // entries that nobody waits for; beyond it callers wait
	writeTimeout = 15 * time.Second
)

// Kinds whose loss cfg ALLOW_PULLS_WITHOUT_STRICT_LOGGING allows.
var lenientKinds = []string{"pull_repo", "login_failure", "pull_repo_failed", "login_success", "logout_success"}

// pullKinds are what cfg DISABLED_FOR_PULL_LOGS is about.
var pullKinds = []string{"pull_repo", "repo_verb"}

// Entry is one event.
type Entry struct {
	Kind string // a name in logentrykind
	// Namespace is the name of the account the entry belongs to, for the lists of namespaces without logs.
	Namespace string
	// AccountID is that account; nil for events of no namespace, which go to the service's account.
	AccountID    *int64
	PerformerID  *int64
	RepositoryID *int64
	IP           string
	Metadata     map[string]any // JSON values
}

// Writer is safe for concurrent use. Make it with New.
type Writer struct {
	db     *metadata.DB
	clock  clock.Clock
	config *config.Config
	log    *slog.Logger

	mu      sync.Mutex
	queue   []pending
	writing bool
	idle    *sync.Cond // signalled when writing ends

	kindsMu sync.Mutex
	kinds   map[string]int64

	accountMu sync.Mutex
	account   int64
}

type pending struct {
	row  sqlc.AddLogEntryParams
	done chan error // nil when nobody waits
}

// New makes a Writer.
func New(db *metadata.DB, c clock.Clock, cfg *config.Config, log *slog.Logger) *Writer {
	w := &Writer{db: db, clock: c, config: cfg, log: log}
	w.idle = sync.NewCond(&w.mu)
	return w
}

// Log writes an entry, or skips it where the configuration says so. An error means that the action must fail too
// (strict logging); where the configuration is lenient about the kind, failures are only told to the daemon's log.
func (w *Writer) Log(ctx context.Context, e Entry) error {
	if w.skipped(e) {
		return nil
	}
	lenient := w.lenient(e.Kind)
	row, err := w.row(ctx, e)
	if err == nil {
		err = w.enqueue(ctx, row, lenient)
	}
	if err == nil {
		return nil
	}
	if lenient {
		w.log.ErrorContext(ctx, "action log entry lost", "kind", e.Kind, "error", err)
		return nil
	}
	return fmt.Errorf("log %s: %w", e.Kind, err)
}

// Drain returns when everything accepted is written, or with ctx's error.
func (w *Writer) Drain(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.idle.Broadcast()
	})
	defer stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing || len(w.queue) > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("drain action log: %d entries left: %w", len(w.queue), err)
		}
		w.idle.Wait()
	}
	return nil
}

func (w *Writer) skipped(e Entry) bool {
	c := w.config
	return c.RegistryState == "readonly" || slices.Contains(c.DisabledForAuditLogs, e.Namespace) ||
		slices.Contains(pullKinds, e.Kind) && slices.Contains(c.DisabledForPullLogs, e.Namespace)
}

func (w *Writer) lenient(kind string) bool {
	return w.config.AllowWithoutStrictLogging || w.config.AllowPullsWithoutStrictLogging && slices.Contains(lenientKinds, kind)
}

func (w *Writer) row(ctx context.Context, e Entry) (row sqlc.AddLogEntryParams, err error) {
	if row.KindID, err = w.kind(ctx, e.Kind); err != nil {
		return row, err
	}
	if e.AccountID != nil {
		row.AccountID = *e.AccountID
	} else if row.AccountID, err = w.serviceAccount(ctx); err != nil {
		return row, err
	}
	members := e.Metadata
	if members == nil {
		members = map[string]any{}
	}
	text, err := pyjson.Spaced(members)
	if err != nil {
		return row, err
	}
	row.MetadataJSON = string(text)
	row.PerformerID, row.RepositoryID = e.PerformerID, e.RepositoryID
	row.Datetime = w.clock.Now().UTC()
	if e.IP != "" {
		row.IP = &e.IP
	}
	return row, nil
}

// enqueue adds a row; one goroutine writes for all that come while it writes.
func (w *Writer) enqueue(ctx context.Context, row sqlc.AddLogEntryParams, lenient bool) error {
	p := pending{row: row}
	w.mu.Lock()
	if !lenient || len(w.queue) >= maxWaiting {
		p.done = make(chan error, 1)
	}
	w.queue = append(w.queue, p)
	lead := !w.writing
	w.writing = true
	w.mu.Unlock()
	if lead {
		// The batches belong to other requests too: this one's end must not cut them.
		go w.writeAll(context.WithoutCancel(ctx))
	}
	if p.done == nil {
		return nil
	}
	return <-p.done
}

func (w *Writer) writeAll(ctx context.Context) {
	for {
		w.mu.Lock()
		batch := w.queue
		if len(batch) > maxBatch {
			batch = batch[:maxBatch:maxBatch]
		}
		w.queue = w.queue[len(batch):]
		if len(batch) == 0 {
			w.queue, w.writing = nil, false
			w.idle.Broadcast()
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		err := w.write(ctx, batch)
		for _, p := range batch {
			if p.done != nil {
				p.done <- err
			} else if err != nil {
				w.log.ErrorContext(ctx, "action log entry lost", "error", err)
			}
		}
	}
}

func (w *Writer) write(ctx context.Context, batch []pending) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if len(batch) == 1 {
		return w.db.Write(ctx).AddLogEntry(ctx, batch[0].row)
	}
	var p sqlc.AddLogEntriesParams
	for _, b := range batch {
		p.KindIds = append(p.KindIds, b.row.KindID)
		p.AccountIds = append(p.AccountIds, b.row.AccountID)
		p.PerformerIds = append(p.PerformerIds, orZero(b.row.PerformerID))
		p.RepositoryIds = append(p.RepositoryIds, orZero(b.row.RepositoryID))
		p.Datetimes = append(p.Datetimes, b.row.Datetime)
		p.Ips = append(p.Ips, orEmpty(b.row.IP))
		p.MetadataJsons = append(p.MetadataJsons, b.row.MetadataJSON)
	}
	return w.db.Write(ctx).AddLogEntries(ctx, p)
}

func orZero(p *int64) int64 {
	if p == nil {
		return 0
	}
	return *p
}

func orEmpty(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// kind is the id of a kind's name; ids differ between installations.
func (w *Writer) kind(ctx context.Context, name string) (int64, error) {
	w.kindsMu.Lock()
	defer w.kindsMu.Unlock()
	if id, ok := w.kinds[name]; ok {
		return id, nil
	}
	rows, err := w.db.Read(ctx).LogEntryKinds(ctx)
	if err != nil {
		return 0, fmt.Errorf("read kinds of log entries: %w", err)
	}
	w.kinds = make(map[string]int64, len(rows))
	for _, r := range rows {
		w.kinds[r.Name] = r.ID
	}
	id, ok := w.kinds[name]
	if !ok {
		return 0, fmt.Errorf("the database knows no log entries of kind %s; run its migrations", name)
	}
	return id, nil
}

// serviceAccount is the account of entries that belong to no namespace: the smallest user id.
func (w *Writer) serviceAccount(ctx context.Context) (int64, error) {
	w.accountMu.Lock()
	defer w.accountMu.Unlock()
	if w.account != 0 {
		return w.account, nil
	}
	id, err := w.db.Read(ctx).SmallestAccountID(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, errors.New("there is no account that service events could belong to; create the first user")
	}
	if err != nil {
		return 0, fmt.Errorf("find the service account: %w", err)
	}
	w.account = id
	return id, nil
}

// ClientIP is the address of the client of r: what the nearest proxy says in X-Forwarded-For, else the peer. Empty when
// the request came over a socket without one.
func ClientIP(r *http.Request) string {
	if forwarded := r.Header.Values("X-Forwarded-For"); len(forwarded) > 0 {
		last := forwarded[len(forwarded)-1]
		if i := strings.LastIndexByte(last, ','); i >= 0 {
			last = last[i+1:]
		}
		if ip := net.ParseIP(strings.TrimSpace(last)); ip != nil {
			return ip.String()
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || net.ParseIP(host) == nil {
		return ""
	}
	return host
}
