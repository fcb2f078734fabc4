package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/jobs/queue"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type fixture struct {
	t     *testing.T
	sql   *pgxpool.Pool
	db    *metadata.DB
	clock *clock.Fake
	queue *queue.Queue
}

func open(t *testing.T, name string) *fixture {
	t.Helper()
	ctx := context.Background()
	database := pgtest.New(t)
	f := &fixture{t: t, clock: clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))}
	var err error
	if f.sql, err = pgxpool.New(ctx, database.DSN); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.sql.Close)
	f.db, err = metadata.Open(ctx, metadata.Options{WriterDSN: database.DSN, AppName: "queue-test", Clock: f.clock, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.db.Close)
	f.queue = f.named(name)
	return f
}

func (f *fixture) named(name string) *queue.Queue {
	f.t.Helper()
	metrics, err := queue.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		f.t.Fatal(err)
	}
	return &queue.Queue{Name: name, DB: f.db, Clock: f.clock, Metrics: metrics}
}

type row struct {
	Name, Body string
	After      time.Time
	Available  bool
	Expires    *time.Time
	Retries    int64
	State      string
}

func (f *fixture) rows() []row {
	f.t.Helper()
	rows, err := f.sql.Query(context.Background(), `SELECT queue_name, body, available_after, available, processing_expires, retries_remaining, state_id
		FROM queueitem ORDER BY id`)
	if err != nil {
		f.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

func (f *fixture) clear() {
	f.t.Helper()
	if _, err := f.sql.Exec(context.Background(), `DELETE FROM queueitem`); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) put(parts ...string) {
	f.t.Helper()
	if _, err := f.queue.Put(context.Background(), parts, "{}", 0, queue.Retries); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) claim() *queue.Item {
	f.t.Helper()
	item, err := f.queue.Claim(context.Background(), queue.Reservation)
	if err != nil {
		f.t.Fatal(err)
	}
	return item
}

// TestPutLikeLegacy puts what the legacy producers put and compares the rows with theirs.
func TestPutLikeLegacy(t *testing.T) {
	text, err := os.ReadFile("testdata/queue-items.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Items []struct {
			Producer  string
			QueueName string `json:"queue_name"`
			BodyText  string `json:"body_text"`
			DelayS    int64  `json:"delay_s"`
			Retries   int64  `json:"retries_remaining"`
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	f := open(t, "any")
	for i, v := range vectors.Items {
		name, parts := split(v.QueueName)
		id, err := f.named(name).Put(t.Context(), parts, v.BodyText, time.Duration(v.DelayS)*time.Second, v.Retries)
		if err != nil || id == "" {
			t.Fatalf("%s: id %q, %v", v.Producer, id, err)
		}
		got := f.rows()[i]
		want := row{Name: v.QueueName, Body: v.BodyText, After: f.clock.Now().Add(time.Duration(v.DelayS) * time.Second), Available: true,
			Retries: v.Retries, State: got.State}
		if got != want || len(got.State) != 36 {
			t.Errorf("%s:\n got %+v\nwant %+v", v.Producer, got, want)
		}
	}
	if len(vectors.Items) == 0 {
		t.Error("no vectors")
	}
}

func split(name string) (queue string, parts []string) {
	for part, rest := "", name; rest != ""; {
		part, rest = cut(rest)
		parts = append(parts, part)
	}
	return parts[0], parts[1:]
}

func cut(s string) (before, after string) {
	for i := range s {
		if s[i] == '/' {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func TestClaim(t *testing.T) {
	f := open(t, "repositorygc")
	f.put("devtable", "10")
	before := f.rows()[0]
	item := f.claim()
	if item == nil || item.Name != "repositorygc/devtable/10/" {
		t.Fatalf("claimed %+v", item)
	}
	got := f.rows()[0]
	if got.Available || got.Expires == nil || !got.Expires.Equal(f.clock.Now().Add(queue.Reservation)) || got.Retries != 4 || got.State == before.State {
		t.Errorf("row %+v", got)
	}
	if again := f.claim(); again != nil {
		t.Errorf("an item that is claimed was claimed again: %+v", again)
	}
	f.clock.Advance(queue.Reservation)
	second := f.claim()
	if second == nil || f.rows()[0].Retries != 3 {
		t.Fatalf("an item whose claim is over cannot be claimed: %+v", f.rows())
	}
	if err := item.Return(t.Context(), 0, true); !errors.Is(err, queue.ErrLost) {
		t.Errorf("the first holder could give back what another one has: %v", err)
	}
	if err := item.Extend(t.Context(), time.Hour); !errors.Is(err, queue.ErrLost) {
		t.Errorf("the first holder could extend what another one has: %v", err)
	}
	if err := second.Complete(t.Context()); err != nil || len(f.rows()) != 0 {
		t.Errorf("completed: %v, %+v", err, f.rows())
	}
}

func TestClaimLeavesAlone(t *testing.T) {
	f := open(t, "repository_gc")
	for what, statement := range map[string]string{
		"not yet available":  `UPDATE queueitem SET available_after = '2026-11-23 12:00:01'`,
		"no retries":         `UPDATE queueitem SET retries_remaining = 0`,
		"claimed":            `UPDATE queueitem SET available = FALSE, processing_expires = '2026-11-23 12:00:01'`,
		"other queue":        `UPDATE queueitem SET queue_name = 'namespacegc/1/'`,
		"similar queue":      `UPDATE queueitem SET queue_name = 'repositoryXgc/1/'`,
		"queue by like only": `UPDATE queueitem SET queue_name = 'my%queue/1/'`,
	} {
		t.Run(what, func(t *testing.T) {
			f.clear()
			f.put("1")
			if _, err := f.sql.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
			if item := f.claim(); item != nil {
				t.Errorf("claimed %+v", item)
			}
		})
	}
}

func TestReturn(t *testing.T) {
	f := open(t, "notification")
	for _, restore := range []bool{false, true} {
		f.clear()
		f.put("devtable", "simple", "repo_push")
		item := f.claim()
		claimed := f.rows()[0]
		if err := item.Return(t.Context(), queue.RetryAfter, restore); err != nil {
			t.Fatal(err)
		}
		got := f.rows()[0]
		want := claimed
		want.Available, want.After, want.State = true, f.clock.Now().Add(queue.RetryAfter), got.State
		if restore {
			want.Retries++
		}
		if got.Expires == nil || !got.Expires.Equal(*claimed.Expires) {
			t.Errorf("processing_expires changed: %v", got.Expires)
		}
		want.Expires = got.Expires
		if got != want || got.State == claimed.State {
			t.Errorf("restore %v:\n got %+v\nwant %+v", restore, got, want)
		}
		if f.claim() != nil {
			t.Error("it could be claimed at once")
		}
		f.clock.Advance(queue.RetryAfter)
		if f.claim() == nil {
			t.Error("it cannot be claimed after its rest")
		}
	}
}

func TestExtend(t *testing.T) {
	f := open(t, "repositorygc")
	f.put("1")
	item := f.claim()
	first := f.rows()[0]
	f.clock.Advance(20 * time.Second)
	if err := item.Extend(t.Context(), queue.Reservation); err != nil || f.rows()[0].State != first.State {
		t.Errorf("a gain of 20 s was written: %v", err)
	}
	f.clock.Advance(time.Second)
	if err := item.Extend(t.Context(), queue.Reservation); err != nil {
		t.Fatal(err)
	}
	got := f.rows()[0]
	if !got.Expires.Equal(f.clock.Now().Add(queue.Reservation)) || got.State == first.State || got.Retries != first.Retries {
		t.Errorf("row %+v", got)
	}
	if err := item.Return(t.Context(), 0, true); err != nil {
		t.Errorf("after an extension: %v", err)
	}
}

// TestManyClaimers lets several workers empty one queue: each item is done once.
func TestManyClaimers(t *testing.T) {
	f := open(t, "repositorygc")
	const items, workers = 200, 6
	for i := range items {
		f.put("devtable", fmt.Sprint(i))
	}
	var mu sync.Mutex
	done := map[int64]int{}
	var all sync.WaitGroup
	for range workers {
		q := f.named("repositorygc")
		all.Go(func() {
			for {
				item, err := q.Claim(context.Background(), queue.Reservation)
				if err != nil {
					t.Error(err)
					return
				}
				if item == nil {
					mu.Lock()
					finished := len(done) == items
					mu.Unlock()
					if finished {
						return
					}
					continue // another one was faster
				}
				mu.Lock()
				done[item.ID]++
				mu.Unlock()
				if err := item.Complete(context.Background()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	for id, n := range done {
		if n != 1 {
			t.Errorf("item %d was done %d times", id, n)
		}
	}
	if left := f.rows(); len(left) != 0 {
		t.Errorf("%d items are left", len(left))
	}
}

func (f *fixture) worker(process func(context.Context, string) error) *queue.Worker {
	return &queue.Worker{Queue: f.queue, Worker: "testworker", Poll: time.Minute, Process: process}
}

func TestWorkerOutcomes(t *testing.T) {
	f := open(t, "repositorygc")
	for _, c := range []struct {
		name      string
		outcome   error
		panics    bool
		fails     bool
		available bool
		retries   int64
		after     time.Duration
	}{
		{name: "job failed", outcome: queue.ErrFailed, fails: true, available: true, retries: 4, after: queue.RetryAfter},
		{name: "busy", outcome: fmt.Errorf("lock: %w", queue.ErrBusy), available: true, retries: 5, after: 5 * time.Second},
		{name: "any other error", outcome: errors.New("boom"), fails: true, retries: 4},
		{name: "panic", panics: true, fails: true, retries: 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.clear()
			f.put("1")
			_, err := f.worker(func(context.Context, string) error {
				if c.panics {
					panic("boom")
				}
				return c.outcome
			}).Run(t.Context())
			if (err != nil) != c.fails {
				t.Errorf("error %v", err)
			}
			got := f.rows()[0]
			if got.Available != c.available || got.Retries != c.retries || !got.After.Equal(f.clock.Now().Add(c.after)) {
				t.Errorf("row %+v", got)
			}
		})
	}
}

func TestWorkerEmptiesTheQueue(t *testing.T) {
	f := open(t, "repositorygc")
	for i := range 5 {
		f.put(fmt.Sprint(i))
	}
	p, err := f.worker(func(context.Context, string) error { return nil }).Run(t.Context())
	if err != nil || p.Done != 5 || len(f.rows()) != 0 {
		t.Errorf("%+v, %v, %d left", p, err, len(f.rows()))
	}
}

// TestWorkerExtends works on an item longer than its reservation: it stays claimed.
func TestWorkerExtends(t *testing.T) {
	f := open(t, "repositorygc")
	f.put("1")
	_, err := f.worker(func(ctx context.Context, _ string) error {
		for range 6 {
			before := f.rows()[0].State
			await(t, func() bool { return f.clock.Sleepers() > 0 })
			f.clock.Advance(queue.Reservation / 3)
			await(t, func() bool { return f.rows()[0].State != before })
			if f.claim() != nil {
				return errors.New("it could be claimed by another worker")
			}
		}
		return ctx.Err()
	}).Run(t.Context())
	if err != nil || len(f.rows()) != 0 {
		t.Errorf("%v, %+v", err, f.rows())
	}
}

// TestWorkerLosesItem takes the item away while it is worked on: the work is cancelled and the item left to its new holder.
func TestWorkerLosesItem(t *testing.T) {
	f := open(t, "repositorygc")
	f.put("1")
	_, err := f.worker(func(ctx context.Context, _ string) error {
		if _, err := f.sql.Exec(ctx, `UPDATE queueitem SET state_id = 'mine', retries_remaining = 2`); err != nil {
			return err
		}
		await(t, func() bool { return f.clock.Sleepers() > 0 })
		f.clock.Advance(queue.Reservation / 3)
		<-ctx.Done()
		return context.Cause(ctx)
	}).Run(t.Context())
	if !errors.Is(err, queue.ErrLost) {
		t.Errorf("error %v", err)
	}
	if got := f.rows()[0]; got.State != "mine" || got.Retries != 2 {
		t.Errorf("row %+v", got)
	}
}

// TestWorkerStops gives the item back at once, with its retry, when the worker is stopped.
func TestWorkerStops(t *testing.T) {
	f := open(t, "repositorygc")
	f.put("1")
	ctx, stop := context.WithCancel(t.Context())
	_, err := f.worker(func(ctx context.Context, _ string) error {
		stop()
		<-ctx.Done()
		return ctx.Err()
	}).Run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := f.rows()[0]; !got.Available || got.Retries != 5 {
		t.Errorf("row %+v", got)
	}
}

// await waits until a condition holds that another goroutine brings about; the test's own deadline is its limit.
func await(t *testing.T, condition func() bool) {
	t.Helper()
	for !condition() {
		if t.Context().Err() != nil {
			t.Fatal("it never came about")
		}
	}
}
