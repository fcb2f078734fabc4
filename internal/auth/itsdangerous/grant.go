package itsdangerous

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/quayctl/quayctl/internal/auth"
)

// GrantPrefix begins every signed grant.
const GrantPrefix = "sigv2="

// Grant is a need on a repository; only reading and writing are ever granted.
type Grant struct {
	Namespace, Repository string
	Need                  auth.Need // auth.Read or auth.Write
}

// Grants is what the token of a /v1 client says.
type Grants struct {
	Grants []Grant
	// User is the name of the user or robot that the token was made for; nil when it was none.
	User *string
}

var actions = map[auth.Need]string{auth.Read: "read", auth.Write: "write"}

type grantsJSON struct {
	Grants []json.RawMessage `json:"grants"`
	User   *string           `json:"user_context"`
}

// SignGrants is the token that carries g, its prefix included.
func (s *Serializer) SignGrants(g Grants, now time.Time) (string, error) {
	type tuple struct {
		Members [4]string `json:" t"`
	}
	payload := struct {
		Grants []tuple `json:"grants"`
		User   *string `json:"user_context"`
	}{Grants: []tuple{}, User: g.User}
	for _, grant := range g.Grants {
		payload.Grants = append(payload.Grants, tuple{grant.members()})
	}
	text, err := json.Marshal(payload)
	if err != nil {
		return "", fmt.Errorf("write grants: %w", err)
	}
	signed, err := s.Sign(text, now)
	return GrantPrefix + signed, err
}

func (g Grant) members() [4]string {
	return [4]string{"repository", g.Namespace, g.Repository, actions[g.Need]}
}

// Members is the grant the way the action log shows it.
func (g Grant) Members() []string {
	m := g.members()
	return m[:]
}

// OpenGrants reads a token, which begins with GrantPrefix.
func (s *Serializer) OpenGrants(token string, maxAge time.Duration, now time.Time) (Grants, error) {
	text, ok := strings.CutPrefix(token, GrantPrefix)
	if !ok {
		return Grants{}, ErrSignature
	}
	payload, err := s.Open(text, maxAge, now)
	if err != nil {
		return Grants{}, err
	}
	return parseGrants(payload)
}

func parseGrants(payload []byte) (Grants, error) {
	var text grantsJSON
	if err := json.Unmarshal(payload, &text); err != nil {
		return Grants{}, fmt.Errorf("read grants: %w", err)
	}
	g := Grants{User: text.User}
	for _, raw := range text.Grants {
		var tagged map[string][]string
		if err := json.Unmarshal(raw, &tagged); err != nil {
			return Grants{}, fmt.Errorf("read grant: %w", err)
		}
		members := tagged[" t"]
		if len(members) != 4 || members[0] != "repository" {
			continue // a need on something else, which nothing in /v1 asks for
		}
		for need, action := range actions {
			if members[3] == action {
				g.Grants = append(g.Grants, Grant{Namespace: members[1], Repository: members[2], Need: need})
			}
		}
	}
	return g, nil
}
