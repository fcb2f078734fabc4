-- Accounts, credentials, permissions, repositories by name, instance keys, the action log.

-- name: RepositoryByName :one
-- A repository that is not marked for deletion, with what the request pipeline asks of it.
SELECT r.id, r.name, u.id AS namespace_user_id, u.username AS namespace, u.enabled AS namespace_enabled,
       u.organization AS namespace_organization, v.name AS visibility, k.name AS kind, r.state, r.trust_enabled
  FROM repository r
  JOIN "user" u ON u.id = r.namespace_user_id
  JOIN visibility v ON v.id = r.visibility_id
  JOIN repositorykind k ON k.id = r.kind_id
 WHERE u.username = @namespace AND r.name = @name AND r.state <> 3;

-- name: AccountByName :one
SELECT id, uuid, username, email, organization, robot, enabled FROM "user" WHERE username = @username;

-- name: AccountByUUID :one
SELECT id, uuid, username, email, organization, robot, enabled FROM "user" WHERE uuid = @uuid;

-- name: SmallestAccountID :one
-- The account of log entries that belong to no namespace.
SELECT id FROM "user" ORDER BY id LIMIT 1;

-- name: LoginByName :one
-- The account that a username or, except for organizations, an e-mail address names.
SELECT id, uuid, username, email, password_hash, enabled, robot, organization, invalid_login_attempts, last_invalid_login
  FROM "user"
 WHERE username = @name OR (email = @name AND NOT organization)
 ORDER BY (username = @name) DESC
 LIMIT 1;

-- name: CountFailedLogin :exec
UPDATE "user" SET invalid_login_attempts = invalid_login_attempts + 1, last_invalid_login = @at WHERE id = @id;

-- name: ClearFailedLogins :exec
UPDATE "user" SET invalid_login_attempts = 0, last_accessed = @at WHERE id = @id;

-- name: TouchAccount :exec
-- Notes that an account was used, at most once in a while.
UPDATE "user" SET last_accessed = @at WHERE id = @id AND (last_accessed IS NULL OR last_accessed < @not_since);

-- name: RobotByName :one
-- A robot with its token, encrypted; the token is null when it has none.
SELECT u.id, u.uuid, u.username, u.enabled, t.token
  FROM "user" u LEFT JOIN robotaccounttoken t ON t.robot_account_id = u.id
 WHERE u.username = @username AND u.robot;

-- name: AppSpecificTokenByName :one
SELECT t.id, t.uuid, t.title, t.token_secret, t.expiration,
       u.id AS user_id, u.uuid AS user_uuid, u.username, u.enabled
  FROM appspecificauthtoken t JOIN "user" u ON u.id = t.user_id
 WHERE t.token_name = @name;

-- name: AppSpecificTokenByUUID :one
SELECT t.id, t.uuid, t.title, u.id AS user_id, u.username, u.enabled
  FROM appspecificauthtoken t JOIN "user" u ON u.id = t.user_id
 WHERE t.uuid = @uuid AND (t.expiration IS NULL OR t.expiration > @now);

-- name: TouchAppSpecificToken :exec
UPDATE appspecificauthtoken SET last_accessed = @at WHERE id = @id AND (last_accessed IS NULL OR last_accessed < @not_since);

-- name: AccessTokenByName :one
SELECT t.id, t.friendly_name, t.token_code, t.repository_id, r.name AS role
  FROM accesstoken t JOIN role r ON r.id = t.role_id
 WHERE t.token_name = @name;

-- name: OAuthTokenByName :one
SELECT t.id, t.uuid, t.token_code, t.scope, t.expires_at, a.name AS application, a.client_id,
       u.id AS user_id, u.uuid AS user_uuid, u.username, u.enabled
  FROM oauthaccesstoken t
  JOIN oauthapplication a ON a.id = t.application_id
  JOIN "user" u ON u.id = t.authorized_user_id
 WHERE t.token_name = @name;

-- name: OAuthTokenByUUID :one
SELECT t.id, t.uuid, a.name AS application, a.client_id, u.id AS user_id, u.username
  FROM oauthaccesstoken t
  JOIN oauthapplication a ON a.id = t.application_id
  JOIN "user" u ON u.id = t.authorized_user_id
 WHERE t.uuid = @uuid;

-- name: TouchOAuthToken :exec
UPDATE oauthaccesstoken SET last_accessed = @at WHERE id = @id AND (last_accessed IS NULL OR last_accessed < @not_since);

-- name: RepositoryRoles :many
-- The roles an account has on a repository, by itself and by its teams.
SELECT DISTINCT r.name
  FROM repositorypermission p JOIN role r ON r.id = p.role_id
 WHERE p.repository_id = @repository_id
   AND (p.user_id = @user_id OR p.team_id IN (SELECT m.team_id FROM teammember m WHERE m.user_id = @user_id));

-- name: OrganizationRoles :many
-- The roles an account has in an organization by its teams: admin, creator, member.
SELECT DISTINCT r.name
  FROM teammember m
  JOIN team t ON t.id = m.team_id
  JOIN teamrole r ON r.id = t.role_id
 WHERE m.user_id = @user_id AND t.organization_id = @organization_id;

-- name: IsProxyCacheOrganization :one
SELECT EXISTS (SELECT 1 FROM proxycacheconfig WHERE organization_id = @organization_id);

-- name: IsMirroredOrganization :one
SELECT EXISTS (SELECT 1 FROM orgmirrorconfig WHERE organization_id = @organization_id);

-- name: MirrorRobotOfRepository :many
-- The robots that may write to a repository in state MIRROR (its own mirror) or ORG_MIRROR (its organization's).
SELECT c.internal_robot_id AS robot_id FROM repomirrorconfig c WHERE c.repository_id = @repository_id AND @state::bigint = 2
UNION
SELECT o.internal_robot_id FROM orgmirrorconfig o JOIN repository r ON r.namespace_user_id = o.organization_id
 WHERE r.id = @repository_id AND @state::bigint = 4;

-- name: CreateRepository :one
-- Adds an image repository; no row when there is one of that name.
INSERT INTO repository (namespace_user_id, name, visibility_id, badge_token, kind_id, trust_enabled, state)
SELECT @namespace_user_id, @name, v.id, @badge_token, k.id, false, 0
  FROM visibility v, repositorykind k
 WHERE v.name = @visibility AND k.name = 'image'
ON CONFLICT DO NOTHING
RETURNING id;

-- name: AddRepositoryActionCount :exec
INSERT INTO repositoryactioncount (repository_id, count, date) VALUES (@repository_id, 0, @date);

-- name: AddRepositorySearchScore :exec
INSERT INTO repositorysearchscore (repository_id, score) VALUES (@repository_id, 0);

-- name: AddRepositoryUserPermission :exec
INSERT INTO repositorypermission (user_id, repository_id, role_id)
SELECT @user_id::bigint, @repository_id::bigint, r.id FROM role r WHERE r.name = @role;

-- name: ApplyTeamPrototypes :exec
-- Gives teams what the organization's default permissions say for repositories this account creates; a default that
-- names the creator goes before one for everybody.
INSERT INTO repositorypermission (team_id, repository_id, role_id)
SELECT p.delegate_team_id, @repository_id::bigint, p.role_id
  FROM (SELECT DISTINCT ON (delegate_team_id) delegate_team_id, role_id
          FROM permissionprototype
         WHERE org_id = @organization_id AND delegate_team_id IS NOT NULL
           AND (activating_user_id IS NULL OR activating_user_id = @creator_id)
         ORDER BY delegate_team_id, activating_user_id NULLS LAST) p;

-- name: ApplyUserPrototypes :exec
-- Likewise for users; the creator is admin anyway.
INSERT INTO repositorypermission (user_id, repository_id, role_id)
SELECT p.delegate_user_id, @repository_id::bigint, p.role_id
  FROM (SELECT DISTINCT ON (delegate_user_id) delegate_user_id, role_id
          FROM permissionprototype
         WHERE org_id = @organization_id AND delegate_user_id IS NOT NULL AND delegate_user_id <> @creator_id
           AND (activating_user_id IS NULL OR activating_user_id = @creator_id)
         ORDER BY delegate_user_id, activating_user_id NULLS LAST) p;

-- name: CreateNamespaceAccount :one
-- Adds an enabled account without a password; MakeOrganization turns it into an organization.
INSERT INTO "user" (uuid, username, email, verified, organization, robot, invoice_email, invalid_login_attempts,
                    last_invalid_login, removed_tag_expiration_s, enabled, creation_date)
VALUES (@uuid, @username, @email, false, false, false, false, 0, @at, @removed_tag_expiration_s, true, @at)
RETURNING id;

-- name: MakeOrganization :exec
UPDATE "user" SET email = @email, organization = true WHERE id = @id;

-- name: CreateTeam :one
INSERT INTO team (name, organization_id, role_id, description)
SELECT @name, @organization_id, r.id, '' FROM teamrole r WHERE r.name = @role
RETURNING id;

-- name: AddTeamMember :exec
INSERT INTO teammember (user_id, team_id) VALUES (@user_id, @team_id);

-- name: LiveServiceKeys :many
-- The keys whose signatures count: approved and not expired.
SELECT kid, jwk FROM servicekey
 WHERE service = @service AND approval_id IS NOT NULL AND (expiration_date IS NULL OR expiration_date > @now);

-- name: AddServiceKeyApproval :one
INSERT INTO servicekeyapproval (approver_id, approval_type, approved_date, notes)
VALUES (NULL, @approval_type, @approved_date, '')
RETURNING id;

-- name: AddServiceKey :execrows
INSERT INTO servicekey (name, kid, service, jwk, metadata, created_date, expiration_date, rotation_duration, approval_id)
VALUES (@name, @kid, @service, @jwk, @metadata, @created_date, @expiration_date, NULL, @approval_id)
ON CONFLICT (kid) DO NOTHING;

-- name: ExtendServiceKey :execrows
UPDATE servicekey SET expiration_date = @expiration_date
 WHERE kid = @kid AND service = @service AND approval_id IS NOT NULL;

-- name: RemoveStaleServiceKeys :execrows
-- Keys long expired, and keys nobody approved in time. Their approvals stay, as with the legacy server.
DELETE FROM servicekey
 WHERE service = @service
   AND ((expiration_date IS NOT NULL AND expiration_date <= @expired_before)
     OR (approval_id IS NULL AND created_date <= @unapproved_before));

-- name: LogEntryKinds :many
SELECT id, name FROM logentrykind;

-- name: AddLogEntry :exec
INSERT INTO logentry3 (kind_id, account_id, performer_id, repository_id, datetime, ip, metadata_json)
VALUES (@kind_id, @account_id, @performer_id, @repository_id, @datetime, @ip, @metadata_json);

-- name: AddLogEntries :exec
-- Several entries in one statement; 0 stands for no performer and no repository, '' for no address.
INSERT INTO logentry3 (kind_id, account_id, performer_id, repository_id, datetime, ip, metadata_json)
SELECT unnest(@kind_ids::bigint[]), unnest(@account_ids::bigint[]), NULLIF(unnest(@performer_ids::bigint[]), 0),
       NULLIF(unnest(@repository_ids::bigint[]), 0), unnest(@datetimes::timestamp[]), NULLIF(unnest(@ips::text[]), ''),
       unnest(@metadata_jsons::text[]);
