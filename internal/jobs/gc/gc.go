// Package gc removes what nothing refers to any more: ended tags, manifests, blobs and their objects, deleted
// repositories and namespaces.
//
// It works beside pushes and beside other collectors, this program's and the legacy server's, in the legacy order
// (contract, behaviour.md §5.5) and in short transactions. What keeps it safe:
//
//   - A tag or manifest is locked (FOR UPDATE) and looked at again before it goes. Who wants to refer to it meanwhile waits
//     for that transaction, by its foreign key, and finds it gone.
//   - A blob is locked likewise, under the lock BLOB_DELETE_<digest> that a push holds from before it places the object
//     until the blob is linked. The rows go first; the object goes, under the same lock, when no row has its digest.
//
// So no object goes that a row refers to. A process that dies in between leaves manifests, blobs or objects that nobody
// refers to; Orphans finds the rows among them.
package gc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/storage"
)

const (
	// repositoryTTL bounds the work on one repository, deletions of large ones included.
	repositoryTTL = 3*time.Hour + time.Minute
	// blobTTL bounds the deletion of a blob, blobWait the wait for a push that commits the same digest.
	blobTTL  = 2 * time.Minute
	blobWait = 30 * time.Second
	// finish is how much longer than its context a batch may take, so that it comes to a safe point.
	finish = 15 * time.Second
	// removed is the state of a repository that is marked for deletion.
	removed = 3
)

// LargeLock is the lock under which one repository or namespace of the cluster is purged at a time.
const LargeLock = "LARGE_GARBAGE_COLLECTION"

func repositoryLock(id int64) string {
	return "REPO_GARBAGE_COLLECTION_" + strconv.FormatInt(id, 10)
}

// Settings are the parts of the configuration that decide about collections.
type Settings struct {
	Quota                  bool // FEATURE_QUOTA_MANAGEMENT
	InvalidateQuota        bool // QUOTA_INVALIDATE_TOTALS
	ImmutableTagsCanExpire bool // FEATURE_IMMUTABLE_TAGS_CAN_EXPIRE
}

// Collector is safe for concurrent use. All fields are needed.
type Collector struct {
	DB       *metadata.DB
	Storage  *storage.Set
	Locks    locks.Locker
	Clock    clock.Clock
	Log      *slog.Logger
	Metrics  *Metrics
	Settings Settings
}

// Repository collects the tags of a repository whose time is over, with the manifests, blobs and links to blobs that are
// needed no more. It returns how many tags and links went; locks.ErrHeld (wrapped) when somebody else collects there.
func (c *Collector) Repository(ctx context.Context, id int64) (int, error) {
	lease, err := c.Locks.Try(ctx, repositoryLock(id), repositoryTTL)
	if err != nil {
		return 0, fmt.Errorf("collect repository %d: %w", id, err)
	}
	defer lease.Release()
	repo, err := c.DB.Write(ctx).RepositoryForGC(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && repo.State == removed {
		return 0, nil // deleted meanwhile, somebody purges it
	}
	if err != nil {
		return 0, fmt.Errorf("collect repository %d: %w", id, err)
	}
	before := c.Clock.Now().UnixMilli() - repo.RemovedTagExpirationS*1000
	tags, err := c.collectTags(ctx, repo, &before)
	if err != nil {
		return tags, fmt.Errorf("collect repository %d: %w", id, err)
	}
	links, err := c.collectLinks(ctx, id, false)
	if err != nil {
		return tags + links, fmt.Errorf("collect repository %d: %w", id, err)
	}
	return tags + links, nil
}

// collectTags collects tags that ended before a time (milliseconds since the epoch), or all with nil.
func (c *Collector) collectTags(ctx context.Context, repo sqlc.RepositoryForGCRow, before *int64) (done int, err error) {
	params := sqlc.TagsToCollectParams{RepositoryID: repo.ID, Everything: before == nil, Immutable: c.Settings.ImmutableTagsCanExpire}
	if before != nil {
		params.BeforeMs = *before
	}
	for {
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		tags, err := c.DB.Write(ctx).TagsToCollect(ctx, params)
		if err != nil {
			return done, fmt.Errorf("look for ended tags: %w", err)
		}
		if len(tags) == 0 {
			return done, nil
		}
		params.AfterID = tags[len(tags)-1].ID
		err = c.batch(ctx, func(ctx context.Context) error {
			var manifests []int64
			for _, tag := range tags {
				gone, err := c.deleteTag(ctx, repo.ID, tag)
				if err != nil {
					return err
				}
				if gone {
					done++
					if tag.ManifestID != nil {
						manifests = append(manifests, *tag.ManifestID)
					}
				}
			}
			return c.collectManifests(ctx, repo, manifests)
		})
		if err != nil {
			return done, err
		}
	}
}

// batch does work that must not stop halfway: it gets some more time when ctx ends.
func (c *Collector) batch(ctx context.Context, do func(ctx context.Context) error) error {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if c.Clock.Sleep(longer, finish) == nil {
			cancel()
		}
	})()
	return do(longer)
}

// retry runs do in a transaction, and again when it lost against another one.
func (c *Collector) retry(ctx context.Context, do func(ctx context.Context, q *sqlc.Queries) error) error {
	const attempts = 5
	for i := 1; ; i++ {
		err := c.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error { return do(ctx, sqlc.New(tx)) })
		if err == nil || i == attempts || !metadata.IsConflict(err) {
			return err
		}
	}
}

func (c *Collector) deleteTag(ctx context.Context, repositoryID int64, tag sqlc.TagsToCollectRow) (gone bool, err error) {
	var rows sqlc.DeleteTagRow
	err = c.retry(ctx, func(ctx context.Context, q *sqlc.Queries) error {
		if _, err := q.LockTag(ctx, sqlc.LockTagParams{ID: tag.ID, LifetimeEndMs: tag.LifetimeEndMs}); err != nil {
			return err
		}
		var err error
		rows, err = q.DeleteTag(ctx, sqlc.DeleteTagParams{ID: tag.ID, RepositoryID: repositoryID, Name: tag.Name})
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil // restored or gone meanwhile
	}
	if err != nil {
		return false, fmt.Errorf("delete tag %d: %w", tag.ID, err)
	}
	c.Metrics.deleted("Tag", rows.Tags)
	c.Metrics.deleted("TagPullStatistics", rows.Statistics)
	c.Metrics.deleted("TagNotificationSuccess", rows.Notified)
	return true, nil
}

// collectManifests removes those of the manifests, and of what they contain or refer to, that nothing needs, and then the
// blobs of those.
func (c *Collector) collectManifests(ctx context.Context, repo sqlc.RepositoryForGCRow, ids []int64) error {
	candidates := map[int64]bool{}
	for next := ids; len(next) > 0; {
		var fresh []int64
		for _, id := range next {
			if !candidates[id] {
				candidates[id] = true
				fresh = append(fresh, id)
			}
		}
		var err error
		if next, err = c.DB.Write(ctx).ChildrenOfManifests(ctx, fresh); err != nil {
			return fmt.Errorf("look for children of manifests: %w", err)
		}
	}
	blobs := map[int64]bool{}
	for again := true; again; {
		again = false
		for _, id := range sorted(candidates) {
			rows, err := c.deleteManifest(ctx, repo, id)
			if err != nil {
				return err
			}
			if rows.Manifests == 0 {
				continue
			}
			again = true
			delete(candidates, id)
			for _, blob := range rows.BlobIds {
				blobs[blob] = true
			}
			// A subject may have lived by this referrer alone.
			for _, subject := range rows.SubjectIds {
				candidates[subject] = true
			}
		}
	}
	return c.collectBlobs(ctx, sorted(blobs))
}

func sorted(set map[int64]bool) []int64 {
	ids := make([]int64, 0, len(set))
	for id := range set {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// deleteManifest removes a manifest unless something needs it: then the result has no Manifests.
func (c *Collector) deleteManifest(ctx context.Context, repo sqlc.RepositoryForGCRow, id int64) (rows sqlc.DeleteManifestRow, err error) {
	var labels int64
	err = c.retry(ctx, func(ctx context.Context, q *sqlc.Queries) error {
		rows, labels = sqlc.DeleteManifestRow{}, 0
		if _, err := q.LockManifest(ctx, id); err != nil {
			return err
		}
		used, err := q.ManifestIsUsed(ctx, id)
		if err != nil || used {
			return err
		}
		if err := c.subtractQuota(ctx, q, repo, id); err != nil {
			return err
		}
		if rows, err = q.DeleteManifest(ctx, id); err != nil {
			return err
		}
		labels, err = q.DeleteUnusedLabels(ctx, rows.LabelIds)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return sqlc.DeleteManifestRow{}, nil // gone meanwhile
	}
	if err != nil {
		return sqlc.DeleteManifestRow{}, fmt.Errorf("delete manifest %d: %w", id, err)
	}
	c.Metrics.deleted("Manifest", rows.Manifests)
	c.Metrics.deleted("ManifestBlob", int64(len(rows.BlobIds)))
	c.Metrics.deleted("ManifestChild", int64(len(rows.ChildIds)))
	c.Metrics.deleted("ManifestLabel", int64(len(rows.LabelIds)))
	c.Metrics.deleted("Label", labels)
	c.Metrics.deleted("ManifestSecurityStatus", rows.Statuses)
	c.Metrics.deleted("ManifestPullStatistics", rows.Statistics)
	return rows, nil
}

// subtractQuota takes a manifest off the totals. Those of a disabled namespace stand still.
func (c *Collector) subtractQuota(ctx context.Context, q *sqlc.Queries, repo sqlc.RepositoryForGCRow, manifestID int64) error {
	if repo.NamespaceUserID == nil || !repo.NamespaceEnabled {
		return nil
	}
	namespace := *repo.NamespaceUserID
	var err error
	switch {
	case c.Settings.Quota:
		err = q.SubtractNamespaceQuota(ctx, sqlc.SubtractNamespaceQuotaParams{ManifestID: manifestID, NamespaceUserID: namespace})
		if err == nil {
			err = q.SubtractRepositoryQuota(ctx, sqlc.SubtractRepositoryQuotaParams{ManifestID: manifestID, RepositoryID: repo.ID})
		}
	case c.Settings.InvalidateQuota:
		err = q.ResetNamespaceQuota(ctx, namespace)
		if err == nil {
			err = q.ResetRepositoryQuota(ctx, repo.ID)
		}
	}
	if err != nil {
		return fmt.Errorf("take manifest off quota totals: %w", err)
	}
	return nil
}

// collectLinks removes the temporary links of a repository to blobs that are over, or all of them, and the blobs that
// nothing else links.
func (c *Collector) collectLinks(ctx context.Context, repositoryID int64, everything bool) (done int, err error) {
	for {
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		var linked []int64
		err := c.batch(ctx, func(ctx context.Context) error {
			var err error
			linked, err = c.DB.Write(ctx).DeleteBlobLinks(ctx, sqlc.DeleteBlobLinksParams{RepositoryID: repositoryID, Everything: everything, Now: c.Clock.Now()})
			if err != nil {
				return fmt.Errorf("remove temporary links to blobs: %w", err)
			}
			c.Metrics.deleted("UploadedBlob", int64(len(linked)))
			blobs := slices.Clone(linked)
			slices.Sort(blobs)
			return c.collectBlobs(ctx, slices.Compact(blobs))
		})
		done += len(linked)
		if err != nil || len(linked) == 0 {
			return done, err
		}
	}
}

// collectBlobs removes those of the blobs that nothing links. One that cannot go now is left for a later round, and does
// not keep the others.
func (c *Collector) collectBlobs(ctx context.Context, ids []int64) error {
	var errs []error
	for _, id := range ids {
		if err := c.collectBlob(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("delete blob %d: %w", id, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (c *Collector) collectBlob(ctx context.Context, id int64) error {
	write := c.DB.Write(ctx)
	if garbage, err := write.BlobIsGarbage(ctx, id); errors.Is(err, pgx.ErrNoRows) || err == nil && !garbage {
		return nil
	} else if err != nil {
		return err
	}
	blob, err := write.BlobForGC(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	} else if err != nil {
		return err
	}
	var lease locks.Lease
	if blob.ContentChecksum != nil {
		waiting, stop := context.WithTimeout(ctx, blobWait)
		lease, err = c.Locks.Acquire(waiting, locks.BlobDelete(*blob.ContentChecksum), blobTTL)
		stop()
		if err != nil {
			return err
		}
		defer lease.Release()
	}
	var row sqlc.LockBlobRow
	var rows sqlc.DeleteBlobRow
	err = c.retry(ctx, func(ctx context.Context, q *sqlc.Queries) error {
		rows = sqlc.DeleteBlobRow{}
		var err error
		if row, err = q.LockBlob(ctx, id); err != nil {
			return err
		}
		garbage, err := q.BlobIsGarbage(ctx, id)
		if err != nil || !garbage {
			return err
		}
		rows, err = q.DeleteBlob(ctx, id)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) || err == nil && rows.Blobs == 0 {
		return nil // gone or linked meanwhile
	}
	if err != nil {
		return err
	}
	c.Metrics.deleted("ImageStorage", rows.Blobs)
	c.Metrics.deleted("ImageStoragePlacement", int64(len(rows.Locations)))
	c.Metrics.deleted("ImageStorageSignature", rows.Signatures)
	if lease == nil {
		return nil // as in the legacy server, objects of rows without a digest stay
	}
	return c.removeObject(ctx, row, rows.Locations, lease)
}

// removeObject removes the object of a blob whose rows are gone, unless another row needs it. The caller holds the lock of
// its digest.
func (c *Collector) removeObject(ctx context.Context, row sqlc.LockBlobRow, locations []string, lease locks.Lease) error {
	digest := *row.ContentChecksum
	if digest == storage.EmptyLayer {
		return nil
	}
	key, err := storage.ObjectKey(row.CasPath, digest, row.UUID)
	if err != nil {
		return err
	}
	if stored, err := c.DB.Write(ctx).DigestIsStored(ctx, digest); err != nil || stored {
		return err
	}
	if err := lease.Check(ctx); err != nil {
		return fmt.Errorf("object %s stays, although nothing refers to it: %w", key, err)
	}
	var errs []error
	for _, location := range locations {
		driver, err := c.Storage.Driver(location)
		if err == nil {
			err = driver.Remove(ctx, key)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("object %s stays in location %s, although nothing refers to it: %w", key, location, err))
		}
	}
	c.Metrics.blobs.Inc()
	return errors.Join(errs...)
}

// shuffled is ids in random order, so that several collectors start at different places and none that always fails keeps
// the others.
func shuffled(ids []int64) []int64 {
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] }) //nolint:gosec // spreads work, guards nothing
	return ids
}

// Metrics count what goes, under the legacy names.
type Metrics struct {
	iterations, blobs, repositories, namespaces prometheus.Counter
	rows                                        *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		iterations:   counter("quay_gc_iterations_total", "Rounds of garbage collection."),
		blobs:        counter("quay_gc_storage_blobs_deleted_total", "Blobs whose objects were removed."),
		repositories: counter("quay_gc_repos_purged_total", "Deleted repositories that were purged."),
		namespaces:   counter("quay_gc_namespaces_purged_total", "Deleted namespaces that were purged."),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "quay_gc_table_rows_deleted_total",
			Help: "Rows that garbage collection removed."}, []string{"table"}),
	}
	for _, c := range []prometheus.Collector{m.iterations, m.blobs, m.repositories, m.namespaces, m.rows} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) deleted(table string, rows int64) {
	if rows > 0 {
		m.rows.WithLabelValues(table).Add(float64(rows))
	}
}
