-- Manifests and tags as the registry's protocol sees them. Times are milliseconds since the epoch. A tag is alive when
-- its lifetime_end_ms is null or in the future, and visible when it is not hidden.

-- name: ManifestByTag :one
-- The manifest that an alive, visible tag names.
SELECT m.id, m.digest, mt.name AS media_type, m.manifest_bytes
FROM tag t
JOIN manifest m ON m.id = t.manifest_id
JOIN mediatype mt ON mt.id = m.media_type_id
WHERE t.repository_id = @repository_id AND t.name = @name AND NOT t.hidden
  AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint)
ORDER BY t.lifetime_end_ms DESC
LIMIT 1;

-- name: TagHasEnded :one
-- Whether a tag of this name ever ended.
SELECT EXISTS (SELECT 1 FROM tag t WHERE t.repository_id = @repository_id AND t.name = @name AND t.lifetime_end_ms <= @now_ms::bigint);

-- name: ManifestByDigest :one
-- The manifest, if an alive tag (hidden ones count) keeps it or a list that directly contains it.
SELECT m.id, m.digest, mt.name AS media_type, m.manifest_bytes
FROM manifest m
JOIN mediatype mt ON mt.id = m.media_type_id
WHERE m.repository_id = @repository_id AND m.digest = @digest
  AND (EXISTS (SELECT 1 FROM tag t WHERE t.manifest_id = m.id AND t.repository_id = m.repository_id
               AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint))
    OR EXISTS (SELECT 1 FROM manifestchild c JOIN tag t ON t.manifest_id = c.manifest_id
               WHERE c.child_manifest_id = m.id AND t.repository_id = m.repository_id
               AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint)));

-- name: ManifestsOfDigests :many
-- The manifests of a repository with these digests, whether or not anything keeps them.
SELECT m.id, m.digest, mt.name AS media_type, octet_length(m.manifest_bytes)::bigint AS size, m.manifest_bytes
FROM manifest m
JOIN mediatype mt ON mt.id = m.media_type_id
WHERE m.repository_id = @repository_id AND m.digest = ANY(@digests::text[]);

-- name: Referrers :many
-- The manifests whose subject is this digest, oldest first.
SELECT m.id, m.digest, mt.name AS media_type, m.manifest_bytes
FROM manifest m
JOIN mediatype mt ON mt.id = m.media_type_id
WHERE m.repository_id = @repository_id AND m.subject = @subject::text
ORDER BY m.id;

-- name: TagNames :many
-- Names of alive visible tags behind the given one, in the database's collation.
SELECT DISTINCT t.name
FROM tag t
WHERE t.repository_id = @repository_id AND NOT t.hidden AND (@last::text = '' OR t.name > @last::text)
  AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint)
ORDER BY t.name
LIMIT @count;

-- name: CatalogPage :many
-- Image repositories from an id on: everybody's, or public ones, or those that an account may see through a permission
-- of its own, a team's, or as an administrator of their organization.
SELECT r.id, u.username AS namespace, r.name
FROM repository r
JOIN "user" u ON u.id = r.namespace_user_id
JOIN repositorykind k ON k.id = r.kind_id
WHERE r.id >= @start_id AND r.state <> 3 AND k.name = 'image'
  AND (@everything::boolean
    OR @public::boolean AND r.visibility_id = (SELECT v.id FROM visibility v WHERE v.name = 'public')
    OR r.id IN (
      SELECT p.repository_id FROM repositorypermission p WHERE p.user_id = @account_id
      UNION
      SELECT p.repository_id FROM repositorypermission p JOIN teammember tm ON tm.team_id = p.team_id
      WHERE tm.user_id = @account_id
      UNION
      SELECT o.id FROM repository o JOIN team t ON t.organization_id = o.namespace_user_id
      JOIN teamrole tr ON tr.id = t.role_id AND tr.name = 'admin' JOIN teammember tm ON tm.team_id = t.id
      WHERE tm.user_id = @account_id))
ORDER BY r.id
LIMIT @count;

-- name: CatalogAccount :one
-- The enabled account of a name.
SELECT id, username FROM "user" WHERE username = @username AND enabled;

-- name: RepositoryIDOfName :one
SELECT r.id FROM repository r JOIN "user" u ON u.id = r.namespace_user_id
WHERE u.username = @namespace AND r.name = @name;

-- name: BlobsForManifest :many
-- Of these digests the blobs that the repository holds: uploaded to it, or part of one of its manifests. An expired
-- upload counts until it is collected.
SELECT DISTINCT ON (s.content_checksum) s.id, s.uuid, s.content_checksum::text AS digest, s.image_size, s.cas_path,
  ARRAY(SELECT l.name FROM imagestorageplacement p JOIN imagestoragelocation l ON l.id = p.location_id
        WHERE p.storage_id = s.id ORDER BY l.id)::text[] AS locations
FROM imagestorage s
WHERE s.content_checksum = ANY(@digests::text[])
  AND (EXISTS (SELECT 1 FROM uploadedblob b WHERE b.blob_id = s.id AND b.repository_id = @repository_id)
    OR EXISTS (SELECT 1 FROM manifestblob b WHERE b.blob_id = s.id AND b.repository_id = @repository_id))
ORDER BY s.content_checksum, s.id;

-- name: PushedManifest :one
-- A manifest that may have been pushed before, and whether a tag keeps it at least until then.
SELECT m.id, EXISTS (SELECT 1 FROM tag t WHERE t.manifest_id = m.id AND t.repository_id = m.repository_id
  AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms >= @kept_until_ms::bigint)) AS kept
FROM manifest m
WHERE m.repository_id = @repository_id AND m.digest = @digest;

-- name: ActionLabels :many
-- Stored labels that steer tags.
SELECT ml.manifest_id, l.key, l.value
FROM manifestlabel ml
JOIN label l ON l.id = ml.label_id
WHERE ml.manifest_id = ANY(@manifest_ids::bigint[]) AND l.key IN ('quay.expires-after', 'quay.immutable')
ORDER BY l.id;

-- name: LockTags :exec
-- One holder at a time until the end of the transaction; the legacy server uses the same keys.
SELECT pg_advisory_xact_lock(@key);

-- name: InsertManifest :one
-- A manifest with everything that belongs to it. No row when the repository has one of this digest.
WITH m AS (
  INSERT INTO manifest (repository_id, digest, media_type_id, manifest_bytes, config_media_type, layers_compressed_size,
    subject, subject_backfilled, artifact_type, artifact_type_backfilled)
  VALUES (@repository_id, @digest, (SELECT t.id FROM mediatype t WHERE t.name = @media_type), @manifest_bytes,
    sqlc.narg(config_media_type), sqlc.narg(layers_compressed_size), sqlc.narg(subject), TRUE, sqlc.narg(artifact_type), TRUE)
  ON CONFLICT (repository_id, digest) DO NOTHING
  RETURNING id, repository_id
), blobs AS (
  INSERT INTO manifestblob (repository_id, manifest_id, blob_id)
  SELECT m.repository_id, m.id, unnest(@blob_ids::bigint[]) FROM m
), children AS (
  INSERT INTO manifestchild (repository_id, manifest_id, child_manifest_id)
  SELECT m.repository_id, m.id, unnest(@child_ids::bigint[]) FROM m
), security AS (
  INSERT INTO manifestsecuritystatus (repository_id, manifest_id, index_status, error_json, last_indexed, indexer_hash,
    indexer_version, metadata_json)
  SELECT m.repository_id, m.id, 0, '{}', @now, '', 4, '{}' FROM m
), labels AS (
  INSERT INTO label (uuid, key, value, media_type_id, source_type_id)
  SELECT l.uuid, l.key, l.value, t.id, s.id
  FROM m
  CROSS JOIN (SELECT unnest(@label_uuids::text[]) AS uuid, unnest(@label_keys::text[]) AS key,
                unnest(@label_values::text[]) AS value, unnest(@label_types::text[]) AS type) l
  JOIN mediatype t ON t.name = l.type
  JOIN labelsourcetype s ON s.name = 'manifest'
  ORDER BY array_position(@label_uuids::text[], l.uuid)
  RETURNING id
), manifest_labels AS (
  INSERT INTO manifestlabel (repository_id, manifest_id, label_id)
  SELECT m.repository_id, m.id, labels.id FROM m CROSS JOIN labels ORDER BY labels.id
), repository_size AS (
  UPDATE quotarepositorysize q SET size_bytes = 0, backfill_start_ms = NULL, backfill_complete = FALSE
  FROM m WHERE @reset_quota::boolean AND q.repository_id = m.repository_id
    AND (q.size_bytes <> 0 OR q.backfill_complete OR q.backfill_start_ms IS NOT NULL)
), namespace_size AS (
  UPDATE quotanamespacesize q SET size_bytes = 0, backfill_start_ms = NULL, backfill_complete = FALSE
  FROM m WHERE @reset_quota::boolean AND q.namespace_user_id = @namespace_user_id
    AND (q.size_bytes <> 0 OR q.backfill_complete OR q.backfill_start_ms IS NOT NULL)
)
SELECT id FROM m;

-- name: AddQuotaOfManifest :exec
-- Counts the blobs that no other manifest of the repository, or of the namespace, references. A total that does not exist
-- is begun only by the first manifest with blobs of its scope, and one that is being computed is left alone.
WITH fresh AS (
  SELECT s.id, COALESCE(s.image_size, 0) AS size FROM imagestorage s WHERE s.id = ANY(@blob_ids::bigint[])
), in_repository AS (
  INSERT INTO quotarepositorysize (repository_id, size_bytes, backfill_start_ms, backfill_complete)
  SELECT @repository_id, (SELECT COALESCE(sum(f.size), 0) FROM fresh f WHERE NOT EXISTS (SELECT 1 FROM manifestblob b
      WHERE b.blob_id = f.id AND b.repository_id = @repository_id AND b.manifest_id <> @manifest_id)), 0, TRUE
  WHERE EXISTS (SELECT 1 FROM quotarepositorysize e WHERE e.repository_id = @repository_id)
    OR NOT EXISTS (SELECT 1 FROM manifestblob o WHERE o.repository_id = @repository_id AND o.manifest_id <> @manifest_id)
  ON CONFLICT (repository_id) DO UPDATE SET size_bytes = quotarepositorysize.size_bytes + EXCLUDED.size_bytes
    WHERE quotarepositorysize.backfill_complete
)
INSERT INTO quotanamespacesize (namespace_user_id, size_bytes, backfill_start_ms, backfill_complete)
SELECT @namespace_user_id, (SELECT COALESCE(sum(f.size), 0) FROM fresh f WHERE NOT EXISTS (
    SELECT 1 FROM manifestblob b JOIN repository r ON r.id = b.repository_id
    WHERE b.blob_id = f.id AND r.namespace_user_id = @namespace_user_id AND b.manifest_id <> @manifest_id)), 0, TRUE
WHERE EXISTS (SELECT 1 FROM quotanamespacesize e WHERE e.namespace_user_id = @namespace_user_id)
  OR NOT EXISTS (SELECT 1 FROM manifestblob o JOIN repository r ON r.id = o.repository_id
                 WHERE r.namespace_user_id = @namespace_user_id AND o.manifest_id <> @manifest_id)
ON CONFLICT (namespace_user_id) DO UPDATE SET size_bytes = quotanamespacesize.size_bytes + EXCLUDED.size_bytes
  WHERE quotanamespacesize.backfill_complete;

-- name: NamespaceQuota :many
-- What a namespace uses and where its limits lie; without limits one row with a null limit.
SELECT COALESCE((SELECT s.size_bytes FROM quotanamespacesize s WHERE s.namespace_user_id = @namespace_user_id), 0)::bigint AS used,
  q.limit_bytes, t.name AS severity, l.percent_of_limit
FROM (SELECT 1) one
LEFT JOIN userorganizationquota q ON q.namespace_id = @namespace_user_id
LEFT JOIN quotalimits l ON l.quota_id = q.id
LEFT JOIN quotatype t ON t.id = l.quota_type_id;

-- name: NotifyQuota :exec
-- Tells the namespace's user, or the administrators of the organization, unless they have been told.
INSERT INTO notification (uuid, kind_id, target_id, metadata_json, created, dismissed)
SELECT gen_random_uuid()::text, k.id, target.id, @metadata_json::text, @now::timestamp, FALSE
FROM notificationkind k
CROSS JOIN (
  SELECT u.id FROM "user" u WHERE u.id = @namespace_user_id AND NOT u.organization
  UNION
  SELECT tm.user_id FROM team t JOIN teamrole tr ON tr.id = t.role_id AND tr.name = 'admin'
  JOIN teammember tm ON tm.team_id = t.id JOIN "user" u ON u.id = tm.user_id AND NOT u.robot
  WHERE t.organization_id = @namespace_user_id) target
WHERE k.name = @kind AND NOT EXISTS (SELECT 1 FROM notification n
  WHERE n.kind_id = k.id AND n.target_id = target.id AND n.metadata_json = @metadata_json::text);

-- name: TagsOfName :many
-- The visible tags of a name that are alive or ended not long ago, newest first.
SELECT t.id, t.manifest_id, COALESCE(m.digest, '')::text AS digest, t.immutable, t.lifetime_start_ms, t.lifetime_end_ms
FROM tag t
LEFT JOIN manifest m ON m.id = t.manifest_id
WHERE t.repository_id = @repository_id AND t.name = @name AND NOT t.hidden
  AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @since_ms::bigint)
ORDER BY t.id DESC;

-- name: TagsOfManifest :many
-- The alive visible tags of a manifest.
SELECT t.id, t.name, t.manifest_id, m.digest, t.immutable
FROM manifest m
JOIN tag t ON t.manifest_id = m.id AND t.repository_id = m.repository_id
WHERE m.repository_id = @repository_id AND m.digest = @digest AND NOT t.hidden
  AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint)
ORDER BY t.id;

-- name: TagRules :one
-- What else decides about a push: policies that make tags immutable, and whether somebody wants to be notified.
SELECT ARRAY(SELECT np.policy FROM namespaceimmutabilitypolicy np WHERE np.namespace_id = r.namespace_user_id)::text[] AS namespace_policies,
  ARRAY(SELECT rp.policy FROM repositoryimmutabilitypolicy rp WHERE rp.repository_id = r.id)::text[] AS repository_policies,
  ARRAY(SELECT n.uuid FROM repositorynotification n JOIN externalnotificationevent e ON e.id = n.event_id
        WHERE n.repository_id = r.id AND e.name = 'repo_push' AND n.number_of_failures < 3 ORDER BY n.id)::text[] AS notifications
FROM repository r
WHERE r.id = @repository_id;

-- name: EndTags :exec
-- Ends tags now, or as shortly before as no other tag of the same name ended: (repository, name, end) is unique.
WITH forgotten AS (
  DELETE FROM tagnotificationsuccess s WHERE s.tag_id = ANY(@ids::bigint[])
)
UPDATE tag t SET lifetime_end_ms = (
  SELECT max(g) FROM generate_series(@first_ms::bigint, @now_ms::bigint) g
  WHERE NOT EXISTS (SELECT 1 FROM tag o WHERE o.repository_id = t.repository_id AND o.name = t.name AND o.lifetime_end_ms = g))
WHERE t.id = ANY(@ids::bigint[]);

-- name: SiblingTags :many
-- Alive, mutable tags of these names, unless another alive normal tag still names the manifest.
SELECT t.id FROM tag t
WHERE t.repository_id = @repository_id AND t.name = ANY(@names::text[]) AND NOT t.hidden AND NOT t.immutable
  AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint)
  AND NOT EXISTS (SELECT 1 FROM tag o WHERE o.manifest_id = @manifest_id AND o.repository_id = t.repository_id AND NOT o.hidden
    AND (o.lifetime_end_ms IS NULL OR o.lifetime_end_ms > @now_ms::bigint) AND o.name !~ '^sha256-[0-9a-f]{64}\.(sig|att|sbom)$');

-- name: TemporaryTagsOfChildren :many
-- Alive hidden tags of the manifests that these lists contain.
SELECT t.id FROM manifestchild c
JOIN tag t ON t.manifest_id = c.child_manifest_id AND t.repository_id = c.repository_id
WHERE c.repository_id = @repository_id AND c.manifest_id = ANY(@manifest_ids::bigint[]) AND t.hidden
  AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint);

-- name: DeletePullStatistics :exec
DELETE FROM tagpullstatistics WHERE repository_id = @repository_id AND tag_name = ANY(@names::text[]);

-- name: InsertTag :one
INSERT INTO tag (name, repository_id, manifest_id, lifetime_start_ms, lifetime_end_ms, hidden, reversion, tag_kind_id, immutable)
VALUES (@name, @repository_id, @manifest_id::bigint, @start_ms, sqlc.narg(end_ms), @hidden, FALSE, (SELECT k.id FROM tagkind k WHERE k.name = 'tag'), @immutable)
RETURNING id;

-- name: QueueItems :exec
-- Items of the legacy queues, available now.
INSERT INTO queueitem (queue_name, body, available_after, available, retries_remaining, state_id)
SELECT unnest(@names::text[]), unnest(@bodies::text[]), @now::timestamp, TRUE, 5, unnest(@state_ids::text[]);
