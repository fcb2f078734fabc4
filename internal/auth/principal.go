package auth

import "strings"

// Principal is who presented valid credentials, with what permission checks ask about it. The zero Principal is anonymous.
type Principal struct {
	Identity
	// Performer as rows and logs name it; nil for anonymous.
	Performer *Performer
	// UserID is the row of the user or robot; nil for anonymous and for access tokens.
	UserID *int64
	// Email of the user; empty for robots.
	Email string
	// LogAccountID and LogNamespace are the account in whose log sign-ins belong: the user's own, a robot's owner.
	LogAccountID *int64
	LogNamespace string
	// Only, if set, is all that an access token gives.
	Only *RepositoryGrant
	// Scopes cap what an OAuth token's user may do; nil is no cap.
	Scopes *Scopes
}

// RepositoryGrant is a need on one repository.
type RepositoryGrant struct {
	RepositoryID int64
	Need         Need
}

// Scopes is what an OAuth token was granted.
type Scopes struct {
	Repository Need // the most it may do with repositories
	Create     bool // repo:create
	Admin      bool // org:admin
	Superuser  bool // super:user
}

// ParseScopes reads a token's scope column, separated by spaces or commas. Unknown scopes give nothing at all, as with the
// legacy server.
func ParseScopes(text string) Scopes {
	var s Scopes
	for _, name := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' }) {
		switch name {
		case "repo:read":
			s.Repository = max(s.Repository, Read)
		case "repo:write":
			s.Repository = max(s.Repository, Write)
		case "repo:admin":
			s.Repository = max(s.Repository, Admin)
		case "repo:create":
			s.Create = true
		case "org:admin":
			s.Admin = true
		case "super:user":
			s.Superuser = true
		case "user:read", "user:admin":
		default:
			return Scopes{}
		}
	}
	return s
}

// capNeed is need within the principal's scopes.
func (p *Principal) capNeed(need Need) Need {
	if p.Scopes != nil {
		return min(need, p.Scopes.Repository)
	}
	return need
}

// mayCreate tells whether the scopes allow making repositories.
func (p *Principal) mayCreate() bool { return p.Scopes == nil || p.Scopes.Create || p.Scopes.Admin }

// superuserName is the name to look up among superusers, empty when the credentials carry no such powers.
func (p *Principal) superuserName() string {
	if p.Kind == Robot || p.Scopes != nil && !p.Scopes.Superuser {
		return ""
	}
	return p.Username
}
