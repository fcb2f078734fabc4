-- Users of the built-in user database (AUTHENTICATION_TYPE Database). Rows as the recordings of POST /api/v1/user/ and
-- PUT /api/v1/superuser/users/{username} show them.

-- name: NamespaceByUsername :one
-- A user, organization or robot.
SELECT * FROM "user" WHERE username = $1;

-- name: EmailInUse :one
SELECT EXISTS (SELECT 1 FROM "user" WHERE email = $1) AS used;

-- name: NamespaceIsBeingDeleted :one
-- Whether the name belonged to a namespace whose content is still being removed.
SELECT EXISTS (SELECT 1 FROM deletednamespace WHERE original_username = @username::text) AS deleting;

-- name: CreateUser :one
INSERT INTO "user" (uuid, username, password_hash, email, verified, organization, robot, invoice_email,
    invalid_login_attempts, last_invalid_login, removed_tag_expiration_s, enabled, creation_date)
VALUES (@uuid::text, @username, @password_hash::text, @email, @verified, false, false, false, 0, @now, 1209600, true, @now)
RETURNING *;

-- name: AddUserPrompt :execrows
INSERT INTO userprompt (user_id, kind_id) SELECT @user_id, k.id FROM userpromptkind k WHERE k.name = @prompt;

-- name: SetUserPassword :one
-- The new uuid ends the user's sessions.
UPDATE "user" SET password_hash = @password_hash::text, invalid_login_attempts = 0, uuid = @uuid::text
WHERE username = @username AND NOT organization AND NOT robot
RETURNING id;

-- name: AddAccountLog :execrows
-- A row of the action log that concerns an account as a whole and has no request behind it.
INSERT INTO logentry3 (kind_id, account_id, datetime, metadata_json)
SELECT k.id, @account_id, @now, @metadata_json FROM logentrykind k WHERE k.name = @kind;

-- name: ListUsers :many
-- People only, without those whose namespace is being deleted.
SELECT u.username, u.email, u.verified, u.enabled, u.creation_date, u.last_accessed
FROM "user" u
WHERE NOT u.organization AND NOT u.robot
  AND NOT EXISTS (SELECT 1 FROM deletednamespace d WHERE d.namespace_id = u.id)
ORDER BY u.username;
