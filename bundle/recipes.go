// Package recipes holds what goes into a bundle as data: the images, how each is
// put together, and the requirements a bundle states. Code that follows the
// recipes is in internal/bundle.
package recipes

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"

	"go.yaml.in/yaml/v3"
)

//go:embed appliance.yaml postgresql
var files embed.FS

// Recipe is appliance.yaml.
type Recipe struct {
	Source   string `yaml:"source"`   // where the source code is, a URL
	Licenses string `yaml:"licenses"` // of our own code, an SPDX expression
	Podman   string `yaml:"podman"`   // the oldest Podman the appliance runs on
	Database struct {
		PostgreSQL int    `yaml:"postgresql"` // major version of the server in the bundle
		Oldest     string `yaml:"oldest"`     // alembic revision of the oldest schema that the migrator takes over
		Newest     string `yaml:"newest"`     // alembic revision after migration
	} `yaml:"database"`
	UpgradesFrom []string `yaml:"upgradesFrom"` // versions of the product that this one replaces in place
	Users        []User   `yaml:"users"`        // of every image, numbers being the same in all of them
	Images       []Image  `yaml:"images"`
}

// User is a line of /etc/passwd and of /etc/group.
type User struct {
	Name string `yaml:"name"`
	ID   int    `yaml:"id"` // user and group number
	Home string `yaml:"home"`
}

// Image is one image of the bundle.
type Image struct {
	Component  string            `yaml:"component"` // also the last element of its name and the name of its program
	Title      string            `yaml:"title"`
	Program    string            `yaml:"program"` // path in the image of the statically linked program, its entrypoint
	Package    string            `yaml:"package"` // Go package of that program, relative to the module's root
	User       int               `yaml:"user"`    // number that it runs as
	StopSignal string            `yaml:"stopSignal"`
	Env        []string          `yaml:"env"`
	Dirs       []Dir             `yaml:"dirs"`  // that must exist although the image is read-only: mount points
	Files      map[string]string `yaml:"files"` // path in the image to a file beside the recipe
	Debian     *Debian           `yaml:"debian"`
}

// Dir is a directory of an image.
type Dir struct {
	Path string `yaml:"path"`
	User int    `yaml:"user"` // owner
	Mode uint32 `yaml:"mode"`
}

// Debian says which files of which Debian packages an image has. What these files are
// linked with is found by reading them.
type Debian struct {
	Suite    string   `yaml:"suite"`
	Packages []string `yaml:"packages"`
	// Files maps a directory to the patterns (path.Match) of the files in it that are kept.
	Files map[string][]string `yaml:"files"`
	// Links are symbolic links to add: path to target.
	Links map[string]string `yaml:"links"`
	// ICURoot keeps of ICU's data what sorting by the root collation needs, and leaves out all languages.
	ICURoot bool `yaml:"icuRoot"`
}

// Load reads the recipe that is compiled in.
func Load() (*Recipe, error) {
	b, err := files.ReadFile("appliance.yaml")
	if err != nil {
		return nil, fmt.Errorf("read recipe: %w", err)
	}
	var r Recipe
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("read recipe appliance.yaml: %w", err)
	}
	return &r, nil
}

// File gives a file that a recipe names in Image.Files.
func File(name string) ([]byte, error) { return fs.ReadFile(files, name) }
