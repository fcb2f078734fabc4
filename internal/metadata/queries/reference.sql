-- Rows the migrations leave behind and code looks up by name (ids differ between installations).

-- name: RevisionOfDatabase :many
-- The alembic revisions a database names; a sound one has exactly one.
SELECT version_num FROM alembic_version ORDER BY version_num;

-- name: StorageLocations :many
SELECT * FROM imagestoragelocation ORDER BY id;

-- name: AddStorageLocation :execrows
-- Adds a row for a configured storage name unless there is one.
INSERT INTO imagestoragelocation (name) VALUES (@name) ON CONFLICT (name) DO NOTHING;
