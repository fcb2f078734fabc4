package auth

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth/field"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// Texts of refused credentials, as clients have always seen them.
const (
	msgLogin             = "Invalid Username or Password"
	msgUserDisabled      = "This user has been disabled. Please contact your administrator."
	msgUnencrypted       = "Client login with unencrypted passwords is disabled. Please generate an encrypted password in the user admin panel for use here."
	msgAppTokenRequired  = "An application specific token is required to login"
	msgAccessToken       = "Invalid access token"
	msgAppToken          = "Invalid token"
	msgOAuthToken        = "OAuth access token could not be validated"
	msgOAuthExpired      = "OAuth access token has expired"
	msgOAuthDisabled     = "Granter of the oauth access token is disabled"
	msgRobotUnknown      = "Could not find robot with specified username"
	msgRobotsDisallowed  = "Robot account have been disabled. Please contact your administrator."
	appTokenNameLength   = 60
	oauthTokenNameLength = 20
)

// CredentialKind is the kind of credentials, as the action log and the metrics name it.
type CredentialKind string

// The kinds, in the order in which a username is matched.
const (
	CredentialToken    CredentialKind = "token"
	CredentialAppToken CredentialKind = "app_specific_token"
	CredentialOAuth    CredentialKind = "oauth"
	CredentialRobot    CredentialKind = "robot"
	CredentialUser     CredentialKind = "user"
)

// CredentialError is credentials that were refused.
type CredentialError struct {
	Kind    CredentialKind
	Message string
	// Metadata are the members that the failed sign-in's log entry has beyond kind and message.
	Metadata map[string]any
	// LogAccountID and LogNamespace are whose log it belongs to, PerformerID who failed; nil when that is not known.
	LogAccountID *int64
	LogNamespace string
	PerformerID  *int64
}

// Error implements error.
func (e *CredentialError) Error() string { return e.Message }

// LockedError is an account that has seen too many wrong passwords.
type LockedError struct{ RetryAfter time.Duration }

// Error implements error.
func (e *LockedError) Error() string {
	return fmt.Sprintf("account is locked for %s after wrong passwords", e.RetryAfter)
}

// verifier checks the credentials of one kind.
type verifier struct {
	kind    CredentialKind
	applies func(username string) bool
	verify  func(ctx context.Context, username, secret string) (*Principal, error)
}

// Credentials verifies usernames and passwords of every kind. Make it with NewCredentials.
type Credentials struct {
	db        *metadata.DB
	clock     clock.Clock
	config    *config.Config
	log       *slog.Logger
	passwords *passwords
	fieldKey  []byte // of encrypted columns; nil without DATABASE_SECRET_KEY
	clientKey []byte // of encrypted passwords; nil without SECRET_KEY
	verifiers []verifier
}

// NewCredentials makes a Credentials.
func NewCredentials(db *metadata.DB, c clock.Clock, cfg *config.Config, log *slog.Logger) (*Credentials, error) {
	v := &Credentials{db: db, clock: c, config: cfg, log: log}
	switch cfg.AuthenticationType {
	case "Database", "AppToken":
	default:
		return nil, fmt.Errorf("AUTHENTICATION_TYPE %s is not served by this registry; use Database", cfg.AuthenticationType)
	}
	var err error
	if v.passwords, err = newPasswords(c); err != nil {
		return nil, err
	}
	if s := cfg.DatabaseSecretKey; s.IsSet() {
		if v.fieldKey, err = field.Key(s.Reveal(), s.Integer()); err != nil {
			return nil, fmt.Errorf("read DATABASE_SECRET_KEY: %w", err)
		}
	}
	if s := cfg.SecretKey; s.IsSet() {
		if v.clientKey, err = field.Key(s.Reveal(), s.Integer()); err != nil {
			return nil, fmt.Errorf("read SECRET_KEY: %w", err)
		}
	}
	is := func(name string) func(string) bool { return func(username string) bool { return username == name } }
	v.verifiers = []verifier{
		{CredentialToken, is("$token"), v.accessToken},
		{CredentialAppToken, func(u string) bool { return u == "$app" && cfg.Features.AppSpecificTokens }, v.appToken},
		{CredentialOAuth, is("$oauthtoken"), v.oauthToken},
		{CredentialRobot, func(u string) bool { return strings.Contains(u, "+") }, v.robot},
		{CredentialUser, func(string) bool { return true }, v.user},
	}
	return v, nil
}

// Verify checks a username and its password or token. It returns who that is, or a *CredentialError, or a *LockedError;
// any other error is the database's.
func (v *Credentials) Verify(ctx context.Context, username, secret string) (*Principal, CredentialKind, error) {
	for _, c := range v.verifiers {
		if c.applies(username) {
			p, err := c.verify(ctx, username, secret)
			return p, c.kind, err
		}
	}
	return nil, CredentialUser, &CredentialError{Kind: CredentialUser, Message: msgLogin}
}

// same compares secrets without telling by its time where they differ.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// decrypt reads an encrypted column; a value that does not decrypt is told to the log and matches nothing.
func (v *Credentials) decrypt(ctx context.Context, what, stored string) (string, bool) {
	if v.fieldKey == nil {
		v.log.ErrorContext(ctx, "cannot check credentials: DATABASE_SECRET_KEY is not set", "kind", what)
		return "", false
	}
	plain, err := field.Decrypt(v.fieldKey, stored)
	if err != nil {
		v.log.ErrorContext(ctx, "cannot check credentials", "kind", what, "error", err)
		return "", false
	}
	return plain, plain != ""
}

// touched are the times for a last-access update: now, and the time since when there must be none. ok is false when
// nothing may be written.
func (v *Credentials) touched() (now, notSince *time.Time, ok bool) {
	at := v.clock.Now().UTC()
	since := at.Add(-time.Duration(v.config.LastAccessedThresholdS) * time.Second)
	return &at, &since, v.config.RegistryState != "readonly"
}

func (v *Credentials) accessToken(ctx context.Context, _, secret string) (*Principal, error) {
	refused := &CredentialError{Kind: CredentialToken, Message: msgAccessToken}
	if len(secret) < 2*AccessTokenNameLength {
		return nil, refused
	}
	row, err := v.db.Read(ctx).AccessTokenByName(ctx, secret[:AccessTokenNameLength])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, refused
	}
	if err != nil {
		return nil, fmt.Errorf("look up access token: %w", err)
	}
	code, ok := v.decrypt(ctx, "access token", row.TokenCode)
	if !ok || !same(code, secret[AccessTokenNameLength:]) {
		return nil, refused
	}
	return &Principal{
		Identity:  Identity{Kind: AccessToken, Reference: secret},
		Performer: AccessTokenPerformer(row.FriendlyName),
		Only:      &RepositoryGrant{RepositoryID: row.RepositoryID, Need: needOfRole(row.Role)},
	}, nil
}

func (v *Credentials) appToken(ctx context.Context, _, secret string) (*Principal, error) {
	refused := &CredentialError{Kind: CredentialAppToken, Message: msgAppToken}
	if len(secret) <= appTokenNameLength {
		return nil, refused
	}
	row, err := v.db.Read(ctx).AppSpecificTokenByName(ctx, secret[:appTokenNameLength])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, refused
	}
	if err != nil {
		return nil, fmt.Errorf("look up application token: %w", err)
	}
	if row.Expiration != nil && !row.Expiration.After(v.clock.Now().UTC()) {
		return nil, refused
	}
	code, ok := v.decrypt(ctx, "application token", row.TokenSecret)
	if !ok || !same(code, secret[appTokenNameLength:]) {
		return nil, refused
	}
	if now, since, ok := v.touched(); ok {
		if err := v.db.Write(ctx).TouchAppSpecificToken(ctx, sqlc.TouchAppSpecificTokenParams{ID: row.ID, At: now, NotSince: since}); err != nil {
			return nil, fmt.Errorf("note use of application token: %w", err)
		}
	}
	if !row.Enabled {
		return nil, &CredentialError{Kind: CredentialAppToken, Message: msgUserDisabled,
			Metadata:     map[string]any{"app_specific_token_title": row.Title, "username": row.Username},
			LogAccountID: &row.UserID, LogNamespace: row.Username, PerformerID: &row.UserID}
	}
	return &Principal{
		Identity:     Identity{Kind: AppSpecificToken, Reference: row.UUID, Username: row.Username},
		Performer:    AppTokenPerformer(row.UserID, row.Username, row.UUID, row.Title),
		UserID:       &row.UserID,
		LogAccountID: &row.UserID, LogNamespace: row.Username,
	}, nil
}

func (v *Credentials) oauthToken(ctx context.Context, _, secret string) (*Principal, error) {
	refused := func(message string) error { return &CredentialError{Kind: CredentialOAuth, Message: message} }
	if issuer, ok := jwtIssuer(secret); ok {
		// Tokens of outside identity providers; none is configured here.
		return nil, refused("Issuer " + issuer + " not configured")
	}
	if len(secret) < 2*oauthTokenNameLength {
		return nil, refused(msgOAuthToken)
	}
	row, err := v.db.Read(ctx).OAuthTokenByName(ctx, secret[:oauthTokenNameLength])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, refused(msgOAuthToken)
	}
	if err != nil {
		return nil, fmt.Errorf("look up OAuth token: %w", err)
	}
	ok, err := v.passwords.match(ctx, row.TokenCode, secret[oauthTokenNameLength:])
	if ctx.Err() != nil {
		return nil, fmt.Errorf("check OAuth token: %w", ctx.Err())
	}
	if err != nil {
		v.log.ErrorContext(ctx, "cannot check OAuth token", "id", row.ID, "error", err)
	}
	if !ok {
		return nil, refused(msgOAuthToken)
	}
	if !row.ExpiresAt.After(v.clock.Now().UTC()) {
		return nil, refused(msgOAuthExpired)
	}
	if now, since, ok := v.touched(); ok {
		if err := v.db.Write(ctx).TouchOAuthToken(ctx, sqlc.TouchOAuthTokenParams{ID: row.ID, At: now, NotSince: since}); err != nil {
			return nil, fmt.Errorf("note use of OAuth token: %w", err)
		}
	}
	if !row.Enabled {
		return nil, refused(msgOAuthDisabled)
	}
	scopes := ParseScopes(row.Scope)
	return &Principal{
		Identity:     Identity{Kind: OAuthToken, Reference: row.UUID, Username: row.Username},
		Performer:    OAuthPerformer(row.UserID, row.Username, row.ID, row.ClientID, row.Application),
		UserID:       &row.UserID,
		LogAccountID: &row.UserID, LogNamespace: row.Username,
		Scopes: &scopes,
	}, nil
}

func (v *Credentials) robot(ctx context.Context, username, secret string) (*Principal, error) {
	owner, _, _ := strings.Cut(username, "+")
	refuse := func(message string) *CredentialError {
		return &CredentialError{Kind: CredentialRobot, Message: message, Metadata: map[string]any{"robot": username, "username": owner}}
	}
	if v.config.RobotsDisallow && !slices.Contains(v.config.RobotsWhitelist, username) {
		return nil, refuse(msgRobotsDisallowed)
	}
	row, err := v.db.Read(ctx).RobotByName(ctx, username)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, refuse(msgRobotUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("look up robot: %w", err)
	}
	account, ownerErr := v.db.Read(ctx).AccountByName(ctx, owner)
	if ownerErr != nil && !errors.Is(ownerErr, pgx.ErrNoRows) {
		return nil, fmt.Errorf("look up robot's owner: %w", ownerErr)
	}
	refuseKnown := func(message string) error {
		e := refuse(message)
		e.PerformerID = &row.ID
		if ownerErr == nil {
			e.LogAccountID, e.LogNamespace = &account.ID, account.Username
		}
		return e
	}
	code, ok := "", false
	if row.Token != nil {
		code, ok = v.decrypt(ctx, "robot token", *row.Token)
	}
	switch {
	case !ok || !same(code, secret):
		return nil, refuseKnown("Could not find robot with username: " + username + " and supplied password.")
	case ownerErr != nil:
		return nil, refuseKnown("Robot " + username + " owner does not exist")
	case !account.Enabled:
		return nil, refuseKnown("Robot " + username + " owner " + owner + " is disabled")
	}
	if now, since, ok := v.touched(); ok {
		if err := v.db.Write(ctx).TouchAccount(ctx, sqlc.TouchAccountParams{ID: row.ID, At: now, NotSince: since}); err != nil {
			return nil, fmt.Errorf("note use of robot: %w", err)
		}
	}
	if !row.Enabled {
		return nil, refuseKnown(msgUserDisabled)
	}
	return &Principal{
		Identity:     Identity{Kind: Robot, Reference: row.Username, Username: row.Username},
		Performer:    RobotPerformer(row.ID, row.Username),
		UserID:       &row.ID,
		LogAccountID: &account.ID, LogNamespace: account.Username,
	}, nil
}

func (v *Credentials) user(ctx context.Context, username, secret string) (*Principal, error) {
	refused := func(message string) error {
		return &CredentialError{Kind: CredentialUser, Message: message, Metadata: map[string]any{"username": username}}
	}
	if v.config.AuthenticationType == "AppToken" {
		return nil, refused(msgAppTokenRequired)
	}
	password, encrypted := secret, false
	if v.clientKey != nil {
		if plain, ok := field.DecryptPassword(v.clientKey, secret); ok {
			password, encrypted = plain, true
		}
	}
	if !encrypted && v.config.Features.RequireEncryptedBasicAuth {
		return nil, refused(msgUnencrypted)
	}
	for _, r := range username {
		if r > 127 {
			return nil, refused(msgLogin)
		}
	}
	row, err := v.db.Read(ctx).LoginByName(ctx, username)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, refused(msgLogin)
	}
	if err != nil {
		return nil, fmt.Errorf("look up user: %w", err)
	}
	now := v.clock.Now().UTC()
	if wait := lockout(row.InvalidLoginAttempts, row.LastInvalidLogin).Sub(now); row.InvalidLoginAttempts > 0 && wait > 0 {
		return nil, &LockedError{RetryAfter: wait}
	}
	ok := false
	if row.PasswordHash != nil {
		ok, err = v.passwords.match(ctx, *row.PasswordHash, password)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("check password: %w", ctx.Err()) // nothing was found out, so that no failure counts
		}
		if err != nil {
			v.log.ErrorContext(ctx, "cannot check password", "user", row.Username, "error", err)
		}
	}
	readOnly := v.config.RegistryState == "readonly"
	if !ok {
		if !readOnly {
			if err := v.db.Write(ctx).CountFailedLogin(ctx, sqlc.CountFailedLoginParams{ID: row.ID, At: now}); err != nil {
				return nil, fmt.Errorf("count failed sign-in: %w", err)
			}
		}
		return nil, refused(msgLogin)
	}
	if row.InvalidLoginAttempts > 0 && !readOnly {
		if err := v.db.Write(ctx).ClearFailedLogins(ctx, sqlc.ClearFailedLoginsParams{ID: row.ID, At: &now}); err != nil {
			return nil, fmt.Errorf("clear failed sign-ins: %w", err)
		}
	}
	if !row.Enabled {
		return nil, refused(msgUserDisabled)
	}
	reference := ""
	if row.UUID != nil {
		reference = *row.UUID
	}
	return &Principal{
		Identity:     Identity{Kind: User, Reference: reference, Username: row.Username},
		Performer:    UserPerformer(row.ID, row.Username),
		UserID:       &row.ID,
		Email:        row.Email,
		LogAccountID: &row.ID, LogNamespace: row.Username,
	}, nil
}

// jwtIssuer reads the iss claim of what looks like a JWT, without believing it.
func jwtIssuer(secret string) (string, bool) {
	parts := strings.Split(secret, ".")
	if len(parts) != 3 {
		return "", false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Issuer == "" {
		return "", false
	}
	return claims.Issuer, true
}

// lockout is when an account may try again after n wrong passwords in a row: 0.5 s × (2^n − 1) after the last.
func lockout(n int64, last time.Time) time.Time {
	const longest = 30 * 24 * time.Hour
	wait := 0.5 * (math.Pow(2, float64(n)) - 1)
	if wait > longest.Seconds() {
		return last.Add(longest)
	}
	return last.Add(time.Duration(wait * float64(time.Second)))
}
