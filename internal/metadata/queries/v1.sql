-- What /v1 alone asks: manifests by row, the tags of a repository as a map, the search.

-- name: ManifestOfRepository :one
-- A manifest by its row, if it lies in the repository: version 1 image ids are made of row ids.
SELECT m.id, m.digest, mt.name AS media_type, m.manifest_bytes
FROM manifest m
JOIN mediatype mt ON mt.id = m.media_type_id
WHERE m.id = @id AND m.repository_id = @repository_id;

-- name: AliveTags :many
-- All alive, visible tags of a repository.
SELECT t.name, t.manifest_id::bigint AS manifest_id
FROM tag t
WHERE t.repository_id = @repository_id AND NOT t.hidden AND t.manifest_id IS NOT NULL
  AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > @now_ms::bigint)
ORDER BY t.name;

-- name: SearchRepositories :many
-- Image repositories whose name or description contains a text, those whose name does first. The pattern is for ILIKE with
-- the escape character !. An account finds public repositories, those it has a permission on, itself or by a team, and those of
-- organizations that it administers, in each case only those that somebody has a permission on, as ever; without an account,
-- public ones.
SELECT n.username AS namespace, r.name, r.description, v.name AS visibility
FROM repository r
JOIN repositorysearchscore s ON s.repository_id = r.id
JOIN "user" n ON n.id = r.namespace_user_id
JOIN visibility v ON v.id = r.visibility_id
JOIN repositorykind k ON k.id = r.kind_id AND k.name = 'image'
WHERE r.state <> 3
  AND (r.name ILIKE @pattern::text ESCAPE '!' OR r.description ILIKE @pattern::text ESCAPE '!')
  AND (@namespace::text = '' OR n.username = @namespace::text)
  AND (sqlc.narg(user_id)::bigint IS NULL OR EXISTS (SELECT 1 FROM repositorypermission p WHERE p.repository_id = r.id))
  AND (v.name = 'public'
    OR EXISTS (SELECT 1 FROM repositorypermission p
               WHERE p.repository_id = r.id
                 AND (p.user_id = sqlc.narg(user_id)::bigint
                   OR p.team_id IN (SELECT m.team_id FROM teammember m WHERE m.user_id = sqlc.narg(user_id)::bigint)))
    OR EXISTS (SELECT 1 FROM team t JOIN teamrole tr ON tr.id = t.role_id AND tr.name = 'admin'
               JOIN teammember m ON m.team_id = t.id
               WHERE t.organization_id = r.namespace_user_id AND m.user_id = sqlc.narg(user_id)::bigint))
ORDER BY CASE WHEN r.name ILIKE @pattern::text ESCAPE '!' THEN 100 * s.score ELSE s.score END DESC, s.id
LIMIT @max_rows::bigint OFFSET @skip_rows::bigint;

-- name: DropPasswordNotification :exec
-- An account that has set a password is no longer told to.
DELETE FROM notification n USING notificationkind k
WHERE n.kind_id = k.id AND k.name = 'password_required' AND n.target_id = @user_id;
