package auth

import (
	"context"
	"fmt"
	"slices"

	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// Permissions answers what a principal may do, from the legacy tables.
type Permissions struct {
	DB     *metadata.DB
	Config *config.Config
}

// Namespace is the account that owns repositories.
type Namespace struct {
	ID           int64
	Name         string
	Organization bool
}

// Repository is what a principal may do with a repository: id is nil for one that does not exist (yet), where only rights
// on the whole namespace count.
func (p *Permissions) Repository(ctx context.Context, who *Principal, ns Namespace, id *int64) (Need, error) {
	if who.Only != nil {
		if id != nil && *id == who.Only.RepositoryID {
			return who.Only.Need, nil
		}
		return None, nil
	}
	if who.UserID == nil {
		return None, nil
	}
	if FullAccessSuperuser(p.Config, who.superuserName()) {
		return who.capNeed(Admin), nil
	}
	if who.Kind != Robot && who.Username == ns.Name {
		return who.capNeed(Admin), nil
	}
	q := p.DB.Read(ctx)
	need := None
	if ns.Organization {
		roles, err := q.OrganizationRoles(ctx, sqlc.OrganizationRolesParams{UserID: *who.UserID, OrganizationID: ns.ID})
		if err != nil {
			return None, fmt.Errorf("look up teams of %s: %w", who.Username, err)
		}
		if slices.Contains(roles, "admin") {
			return who.capNeed(Admin), nil
		}
	}
	if id != nil {
		roles, err := q.RepositoryRoles(ctx, sqlc.RepositoryRolesParams{RepositoryID: *id, UserID: who.UserID})
		if err != nil {
			return None, fmt.Errorf("look up permissions of %s: %w", who.Username, err)
		}
		for _, r := range roles {
			need = max(need, needOfRole(r))
		}
	}
	return who.capNeed(need), nil
}

func needOfRole(role string) Need {
	switch role {
	case "admin":
		return Admin
	case "write":
		return Write
	case "read":
		return Read
	}
	return None
}

// CreateRepository tells whether a principal may make repositories in a namespace: the own one, and organizations by a team
// with the role admin or creator.
func (p *Permissions) CreateRepository(ctx context.Context, who *Principal, ns Namespace) (bool, error) {
	if who.UserID == nil || !who.mayCreate() {
		return false, nil
	}
	if FullAccessSuperuser(p.Config, who.superuserName()) || who.Kind != Robot && who.Username == ns.Name {
		return true, nil
	}
	if !ns.Organization {
		return false, nil
	}
	roles, err := p.DB.Read(ctx).OrganizationRoles(ctx, sqlc.OrganizationRolesParams{UserID: *who.UserID, OrganizationID: ns.ID})
	if err != nil {
		return false, fmt.Errorf("look up teams of %s: %w", who.Username, err)
	}
	return slices.Contains(roles, "admin") || slices.Contains(roles, "creator"), nil
}

// Member tells whether a principal belongs to an organization by any team.
func (p *Permissions) Member(ctx context.Context, who *Principal, ns Namespace) (bool, error) {
	if who.UserID == nil || !ns.Organization {
		return false, nil
	}
	roles, err := p.DB.Read(ctx).OrganizationRoles(ctx, sqlc.OrganizationRolesParams{UserID: *who.UserID, OrganizationID: ns.ID})
	if err != nil {
		return false, fmt.Errorf("look up teams of %s: %w", who.Username, err)
	}
	return len(roles) > 0, nil
}

// ReadsEverything tells whether a principal is a global read-only superuser.
func (p *Permissions) ReadsEverything(who *Principal) bool {
	return GlobalReadonlySuperuser(p.Config, who.superuserName())
}
