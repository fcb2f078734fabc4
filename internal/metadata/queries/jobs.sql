-- Background work: the queue, garbage collection and cleanups (contract, behaviour.md §5.5-5.7 and §7).

-- name: QueueCandidates :many
-- Items of a queue that may be taken: never claimed, or claimed by somebody whose time is over.
SELECT q.id, q.state_id, q.queue_name, q.body, q.retries_remaining
FROM queueitem q
WHERE q.queue_name ILIKE @prefix AND q.available_after <= @now::timestamp AND q.retries_remaining > 0
  AND (q.available OR q.processing_expires <= @now::timestamp)
ORDER BY q.id
LIMIT 50;

-- name: ClaimQueueItem :execrows
-- No row when another one took or changed the item meanwhile: state_id changes with every update.
UPDATE queueitem SET available = FALSE, processing_expires = @expires::timestamp, retries_remaining = retries_remaining - 1,
  state_id = @new_state_id::text
WHERE id = @id AND state_id = @state_id;

-- name: CompleteQueueItem :execrows
DELETE FROM queueitem WHERE id = @id;

-- name: ReturnQueueItem :execrows
-- Gives an item back, to be available after a while, with or without the retry it took. No row when it is no longer the
-- caller's: its time was over and another one took it.
UPDATE queueitem SET available = TRUE, available_after = @available_after::timestamp,
  retries_remaining = retries_remaining + @retries::integer, state_id = @new_state_id::text
WHERE id = @id AND state_id = @state_id;

-- name: ExtendQueueItem :execrows
-- Gives the holder of an item more time. No row when it is no longer the caller's.
UPDATE queueitem SET processing_expires = @expires::timestamp, state_id = @new_state_id::text
WHERE id = @id AND state_id = @state_id;

-- name: PutQueueItem :one
INSERT INTO queueitem (queue_name, body, available_after, available, retries_remaining, state_id)
VALUES (@queue_name, @body, @available_after, TRUE, @retries, @state_id) RETURNING id;

-- name: QueueLoad :one
-- How many items of a queue are claimed, may be taken, and (of these) have a name of which none is claimed.
WITH items AS (
  SELECT q.queue_name, NOT q.available AND q.processing_expires > @now::timestamp AS running,
    q.available_after <= @now::timestamp AND q.retries_remaining > 0 AND (q.available OR q.processing_expires <= @now::timestamp) AS takeable
  FROM queueitem q WHERE q.queue_name ILIKE @prefix
)
SELECT count(DISTINCT i.queue_name) FILTER (WHERE i.running)::bigint AS locked,
  count(DISTINCT i.queue_name) FILTER (WHERE i.takeable)::bigint AS available,
  count(DISTINCT i.queue_name) FILTER (WHERE i.takeable AND NOT EXISTS (
    SELECT 1 FROM items r WHERE r.running AND r.queue_name = i.queue_name))::bigint AS available_unlocked
FROM items i;

-- name: AbandonedQueueItems :many
-- Items whose claim ended long ago.
SELECT q.id FROM queueitem q WHERE q.processing_expires <= @before::timestamp ORDER BY q.id LIMIT 500;

-- name: DeleteAbandonedQueueItems :execrows
DELETE FROM queueitem WHERE id = ANY(@ids::bigint[]) AND processing_expires <= @before::timestamp;

-- name: DeleteExpiredAppTokens :execrows
DELETE FROM appspecificauthtoken WHERE expiration <= @before::timestamp;

-- name: AbandonedUploads :many
-- Uploads begun long ago, from a row on.
SELECT u.id, u.uuid, u.storage_metadata, u.byte_count, u.chunk_count, l.name AS location
FROM blobupload u JOIN imagestoragelocation l ON l.id = u.location_id
WHERE u.created <= @before::timestamp AND u.id > @after_id
ORDER BY u.id
LIMIT 100;

-- name: DeleteAbandonedUpload :execrows
-- No row when somebody wrote to the upload meanwhile.
DELETE FROM blobupload WHERE id = @id AND byte_count = @byte_count AND chunk_count = @chunk_count;

-- name: TagWindows :many
-- The time spans, in seconds, for which namespaces keep ended tags.
SELECT DISTINCT u.removed_tag_expiration_s FROM "user" u LIMIT 100;

-- name: RepositoriesWithEndedTags :many
-- Repositories of enabled namespaces with one time span that have tags to collect.
SELECT DISTINCT r.id
FROM tag t
JOIN repository r ON r.id = t.repository_id AND r.state <> 3
JOIN "user" u ON u.id = r.namespace_user_id AND u.enabled AND u.removed_tag_expiration_s = @span_s
WHERE t.lifetime_end_ms <= @before_ms::bigint AND (NOT t.immutable OR @immutable::boolean)
LIMIT 500;

-- name: RepositoriesWithExpiredLinks :many
-- Repositories with blobs whose temporary link is over.
SELECT DISTINCT b.repository_id
FROM uploadedblob b JOIN repository r ON r.id = b.repository_id AND r.state <> 3
WHERE b.expires_at <= @now::timestamp
LIMIT 100;

-- name: RepositoryForGC :one
SELECT r.id, r.state, r.namespace_user_id, u.removed_tag_expiration_s, u.enabled AS namespace_enabled
FROM repository r JOIN "user" u ON u.id = r.namespace_user_id
WHERE r.id = @id;

-- name: TagsToCollect :many
-- The next tags of a repository that ended before a time; all of them when everything goes.
SELECT t.id, t.name, t.manifest_id, t.lifetime_end_ms
FROM tag t
WHERE t.repository_id = @repository_id AND t.id > @after_id
  AND (@everything::boolean OR t.lifetime_end_ms <= @before_ms::bigint AND (NOT t.immutable OR @immutable::boolean))
ORDER BY t.id
LIMIT 10;

-- name: LockTag :one
-- Holds a tag, unless its end has moved.
SELECT t.id FROM tag t WHERE t.id = @id AND t.lifetime_end_ms IS NOT DISTINCT FROM sqlc.narg(lifetime_end_ms)::bigint FOR UPDATE;

-- name: DeleteTag :one
-- Removes a tag with what belongs to it, and tells how many rows went.
WITH statistics AS (
  DELETE FROM tagpullstatistics s WHERE s.repository_id = @repository_id AND s.tag_name = @name RETURNING 1
), notified AS (
  DELETE FROM tagnotificationsuccess n WHERE n.tag_id = @id RETURNING 1
), gone AS (
  DELETE FROM tag t WHERE t.id = @id RETURNING 1
)
SELECT (SELECT count(*) FROM statistics)::bigint AS statistics, (SELECT count(*) FROM notified)::bigint AS notified,
  (SELECT count(*) FROM gone)::bigint AS tags;

-- name: ChildrenOfManifests :many
SELECT DISTINCT c.child_manifest_id FROM manifestchild c WHERE c.manifest_id = ANY(@ids::bigint[]) ORDER BY 1;

-- name: LockManifest :one
SELECT m.id FROM manifest m WHERE m.id = @id FOR UPDATE;

-- name: ManifestIsUsed :one
-- Whether a tag (also one that has ended), a list or a referrer needs the manifest.
SELECT (EXISTS (SELECT 1 FROM tag t WHERE t.manifest_id = m.id)
  OR EXISTS (SELECT 1 FROM manifestchild c WHERE c.child_manifest_id = m.id)
  OR EXISTS (SELECT 1 FROM manifest o WHERE o.repository_id = m.repository_id AND o.subject = m.digest AND o.id <> m.id))::boolean AS used
FROM manifest m WHERE m.id = @id;

-- name: SubtractNamespaceQuota :exec
-- Takes the blobs off a namespace's total that no other of its manifests references. A total that is being counted is
-- left alone.
UPDATE quotanamespacesize SET size_bytes = greatest(size_bytes - d.size, 0)
FROM (
  SELECT COALESCE(sum(s.image_size), 0)::bigint AS size
  FROM manifestblob mb JOIN imagestorage s ON s.id = mb.blob_id
  WHERE mb.manifest_id = @manifest_id AND NOT EXISTS (
    SELECT 1 FROM manifestblob b JOIN repository r ON r.id = b.repository_id
    WHERE b.blob_id = s.id AND r.namespace_user_id = @namespace_user_id AND b.manifest_id <> @manifest_id)
) d
WHERE quotanamespacesize.namespace_user_id = @namespace_user_id AND backfill_complete AND d.size > 0;

-- name: SubtractRepositoryQuota :exec
-- Likewise for a repository.
UPDATE quotarepositorysize SET size_bytes = greatest(size_bytes - d.size, 0)
FROM (
  SELECT COALESCE(sum(s.image_size), 0)::bigint AS size
  FROM manifestblob mb JOIN imagestorage s ON s.id = mb.blob_id
  WHERE mb.manifest_id = @manifest_id AND NOT EXISTS (
    SELECT 1 FROM manifestblob b WHERE b.blob_id = s.id AND b.repository_id = @repository_id AND b.manifest_id <> @manifest_id)
) d
WHERE quotarepositorysize.repository_id = @repository_id AND backfill_complete AND d.size > 0;

-- name: ResetNamespaceQuota :exec
-- Lets the total be counted anew once quotas are on again.
UPDATE quotanamespacesize SET size_bytes = 0, backfill_start_ms = NULL, backfill_complete = FALSE
WHERE namespace_user_id = @namespace_user_id AND (size_bytes <> 0 OR backfill_complete OR backfill_start_ms IS NOT NULL);

-- name: ResetRepositoryQuota :exec
UPDATE quotarepositorysize SET size_bytes = 0, backfill_start_ms = NULL, backfill_complete = FALSE
WHERE repository_id = @repository_id AND (size_bytes <> 0 OR backfill_complete OR backfill_start_ms IS NOT NULL);

-- name: DeleteManifest :one
-- Removes a manifest with what belongs to it; tells what it referenced and how many rows went.
WITH labels AS (
  DELETE FROM manifestlabel l WHERE l.manifest_id = @id RETURNING l.label_id
), children AS (
  DELETE FROM manifestchild c WHERE c.manifest_id = @id RETURNING c.child_manifest_id
), blobs AS (
  DELETE FROM manifestblob b WHERE b.manifest_id = @id RETURNING b.blob_id
), status AS (
  DELETE FROM manifestsecuritystatus s WHERE s.manifest_id = @id RETURNING 1
), statistics AS (
  DELETE FROM manifestpullstatistics s USING manifest m
  WHERE m.id = @id AND s.repository_id = m.repository_id AND s.manifest_digest = m.digest RETURNING 1
), gone AS (
  DELETE FROM manifest m WHERE m.id = @id RETURNING m.repository_id, m.subject
)
SELECT ARRAY(SELECT DISTINCT label_id FROM labels)::bigint[] AS label_ids,
  ARRAY(SELECT DISTINCT child_manifest_id FROM children)::bigint[] AS child_ids,
  ARRAY(SELECT DISTINCT blob_id FROM blobs ORDER BY 1)::bigint[] AS blob_ids,
  ARRAY(SELECT o.id FROM manifest o JOIN gone ON o.repository_id = gone.repository_id AND o.digest = gone.subject)::bigint[] AS subject_ids,
  (SELECT count(*) FROM status)::bigint AS statuses, (SELECT count(*) FROM statistics)::bigint AS statistics,
  (SELECT count(*) FROM gone)::bigint AS manifests;

-- name: DeleteUnusedLabels :execrows
DELETE FROM label l WHERE l.id = ANY(@ids::bigint[]) AND NOT EXISTS (SELECT 1 FROM manifestlabel m WHERE m.label_id = l.id);

-- name: UntaggedManifests :many
-- Manifests that nothing needs, from a row on. One that is being pushed by the legacy server looks like this for a moment.
SELECT m.id, m.repository_id FROM manifest m
JOIN repository r ON r.id = m.repository_id AND r.state <> 3
WHERE m.id > @after_id
  AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.manifest_id = m.id)
  AND NOT EXISTS (SELECT 1 FROM manifestchild c WHERE c.child_manifest_id = m.id)
  AND NOT EXISTS (SELECT 1 FROM manifest o WHERE o.repository_id = m.repository_id AND o.subject = m.digest AND o.id <> m.id)
ORDER BY m.id
LIMIT 500;

-- name: ManifestsOfRepository :many
SELECT m.id FROM manifest m WHERE m.repository_id = @repository_id AND m.id > @after_id ORDER BY m.id LIMIT 100;

-- name: DeleteChildrenOfRepository :execrows
DELETE FROM manifestchild c WHERE c.id IN (SELECT d.id FROM manifestchild d WHERE d.repository_id = @repository_id ORDER BY d.id LIMIT 500);

-- name: DeleteBlobLinks :many
-- Removes temporary links of a repository to blobs: those that are over, or all. Returns the blobs.
DELETE FROM uploadedblob b WHERE b.id IN (
  SELECT u.id FROM uploadedblob u WHERE u.repository_id = @repository_id AND (@everything::boolean OR u.expires_at <= @now::timestamp)
  ORDER BY u.id LIMIT 100 FOR UPDATE)
RETURNING b.blob_id;

-- name: BlobForGC :one
SELECT s.id, s.content_checksum FROM imagestorage s WHERE s.id = @id;

-- name: LockBlob :one
SELECT s.id, s.uuid, s.cas_path, s.content_checksum FROM imagestorage s WHERE s.id = @id FOR UPDATE;

-- name: BlobIsGarbage :one
-- Whether nothing links a blob. A row without a placement is a placeholder of a proxy cache and stays.
SELECT (NOT EXISTS (SELECT 1 FROM manifestblob b WHERE b.blob_id = s.id)
  AND NOT EXISTS (SELECT 1 FROM uploadedblob b WHERE b.blob_id = s.id)
  AND EXISTS (SELECT 1 FROM imagestorageplacement p WHERE p.storage_id = s.id))::boolean AS garbage
FROM imagestorage s WHERE s.id = @id;

-- name: DeleteBlob :one
-- Removes a blob's rows and tells in which locations its object lies.
WITH placements AS (
  DELETE FROM imagestorageplacement p WHERE p.storage_id = @id RETURNING p.location_id
), signatures AS (
  DELETE FROM imagestoragesignature g WHERE g.storage_id = @id RETURNING 1
), gone AS (
  DELETE FROM imagestorage s WHERE s.id = @id RETURNING 1
)
SELECT ARRAY(SELECT l.name FROM placements p JOIN imagestoragelocation l ON l.id = p.location_id ORDER BY l.id)::text[] AS locations,
  (SELECT count(*) FROM signatures)::bigint AS signatures, (SELECT count(*) FROM gone)::bigint AS blobs;

-- name: DigestIsStored :one
SELECT EXISTS (SELECT 1 FROM imagestorage s WHERE s.content_checksum = @digest::text);

-- name: UnlinkedBlobs :many
-- Placed blobs that nothing links, from a row on.
SELECT s.id FROM imagestorage s
WHERE s.id > @after_id
  AND NOT EXISTS (SELECT 1 FROM manifestblob b WHERE b.blob_id = s.id)
  AND NOT EXISTS (SELECT 1 FROM uploadedblob b WHERE b.blob_id = s.id)
  AND EXISTS (SELECT 1 FROM imagestorageplacement p WHERE p.storage_id = s.id)
ORDER BY s.id
LIMIT 500;

-- name: DeletedRepository :one
SELECT d.id, d.repository_id FROM deletedrepository d WHERE d.id = @id;

-- name: DeletedNamespace :one
SELECT d.id, d.namespace_id, d.original_username, d.marked FROM deletednamespace d WHERE d.id = @id;

-- name: MarkRepositoriesOfNamespace :many
-- Marks the repositories of a namespace for deletion and returns them all.
WITH marked AS (
  UPDATE repository r SET state = 3 WHERE r.namespace_user_id = @namespace_user_id AND r.state <> 3
)
SELECT r.id FROM repository r WHERE r.namespace_user_id = @namespace_user_id ORDER BY r.id;

-- name: RepositoryIsEmpty :one
SELECT (NOT EXISTS (SELECT 1 FROM manifest m WHERE m.repository_id = r.id)
  AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.repository_id = r.id)
  AND NOT EXISTS (SELECT 1 FROM uploadedblob b WHERE b.repository_id = r.id))::boolean AS empty
FROM repository r WHERE r.id = @id;

-- name: RobotsOfNamespace :many
-- The robots that a namespace left when it was marked for deletion. Its name is free from then on: robots made later, and
-- those of unknown age where the name has an owner again, are somebody else's.
SELECT u.id FROM "user" u
WHERE u.robot AND starts_with(u.username, @name::text || '+')
  AND coalesce(u.creation_date <= @marked::timestamp, NOT EXISTS (SELECT 1 FROM "user" o WHERE o.username = @name::text))
ORDER BY u.id;

-- name: NamespacesToCount :many
-- Namespaces whose total nobody has begun to count.
SELECT u.id FROM "user" u
WHERE u.enabled AND NOT u.robot
  AND NOT EXISTS (SELECT 1 FROM quotanamespacesize q WHERE q.namespace_user_id = u.id AND q.backfill_start_ms IS NOT NULL)
ORDER BY u.id
LIMIT @count;

-- name: BeginNamespaceTotal :execrows
-- No row when somebody else has begun.
INSERT INTO quotanamespacesize (namespace_user_id, size_bytes, backfill_start_ms, backfill_complete)
VALUES (@namespace_user_id, 0, @now_ms::bigint, FALSE)
ON CONFLICT (namespace_user_id) DO UPDATE SET size_bytes = 0, backfill_start_ms = EXCLUDED.backfill_start_ms, backfill_complete = FALSE
  WHERE quotanamespacesize.backfill_start_ms IS NULL;

-- name: CountNamespaceTotal :exec
UPDATE quotanamespacesize SET backfill_complete = TRUE, size_bytes = (
  SELECT COALESCE(sum(s.image_size), 0) FROM imagestorage s WHERE s.id IN (
    SELECT b.blob_id FROM manifestblob b JOIN repository r ON r.id = b.repository_id WHERE r.namespace_user_id = @namespace_user_id))
WHERE quotanamespacesize.namespace_user_id = @namespace_user_id;

-- name: RepositoriesToCount :many
-- Repositories of a namespace whose total nobody has begun to count.
SELECT r.id FROM repository r
WHERE r.namespace_user_id = @namespace_user_id AND r.state <> 3
  AND NOT EXISTS (SELECT 1 FROM quotarepositorysize q WHERE q.repository_id = r.id AND q.backfill_start_ms IS NOT NULL)
ORDER BY r.id;

-- name: BeginRepositoryTotal :execrows
INSERT INTO quotarepositorysize (repository_id, size_bytes, backfill_start_ms, backfill_complete)
VALUES (@repository_id, 0, @now_ms::bigint, FALSE)
ON CONFLICT (repository_id) DO UPDATE SET size_bytes = 0, backfill_start_ms = EXCLUDED.backfill_start_ms, backfill_complete = FALSE
  WHERE quotarepositorysize.backfill_start_ms IS NULL;

-- name: CountRepositoryTotal :exec
UPDATE quotarepositorysize SET backfill_complete = TRUE, size_bytes = (
  SELECT COALESCE(sum(s.image_size), 0) FROM imagestorage s WHERE s.id IN (
    SELECT b.blob_id FROM manifestblob b WHERE b.repository_id = @repository_id))
WHERE quotarepositorysize.repository_id = @repository_id;

-- name: BeginRegistryTotal :many
-- Takes the order to count the whole registry, if there is one that nobody else holds.
UPDATE quotaregistrysize SET running = TRUE, queued = FALSE
WHERE id IN (SELECT q.id FROM quotaregistrysize q WHERE q.queued ORDER BY q.id FOR UPDATE SKIP LOCKED)
RETURNING id;

-- name: CountRegistryTotal :exec
UPDATE quotaregistrysize SET running = FALSE, completed_ms = @now_ms::bigint,
  size_bytes = (SELECT COALESCE(sum(s.image_size), 0) FROM imagestorage s)
WHERE id = ANY(@ids::bigint[]);
