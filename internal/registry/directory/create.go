package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// Create makes an image repository with the rows that belong to it, for a principal with an account; visibility is "private" or
// "public". made is false when there is one of that name.
func (d *Directory) Create(ctx context.Context, who *auth.Principal, ns auth.Namespace, name, visibility string) (made bool, err error) {
	err = d.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := sqlc.New(tx)
		made = false
		id, err := q.CreateRepository(ctx, sqlc.CreateRepositoryParams{
			NamespaceUserID: &ns.ID, Name: name, BadgeToken: uuid.NewString(), Visibility: visibility})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // somebody else made it
		}
		if err != nil {
			return err
		}
		made = true
		if err := q.AddRepositoryActionCount(ctx, sqlc.AddRepositoryActionCountParams{
			RepositoryID: id, Date: d.Clock.Now().UTC().AddDate(0, 0, -1)}); err != nil {
			return err
		}
		if err := q.AddRepositorySearchScore(ctx, id); err != nil {
			return err
		}
		if err := q.AddRepositoryUserPermission(ctx, sqlc.AddRepositoryUserPermissionParams{
			UserID: *who.UserID, RepositoryID: id, Role: "admin"}); err != nil {
			return err
		}
		if who.Username == ns.Name {
			return nil
		}
		if err := q.ApplyTeamPrototypes(ctx, sqlc.ApplyTeamPrototypesParams{
			RepositoryID: id, OrganizationID: ns.ID, CreatorID: who.UserID}); err != nil {
			return err
		}
		return q.ApplyUserPrototypes(ctx, sqlc.ApplyUserPrototypesParams{
			RepositoryID: id, OrganizationID: ns.ID, CreatorID: who.UserID})
	})
	if err != nil {
		return false, fmt.Errorf("create repository %s/%s: %w", ns.Name, name, err)
	}
	return made, nil
}
