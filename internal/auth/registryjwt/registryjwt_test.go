package registryjwt_test

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/instancekey"
	"github.com/quayctl/quayctl/internal/auth/registryjwt"
	"github.com/quayctl/quayctl/internal/clock"
)

const host = "localhost:18000"

type vectors struct {
	Vectors []struct {
		Identity string
		Time     int64
		Access   []registryjwt.Access
		Claims   struct {
			Sub     string
			Context struct {
				EntityKind      string `json:"entity_kind"`
				EntityReference string `json:"entity_reference"`
			}
		}
		Token string
	}
	Verification []struct {
		Case   string
		Result json.RawMessage
	}
}

func load(t *testing.T) (vectors, *instancekey.Key) {
	t.Helper()
	text, err := os.ReadFile("testdata/registry-jwt.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	key, err := instancekey.Load("testdata/instance-key.pem", "testdata/instance-key.kid")
	if err != nil {
		t.Fatal(err)
	}
	return v, key
}

func TestGolden(t *testing.T) {
	v, key := load(t)
	if len(v.Vectors) == 0 {
		t.Fatal("no vectors")
	}
	audience := host
	for _, c := range v.Vectors {
		who := auth.Identity{Kind: auth.Kind(c.Claims.Context.EntityKind), Reference: c.Claims.Context.EntityReference}
		if c.Claims.Sub != "(anonymous)" {
			who.Username = c.Claims.Sub
		}
		var grants []registryjwt.Grant
		for _, a := range c.Access {
			grants = append(grants, registryjwt.Grant{Access: a, Repository: a.Name})
		}
		token, err := registryjwt.Mint(key, "quay", &audience, time.Unix(c.Time, 0), who, grants)
		if err != nil {
			t.Fatal(err)
		}
		if token != c.Token {
			t.Errorf("%s %v:\n got %s\nwant %s", c.Identity, c.Access, token, c.Token)
			continue
		}
		verifier := &registryjwt.Verifier{Keys: oneKey{key}, Clock: clock.NewFake(time.Unix(c.Time, 0)), Audience: host, Issuer: "quay", MaxFresh: 3660 * time.Second}
		got, err := verifier.Verify(t.Context(), "Bearer "+token)
		if err != nil {
			t.Errorf("%s: verify own token: %v", c.Identity, err)
			continue
		}
		if got.Identity != who || len(got.Access) != len(c.Access) {
			t.Errorf("%s: read back %+v, want %+v", c.Identity, got, who)
		}
	}
}

type oneKey struct{ key *instancekey.Key }

func (k oneKey) PublicKey(_ context.Context, kid string) (*rsa.PublicKey, error) {
	if kid == k.key.KeyID() {
		return &k.key.PrivateKey().PublicKey, nil
	}
	return nil, nil
}

func TestVerification(t *testing.T) {
	v, key := load(t)
	now := time.Date(2026, 11, 23, 16, 24, 47, 0, time.UTC)
	verifier := &registryjwt.Verifier{Keys: oneKey{key}, Clock: clock.NewFake(now), Audience: host, Issuer: "quay", MaxFresh: 3660 * time.Second}
	sign := func(alg jose.SignatureAlgorithm, signingKey any, kid string, edit func(map[string]any)) string {
		claims := map[string]any{"iss": "quay", "aud": host, "nbf": now.Unix(), "iat": now.Unix(), "exp": now.Unix() + 3600,
			"sub": "devtable", "access": []any{}, "context": map[string]any{}}
		if edit != nil {
			edit(claims)
		}
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		options := (&jose.SignerOptions{}).WithType("JWT")
		if kid != "" {
			options = options.WithHeader("kid", kid)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: signingKey}, options)
		if err != nil {
			t.Fatal(err)
		}
		object, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		token, err := object.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) {
			if value == nil {
				delete(c, name)
			} else {
				c[name] = value
			}
		}
	}
	good := func(edit func(map[string]any)) string {
		return "Bearer " + sign(jose.RS256, key.PrivateKey(), key.KeyID(), edit)
	}
	headers := map[string]string{
		"ok":                            good(nil),
		"expired 31s ago":               good(func(c map[string]any) { c["exp"] = now.Unix() - 31; c["iat"] = now.Unix() - 3600; c["nbf"] = c["iat"] }),
		"expired 29s ago":               good(func(c map[string]any) { c["exp"] = now.Unix() - 29; c["iat"] = now.Unix() - 3600; c["nbf"] = c["iat"] }),
		"wrong audience":                good(set("aud", "elsewhere")),
		"audience null":                 good(func(c map[string]any) { c["aud"] = nil }),
		"audience list containing host": good(set("aud", []string{"x", host})),
		"wrong issuer":                  good(set("iss", "nobody")),
		"no nbf":                        good(set("nbf", nil)),
		"no iat":                        good(set("iat", nil)),
		"no exp":                        good(set("exp", nil)),
		"no sub":                        good(set("sub", nil)),
		"no aud":                        good(set("aud", nil)),
		"nbf in 40s":                    good(set("nbf", now.Unix()+40)),
		"nbf in 20s":                    good(set("nbf", now.Unix()+20)),
		"iat in 40s":                    good(set("iat", now.Unix()+40)),
		"exp - iat = 3661":              good(set("exp", now.Unix()+3661)),
		"exp - iat = 3660":              good(set("exp", now.Unix()+3660)),
		"no kid":                        "Bearer " + sign(jose.RS256, key.PrivateKey(), "", nil),
		"unknown kid":                   "Bearer " + sign(jose.RS256, key.PrivateKey(), "nobody", nil),
		"lower-case scheme":             "bearer" + strings.TrimPrefix(good(nil), "Bearer"),
		"two spaces":                    "Bearer  " + strings.TrimPrefix(good(nil), "Bearer "),
		"HS256":                         "Bearer " + sign(jose.HS256, []byte("0123456789abcdef0123456789abcdef"), key.KeyID(), nil),
		"unapproved/other-service kid":  "Bearer " + sign(jose.RS256, key.PrivateKey(), "kid3", nil),
		"garbage":                       "Bearer garbage",
		"basic":                         "Basic ZGV2dGFibGU6cGFzc3dvcmQ=",
	}
	for _, c := range v.Verification {
		header, ok := headers[c.Case]
		if !ok {
			t.Errorf("no token for case %q", c.Case)
			continue
		}
		var want struct{ Rejected string }
		if string(c.Result) != `"accepted"` {
			if err := json.Unmarshal(c.Result, &want); err != nil {
				t.Fatal(err)
			}
		}
		_, err := verifier.Verify(t.Context(), header)
		var refused *registryjwt.InvalidError
		got := ""
		if errors.As(err, &refused) {
			got = refused.Message
		} else if err != nil {
			got = "unexpected " + err.Error()
		}
		if got != want.Rejected {
			t.Errorf("%s: got %q, want %q", c.Case, got, want.Rejected)
		}
	}
}

func TestForms(t *testing.T) {
	_, key := load(t)
	verifier := &registryjwt.Verifier{Keys: oneKey{key}, Clock: clock.NewFake(time.Unix(1700000000, 0)), Audience: host, Issuer: "quay", MaxFresh: time.Hour}
	for header, want := range map[string]string{
		"Bearer a.b":   "Not enough segments",
		"Bearer x.y.z": "Invalid header padding",
		"Bearer ":      "Invalid bearer token format",
		"Bearer eyJhbGciOiAibm9uZSIsICJ0eXAiOiAiSldUIn0.eyJzdWIiOiAiZGV2dGFibGUifQ.c2ln": "Missing kid header",
	} {
		_, err := verifier.Verify(t.Context(), header)
		var refused *registryjwt.InvalidError
		if !errors.As(err, &refused) || refused.Message != want {
			t.Errorf("%s: got %v, want %q", header, err, want)
		}
	}
}
