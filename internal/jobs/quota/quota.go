// Package quota counts the totals that quotas are held against, where pushes have not kept them (contract, behaviour.md
// §5.7). Each job is a runner.Job.
package quota

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/jobs/runner"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// batch is how many namespaces a round counts.
const batch = 100

// Totals counts namespaces, with their repositories, whose count nobody has begun.
type Totals struct {
	DB    *metadata.DB
	Clock clock.Clock
	Every time.Duration // QUOTA_BACKFILL_POLL_PERIOD
	Delay time.Duration // QUOTA_TOTAL_DELAY_SECONDS: until the first round
}

// Name implements runner.Job.
func (*Totals) Name() string { return "quotatotalworker" }

// Schedule implements runner.Job.
func (t *Totals) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "backfill", Every: t.Every, Delay: t.Delay}
}

// Run implements runner.Job.
func (t *Totals) Run(ctx context.Context) (p runner.Progress, err error) {
	namespaces, err := t.DB.Write(ctx).NamespacesToCount(ctx, batch)
	if err != nil {
		return p, fmt.Errorf("look for namespaces to count: %w", err)
	}
	for _, id := range namespaces {
		if ctx.Err() != nil {
			return p, context.Cause(ctx)
		}
		if err := t.namespace(ctx, id); err != nil {
			return p, fmt.Errorf("count namespace %d: %w", id, err)
		}
		p.Done++
	}
	return p, nil
}

func (t *Totals) namespace(ctx context.Context, id int64) error {
	err := t.transaction(ctx, func(q *sqlc.Queries) error {
		n, err := q.BeginNamespaceTotal(ctx, sqlc.BeginNamespaceTotalParams{NamespaceUserID: id, NowMs: t.now()})
		if err != nil || n == 0 {
			return err
		}
		return q.CountNamespaceTotal(ctx, &id)
	})
	if err != nil {
		return err
	}
	repositories, err := t.DB.Write(ctx).RepositoriesToCount(ctx, &id)
	if err != nil {
		return fmt.Errorf("look for repositories: %w", err)
	}
	for _, repository := range repositories {
		err := t.transaction(ctx, func(q *sqlc.Queries) error {
			n, err := q.BeginRepositoryTotal(ctx, sqlc.BeginRepositoryTotalParams{RepositoryID: repository, NowMs: t.now()})
			if err != nil || n == 0 {
				return err
			}
			return q.CountRepositoryTotal(ctx, repository)
		})
		if err != nil && !metadata.IsForeignKeyViolation(err) { // deleted meanwhile
			return fmt.Errorf("repository %d: %w", repository, err)
		}
	}
	return nil
}

// transaction begins and counts as one: nobody who dies in between leaves a count that looks as if it were going on.
func (t *Totals) transaction(ctx context.Context, do func(q *sqlc.Queries) error) error {
	return t.DB.Tx(ctx, func(_ context.Context, tx pgx.Tx) error { return do(sqlc.New(tx)) })
}

func (t *Totals) now() int64 { return t.Clock.Now().UnixMilli() }

// Registry counts the whole registry when it has been ordered.
type Registry struct {
	DB    *metadata.DB
	Clock clock.Clock
	Every time.Duration // QUOTA_REGISTRY_SIZE_POLL_PERIOD
}

// Name implements runner.Job.
func (*Registry) Name() string { return "quotaregistrysizeworker" }

// Schedule implements runner.Job.
func (r *Registry) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "calculate_registry_size", Every: r.Every}
}

// Run implements runner.Job.
func (r *Registry) Run(ctx context.Context) (p runner.Progress, err error) {
	err = r.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := sqlc.New(tx)
		ids, err := q.BeginRegistryTotal(ctx)
		if err != nil || len(ids) == 0 {
			return err
		}
		p.Done = len(ids)
		return q.CountRegistryTotal(ctx, sqlc.CountRegistryTotalParams{Ids: ids, NowMs: r.Clock.Now().UnixMilli()})
	})
	if err != nil {
		return runner.Progress{}, fmt.Errorf("count the registry: %w", err)
	}
	return p, nil
}
