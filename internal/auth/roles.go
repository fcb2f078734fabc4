package auth

import (
	"slices"

	"github.com/quayctl/quayctl/internal/config"
)

// Restricted tells whether FEATURE_RESTRICTED_USERS keeps a user from pushing to the own namespace.
func Restricted(c *config.Config, username string) bool {
	return c.Features.RestrictedUsers && !slices.Contains(c.RestrictedUsersWhitelist, username)
}

// GlobalReadonlySuperuser tells whether a user may read everything.
func GlobalReadonlySuperuser(c *config.Config, username string) bool {
	return c.Features.SuperUsers && username != "" && slices.Contains(c.GlobalReadonlySuperUsers, username)
}

// FullAccessSuperuser tells whether a user may read and change everything. A user in both lists of superusers may only
// read.
func FullAccessSuperuser(c *config.Config, username string) bool {
	return c.Features.SuperUsers && c.Features.SuperusersFullAccess && username != "" &&
		slices.Contains(c.SuperUsers, username) && !GlobalReadonlySuperuser(c, username)
}
