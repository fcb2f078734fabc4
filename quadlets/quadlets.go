// Package quadlets holds the appliance's components as data: one YAML file for each, whose fields
// internal/quadlet describes and renders into units.
package quadlets

import "embed"

// Files are the component files, <component>.yaml.
//
//go:embed *.yaml
var Files embed.FS
