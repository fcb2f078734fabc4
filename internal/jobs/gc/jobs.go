package gc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/jobs/runner"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// Tags collects one repository with ended tags a round: the legacy gcworker. It is a runner.Job.
type Tags struct {
	*Collector
	Every time.Duration // GARBAGE_COLLECTION_FREQUENCY
}

// Name implements runner.Job.
func (*Tags) Name() string { return "gcworker" }

// Schedule implements runner.Job. The lock is the repository's.
func (t *Tags) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "_garbage_collection_repos", Every: t.Every}
}

// Run implements runner.Job.
func (t *Tags) Run(ctx context.Context) (runner.Progress, error) {
	t.Metrics.iterations.Inc()
	spans, err := t.DB.Read(ctx).TagWindows(ctx)
	if err != nil {
		return runner.Progress{}, fmt.Errorf("look up how long tags are kept: %w", err)
	}
	now := t.Clock.Now().UnixMilli()
	for _, span := range shuffled(spans) {
		ids, err := t.DB.Read(ctx).RepositoriesWithEndedTags(ctx, sqlc.RepositoriesWithEndedTagsParams{SpanS: span,
			BeforeMs: now - span*1000, Immutable: t.Settings.ImmutableTagsCanExpire})
		if err != nil {
			return runner.Progress{}, fmt.Errorf("look for repositories with ended tags: %w", err)
		}
		if p, err := t.any(ctx, ids); err != nil || p.Done > 0 {
			return p, err
		}
	}
	return runner.Progress{}, nil
}

// any collects one of the repositories that nobody else is at.
func (c *Collector) any(ctx context.Context, ids []int64) (runner.Progress, error) {
	for i, id := range shuffled(ids) {
		done, err := c.Repository(ctx, id)
		if errors.Is(err, locks.ErrHeld) {
			continue
		}
		return runner.Progress{Done: done, More: err == nil && done > 0 && i+1 < len(ids)}, err
	}
	return runner.Progress{}, nil
}

// Links collects repositories whose only garbage are temporary links to blobs that are over. The legacy server never looks
// at those, so blobs of abandoned pushes stay for ever there. It is a runner.Job.
type Links struct {
	*Collector
	Every time.Duration
}

// Name implements runner.Job.
func (*Links) Name() string { return "linkgcworker" }

// Schedule implements runner.Job.
func (l *Links) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "expired_links", Every: l.Every}
}

// Run implements runner.Job.
func (l *Links) Run(ctx context.Context) (runner.Progress, error) {
	ids, err := l.DB.Read(ctx).RepositoriesWithExpiredLinks(ctx, l.Clock.Now())
	if err != nil {
		return runner.Progress{}, fmt.Errorf("look for expired links to blobs: %w", err)
	}
	return l.any(ctx, ids)
}

// Orphans collects what a collector or a server that died has left: manifests without a tag and blobs without a link.
// It is a runner.Job.
type Orphans struct {
	*Collector
	Every time.Duration

	// seen are the manifests that nothing needed in the round before. A manifest goes in the second round that finds it
	// so: the legacy server writes a manifest shortly before its tag.
	seen map[int64]bool
}

// Name implements runner.Job.
func (*Orphans) Name() string { return "orphangcworker" }

// Schedule implements runner.Job.
func (o *Orphans) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "orphans", Every: o.Every, Lock: "ORPHAN_GARBAGE_COLLECTION", LockTTL: repositoryTTL}
}

// Run implements runner.Job.
func (o *Orphans) Run(ctx context.Context) (p runner.Progress, err error) {
	found := map[int64]bool{}
	for after := int64(0); ; {
		rows, err := o.DB.Write(ctx).UntaggedManifests(ctx, after)
		if err != nil {
			return p, fmt.Errorf("look for manifests without a tag: %w", err)
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			after = row.ID
			if !o.seen[row.ID] {
				found[row.ID] = true
				continue
			}
			if err := o.untagged(ctx, row); err != nil {
				return p, err
			}
			p.Done++
			if ctx.Err() != nil {
				return p, context.Cause(ctx)
			}
		}
	}
	o.seen = found
	for after := int64(0); ; {
		ids, err := o.DB.Write(ctx).UnlinkedBlobs(ctx, after)
		if err != nil {
			return p, fmt.Errorf("look for blobs without a link: %w", err)
		}
		if len(ids) == 0 {
			return p, nil
		}
		for _, id := range ids {
			after = id
			if err := o.batch(ctx, func(ctx context.Context) error { return o.collectBlob(ctx, id) }); err != nil {
				return p, fmt.Errorf("delete blob %d: %w", id, err)
			}
			p.Done++
			if ctx.Err() != nil {
				return p, context.Cause(ctx)
			}
		}
	}
}

func (o *Orphans) untagged(ctx context.Context, row sqlc.UntaggedManifestsRow) error {
	repo, err := o.DB.Write(ctx).RepositoryForGC(ctx, row.RepositoryID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up repository %d: %w", row.RepositoryID, err)
	}
	return o.batch(ctx, func(ctx context.Context) error { return o.collectManifests(ctx, repo, []int64{row.ID}) })
}
