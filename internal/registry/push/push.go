// Package push writes manifests and moves and ends tags, leaving exactly the rows that the legacy server leaves
// (contract: recordings of manifest-put, manifest-delete and quota). A push is one transaction; pushes to one
// repository that move tags take turns by the advisory lock that the legacy server takes too.
package push

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/storage"
)

// keepAlive is how long a manifest that was there already is kept at least for a push to make use of it.
const keepAlive = 300 * time.Second

// Settings are the parts of the configuration that decide about pushes.
type Settings struct {
	TemporaryTag           time.Duration // PUSH_TEMP_TAG_EXPIRATION_SEC
	ImmutableTags          bool          // FEATURE_IMMUTABLE_TAGS
	ImmutableTagsCanExpire bool          // FEATURE_IMMUTABLE_TAGS_CAN_EXPIRE
	SparseIndex            bool          // FEATURE_SPARSE_INDEX
	Replication            bool          // FEATURE_STORAGE_REPLICATION
	ReplicationQueue       string        // REPLICATION_QUEUE_NAME
	Quota                  bool          // FEATURE_QUOTA_MANAGEMENT
	VerifyQuota            bool          // FEATURE_VERIFY_QUOTA
	InvalidateQuota        bool          // QUOTA_INVALIDATE_TOTALS
	SystemRejectBytes      int64         // DEFAULT_SYSTEM_REJECT_QUOTA_BYTES; 0 is none
	ResetChildExpiration   bool          // RESET_CHILD_MANIFEST_EXPIRATION
	NotificationQueue      string        // NOTIFICATION_QUEUE_NAME
	ServerHostname         string        // SERVER_HOSTNAME
	URLScheme              string        // PREFERRED_URL_SCHEME
	Silent                 bool          // tag pushes queue nothing: /v1 tells of all its tags at the end of a push
}

// Pusher is safe for concurrent use. It must not be copied.
type Pusher struct {
	DB       *metadata.DB
	Storage  *storage.Set
	Clock    clock.Clock
	Settings Settings

	turns turns
}

// Repository is where a push goes.
type Repository struct {
	ID               int64
	NamespaceID      int64 // the namespace's row in user
	Namespace, Name  string
	NamespaceEnabled bool
}

// Errors of a push or deletion that are the client's doing, beside *manifest.Error.
var (
	// ErrQuotaExceeded is a tag push beyond the namespace's quota. The manifest itself stays, as in the legacy server.
	ErrQuotaExceeded = errors.New("quota of namespace exceeded")
	// ErrNotFound is a tag or manifest to be deleted that is not there.
	ErrNotFound = errors.New("no alive tag")
)

// ImmutableError is a tag that may not move or end.
type ImmutableError struct{ Tag string }

func (e *ImmutableError) Error() string { return fmt.Sprintf("tag '%s' is immutable", e.Tag) }

func refuse(format string, args ...any) error {
	return &manifest.Error{Reason: fmt.Sprintf(format, args...)}
}

// Result of a tag push.
type Result struct {
	// MadeImmutableByPolicy says that a policy, not a label, made the new tag immutable; it is to be logged.
	MadeImmutableByPolicy bool
}

// Tag stores m and lets the tag point at it. performer is the JSON object that notifications carry.
func (p *Pusher) Tag(ctx context.Context, repo Repository, tag string, m *manifest.Manifest, performer string) (result Result, err error) {
	err = lookAgain(func() error {
		result, err = p.tag(ctx, repo, tag, m, performer)
		return err
	})
	return result, err
}

// lookAgain runs push, and once more from its beginning when a collector took away a row that it had found: the second time
// the blob or manifest is missing, which has its own refusal, or is stored anew.
func lookAgain(push func() error) error {
	err := push()
	if metadata.IsForeignKeyViolation(err) {
		err = push()
	}
	return err
}

func (p *Pusher) tag(ctx context.Context, repo Repository, tag string, m *manifest.Manifest, performer string) (Result, error) {
	w, err := p.prepare(ctx, repo, m, keepAlive)
	if err != nil {
		return Result{}, fmt.Errorf("push tag %s: %w", tag, err)
	}
	var result Result
	refused := error(nil) // a refusal that leaves rows behind
	err = p.locked(ctx, repo, func(ctx context.Context, q *sqlc.Queries) error {
		refused, result = nil, Result{}
		if err := w.store(ctx, q); err != nil {
			return err
		}
		if over, err := p.overQuota(ctx, q, repo); err != nil {
			return err
		} else if over {
			refused = ErrQuotaExceeded
			if w.brandNew {
				return w.temporaryTag(ctx, q, pointer(int64(0)))
			}
			return nil
		}
		var err error
		result, err = w.moveTag(ctx, q, tag, performer)
		var immutable *ImmutableError
		if errors.As(err, &immutable) {
			refused, err = immutable, nil
		}
		return err
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return Result{}, fmt.Errorf("push tag %s: %w", tag, err)
	}
	return result, nil
}

// Untagged stores m and keeps it by a hidden tag: for good when it has a subject, otherwise for Settings.TemporaryTag.
func (p *Pusher) Untagged(ctx context.Context, repo Repository, m *manifest.Manifest) error {
	return lookAgain(func() error { return p.withoutTag(ctx, repo, m) })
}

func (p *Pusher) withoutTag(ctx context.Context, repo Repository, m *manifest.Manifest) error {
	w, err := p.prepare(ctx, repo, m, p.Settings.TemporaryTag)
	if err != nil {
		return fmt.Errorf("push manifest %s: %w", m.Digest, err)
	}
	w.untagged = true
	err = p.retry(ctx, func(ctx context.Context, q *sqlc.Queries) error {
		if err := w.store(ctx, q); err != nil || !w.brandNew {
			return err
		}
		return w.temporaryTag(ctx, q, w.keepEnd())
	})
	if err != nil {
		return fmt.Errorf("push manifest %s: %w", m.Digest, err)
	}
	return nil
}

// retry runs do in a transaction, and again when it lost against another one.
func (p *Pusher) retry(ctx context.Context, do func(ctx context.Context, q *sqlc.Queries) error) error {
	const attempts = 5
	for i := 1; ; i++ {
		err := p.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error { return do(ctx, sqlc.New(tx)) })
		if err == nil || i == attempts || !metadata.IsConflict(err) && !metadata.IsUniqueViolation(err) {
			return err
		}
	}
}

// locked is retry under the lock of the repository's tags.
func (p *Pusher) locked(ctx context.Context, repo Repository, do func(ctx context.Context, q *sqlc.Queries) error) error {
	done, err := p.turns.take(ctx, repo.ID)
	if err != nil {
		return err
	}
	defer done()
	return p.retry(ctx, func(ctx context.Context, q *sqlc.Queries) error {
		if err := q.LockTags(ctx, TagLock(repo.ID)); err != nil {
			return fmt.Errorf("lock tags of repository %d: %w", repo.ID, err)
		}
		return do(ctx, q)
	})
}

// TagLock is the key of the advisory lock under which tags of a repository move. The legacy server derives it the same way.
func TagLock(repositoryID int64) int64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "retarget_tag:%d", repositoryID))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // the sign is part of the key
}

// write is one push, with all that could be found out before its transaction.
type write struct {
	p        *Pusher
	repo     Repository
	m        *manifest.Manifest
	keep     time.Duration // how long a tag must keep a manifest that was there already
	blobs    []sqlc.BlobsForManifestRow
	children []int64
	labels   []manifest.Label
	untagged bool  // the manifest is kept by a hidden tag alone
	id       int64 // the manifest's row, once stored
	brandNew bool  // this push stored it
}

// prepare validates what m refers to. Its errors of type *manifest.Error are for the client.
func (p *Pusher) prepare(ctx context.Context, repo Repository, m *manifest.Manifest, keep time.Duration) (*write, error) {
	w := &write{p: p, repo: repo, m: m, keep: keep}
	q := p.DB.Read(metadata.ForceWriter(ctx)) // a replica may not have the blobs that were uploaded just now
	digests := m.LocalBlobs()
	found := map[string]bool{}
	if len(digests) > 0 {
		var err error
		w.blobs, err = q.BlobsForManifest(ctx, sqlc.BlobsForManifestParams{RepositoryID: repo.ID, Digests: digests})
		if err != nil {
			return nil, fmt.Errorf("look up blobs of manifest: %w", err)
		}
		for _, blob := range w.blobs {
			found[blob.Digest] = true
		}
	}
	if m.Schema1 != nil {
		if err := m.Schema1.CheckParents(); err != nil {
			return nil, err
		}
	}
	// The legacy server looks into the config before it looks for the layers.
	if m.NeedsConfig() && found[m.Config.Digest] {
		if err := w.readLabels(ctx); err != nil {
			return nil, err
		}
	}
	for _, digest := range digests {
		if !found[digest] {
			return nil, refuse("Unknown blob `%s`", digest)
		}
	}
	if !m.NeedsConfig() {
		var err error
		if w.labels, err = m.Labels(nil); err != nil {
			return nil, err
		}
	}
	return w, w.findChildren(ctx, q)
}

func (w *write) readLabels(ctx context.Context) error {
	var config []byte
	for _, blob := range w.blobs {
		if blob.Digest == w.m.Config.Digest {
			var err error
			if config, err = w.p.readBlob(ctx, blob); err != nil {
				return fmt.Errorf("read config of image: %w", err)
			}
		}
	}
	var err error
	w.labels, err = w.m.Labels(config)
	return err
}

// Config is the content of the config of an image in a repository, or nil when the repository does not hold it.
func (p *Pusher) Config(ctx context.Context, repositoryID int64, digest string) ([]byte, error) {
	rows, err := p.DB.Read(ctx).BlobsForManifest(ctx, sqlc.BlobsForManifestParams{RepositoryID: repositoryID, Digests: []string{digest}})
	if err != nil {
		return nil, fmt.Errorf("look up config %s: %w", digest, err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	content, err := p.readBlob(ctx, rows[0])
	if err != nil {
		return nil, fmt.Errorf("read config %s: %w", digest, err)
	}
	return content, nil
}

// maxConfig bounds what is read of a config. The largest ones that exist have some hundred kilobytes.
const maxConfig = 8 << 20

func (p *Pusher) readBlob(ctx context.Context, blob sqlc.BlobsForManifestRow) ([]byte, error) {
	if blob.ImageSize != nil && *blob.ImageSize > maxConfig {
		return nil, refuse("config has %d bytes, more than the allowed %d", *blob.ImageSize, maxConfig)
	}
	_, driver, err := p.Storage.Choose(blob.Locations)
	if err != nil {
		return nil, err
	}
	key, err := storage.ObjectKey(blob.CasPath, blob.Digest, blob.UUID)
	if err != nil {
		return nil, err
	}
	r, err := driver.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(r, maxConfig))
	return content, errors.Join(err, r.Close())
}

func (w *write) findChildren(ctx context.Context, q *sqlc.Queries) error {
	if len(w.m.Children) == 0 {
		return nil
	}
	digests := make([]string, 0, len(w.m.Children))
	for _, child := range w.m.Children {
		digests = append(digests, child.Digest)
	}
	rows, err := q.ManifestsOfDigests(ctx, sqlc.ManifestsOfDigestsParams{RepositoryID: w.repo.ID, Digests: digests})
	if err != nil {
		return fmt.Errorf("look up children of list: %w", err)
	}
	known := make(map[string]sqlc.ManifestsOfDigestsRow, len(rows))
	for _, row := range rows {
		known[row.Digest] = row
	}
	taken := map[int64]bool{}
	for _, child := range w.m.Children {
		row, ok := known[child.Digest]
		switch {
		case !ok && w.p.Settings.SparseIndex:
			continue
		case !ok:
			return refuse("Could not find child manifest with digest `%s`", child.Digest)
		case row.Size != child.Size:
			return refuse("Size of manifest does not match that retrieved: %d vs %d", row.Size, child.Size)
		case w.m.MediaType == manifest.DockerList && !sameType(row.MediaType, child.MediaType):
			return refuse("Media type of manifest does not match that retrieved: %s vs %s", row.MediaType, child.MediaType)
		}
		if !taken[row.ID] {
			taken[row.ID] = true
			w.children = append(w.children, row.ID)
		}
	}
	return nil
}

// sameType holds signed and unsigned schema 1 for one.
func sameType(a, b string) bool {
	schema1 := func(t string) bool { return t == manifest.DockerSchema1 || t == manifest.DockerSchema1Signed }
	return a == b || schema1(a) && schema1(b)
}

// store inserts the manifest with its rows, or finds the one that is there already and sees that it stays for a while.
func (w *write) store(ctx context.Context, q *sqlc.Queries) error {
	w.brandNew = false
	row, err := w.existing(ctx, q)
	if errors.Is(err, pgx.ErrNoRows) {
		w.id, err = q.InsertManifest(ctx, w.row())
		if err == nil {
			w.brandNew = true
			return w.addQuota(ctx, q)
		}
		if errors.Is(err, pgx.ErrNoRows) { // another push of it was faster
			row, err = w.existing(ctx, q)
		}
	}
	if err != nil {
		return fmt.Errorf("store manifest %s: %w", w.m.Digest, err)
	}
	w.id = row.ID
	if row.Kept {
		return nil
	}
	return w.temporaryTag(ctx, q, w.keepEnd())
}

func (w *write) existing(ctx context.Context, q *sqlc.Queries) (sqlc.PushedManifestRow, error) {
	return q.PushedManifest(ctx, sqlc.PushedManifestParams{RepositoryID: w.repo.ID, Digest: w.m.Digest,
		KeptUntilMs: w.p.now() + w.keep.Milliseconds()})
}

// keepEnd is when the hidden tag that keeps the manifest ends: never for one with a subject that is pushed without a tag.
func (w *write) keepEnd() *int64 {
	if w.m.Subject != nil && w.untagged {
		return nil
	}
	return pointer(w.p.now() + w.keep.Milliseconds())
}

func (w *write) row() sqlc.InsertManifestParams {
	row := sqlc.InsertManifestParams{
		RepositoryID:    w.repo.ID,
		NamespaceUserID: w.repo.NamespaceID,
		Digest:          w.m.Digest,
		MediaType:       w.m.MediaType,
		ManifestBytes:   string(w.m.Bytes),
		BlobIds:         w.blobIDs(),
		ChildIds:        w.children,
		Now:             w.p.Clock.Now(),
		ResetQuota:      !w.p.Settings.Quota && w.p.Settings.InvalidateQuota && w.repo.NamespaceEnabled,
	}
	if w.m.Config != nil {
		row.ConfigMediaType = &w.m.Config.MediaType
	}
	if size, ok := w.m.LayersCompressedSize(); ok {
		row.LayersCompressedSize = &size
	}
	if w.m.Subject != nil {
		row.Subject = &w.m.Subject.Digest
	}
	if w.m.ArtifactType != "" {
		row.ArtifactType = &w.m.ArtifactType
	}
	for _, label := range w.labels {
		if label.Key == "" {
			continue
		}
		row.LabelUuids = append(row.LabelUuids, uuid.NewString())
		row.LabelKeys = append(row.LabelKeys, label.Key)
		row.LabelValues = append(row.LabelValues, label.Value)
		row.LabelTypes = append(row.LabelTypes, labelType(label.Value))
	}
	return row
}

func (w *write) blobIDs() []int64 {
	ids := make([]int64, 0, len(w.blobs))
	for _, blob := range w.blobs {
		ids = append(ids, blob.ID)
	}
	return ids
}

func (w *write) temporaryTag(ctx context.Context, q *sqlc.Queries, end *int64) error {
	_, err := q.InsertTag(ctx, sqlc.InsertTagParams{RepositoryID: w.repo.ID, ManifestID: w.id, Hidden: true,
		Name: "$temp-" + uuid.NewString(), StartMs: w.p.now(), EndMs: end})
	if err != nil {
		return fmt.Errorf("keep manifest %s by a hidden tag: %w", w.m.Digest, err)
	}
	return nil
}

// now is the present in milliseconds since the epoch, the unit of tags.
func (p *Pusher) now() int64 { return p.Clock.Now().UnixMilli() }

func pointer[T any](v T) *T { return &v }

// labelType is the media type of a label's value: JSON when it is bracketed and parses, else text.
func labelType(value string) string {
	bracketed := strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") ||
		strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]")
	if bracketed && validJSON(value) {
		return "application/json"
	}
	return "text/plain"
}
