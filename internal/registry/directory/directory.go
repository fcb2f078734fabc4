// Package directory looks up repositories by name and accounts by the identities that registry tokens carry.
package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// KindImage is the kind of repository that the registry serves.
const KindImage = "image"

// States of a repository.
const (
	StateNormal            = 0
	StateReadOnly          = 1
	StateMirror            = 2
	StateMarkedForDeletion = 3
	StateOrgMirror         = 4
)

// Repository is a repository that is not marked for deletion.
type Repository struct {
	ID              int64
	Name            string
	Namespace       string
	NamespaceUserID int64
	// NamespaceEnabled and NamespaceOrganization describe the account that owns it.
	NamespaceEnabled, NamespaceOrganization bool
	Public                                  bool
	Kind                                    string // KindImage or "application"
	State                                   int64  // one of the States
	TrustEnabled                            bool
}

// Directory is safe for concurrent use.
type Directory struct {
	DB    *metadata.DB
	Clock clock.Clock
}

// Repository finds a repository; nil when there is none.
func (d *Directory) Repository(ctx context.Context, namespace, name string) (*Repository, error) {
	row, err := d.DB.Read(ctx).RepositoryByName(ctx, sqlc.RepositoryByNameParams{Namespace: namespace, Name: name})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up repository %s/%s: %w", namespace, name, err)
	}
	return &Repository{
		ID: row.ID, Name: row.Name, Namespace: row.Namespace, NamespaceUserID: row.NamespaceUserID,
		NamespaceEnabled: row.NamespaceEnabled, NamespaceOrganization: row.NamespaceOrganization,
		Public: row.Visibility == "public", Kind: row.Kind, State: row.State, TrustEnabled: row.TrustEnabled,
	}, nil
}

// Performer finds the account behind an identity; nil for anonymous ones and for accounts that are gone. A user who was
// disabled since the token was made has no UserID.
func (d *Directory) Performer(ctx context.Context, who auth.Identity) (*auth.Performer, error) {
	p, err := d.performer(ctx, who)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s of a token: %w", who.Kind, err)
	}
	return p, nil
}

func (d *Directory) performer(ctx context.Context, who auth.Identity) (*auth.Performer, error) {
	q := d.DB.Read(ctx)
	switch who.Kind {
	case auth.User:
		row, err := q.AccountByUUID(ctx, &who.Reference)
		if err != nil {
			return nil, err
		}
		p := auth.UserPerformer(row.ID, row.Username)
		if !row.Enabled {
			p.UserID = nil // named, but no performer, as recorded
		}
		return p, nil
	case auth.Robot:
		row, err := q.AccountByName(ctx, who.Reference)
		if err != nil {
			return nil, err
		}
		if !row.Robot {
			return nil, pgx.ErrNoRows
		}
		return auth.RobotPerformer(row.ID, row.Username), nil
	case auth.AppSpecificToken:
		now := d.Clock.Now()
		row, err := q.AppSpecificTokenByUUID(ctx, sqlc.AppSpecificTokenByUUIDParams{UUID: who.Reference, Now: &now})
		if err != nil {
			return nil, err
		}
		return auth.AppTokenPerformer(row.UserID, row.Username, row.UUID, row.Title), nil
	case auth.OAuthToken:
		row, err := q.OAuthTokenByUUID(ctx, who.Reference)
		if err != nil {
			return nil, err
		}
		return auth.OAuthPerformer(row.UserID, row.Username, row.ID, row.ClientID, row.Application), nil
	case auth.AccessToken:
		if len(who.Reference) < auth.AccessTokenNameLength {
			return nil, pgx.ErrNoRows
		}
		row, err := q.AccessTokenByName(ctx, who.Reference[:auth.AccessTokenNameLength])
		if err != nil {
			return nil, err
		}
		return auth.AccessTokenPerformer(row.FriendlyName), nil
	}
	return nil, nil
}
