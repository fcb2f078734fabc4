package registryjwt

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/clock"
)

// InvalidError is a bearer token that is refused, with the text that the client is told.
type InvalidError struct{ Message string }

// Error implements error.
func (e *InvalidError) Error() string { return "bearer token refused: " + e.Message }

func invalid(format string, args ...any) error {
	if len(args) == 0 {
		return &InvalidError{Message: format}
	}
	return &InvalidError{Message: fmt.Sprintf(format, args...)}
}

// Keys finds the public key of an approved, unexpired instance key; nil when there is none.
type Keys interface {
	PublicKey(ctx context.Context, kid string) (*rsa.PublicKey, error)
}

// Verifier checks bearer tokens.
type Verifier struct {
	Keys     Keys
	Clock    clock.Clock
	Audience string        // cfg SERVER_HOSTNAME
	Issuer   string        // cfg INSTANCE_SERVICE_KEY_SERVICE
	MaxFresh time.Duration // cfg REGISTRY_JWT_AUTH_MAX_FRESH_S: how far exp may lie behind iat
}

// Token is a verified token.
type Token struct {
	Subject  string
	Identity auth.Identity
	Access   []Access
}

// bearerPattern is case-sensitive and allows exactly one space.
var bearerPattern = regexp.MustCompile(`\ABearer (([a-zA-Z0-9+\-_/]+\.)+[a-zA-Z0-9+\-_/]+)\z`)

// Verify reads an Authorization header. A token that is refused gives an *InvalidError with the legacy server's text;
// any other error is the key store's.
func (v *Verifier) Verify(ctx context.Context, header string) (*Token, error) {
	m := bearerPattern.FindStringSubmatch(header)
	if m == nil {
		return nil, invalid("Invalid bearer token format")
	}
	return v.VerifyToken(ctx, m[1])
}

// VerifyToken is Verify for the token itself.
func (v *Verifier) VerifyToken(ctx context.Context, token string) (*Token, error) {
	head, payloadPart, err := readHeader(token)
	if err != nil {
		return nil, err
	}
	kid, ok := head["kid"].(string)
	if !ok || kid == "" {
		return nil, invalid("Missing kid header")
	}
	key, err := v.Keys.PublicKey(ctx, kid)
	if err != nil {
		return nil, fmt.Errorf("look up service key: %w", err)
	}
	if key == nil {
		return nil, invalid("Unknown service key")
	}
	if head["alg"] != string(jose.RS256) {
		return nil, invalid("The specified alg value is not allowed")
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, invalid("Signature verification failed")
	}
	if _, err := signed.Verify(key); err != nil {
		return nil, invalid("Signature verification failed")
	}
	var claims map[string]any
	if err := json.Unmarshal(payloadPart, &claims); err != nil || claims == nil {
		return nil, invalid("Invalid payload string: must be a json object")
	}
	if err := v.checkClaims(claims); err != nil {
		return nil, err
	}
	subject, ok := claims["sub"].(string)
	if !ok || subject == "" {
		return nil, invalid("Missing sub field in JWT")
	}
	access, err := readAccess(claims["access"])
	if err != nil {
		return nil, err
	}
	return &Token{Subject: subject, Access: access, Identity: readIdentity(claims["context"])}, nil
}

// readHeader takes a token apart with the messages of the legacy server's JWT library.
func readHeader(token string) (head map[string]any, payload []byte, err error) {
	cut := strings.LastIndexByte(token, '.')
	first := strings.IndexByte(token, '.')
	if cut < 0 || first == cut {
		return nil, nil, invalid("Not enough segments")
	}
	parts := []struct{ text, name string }{{token[:first], "header"}, {token[first+1 : cut], "payload"}, {token[cut+1:], "crypto"}}
	decoded := make([][]byte, len(parts))
	for i, p := range parts {
		if decoded[i], err = lenientBase64(p.text); err != nil {
			return nil, nil, invalid("Invalid %s padding", p.name)
		}
		if i == 0 {
			var value any
			if err := json.Unmarshal(decoded[0], &value); err != nil {
				return nil, nil, invalid("Invalid header string: %v", err)
			}
			var ok bool
			if head, ok = value.(map[string]any); !ok {
				return nil, nil, invalid("Invalid header string: must be a json object")
			}
		}
	}
	return head, decoded[1], nil
}

// lenientBase64 takes both alphabets, without padding, as Python does.
func lenientBase64(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_", ".", "").Replace(s))
}

func (v *Verifier) checkClaims(c map[string]any) error {
	for _, name := range []string{"nbf", "iat", "exp"} {
		if c[name] == nil {
			return invalid("Token is missing the %q claim", name)
		}
	}
	now := v.Clock.Now()
	iat, err := seconds(c["iat"], "Issued At claim (iat) must be an integer.")
	if err != nil {
		return err
	}
	if iat > now.Add(leeway).Unix() {
		return invalid("The token is not yet valid (iat)")
	}
	nbf, err := seconds(c["nbf"], "Not Before claim (nbf) must be an integer.")
	if err != nil {
		return err
	}
	if nbf > now.Add(leeway).Unix() {
		return invalid("The token is not yet valid (nbf)")
	}
	exp, err := seconds(c["exp"], "Expiration Time claim (exp) must be an integer.")
	if err != nil {
		return err
	}
	if exp <= now.Add(-leeway).Unix() {
		return invalid("Signature has expired")
	}
	if c["iss"] == nil {
		return invalid(`Token is missing the "iss" claim`)
	}
	if c["iss"] != v.Issuer {
		return invalid("Invalid issuer")
	}
	if err := v.checkAudience(c["aud"]); err != nil {
		return err
	}
	if limit := int64(v.MaxFresh / time.Second); exp-iat > limit {
		// The legacy server tells this as a Python tuple; clients have seen it that way.
		return invalid("('Token was signed for more than %%s seconds from %%s', %d, %s)", limit, pythonTime(time.Unix(iat, 0).UTC()))
	}
	return nil
}

func (v *Verifier) checkAudience(aud any) error {
	switch aud := aud.(type) {
	case string:
		if aud == "" {
			return invalid(`Token is missing the "aud" claim`)
		}
		if aud == v.Audience {
			return nil
		}
	case []any:
		if len(aud) == 0 {
			return invalid(`Token is missing the "aud" claim`)
		}
		for _, a := range aud {
			if _, ok := a.(string); !ok {
				return invalid("Invalid claim format in token")
			}
		}
		for _, a := range aud {
			if a == v.Audience {
				return nil
			}
		}
	case nil:
		return invalid(`Token is missing the "aud" claim`)
	default:
		return invalid("Invalid claim format in token")
	}
	return invalid("Audience doesn't match")
}

func seconds(value any, message string) (int64, error) {
	f, ok := value.(float64)
	if !ok || math.IsNaN(f) || math.Abs(f) > 1<<53 {
		return 0, &InvalidError{Message: message}
	}
	return int64(f), nil
}

func pythonTime(t time.Time) string {
	s := fmt.Sprintf("datetime.datetime(%d, %d, %d, %d, %d", t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute())
	if t.Second() != 0 {
		s += fmt.Sprintf(", %d", t.Second())
	}
	return s + ")"
}

// readAccess reads the access claim; a missing one is an empty one.
func readAccess(claim any) ([]Access, error) {
	malformed := invalid("Token contained invalid or malformed access grants")
	if claim == nil {
		return nil, nil
	}
	entries, ok := claim.([]any)
	if !ok {
		return nil, malformed
	}
	access := make([]Access, 0, len(entries))
	for _, e := range entries {
		entry, ok := e.(map[string]any)
		if !ok {
			return nil, malformed
		}
		name, okName := entry["name"].(string)
		actions, okActions := entry["actions"].([]any)
		if entry["type"] != "repository" || !okName || !okActions {
			return nil, malformed
		}
		a := Access{Type: "repository", Name: name, Actions: make([]string, 0, len(actions))}
		for _, action := range actions {
			text, ok := action.(string)
			if !ok || text != "push" && text != "pull" && text != "*" {
				return nil, malformed
			}
			a.Actions = append(a.Actions, text)
		}
		access = append(access, a)
	}
	return access, nil
}

// readIdentity reads the context claim; without entity_kind it is an anonymous one.
func readIdentity(claim any) auth.Identity {
	c, ok := claim.(map[string]any)
	if !ok {
		return auth.Identity{}
	}
	kind, _ := c["entity_kind"].(string)
	reference, _ := c["entity_reference"].(string)
	user, _ := c["user"].(string)
	switch k := auth.Kind(kind); k {
	case auth.User, auth.Robot, auth.OAuthToken, auth.AppSpecificToken:
		return auth.Identity{Kind: k, Reference: reference, Username: user}
	case auth.AccessToken:
		return auth.Identity{Kind: k, Reference: reference}
	}
	return auth.Identity{}
}
