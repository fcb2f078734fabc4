package token

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// Rules of names of accounts.
var namespacePattern = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

const (
	minNamespace = 2
	maxNamespace = 255
)

// namespace finds the account of a scope; nil when there is none and none is made.
func (e *Endpoint) namespace(ctx context.Context, who *auth.Principal, s scope) (*auth.Namespace, error) {
	row, err := e.DB.Read(ctx).AccountByName(ctx, s.namespace)
	if errors.Is(err, pgx.ErrNoRows) {
		if !s.push || !e.Config.CreateNamespaceOnPush || who.UserID == nil {
			return nil, nil
		}
		return e.createOrganization(ctx, who, s.namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("look up namespace %s: %w", s.namespace, err)
	}
	if !row.Enabled {
		return nil, regerr.NamespaceDisabled(s.namespace)
	}
	return &auth.Namespace{ID: row.ID, Name: row.Username, Organization: row.Organization}, nil
}

// createOrganization makes an organization that the principal owns. Its e-mail address is made of the principal's, because
// addresses are unique and must be there.
func (e *Endpoint) createOrganization(ctx context.Context, who *auth.Principal, name string) (*auth.Namespace, error) {
	refused := regerr.Unsupported().WithMessage("Cannot create organization")
	if e.Config.RegistryState == "readonly" {
		return nil, regerr.ReadOnly()
	}
	if len(name) < minNamespace || len(name) > maxNamespace || !namespacePattern.MatchString(name) {
		return nil, refused
	}
	email := who.Email
	if email == "" {
		row, err := e.DB.Read(ctx).AccountByName(ctx, who.Username)
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", who.Username, err)
		}
		email = row.Email
	}
	local, domain, ok := strings.Cut(email, "@")
	if !ok || who.Kind == auth.Robot {
		return nil, refused
	}
	var id int64
	err := e.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := sqlc.New(tx)
		newUUID := uuid.NewString()
		var err error
		if id, err = q.CreateNamespaceAccount(ctx, sqlc.CreateNamespaceAccountParams{
			UUID: &newUUID, Username: name, Email: uuid.NewString(), At: e.Clock.Now().UTC(),
			RemovedTagExpirationS: int64(e.Config.DefaultTagExpiration.Span().Seconds()),
		}); err != nil {
			return err
		}
		if err := q.MakeOrganization(ctx, sqlc.MakeOrganizationParams{ID: id, Email: local + "+" + name + "@" + domain}); err != nil {
			return err
		}
		team, err := q.CreateTeam(ctx, sqlc.CreateTeamParams{Name: "owners", OrganizationID: id, Role: "admin"})
		if err != nil {
			return err
		}
		return q.AddTeamMember(ctx, sqlc.AddTeamMemberParams{UserID: *who.UserID, TeamID: team})
	})
	if metadata.IsUniqueViolation(err) {
		return nil, refused.WithCause(err)
	}
	if err != nil {
		return nil, fmt.Errorf("create organization %s: %w", name, err)
	}
	return &auth.Namespace{ID: id, Name: name, Organization: true}, nil
}

// createOnPush makes the repository of a push to a new name, if the principal may. Of two that come at the same time one
// makes it, and both may push.
func (e *Endpoint) createOnPush(ctx context.Context, who *auth.Principal, ns auth.Namespace, s scope) (*directory.Repository, bool, error) {
	if who.UserID == nil || who.Username == ns.Name && auth.Restricted(e.Config, who.Username) {
		return nil, false, nil
	}
	may, err := e.Permissions.CreateRepository(ctx, who, ns)
	if err != nil || !may {
		return nil, false, err
	}
	if ns.Organization {
		mirrored, err := e.DB.Read(ctx).IsMirroredOrganization(ctx, ns.ID)
		if err != nil {
			return nil, false, fmt.Errorf("look up mirror of %s: %w", ns.Name, err)
		}
		if mirrored {
			return nil, false, nil
		}
	}
	if e.Config.RegistryState == "readonly" {
		return nil, false, regerr.ReadOnly()
	}
	visibility := "private"
	if !e.Config.CreatePrivateRepoOnPush {
		visibility = "public"
	}
	made, err := e.Directory.Create(ctx, who, ns, s.repo, visibility)
	if err != nil {
		return nil, false, err
	}
	// Read it back from the writer. A name that a deletion has not freed yet stays without repository.
	repo, err := e.Directory.Repository(metadata.ForceWriter(ctx), s.namespace, s.repo)
	if err != nil || repo == nil {
		return nil, err == nil, err
	}
	if made { // and may fill it, also with an OAuth token that may do nothing but make repositories
		return repo, true, nil
	}
	need, err := e.need(metadata.ForceWriter(ctx), who, ns, repo)
	if err != nil {
		return nil, false, err
	}
	may, err = e.mayPush(ctx, who, repo, need)
	return repo, may, err
}

// isMirrorRobot tells whether a principal is the robot that fills a mirrored repository.
func (e *Endpoint) isMirrorRobot(ctx context.Context, who *auth.Principal, repo *directory.Repository) (bool, error) {
	if who.Kind != auth.Robot {
		return false, nil
	}
	robots, err := e.DB.Read(ctx).MirrorRobotOfRepository(ctx, sqlc.MirrorRobotOfRepositoryParams{RepositoryID: repo.ID, State: repo.State})
	if err != nil {
		return false, fmt.Errorf("look up mirror robot of %s/%s: %w", repo.Namespace, repo.Name, err)
	}
	return slices.Contains(robots, *who.UserID), nil
}
