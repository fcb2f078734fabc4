package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Redacted stands for a secret in everything that is printed.
const Redacted = "[redacted]"

// Secret is a value that no log, message or document shows: every fmt verb, slog, JSON, YAML and text
// encoding prints Redacted instead, or nothing when the secret is not set.
type Secret struct {
	text    string
	integer bool
}

// NewSecret returns a secret that holds text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return s.text }

// IsSet tells whether the secret is not empty.
func (s Secret) IsSet() bool { return s.text != "" }

// Integer tells that config.yaml holds the secret as a number without quotes. The legacy key conversion
// treats such a key differently (no fallback when it does not convert).
func (s Secret) Integer() bool { return s.integer }

func (s Secret) shown() string {
	if s.IsSet() {
		return Redacted
	}
	return ""
}

// String implements fmt.Stringer.
func (s Secret) String() string { return s.shown() }

// Format implements fmt.Formatter, so that no verb reaches the fields.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.shown()) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.shown()) }

// MarshalText implements encoding.TextMarshaler and with it JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.shown()), nil }

// MarshalYAML implements yaml.Marshaler.
func (s Secret) MarshalYAML() (any, error) { return s.shown(), nil }

var wholeNumber = regexp.MustCompile(`^[-+]?[0-9]+$`)

// UnmarshalYAML takes any scalar as it is written: a number keeps all its digits.
func (s *Secret) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return errors.New("must be text")
	}
	if n.Tag == "!!null" {
		*s = Secret{}
		return nil
	}
	*s = Secret{text: n.Value, integer: n.Style == 0 && wholeNumber.MatchString(n.Value)}
	return nil
}

// URI is an address that may hold a password; printed, the password is replaced.
type URI struct{ secret Secret }

// NewURI returns the URI that text holds.
func NewURI(text string) URI { return URI{NewSecret(text)} }

// Reveal returns the URI with its password.
func (u URI) Reveal() string { return u.secret.text }

// IsSet tells whether there is an address.
func (u URI) IsSet() bool { return u.secret.IsSet() }

// Scheme is what stands before "://", in lower case and without a driver ("postgresql+psycopg2").
func (u URI) Scheme() string {
	scheme, _, found := strings.Cut(u.secret.text, "://")
	if !found {
		return ""
	}
	scheme, _, _ = strings.Cut(scheme, "+")
	return strings.ToLower(scheme)
}

var uriPassword = regexp.MustCompile(`^([^:/?#]+://[^:/?#@]*):.*@`)

// secretQuery are query parameters of a database address that hold secrets (libpq).
var secretQuery = []string{"password", "sslpassword", "passfile"}

// String implements fmt.Stringer.
func (u URI) String() string {
	if u.Scheme() == "" && u.IsSet() {
		return Redacted // no address, so nobody knows which part of it is the password
	}
	text := uriPassword.ReplaceAllString(u.secret.text, "$1:"+Redacted+"@")
	base, query, found := strings.Cut(text, "?")
	if !found {
		return text
	}
	parts := strings.Split(query, "&")
	for i, p := range parts {
		if k, _, ok := strings.Cut(p, "="); ok {
			if name, err := url.QueryUnescape(k); err != nil || slices.Contains(secretQuery, name) {
				parts[i] = k + "=" + Redacted
			}
		}
	}
	return base + "?" + strings.Join(parts, "&")
}

// Format implements fmt.Formatter.
func (u URI) Format(f fmt.State, _ rune) { fmt.Fprint(f, u.String()) }

// LogValue implements slog.LogValuer.
func (u URI) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText implements encoding.TextMarshaler.
func (u URI) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalYAML implements yaml.Marshaler.
func (u URI) MarshalYAML() (any, error) { return u.String(), nil }

// UnmarshalYAML takes a scalar.
func (u *URI) UnmarshalYAML(n *yaml.Node) error { return u.secret.UnmarshalYAML(n) }

// Duration is a time span as config.yaml writes it: a whole number and one of s, m, h, d, w, y
// ("2w", "10m"). The zero Duration is "not set".
type Duration struct {
	text string
	span time.Duration
}

var durationUnits = map[byte]time.Duration{
	's': time.Second, 'm': time.Minute, 'h': time.Hour,
	'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour, 'y': 365 * 24 * time.Hour,
}

// ParseDuration reads the legacy notation; a blank between number and unit and a sign are allowed.
func ParseDuration(text string) (Duration, error) {
	bad := fmt.Errorf("%q is not a time span: write a whole number and one of s, m, h, d, w, like 2w", text)
	if len(text) < 2 {
		return Duration{}, bad
	}
	unit, ok := durationUnits[text[len(text)-1]]
	if !ok {
		return Duration{}, bad
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text[:len(text)-1]), 10, 64)
	if err != nil || n > int64(1<<63-1)/int64(unit) || n < -int64(1<<63-1)/int64(unit) {
		return Duration{}, bad
	}
	return Duration{text, time.Duration(n) * unit}, nil
}

// Span is the time itself.
func (d Duration) Span() time.Duration { return d.span }

// IsSet tells a span that was given, of zero length too, from none.
func (d Duration) IsSet() bool { return d.text != "" }

// String is the notation of config.yaml.
func (d Duration) String() string { return d.text }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.text), nil }

// UnmarshalYAML reads the notation; null is "not set".
func (d *Duration) UnmarshalYAML(n *yaml.Node) (err error) {
	if n.Kind != yaml.ScalarNode {
		return errors.New("must be text like 2w")
	}
	if n.Tag == "!!null" {
		*d = Duration{}
		return nil
	}
	*d, err = ParseDuration(n.Value)
	return err
}

// Size is an amount of data as config.yaml writes it ("20G", "512M", "5GiB"). The legacy server and its
// nginx read the same text differently, so there are two readings.
type Size struct {
	text   string
	number float64
	unit   string
}

var sizePattern = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)$`)

var siUnits = map[string]float64{"": 1, "B": 1, "BYTE": 1, "K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9,
	"T": 1e12, "TB": 1e12, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}

// ParseSize reads the notation.
func ParseSize(text string) (Size, error) {
	bad := fmt.Errorf("%q is not a size: write a whole number and G or M, like 20G", text)
	m := sizePattern.FindStringSubmatch(text)
	if m == nil {
		return Size{}, bad
	}
	unit := strings.ToUpper(m[2])
	if _, ok := siUnits[unit]; !ok {
		return Size{}, bad
	}
	number, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return Size{}, bad
	}
	return Size{text, number, unit}, nil
}

// Bytes is the size as the legacy server reads it: G is 10^9, GiB is 2^30.
func (s Size) Bytes() int64 { return int64(s.number * siUnits[s.unit]) }

// FrontBytes is the size as the legacy nginx reads it: G is 2^30.
func (s Size) FrontBytes() int64 {
	unit := s.unit
	if len(unit) == 1 && unit != "B" {
		unit += "IB"
	}
	return int64(s.number * siUnits[unit])
}

// String is the notation of config.yaml.
func (s Size) String() string { return s.text }

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// UnmarshalYAML reads the notation, or a number of bytes.
func (s *Size) UnmarshalYAML(n *yaml.Node) (err error) {
	if n.Kind != yaml.ScalarNode {
		return errors.New("must be text like 20G")
	}
	*s, err = ParseSize(n.Value)
	return err
}

// Parameters are a mapping whose values may be secrets, like those of a storage driver. Printed, only
// numbers, booleans and the values that name a place are shown.
type Parameters map[string]any

// plainParameters are the parameters whose text is no secret.
var plainParameters = []string{
	"storage_path", "s3_bucket", "s3_region", "host", "hostname", "endpoint_url", "bucket_name", "region_name",
	"signature_version", "azure_container", "azure_account_name", "swift_container", "auth_url", "engine",
	"cloudfront_distribution_domain", "cloudflare_domain", "akamai_domain", "default_provider", "sslmode",
}

func (p Parameters) shown() map[string]any {
	out := make(map[string]any, len(p))
	for k, v := range p {
		switch v := v.(type) {
		case bool, int, int64, uint64, float64, nil:
			out[k] = v
		case string:
			out[k] = Redacted
			if slices.Contains(plainParameters, k) {
				out[k] = URI{NewSecret(v)}.String()
			}
		default:
			out[k] = Redacted
		}
	}
	return out
}

// Text returns the parameter called name when it is text, otherwise "".
func (p Parameters) Text(name string) string {
	s, _ := p[name].(string)
	return s
}

// String implements fmt.Stringer.
func (p Parameters) String() string {
	shown := p.shown()
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(shown)) {
		parts = append(parts, fmt.Sprintf("%s:%v", k, shown[k]))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// Format implements fmt.Formatter.
func (p Parameters) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// LogValue implements slog.LogValuer.
func (p Parameters) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalJSON implements json.Marshaler.
func (p Parameters) MarshalJSON() ([]byte, error) { return json.Marshal(p.shown()) }

// MarshalYAML implements yaml.Marshaler.
func (p Parameters) MarshalYAML() (any, error) { return p.shown(), nil }

// Location is one storage location of DISTRIBUTED_STORAGE_CONFIG.
type Location struct {
	Name       string
	Driver     string
	Parameters Parameters
}

// Storage is DISTRIBUTED_STORAGE_CONFIG in the order of the file, which is the order of preference when
// DISTRIBUTED_STORAGE_PREFERENCE is empty.
type Storage []Location

// Location returns the location called name.
func (s Storage) Location(name string) (Location, bool) {
	for _, l := range s {
		if l.Name == name {
			return l, true
		}
	}
	return Location{}, false
}

// UnmarshalYAML reads a mapping of names to [driver, parameters].
func (s *Storage) UnmarshalYAML(n *yaml.Node) error {
	const shape = "must be a mapping of location names to [driver, {parameters}], like default: [LocalStorage, {storage_path: /datastorage/registry}]"
	if n.Kind != yaml.MappingNode {
		return errors.New(shape)
	}
	var out Storage
	for i := 0; i+1 < len(n.Content); i += 2 {
		l := Location{Name: n.Content[i].Value}
		pair := resolve(n.Content[i+1])
		if pair.Kind != yaml.SequenceNode || len(pair.Content) != 2 {
			return fmt.Errorf("location %s: %s", l.Name, shape)
		}
		if err := pair.Content[0].Decode(&l.Driver); err != nil {
			return fmt.Errorf("location %s: %s", l.Name, shape)
		}
		if err := pair.Content[1].Decode((*map[string]any)(&l.Parameters)); err != nil {
			return fmt.Errorf("location %s: %s", l.Name, shape)
		}
		out = append(out, l)
	}
	*s = out
	return nil
}

// Redis is where a Redis server is reached.
type Redis struct {
	Host     string `yaml:"host" json:"host"`
	Port     int    `yaml:"port" json:"port,omitempty"`
	DB       int    `yaml:"db" json:"db,omitempty"`
	Password Secret `yaml:"password" json:"password,omitzero"`
	SSL      bool   `yaml:"ssl" json:"ssl,omitempty"`
}

// Replica is one element of DB_READ_REPLICAS.
type Replica struct {
	DBURI            URI        `yaml:"DB_URI" json:"DB_URI"`
	DBConnectionArgs Parameters `yaml:"DB_CONNECTION_ARGS" json:"DB_CONNECTION_ARGS,omitempty"`
}

// Texts is a list of texts; a single text in its place is a list of one, null an empty one.
type Texts []string

// UnmarshalYAML reads a sequence of scalars or a scalar.
func (t *Texts) UnmarshalYAML(n *yaml.Node) error {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		*t = nil
		return nil
	case n.Kind == yaml.ScalarNode:
		*t = Texts{n.Value}
		return nil
	case n.Kind != yaml.SequenceNode:
		return errors.New("must be a list of texts")
	}
	out := Texts{}
	for _, e := range n.Content {
		e = resolve(e)
		if e.Kind != yaml.ScalarNode {
			return errors.New("must be a list of texts")
		}
		out = append(out, e.Value)
	}
	*t = out
	return nil
}

// Opaque is a value that this program does not interpret. It is printed as Redacted, because nobody
// knows whether it is a secret.
type Opaque struct{ node *yaml.Node }

// Decode reads the value into v, which is a pointer.
func (o Opaque) Decode(v any) error { return o.node.Decode(v) }

// String implements fmt.Stringer.
func (o Opaque) String() string { return Redacted }

// Format implements fmt.Formatter.
func (o Opaque) Format(f fmt.State, _ rune) { fmt.Fprint(f, Redacted) }

// LogValue implements slog.LogValuer.
func (o Opaque) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText implements encoding.TextMarshaler.
func (o Opaque) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalYAML implements yaml.Marshaler.
func (o Opaque) MarshalYAML() (any, error) { return Redacted, nil }

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}
