package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/jobs/queue"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// PurgeDeletedRepository does an item of the queue repositorygc: body is {"marker_id": id of deletedrepository,
// "original_name": text}.
func (c *Collector) PurgeDeletedRepository(ctx context.Context, body string) error {
	var item struct {
		MarkerID int64 `json:"marker_id"`
	}
	if err := json.Unmarshal([]byte(body), &item); err != nil {
		return fmt.Errorf("read queue item: %w", err)
	}
	return c.large(ctx, func() error {
		marker, err := c.DB.Write(ctx).DeletedRepository(ctx, item.MarkerID)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // done already
		}
		if err != nil {
			return fmt.Errorf("look up deleted repository %d: %w", item.MarkerID, err)
		}
		return c.purgeRepository(ctx, marker.RepositoryID)
	})
}

// PurgeDeletedNamespace does an item of the queue namespacegc: body is {"marker_id": id of deletednamespace,
// "original_username": text}.
func (c *Collector) PurgeDeletedNamespace(ctx context.Context, body string) error {
	var item struct {
		MarkerID int64 `json:"marker_id"`
	}
	if err := json.Unmarshal([]byte(body), &item); err != nil {
		return fmt.Errorf("read queue item: %w", err)
	}
	return c.large(ctx, func() error {
		marker, err := c.DB.Write(ctx).DeletedNamespace(ctx, item.MarkerID)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look up deleted namespace %d: %w", item.MarkerID, err)
		}
		return c.purgeNamespace(ctx, marker)
	})
}

// large does the work under the lock for large collections.
func (c *Collector) large(ctx context.Context, do func() error) error {
	lease, err := c.Locks.Try(ctx, LargeLock, repositoryTTL)
	if errors.Is(err, locks.ErrHeld) {
		return errors.Join(queue.ErrBusy, err)
	}
	if err != nil {
		return err
	}
	defer lease.Release()
	return do()
}

func (c *Collector) purgeNamespace(ctx context.Context, marker sqlc.DeletedNamespaceRow) error {
	id, name := marker.NamespaceID, marker.OriginalUsername
	repositories, err := c.DB.Write(ctx).MarkRepositoriesOfNamespace(ctx, &id)
	if err != nil {
		return fmt.Errorf("mark repositories of namespace %d for deletion: %w", id, err)
	}
	for _, repository := range repositories {
		if err := c.purgeRepository(ctx, repository); err != nil {
			return fmt.Errorf("purge namespace %d: %w", id, err)
		}
	}
	robots, err := c.DB.Write(ctx).RobotsOfNamespace(ctx, sqlc.RobotsOfNamespaceParams{Name: name, Marked: marker.Marked})
	if err != nil {
		return fmt.Errorf("look up robots of namespace %d: %w", id, err)
	}
	for _, account := range append(robots, id) {
		if err := c.removeWithDependents(ctx, `"user"`, account, "deletednamespace"); err != nil {
			return fmt.Errorf("purge namespace %d: %w", id, err)
		}
	}
	c.Metrics.namespaces.Inc()
	c.Log.InfoContext(ctx, "namespace purged", "namespace", name, "id", id, "repositories", len(repositories))
	return nil
}

// purgeRepository removes a repository that is marked for deletion with everything in it. Whatever ends it early, it goes
// on from there the next time.
func (c *Collector) purgeRepository(ctx context.Context, id int64) error {
	lease, err := c.Locks.Try(ctx, repositoryLock(id), repositoryTTL)
	if errors.Is(err, locks.ErrHeld) {
		return errors.Join(queue.ErrBusy, err)
	}
	if err != nil {
		return fmt.Errorf("purge repository %d: %w", id, err)
	}
	defer lease.Release()
	if err := c.empty(ctx, id); err != nil {
		return fmt.Errorf("purge repository %d: %w", id, err)
	}
	if err := c.removeWithDependents(ctx, "repository", id, "deletedrepository"); err != nil {
		return fmt.Errorf("purge repository %d: %w", id, err)
	}
	c.Metrics.repositories.Inc()
	c.Log.InfoContext(ctx, "repository purged", "id", id)
	return nil
}

// empty removes the content of a repository.
func (c *Collector) empty(ctx context.Context, id int64) error {
	repo, err := c.DB.Write(ctx).RepositoryForGC(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if repo.State != removed {
		return errors.New("it is not marked for deletion")
	}
	for {
		n, err := c.DB.Write(ctx).DeleteChildrenOfRepository(ctx, id)
		if err != nil {
			return fmt.Errorf("take lists apart: %w", err)
		}
		if n == 0 {
			break
		}
		c.Metrics.deleted("ManifestChild", n)
	}
	if _, err := c.collectTags(ctx, repo, nil); err != nil {
		return err
	}
	// One pass is enough: a manifest that a referrer keeps is looked at again when the referrer goes.
	for after := int64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		ids, err := c.DB.Write(ctx).ManifestsOfRepository(ctx, sqlc.ManifestsOfRepositoryParams{RepositoryID: id, AfterID: after})
		if err != nil {
			return fmt.Errorf("look for manifests: %w", err)
		}
		if len(ids) == 0 {
			break
		}
		after = ids[len(ids)-1]
		if err := c.batch(ctx, func(ctx context.Context) error { return c.collectManifests(ctx, repo, ids) }); err != nil {
			return err
		}
	}
	if _, err := c.collectLinks(ctx, id, true); err != nil {
		return err
	}
	empty, err := c.DB.Write(ctx).RepositoryIsEmpty(ctx, id)
	if err == nil && !empty {
		err = errors.New("something was pushed to it meanwhile")
	}
	return err
}
