package bundle

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	recipes "github.com/quayctl/quayctl/bundle"
)

// imageInput is all that an image depends on.
type imageInput struct {
	recipe  recipes.Image
	common  *recipes.Recipe
	version string
	commit  string
	arch    string
	created time.Time
	program []byte
	debian  *debianFiles // nil for an image without Debian packages
	cache   layerCache
}

// assembled is an image with what the manifest tells of it.
type assembled struct {
	v1.Image
	name     string
	diskSize int64
}

// assemble builds an image from nothing: first what rarely changes, then what all images share, then the program.
func assemble(in imageInput) (*assembled, error) {
	var trees []tree
	if in.debian != nil {
		trees = append(trees, in.debian.tree)
	}
	trees = append(trees, baseTree(in.common.Users))
	own := tree{}
	for _, d := range in.recipe.Dirs {
		own.add(d.Path, &entry{mode: fs.ModeDir | fs.FileMode(d.Mode), user: d.User})
	}
	for at, from := range in.recipe.Files {
		b, err := recipes.File(from)
		if err != nil {
			return nil, fmt.Errorf("assemble image %s: %w", in.recipe.Component, err)
		}
		own.add(at, &entry{mode: 0o644, data: b})
	}
	own.add(in.recipe.Program, &entry{mode: 0o755, data: in.program})
	trees = append(trees, own)

	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	out := &assembled{name: imageName(in.recipe.Component, in.version)}
	for _, t := range trees {
		l, err := newLayer(t, in.cache)
		if err != nil {
			return nil, fmt.Errorf("assemble image %s: %w", in.recipe.Component, err)
		}
		out.diskSize += t.size()
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayerZStd})
		if err != nil {
			return nil, fmt.Errorf("assemble image %s: %w", in.recipe.Component, err)
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("assemble image %s: %w", in.recipe.Component, err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Created = "linux", in.arch, v1.Time{Time: in.created}
	if in.arch == "arm64" {
		cfg.Variant = "v8"
	}
	cfg.History = nil
	cfg.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", in.recipe.User, in.recipe.User),
		Entrypoint: []string{in.recipe.Program},
		Env:        in.recipe.Env,
		WorkingDir: "/",
		StopSignal: in.recipe.StopSignal,
		Labels: map[string]string{
			"org.opencontainers.image.title":    in.recipe.Title,
			"org.opencontainers.image.version":  in.version,
			"org.opencontainers.image.source":   in.common.Source,
			"org.opencontainers.image.licenses": in.common.Licenses,
			"org.opencontainers.image.created":  in.created.UTC().Format(time.RFC3339),
		},
	}
	if in.commit != "" {
		cfg.Config.Labels["org.opencontainers.image.revision"] = in.commit
	}
	if out.Image, err = mutate.ConfigFile(img, cfg); err != nil {
		return nil, fmt.Errorf("assemble image %s: %w", in.recipe.Component, err)
	}
	return out, nil
}

func imageName(component, version string) string {
	// A tag has no plus sign, which a version may have.
	return "localhost/quay/" + component + ":" + strings.ReplaceAll(version, "+", "_")
}

// baseTree is what every image has: the names of the users.
func baseTree(users []recipes.User) tree {
	var passwd, group strings.Builder
	t := tree{}
	for _, u := range users {
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:/sbin/nologin\n", u.Name, u.ID, u.ID, u.Name, path.Clean(u.Home))
		fmt.Fprintf(&group, "%s:x:%d:\n", u.Name, u.ID)
	}
	t.add("etc/passwd", &entry{mode: 0o644, data: []byte(passwd.String())})
	t.add("etc/group", &entry{mode: 0o644, data: []byte(group.String())})
	return t
}
