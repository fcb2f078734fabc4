// Package users creates and changes users of the registry's own user database, with exactly the rows and refusals of
// the legacy server (recorded at POST /api/v1/user/ and PUT /api/v1/superuser/users/{username}).
package users

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
)

// InvalidError refuses a value. Its text is the legacy server's.
type InvalidError struct {
	Field  string // username, email or password
	Reason string
}

func (e *InvalidError) Error() string { return e.Reason }

// TakenError refuses a name or address that somebody has.
type TakenError struct {
	Field  string // username or email
	Reason string
}

func (e *TakenError) Error() string { return e.Reason }

// ErrNoSuchUser is wrapped when no person (organizations and robots are none) has the name.
var ErrNoSuchUser = errors.New("no such user")

// Names of the prompts that the web interface shows at the next sign-in (FEATURE_USER_METADATA).
const (
	PromptName    = "enter_name"
	PromptCompany = "enter_company"
)

// New is a user to be.
type New struct {
	Username     string
	Email        string
	PasswordHash string // of HashPassword
	// Verified: the address needs no confirmation. Users made by an operator, and all users where FEATURE_MAILING is
	// off, are verified.
	Verified bool
	Prompts  []string
	// Now is the time of the rows, any zone.
	Now time.Time
}

// Create adds a user: the row, its prompts and the action log's user_create. q is best a transaction's. Nothing of it is
// specific to who asks: the caller has checked that.
func Create(ctx context.Context, q sqlc.DBTX, n New) (sqlc.User, error) {
	if err := errors.Join(ValidateUsername(n.Username), ValidateEmail(n.Email)); err != nil {
		return sqlc.User{}, err
	}
	if n.PasswordHash == "" || n.Now.IsZero() {
		return sqlc.User{}, errors.New("create user: PasswordHash and Now are needed")
	}
	db := sqlc.New(q)
	if err := free(ctx, db, n); err != nil {
		return sqlc.User{}, err
	}
	user, err := db.CreateUser(ctx, sqlc.CreateUserParams{
		UUID: uuid.NewString(), Username: n.Username, PasswordHash: n.PasswordHash, Email: n.Email, Verified: n.Verified, Now: n.Now.UTC(),
	})
	switch {
	case metadata.IsUniqueViolation(err): // somebody else was faster
		return sqlc.User{}, &TakenError{Field: "username", Reason: fmt.Sprintf("Username or e-mail address has already been taken: %s, %s", n.Username, n.Email)}
	case err != nil:
		return sqlc.User{}, fmt.Errorf("create user %s: %w", n.Username, err)
	}
	for _, prompt := range n.Prompts {
		added, err := db.AddUserPrompt(ctx, sqlc.AddUserPromptParams{UserID: user.ID, Prompt: prompt})
		if err == nil && added != 1 {
			err = errors.New("the database does not know this prompt")
		}
		if err != nil {
			return sqlc.User{}, fmt.Errorf("create user %s: prompt %s: %w", n.Username, prompt, err)
		}
	}
	about := struct {
		Email    string `json:"email"`
		Username string `json:"username"`
	}{n.Email, n.Username}
	return user, log(ctx, db, "user_create", user.ID, about, n.Now)
}

func free(ctx context.Context, db *sqlc.Queries, n New) error {
	existing, err := db.NamespaceByUsername(ctx, n.Username)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return fmt.Errorf("look for user %s: %w", n.Username, err)
	case existing.Organization:
		return &TakenError{Field: "username", Reason: "Username has already been taken by an organization and cannot be reused: " + n.Username}
	default:
		return &TakenError{Field: "username", Reason: "Username has already been taken by a user and cannot be reused: " + n.Username}
	}
	deleting, err := db.NamespaceIsBeingDeleted(ctx, n.Username)
	if err != nil {
		return fmt.Errorf("look for deleted user %s: %w", n.Username, err)
	}
	if deleting {
		return &TakenError{Field: "username", Reason: "Username belonged to a namespace that is still being deleted: " + n.Username}
	}
	used, err := db.EmailInUse(ctx, n.Email)
	if err != nil {
		return fmt.Errorf("look for e-mail address %s: %w", n.Email, err)
	}
	if used {
		return &TakenError{Field: "email", Reason: "Email has already been used: " + n.Email}
	}
	return nil
}

// ResetPassword sets a new password hash, forgives failed sign-ins and ends the user's sessions (their uuid changes, as
// recorded), and writes the action log's user_change_password.
func ResetPassword(ctx context.Context, q sqlc.DBTX, username, passwordHash string, now time.Time) error {
	db := sqlc.New(q)
	id, err := db.SetUserPassword(ctx, sqlc.SetUserPasswordParams{Username: username, PasswordHash: passwordHash, UUID: uuid.NewString()})
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("reset password of %s: %w", username, ErrNoSuchUser)
	}
	if err != nil {
		return fmt.Errorf("reset password of %s: %w", username, err)
	}
	about := struct {
		Username string `json:"username"`
	}{username}
	return log(ctx, db, "user_change_password", id, about, now)
}

// List are all people by name, without organizations, robots and users that are being deleted.
func List(ctx context.Context, q sqlc.DBTX) ([]sqlc.ListUsersRow, error) {
	list, err := sqlc.New(q).ListUsers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return list, nil
}

func log(ctx context.Context, db *sqlc.Queries, kind string, account int64, about any, now time.Time) error {
	text, err := pyjson.Spaced(about)
	if err != nil {
		return err
	}
	_, err = db.AddAccountLog(ctx, sqlc.AddAccountLogParams{Kind: kind, AccountID: account, Now: now.UTC(), MetadataJSON: string(text)})
	if err != nil {
		return fmt.Errorf("write action log: %w", err)
	}
	return nil
}

const namespacePattern = `^([a-z0-9]+(?:[._-][a-z0-9]+)*)$`

var (
	namespace = regexp.MustCompile(namespacePattern)
	address   = regexp.MustCompile(`^[^@]+@[^@.]+(?:\.[^@.]+)+$`)
)

// ValidateUsername applies the rule for new names of users and organizations.
func ValidateUsername(name string) error {
	reason := ""
	switch {
	case !namespace.MatchString(name):
		reason = "Namespace must match expression " + namespacePattern
	case len(name) < 2 || len(name) > 255:
		reason = "Namespace must be between 2 and 255 characters in length"
	default:
		return nil
	}
	return &InvalidError{Field: "username", Reason: fmt.Sprintf("Invalid namespace %s: %s", name, reason)}
}

// ValidateEmail applies the rule for addresses, which asks for little.
func ValidateEmail(email string) error {
	switch {
	case email == "":
		return &InvalidError{Field: "email", Reason: "Email address is required"}
	case !address.MatchString(email) || utf8.RuneCountInString(email) > 255:
		return &InvalidError{Field: "email", Reason: "Invalid email address: " + email}
	}
	return nil
}
