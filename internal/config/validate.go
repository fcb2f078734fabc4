package config

import (
	"encoding/base64"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Key string `json:"key"`
	// Value is what the key has, redacted where it may be a secret, empty when the key is absent.
	Value  string `json:"value,omitempty"`
	Cause  string `json:"cause"`
	Remedy string `json:"remedy"`
}

// String is one line.
func (p Problem) String() string {
	if p.Value == "" {
		return fmt.Sprintf("%s: %s; %s", p.Key, p.Cause, p.Remedy)
	}
	return fmt.Sprintf("%s (%s): %s; %s", p.Key, p.Value, p.Cause, p.Remedy)
}

// Problems are the error of a configuration that cannot be used.
type Problems []Problem

// Error names every problem in a line of its own.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Err is nil when there is no problem.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// drivers are the storage drivers of the legacy server with the parameters they cannot do without.
var drivers = map[string][]string{
	"LocalStorage": {"storage_path"}, "S3Storage": {"storage_path", "s3_bucket"},
	"STSS3Storage": {"storage_path", "s3_bucket"}, "CloudFrontedS3Storage": {"storage_path", "s3_bucket", "cloudfront_distribution_domain"},
	"CloudFlareStorage": {"storage_path", "s3_bucket", "cloudflare_domain"}, "AkamaiS3Storage": {"storage_path", "s3_bucket", "akamai_domain"},
	"MultiCDNStorage": {"storage_config", "providers"}, "IBMCloudStorage": {"storage_path", "hostname", "bucket_name"},
	"GoogleCloudStorage": {"storage_path", "bucket_name"}, "RadosGWStorage": {"storage_path", "hostname", "bucket_name"},
	"RHOCSStorage": {"storage_path", "hostname", "bucket_name"}, "AzureStorage": {"storage_path", "azure_container"},
	"SwiftStorage": {"storage_path", "swift_container", "auth_url"},
}

// Validate returns everything that keeps the daemons from working as the file says.
func (c *Config) Validate() Problems {
	v := &validation{c: c, problems: slices.Clone(c.mistyped)}
	v.required("PREFERRED_URL_SCHEME", "set it to https")
	v.required("SERVER_HOSTNAME", "set it to the name that clients use")
	v.required("DB_URI", "set it to postgresql://USER[:PASSWORD]@HOST/NAME")
	v.required("AUTHENTICATION_TYPE", "set it to Database")
	v.required("DISTRIBUTED_STORAGE_CONFIG", "name at least one location")
	v.required("BUILDLOGS_REDIS", "set it to {host: localhost}; it may point nowhere when nothing uses it")
	v.required("USER_EVENTS_REDIS", "set it to {host: localhost}; it may point nowhere when nothing uses it")
	v.required("DISTRIBUTED_STORAGE_PREFERENCE", "list the locations, the preferred one first")
	v.required("DEFAULT_TAG_EXPIRATION", "set it to 2w")
	v.required("TAG_EXPIRATION_OPTIONS", "set it to [0s, 1d, 1w, 2w, 4w]")

	if !c.SetupComplete {
		v.add("SETUP_COMPLETE", "", "the configuration is not marked as complete", "set it to true")
	}
	if !c.DatabaseSecretKey.IsSet() {
		v.add("DATABASE_SECRET_KEY", "", "is not set, so encrypted fields cannot be read or written",
			"set it to the key the database was made with, or to a new random one for a new database")
	}
	v.oneOf("PREFERRED_URL_SCHEME", c.PreferredURLScheme, "http", "https")
	v.oneOf("REGISTRY_STATE", c.RegistryState, "normal", "readonly")
	v.oneOf("AUTHENTICATION_TYPE", c.AuthenticationType, "Database", "LDAP", "JWT", "Keystone", "OIDC", "AppToken")
	v.oneOf("LOGS_MODEL", c.LogsModel, "database", "transition_reads_both_writes_es", "elasticsearch", "splunk")
	v.hostname()
	v.database()
	v.storage()
	v.expirations()
	v.limits()
	if c.Features.ProgrammaticBootstrap && c.BootstrapTokenOwner == "" {
		v.add("BOOTSTRAP_TOKEN_OWNER", "", "is not set although FEATURE_PROGRAMMATIC_BOOTSTRAP is on", "name the user the token shall belong to")
	}
	return v.problems
}

type validation struct {
	c        *Config
	problems Problems
}

func (v *validation) add(key, value, cause, remedy string) {
	v.problems = append(v.problems, Problem{key, value, cause, remedy})
}

// bad tells whether key was already found to have a wrong type.
func (v *validation) bad(key string) bool {
	return slices.ContainsFunc(v.c.mistyped, func(p Problem) bool { return p.Key == key })
}

func (v *validation) required(key, remedy string) {
	if !v.c.Given(key) {
		v.add(key, "", "is required and missing", remedy)
	}
}

func (v *validation) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) && !v.bad(key) {
		v.add(key, value, "is not allowed", "use one of "+strings.Join(allowed, ", "))
	}
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

func (v *validation) hostname() {
	name := v.c.ServerHostname
	host := name
	if h, port, err := net.SplitHostPort(name); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			v.add("SERVER_HOSTNAME", name, "has a port that is none", "write NAME or NAME:PORT")
			return
		}
		host = h
	}
	if !hostPattern.MatchString(host) && net.ParseIP(strings.Trim(host, "[]")) == nil {
		v.add("SERVER_HOSTNAME", name, "is not a host name", "write NAME or NAME:PORT, without scheme and path")
	}
}

func (v *validation) database() {
	if !v.c.Given("DB_URI") || v.bad("DB_URI") {
		return
	}
	check := func(key string, uri URI) {
		if s := uri.Scheme(); s != "postgresql" && s != "postgres" {
			v.add(key, uri.String(), "is not a PostgreSQL database", "write postgresql://USER[:PASSWORD]@HOST/NAME; move other databases to PostgreSQL first")
		}
	}
	check("DB_URI", v.c.DBURI)
	for _, r := range v.c.DBReadReplicas {
		check("DB_READ_REPLICAS", r.DBURI)
	}
}

func (v *validation) storage() {
	if !v.c.Given("DISTRIBUTED_STORAGE_CONFIG") || v.bad("DISTRIBUTED_STORAGE_CONFIG") {
		return
	}
	const key = "DISTRIBUTED_STORAGE_CONFIG"
	if len(v.c.Storage) == 0 {
		v.add(key, "", "names no location", "name at least one, like default: [LocalStorage, {storage_path: /datastorage/registry}]")
	}
	for _, l := range v.c.Storage {
		needs, ok := drivers[l.Driver]
		if !ok {
			v.add(key, l.Name+": "+l.Driver, "the storage driver does not exist", "use LocalStorage, S3Storage or another driver of the manual")
			continue
		}
		for _, p := range needs {
			if _, ok := l.Parameters[p]; !ok {
				v.add(key, l.Name+": "+l.Driver, "the parameter "+p+" is missing", "add it")
			}
		}
	}
	for _, list := range []struct {
		key   string
		names Texts
	}{
		{"DISTRIBUTED_STORAGE_PREFERENCE", v.c.StoragePreference},
		{"DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS", v.c.StorageDefaultLocations},
	} {
		if !v.c.Given(list.key) {
			continue
		}
		for _, name := range list.names {
			if _, ok := v.c.Storage.Location(name); !ok {
				v.add(list.key, name, "is no location of DISTRIBUTED_STORAGE_CONFIG", "name a location that exists there or add it")
			}
		}
	}
	if v.c.Features.StorageReplication && len(v.c.StoragePreference) == 0 {
		v.add("DISTRIBUTED_STORAGE_PREFERENCE", "", "is empty although FEATURE_STORAGE_REPLICATION is on", "list the locations, the preferred one first")
	}
}

// expirationPattern is narrower than ParseDuration: the legacy schema knows no years here.
var expirationPattern = regexp.MustCompile(`^[0-9]+(w|m|d|h|s)$`)

func (v *validation) expirations() {
	const remedy = "write a whole number and one of s, m, h, d, w, like 2w"
	for _, o := range v.c.TagExpirationOptions {
		if !expirationPattern.MatchString(o) {
			v.add("TAG_EXPIRATION_OPTIONS", o, "is not a time span", remedy)
		}
	}
	d := v.c.DefaultTagExpiration
	switch {
	case v.bad("DEFAULT_TAG_EXPIRATION") || v.bad("TAG_EXPIRATION_OPTIONS"):
	case !expirationPattern.MatchString(d.String()):
		v.add("DEFAULT_TAG_EXPIRATION", d.String(), "is not a time span", remedy)
	case v.c.Features.ChangeTagExpiration && !slices.Contains(v.c.TagExpirationOptions, d.String()):
		v.add("DEFAULT_TAG_EXPIRATION", d.String(), "is not among TAG_EXPIRATION_OPTIONS", "add it there or choose one of "+strings.Join(v.c.TagExpirationOptions, ", "))
	}
}

func (v *validation) limits() {
	if n := v.c.MaximumLayerSize.Bytes(); n <= 0 && !v.bad("MAXIMUM_LAYER_SIZE") {
		v.add("MAXIMUM_LAYER_SIZE", v.c.MaximumLayerSize.String(), "allows no layer", "write a whole number and G or M, like 20G")
	}
	if raw, err := base64.URLEncoding.DecodeString(v.c.PageTokenKey.Reveal()); err != nil || len(raw) != 32 {
		v.add("PAGE_TOKEN_KEY", v.c.PageTokenKey.String(), "is not a Fernet key", "set 32 random bytes in base64url, or remove the key to use the default")
	}
	for _, n := range []struct {
		key   string
		value int64
	}{
		{"PUSH_TEMP_TAG_EXPIRATION_SEC", v.c.PushTempTagExpirationSec},
		{"REGISTRY_JWT_AUTH_MAX_FRESH_S", v.c.RegistryJWTAuthMaxFreshS},
		{"INSTANCE_SERVICE_KEY_EXPIRATION", v.c.InstanceKeyExpirationMin},
		{"INSTANCE_SERVICE_KEY_REFRESH", v.c.InstanceKeyRefreshMin},
		{"GARBAGE_COLLECTION_FREQUENCY", v.c.GarbageCollectionFrequency},
		{"BLOBUPLOAD_CLEANUP_FREQUENCY", v.c.BlobUploadCleanupFrequency},
	} {
		if n.value <= 0 && !v.bad(n.key) {
			v.add(n.key, fmt.Sprint(n.value), "must be greater than 0", "set a positive whole number")
		}
	}
}
