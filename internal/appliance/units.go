package appliance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/quayctl/quayctl/internal/quadlet"
)

// renderUnits renders the units, has them judged, and writes them with the profile and the manifest into the release's directory.
func (i *Install) renderUnits(ctx context.Context) error {
	version, err := quadlet.ParseVersion(i.info.Version)
	if err != nil {
		return fmt.Errorf("Podman: %w", err)
	}
	m := i.Source.Manifest()
	in := quadlet.Input{
		Components: i.Components, Images: map[string]string{}, DataDir: i.Layout.Data, Rootless: i.Layout.Rootless,
		Listen: []string{strconv.Itoa(i.Request.Port)}, Podman: version, Controllers: i.info.Controllers, SELinux: i.info.SELinux,
	}
	for _, image := range m.Images {
		in.Images[image.Component] = image.ID
	}
	units, err := quadlet.Render(in)
	if err != nil {
		return err
	}
	release := i.Layout.Release(m.Version)
	dir := filepath.Join(release, "units")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return fmt.Errorf("write release: %w", err)
	}
	if err := quadlet.WriteUnits(dir, units); err != nil {
		return err
	}
	if err := i.Host.ValidateUnits(ctx, dir, units); err != nil {
		return err
	}
	profile, err := yaml.Marshal(i.Profile)
	if err != nil {
		return fmt.Errorf("write release: %w", err)
	}
	if err := writeFile(filepath.Join(release, "profile.yaml"), profile, 0o600); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(release, "manifest.json"), i.Source.RawManifest(), 0o600); err != nil {
		return err
	}
	if err := i.Host.Sync(release); err != nil {
		return err
	}
	i.mu.Lock()
	i.units = units
	i.mu.Unlock()
	return nil
}

// link puts the units where systemd and Podman look. They are files, not links into the data directory: generators
// run before other file systems are mounted. The exchange of the quadlets is the commit point.
func (i *Install) link(ctx context.Context) error {
	l := i.Layout
	if err := i.mkdir(filepath.Dir(l.Quadlets), 0o755, Resource{}); err != nil {
		return err
	}
	if err := i.mkdir(l.Units, 0o755, Resource{}); err != nil {
		return err
	}
	if !exists(l.Quadlets) {
		if err := i.Journal.Creating(Resource{Kind: Tree, Name: l.Quadlets}); err != nil {
			return err
		}
	}
	if err := i.Journal.Creating(Resource{Kind: Tree, Name: l.staged()}); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(l.staged()), makeDir(l.staged(), 0o755)); err != nil {
		return fmt.Errorf("put units in place: %w", err)
	}
	for _, u := range i.units {
		if u.IsQuadlet() {
			if err := writeFile(filepath.Join(l.staged(), u.Name), []byte(u.String()), 0o644); err != nil {
				return err
			}
			continue
		}
		path := filepath.Join(l.Units, u.Name)
		if err := i.creating(path, false); err != nil {
			return err
		}
		if err := writeFile(path, []byte(u.String()), 0o644); err != nil {
			return err
		}
	}
	if err := replaceDir(l.staged(), l.Quadlets, renameExchange); err != nil {
		return err
	}
	return i.Systemd.Reload(ctx)
}

// enable has the units started at boot, once it is proven that they work.
func (i *Install) enable(ctx context.Context) error {
	l := i.Layout
	if err := i.mkdir(l.Wants, 0o755, Resource{}); err != nil {
		return err
	}
	link := filepath.Join(l.Wants, quadlet.TargetName)
	if err := i.creating(link, false); err != nil {
		return err
	}
	if err := symlink(filepath.Join(l.Units, quadlet.TargetName), link); err != nil {
		return err
	}
	if l.Rootless {
		on, err := i.Host.Lingering(ctx)
		if err != nil {
			return err
		}
		if !on {
			if err := i.Journal.Creating(Resource{Kind: Linger}); err != nil {
				return err
			}
			if err := i.Host.SetLinger(ctx, true); err != nil {
				return err
			}
		}
	}
	return i.Systemd.Reload(ctx)
}
