// Package proxy fills the repositories of organizations that cache another registry: before a manifest or blob of one is read,
// it sees that what lies here is what the upstream has. Reading itself knows nothing of it. The rows it leaves, and what it
// asks of the upstream in which order, are those of the legacy server (contract: recordings of proxy-cache).
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/singleflight"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/field"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/registry/upload"
	"github.com/quayctl/quayctl/internal/ssrf"
	"github.com/quayctl/quayctl/internal/storage"
)

// downloadTime bounds the download of a blob, which goes on when the client that began it has gone.
const downloadTime = 2 * time.Hour

// Deps are what a Cache works with. All are needed.
type Deps struct {
	DB        *metadata.DB
	Storage   *storage.Set
	Locks     locks.Locker
	Clock     clock.Clock
	Config    *config.Config
	Log       *slog.Logger
	Directory *directory.Directory
}

// Cache is safe for concurrent use.
type Cache struct {
	Deps
	fieldKey []byte
	client   *http.Client
	tokens   *tokens
	// background tells whether layers are queued for the worker that downloads before they are asked for.
	background bool
	flights    singleflight.Group
}

// New makes a Cache; nil when the configuration has none (FEATURE_PROXY_CACHE), or when nothing may be written.
func New(d Deps) (*Cache, error) {
	if !d.Config.Features.ProxyCache || d.Config.RegistryState == "readonly" {
		return nil, nil
	}
	c := &Cache{Deps: d, background: true, client: newClient(ssrf.New(d.Config.SSRFAllowedHosts, net.DefaultResolver))}
	if s := d.Config.DatabaseSecretKey; s.IsSet() {
		var err error
		if c.fieldKey, err = field.Key(s.Reveal(), s.Integer()); err != nil {
			return nil, fmt.Errorf("read DATABASE_SECRET_KEY: %w", err)
		}
	}
	if value, ok := d.Config.Other["FEATURE_PROXY_CACHE_BLOB_DOWNLOAD"]; ok {
		if err := value.Decode(&c.background); err != nil {
			return nil, fmt.Errorf("read FEATURE_PROXY_CACHE_BLOB_DOWNLOAD: %w", err)
		}
	}
	if d.Config.DataModelCacheConfig.Text("engine") != "noop" {
		c.tokens = &tokens{clock: d.Clock, known: map[tokenKey]token{}}
	}
	return c, nil
}

// organization is one that caches.
type organization struct {
	id         int64
	expiration time.Duration // 0 = never
	upstream   *upstream     // for the repository at hand
}

// end is when what is fetched now ends, in milliseconds since the epoch; nil is never.
func (o *organization) end(now int64) *int64 {
	if o.expiration == 0 {
		return nil
	}
	end := now + o.expiration.Milliseconds()
	return &end
}

// organization gives the cache configuration of a namespace; nil when it has none.
func (c *Cache) organization(ctx context.Context, namespace, repository string) (*organization, error) {
	row, err := c.DB.Read(ctx).ProxyCacheOfNamespace(ctx, namespace)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up proxy cache of %s: %w", namespace, err)
	}
	u := &upstream{client: c.client, tokens: c.tokens}
	u.base, u.repository = locate(row.UpstreamRegistry, repository, row.Insecure)
	for stored, into := range map[*string]*string{row.UpstreamRegistryUsername: &u.username, row.UpstreamRegistryPassword: &u.password} {
		if stored == nil || *stored == "" {
			continue
		}
		if *into, err = field.Decrypt(c.fieldKey, *stored); err != nil {
			return nil, fmt.Errorf("read upstream credentials of %s: %w", namespace, err)
		}
	}
	o := &organization{id: row.OrganizationID, upstream: u}
	if row.ExpirationS != nil {
		o.expiration = time.Duration(*row.ExpirationS) * time.Second
	}
	return o, nil
}

// Tag sees that a tag names what it names upstream. proxied is false when the namespace caches nothing. Errors are of package
// regerr, or the server's.
func (c *Cache) Tag(ctx context.Context, namespace, repository, tag string, who *auth.Performer) (proxied bool, err error) {
	return c.manifest(ctx, namespace, repository, tag, who, c.refreshTag)
}

// Manifest is Tag for a manifest by its digest.
func (c *Cache) Manifest(ctx context.Context, namespace, repository, digest string, who *auth.Performer) (proxied bool, err error) {
	return c.manifest(ctx, namespace, repository, digest, who, c.refreshManifest)
}

// pull is what a client asks for.
type pull struct {
	organization *organization
	repository   *directory.Repository
	reference    string
	who          *auth.Performer
}

func (c *Cache) manifest(ctx context.Context, namespace, repository, reference string, who *auth.Performer,
	refresh func(context.Context, pull) error) (proxied bool, err error) {
	o, err := c.organization(ctx, namespace, repository)
	if o == nil || err != nil {
		return false, err
	}
	p := pull{organization: o, reference: reference, who: who}
	if p.repository, err = c.repository(ctx, o, namespace, repository, reference, who); err != nil {
		return true, err
	}
	return true, refresh(ctx, p)
}

// repository finds the repository, or makes it when the upstream has what is asked for.
func (c *Cache) repository(ctx context.Context, o *organization, namespace, name, reference string, who *auth.Performer) (*directory.Repository, error) {
	repo, err := c.Directory.Repository(ctx, namespace, name)
	if repo != nil || err != nil {
		return repo, err
	}
	_, err = o.upstream.digest(ctx, reference)
	var upstream *UpstreamError
	if errors.As(err, &upstream) {
		c.warn(ctx, o.upstream, upstream)
		return nil, regerr.NameUnknown().WithCause(err)
	}
	if err != nil {
		return nil, err
	}
	if who == nil || who.UserID == nil {
		return nil, regerr.NameUnknown()
	}
	if err := c.createRepository(ctx, o, name, *who.UserID); err != nil {
		return nil, fmt.Errorf("create repository %s/%s: %w", namespace, name, err)
	}
	repo, err = c.Directory.Repository(metadata.ForceWriter(ctx), namespace, name)
	if err == nil && repo == nil { // its name is not free yet
		err = regerr.NameUnknown()
	}
	return repo, err
}

// refreshTag looks at the upstream's tag each time: an unchanged one lives longer, a changed one moves.
func (c *Cache) refreshTag(ctx context.Context, p pull) error {
	row, err := c.DB.Read(ctx).ProxiedTag(ctx, sqlc.ProxiedTagParams{RepositoryID: p.repository.ID, Name: p.reference})
	missing := errors.Is(err, pgx.ErrNoRows)
	if err != nil && !missing {
		return fmt.Errorf("look up tag %s: %w", p.reference, err)
	}
	now := c.Clock.Now().UnixMilli()
	alive := !missing && (row.LifetimeEndMs == nil || *row.LifetimeEndMs > now)
	usable := alive && !row.Placeholder
	digest, err := p.organization.upstream.digest(ctx, p.reference)
	if err == nil && usable && digest == row.Digest {
		return c.renew(ctx, p, row.ID)
	}
	var m *manifest.Manifest
	if err == nil {
		m, err = p.organization.upstream.manifest(ctx, p.reference)
	}
	if err != nil {
		return c.fallBack(ctx, p, usable, err)
	}
	switch {
	case usable && m.Digest == row.Digest:
		return c.renew(ctx, p, row.ID)
	case alive && row.Immutable && m.Digest != row.Digest && c.Config.Features.ImmutableTags:
		return nil
	}
	return c.store(ctx, p, m, c.pointTag)
}

// refreshManifest fetches a manifest that is not here, and lets one that is live longer.
func (c *Cache) refreshManifest(ctx context.Context, p pull) error {
	row, err := c.DB.Read(ctx).ProxiedManifest(ctx, sqlc.ProxiedManifestParams{
		RepositoryID: p.repository.ID, Digest: p.reference, NowMs: c.Clock.Now().UnixMilli()})
	missing := errors.Is(err, pgx.ErrNoRows)
	if err != nil && !missing {
		return fmt.Errorf("look up manifest %s: %w", p.reference, err)
	}
	usable := !missing && !row.Placeholder
	digest, err := p.organization.upstream.digest(ctx, p.reference)
	if err == nil && usable && row.TagID != 0 && digest == p.reference {
		return c.renew(ctx, p, row.TagID)
	}
	var m *manifest.Manifest
	if err == nil {
		m, err = p.organization.upstream.manifest(ctx, p.reference)
	}
	if err != nil {
		return c.fallBack(ctx, p, usable, err) // whether it is still alive shows when it is read
	}
	return c.store(ctx, p, m, c.keepManifest)
}

// fallBack decides after a failure of the upstream: what lies here is served while it lives, unless the upstream says that
// these credentials may not have it (any more).
func (c *Cache) fallBack(ctx context.Context, p pull, usable bool, err error) error {
	var upstream *UpstreamError
	if !errors.As(err, &upstream) {
		return err
	}
	c.warn(ctx, p.organization.upstream, upstream)
	if usable && upstream.Status != http.StatusUnauthorized && upstream.Status != http.StatusForbidden {
		return nil
	}
	return regerr.ManifestUnknown().WithMessage("%s", upstream.Error()).WithCause(err)
}

// warn tells the operator what clients are not told: why an upstream could not be used.
func (c *Cache) warn(ctx context.Context, u *upstream, err *UpstreamError) {
	c.Log.WarnContext(ctx, "upstream registry failed", "registry", u.base, "repository", u.repository, "detail", err.Detail, "error", err.cause)
}

// Blob sees that the content of a blob that the repository shows lies in storage. Errors are of package regerr, or the server's.
func (c *Cache) Blob(ctx context.Context, namespace, repository, digest string) error {
	o, err := c.organization(ctx, namespace, repository)
	if o == nil || err != nil {
		return err
	}
	present, err := c.present(ctx, namespace, repository, digest)
	if present || err != nil {
		return err
	}
	// Several clients that ask for one blob wait for one download, which is not the first one's alone.
	done := c.flights.DoChan(namespace+"/"+repository+"@"+digest, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downloadTime)
		defer cancel()
		if present, err := c.present(metadata.ForceWriter(ctx), namespace, repository, digest); present || err != nil {
			return nil, err // the download before has brought it
		}
		return nil, c.download(ctx, o, namespace, repository, digest)
	})
	select {
	case result := <-done:
		c.DB.Write(ctx) // whoever downloaded it, this request reads what was written
		err = result.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var upstream *UpstreamError
	if errors.As(err, &upstream) {
		c.warn(ctx, o.upstream, upstream)
		return regerr.InvalidRequest(upstream.Error()).WithCause(err)
	}
	return err
}

// present tells whether there is nothing to download: the blob lies in storage, or the repository does not show it.
func (c *Cache) present(ctx context.Context, namespace, repository, digest string) (bool, error) {
	row, err := c.DB.Read(ctx).BlobOfRepository(ctx, sqlc.BlobOfRepositoryParams{Namespace: namespace, Repository: repository, Digest: &digest})
	if errors.Is(err, pgx.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up blob %s of %s/%s: %w", digest, namespace, repository, err)
	}
	if len(row.Placements) == 0 {
		return false, nil
	}
	key, err := storage.ObjectKey(row.CasPath, digest, row.UUID)
	if err != nil {
		return false, err
	}
	_, driver, err := c.Storage.Choose(row.Placements)
	if err != nil {
		return false, err
	}
	_, err = driver.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // lost, and to be had again
	}
	return err == nil, err
}

// download brings a blob from the upstream into storage, under the digest that its bytes have.
func (c *Cache) download(ctx context.Context, o *organization, namespace, repository, digest string) error {
	repo, err := c.Directory.Repository(ctx, namespace, repository)
	if err == nil && repo == nil {
		err = regerr.BlobUnknown()
	}
	if err != nil {
		return err
	}
	keep := o.expiration
	if keep == 0 {
		keep = time.Duration(c.Config.PushTempTagExpirationSec) * time.Second
	}
	uploads := &upload.Uploads{DB: c.DB, Storage: c.Storage, Locks: c.Locks, Clock: c.Clock, Log: c.Log,
		MaxSize: c.Config.MaximumLayerSize.Bytes(), LinkFor: keep}
	// As in the legacy server the upload begins first; if the upstream then refuses, the cleanup of old uploads ends it.
	begun, err := uploads.Start(ctx, repo.ID)
	if err != nil {
		return err
	}
	body, size, err := o.upstream.blob(ctx, digest)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read
	_, err = uploads.Finish(ctx, begun.UUID, upload.Chunk{Length: size, Body: body}, digest)
	var broken *upload.BodyError
	var large *upload.TooLargeError
	switch {
	case errors.Is(err, upload.ErrDigest):
		return unusable("blob digest mismatch", err)
	case errors.As(err, &broken):
		return unusable("the upstream registry broke off", err)
	case errors.As(err, &large):
		return unusable(fmt.Sprintf("blob is larger than the allowed %d bytes", large.Limit), err)
	case errors.Is(err, upload.ErrRepositoryGone):
		return regerr.BlobUnknown().WithCause(err)
	}
	return err
}
