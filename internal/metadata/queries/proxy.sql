-- Organizations that cache another registry. A manifest without bytes and a blob without a placement are placeholders: known
-- from what refers to them, fetched when somebody asks.

-- name: ProxyCacheOfNamespace :one
SELECT c.organization_id, c.upstream_registry, c.upstream_registry_username, c.upstream_registry_password, c.expiration_s, c.insecure
FROM proxycacheconfig c
JOIN "user" u ON u.id = c.organization_id
WHERE u.username = @namespace
ORDER BY c.id
LIMIT 1;

-- name: ProxiedTag :one
-- The visible tag of a name that ends last, alive or not, with what it names.
SELECT t.id, t.manifest_id, t.immutable, t.lifetime_end_ms, m.digest, (m.manifest_bytes = '')::boolean AS placeholder
FROM tag t
JOIN manifest m ON m.id = t.manifest_id
WHERE t.repository_id = @repository_id AND t.name = @name AND NOT t.hidden
ORDER BY t.lifetime_end_ms DESC NULLS FIRST, t.id DESC
LIMIT 1;

-- name: ProxiedManifest :one
-- A manifest, whether or not anything keeps it, with the tag that keeps it longest: an alive one, or a hidden one. Ended
-- visible tags are left in peace, because another tag may have their name now. tag_id is 0 when there is none.
SELECT m.id, (m.manifest_bytes = '')::boolean AS placeholder,
  COALESCE((SELECT t.id FROM tag t WHERE t.manifest_id = m.id AND t.repository_id = m.repository_id
              AND (t.hidden OR t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint)
            ORDER BY t.lifetime_end_ms DESC NULLS FIRST, t.id DESC LIMIT 1), 0)::bigint AS tag_id
FROM manifest m
WHERE m.repository_id = @repository_id AND m.digest = @digest;

-- name: RenewTag :exec
-- Lets a tag end later, and with it the alive tags of the lists that contain its manifest.
UPDATE tag t SET lifetime_end_ms = sqlc.narg(end_ms)
WHERE t.lifetime_end_ms IS DISTINCT FROM sqlc.narg(end_ms)
  AND (t.id = @tag_id OR t.lifetime_end_ms > @now_ms::bigint AND t.manifest_id IN (
    SELECT c.manifest_id FROM manifestchild c JOIN tag k ON k.manifest_id = c.child_manifest_id AND k.repository_id = c.repository_id
    WHERE k.id = @tag_id AND c.repository_id = t.repository_id));

-- name: InsertProxiedManifest :one
-- A manifest alone; without bytes a placeholder. No row when the repository has one of this digest.
INSERT INTO manifest (repository_id, digest, media_type_id, manifest_bytes, config_media_type, layers_compressed_size,
  subject, subject_backfilled, artifact_type, artifact_type_backfilled)
VALUES (@repository_id, @digest, (SELECT t.id FROM mediatype t WHERE t.name = @media_type), @manifest_bytes,
  sqlc.narg(config_media_type), sqlc.narg(layers_compressed_size), sqlc.narg(subject), TRUE, sqlc.narg(artifact_type), TRUE)
ON CONFLICT (repository_id, digest) DO NOTHING
RETURNING id;

-- name: FillManifest :execrows
-- Turns a placeholder into the manifest; no row when it is none (any more).
UPDATE manifest SET manifest_bytes = @manifest_bytes, layers_compressed_size = sqlc.narg(layers_compressed_size)
WHERE id = @id AND manifest_bytes = '';

-- name: LinkProxiedBlobs :many
-- Lets a manifest name its blobs; those that nobody has yet become placeholders. A size of -1 is unknown.
WITH wanted AS (
  SELECT unnest(@digests::text[]) AS digest, unnest(@sizes::bigint[]) AS size, unnest(@uuids::text[]) AS uuid
), existing AS (
  SELECT DISTINCT ON (s.content_checksum) s.id, s.content_checksum AS digest
  FROM imagestorage s WHERE s.content_checksum = ANY(@digests::text[])
  ORDER BY s.content_checksum, EXISTS (SELECT 1 FROM imagestorageplacement p WHERE p.storage_id = s.id) DESC, s.id
), created AS (
  INSERT INTO imagestorage (uuid, image_size, uploading, cas_path, content_checksum)
  SELECT w.uuid, NULLIF(w.size, -1), TRUE, TRUE, w.digest
  FROM wanted w
  WHERE NOT EXISTS (SELECT 1 FROM existing e WHERE e.digest = w.digest)
  ORDER BY array_position(@digests::text[], w.digest)
  RETURNING id, content_checksum AS digest
), blobs AS (
  SELECT id, digest FROM existing UNION ALL SELECT id, digest FROM created
), linked AS (
  INSERT INTO manifestblob (repository_id, manifest_id, blob_id)
  SELECT @repository_id, @manifest_id, b.id FROM blobs b ORDER BY array_position(@digests::text[], b.digest)
  ON CONFLICT DO NOTHING
)
SELECT b.id::bigint AS id FROM blobs b;

-- name: ConnectChildren :exec
INSERT INTO manifestchild (repository_id, manifest_id, child_manifest_id)
SELECT @repository_id, @manifest_id, c.id
FROM unnest(@child_ids::bigint[]) AS c(id)
WHERE NOT EXISTS (SELECT 1 FROM manifestchild o WHERE o.manifest_id = @manifest_id AND o.child_manifest_id = c.id);

-- name: CachedBytes :one
-- What the alive tags of a namespace keep, each blob counted once.
SELECT COALESCE(sum(s.image_size), 0)::bigint AS bytes
FROM imagestorage s
WHERE s.id IN (
  SELECT b.blob_id FROM manifestblob b
  JOIN tag t ON t.manifest_id = b.manifest_id AND t.repository_id = b.repository_id
  JOIN repository r ON r.id = t.repository_id AND r.namespace_user_id = @namespace_user_id
  WHERE t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint);

-- name: FirstCachedTag :one
-- Of the alive tags of a namespace that may end the one that ends first, and for how long the time machine keeps it.
SELECT t.id, u.removed_tag_expiration_s
FROM tag t
JOIN repository r ON r.id = t.repository_id
JOIN "user" u ON u.id = r.namespace_user_id AND u.id = @namespace_user_id
WHERE NOT t.immutable AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint)
ORDER BY t.lifetime_end_ms ASC NULLS LAST, t.id
LIMIT 1;
