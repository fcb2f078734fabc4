// Package auth answers who a request is and what it may do: credential verifiers, permissions over the legacy
// tables, registry tokens. Its subpackages hold the instance keys, the encrypted fields and their cipher.
package auth

// Kind of an identity, as in the entity_kind member of a registry token's context.
type Kind string

// The kinds of identities. Anonymous tokens have no entity_kind.
const (
	Anonymous        Kind = ""
	User             Kind = "user"
	Robot            Kind = "robot"
	AccessToken      Kind = "token"
	OAuthToken       Kind = "oauthtoken"
	AppSpecificToken Kind = "appspecifictoken"
)

// Identity says who a request is, without the database row behind it.
type Identity struct {
	Kind Kind
	// Reference finds the row again: a user's uuid, a robot's full name, an access token's code, an OAuth or
	// app-specific token's uuid.
	Reference string
	// Username of the user or robot; empty for anonymous and access tokens.
	Username string
}

// IsAnonymous tells that nobody in particular asks.
func (i Identity) IsAnonymous() bool { return i.Kind == Anonymous }

// Need is how much of a repository an operation takes, or how much a grant gives. Greater includes smaller.
type Need int

// The needs, in rising order.
const (
	None Need = iota
	Read
	Write
	Admin
)

// NeedOfActions is what the actions of one token entry give: * admin, else push write, else pull read.
func NeedOfActions(actions []string) Need {
	need := None
	for _, a := range actions {
		switch a {
		case "*":
			need = max(need, Admin)
		case "push":
			need = max(need, Write)
		case "pull":
			need = max(need, Read)
		}
	}
	return need
}

// Performer is the account behind an identity, as rows and logs name it.
type Performer struct {
	// UserID is the row of the user or robot; nil for access tokens and disabled users.
	UserID *int64
	// Username of that row; empty for access tokens.
	Username string
	// Metadata are the members that registry events carry about the identity (behaviour of the action log):
	// username, is_robot, token, oauth_token_…, app_specific_token….
	Metadata map[string]any
	// Description is the identity in words, e.g. "user devtable", as error texts name it.
	Description string
}
