package metadata

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// libpqOnly are parameters that PostgreSQL's C library takes and pgx neither needs nor knows. Left in a DSN,
// pgx would send them to the server as settings, which refuses the connection.
var libpqOnly = map[string]bool{
	"keepalives": true, "keepalives_idle": true, "keepalives_interval": true, "keepalives_count": true,
	"tcp_user_timeout": true, "gssencmode": true, "gsslib": true, "krbsrvname": true, "gssdelegation": true,
	"sslcompression": true, "sslcrl": true, "sslcrldir": true, "requiressl": true, "requirepeer": true,
	"requireauth": true, "fallback_application_name": true, "load_balance_hosts": true, "replication": true,
	"sslcertmode": true, "ssl_min_protocol_version": true, "ssl_max_protocol_version": true,
	"hostaddr": true,
}

// legacyOnly are keys of DB_CONNECTION_ARGS that concern the legacy server's own connection library.
var legacyOnly = map[string]bool{"threadlocals": true, "autorollback": true, "autoconnect": true, "ssl": true}

// ParseDSN reads a database address as config.yaml holds it in DB_URI: an SQLAlchemy URL
// (postgresql://, postgres:// or with a driver, postgresql+psycopg2://), whose query may name the host
// (host=/directory/of/socket), sslmode, sslrootcert, connect_timeout and the like. args are the keys of
// DB_CONNECTION_ARGS; they win over the URL, as there.
func ParseDSN(dsn string, args map[string]any) (*pgx.ConnConfig, error) {
	plain, err := PlainDSN(dsn, args)
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig(plain)
	if err != nil {
		// pgx leaves the password out of its parse errors.
		return nil, fmt.Errorf("read database address: %w", err)
	}
	return cfg, nil
}

// PlainDSN is ParseDSN's first half: the same address as a postgresql:// URL that pgx and psql take.
func PlainDSN(dsn string, args map[string]any) (string, error) {
	scheme, rest, found := strings.Cut(dsn, "://")
	if !found {
		return "", fmt.Errorf("read database address: it is not a URL; write postgresql://USER@HOST/DATABASE")
	}
	base, _, _ := strings.Cut(scheme, "+")
	if base != "postgresql" && base != "postgres" {
		return "", fmt.Errorf("read database address: %s:// is not supported, only PostgreSQL is; write postgresql://USER@HOST/DATABASE", scheme)
	}
	u, err := url.Parse("postgresql://" + rest)
	if err != nil {
		// url.Error quotes the whole address, password included.
		return "", fmt.Errorf("read database address: not a valid URL (is a character of the password in need of %%-encoding?)")
	}
	query := u.Query()
	for _, key := range slices.Sorted(maps.Keys(args)) {
		if !legacyOnly[key] && args[key] != nil {
			query.Set(key, fmt.Sprint(args[key]))
		}
	}
	for key := range query {
		if libpqOnly[key] {
			query.Del(key)
		}
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}
