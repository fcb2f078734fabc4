package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/push"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// queueDelay is how long the background download leaves the client that asked first to itself.
const queueDelay = 5 * time.Second

// createRepository makes a repository that its creator may read. Somebody else may have made it meanwhile.
func (c *Cache) createRepository(ctx context.Context, o *organization, name string, creator int64) error {
	visibility := "private"
	if !c.Config.CreatePrivateRepoOnPush {
		visibility = "public"
	}
	return c.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := sqlc.New(tx)
		id, err := q.CreateRepository(ctx, sqlc.CreateRepositoryParams{
			NamespaceUserID: &o.id, Name: name, BadgeToken: uuid.NewString(), Visibility: visibility})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := q.AddRepositoryActionCount(ctx, sqlc.AddRepositoryActionCountParams{
			RepositoryID: id, Date: c.Clock.Now().UTC().AddDate(0, 0, -1)}); err != nil {
			return err
		}
		if err := q.AddRepositorySearchScore(ctx, id); err != nil {
			return err
		}
		if err := q.AddRepositoryUserPermission(ctx, sqlc.AddRepositoryUserPermissionParams{
			UserID: creator, RepositoryID: id, Role: "read"}); err != nil {
			return err
		}
		if err := q.ApplyTeamPrototypes(ctx, sqlc.ApplyTeamPrototypesParams{RepositoryID: id, OrganizationID: o.id, CreatorID: &creator}); err != nil {
			return err
		}
		return q.ApplyUserPrototypes(ctx, sqlc.ApplyUserPrototypesParams{RepositoryID: id, OrganizationID: o.id, CreatorID: &creator})
	})
}

// renew lets a tag end later.
func (c *Cache) renew(ctx context.Context, p pull, tag int64) error {
	now := c.Clock.Now().UnixMilli()
	err := c.DB.Write(ctx).RenewTag(ctx, sqlc.RenewTagParams{TagID: tag, EndMs: p.organization.end(now), NowMs: now})
	if err != nil && !metadata.IsUniqueViolation(err) { // another pull renewed another tag of that name to the same moment
		return fmt.Errorf("renew tag %d: %w", tag, err)
	}
	return nil
}

// store writes a manifest of the upstream, and what keeps it, under the lock of the repository's tags.
func (c *Cache) store(ctx context.Context, p pull, m *manifest.Manifest, keep func(context.Context, *sqlc.Queries, pull, int64) error) error {
	const attempts = 5
	for i := 1; ; i++ {
		err := c.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			q := sqlc.New(tx)
			if err := q.LockTags(ctx, push.TagLock(p.repository.ID)); err != nil {
				return err
			}
			if err := c.makeRoom(ctx, q, p, m); err != nil {
				return err
			}
			id, err := c.storeManifest(ctx, q, p, m)
			if err != nil {
				return err
			}
			return keep(ctx, q, p, id)
		})
		// A blob that was collected between being found and being named is a foreign key that leads nowhere.
		again := metadata.IsConflict(err) || metadata.IsUniqueViolation(err) || metadata.IsForeignKeyViolation(err)
		var shown *regerr.Error
		switch {
		case err == nil:
			return nil
		case errors.As(err, &shown):
			return err
		case !again || i == attempts:
			return fmt.Errorf("store upstream manifest %s: %w", m.Digest, err)
		}
	}
}

func (c *Cache) storeManifest(ctx context.Context, q *sqlc.Queries, p pull, m *manifest.Manifest) (int64, error) {
	repository := p.repository.ID
	size, ok := m.LayersCompressedSize()
	var layers *int64
	if ok {
		layers = &size
	}
	row := sqlc.InsertProxiedManifestParams{RepositoryID: repository, Digest: m.Digest, MediaType: m.MediaType,
		ManifestBytes: string(m.Bytes), LayersCompressedSize: layers}
	if m.Config != nil {
		row.ConfigMediaType = &m.Config.MediaType
	}
	if m.Subject != nil {
		row.Subject = &m.Subject.Digest
	}
	if m.ArtifactType != "" {
		row.ArtifactType = &m.ArtifactType
	}
	id, err := q.InsertProxiedManifest(ctx, row)
	if errors.Is(err, pgx.ErrNoRows) {
		known, err := q.ProxiedManifest(ctx, sqlc.ProxiedManifestParams{RepositoryID: repository, Digest: m.Digest})
		if err != nil {
			return 0, err
		}
		filled, err := q.FillManifest(ctx, sqlc.FillManifestParams{ID: known.ID, ManifestBytes: row.ManifestBytes, LayersCompressedSize: layers})
		if err != nil || filled == 0 {
			return known.ID, err
		}
		id = known.ID
	} else if err != nil {
		return 0, err
	}
	if m.IsList() {
		return id, c.addChildren(ctx, q, p, m, id)
	}
	return id, c.addBlobs(ctx, q, p, m, id)
}

// addBlobs names the blobs of an image, config first, counts them, and queues its layers to be downloaded.
func (c *Cache) addBlobs(ctx context.Context, q *sqlc.Queries, p pull, m *manifest.Manifest, id int64) error {
	link := sqlc.LinkProxiedBlobsParams{RepositoryID: p.repository.ID, ManifestID: id}
	add := func(d manifest.Descriptor) bool {
		if slices.Contains(link.Digests, d.Digest) {
			return false
		}
		if m.Schema1 != nil {
			d.Size = -1 // which schema 1 does not tell
		}
		link.Digests = append(link.Digests, d.Digest)
		link.Sizes = append(link.Sizes, d.Size)
		link.Uuids = append(link.Uuids, uuid.NewString())
		return true
	}
	if m.Config != nil {
		add(*m.Config)
	}
	items := sqlc.QueueItemsParams{Now: c.Clock.Now().Add(queueDelay)}
	for _, layer := range m.Layers {
		if layer.Remote || !add(layer.Descriptor) {
			continue
		}
		body, err := queueBody(p, layer.Digest)
		if err != nil {
			return err
		}
		items.Names = append(items.Names, c.Config.ProxyCacheBlobQueueName+"/"+p.repository.Namespace+"/"+
			strconv.FormatInt(p.repository.ID, 10)+"/"+layer.Digest+"/")
		items.Bodies = append(items.Bodies, body)
		items.StateIds = append(items.StateIds, uuid.NewString())
	}
	if len(link.Digests) == 0 {
		return nil
	}
	blobs, err := q.LinkProxiedBlobs(ctx, link)
	if err != nil {
		return err
	}
	if c.Config.Features.QuotaManagement && p.repository.NamespaceEnabled {
		err := q.AddQuotaOfManifest(ctx, sqlc.AddQuotaOfManifestParams{RepositoryID: p.repository.ID,
			NamespaceUserID: p.repository.NamespaceUserID, ManifestID: id, BlobIds: blobs})
		if err != nil {
			return err
		}
	}
	if !c.background || len(items.Names) == 0 {
		return nil
	}
	return q.QueueItems(ctx, items)
}

func queueBody(p pull, digest string) (string, error) {
	item := struct {
		Digest     string  `json:"digest"`
		Repository int64   `json:"repo_id"`
		Username   *string `json:"username"`
		Namespace  string  `json:"namespace"`
	}{Digest: digest, Repository: p.repository.ID, Namespace: p.repository.Namespace}
	if p.who != nil && p.who.UserID != nil {
		item.Username = &p.who.Username
	}
	body, err := pyjson.Spaced(item)
	return string(body), err
}

// addChildren connects a list with its entries, as placeholders where they are not here. Entries of types that cannot be stored are
// left out; they can still be asked for by digest.
func (c *Cache) addChildren(ctx context.Context, q *sqlc.Queries, p pull, m *manifest.Manifest, id int64) error {
	connect := sqlc.ConnectChildrenParams{RepositoryID: p.repository.ID, ManifestID: id}
	for _, child := range m.Children {
		if !slices.Contains(manifest.MediaTypes(), child.MediaType) {
			continue
		}
		childID, err := q.InsertProxiedManifest(ctx, sqlc.InsertProxiedManifestParams{
			RepositoryID: p.repository.ID, Digest: child.Digest, MediaType: child.MediaType})
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			known, err := q.ProxiedManifest(ctx, sqlc.ProxiedManifestParams{RepositoryID: p.repository.ID, Digest: child.Digest})
			if err != nil {
				return err
			}
			childID = known.ID
		case err != nil:
			return err
		default:
			if err := c.hiddenTag(ctx, q, p, childID); err != nil {
				return err
			}
		}
		if !slices.Contains(connect.ChildIds, childID) {
			connect.ChildIds = append(connect.ChildIds, childID)
		}
	}
	return q.ConnectChildren(ctx, connect)
}

func (c *Cache) hiddenTag(ctx context.Context, q *sqlc.Queries, p pull, manifestID int64) error {
	now := c.Clock.Now().UnixMilli()
	_, err := q.InsertTag(ctx, sqlc.InsertTagParams{RepositoryID: p.repository.ID, ManifestID: manifestID, Hidden: true,
		Name: "$temp-" + uuid.NewString(), StartMs: now, EndMs: p.organization.end(now)})
	return err
}

// keepManifest keeps a manifest that was asked for by digest: by the tag that keeps it already, or by a hidden one.
func (c *Cache) keepManifest(ctx context.Context, q *sqlc.Queries, p pull, id int64) error {
	now := c.Clock.Now().UnixMilli()
	row, err := q.ProxiedManifest(ctx, sqlc.ProxiedManifestParams{RepositoryID: p.repository.ID, Digest: p.reference, NowMs: now})
	if err != nil {
		return err
	}
	if row.TagID == 0 {
		return c.hiddenTag(ctx, q, p, id)
	}
	return q.RenewTag(ctx, sqlc.RenewTagParams{TagID: row.TagID, EndMs: p.organization.end(now), NowMs: now})
}

// pointTag lets the tag name a manifest: its last tag is revived when it named that one, otherwise there is a new one.
func (c *Cache) pointTag(ctx context.Context, q *sqlc.Queries, p pull, id int64) error {
	now := c.Clock.Now().UnixMilli()
	last, err := q.ProxiedTag(ctx, sqlc.ProxiedTagParams{RepositoryID: p.repository.ID, Name: p.reference})
	switch {
	case err == nil && last.ManifestID != nil && *last.ManifestID == id:
		return q.RenewTag(ctx, sqlc.RenewTagParams{TagID: last.ID, EndMs: p.organization.end(now), NowMs: now})
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	rows, err := q.TagsOfName(ctx, sqlc.TagsOfNameParams{RepositoryID: p.repository.ID, Name: p.reference, SinceMs: now})
	if err != nil {
		return err
	}
	var old []int64
	for _, row := range rows {
		now = max(now, row.LifetimeStartMs) // time never runs backwards within one name
		old = append(old, row.ID)
	}
	if len(old) > 0 {
		if err := q.EndTags(ctx, sqlc.EndTagsParams{Ids: old, NowMs: now, FirstMs: now - 255}); err != nil {
			return err
		}
	}
	_, err = q.InsertTag(ctx, sqlc.InsertTagParams{RepositoryID: p.repository.ID, ManifestID: id, Name: p.reference,
		StartMs: now, EndMs: p.organization.end(now)})
	return err
}

// makeRoom refuses an image that is larger than the quota of the organization, and otherwise ends its tags, those first that end
// first, until the image fits.
func (c *Cache) makeRoom(ctx context.Context, q *sqlc.Queries, p pull, m *manifest.Manifest) error {
	if !c.Config.Features.QuotaManagement || !c.Config.Features.EditQuota || m.IsList() {
		return nil
	}
	namespace := p.repository.NamespaceUserID
	rows, err := q.NamespaceQuota(ctx, namespace)
	if err != nil {
		return err
	}
	limit := c.Config.DefaultSystemRejectQuota
	for _, row := range rows {
		if row.LimitBytes != nil {
			limit = *row.LimitBytes
			break
		}
	}
	if limit <= 0 {
		return nil
	}
	size, _ := m.LayersCompressedSize()
	if m.Config != nil {
		size += m.Config.Size
	}
	if size > limit {
		return regerr.QuotaExceeded()
	}
	for {
		now := c.Clock.Now().UnixMilli()
		used, err := q.CachedBytes(ctx, sqlc.CachedBytesParams{NamespaceUserID: &namespace, NowMs: now})
		if err != nil || used+size <= limit {
			return err
		}

		tag, err := q.FirstCachedTag(ctx, sqlc.FirstCachedTagParams{NamespaceUserID: namespace, NowMs: now})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // what is left may not end
		}
		if err != nil {
			return err
		}
		// Before the window of the time machine, so that the space is free with the next collection.
		end := now - tag.RemovedTagExpirationS*1000 - 1
		if err := q.EndTags(ctx, sqlc.EndTagsParams{Ids: []int64{tag.ID}, NowMs: end, FirstMs: end - 255}); err != nil {
			return err
		}
	}
}
