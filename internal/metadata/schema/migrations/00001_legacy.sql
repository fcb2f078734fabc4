-- The complete legacy schema at alembic revision 9fa37f66a9b6. Written by schema/generate from the recorded
-- catalogue: do not edit, a database in the field equals it to the letter.

-- +goose Up

CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;

CREATE TABLE accesstoken (
    id serial NOT NULL,
    friendly_name character varying(255),
    repository_id integer NOT NULL,
    created timestamp without time zone NOT NULL,
    role_id integer NOT NULL,
    temporary boolean NOT NULL,
    kind_id integer,
    token_code character varying(255) NOT NULL,
    token_name character varying(255) NOT NULL,
    CONSTRAINT pk_accesstoken PRIMARY KEY (id)
);

CREATE TABLE accesstokenkind (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_accesstokenkind PRIMARY KEY (id)
);

CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE apprblob (
    id serial NOT NULL,
    digest character varying(255) NOT NULL,
    media_type_id integer NOT NULL,
    size bigint NOT NULL,
    uncompressed_size bigint,
    CONSTRAINT pk_apprblob PRIMARY KEY (id)
);

CREATE TABLE apprblobplacement (
    id serial NOT NULL,
    blob_id integer NOT NULL,
    location_id integer NOT NULL,
    CONSTRAINT pk_apprblobplacement PRIMARY KEY (id)
);

CREATE TABLE apprblobplacementlocation (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_apprblobplacementlocation PRIMARY KEY (id)
);

CREATE TABLE apprmanifest (
    id serial NOT NULL,
    digest character varying(255) NOT NULL,
    media_type_id integer NOT NULL,
    manifest_json text NOT NULL,
    CONSTRAINT pk_apprmanifest PRIMARY KEY (id)
);

CREATE TABLE apprmanifestblob (
    id serial NOT NULL,
    manifest_id integer NOT NULL,
    blob_id integer NOT NULL,
    CONSTRAINT pk_apprmanifestblob PRIMARY KEY (id)
);

CREATE TABLE apprmanifestlist (
    id serial NOT NULL,
    digest character varying(255) NOT NULL,
    manifest_list_json text NOT NULL,
    schema_version character varying(255) NOT NULL,
    media_type_id integer NOT NULL,
    CONSTRAINT pk_apprmanifestlist PRIMARY KEY (id)
);

CREATE TABLE apprmanifestlistmanifest (
    id serial NOT NULL,
    manifest_list_id integer NOT NULL,
    manifest_id integer NOT NULL,
    operating_system character varying(255),
    architecture character varying(255),
    platform_json text,
    media_type_id integer NOT NULL,
    CONSTRAINT pk_apprmanifestlistmanifest PRIMARY KEY (id)
);

CREATE TABLE apprtag (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    repository_id integer NOT NULL,
    manifest_list_id integer,
    lifetime_start bigint NOT NULL,
    lifetime_end bigint,
    hidden boolean NOT NULL,
    reverted boolean NOT NULL,
    protected boolean NOT NULL,
    tag_kind_id integer NOT NULL,
    linked_tag_id integer,
    CONSTRAINT pk_apprtag PRIMARY KEY (id)
);

CREATE TABLE apprtagkind (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_apprtagkind PRIMARY KEY (id)
);

CREATE TABLE appspecificauthtoken (
    id serial NOT NULL,
    user_id integer NOT NULL,
    uuid character varying(36) NOT NULL,
    title character varying(255) NOT NULL,
    created timestamp without time zone NOT NULL,
    expiration timestamp without time zone,
    last_accessed timestamp without time zone,
    token_name character varying(255) NOT NULL,
    token_secret character varying(255) NOT NULL,
    CONSTRAINT pk_appspecificauthtoken PRIMARY KEY (id)
);

CREATE TABLE autoprunetaskstatus (
    id serial NOT NULL,
    namespace_id integer NOT NULL,
    last_ran_ms bigint,
    status text,
    CONSTRAINT pk_autoprunetaskstatusid PRIMARY KEY (id)
);

CREATE TABLE blobupload (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    uuid character varying(255) NOT NULL,
    byte_count bigint NOT NULL,
    sha_state text,
    location_id integer NOT NULL,
    storage_metadata text,
    chunk_count integer NOT NULL DEFAULT 0,
    uncompressed_byte_count bigint,
    created timestamp without time zone NOT NULL DEFAULT '2026-11-23 15:36:15'::timestamp without time zone,
    piece_sha_state text,
    piece_hashes text,
    CONSTRAINT pk_blobupload PRIMARY KEY (id)
);

CREATE TABLE buildtriggerservice (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_buildtriggerservice PRIMARY KEY (id)
);

CREATE TABLE deletednamespace (
    id serial NOT NULL,
    namespace_id integer NOT NULL,
    marked timestamp without time zone NOT NULL,
    original_username character varying(255) NOT NULL,
    original_email character varying(255) NOT NULL,
    queue_id character varying(255),
    CONSTRAINT pk_deletednamespace PRIMARY KEY (id)
);

CREATE TABLE deletedrepository (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    marked timestamp without time zone NOT NULL,
    original_name character varying(255) NOT NULL,
    queue_id character varying(255),
    CONSTRAINT pk_deletedrepository PRIMARY KEY (id)
);

CREATE TABLE disablereason (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_disablereason PRIMARY KEY (id)
);

CREATE TABLE emailconfirmation (
    id serial NOT NULL,
    code character varying(255) NOT NULL,
    user_id integer NOT NULL,
    pw_reset boolean NOT NULL,
    new_email character varying(255),
    email_confirm boolean NOT NULL,
    created timestamp without time zone NOT NULL,
    verification_code character varying(255),
    CONSTRAINT pk_emailconfirmation PRIMARY KEY (id)
);

CREATE TABLE externalnotificationevent (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_externalnotificationevent PRIMARY KEY (id)
);

CREATE TABLE externalnotificationmethod (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_externalnotificationmethod PRIMARY KEY (id)
);

CREATE TABLE federatedlogin (
    id serial NOT NULL,
    user_id integer NOT NULL,
    service_id integer NOT NULL,
    service_ident character varying(255) NOT NULL,
    metadata_json text NOT NULL,
    CONSTRAINT pk_federatedlogin PRIMARY KEY (id)
);

CREATE TABLE imagestorage (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    image_size bigint,
    uncompressed_size bigint,
    uploading boolean,
    cas_path boolean NOT NULL DEFAULT false,
    content_checksum character varying(255),
    CONSTRAINT pk_imagestorage PRIMARY KEY (id)
);

CREATE TABLE imagestoragelocation (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_imagestoragelocation PRIMARY KEY (id)
);

CREATE TABLE imagestorageplacement (
    id serial NOT NULL,
    storage_id integer NOT NULL,
    location_id integer NOT NULL,
    CONSTRAINT pk_imagestorageplacement PRIMARY KEY (id)
);

CREATE TABLE imagestoragesignature (
    id serial NOT NULL,
    storage_id integer NOT NULL,
    kind_id integer NOT NULL,
    signature text,
    uploading boolean,
    CONSTRAINT pk_imagestoragesignature PRIMARY KEY (id)
);

CREATE TABLE imagestoragesignaturekind (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_imagestoragesignaturekind PRIMARY KEY (id)
);

CREATE TABLE imagestoragetransformation (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_imagestoragetransformation PRIMARY KEY (id)
);

CREATE TABLE label (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    key character varying(255) NOT NULL,
    value text NOT NULL,
    media_type_id integer NOT NULL,
    source_type_id integer NOT NULL,
    CONSTRAINT pk_label PRIMARY KEY (id)
);

CREATE TABLE labelsourcetype (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    mutable boolean NOT NULL,
    CONSTRAINT pk_labelsourcetype PRIMARY KEY (id)
);

CREATE SEQUENCE logentry_id_seq AS integer;
CREATE TABLE logentry (
    id bigint NOT NULL DEFAULT nextval('logentry_id_seq'::regclass),
    kind_id integer NOT NULL,
    account_id integer NOT NULL,
    performer_id integer,
    repository_id integer,
    datetime timestamp without time zone NOT NULL,
    ip character varying(255),
    metadata_json text NOT NULL,
    CONSTRAINT pk_logentry PRIMARY KEY (id)
);
ALTER SEQUENCE logentry_id_seq OWNED BY logentry.id;

CREATE TABLE logentry2 (
    id serial NOT NULL,
    kind_id integer NOT NULL,
    account_id integer NOT NULL,
    performer_id integer,
    repository_id integer,
    datetime timestamp without time zone NOT NULL,
    ip character varying(255),
    metadata_json text NOT NULL,
    CONSTRAINT pk_logentry2 PRIMARY KEY (id)
);

CREATE TABLE logentry3 (
    id bigserial NOT NULL,
    kind_id integer NOT NULL,
    account_id integer NOT NULL,
    performer_id integer,
    repository_id integer,
    datetime timestamp without time zone NOT NULL,
    ip character varying(255),
    metadata_json text NOT NULL,
    CONSTRAINT pk_logentry3 PRIMARY KEY (id)
);

CREATE TABLE logentrykind (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_logentrykind PRIMARY KEY (id)
);

CREATE TABLE loginservice (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_loginservice PRIMARY KEY (id)
);

CREATE TABLE manifest (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    digest character varying(255) NOT NULL,
    media_type_id integer NOT NULL,
    manifest_bytes text NOT NULL,
    config_media_type character varying(255),
    layers_compressed_size bigint,
    subject character varying(255),
    subject_backfilled boolean,
    artifact_type character varying(255),
    artifact_type_backfilled boolean,
    CONSTRAINT pk_manifest PRIMARY KEY (id)
);

CREATE TABLE manifestblob (
    id bigserial NOT NULL,
    repository_id integer NOT NULL,
    manifest_id integer NOT NULL,
    blob_id integer NOT NULL,
    CONSTRAINT pk_manifestblob PRIMARY KEY (id)
);

CREATE TABLE manifestchild (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    manifest_id integer NOT NULL,
    child_manifest_id integer NOT NULL,
    CONSTRAINT pk_manifestchild PRIMARY KEY (id)
);

CREATE TABLE manifestlabel (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    manifest_id integer NOT NULL,
    label_id integer NOT NULL,
    CONSTRAINT pk_manifestlabel PRIMARY KEY (id)
);

CREATE TABLE manifestpullstatistics (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    manifest_digest character varying(255) NOT NULL,
    manifest_pull_count bigint NOT NULL,
    last_manifest_pull_date timestamp without time zone NOT NULL,
    CONSTRAINT pk_manifestpullstatistics PRIMARY KEY (id)
);

CREATE TABLE manifestsecuritystatus (
    id serial NOT NULL,
    manifest_id integer NOT NULL,
    repository_id integer NOT NULL,
    index_status integer NOT NULL,
    error_json text NOT NULL,
    last_indexed timestamp without time zone NOT NULL,
    indexer_hash character varying(128) NOT NULL,
    indexer_version integer NOT NULL,
    metadata_json text NOT NULL,
    CONSTRAINT pk_manifestsecuritystatus PRIMARY KEY (id)
);

CREATE TABLE mediatype (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_mediatype PRIMARY KEY (id)
);

CREATE TABLE messages (
    id serial NOT NULL,
    content text NOT NULL,
    uuid character varying(36) NOT NULL DEFAULT ''::character varying,
    media_type_id integer NOT NULL DEFAULT 1,
    severity character varying(255) NOT NULL DEFAULT 'info'::character varying,
    CONSTRAINT pk_messages PRIMARY KEY (id)
);

CREATE TABLE namespaceautoprunepolicy (
    id serial NOT NULL,
    uuid character varying(36) NOT NULL,
    namespace_id integer NOT NULL,
    policy text NOT NULL,
    CONSTRAINT pk_namespaceautoprunepolicyid PRIMARY KEY (id)
);

CREATE TABLE namespaceimmutabilitypolicy (
    id serial NOT NULL,
    uuid character varying(36) NOT NULL,
    namespace_id integer NOT NULL,
    policy text NOT NULL,
    CONSTRAINT pk_namespaceimmutabilitypolicyid PRIMARY KEY (id)
);

CREATE TABLE namespacenotification (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    namespace_id integer NOT NULL,
    event_id integer NOT NULL,
    method_id integer NOT NULL,
    title character varying(255),
    config_json text NOT NULL,
    event_config_json text NOT NULL DEFAULT '{}'::text,
    number_of_failures integer NOT NULL DEFAULT 0,
    last_ran_ms bigint,
    CONSTRAINT pk_namespacenotification PRIMARY KEY (id)
);

CREATE TABLE notification (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    kind_id integer NOT NULL,
    target_id integer NOT NULL,
    metadata_json text NOT NULL,
    created timestamp without time zone NOT NULL,
    dismissed boolean NOT NULL,
    lookup_path character varying(255),
    CONSTRAINT pk_notification PRIMARY KEY (id)
);

CREATE TABLE notificationkind (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_notificationkind PRIMARY KEY (id)
);

CREATE TABLE oauthaccesstoken (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    application_id integer NOT NULL,
    authorized_user_id integer NOT NULL,
    scope character varying(255) NOT NULL,
    token_type character varying(255) NOT NULL,
    expires_at timestamp without time zone NOT NULL,
    data text NOT NULL,
    token_code character varying(255) NOT NULL,
    token_name character varying(255) NOT NULL,
    last_accessed timestamp without time zone,
    created timestamp without time zone,
    display_name character varying(255),
    CONSTRAINT pk_oauthaccesstoken PRIMARY KEY (id)
);

CREATE TABLE oauthapplication (
    id serial NOT NULL,
    client_id character varying(255) NOT NULL,
    redirect_uri character varying(255) NOT NULL,
    application_uri character varying(255) NOT NULL,
    organization_id integer NOT NULL,
    name character varying(255) NOT NULL,
    description text NOT NULL,
    gravatar_email character varying(255),
    secure_client_secret character varying(255),
    fully_migrated boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_oauthapplication PRIMARY KEY (id)
);

CREATE TABLE oauthassignedtoken (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    assigned_user_id integer NOT NULL,
    application_id integer NOT NULL,
    redirect_uri character varying(255),
    scope character varying(255) NOT NULL,
    response_type character varying(255),
    CONSTRAINT pk_oauthassignedtoken PRIMARY KEY (id)
);

CREATE TABLE oauthauthorizationcode (
    id serial NOT NULL,
    application_id integer NOT NULL,
    scope character varying(255) NOT NULL,
    data text NOT NULL,
    code_credential character varying(255) NOT NULL,
    code_name character varying(255) NOT NULL,
    CONSTRAINT pk_oauthauthorizationcode PRIMARY KEY (id)
);

CREATE TABLE organizationcontactemail (
    id serial NOT NULL,
    organization_id integer NOT NULL,
    contact_email character varying(255),
    CONSTRAINT pk_organizationcontactemail PRIMARY KEY (id)
);

CREATE TABLE organizationrhskus (
    id serial NOT NULL,
    subscription_id integer NOT NULL,
    org_id integer NOT NULL,
    user_id integer NOT NULL,
    quantity integer,
    CONSTRAINT pk_organizationrhskus PRIMARY KEY (id)
);

CREATE TABLE orgmirrorconfig (
    id serial NOT NULL,
    organization_id integer NOT NULL,
    creation_date timestamp without time zone NOT NULL,
    is_enabled boolean NOT NULL DEFAULT true,
    mirror_type integer NOT NULL DEFAULT 1,
    external_registry_type integer NOT NULL,
    external_registry_url character varying(2048) NOT NULL,
    external_namespace character varying(255) NOT NULL,
    external_registry_username character varying(4096),
    external_registry_password character varying(9000),
    external_registry_config text NOT NULL,
    internal_robot_id integer NOT NULL,
    repository_filters text NOT NULL,
    visibility_id integer NOT NULL,
    delete_stale_repos boolean NOT NULL DEFAULT false,
    sync_interval integer NOT NULL,
    sync_start_date timestamp without time zone,
    sync_expiration_date timestamp without time zone,
    sync_retries_remaining integer NOT NULL DEFAULT 3,
    sync_status integer NOT NULL DEFAULT 0,
    sync_transaction_id character varying(36),
    skopeo_timeout bigint NOT NULL DEFAULT '300'::bigint,
    architecture_filter text NOT NULL DEFAULT '[]'::text,
    CONSTRAINT pk_orgmirrorconfig PRIMARY KEY (id)
);

CREATE TABLE orgmirrorrepository (
    id serial NOT NULL,
    org_mirror_config_id integer NOT NULL,
    repository_name character varying(255) NOT NULL,
    repository_id integer,
    discovery_date timestamp without time zone NOT NULL,
    sync_status integer NOT NULL DEFAULT 0,
    sync_start_date timestamp without time zone,
    sync_expiration_date timestamp without time zone,
    last_sync_date timestamp without time zone,
    status_message text,
    creation_date timestamp without time zone NOT NULL,
    sync_retries_remaining integer NOT NULL DEFAULT 3,
    sync_transaction_id character varying(36),
    CONSTRAINT pk_orgmirrorrepository PRIMARY KEY (id)
);

CREATE TABLE permissionprototype (
    id serial NOT NULL,
    org_id integer NOT NULL,
    uuid character varying(255) NOT NULL,
    activating_user_id integer,
    delegate_user_id integer,
    delegate_team_id integer,
    role_id integer NOT NULL,
    CONSTRAINT pk_permissionprototype PRIMARY KEY (id)
);

CREATE TABLE proxycacheconfig (
    id serial NOT NULL,
    organization_id integer NOT NULL,
    creation_date timestamp without time zone NOT NULL,
    upstream_registry character varying(2048) NOT NULL,
    upstream_registry_username character varying(4096),
    upstream_registry_password character varying(4096),
    expiration_s integer DEFAULT 86400,
    insecure boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_proxy_cache_config PRIMARY KEY (id)
);

CREATE TABLE quayregion (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_quayregion PRIMARY KEY (id)
);

CREATE TABLE quayrelease (
    id serial NOT NULL,
    service_id integer NOT NULL,
    version character varying(255) NOT NULL,
    region_id integer NOT NULL,
    reverted boolean NOT NULL,
    created timestamp without time zone NOT NULL,
    CONSTRAINT pk_quayrelease PRIMARY KEY (id)
);

CREATE TABLE quayservice (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_quayservice PRIMARY KEY (id)
);

CREATE TABLE queueitem (
    id serial NOT NULL,
    queue_name character varying(1024) NOT NULL,
    body text NOT NULL,
    available_after timestamp without time zone NOT NULL,
    available boolean NOT NULL,
    processing_expires timestamp without time zone,
    retries_remaining integer NOT NULL,
    state_id character varying(255) NOT NULL DEFAULT ''::character varying,
    CONSTRAINT pk_queueitem PRIMARY KEY (id)
);

CREATE TABLE quotalimits (
    id serial NOT NULL,
    quota_id integer NOT NULL,
    quota_type_id integer NOT NULL,
    percent_of_limit integer NOT NULL,
    CONSTRAINT pk_quotalimits PRIMARY KEY (id)
);

CREATE TABLE quotanamespacesize (
    id serial NOT NULL,
    namespace_user_id integer NOT NULL,
    size_bytes bigint NOT NULL DEFAULT '0'::bigint,
    backfill_start_ms bigint,
    backfill_complete boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_quotanamespacesizeid PRIMARY KEY (id)
);

CREATE TABLE quotanotificationstate (
    id serial NOT NULL,
    namespace_id integer NOT NULL,
    threshold_percent integer NOT NULL,
    last_notified_at timestamp without time zone,
    cleared boolean NOT NULL DEFAULT true,
    CONSTRAINT pk_quotanotificationstate PRIMARY KEY (id)
);

CREATE TABLE quotaregistrysize (
    id serial NOT NULL,
    size_bytes bigint NOT NULL DEFAULT '0'::bigint,
    running boolean NOT NULL DEFAULT false,
    queued boolean NOT NULL DEFAULT false,
    completed_ms bigint,
    CONSTRAINT pk_quotaregistrysizeid PRIMARY KEY (id)
);

CREATE TABLE quotarepositorysize (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    size_bytes bigint NOT NULL DEFAULT '0'::bigint,
    backfill_start_ms bigint,
    backfill_complete boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_quotarepositorysizeid PRIMARY KEY (id)
);

CREATE TABLE quotatype (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_quotatype PRIMARY KEY (id)
);

CREATE TABLE redhatsubscriptions (
    id serial NOT NULL,
    user_id integer NOT NULL,
    account_number integer NOT NULL,
    CONSTRAINT pk_redhatsubscriptions PRIMARY KEY (id)
);

CREATE TABLE repomirrorconfig (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    creation_date timestamp without time zone NOT NULL,
    is_enabled boolean NOT NULL,
    mirror_type integer NOT NULL,
    internal_robot_id integer NOT NULL,
    external_registry_username character varying(4096),
    external_registry_config text NOT NULL,
    sync_interval integer NOT NULL DEFAULT 60,
    sync_start_date timestamp without time zone,
    sync_expiration_date timestamp without time zone,
    sync_retries_remaining integer NOT NULL DEFAULT 3,
    sync_status integer NOT NULL,
    sync_transaction_id character varying(36),
    root_rule_id integer NOT NULL,
    external_reference text NOT NULL,
    external_registry_password character varying(9000),
    skopeo_timeout bigint NOT NULL DEFAULT '300'::bigint,
    architecture_filter text,
    CONSTRAINT pk_repomirrorconfig PRIMARY KEY (id)
);

CREATE TABLE repomirrorrule (
    id serial NOT NULL,
    uuid character varying(36) NOT NULL,
    repository_id integer NOT NULL,
    creation_date timestamp without time zone NOT NULL,
    rule_type integer NOT NULL,
    rule_value text NOT NULL,
    left_child_id integer,
    right_child_id integer,
    CONSTRAINT pk_repomirrorrule PRIMARY KEY (id)
);

CREATE TABLE repository (
    id serial NOT NULL,
    namespace_user_id integer,
    name character varying(255) NOT NULL,
    visibility_id integer NOT NULL,
    description text,
    badge_token character varying(255) NOT NULL,
    kind_id integer NOT NULL DEFAULT 1,
    trust_enabled boolean NOT NULL DEFAULT false,
    state integer NOT NULL DEFAULT 0,
    CONSTRAINT pk_repository PRIMARY KEY (id)
);

CREATE TABLE repositoryactioncount (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    count integer NOT NULL,
    date date NOT NULL,
    CONSTRAINT pk_repositoryactioncount PRIMARY KEY (id)
);

CREATE TABLE repositoryauthorizedemail (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    email character varying(255) NOT NULL,
    code character varying(255) NOT NULL,
    confirmed boolean NOT NULL,
    CONSTRAINT pk_repositoryauthorizedemail PRIMARY KEY (id)
);

CREATE TABLE repositoryautoprunepolicy (
    id serial NOT NULL,
    uuid character varying(36) NOT NULL,
    repository_id integer NOT NULL,
    namespace_id integer NOT NULL,
    policy text NOT NULL,
    CONSTRAINT pk_repositoryautoprunepolicyid PRIMARY KEY (id)
);

CREATE TABLE repositorybuild (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    repository_id integer NOT NULL,
    access_token_id integer NOT NULL,
    resource_key character varying(255),
    job_config text NOT NULL,
    phase character varying(255) NOT NULL,
    started timestamp without time zone NOT NULL,
    display_name character varying(255) NOT NULL,
    trigger_id integer,
    pull_robot_id integer,
    logs_archived boolean NOT NULL DEFAULT false,
    queue_id character varying(255),
    CONSTRAINT pk_repositorybuild PRIMARY KEY (id)
);

CREATE TABLE repositorybuildtrigger (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    service_id integer NOT NULL,
    repository_id integer NOT NULL,
    connected_user_id integer NOT NULL,
    config text NOT NULL,
    write_token_id integer,
    pull_robot_id integer,
    disabled_reason_id integer,
    enabled boolean NOT NULL DEFAULT true,
    successive_failure_count integer NOT NULL DEFAULT 0,
    successive_internal_error_count integer NOT NULL DEFAULT 0,
    disabled_datetime timestamp without time zone,
    secure_auth_token character varying(255),
    secure_private_key text,
    fully_migrated boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_repositorybuildtrigger PRIMARY KEY (id)
);

CREATE TABLE repositoryimmutabilitypolicy (
    id serial NOT NULL,
    uuid character varying(36) NOT NULL,
    repository_id integer NOT NULL,
    namespace_id integer NOT NULL,
    policy text NOT NULL,
    CONSTRAINT pk_repositoryimmutabilitypolicyid PRIMARY KEY (id)
);

CREATE TABLE repositorykind (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_repositorykind PRIMARY KEY (id)
);

CREATE TABLE repositorynotification (
    id serial NOT NULL,
    uuid character varying(255) NOT NULL,
    repository_id integer NOT NULL,
    event_id integer NOT NULL,
    method_id integer NOT NULL,
    title character varying(255),
    config_json text NOT NULL,
    event_config_json text NOT NULL,
    number_of_failures integer NOT NULL DEFAULT 0,
    last_ran_ms bigint,
    CONSTRAINT pk_repositorynotification PRIMARY KEY (id)
);

CREATE TABLE repositorypermission (
    id serial NOT NULL,
    team_id integer,
    user_id integer,
    repository_id integer NOT NULL,
    role_id integer NOT NULL,
    CONSTRAINT pk_repositorypermission PRIMARY KEY (id)
);

CREATE TABLE repositorysearchscore (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    score bigint NOT NULL,
    last_updated timestamp without time zone,
    CONSTRAINT pk_repositorysearchscore PRIMARY KEY (id)
);

CREATE TABLE robotaccountmetadata (
    id serial NOT NULL,
    robot_account_id integer NOT NULL,
    description character varying(255) NOT NULL,
    unstructured_json text NOT NULL,
    CONSTRAINT pk_robotaccountmetadata PRIMARY KEY (id)
);

CREATE TABLE robotaccounttoken (
    id serial NOT NULL,
    robot_account_id integer NOT NULL,
    token character varying(255) NOT NULL,
    fully_migrated boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_robotaccounttoken PRIMARY KEY (id)
);

CREATE TABLE role (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_role PRIMARY KEY (id)
);

CREATE TABLE servicekey (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    kid character varying(255) NOT NULL,
    service character varying(255) NOT NULL,
    jwk text NOT NULL,
    metadata text NOT NULL,
    created_date timestamp without time zone NOT NULL,
    expiration_date timestamp without time zone,
    rotation_duration integer,
    approval_id integer,
    CONSTRAINT pk_servicekey PRIMARY KEY (id)
);

CREATE TABLE servicekeyapproval (
    id serial NOT NULL,
    approver_id integer,
    approval_type character varying(255) NOT NULL,
    approved_date timestamp without time zone NOT NULL,
    notes text NOT NULL,
    CONSTRAINT pk_servicekeyapproval PRIMARY KEY (id)
);

CREATE TABLE star (
    id serial NOT NULL,
    user_id integer NOT NULL,
    repository_id integer NOT NULL,
    created timestamp without time zone NOT NULL,
    CONSTRAINT pk_star PRIMARY KEY (id)
);

CREATE TABLE tag (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    repository_id integer NOT NULL,
    manifest_id integer,
    lifetime_start_ms bigint NOT NULL,
    lifetime_end_ms bigint,
    hidden boolean NOT NULL DEFAULT false,
    reversion boolean NOT NULL DEFAULT false,
    tag_kind_id integer NOT NULL,
    linked_tag_id integer,
    immutable boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_tag PRIMARY KEY (id)
);

CREATE TABLE tagkind (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_tagkind PRIMARY KEY (id)
);

CREATE TABLE tagnotificationsuccess (
    id serial NOT NULL,
    notification_id integer NOT NULL,
    tag_id integer NOT NULL,
    method_id integer NOT NULL,
    CONSTRAINT pk_tag_notification_success PRIMARY KEY (id)
);

CREATE TABLE tagpullstatistics (
    id serial NOT NULL,
    repository_id integer NOT NULL,
    tag_name character varying(255) NOT NULL,
    tag_pull_count bigint NOT NULL,
    last_tag_pull_date timestamp without time zone NOT NULL,
    current_manifest_digest character varying(255),
    CONSTRAINT pk_tagpullstatistics PRIMARY KEY (id)
);

CREATE TABLE team (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    organization_id integer NOT NULL,
    role_id integer NOT NULL,
    description text NOT NULL,
    CONSTRAINT pk_team PRIMARY KEY (id)
);

CREATE TABLE teammember (
    id serial NOT NULL,
    user_id integer NOT NULL,
    team_id integer NOT NULL,
    CONSTRAINT pk_teammember PRIMARY KEY (id)
);

CREATE TABLE teammemberinvite (
    id serial NOT NULL,
    user_id integer,
    email character varying(255),
    team_id integer NOT NULL,
    inviter_id integer NOT NULL,
    invite_token character varying(255) NOT NULL,
    CONSTRAINT pk_teammemberinvite PRIMARY KEY (id)
);

CREATE TABLE teamrole (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_teamrole PRIMARY KEY (id)
);

CREATE TABLE teamsync (
    id serial NOT NULL,
    team_id integer NOT NULL,
    transaction_id character varying(255) NOT NULL,
    last_updated timestamp without time zone,
    service_id integer NOT NULL,
    config text NOT NULL,
    CONSTRAINT pk_teamsync PRIMARY KEY (id)
);

CREATE TABLE uploadedblob (
    id bigserial NOT NULL,
    repository_id integer NOT NULL,
    blob_id integer NOT NULL,
    uploaded_at timestamp without time zone NOT NULL,
    expires_at timestamp without time zone NOT NULL,
    CONSTRAINT pk_uploadedblob PRIMARY KEY (id)
);

CREATE TABLE "user" (
    id serial NOT NULL,
    uuid character varying(36),
    username character varying(255) NOT NULL,
    password_hash character varying(255),
    email character varying(255) NOT NULL,
    verified boolean NOT NULL,
    stripe_id character varying(255),
    organization boolean NOT NULL,
    robot boolean NOT NULL,
    invoice_email boolean NOT NULL,
    invalid_login_attempts integer NOT NULL DEFAULT 0,
    last_invalid_login timestamp without time zone NOT NULL,
    removed_tag_expiration_s bigint NOT NULL DEFAULT 1209600,
    enabled boolean NOT NULL DEFAULT true,
    invoice_email_address character varying(255),
    company character varying(255),
    family_name character varying(255),
    given_name character varying(255),
    location character varying(255),
    maximum_queued_builds_count integer,
    creation_date timestamp without time zone,
    last_accessed timestamp without time zone,
    CONSTRAINT pk_user PRIMARY KEY (id)
);

CREATE TABLE userorganizationquota (
    id serial NOT NULL,
    namespace_id integer NOT NULL,
    limit_bytes bigint NOT NULL,
    CONSTRAINT pk_userorganizationquota PRIMARY KEY (id)
);

CREATE TABLE userprompt (
    id serial NOT NULL,
    user_id integer NOT NULL,
    kind_id integer NOT NULL,
    CONSTRAINT pk_userprompt PRIMARY KEY (id)
);

CREATE TABLE userpromptkind (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_userpromptkind PRIMARY KEY (id)
);

CREATE TABLE userregion (
    id serial NOT NULL,
    user_id integer NOT NULL,
    location_id integer NOT NULL,
    CONSTRAINT pk_userregion PRIMARY KEY (id)
);

CREATE TABLE visibility (
    id serial NOT NULL,
    name character varying(255) NOT NULL,
    CONSTRAINT pk_visibility PRIMARY KEY (id)
);

INSERT INTO accesstokenkind (id, name) VALUES
    (1, 'build-worker'),
    (2, 'pushpull-token');
SELECT setval('accesstokenkind_id_seq', (SELECT max(id) FROM accesstokenkind));

INSERT INTO alembic_version (version_num) VALUES
    ('9fa37f66a9b6');

INSERT INTO apprblobplacementlocation (id, name) VALUES
    (1, 'local_eu'),
    (2, 'local_us');
SELECT setval('apprblobplacementlocation_id_seq', (SELECT max(id) FROM apprblobplacementlocation));

INSERT INTO apprtagkind (id, name) VALUES
    (1, 'tag'),
    (2, 'release'),
    (3, 'channel');
SELECT setval('apprtagkind_id_seq', (SELECT max(id) FROM apprtagkind));

INSERT INTO buildtriggerservice (id, name) VALUES
    (1, 'github'),
    (2, 'gitlab'),
    (3, 'bitbucket'),
    (4, 'custom-git');
SELECT setval('buildtriggerservice_id_seq', (SELECT max(id) FROM buildtriggerservice));

INSERT INTO disablereason (id, name) VALUES
    (1, 'user_toggled'),
    (2, 'successive_build_failures'),
    (3, 'successive_build_internal_errors');
SELECT setval('disablereason_id_seq', (SELECT max(id) FROM disablereason));

INSERT INTO externalnotificationevent (id, name) VALUES
    (1, 'build_failure'),
    (2, 'build_queued'),
    (3, 'build_start'),
    (4, 'build_success'),
    (5, 'repo_push'),
    (6, 'vulnerability_found'),
    (7, 'build_cancelled'),
    (8, 'repo_mirror_sync_started'),
    (9, 'repo_mirror_sync_success'),
    (10, 'repo_mirror_sync_failed'),
    (11, 'repo_image_expiry'),
    (12, 'quota_warning'),
    (13, 'quota_error');
SELECT setval('externalnotificationevent_id_seq', (SELECT max(id) FROM externalnotificationevent));

INSERT INTO externalnotificationmethod (id, name) VALUES
    (1, 'email'),
    (2, 'flowdock'),
    (3, 'hipchat'),
    (4, 'quay_notification'),
    (5, 'slack'),
    (6, 'webhook');
SELECT setval('externalnotificationmethod_id_seq', (SELECT max(id) FROM externalnotificationmethod));

INSERT INTO imagestoragelocation (id, name) VALUES
    (1, 's3_us_east_1'),
    (2, 's3_eu_west_1'),
    (3, 's3_ap_southeast_1'),
    (4, 's3_ap_southeast_2'),
    (5, 's3_ap_northeast_1'),
    (6, 's3_sa_east_1'),
    (7, 'local'),
    (8, 's3_us_west_1');
SELECT setval('imagestoragelocation_id_seq', (SELECT max(id) FROM imagestoragelocation));

INSERT INTO imagestoragesignaturekind (id, name) VALUES
    (1, 'gpg2');
SELECT setval('imagestoragesignaturekind_id_seq', (SELECT max(id) FROM imagestoragesignaturekind));

INSERT INTO imagestoragetransformation (id, name) VALUES
    (1, 'squash'),
    (2, 'aci');
SELECT setval('imagestoragetransformation_id_seq', (SELECT max(id) FROM imagestoragetransformation));

INSERT INTO labelsourcetype (id, name, mutable) VALUES
    (1, 'manifest', false),
    (2, 'api', true),
    (3, 'internal', false);
SELECT setval('labelsourcetype_id_seq', (SELECT max(id) FROM labelsourcetype));

INSERT INTO logentrykind (id, name) VALUES
    (1, 'account_change_cc'),
    (2, 'account_change_password'),
    (3, 'account_change_plan'),
    (4, 'account_convert'),
    (5, 'add_repo_accesstoken'),
    (6, 'add_repo_notification'),
    (7, 'add_repo_permission'),
    (8, 'add_repo_webhook'),
    (9, 'build_dockerfile'),
    (10, 'change_repo_permission'),
    (11, 'change_repo_visibility'),
    (12, 'create_application'),
    (13, 'create_prototype_permission'),
    (14, 'create_repo'),
    (15, 'create_robot'),
    (16, 'create_tag'),
    (17, 'delete_application'),
    (18, 'delete_prototype_permission'),
    (19, 'delete_repo'),
    (20, 'delete_repo_accesstoken'),
    (21, 'delete_repo_notification'),
    (22, 'delete_repo_permission'),
    (23, 'delete_repo_trigger'),
    (24, 'delete_repo_webhook'),
    (25, 'delete_robot'),
    (26, 'delete_tag'),
    (27, 'manifest_label_add'),
    (28, 'manifest_label_delete'),
    (29, 'modify_prototype_permission'),
    (30, 'move_tag'),
    (31, 'org_add_team_member'),
    (32, 'org_create_team'),
    (33, 'org_delete_team'),
    (34, 'org_delete_team_member_invite'),
    (35, 'org_invite_team_member'),
    (36, 'org_remove_team_member'),
    (37, 'org_set_team_description'),
    (38, 'org_set_team_role'),
    (39, 'org_team_member_invite_accepted'),
    (40, 'org_team_member_invite_declined'),
    (41, 'pull_repo'),
    (42, 'push_repo'),
    (43, 'regenerate_robot_token'),
    (44, 'repo_verb'),
    (45, 'reset_application_client_secret'),
    (46, 'revert_tag'),
    (47, 'service_key_approve'),
    (48, 'service_key_create'),
    (49, 'service_key_delete'),
    (50, 'service_key_extend'),
    (51, 'service_key_modify'),
    (52, 'service_key_rotate'),
    (53, 'setup_repo_trigger'),
    (54, 'set_repo_description'),
    (55, 'take_ownership'),
    (56, 'update_application'),
    (57, 'change_repo_trust'),
    (58, 'reset_repo_notification'),
    (59, 'change_tag_expiration'),
    (60, 'create_app_specific_token'),
    (61, 'revoke_app_specific_token'),
    (62, 'toggle_repo_trigger'),
    (63, 'repo_mirror_enabled'),
    (64, 'repo_mirror_disabled'),
    (65, 'repo_mirror_config_changed'),
    (66, 'repo_mirror_sync_started'),
    (67, 'repo_mirror_sync_failed'),
    (68, 'repo_mirror_sync_success'),
    (69, 'repo_mirror_sync_now_requested'),
    (70, 'repo_mirror_sync_tag_success'),
    (71, 'repo_mirror_sync_tag_failed'),
    (72, 'repo_mirror_sync_test_success'),
    (73, 'repo_mirror_sync_test_failed'),
    (74, 'repo_mirror_sync_test_started'),
    (75, 'change_repo_state'),
    (76, 'create_proxy_cache_config'),
    (77, 'delete_proxy_cache_config'),
    (78, 'start_build_trigger'),
    (79, 'cancel_build'),
    (80, 'org_create'),
    (81, 'org_delete'),
    (82, 'org_change_email'),
    (83, 'org_change_invoicing'),
    (84, 'org_change_tag_expiration'),
    (85, 'org_change_name'),
    (86, 'user_create'),
    (87, 'user_delete'),
    (88, 'user_disable'),
    (89, 'user_enable'),
    (90, 'user_change_email'),
    (91, 'user_change_password'),
    (92, 'user_change_name'),
    (93, 'user_change_invoicing'),
    (94, 'user_change_tag_expiration'),
    (95, 'user_change_metadata'),
    (96, 'user_generate_client_key'),
    (97, 'login_success'),
    (98, 'logout_success'),
    (99, 'permanently_delete_tag'),
    (100, 'autoprune_tag_delete'),
    (101, 'create_namespace_autoprune_policy'),
    (102, 'update_namespace_autoprune_policy'),
    (103, 'delete_namespace_autoprune_policy'),
    (104, 'login_failure'),
    (105, 'push_repo_failed'),
    (106, 'pull_repo_failed'),
    (107, 'delete_tag_failed'),
    (108, 'create_repository_autoprune_policy'),
    (109, 'update_repository_autoprune_policy'),
    (110, 'delete_repository_autoprune_policy'),
    (111, 'enable_team_sync'),
    (112, 'disable_team_sync'),
    (113, 'oauth_token_assigned'),
    (114, 'oauth_token_revoked'),
    (115, 'change_tag_immutability'),
    (116, 'create_robot_federation'),
    (117, 'delete_robot_federation'),
    (118, 'federated_robot_token_exchange'),
    (119, 'export_logs_success'),
    (120, 'export_logs_failure'),
    (121, 'org_create_quota'),
    (122, 'org_change_quota'),
    (123, 'org_delete_quota'),
    (124, 'org_create_quota_limit'),
    (125, 'org_change_quota_limit'),
    (126, 'org_delete_quota_limit'),
    (127, 'org_mirror_enabled'),
    (128, 'org_mirror_disabled'),
    (129, 'org_mirror_config_changed'),
    (130, 'org_mirror_sync_started'),
    (131, 'org_mirror_sync_failed'),
    (132, 'org_mirror_sync_success'),
    (133, 'org_mirror_sync_now_requested'),
    (134, 'org_mirror_sync_cancelled'),
    (135, 'org_mirror_repo_created'),
    (136, 'create_immutability_policy'),
    (137, 'update_immutability_policy'),
    (138, 'delete_immutability_policy'),
    (139, 'org_mirror_repo_creation_failed'),
    (140, 'tag_made_immutable_by_policy'),
    (141, 'tags_made_immutable_by_policy'),
    (142, 'create_oauth_api_token'),
    (143, 'revoke_oauth_api_token'),
    (144, 'create_namespace_notification'),
    (145, 'delete_namespace_notification'),
    (146, 'reset_namespace_notification');
SELECT setval('logentrykind_id_seq', (SELECT max(id) FROM logentrykind));

INSERT INTO loginservice (id, name) VALUES
    (1, 'github'),
    (2, 'quayrobot'),
    (3, 'ldap'),
    (4, 'google'),
    (5, 'keystone'),
    (6, 'dex'),
    (7, 'jwtauthn'),
    (8, 'oidc');
SELECT setval('loginservice_id_seq', (SELECT max(id) FROM loginservice));

INSERT INTO mediatype (id, name) VALUES
    (1, 'text/plain'),
    (2, 'application/json'),
    (3, 'text/markdown'),
    (4, 'application/vnd.cnr.blob.v0.tar+gzip'),
    (5, 'application/vnd.cnr.package-manifest.helm.v0.json'),
    (6, 'application/vnd.cnr.package-manifest.kpm.v0.json'),
    (7, 'application/vnd.cnr.package-manifest.docker-compose.v0.json'),
    (8, 'application/vnd.cnr.package.kpm.v0.tar+gzip'),
    (9, 'application/vnd.cnr.package.helm.v0.tar+gzip'),
    (10, 'application/vnd.cnr.package.docker-compose.v0.tar+gzip'),
    (11, 'application/vnd.cnr.manifests.v0.json'),
    (12, 'application/vnd.cnr.manifest.list.v0.json'),
    (13, 'application/vnd.docker.distribution.manifest.v1+json'),
    (14, 'application/vnd.docker.distribution.manifest.v1+prettyjws'),
    (15, 'application/vnd.docker.distribution.manifest.v2+json'),
    (16, 'application/vnd.docker.distribution.manifest.list.v2+json'),
    (17, 'application/vnd.oci.image.index.v1+json'),
    (18, 'application/vnd.oci.image.manifest.v1+json');
SELECT setval('mediatype_id_seq', (SELECT max(id) FROM mediatype));

INSERT INTO notificationkind (id, name) VALUES
    (1, 'build_failure'),
    (2, 'build_queued'),
    (3, 'build_start'),
    (4, 'build_success'),
    (5, 'expiring_license'),
    (6, 'maintenance'),
    (7, 'org_team_invite'),
    (8, 'over_private_usage'),
    (9, 'password_required'),
    (10, 'repo_push'),
    (11, 'service_key_submitted'),
    (12, 'vulnerability_found'),
    (13, 'build_cancelled'),
    (14, 'repo_mirror_sync_started'),
    (15, 'repo_mirror_sync_success'),
    (16, 'repo_mirror_sync_failed'),
    (17, 'quota_warning'),
    (18, 'quota_error'),
    (19, 'assigned_authorization');
SELECT setval('notificationkind_id_seq', (SELECT max(id) FROM notificationkind));

INSERT INTO quotatype (id, name) VALUES
    (1, 'Warning'),
    (2, 'Reject');
SELECT setval('quotatype_id_seq', (SELECT max(id) FROM quotatype));

INSERT INTO repositorykind (id, name) VALUES
    (1, 'image'),
    (2, 'application');
SELECT setval('repositorykind_id_seq', (SELECT max(id) FROM repositorykind));

INSERT INTO role (id, name) VALUES
    (1, 'admin'),
    (2, 'write'),
    (3, 'read');
SELECT setval('role_id_seq', (SELECT max(id) FROM role));

INSERT INTO tagkind (id, name) VALUES
    (1, 'tag');
SELECT setval('tagkind_id_seq', (SELECT max(id) FROM tagkind));

INSERT INTO teamrole (id, name) VALUES
    (1, 'admin'),
    (2, 'creator'),
    (3, 'member');
SELECT setval('teamrole_id_seq', (SELECT max(id) FROM teamrole));

INSERT INTO userpromptkind (id, name) VALUES
    (1, 'confirm_username'),
    (2, 'enter_name'),
    (3, 'enter_company');
SELECT setval('userpromptkind_id_seq', (SELECT max(id) FROM userpromptkind));

INSERT INTO visibility (id, name) VALUES
    (1, 'public'),
    (2, 'private');
SELECT setval('visibility_id_seq', (SELECT max(id) FROM visibility));

CREATE INDEX accesstoken_kind_id ON accesstoken (kind_id);
CREATE INDEX accesstoken_repository_id ON accesstoken (repository_id);
CREATE INDEX accesstoken_role_id ON accesstoken (role_id);
CREATE UNIQUE INDEX accesstoken_token_name ON accesstoken (token_name);
CREATE UNIQUE INDEX accesstokenkind_name ON accesstokenkind (name);
CREATE UNIQUE INDEX apprblob_digest ON apprblob (digest);
CREATE INDEX apprblob_media_type_id ON apprblob (media_type_id);
CREATE INDEX apprblobplacement_blob_id ON apprblobplacement (blob_id);
CREATE UNIQUE INDEX apprblobplacement_blob_id_location_id ON apprblobplacement (blob_id, location_id);
CREATE INDEX apprblobplacement_location_id ON apprblobplacement (location_id);
CREATE UNIQUE INDEX apprblobplacementlocation_name ON apprblobplacementlocation (name);
CREATE UNIQUE INDEX apprmanifest_digest ON apprmanifest (digest);
CREATE INDEX apprmanifest_media_type_id ON apprmanifest (media_type_id);
CREATE INDEX apprmanifestblob_blob_id ON apprmanifestblob (blob_id);
CREATE INDEX apprmanifestblob_manifest_id ON apprmanifestblob (manifest_id);
CREATE UNIQUE INDEX apprmanifestblob_manifest_id_blob_id ON apprmanifestblob (manifest_id, blob_id);
CREATE UNIQUE INDEX apprmanifestlist_digest ON apprmanifestlist (digest);
CREATE INDEX apprmanifestlist_media_type_id ON apprmanifestlist (media_type_id);
CREATE INDEX apprmanifestlistmanifest_manifest_id ON apprmanifestlistmanifest (manifest_id);
CREATE INDEX apprmanifestlistmanifest_manifest_list_id ON apprmanifestlistmanifest (manifest_list_id);
CREATE INDEX apprmanifestlistmanifest_manifest_list_id_media_type_id ON apprmanifestlistmanifest (manifest_list_id, media_type_id);
CREATE INDEX apprmanifestlistmanifest_manifest_list_id_operating_system_arch ON apprmanifestlistmanifest (manifest_list_id, operating_system, architecture, media_type_id);
CREATE INDEX apprmanifestlistmanifest_media_type_id ON apprmanifestlistmanifest (media_type_id);
CREATE INDEX apprtag_lifetime_end ON apprtag (lifetime_end);
CREATE INDEX apprtag_linked_tag_id ON apprtag (linked_tag_id);
CREATE INDEX apprtag_manifest_list_id ON apprtag (manifest_list_id);
CREATE INDEX apprtag_repository_id ON apprtag (repository_id);
CREATE INDEX apprtag_repository_id_name ON apprtag (repository_id, name);
CREATE INDEX apprtag_repository_id_name_hidden ON apprtag (repository_id, name, hidden);
CREATE UNIQUE INDEX apprtag_repository_id_name_lifetime_end ON apprtag (repository_id, name, lifetime_end);
CREATE INDEX apprtag_tag_kind_id ON apprtag (tag_kind_id);
CREATE UNIQUE INDEX apprtagkind_name ON apprtagkind (name);
CREATE UNIQUE INDEX appspecificauthtoken_token_name ON appspecificauthtoken (token_name);
CREATE INDEX appspecificauthtoken_user_id ON appspecificauthtoken (user_id);
CREATE INDEX appspecificauthtoken_user_id_expiration ON appspecificauthtoken (user_id, expiration);
CREATE INDEX appspecificauthtoken_uuid ON appspecificauthtoken (uuid);
CREATE INDEX autoprunetaskstatus_last_ran_ms ON autoprunetaskstatus (last_ran_ms);
CREATE UNIQUE INDEX autoprunetaskstatus_namespace_id ON autoprunetaskstatus (namespace_id);
CREATE INDEX blobupload_created ON blobupload (created);
CREATE INDEX blobupload_location_id ON blobupload (location_id);
CREATE INDEX blobupload_repository_id ON blobupload (repository_id);
CREATE UNIQUE INDEX blobupload_repository_id_uuid ON blobupload (repository_id, uuid);
CREATE UNIQUE INDEX blobupload_uuid ON blobupload (uuid);
CREATE UNIQUE INDEX buildtriggerservice_name ON buildtriggerservice (name);
CREATE UNIQUE INDEX deletednamespace_namespace_id ON deletednamespace (namespace_id);
CREATE INDEX deletednamespace_original_email ON deletednamespace (original_email);
CREATE INDEX deletednamespace_original_username ON deletednamespace (original_username);
CREATE INDEX deletednamespace_queue_id ON deletednamespace (queue_id);
CREATE INDEX deletedrepository_original_name ON deletedrepository (original_name);
CREATE INDEX deletedrepository_queue_id ON deletedrepository (queue_id);
CREATE UNIQUE INDEX deletedrepository_repository_id ON deletedrepository (repository_id);
CREATE UNIQUE INDEX disablereason_name ON disablereason (name);
CREATE UNIQUE INDEX emailconfirmation_code ON emailconfirmation (code);
CREATE INDEX emailconfirmation_user_id ON emailconfirmation (user_id);
CREATE UNIQUE INDEX externalnotificationevent_name ON externalnotificationevent (name);
CREATE UNIQUE INDEX externalnotificationmethod_name ON externalnotificationmethod (name);
CREATE INDEX federatedlogin_service_id ON federatedlogin (service_id);
CREATE UNIQUE INDEX federatedlogin_service_id_service_ident ON federatedlogin (service_id, service_ident);
CREATE UNIQUE INDEX federatedlogin_service_id_user_id ON federatedlogin (service_id, user_id);
CREATE INDEX federatedlogin_user_id ON federatedlogin (user_id);
CREATE INDEX imagestorage_content_checksum ON imagestorage (content_checksum);
CREATE UNIQUE INDEX imagestorage_uuid ON imagestorage (uuid);
CREATE UNIQUE INDEX imagestoragelocation_name ON imagestoragelocation (name);
CREATE INDEX imagestorageplacement_location_id ON imagestorageplacement (location_id);
CREATE INDEX imagestorageplacement_storage_id ON imagestorageplacement (storage_id);
CREATE UNIQUE INDEX imagestorageplacement_storage_id_location_id ON imagestorageplacement (storage_id, location_id);
CREATE INDEX imagestoragesignature_kind_id ON imagestoragesignature (kind_id);
CREATE UNIQUE INDEX imagestoragesignature_kind_id_storage_id ON imagestoragesignature (kind_id, storage_id);
CREATE INDEX imagestoragesignature_storage_id ON imagestoragesignature (storage_id);
CREATE UNIQUE INDEX imagestoragesignaturekind_name ON imagestoragesignaturekind (name);
CREATE UNIQUE INDEX imagestoragetransformation_name ON imagestoragetransformation (name);
CREATE INDEX label_key ON label (key);
CREATE INDEX label_media_type_id ON label (media_type_id);
CREATE INDEX label_source_type_id ON label (source_type_id);
CREATE UNIQUE INDEX label_uuid ON label (uuid);
CREATE UNIQUE INDEX labelsourcetype_name ON labelsourcetype (name);
CREATE INDEX logentry_account_id ON logentry (account_id);
CREATE INDEX logentry_account_id_datetime ON logentry (account_id, datetime);
CREATE INDEX logentry_datetime ON logentry (datetime);
CREATE INDEX logentry_kind_id ON logentry (kind_id);
CREATE INDEX logentry_performer_id ON logentry (performer_id);
CREATE INDEX logentry_performer_id_datetime ON logentry (performer_id, datetime);
CREATE INDEX logentry_repository_id ON logentry (repository_id);
CREATE INDEX logentry_repository_id_datetime ON logentry (repository_id, datetime);
CREATE INDEX logentry_repository_id_datetime_kind_id ON logentry (repository_id, datetime, kind_id);
CREATE INDEX logentry2_account_id ON logentry2 (account_id);
CREATE INDEX logentry2_account_id_datetime ON logentry2 (account_id, datetime);
CREATE INDEX logentry2_datetime ON logentry2 (datetime);
CREATE INDEX logentry2_kind_id ON logentry2 (kind_id);
CREATE INDEX logentry2_performer_id ON logentry2 (performer_id);
CREATE INDEX logentry2_performer_id_datetime ON logentry2 (performer_id, datetime);
CREATE INDEX logentry2_repository_id ON logentry2 (repository_id);
CREATE INDEX logentry2_repository_id_datetime ON logentry2 (repository_id, datetime);
CREATE INDEX logentry2_repository_id_datetime_kind_id ON logentry2 (repository_id, datetime, kind_id);
CREATE INDEX logentry3_account_id_datetime ON logentry3 (account_id, datetime);
CREATE INDEX logentry3_datetime ON logentry3 (datetime);
CREATE INDEX logentry3_performer_id_datetime ON logentry3 (performer_id, datetime);
CREATE INDEX logentry3_repository_id_datetime_kind_id ON logentry3 (repository_id, datetime, kind_id);
CREATE UNIQUE INDEX logentrykind_name ON logentrykind (name);
CREATE UNIQUE INDEX loginservice_name ON loginservice (name);
CREATE INDEX manifest_artifact_type_backfilled ON manifest (artifact_type_backfilled);
CREATE INDEX manifest_digest ON manifest (digest);
CREATE INDEX manifest_media_type_id ON manifest (media_type_id);
CREATE INDEX manifest_repository_id ON manifest (repository_id);
CREATE INDEX manifest_repository_id_artifact_type ON manifest (repository_id, artifact_type);
CREATE INDEX manifest_repository_id_config_media_type ON manifest (repository_id, config_media_type);
CREATE UNIQUE INDEX manifest_repository_id_digest ON manifest (repository_id, digest);
CREATE INDEX manifest_repository_id_media_type_id ON manifest (repository_id, media_type_id);
CREATE INDEX manifest_repository_id_subject ON manifest (repository_id, subject);
CREATE INDEX manifest_subject_backfilled ON manifest (subject_backfilled);
CREATE INDEX manifestblob_blob_id ON manifestblob (blob_id);
CREATE INDEX manifestblob_manifest_id ON manifestblob (manifest_id);
CREATE UNIQUE INDEX manifestblob_manifest_id_blob_id ON manifestblob (manifest_id, blob_id);
CREATE INDEX manifestblob_repository_id ON manifestblob (repository_id);
CREATE INDEX manifestblob_repository_id_blob_id ON manifestblob (repository_id, blob_id);
CREATE INDEX manifestchild_child_manifest_id ON manifestchild (child_manifest_id);
CREATE INDEX manifestchild_manifest_id ON manifestchild (manifest_id);
CREATE UNIQUE INDEX manifestchild_manifest_id_child_manifest_id ON manifestchild (manifest_id, child_manifest_id);
CREATE INDEX manifestchild_repository_id ON manifestchild (repository_id);
CREATE INDEX manifestchild_repository_id_child_manifest_id ON manifestchild (repository_id, child_manifest_id);
CREATE INDEX manifestchild_repository_id_manifest_id ON manifestchild (repository_id, manifest_id);
CREATE INDEX manifestchild_repository_id_manifest_id_child_manifest_id ON manifestchild (repository_id, manifest_id, child_manifest_id);
CREATE INDEX manifestlabel_label_id ON manifestlabel (label_id);
CREATE INDEX manifestlabel_manifest_id ON manifestlabel (manifest_id);
CREATE UNIQUE INDEX manifestlabel_manifest_id_label_id ON manifestlabel (manifest_id, label_id);
CREATE INDEX manifestlabel_repository_id ON manifestlabel (repository_id);
CREATE UNIQUE INDEX manifestpullstatistics_repository_id_manifest_digest ON manifestpullstatistics (repository_id, manifest_digest);
CREATE INDEX manifestsecuritystatus_index_status ON manifestsecuritystatus (index_status);
CREATE INDEX manifestsecuritystatus_indexer_hash ON manifestsecuritystatus (indexer_hash);
CREATE INDEX manifestsecuritystatus_indexer_version ON manifestsecuritystatus (indexer_version);
CREATE INDEX manifestsecuritystatus_last_indexed ON manifestsecuritystatus (last_indexed);
CREATE UNIQUE INDEX manifestsecuritystatus_manifest_id ON manifestsecuritystatus (manifest_id);
CREATE INDEX manifestsecuritystatus_repository_id ON manifestsecuritystatus (repository_id);
CREATE UNIQUE INDEX mediatype_name ON mediatype (name);
CREATE INDEX messages_media_type_id ON messages (media_type_id);
CREATE INDEX messages_severity ON messages (severity);
CREATE INDEX messages_uuid ON messages (uuid);
CREATE INDEX namespaceautoprunepolicy_namespace_id ON namespaceautoprunepolicy (namespace_id);
CREATE UNIQUE INDEX namespaceautoprunepolicy_uuid ON namespaceautoprunepolicy (uuid);
CREATE INDEX namespaceimmutabilitypolicy_namespace_id ON namespaceimmutabilitypolicy (namespace_id);
CREATE UNIQUE INDEX namespaceimmutabilitypolicy_uuid ON namespaceimmutabilitypolicy (uuid);
CREATE INDEX namespacenotification_namespace_id ON namespacenotification (namespace_id);
CREATE INDEX namespacenotification_uuid ON namespacenotification (uuid);
CREATE INDEX notification_created ON notification (created);
CREATE INDEX notification_kind_id ON notification (kind_id);
CREATE INDEX notification_lookup_path ON notification (lookup_path);
CREATE INDEX notification_target_id ON notification (target_id);
CREATE INDEX notification_uuid ON notification (uuid);
CREATE UNIQUE INDEX notificationkind_name ON notificationkind (name);
CREATE INDEX oauthaccesstoken_application_id ON oauthaccesstoken (application_id);
CREATE INDEX oauthaccesstoken_application_id_last_accessed ON oauthaccesstoken (application_id, last_accessed);
CREATE INDEX oauthaccesstoken_authorized_user_id ON oauthaccesstoken (authorized_user_id);
CREATE UNIQUE INDEX oauthaccesstoken_token_name ON oauthaccesstoken (token_name);
CREATE INDEX oauthaccesstoken_uuid ON oauthaccesstoken (uuid);
CREATE INDEX oauthapplication_client_id ON oauthapplication (client_id);
CREATE INDEX oauthapplication_organization_id ON oauthapplication (organization_id);
CREATE INDEX oauthassignedtoken_application_id ON oauthassignedtoken (application_id);
CREATE INDEX oauthassignedtoken_assigned_user ON oauthassignedtoken (assigned_user_id);
CREATE UNIQUE INDEX oauthassignedtoken_uuid ON oauthassignedtoken (uuid);
CREATE INDEX oauthauthorizationcode_application_id ON oauthauthorizationcode (application_id);
CREATE UNIQUE INDEX oauthauthorizationcode_code_name ON oauthauthorizationcode (code_name);
CREATE INDEX organizationcontactemail_contact_email ON organizationcontactemail (contact_email);
CREATE UNIQUE INDEX organizationcontactemail_organization_id ON organizationcontactemail (organization_id);
CREATE INDEX organizationrhskus_subscription_id ON organizationrhskus (subscription_id);
CREATE UNIQUE INDEX organizationrhskus_subscription_id_org_id ON organizationrhskus (subscription_id, org_id);
CREATE UNIQUE INDEX organizationrhskus_subscription_id_org_id_user_id ON organizationrhskus (subscription_id, org_id, user_id);
CREATE INDEX orgmirrorconfig_internal_robot_id ON orgmirrorconfig (internal_robot_id);
CREATE UNIQUE INDEX orgmirrorconfig_organization_id ON orgmirrorconfig (organization_id);
CREATE INDEX orgmirrorconfig_sync_start_date ON orgmirrorconfig (sync_start_date);
CREATE INDEX orgmirrorconfig_sync_status ON orgmirrorconfig (sync_status);
CREATE UNIQUE INDEX orgmirrorrepository_config_repo_name ON orgmirrorrepository (org_mirror_config_id, repository_name);
CREATE INDEX orgmirrorrepository_config_status ON orgmirrorrepository (org_mirror_config_id, sync_status);
CREATE INDEX orgmirrorrepository_org_mirror_config_id ON orgmirrorrepository (org_mirror_config_id);
CREATE INDEX orgmirrorrepository_repository_id ON orgmirrorrepository (repository_id);
CREATE INDEX orgmirrorrepository_sync_status ON orgmirrorrepository (sync_status);
CREATE INDEX permissionprototype_activating_user_id ON permissionprototype (activating_user_id);
CREATE INDEX permissionprototype_delegate_team_id ON permissionprototype (delegate_team_id);
CREATE INDEX permissionprototype_delegate_user_id ON permissionprototype (delegate_user_id);
CREATE INDEX permissionprototype_org_id ON permissionprototype (org_id);
CREATE INDEX permissionprototype_org_id_activating_user_id ON permissionprototype (org_id, activating_user_id);
CREATE INDEX permissionprototype_role_id ON permissionprototype (role_id);
CREATE INDEX permissionprototype_uuid ON permissionprototype (uuid);
CREATE UNIQUE INDEX quayregion_name ON quayregion (name);
CREATE INDEX quayrelease_created ON quayrelease (created);
CREATE INDEX quayrelease_region_id ON quayrelease (region_id);
CREATE INDEX quayrelease_service_id ON quayrelease (service_id);
CREATE INDEX quayrelease_service_id_region_id_created ON quayrelease (service_id, region_id, created);
CREATE UNIQUE INDEX quayrelease_service_id_version_region_id ON quayrelease (service_id, version, region_id);
CREATE UNIQUE INDEX quayservice_name ON quayservice (name);
CREATE INDEX queueitem_pe_aafter_qname_rremaining_available ON queueitem (processing_expires, available_after, queue_name, retries_remaining, available);
CREATE INDEX queueitem_pexpires_aafter_rremaining_available ON queueitem (processing_expires, available_after, retries_remaining, available);
CREATE INDEX queueitem_processing_expires_available ON queueitem (processing_expires, available);
CREATE INDEX queueitem_processing_expires_queue_name_available ON queueitem (processing_expires, queue_name, available);
CREATE INDEX queueitem_queue_name ON queueitem (queue_name);
CREATE UNIQUE INDEX queueitem_state_id ON queueitem (state_id);
CREATE INDEX quotalimits_quota_id ON quotalimits (quota_id);
CREATE INDEX quotanamespacesize_backfill_start_ms ON quotanamespacesize (backfill_start_ms);
CREATE UNIQUE INDEX quotanamespacesize_namespace_user_id ON quotanamespacesize (namespace_user_id);
CREATE INDEX quotanamespacesize_size_bytes ON quotanamespacesize (size_bytes);
CREATE INDEX quotanotificationstate_namespace_id ON quotanotificationstate (namespace_id);
CREATE UNIQUE INDEX quotanotificationstate_namespace_threshold ON quotanotificationstate (namespace_id, threshold_percent);
CREATE UNIQUE INDEX quotarepositorysize_repository_id ON quotarepositorysize (repository_id);
CREATE INDEX quotarepositorysize_size_bytes ON quotarepositorysize (size_bytes);
CREATE INDEX repomirrorconfig_internal_robot_id ON repomirrorconfig (internal_robot_id);
CREATE INDEX repomirrorconfig_mirror_type ON repomirrorconfig (mirror_type);
CREATE UNIQUE INDEX repomirrorconfig_repository_id ON repomirrorconfig (repository_id);
CREATE INDEX repomirrorconfig_root_rule_id ON repomirrorconfig (root_rule_id);
CREATE INDEX repomirrorconfig_sync_status ON repomirrorconfig (sync_status);
CREATE INDEX repomirrorconfig_sync_transaction_id ON repomirrorconfig (sync_transaction_id);
CREATE INDEX repomirrorrule_left_child_id ON repomirrorrule (left_child_id);
CREATE INDEX repomirrorrule_repository_id ON repomirrorrule (repository_id);
CREATE INDEX repomirrorrule_right_child_id ON repomirrorrule (right_child_id);
CREATE INDEX repomirrorrule_rule_type ON repomirrorrule (rule_type);
CREATE UNIQUE INDEX repomirrorrule_uuid ON repomirrorrule (uuid);
CREATE INDEX repository_description__fulltext ON repository USING gin (description gin_trgm_ops);
CREATE INDEX repository_kind_id ON repository (kind_id);
CREATE INDEX repository_name__fulltext ON repository USING gin (name gin_trgm_ops);
CREATE INDEX repository_namespace_user_id ON repository (namespace_user_id);
CREATE UNIQUE INDEX repository_namespace_user_id_name ON repository (namespace_user_id, name);
CREATE INDEX repository_state ON repository (state);
CREATE INDEX repository_visibility_id ON repository (visibility_id);
CREATE INDEX repositoryactioncount_date ON repositoryactioncount (date);
CREATE INDEX repositoryactioncount_repository_id ON repositoryactioncount (repository_id);
CREATE UNIQUE INDEX repositoryactioncount_repository_id_date ON repositoryactioncount (repository_id, date);
CREATE UNIQUE INDEX repositoryauthorizedemail_code ON repositoryauthorizedemail (code);
CREATE UNIQUE INDEX repositoryauthorizedemail_email_repository_id ON repositoryauthorizedemail (email, repository_id);
CREATE INDEX repositoryauthorizedemail_repository_id ON repositoryauthorizedemail (repository_id);
CREATE INDEX repositoryautoprunepolicy_namespace_id ON repositoryautoprunepolicy (namespace_id);
CREATE INDEX repositoryautoprunepolicy_repository_id ON repositoryautoprunepolicy (repository_id);
CREATE UNIQUE INDEX repositoryautoprunepolicy_uuid ON repositoryautoprunepolicy (uuid);
CREATE INDEX repositorybuild_access_token_id ON repositorybuild (access_token_id);
CREATE INDEX repositorybuild_logs_archived ON repositorybuild (logs_archived);
CREATE INDEX repositorybuild_pull_robot_id ON repositorybuild (pull_robot_id);
CREATE INDEX repositorybuild_queue_id ON repositorybuild (queue_id);
CREATE INDEX repositorybuild_repository_id ON repositorybuild (repository_id);
CREATE INDEX repositorybuild_repository_id_started_phase ON repositorybuild (repository_id, started, phase);
CREATE INDEX repositorybuild_resource_key ON repositorybuild (resource_key);
CREATE INDEX repositorybuild_started ON repositorybuild (started);
CREATE INDEX repositorybuild_started_logs_archived_phase ON repositorybuild (started, logs_archived, phase);
CREATE INDEX repositorybuild_trigger_id ON repositorybuild (trigger_id);
CREATE INDEX repositorybuild_uuid ON repositorybuild (uuid);
CREATE INDEX repositorybuildtrigger_connected_user_id ON repositorybuildtrigger (connected_user_id);
CREATE INDEX repositorybuildtrigger_disabled_datetime ON repositorybuildtrigger (disabled_datetime);
CREATE INDEX repositorybuildtrigger_disabled_reason_id ON repositorybuildtrigger (disabled_reason_id);
CREATE INDEX repositorybuildtrigger_pull_robot_id ON repositorybuildtrigger (pull_robot_id);
CREATE INDEX repositorybuildtrigger_repository_id ON repositorybuildtrigger (repository_id);
CREATE INDEX repositorybuildtrigger_service_id ON repositorybuildtrigger (service_id);
CREATE INDEX repositorybuildtrigger_uuid ON repositorybuildtrigger (uuid);
CREATE INDEX repositorybuildtrigger_write_token_id ON repositorybuildtrigger (write_token_id);
CREATE INDEX repositoryimmutabilitypolicy_namespace_id ON repositoryimmutabilitypolicy (namespace_id);
CREATE INDEX repositoryimmutabilitypolicy_repository_id ON repositoryimmutabilitypolicy (repository_id);
CREATE UNIQUE INDEX repositoryimmutabilitypolicy_uuid ON repositoryimmutabilitypolicy (uuid);
CREATE UNIQUE INDEX repositorykind_name ON repositorykind (name);
CREATE INDEX repositorynotification_event_id ON repositorynotification (event_id);
CREATE INDEX repositorynotification_last_ran_ms ON repositorynotification (last_ran_ms);
CREATE INDEX repositorynotification_method_id ON repositorynotification (method_id);
CREATE INDEX repositorynotification_repository_id ON repositorynotification (repository_id);
CREATE INDEX repositorynotification_uuid ON repositorynotification (uuid);
CREATE INDEX repositorypermission_repository_id ON repositorypermission (repository_id);
CREATE INDEX repositorypermission_role_id ON repositorypermission (role_id);
CREATE INDEX repositorypermission_team_id ON repositorypermission (team_id);
CREATE UNIQUE INDEX repositorypermission_team_id_repository_id ON repositorypermission (team_id, repository_id);
CREATE INDEX repositorypermission_user_id ON repositorypermission (user_id);
CREATE UNIQUE INDEX repositorypermission_user_id_repository_id ON repositorypermission (user_id, repository_id);
CREATE UNIQUE INDEX repositorysearchscore_repository_id ON repositorysearchscore (repository_id);
CREATE INDEX repositorysearchscore_score ON repositorysearchscore (score);
CREATE UNIQUE INDEX robotaccountmetadata_robot_account_id ON robotaccountmetadata (robot_account_id);
CREATE UNIQUE INDEX robotaccounttoken_robot_account_id ON robotaccounttoken (robot_account_id);
CREATE UNIQUE INDEX role_name ON role (name);
CREATE INDEX servicekey_approval_id ON servicekey (approval_id);
CREATE UNIQUE INDEX servicekey_kid ON servicekey (kid);
CREATE INDEX servicekey_service ON servicekey (service);
CREATE INDEX servicekeyapproval_approval_type ON servicekeyapproval (approval_type);
CREATE INDEX servicekeyapproval_approver_id ON servicekeyapproval (approver_id);
CREATE INDEX star_repository_id ON star (repository_id);
CREATE INDEX star_user_id ON star (user_id);
CREATE UNIQUE INDEX star_user_id_repository_id ON star (user_id, repository_id);
CREATE INDEX tag_lifetime_end_ms ON tag (lifetime_end_ms);
CREATE INDEX tag_linked_tag_id ON tag (linked_tag_id);
CREATE INDEX tag_manifest_id ON tag (manifest_id);
CREATE INDEX tag_manifest_id_immutable ON tag (manifest_id, immutable);
CREATE INDEX tag_manifest_id_lifetime_end_ms ON tag (manifest_id, lifetime_end_ms);
CREATE INDEX tag_repository_id ON tag (repository_id);
CREATE INDEX tag_repository_id_immutable ON tag (repository_id, immutable);
CREATE INDEX tag_repository_id_lifetime_end_ms ON tag (repository_id, lifetime_end_ms);
CREATE INDEX tag_repository_id_lifetime_start_ms ON tag (repository_id, lifetime_start_ms);
CREATE INDEX tag_repository_id_name ON tag (repository_id, name);
CREATE INDEX tag_repository_id_name_hidden ON tag (repository_id, name, hidden);
CREATE UNIQUE INDEX tag_repository_id_name_lifetime_end_ms ON tag (repository_id, name, lifetime_end_ms);
CREATE INDEX tag_repository_id_name_tag_kind_id ON tag (repository_id, name, tag_kind_id);
CREATE INDEX tag_tag_kind_id ON tag (tag_kind_id);
CREATE UNIQUE INDEX tagkind_name ON tagkind (name);
CREATE INDEX tagnotificationsuccess_notification_id ON tagnotificationsuccess (notification_id);
CREATE INDEX tagnotificationsuccess_tag_id ON tagnotificationsuccess (tag_id);
CREATE UNIQUE INDEX tagpullstatistics_repository_id_tag_name ON tagpullstatistics (repository_id, tag_name);
CREATE INDEX team_name ON team (name);
CREATE UNIQUE INDEX team_name_organization_id ON team (name, organization_id);
CREATE INDEX team_organization_id ON team (organization_id);
CREATE INDEX team_role_id ON team (role_id);
CREATE INDEX teammember_team_id ON teammember (team_id);
CREATE INDEX teammember_user_id ON teammember (user_id);
CREATE UNIQUE INDEX teammember_user_id_team_id ON teammember (user_id, team_id);
CREATE INDEX teammemberinvite_inviter_id ON teammemberinvite (inviter_id);
CREATE INDEX teammemberinvite_team_id ON teammemberinvite (team_id);
CREATE INDEX teammemberinvite_user_id ON teammemberinvite (user_id);
CREATE INDEX teamrole_name ON teamrole (name);
CREATE INDEX teamsync_last_updated ON teamsync (last_updated);
CREATE INDEX teamsync_service_id ON teamsync (service_id);
CREATE UNIQUE INDEX teamsync_team_id ON teamsync (team_id);
CREATE INDEX uploadedblob_blob_id ON uploadedblob (blob_id);
CREATE INDEX uploadedblob_expires_at ON uploadedblob (expires_at);
CREATE INDEX uploadedblob_repository_id ON uploadedblob (repository_id);
CREATE INDEX user_email_idx ON "user" (email);
CREATE UNIQUE INDEX user_email_unique_non_org ON "user" (email) WHERE organization = false;
CREATE INDEX user_invoice_email_address ON "user" (invoice_email_address);
CREATE INDEX user_last_accessed ON "user" (last_accessed);
CREATE INDEX user_organization ON "user" (organization);
CREATE INDEX user_robot ON "user" (robot);
CREATE INDEX user_stripe_id ON "user" (stripe_id);
CREATE UNIQUE INDEX user_username ON "user" (username);
CREATE INDEX user_uuid ON "user" (uuid);
CREATE UNIQUE INDEX userorganizationquota_organization ON userorganizationquota (namespace_id);
CREATE INDEX userprompt_kind_id ON userprompt (kind_id);
CREATE INDEX userprompt_user_id ON userprompt (user_id);
CREATE UNIQUE INDEX userprompt_user_id_kind_id ON userprompt (user_id, kind_id);
CREATE INDEX userpromptkind_name ON userpromptkind (name);
CREATE INDEX userregion_location_id ON userregion (location_id);
CREATE INDEX userregion_user_id ON userregion (user_id);
CREATE UNIQUE INDEX visibility_name ON visibility (name);

ALTER TABLE accesstoken ADD CONSTRAINT fk_accesstoken_kind_id_accesstokenkind FOREIGN KEY (kind_id) REFERENCES accesstokenkind (id);
ALTER TABLE accesstoken ADD CONSTRAINT fk_accesstoken_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE accesstoken ADD CONSTRAINT fk_accesstoken_role_id_role FOREIGN KEY (role_id) REFERENCES role (id);
ALTER TABLE apprblob ADD CONSTRAINT fk_apprblob_media_type_id_mediatype FOREIGN KEY (media_type_id) REFERENCES mediatype (id);
ALTER TABLE apprblobplacement ADD CONSTRAINT fk_apprblobplacement_blob_id_apprblob FOREIGN KEY (blob_id) REFERENCES apprblob (id);
ALTER TABLE apprblobplacement ADD CONSTRAINT fk_apprblobplacement_location_id_apprblobplacementlocation FOREIGN KEY (location_id) REFERENCES apprblobplacementlocation (id);
ALTER TABLE apprmanifest ADD CONSTRAINT fk_apprmanifest_media_type_id_mediatype FOREIGN KEY (media_type_id) REFERENCES mediatype (id);
ALTER TABLE apprmanifestblob ADD CONSTRAINT fk_apprmanifestblob_blob_id_apprblob FOREIGN KEY (blob_id) REFERENCES apprblob (id);
ALTER TABLE apprmanifestblob ADD CONSTRAINT fk_apprmanifestblob_manifest_id_apprmanifest FOREIGN KEY (manifest_id) REFERENCES apprmanifest (id);
ALTER TABLE apprmanifestlist ADD CONSTRAINT fk_apprmanifestlist_media_type_id_mediatype FOREIGN KEY (media_type_id) REFERENCES mediatype (id);
ALTER TABLE apprmanifestlistmanifest ADD CONSTRAINT fk_apprmanifestlistmanifest_manifest_id_apprmanifest FOREIGN KEY (manifest_id) REFERENCES apprmanifest (id);
ALTER TABLE apprmanifestlistmanifest ADD CONSTRAINT fk_apprmanifestlistmanifest_manifest_list_id_apprmanifestlist FOREIGN KEY (manifest_list_id) REFERENCES apprmanifestlist (id);
ALTER TABLE apprmanifestlistmanifest ADD CONSTRAINT fk_apprmanifestlistmanifest_media_type_id_mediatype FOREIGN KEY (media_type_id) REFERENCES mediatype (id);
ALTER TABLE apprtag ADD CONSTRAINT fk_apprtag_linked_tag_id_apprtag FOREIGN KEY (linked_tag_id) REFERENCES apprtag (id);
ALTER TABLE apprtag ADD CONSTRAINT fk_apprtag_manifest_list_id_apprmanifestlist FOREIGN KEY (manifest_list_id) REFERENCES apprmanifestlist (id);
ALTER TABLE apprtag ADD CONSTRAINT fk_apprtag_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE apprtag ADD CONSTRAINT fk_apprtag_tag_kind_id_apprtagkind FOREIGN KEY (tag_kind_id) REFERENCES apprtagkind (id);
ALTER TABLE appspecificauthtoken ADD CONSTRAINT fk_appspecificauthtoken_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE autoprunetaskstatus ADD CONSTRAINT fk_autoprunetaskstatus_namespace_id_user FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE blobupload ADD CONSTRAINT fk_blobupload_location_id_imagestoragelocation FOREIGN KEY (location_id) REFERENCES imagestoragelocation (id);
ALTER TABLE blobupload ADD CONSTRAINT fk_blobupload_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE deletednamespace ADD CONSTRAINT fk_deletednamespace_namespace_id_user FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE deletedrepository ADD CONSTRAINT fk_deletedrepository_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE emailconfirmation ADD CONSTRAINT fk_emailconfirmation_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE federatedlogin ADD CONSTRAINT fk_federatedlogin_service_id_loginservice FOREIGN KEY (service_id) REFERENCES loginservice (id);
ALTER TABLE federatedlogin ADD CONSTRAINT fk_federatedlogin_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE imagestorageplacement ADD CONSTRAINT fk_imagestorageplacement_location_id_imagestoragelocation FOREIGN KEY (location_id) REFERENCES imagestoragelocation (id);
ALTER TABLE imagestorageplacement ADD CONSTRAINT fk_imagestorageplacement_storage_id_imagestorage FOREIGN KEY (storage_id) REFERENCES imagestorage (id);
ALTER TABLE imagestoragesignature ADD CONSTRAINT fk_imagestoragesignature_kind_id_imagestoragesignaturekind FOREIGN KEY (kind_id) REFERENCES imagestoragesignaturekind (id);
ALTER TABLE imagestoragesignature ADD CONSTRAINT fk_imagestoragesignature_storage_id_imagestorage FOREIGN KEY (storage_id) REFERENCES imagestorage (id);
ALTER TABLE label ADD CONSTRAINT fk_label_media_type_id_mediatype FOREIGN KEY (media_type_id) REFERENCES mediatype (id);
ALTER TABLE label ADD CONSTRAINT fk_label_source_type_id_labelsourcetype FOREIGN KEY (source_type_id) REFERENCES labelsourcetype (id);
ALTER TABLE logentry ADD CONSTRAINT fk_logentry_kind_id_logentrykind FOREIGN KEY (kind_id) REFERENCES logentrykind (id);
ALTER TABLE logentry2 ADD CONSTRAINT fk_logentry2_kind_id_logentrykind FOREIGN KEY (kind_id) REFERENCES logentrykind (id);
ALTER TABLE manifest ADD CONSTRAINT fk_manifest_media_type_id_mediatype FOREIGN KEY (media_type_id) REFERENCES mediatype (id);
ALTER TABLE manifest ADD CONSTRAINT fk_manifest_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE manifestblob ADD CONSTRAINT fk_manifestblob_blob_id_imagestorage FOREIGN KEY (blob_id) REFERENCES imagestorage (id);
ALTER TABLE manifestblob ADD CONSTRAINT fk_manifestblob_manifest_id_manifest FOREIGN KEY (manifest_id) REFERENCES manifest (id);
ALTER TABLE manifestblob ADD CONSTRAINT fk_manifestblob_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE manifestchild ADD CONSTRAINT fk_manifestchild_child_manifest_id_manifest FOREIGN KEY (child_manifest_id) REFERENCES manifest (id);
ALTER TABLE manifestchild ADD CONSTRAINT fk_manifestchild_manifest_id_manifest FOREIGN KEY (manifest_id) REFERENCES manifest (id);
ALTER TABLE manifestchild ADD CONSTRAINT fk_manifestchild_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE manifestlabel ADD CONSTRAINT fk_manifestlabel_label_id_label FOREIGN KEY (label_id) REFERENCES label (id);
ALTER TABLE manifestlabel ADD CONSTRAINT fk_manifestlabel_manifest_id_manifest FOREIGN KEY (manifest_id) REFERENCES manifest (id);
ALTER TABLE manifestlabel ADD CONSTRAINT fk_manifestlabel_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE manifestpullstatistics ADD CONSTRAINT fk_manifestpullstatistics_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE manifestsecuritystatus ADD CONSTRAINT fk_manifestsecuritystatus_manifest_id_manifest FOREIGN KEY (manifest_id) REFERENCES manifest (id);
ALTER TABLE manifestsecuritystatus ADD CONSTRAINT fk_manifestsecuritystatus_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE messages ADD CONSTRAINT fk_messages_media_type_id_mediatype FOREIGN KEY (media_type_id) REFERENCES mediatype (id);
ALTER TABLE namespaceautoprunepolicy ADD CONSTRAINT fk_namespaceautoprunepolicy_namespace_id_user FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE namespaceimmutabilitypolicy ADD CONSTRAINT fk_namespaceimmutabilitypolicy_namespace_id_user FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE namespacenotification ADD CONSTRAINT fk_namespacenotification_event_id FOREIGN KEY (event_id) REFERENCES externalnotificationevent (id);
ALTER TABLE namespacenotification ADD CONSTRAINT fk_namespacenotification_method_id FOREIGN KEY (method_id) REFERENCES externalnotificationmethod (id);
ALTER TABLE namespacenotification ADD CONSTRAINT fk_namespacenotification_namespace_id FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE notification ADD CONSTRAINT fk_notification_kind_id_notificationkind FOREIGN KEY (kind_id) REFERENCES notificationkind (id);
ALTER TABLE notification ADD CONSTRAINT fk_notification_target_id_user FOREIGN KEY (target_id) REFERENCES "user" (id);
ALTER TABLE oauthaccesstoken ADD CONSTRAINT fk_oauthaccesstoken_application_id_oauthapplication FOREIGN KEY (application_id) REFERENCES oauthapplication (id);
ALTER TABLE oauthaccesstoken ADD CONSTRAINT fk_oauthaccesstoken_authorized_user_id_user FOREIGN KEY (authorized_user_id) REFERENCES "user" (id);
ALTER TABLE oauthapplication ADD CONSTRAINT fk_oauthapplication_organization_id_user FOREIGN KEY (organization_id) REFERENCES "user" (id);
ALTER TABLE oauthassignedtoken ADD CONSTRAINT fk_oauthassignedtoken_application_oauthapplication FOREIGN KEY (application_id) REFERENCES oauthapplication (id);
ALTER TABLE oauthassignedtoken ADD CONSTRAINT fk_oauthassignedtoken_assigned_user_user FOREIGN KEY (assigned_user_id) REFERENCES "user" (id);
ALTER TABLE oauthauthorizationcode ADD CONSTRAINT fk_oauthauthorizationcode_application_id_oauthapplication FOREIGN KEY (application_id) REFERENCES oauthapplication (id);
ALTER TABLE organizationcontactemail ADD CONSTRAINT fk_organizationcontactemail_organization_id_user FOREIGN KEY (organization_id) REFERENCES "user" (id);
ALTER TABLE organizationrhskus ADD CONSTRAINT fk_organizationrhskus_orgid FOREIGN KEY (org_id) REFERENCES "user" (id);
ALTER TABLE organizationrhskus ADD CONSTRAINT fk_organizationrhskus_userid FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE orgmirrorconfig ADD CONSTRAINT fk_orgmirrorconfig_internal_robot_id_user FOREIGN KEY (internal_robot_id) REFERENCES "user" (id);
ALTER TABLE orgmirrorconfig ADD CONSTRAINT fk_orgmirrorconfig_organization_id_user FOREIGN KEY (organization_id) REFERENCES "user" (id);
ALTER TABLE orgmirrorconfig ADD CONSTRAINT fk_orgmirrorconfig_visibility_id_visibility FOREIGN KEY (visibility_id) REFERENCES visibility (id);
ALTER TABLE orgmirrorrepository ADD CONSTRAINT fk_orgmirrorrepository_org_mirror_config_id_orgmirrorconfig FOREIGN KEY (org_mirror_config_id) REFERENCES orgmirrorconfig (id);
ALTER TABLE orgmirrorrepository ADD CONSTRAINT fk_orgmirrorrepository_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE permissionprototype ADD CONSTRAINT fk_permissionprototype_activating_user_id_user FOREIGN KEY (activating_user_id) REFERENCES "user" (id);
ALTER TABLE permissionprototype ADD CONSTRAINT fk_permissionprototype_delegate_team_id_team FOREIGN KEY (delegate_team_id) REFERENCES team (id);
ALTER TABLE permissionprototype ADD CONSTRAINT fk_permissionprototype_delegate_user_id_user FOREIGN KEY (delegate_user_id) REFERENCES "user" (id);
ALTER TABLE permissionprototype ADD CONSTRAINT fk_permissionprototype_org_id_user FOREIGN KEY (org_id) REFERENCES "user" (id);
ALTER TABLE permissionprototype ADD CONSTRAINT fk_permissionprototype_role_id_role FOREIGN KEY (role_id) REFERENCES role (id);
ALTER TABLE proxycacheconfig ADD CONSTRAINT fk_proxy_cache_config_organization_id FOREIGN KEY (organization_id) REFERENCES "user" (id);
ALTER TABLE quayrelease ADD CONSTRAINT fk_quayrelease_region_id_quayregion FOREIGN KEY (region_id) REFERENCES quayregion (id);
ALTER TABLE quayrelease ADD CONSTRAINT fk_quayrelease_service_id_quayservice FOREIGN KEY (service_id) REFERENCES quayservice (id);
ALTER TABLE quotalimits ADD CONSTRAINT fk_quotalimit_id FOREIGN KEY (quota_id) REFERENCES userorganizationquota (id);
ALTER TABLE quotalimits ADD CONSTRAINT fk_quotalimit_type FOREIGN KEY (quota_type_id) REFERENCES quotatype (id);
ALTER TABLE quotanamespacesize ADD CONSTRAINT fk_quotanamespacesize_namespace_user_id_user FOREIGN KEY (namespace_user_id) REFERENCES "user" (id);
ALTER TABLE quotanotificationstate ADD CONSTRAINT fk_quotanotificationstate_namespace_id FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE quotarepositorysize ADD CONSTRAINT fk_quotarepositorysize_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE redhatsubscriptions ADD CONSTRAINT fk_redhatsubscriptions FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE repomirrorconfig ADD CONSTRAINT fk_repomirrorconfig_internal_robot_id_user FOREIGN KEY (internal_robot_id) REFERENCES "user" (id);
ALTER TABLE repomirrorconfig ADD CONSTRAINT fk_repomirrorconfig_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repomirrorconfig ADD CONSTRAINT fk_repomirrorconfig_root_rule_id_repomirrorrule FOREIGN KEY (root_rule_id) REFERENCES repomirrorrule (id);
ALTER TABLE repomirrorrule ADD CONSTRAINT fk_repomirrorrule_left_child_id_repomirrorrule FOREIGN KEY (left_child_id) REFERENCES repomirrorrule (id);
ALTER TABLE repomirrorrule ADD CONSTRAINT fk_repomirrorrule_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repomirrorrule ADD CONSTRAINT fk_repomirrorrule_right_child_id_repomirrorrule FOREIGN KEY (right_child_id) REFERENCES repomirrorrule (id);
ALTER TABLE repository ADD CONSTRAINT fk_repository_kind_id_repositorykind FOREIGN KEY (kind_id) REFERENCES repositorykind (id);
ALTER TABLE repository ADD CONSTRAINT fk_repository_namespace_user_id_user FOREIGN KEY (namespace_user_id) REFERENCES "user" (id);
ALTER TABLE repository ADD CONSTRAINT fk_repository_visibility_id_visibility FOREIGN KEY (visibility_id) REFERENCES visibility (id);
ALTER TABLE repositoryactioncount ADD CONSTRAINT fk_repositoryactioncount_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repositoryauthorizedemail ADD CONSTRAINT fk_repositoryauthorizedemail_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repositoryautoprunepolicy ADD CONSTRAINT fk_repositoryautoprunepolicy_namespace_id_user FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE repositoryautoprunepolicy ADD CONSTRAINT fk_repositoryautoprunepolicy_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repositorybuild ADD CONSTRAINT fk_repositorybuild_access_token_id_accesstoken FOREIGN KEY (access_token_id) REFERENCES accesstoken (id);
ALTER TABLE repositorybuild ADD CONSTRAINT fk_repositorybuild_pull_robot_id_user FOREIGN KEY (pull_robot_id) REFERENCES "user" (id);
ALTER TABLE repositorybuild ADD CONSTRAINT fk_repositorybuild_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repositorybuild ADD CONSTRAINT fk_repositorybuild_trigger_id_repositorybuildtrigger FOREIGN KEY (trigger_id) REFERENCES repositorybuildtrigger (id);
ALTER TABLE repositorybuildtrigger ADD CONSTRAINT fk_repositorybuildtrigger_connected_user_id_user FOREIGN KEY (connected_user_id) REFERENCES "user" (id);
ALTER TABLE repositorybuildtrigger ADD CONSTRAINT fk_repositorybuildtrigger_disabled_reason_id_disablereason FOREIGN KEY (disabled_reason_id) REFERENCES disablereason (id);
ALTER TABLE repositorybuildtrigger ADD CONSTRAINT fk_repositorybuildtrigger_pull_robot_id_user FOREIGN KEY (pull_robot_id) REFERENCES "user" (id);
ALTER TABLE repositorybuildtrigger ADD CONSTRAINT fk_repositorybuildtrigger_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repositorybuildtrigger ADD CONSTRAINT fk_repositorybuildtrigger_service_id_buildtriggerservice FOREIGN KEY (service_id) REFERENCES buildtriggerservice (id);
ALTER TABLE repositorybuildtrigger ADD CONSTRAINT fk_repositorybuildtrigger_write_token_id_accesstoken FOREIGN KEY (write_token_id) REFERENCES accesstoken (id);
ALTER TABLE repositoryimmutabilitypolicy ADD CONSTRAINT fk_repositoryimmutabilitypolicy_namespace_id_user FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE repositoryimmutabilitypolicy ADD CONSTRAINT fk_repositoryimmutabilitypolicy_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repositorynotification ADD CONSTRAINT fk_repositorynotification_event_id_externalnotificationevent FOREIGN KEY (event_id) REFERENCES externalnotificationevent (id);
ALTER TABLE repositorynotification ADD CONSTRAINT fk_repositorynotification_method_id_externalnotificationmethod FOREIGN KEY (method_id) REFERENCES externalnotificationmethod (id);
ALTER TABLE repositorynotification ADD CONSTRAINT fk_repositorynotification_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repositorypermission ADD CONSTRAINT fk_repositorypermission_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE repositorypermission ADD CONSTRAINT fk_repositorypermission_role_id_role FOREIGN KEY (role_id) REFERENCES role (id);
ALTER TABLE repositorypermission ADD CONSTRAINT fk_repositorypermission_team_id_team FOREIGN KEY (team_id) REFERENCES team (id);
ALTER TABLE repositorypermission ADD CONSTRAINT fk_repositorypermission_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE repositorysearchscore ADD CONSTRAINT fk_repositorysearchscore_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE robotaccountmetadata ADD CONSTRAINT fk_robotaccountmetadata_robot_account_id_user FOREIGN KEY (robot_account_id) REFERENCES "user" (id);
ALTER TABLE robotaccounttoken ADD CONSTRAINT fk_robotaccounttoken_robot_account_id_user FOREIGN KEY (robot_account_id) REFERENCES "user" (id);
ALTER TABLE servicekey ADD CONSTRAINT fk_servicekey_approval_id_servicekeyapproval FOREIGN KEY (approval_id) REFERENCES servicekeyapproval (id);
ALTER TABLE star ADD CONSTRAINT fk_star_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE star ADD CONSTRAINT fk_star_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE tag ADD CONSTRAINT fk_tag_linked_tag_id_tag FOREIGN KEY (linked_tag_id) REFERENCES tag (id);
ALTER TABLE tag ADD CONSTRAINT fk_tag_manifest_id_manifest FOREIGN KEY (manifest_id) REFERENCES manifest (id);
ALTER TABLE tag ADD CONSTRAINT fk_tag_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE tag ADD CONSTRAINT fk_tag_tag_kind_id_tagkind FOREIGN KEY (tag_kind_id) REFERENCES tagkind (id);
ALTER TABLE tagnotificationsuccess ADD CONSTRAINT fk_tag_notification_success_method_id FOREIGN KEY (method_id) REFERENCES externalnotificationmethod (id);
ALTER TABLE tagnotificationsuccess ADD CONSTRAINT fk_tag_notification_success_notification_id FOREIGN KEY (notification_id) REFERENCES repositorynotification (id);
ALTER TABLE tagnotificationsuccess ADD CONSTRAINT fk_tag_notification_success_tag_id FOREIGN KEY (tag_id) REFERENCES tag (id);
ALTER TABLE tagpullstatistics ADD CONSTRAINT fk_tagpullstatistics_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE team ADD CONSTRAINT fk_team_organization_id_user FOREIGN KEY (organization_id) REFERENCES "user" (id);
ALTER TABLE team ADD CONSTRAINT fk_team_role_id_teamrole FOREIGN KEY (role_id) REFERENCES teamrole (id);
ALTER TABLE teammember ADD CONSTRAINT fk_teammember_team_id_team FOREIGN KEY (team_id) REFERENCES team (id);
ALTER TABLE teammember ADD CONSTRAINT fk_teammember_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE teammemberinvite ADD CONSTRAINT fk_teammemberinvite_inviter_id_user FOREIGN KEY (inviter_id) REFERENCES "user" (id);
ALTER TABLE teammemberinvite ADD CONSTRAINT fk_teammemberinvite_team_id_team FOREIGN KEY (team_id) REFERENCES team (id);
ALTER TABLE teammemberinvite ADD CONSTRAINT fk_teammemberinvite_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE teamsync ADD CONSTRAINT fk_teamsync_service_id_loginservice FOREIGN KEY (service_id) REFERENCES loginservice (id);
ALTER TABLE teamsync ADD CONSTRAINT fk_teamsync_team_id_team FOREIGN KEY (team_id) REFERENCES team (id);
ALTER TABLE uploadedblob ADD CONSTRAINT fk_uploadedblob_blob_id_imagestorage FOREIGN KEY (blob_id) REFERENCES imagestorage (id);
ALTER TABLE uploadedblob ADD CONSTRAINT fk_uploadedblob_repository_id_repository FOREIGN KEY (repository_id) REFERENCES repository (id);
ALTER TABLE userorganizationquota ADD CONSTRAINT fk_userorganizationquota_organization FOREIGN KEY (namespace_id) REFERENCES "user" (id);
ALTER TABLE userprompt ADD CONSTRAINT fk_userprompt_kind_id_userpromptkind FOREIGN KEY (kind_id) REFERENCES userpromptkind (id);
ALTER TABLE userprompt ADD CONSTRAINT fk_userprompt_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
ALTER TABLE userregion ADD CONSTRAINT fk_userregion_location_id_imagestoragelocation FOREIGN KEY (location_id) REFERENCES imagestoragelocation (id);
ALTER TABLE userregion ADD CONSTRAINT fk_userregion_user_id_user FOREIGN KEY (user_id) REFERENCES "user" (id);
