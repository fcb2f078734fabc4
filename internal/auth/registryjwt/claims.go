// Package registryjwt makes and verifies the bearer tokens of the registry: RS256 JWTs signed with an instance key,
// byte for byte those of the legacy server, so that either server takes the other's.
//
// JOSE comes from go-jose: it parses and signs, keeps algorithms in one allow-list, and its JWK support reads the
// service keys. Claims are checked here, because the contract fixes their rules and messages.
package registryjwt

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/pyjson"
)

const (
	// Lifetime of a token.
	Lifetime = time.Hour
	// leeway for clocks that differ.
	leeway = 30 * time.Second
	// anonymousSubject is the sub claim of tokens for nobody and for access tokens.
	anonymousSubject = "(anonymous)"
	// signingDisabled is the trust root of every repository: content trust is not served.
	signingDisabled = "$disabled"
)

// Access is one entry of the access claim.
type Access struct {
	Type    string   `json:"type"` // always "repository"
	Name    string   `json:"name"`
	Actions []string `json:"actions"` // push, pull, * in this order; never nil
}

// Grant is what the token endpoint decided for one scope.
type Grant struct {
	Access
	// Repository is namespace/name as parsed, the key of the context's trust roots; it differs from Name for
	// host-prefixed and library names.
	Repository string
}

// Signer is an instance key.
type Signer interface {
	// KeyID is the kid header.
	KeyID() string
	// PrivateKey signs.
	PrivateKey() *rsa.PrivateKey
}

type claims struct {
	Issuer    string          `json:"iss"`
	Audience  *string         `json:"aud"`
	NotBefore int64           `json:"nbf"`
	IssuedAt  int64           `json:"iat"`
	Expires   int64           `json:"exp"`
	Subject   string          `json:"sub"`
	Access    []Access        `json:"access"`
	Context   json.RawMessage `json:"context"`
}

// Mint makes a token that is valid for Lifetime from now. audience nil gives the null of a request without a service,
// which no registry accepts.
func Mint(key Signer, issuer string, audience *string, now time.Time, who auth.Identity, grants []Grant) (string, error) {
	c := claims{
		Issuer: issuer, Audience: audience,
		NotBefore: now.Unix(), IssuedAt: now.Unix(), Expires: now.Add(Lifetime).Unix(),
		Subject: anonymousSubject, Access: []Access{},
	}
	if who.Username != "" {
		c.Subject = who.Username
	}
	for _, g := range grants {
		c.Access = append(c.Access, g.Access)
	}
	var err error
	if c.Context, err = contextOf(who, grants); err != nil {
		return "", err
	}
	payload, err := pyjson.Compact(c)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key.PrivateKey(), KeyID: key.KeyID()}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("sign registry token: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign registry token: %w", err)
	}
	return signed.CompactSerialize()
}

// contextOf writes the context claim. Its members keep the legacy order, which a map would lose.
func contextOf(who auth.Identity, grants []Grant) (json.RawMessage, error) {
	var b bytes.Buffer
	member := func(name string, value any) error {
		text, err := pyjson.Compact(value)
		if err != nil {
			return err
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", name, text)
		return nil
	}
	type pair struct {
		name  string
		value any
	}
	var pairs []pair
	if !who.IsAnonymous() {
		pairs = append(pairs, pair{"version", 2}, pair{"entity_kind", string(who.Kind)}, pair{"entity_reference", who.Reference})
		switch who.Kind {
		case auth.OAuthToken:
			pairs = append(pairs, pair{"kind", "oauth"}, pair{"oauth", who.Reference}, pair{"user", who.Username})
		case auth.AccessToken:
			pairs = append(pairs, pair{"kind", "token"}, pair{"token", who.Reference})
		default:
			pairs = append(pairs, pair{"kind", "user"}, pair{"user", who.Username})
		}
	}
	roots := bytes.NewBufferString("{")
	seen := map[string]bool{}
	for _, g := range grants {
		if seen[g.Repository] {
			continue
		}
		seen[g.Repository] = true
		name, err := pyjson.Compact(g.Repository)
		if err != nil {
			return nil, err
		}
		if roots.Len() > 1 {
			roots.WriteByte(',')
		}
		fmt.Fprintf(roots, "%s:%q", name, signingDisabled)
	}
	roots.WriteByte('}')
	pairs = append(pairs, pair{"com.apostille.roots", json.RawMessage(roots.Bytes())}, pair{"com.apostille.root", signingDisabled})
	b.WriteByte('{')
	for _, p := range pairs {
		if err := member(p.name, p.value); err != nil {
			return nil, fmt.Errorf("write token context: %w", err)
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
