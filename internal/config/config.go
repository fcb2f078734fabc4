// Package config reads Quay's config.yaml: the same keys, types and defaults as the legacy server.
//
// Config is at once the structure, the defaults (tag default, in YAML) and the documentation (tag doc) of
// every key that the daemons use. Keys of the legacy server that they do not use are kept in Config.Other;
// catalogue.json knows their names. A test compares both with the contract.
//
// Order, later wins: defaults, config.yaml (keys in upper case only), the JSON object in the environment
// variable QUAY_OVERRIDE_CONFIG; QUAY_DISTRIBUTED_STORAGE_PREFERENCE replaces that one key.
package config

// Config is config.yaml. Frequencies and lifetimes are in seconds where the name does not say otherwise.
type Config struct {
	// Identity of the server.
	ServerHostname         string `key:"SERVER_HOSTNAME" default:"localhost:5000" doc:"Name, and port unless it is the scheme's, under which clients reach the registry."`
	PreferredURLScheme     string `key:"PREFERRED_URL_SCHEME" default:"http" doc:"Scheme of the addresses the server tells: http or https."`
	ExternalTLSTermination bool   `key:"EXTERNAL_TLS_TERMINATION" default:"false" doc:"Whether something in front of the server ends TLS."`
	SetupComplete          bool   `key:"SETUP_COMPLETE" default:"false" doc:"Must be true: the server refuses to run on an unfinished configuration."`
	Testing                bool   `key:"TESTING" default:"true" doc:"Switches protections off; a production configuration sets false."`
	RegistryState          string `key:"REGISTRY_STATE" default:"normal" doc:"normal, or readonly to refuse every write."`
	AccountRecoveryMode    bool   `key:"ACCOUNT_RECOVERY_MODE" default:"false" doc:"Serves only what is needed to repair sign-in; background work pauses."`

	// Keys.
	SecretKey         Secret `key:"SECRET_KEY" default:"null" doc:"Signs sessions and grants; without it each process makes its own."`
	DatabaseSecretKey Secret `key:"DATABASE_SECRET_KEY" default:"null" doc:"Encrypts fields in the database; losing it loses them."`
	PageTokenKey      Secret `key:"PAGE_TOKEN_KEY" default:"0OYrc16oBuksR8T3JGB-xxYSlZ2-7I_zzqrLzggBJ58=" doc:"Fernet key of page tokens and salt of version 1 image ids."`

	// Database and caches.
	DBURI                URI        `key:"DB_URI" default:"sqlite:///test/data/test.db" doc:"The database: postgresql://USER[:PASSWORD]@HOST/NAME."`
	DBConnectionArgs     Parameters `key:"DB_CONNECTION_ARGS" default:"{threadlocals: true, autorollback: true}" doc:"Further arguments of a database connection."`
	DBConnectionPooling  bool       `key:"DB_CONNECTION_POOLING" default:"true" doc:"Whether the legacy server pools connections; the daemons always do."`
	DBReadReplicas       []Replica  `key:"DB_READ_REPLICAS" default:"null" doc:"Databases that may answer reads."`
	BuildLogsRedis       Redis      `key:"BUILDLOGS_REDIS" default:"{host: localhost}" doc:"Redis of build logs and locks."`
	UserEventsRedis      Redis      `key:"USER_EVENTS_REDIS" default:"{host: localhost}" doc:"Redis of user events."`
	PullMetricsRedis     Redis      `key:"PULL_METRICS_REDIS" default:"{host: localhost, db: 1}" doc:"Redis of pull statistics."`
	DataModelCacheConfig Parameters `key:"DATA_MODEL_CACHE_CONFIG" default:"{engine: memcached, endpoint: [127.0.0.1, 18080], repository_blob_cache_ttl: 60s, catalog_page_cache_ttl: 60s, active_repo_tags_cache_ttl: 120s, value_size_limit: 1MiB}" doc:"Cache of the legacy server's data model."`

	// Storage.
	Storage                  Storage `key:"DISTRIBUTED_STORAGE_CONFIG" default:"{local_eu: [LocalStorage, {storage_path: test/data/registry/eu}], local_us: [LocalStorage, {storage_path: test/data/registry/us}]}" doc:"Storage locations: name to [driver, parameters]."`
	StoragePreference        Texts   `key:"DISTRIBUTED_STORAGE_PREFERENCE" default:"[local_us]" doc:"Locations in the order of preference; the first takes new blobs."`
	StorageDefaultLocations  Texts   `key:"DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS" default:"[local_us]" doc:"Locations every blob is replicated to."`
	UserfilesLocation        string  `key:"USERFILES_LOCATION" default:"local_us" doc:"Location of uploaded user files."`
	UserfilesPath            string  `key:"USERFILES_PATH" default:"userfiles/" doc:"Path of uploaded user files."`
	LogArchiveLocation       string  `key:"LOG_ARCHIVE_LOCATION" default:"local_us" doc:"Location of archived build logs."`
	LogArchivePath           string  `key:"LOG_ARCHIVE_PATH" default:"logarchive/" doc:"Path of archived build logs."`
	ActionLogArchiveLocation string  `key:"ACTION_LOG_ARCHIVE_LOCATION" default:"local_us" doc:"Location of archived action logs."`
	ActionLogArchivePath     string  `key:"ACTION_LOG_ARCHIVE_PATH" default:"actionlogarchive/" doc:"Path of archived action logs."`

	// Who may do what.
	AuthenticationType        string   `key:"AUTHENTICATION_TYPE" default:"Database" doc:"Where users are checked: Database, LDAP, JWT, Keystone, OIDC or AppToken."`
	SuperUsers                Texts    `key:"SUPER_USERS" default:"[]" doc:"Users with every right on the server."`
	GlobalReadonlySuperUsers  Texts    `key:"GLOBAL_READONLY_SUPER_USERS" default:"[]" doc:"Users who may read everything."`
	RestrictedUsersWhitelist  Texts    `key:"RESTRICTED_USERS_WHITELIST" default:"null" doc:"Users that FEATURE_RESTRICTED_USERS spares."`
	RobotsDisallow            bool     `key:"ROBOTS_DISALLOW" default:"false" doc:"Refuses robot accounts."`
	RobotsWhitelist           Texts    `key:"ROBOTS_WHITELIST" default:"[]" doc:"Robots that ROBOTS_DISALLOW spares."`
	PublicNamespaces          Texts    `key:"PUBLIC_NAMESPACES" default:"[]" doc:"Namespaces shown to everyone."`
	SessionTimeout            Duration `key:"SESSION_TIMEOUT" default:"31d" doc:"Lifetime of a session."`
	FreshLoginTimeout         Duration `key:"FRESH_LOGIN_TIMEOUT" default:"10m" doc:"How long a sign-in counts as fresh."`
	AppSpecificTokenLifetime  Duration `key:"APP_SPECIFIC_TOKEN_EXPIRATION" default:"null" doc:"Lifetime of new application tokens; none is unlimited."`
	SignedGrantExpirationSec  int64    `key:"SIGNED_GRANT_EXPIRATION_SEC" default:"86400" doc:"Lifetime of version 1 grants."`
	RegistryJWTAuthMaxFreshS  int64    `key:"REGISTRY_JWT_AUTH_MAX_FRESH_S" default:"3660" doc:"Longest lifetime of a registry token."`
	InstanceKeyService        string   `key:"INSTANCE_SERVICE_KEY_SERVICE" default:"quay" doc:"Service name of the instance key and issuer of registry tokens."`
	InstanceKeyExpirationMin  int64    `key:"INSTANCE_SERVICE_KEY_EXPIRATION" default:"120" doc:"Lifetime of the instance key in minutes."`
	InstanceKeyRefreshMin     int64    `key:"INSTANCE_SERVICE_KEY_REFRESH" default:"55" doc:"How often the instance key's lifetime is extended, in minutes."`
	ExpiredServiceKeyTTLSec   int64    `key:"EXPIRED_SERVICE_KEY_TTL_SEC" default:"604800" doc:"How long expired service keys are kept."`
	UnapprovedServiceKeyTTL   int64    `key:"UNAPPROVED_SERVICE_KEY_TTL_SEC" default:"86400" doc:"How long unapproved service keys are kept."`
	LastAccessedThresholdS    int64    `key:"LAST_ACCESSED_UPDATE_THRESHOLD_S" default:"60" doc:"Least time between two updates of a last-access field."`
	LabelKeyReservedPrefixes  Texts    `key:"LABEL_KEY_RESERVED_PREFIXES" default:"[]" doc:"Further label prefixes that only the server may set."`
	BootstrapTokenOwner       string   `key:"BOOTSTRAP_TOKEN_OWNER" default:"null" doc:"User the bootstrap token belongs to."`
	ExpiredAppSpecificTokenGC Duration `key:"EXPIRED_APP_SPECIFIC_TOKEN_GC" default:"1d" doc:"How long expired application tokens are kept; none is for ever."`

	// The registry.
	MaximumLayerSize         Size                `key:"MAXIMUM_LAYER_SIZE" default:"20G" doc:"Largest blob; the registry reads G as 10^9, the front as 2^30."`
	PushTempTagExpirationSec int64               `key:"PUSH_TEMP_TAG_EXPIRATION_SEC" default:"3600" doc:"How long a pushed blob or manifest without a tag is kept."`
	V2PaginationSize         int64               `key:"V2_PAGINATION_SIZE" default:"50" doc:"Page size of listings."`
	LibraryNamespace         string              `key:"LIBRARY_NAMESPACE" default:"library" doc:"Namespace of names without one."`
	BlacklistV2Spec          string              `key:"BLACKLIST_V2_SPEC" default:"<1.6.0" doc:"Docker versions that are refused version 2."`
	V1PushWhitelist          Texts               `key:"V1_PUSH_WHITELIST" default:"[]" doc:"Namespaces that FEATURE_RESTRICTED_V1_PUSH spares."`
	CreatePrivateRepoOnPush  bool                `key:"CREATE_PRIVATE_REPO_ON_PUSH" default:"true" doc:"Whether a repository made by a push is private."`
	CreateNamespaceOnPush    bool                `key:"CREATE_NAMESPACE_ON_PUSH" default:"false" doc:"Whether a push may make an organisation."`
	DisablePushes            bool                `key:"DISABLE_PUSHES" default:"false" doc:"Refuses pushes."`
	AllowedOCIArtifactTypes  map[string][]string `key:"ALLOWED_OCI_ARTIFACT_TYPES" default:"{application/vnd.oci.image.config.v1+json: [application/vnd.dev.cosign.simplesigning.v1+json, application/vnd.dsse.envelope.v1+json, text/spdx, text/spdx+xml, text/spdx+json, application/vnd.syft+json, application/vnd.cyclonedx, application/vnd.cyclonedx+xml, application/vnd.cyclonedx+json, application/vnd.in-toto+json], application/vnd.cncf.helm.config.v1+json: [application/tar+gzip, application/vnd.cncf.helm.chart.content.v1.tar+gzip], application/vnd.oci.source.image.config.v1+json: [application/vnd.oci.image.layer.v1.tar+gzip], application/vnd.unknown.config.v1+json: [application/vnd.cncf.openpolicyagent.policy.layer.v1+rego, application/vnd.cncf.openpolicyagent.data.layer.v1+json]}" doc:"Config media types of OCI manifests that are accepted, with their layer types."`
	DefaultTagExpiration     Duration            `key:"DEFAULT_TAG_EXPIRATION" default:"2w" doc:"How long deleted tags can be restored in new namespaces."`
	TagExpirationOptions     Texts               `key:"TAG_EXPIRATION_OPTIONS" default:"[0s, 1d, 1w, 2w, 4w]" doc:"Time spans a namespace may choose."`
	LabeledExpirationMinimum Duration            `key:"LABELED_EXPIRATION_MINIMUM" default:"1h" doc:"Least lifetime a label may give a tag."`
	LabeledExpirationMaximum Duration            `key:"LABELED_EXPIRATION_MAXIMUM" default:"104w" doc:"Longest lifetime a label may give a tag."`
	ResetChildManifestExpiry bool                `key:"RESET_CHILD_MANIFEST_EXPIRATION" default:"false" doc:"Deleting a manifest list ends the temporary tags of its children."`
	PermanentlyDeleteTags    bool                `key:"PERMANENTLY_DELETE_TAGS" default:"false" doc:"Tags may be deleted beyond restoring."`
	DefaultSystemRejectQuota int64               `key:"DEFAULT_SYSTEM_REJECT_QUOTA_BYTES" default:"0" doc:"Quota of namespaces without one, in bytes; 0 is none."`
	QuotaInvalidateTotals    bool                `key:"QUOTA_INVALIDATE_TOTALS" default:"true" doc:"Totals are counted anew when a writer did not keep them."`
	QuotaBackfill            bool                `key:"QUOTA_BACKFILL" default:"true" doc:"Counts totals of namespaces that have none."`
	QuotaTotalDelaySeconds   int64               `key:"QUOTA_TOTAL_DELAY_SECONDS" default:"1800" doc:"Delay of the backfill after the start."`
	CORSOrigin               Texts               `key:"CORS_ORIGIN" default:"'*'" doc:"Origins that browsers may call from."`
	SSRFAllowedHosts         Texts               `key:"SSRF_ALLOWED_HOSTS" default:"[]" doc:"Hosts in private networks that may be called."`
	CDNSpecificNamespaces    Texts               `key:"CDN_SPECIFIC_NAMESPACES" default:"[]" doc:"Namespaces served through the CDN."`
	NonRateLimitedNamespaces Texts               `key:"NON_RATE_LIMITED_NAMESPACES" default:"null" doc:"Namespaces that FEATURE_RATE_LIMITS spares."`
	ManifestsReadTimeout     string              `key:"MANIFESTS_ENDPOINT_READ_TIMEOUT" default:"null" doc:"How long the front waits for an answer about manifests, in nginx's notation."`
	HealthCheckStorageAtPing bool                `key:"HEALTH_CHECKER_INSTANCE_CHECK_PREFERRED_STORAGE" default:"null" doc:"Whether the instance health asks the preferred storage."`
	EnableHealthDebugSecret  Secret              `key:"ENABLE_HEALTH_DEBUG_SECRET" default:"null" doc:"Opens the detailed health answer."`
	ProxyCount               int64               `key:"PROXY_COUNT" default:"1" doc:"Proxies in front whose forwarding headers count."`
	PrometheusNamespace      string              `key:"PROMETHEUS_NAMESPACE" default:"quay" doc:"Job name of pushed metrics."`
	PrometheusPushgatewayURL string              `key:"PROMETHEUS_PUSHGATEWAY_URL" default:"http://localhost:9091" doc:"Where the legacy server pushes its metrics."`
	NotificationSendTimeout  int64               `key:"NOTIFICATION_SEND_TIMEOUT" default:"10" doc:"How long a notification may take."`

	// Action logs.
	LogsModel                      string   `key:"LOGS_MODEL" default:"database" doc:"Where action logs are kept."`
	AuditLogins                    bool     `key:"ACTION_LOG_AUDIT_LOGINS" default:"true" doc:"Logs sign-ins."`
	AuditLoginFailures             bool     `key:"ACTION_LOG_AUDIT_LOGIN_FAILURES" default:"false" doc:"Logs failed sign-ins."`
	AuditPullFailures              bool     `key:"ACTION_LOG_AUDIT_PULL_FAILURES" default:"false" doc:"Logs refused pulls."`
	AuditPushFailures              bool     `key:"ACTION_LOG_AUDIT_PUSH_FAILURES" default:"false" doc:"Logs refused pushes."`
	AuditDeleteFailures            bool     `key:"ACTION_LOG_AUDIT_DELETE_FAILURES" default:"false" doc:"Logs refused deletions."`
	AllowPullsWithoutStrictLogging bool     `key:"ALLOW_PULLS_WITHOUT_STRICT_LOGGING" default:"false" doc:"A pull succeeds although its log could not be written."`
	AllowWithoutStrictLogging      bool     `key:"ALLOW_WITHOUT_STRICT_LOGGING" default:"false" doc:"Any action succeeds although its log could not be written."`
	DisabledForPullLogs            Texts    `key:"DISABLED_FOR_PULL_LOGS" default:"[]" doc:"Namespaces whose pulls are not logged."`
	DisabledForAuditLogs           Texts    `key:"DISABLED_FOR_AUDIT_LOGS" default:"[]" doc:"Namespaces whose actions are not logged."`
	ActionLogRotationThreshold     Duration `key:"ACTION_LOG_ROTATION_THRESHOLD" default:"30d" doc:"Age at which action logs are archived."`

	// Background work.
	StaggerWorkers              bool   `key:"STAGGER_WORKERS" default:"true" doc:"Starts jobs at random moments."`
	GarbageCollectionFrequency  int64  `key:"GARBAGE_COLLECTION_FREQUENCY" default:"30" doc:"Pause between two rounds of garbage collection."`
	CleanBlobUploadFolder       bool   `key:"CLEAN_BLOB_UPLOAD_FOLDER" default:"true" doc:"Removes abandoned files of uploads from storage."`
	BlobUploadCleanupFrequency  int64  `key:"BLOBUPLOAD_CLEANUP_FREQUENCY" default:"3600" doc:"Pause between two rounds of upload cleanup."`
	BlobUploadDeletionThreshold int64  `key:"BLOBUPLOAD_DELETION_DATE_THRESHOLD" default:"2880" doc:"Age in minutes at which an upload is abandoned."`
	QueueCleanupFrequency       int64  `key:"QUEUE_CLEANUP_FREQUENCY" default:"86400" doc:"Pause between two rounds of queue cleanup."`
	NamespaceGCGraceSeconds     int64  `key:"NAMESPACE_GC_GRACE_PERIOD_SECONDS" default:"0" doc:"How long a deleted namespace is kept."`
	NamespaceGCGraceAllowlist   Texts  `key:"NAMESPACE_GC_GRACE_PERIOD_ALLOWLIST" default:"[]" doc:"Namespaces the grace period is for."`
	NotificationQueueName       string `key:"NOTIFICATION_QUEUE_NAME" default:"notification" doc:"Queue of notifications."`
	DockerfileBuildQueueName    string `key:"DOCKERFILE_BUILD_QUEUE_NAME" default:"dockerfilebuild" doc:"Queue of builds."`
	ReplicationQueueName        string `key:"REPLICATION_QUEUE_NAME" default:"imagestoragereplication" doc:"Queue of storage replication."`
	ChunkCleanupQueueName       string `key:"CHUNK_CLEANUP_QUEUE_NAME" default:"chunk_cleanup" doc:"Queue of chunks to remove."`
	NamespaceGCQueueName        string `key:"NAMESPACE_GC_QUEUE_NAME" default:"namespacegc" doc:"Queue of namespaces to remove."`
	RepositoryGCQueueName       string `key:"REPOSITORY_GC_QUEUE_NAME" default:"repositorygc" doc:"Queue of repositories to remove."`
	ExportActionLogsQueueName   string `key:"EXPORT_ACTION_LOGS_QUEUE_NAME" default:"exportactionlogs" doc:"Queue of log exports."`
	SecscanQueueName            string `key:"SECSCAN_V4_NOTIFICATION_QUEUE_NAME" default:"secscanv4" doc:"Queue of scanner notifications."`
	ProxyCacheBlobQueueName     string `key:"PROXY_CACHE_BLOB_QUEUE_NAME" default:"proxycacheblob" doc:"Queue of blobs to fetch for proxy organisations."`

	// Features are the switches FEATURE_*.
	Features Features

	// Other holds the keys of the file that no field above takes.
	Other map[string]Opaque

	given    map[string]bool // the keys that the file or the environment set
	unknown  []string        // keys that the legacy server does not know either
	mistyped []Problem
}

// Features are the feature switches the daemons ask.
type Features struct {
	AnonymousAccess            bool `key:"FEATURE_ANONYMOUS_ACCESS" default:"true" doc:"Public repositories can be read without signing in."`
	AppSpecificTokens          bool `key:"FEATURE_APP_SPECIFIC_TOKENS" default:"true" doc:"Application tokens may be used in place of passwords."`
	AdvertiseV2                bool `key:"FEATURE_ADVERTISE_V2" default:"true" doc:"Tells clients that version 2 is spoken."`
	AutoPrune                  bool `key:"FEATURE_AUTO_PRUNE" default:"false" doc:"Tags are removed by policies."`
	BuildSupport               bool `key:"FEATURE_BUILD_SUPPORT" default:"true" doc:"Images can be built."`
	ChangeTagExpiration        bool `key:"FEATURE_CHANGE_TAG_EXPIRATION" default:"true" doc:"Namespaces may choose how long deleted tags can be restored."`
	ClearExpiredRACEntries     bool `key:"FEATURE_CLEAR_EXPIRED_RAC_ENTRIES" default:"false" doc:"Removes old repository action counts."`
	DirectLogin                bool `key:"FEATURE_DIRECT_LOGIN" default:"true" doc:"Users may sign in with a password."`
	EditQuota                  bool `key:"FEATURE_EDIT_QUOTA" default:"true" doc:"Quotas may be changed."`
	EnableStaleMPUCleanup      bool `key:"FEATURE_ENABLE_STALE_MPU_CLEANUP" default:"true" doc:"Removes abandoned multipart uploads."`
	ExtendedActionLogging      bool `key:"FEATURE_EXTENDED_ACTION_LOGGING" default:"false" doc:"Logs further actions."`
	ExtendedRepositoryNames    bool `key:"FEATURE_EXTENDED_REPOSITORY_NAMES" default:"true" doc:"Repository names may contain slashes."`
	FIPS                       bool `key:"FEATURE_FIPS" default:"false" doc:"The legacy server avoids what FIPS forbids; the daemons always do."`
	GarbageCollection          bool `key:"FEATURE_GARBAGE_COLLECTION" default:"true" doc:"Unreferenced manifests and blobs are removed."`
	GeneralOCISupport          bool `key:"FEATURE_GENERAL_OCI_SUPPORT" default:"true" doc:"OCI manifests are accepted."`
	HelmOCISupport             bool `key:"FEATURE_HELM_OCI_SUPPORT" default:"true" doc:"Helm charts are accepted."`
	ImageExpiryTrigger         bool `key:"FEATURE_IMAGE_EXPIRY_TRIGGER" default:"false" doc:"Notifies before images expire."`
	ImagePullStats             bool `key:"FEATURE_IMAGE_PULL_STATS" default:"false" doc:"Counts pulls of each image."`
	ImmutableTags              bool `key:"FEATURE_IMMUTABLE_TAGS" default:"false" doc:"Tags can be made immutable."`
	ImmutableTagsCanExpire     bool `key:"FEATURE_IMMUTABLE_TAGS_CAN_EXPIRE" default:"false" doc:"Immutable tags may have an expiration."`
	LibrarySupport             bool `key:"FEATURE_LIBRARY_SUPPORT" default:"true" doc:"Names without a namespace are allowed."`
	LogExport                  bool `key:"FEATURE_LOG_EXPORT" default:"true" doc:"Action logs can be exported."`
	ActionLogRotation          bool `key:"FEATURE_ACTION_LOG_ROTATION" default:"false" doc:"Old action logs are archived."`
	ManifestSizeBackfill       bool `key:"FEATURE_MANIFEST_SIZE_BACKFILL" default:"true" doc:"Fills in sizes of old manifests."`
	ManifestSubjectBackfill    bool `key:"FEATURE_MANIFEST_SUBJECT_BACKFILL" default:"true" doc:"Fills in subjects of old manifests."`
	NamespaceGarbageCollection bool `key:"FEATURE_NAMESPACE_GARBAGE_COLLECTION" default:"true" doc:"Deleted namespaces are removed."`
	OrgMirror                  bool `key:"FEATURE_ORG_MIRROR" default:"false" doc:"Organisations can mirror others."`
	ProgrammaticBootstrap      bool `key:"FEATURE_PROGRAMMATIC_BOOTSTRAP" default:"false" doc:"Makes a token for the first automation."`
	ProxyCache                 bool `key:"FEATURE_PROXY_CACHE" default:"false" doc:"Organisations can cache other registries."`
	ProxyStorage               bool `key:"FEATURE_PROXY_STORAGE" default:"false" doc:"The front fetches blobs from storage for clients."`
	PublicCatalog              bool `key:"FEATURE_PUBLIC_CATALOG" default:"false" doc:"The catalogue lists public repositories to everyone."`
	QuotaManagement            bool `key:"FEATURE_QUOTA_MANAGEMENT" default:"false" doc:"Namespaces have quotas."`
	QuotaNotifications         bool `key:"FEATURE_QUOTA_NOTIFICATIONS" default:"false" doc:"Notifies when quotas are near."`
	QuotaSuppressFailures      bool `key:"FEATURE_QUOTA_SUPPRESS_FAILURES" default:"false" doc:"A push succeeds although its quota could not be counted."`
	RateLimits                 bool `key:"FEATURE_RATE_LIMITS" default:"false" doc:"The front limits requests."`
	ReferrersAPI               bool `key:"FEATURE_REFERRERS_API" default:"true" doc:"Referrers of a manifest can be listed."`
	RepositoryActionCounter    bool `key:"FEATURE_REPOSITORY_ACTION_COUNTER" default:"true" doc:"Counts actions on each repository."`
	RepositoryGC               bool `key:"FEATURE_REPOSITORY_GARBAGE_COLLECTION" default:"true" doc:"Deleted repositories are removed."`
	RepoMirror                 bool `key:"FEATURE_REPO_MIRROR" default:"false" doc:"Repositories can mirror others."`
	RequireEncryptedBasicAuth  bool `key:"FEATURE_REQUIRE_ENCRYPTED_BASIC_AUTH" default:"false" doc:"Clients must use encrypted passwords."`
	RestrictedUsers            bool `key:"FEATURE_RESTRICTED_USERS" default:"false" doc:"Users may not make repositories of their own."`
	RestrictedV1Push           bool `key:"FEATURE_RESTRICTED_V1_PUSH" default:"false" doc:"Only listed namespaces accept version 1 pushes."`
	SecurityNotifications      bool `key:"FEATURE_SECURITY_NOTIFICATIONS" default:"false" doc:"Notifies about vulnerabilities."`
	SecurityScanner            bool `key:"FEATURE_SECURITY_SCANNER" default:"false" doc:"Images are scanned."`
	Signing                    bool `key:"FEATURE_SIGNING" default:"false" doc:"Content trust is served."`
	SparseIndex                bool `key:"FEATURE_SPARSE_INDEX" default:"false" doc:"An index may name manifests that are absent."`
	StorageReplication         bool `key:"FEATURE_STORAGE_REPLICATION" default:"false" doc:"Blobs are copied between locations."`
	SuperUsers                 bool `key:"FEATURE_SUPER_USERS" default:"true" doc:"SUPER_USERS have their rights."`
	SuperusersFullAccess       bool `key:"FEATURE_SUPERUSERS_FULL_ACCESS" default:"false" doc:"Superusers may read and change every repository."`
	SuperusersOrgCreationOnly  bool `key:"FEATURE_SUPERUSERS_ORG_CREATION_ONLY" default:"false" doc:"Only superusers may make organisations."`
	TeamSyncing                bool `key:"FEATURE_TEAM_SYNCING" default:"false" doc:"Teams follow groups of the identity provider."`
	UserCreation               bool `key:"FEATURE_USER_CREATION" default:"true" doc:"Users may be made."`
	UserEvents                 bool `key:"FEATURE_USER_EVENTS" default:"true" doc:"Browsers are told about events."`
	UserInitialize             bool `key:"FEATURE_USER_INITIALIZE" default:"false" doc:"The first user can be made over the API."`
	UserLastAccessed           bool `key:"FEATURE_USER_LAST_ACCESSED" default:"true" doc:"Notes when users were last active."`
	VerifyQuota                bool `key:"FEATURE_VERIFY_QUOTA" default:"true" doc:"Pushes are held against quotas."`
}
