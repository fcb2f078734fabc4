package config

import (
	"bytes"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Appliance is what differs between the configurations of two fresh appliances.
type Appliance struct {
	// ServerHostname is NAME or NAME:PORT, as clients reach the registry.
	ServerHostname string
	// SecretKey and DatabaseSecretKey are random texts that the caller keeps.
	SecretKey, DatabaseSecretKey Secret
	// PageTokenKey is a Fernet key: 32 random bytes in base64url with padding.
	PageTokenKey Secret
	// SuperUsers are the administrators' names.
	SuperUsers []string
}

const (
	// ApplianceDatabase is the database inside the appliance: peer authentication over a socket.
	ApplianceDatabase = "postgresql://quay@/quay?host=/run/quay/pg"
	// ApplianceLocation is the only storage location of a fresh appliance.
	ApplianceLocation = "default"
	// AppliancePath is where its blobs lie inside the containers.
	AppliancePath = "/datastorage/registry"
)

// Render returns the config.yaml of a fresh appliance, the same bytes for the same input. It holds
// secrets. A legacy server accepts it too.
func (a Appliance) Render() ([]byte, error) {
	if a.ServerHostname == "" || !a.SecretKey.IsSet() || !a.DatabaseSecretKey.IsSet() || !a.PageTokenKey.IsSet() {
		return nil, errors.New("render config.yaml: host name, secret key, database secret key and page token key must be given")
	}
	superUsers := a.SuperUsers
	if superUsers == nil {
		superUsers = []string{}
	}
	redis := map[string]any{"host": "localhost"}
	pairs := []struct {
		key   string
		value any
	}{
		{"SETUP_COMPLETE", true},
		{"TESTING", false},
		{"SERVER_HOSTNAME", a.ServerHostname},
		{"PREFERRED_URL_SCHEME", "https"},
		{"EXTERNAL_TLS_TERMINATION", false},
		{"AUTHENTICATION_TYPE", "Database"},
		{"SUPER_USERS", superUsers},
		{"SECRET_KEY", a.SecretKey.Reveal()},
		{"DATABASE_SECRET_KEY", a.DatabaseSecretKey.Reveal()},
		{"PAGE_TOKEN_KEY", a.PageTokenKey.Reveal()},
		{"DB_URI", ApplianceDatabase},
		{"DISTRIBUTED_STORAGE_CONFIG", map[string]any{ApplianceLocation: []any{"LocalStorage", map[string]any{"storage_path": AppliancePath}}}},
		{"DISTRIBUTED_STORAGE_PREFERENCE", []string{ApplianceLocation}},
		{"DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS", []string{ApplianceLocation}},
		{"USERFILES_LOCATION", ApplianceLocation},
		{"LOG_ARCHIVE_LOCATION", ApplianceLocation},
		{"ACTION_LOG_ARCHIVE_LOCATION", ApplianceLocation},
		{"DEFAULT_TAG_EXPIRATION", "2w"},
		{"TAG_EXPIRATION_OPTIONS", []string{"0s", "1d", "1w", "2w", "4w"}},
		{"BUILDLOGS_REDIS", redis},
		{"USER_EVENTS_REDIS", redis},
	}
	top := &yaml.Node{Kind: yaml.MappingNode}
	for _, p := range pairs {
		key, value := &yaml.Node{}, &yaml.Node{}
		if err := key.Encode(p.key); err != nil {
			return nil, fmt.Errorf("render config.yaml: %w", err)
		}
		if err := value.Encode(p.value); err != nil {
			return nil, fmt.Errorf("render %s: %w", p.key, err)
		}
		if s, ok := p.value.(string); ok && wholeNumber.MatchString(s) {
			value.Style = yaml.SingleQuotedStyle // a key of digits must stay text
		}
		top.Content = append(top.Content, key, value)
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(top); err != nil {
		return nil, fmt.Errorf("render config.yaml: %w", err)
	}
	return out.Bytes(), enc.Close()
}
