-- Blobs, their placements and links, and uploads on their way to become blobs.

-- name: BlobOfRepository :one
-- A blob that a repository shows: any link counts, also an expired one, or a manifest of the repository. Placements are
-- names of locations. Rows without a placement (placeholders of proxy caches) come last.
SELECT s.id, s.uuid, s.image_size, s.uncompressed_size, s.cas_path, s.content_checksum,
       ARRAY(SELECT l.name FROM imagestorageplacement p JOIN imagestoragelocation l ON l.id = p.location_id
             WHERE p.storage_id = s.id ORDER BY p.id)::text[] AS placements
FROM imagestorage s
JOIN repository r ON r.name = @repository AND r.state <> 3
JOIN "user" n ON n.id = r.namespace_user_id AND n.username = @namespace
WHERE s.content_checksum = @digest
  AND (EXISTS (SELECT 1 FROM uploadedblob u WHERE u.repository_id = r.id AND u.blob_id = s.id)
       OR EXISTS (SELECT 1 FROM manifestblob m WHERE m.repository_id = r.id AND m.blob_id = s.id))
ORDER BY EXISTS (SELECT 1 FROM imagestorageplacement p WHERE p.storage_id = s.id) DESC, s.id
LIMIT 1;

-- name: BlobOfDigest :one
-- A blob wherever it is linked: for digests that every repository shares.
SELECT s.id, s.uuid, s.image_size, s.uncompressed_size, s.cas_path, s.content_checksum,
       ARRAY(SELECT l.name FROM imagestorageplacement p JOIN imagestoragelocation l ON l.id = p.location_id
             WHERE p.storage_id = s.id ORDER BY p.id)::text[] AS placements
FROM imagestorage s
WHERE s.content_checksum = @digest
ORDER BY EXISTS (SELECT 1 FROM imagestorageplacement p WHERE p.storage_id = s.id) DESC, s.id
LIMIT 1;

-- name: CommitBlob :one
-- Turns an upload into a blob of its repository: get or create the row, fill in sizes it lacks, place it, link it, forget
-- the upload. All or nothing: no row when the upload or its repository is gone (or marked for deletion). Callers hold
-- the lock BLOB_DELETE_<digest>, as content_checksum is not unique; FOR UPDATE is against collectors without it.
WITH home AS (
  SELECT r.id FROM repository r WHERE r.id = @repository_id AND r.state <> 3 FOR KEY SHARE
), upload AS (
  DELETE FROM blobupload b USING home WHERE b.id = @upload_id AND b.repository_id = home.id
  RETURNING b.id, b.repository_id, b.location_id, b.byte_count, b.uncompressed_byte_count
), existing AS (
  SELECT s.id FROM imagestorage s
  WHERE s.content_checksum = @digest AND s.cas_path AND EXISTS (SELECT 1 FROM upload) ORDER BY s.id LIMIT 1 FOR UPDATE
), created AS (
  INSERT INTO imagestorage (uuid, image_size, uncompressed_size, uploading, cas_path, content_checksum)
  SELECT @uuid::text, upload.byte_count, upload.uncompressed_byte_count, true, true, @digest FROM upload
  WHERE NOT EXISTS (SELECT 1 FROM existing)
  RETURNING id
), filled AS (
  UPDATE imagestorage s
  SET image_size = coalesce(s.image_size, upload.byte_count), uncompressed_size = coalesce(s.uncompressed_size, upload.uncompressed_byte_count)
  FROM existing, upload
  WHERE s.id = existing.id AND (s.image_size IS NULL OR s.uncompressed_size IS NULL AND upload.uncompressed_byte_count IS NOT NULL)
), blob AS (
  SELECT id FROM existing UNION ALL SELECT id FROM created
), placed AS (
  INSERT INTO imagestorageplacement (storage_id, location_id)
  SELECT blob.id, upload.location_id FROM blob, upload
  WHERE NOT EXISTS (SELECT 1 FROM imagestorageplacement p WHERE p.storage_id = blob.id AND p.location_id = upload.location_id)
  ON CONFLICT (storage_id, location_id) DO NOTHING
), linked AS (
  INSERT INTO uploadedblob (repository_id, blob_id, uploaded_at, expires_at)
  SELECT upload.repository_id, blob.id, @uploaded_at::timestamp, @expires_at::timestamp FROM blob, upload
)
SELECT blob.id FROM blob;

-- name: LinkBlob :execrows
-- Shows a blob in a repository and keeps it from garbage collection for a while. No row when the repository is gone or
-- marked for deletion.
INSERT INTO uploadedblob (repository_id, blob_id, uploaded_at, expires_at)
SELECT r.id, @blob_id::integer, @uploaded_at::timestamp, @expires_at::timestamp
FROM repository r WHERE r.id = @repository_id AND r.state <> 3;

-- name: InsertBlobUpload :execrows
-- No row when the storage location has none, which AddStorageLocation makes.
INSERT INTO blobupload (repository_id, uuid, byte_count, sha_state, location_id, storage_metadata, chunk_count, created)
SELECT @repository_id::integer, @uuid::text, 0, @sha_state::text, l.id, @storage_metadata::text, 0, @created::timestamp
FROM imagestoragelocation l WHERE l.name = @location;

-- name: BlobUpload :one
SELECT u.id, u.repository_id, u.uuid, u.byte_count, u.sha_state, u.location_id, l.name AS location, u.storage_metadata,
       u.chunk_count, u.uncompressed_byte_count, u.created
FROM blobupload u JOIN imagestoragelocation l ON l.id = u.location_id
WHERE u.uuid = @uuid;

-- name: AdvanceBlobUpload :execrows
-- Records what was appended, unless another process has appended meanwhile.
UPDATE blobupload
SET byte_count = @byte_count, sha_state = @sha_state, storage_metadata = @storage_metadata, chunk_count = @chunk_count,
    uncompressed_byte_count = sqlc.narg(uncompressed_byte_count)
WHERE id = @id AND byte_count = @was_byte_count AND chunk_count = @was_chunk_count;

-- name: ReceivedBytes :one
-- What the unfinished uploads of a repository have received.
SELECT COALESCE(sum(byte_count), 0)::bigint FROM blobupload WHERE repository_id = @repository_id;

-- name: DeleteBlobUpload :execrows
DELETE FROM blobupload WHERE id = @id;
