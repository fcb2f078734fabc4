// Package queue is the legacy work queue: rows of queueitem, claimed by one worker at a time for a limited while
// (contract, behaviour.md §7.2). Workers of the legacy server may work on the same queue at the same time.
package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

const (
	// Retries is how often an item is tried unless its producer says otherwise.
	Retries = 5
	// Reservation is for how long an item is claimed; its worker extends it.
	Reservation = 300 * time.Second
	// RetryAfter is how long an item rests after a failure.
	RetryAfter = 300 * time.Second
	// minimalExtension is the least gain for which a claim is extended.
	minimalExtension = 20 * time.Second
)

// ErrLost is what happens to a claim whose time was over: another worker has the item.
var ErrLost = errors.New("another worker has taken the item over")

// Queue is one queue. All fields are needed.
type Queue struct {
	Name    string // e.g. repositorygc
	DB      *metadata.DB
	Clock   clock.Clock
	Metrics *Metrics
}

// Item is a claimed item. It is not safe for concurrent use.
type Item struct {
	ID   int64
	Name string // e.g. repositorygc/devtable/10/
	Body string // JSON

	queue   *Queue
	stateID string
	expires time.Time
}

// CanonicalName is how items are named: the queue and further parts, each with a slash after it.
func CanonicalName(queue string, parts ...string) string {
	return strings.Join(append([]string{queue}, parts...), "/") + "/"
}

// Put adds an item that may be taken after delay, and returns its id as the legacy server keeps it.
func (q *Queue) Put(ctx context.Context, parts []string, body string, delay time.Duration, retries int64) (string, error) {
	id, err := q.DB.Write(ctx).PutQueueItem(ctx, sqlc.PutQueueItemParams{QueueName: CanonicalName(q.Name, parts...), Body: body,
		AvailableAfter: q.now().Add(delay), Retries: retries, StateID: uuid.NewString()})
	if err != nil {
		return "", fmt.Errorf("put item into queue %s: %w", q.Name, err)
	}
	q.Metrics.puts.WithLabelValues(q.Name).Inc()
	return strconv.FormatInt(id, 10), nil
}

// Claim takes a random one of the first 50 items that may be taken, for as long as reservation. It returns nil when there
// is none, or when another worker was faster with the one chosen.
func (q *Queue) Claim(ctx context.Context, reservation time.Duration) (*Item, error) {
	now := q.now()
	write := q.DB.Write(ctx)
	rows, err := write.QueueCandidates(ctx, sqlc.QueueCandidatesParams{Prefix: q.prefix(), Now: now})
	if err != nil {
		return nil, fmt.Errorf("look into queue %s: %w", q.Name, err)
	}
	if len(rows) == 0 {
		q.Metrics.gets.WithLabelValues(q.Name, "nonexistant").Inc() // spelt as in the legacy server
		return nil, nil
	}
	row := rows[rand.IntN(len(rows))] //nolint:gosec // keeps workers apart, guards nothing
	item := &Item{ID: row.ID, Name: row.QueueName, Body: row.Body, queue: q, stateID: uuid.NewString(), expires: now.Add(reservation)}
	n, err := write.ClaimQueueItem(ctx, sqlc.ClaimQueueItemParams{ID: row.ID, StateID: row.StateID, NewStateID: item.stateID, Expires: item.expires})
	if err != nil {
		return nil, fmt.Errorf("claim item %d of queue %s: %w", row.ID, q.Name, err)
	}
	if n == 0 {
		q.Metrics.gets.WithLabelValues(q.Name, "claimed").Inc()
		return nil, nil
	}
	q.Metrics.gets.WithLabelValues(q.Name, "acquired").Inc()
	return item, nil
}

// Complete removes the item.
func (i *Item) Complete(ctx context.Context) error {
	if _, err := i.queue.DB.Write(ctx).CompleteQueueItem(ctx, i.ID); err != nil {
		return fmt.Errorf("complete item %d of queue %s: %w", i.ID, i.queue.Name, err)
	}
	i.queue.Metrics.deletes.Inc()
	return nil
}

// Return gives the item back, to be tried again after a while; restore gives the retry back too. ErrLost when another
// worker has it.
func (i *Item) Return(ctx context.Context, after time.Duration, restore bool) error {
	params := sqlc.ReturnQueueItemParams{ID: i.ID, StateID: i.stateID, NewStateID: uuid.NewString(), AvailableAfter: i.queue.now().Add(after)}
	if restore {
		params.Retries = 1
	}
	n, err := i.queue.DB.Write(ctx).ReturnQueueItem(ctx, params)
	if err == nil && n == 0 {
		err = ErrLost
	}
	if err != nil {
		return fmt.Errorf("return item %d to queue %s: %w", i.ID, i.queue.Name, err)
	}
	i.stateID = params.NewStateID
	return nil
}

// Extend claims the item for as long as reservation from now on; a gain of less than 20 s is not written. ErrLost when
// another worker has it.
func (i *Item) Extend(ctx context.Context, reservation time.Duration) error {
	expires := i.queue.now().Add(reservation)
	if expires.Sub(i.expires) <= minimalExtension {
		return nil
	}
	state := uuid.NewString()
	n, err := i.queue.DB.Write(ctx).ExtendQueueItem(ctx, sqlc.ExtendQueueItemParams{ID: i.ID, StateID: i.stateID, NewStateID: state, Expires: expires})
	if err == nil && n == 0 {
		err = ErrLost
	}
	if err != nil {
		return fmt.Errorf("extend item %d of queue %s: %w", i.ID, i.queue.Name, err)
	}
	i.stateID, i.expires = state, expires
	return nil
}

func (q *Queue) now() time.Time { return q.Clock.Now().UTC().Truncate(time.Microsecond) }

func (q *Queue) prefix() string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(q.Name) + "/%"
}

// observe tells how full the queue is.
func (q *Queue) observe(ctx context.Context) error {
	load, err := q.DB.Read(ctx).QueueLoad(ctx, sqlc.QueueLoadParams{Now: q.now(), Prefix: q.prefix()})
	if err != nil {
		return fmt.Errorf("measure queue %s: %w", q.Name, err)
	}
	q.Metrics.locked.WithLabelValues(q.Name).Set(float64(load.Locked))
	q.Metrics.available.WithLabelValues(q.Name).Set(float64(load.Available))
	q.Metrics.availableUnlocked.WithLabelValues(q.Name).Set(float64(load.AvailableUnlocked))
	return nil
}

// Metrics count what happens to items, under the legacy names.
type Metrics struct {
	puts, gets                           *prometheus.CounterVec
	deletes                              prometheus.Counter
	locked, available, availableUnlocked *prometheus.GaugeVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"queue_name"})
	}
	m := &Metrics{
		puts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "quay_queue_item_puts_total",
			Help: "Items added to a queue."}, []string{"queue_name"}),
		gets: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "quay_queue_item_gets_total",
			Help: "Attempts to take an item from a queue."}, []string{"queue_name", "availability"}),
		deletes:           prometheus.NewCounter(prometheus.CounterOpts{Name: "quay_queue_item_deletes_total", Help: "Expired items deleted from queues."}),
		locked:            gauge("quay_queue_items_locked", "Names in a queue that have been claimed."),
		available:         gauge("quay_queue_items_available", "Names in a queue that may be taken."),
		availableUnlocked: gauge("quay_queue_items_available_unlocked", "Names in a queue that may be taken and of which none is claimed."),
	}
	for _, c := range []prometheus.Collector{m.puts, m.gets, m.deletes, m.locked, m.available, m.availableUnlocked} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
