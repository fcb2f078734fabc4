// Package profiles holds the built-in profiles, <name>.yaml: which components an installation has.
// internal/quadlet describes the fields.
package profiles

import "embed"

// Files are the profiles.
//
//go:embed *.yaml
var Files embed.FS
