package appliance

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/quadlet"
)

const podmanSocket = "podman.socket"

// podman starts Podman's service, asks it about the machine, and clears away images of which it is not recorded
// that they reached the disk: after a power cut they may be listed and empty.
func (i *Install) podman(ctx context.Context) error {
	states, err := i.Systemd.Units(ctx, podmanSocket)
	if err != nil {
		return err
	}
	if !states[0].Running() {
		if err := i.Journal.Creating(Resource{Kind: PodmanSocket, Name: podmanSocket}); err != nil {
			return err
		}
		if err := i.Systemd.Start(ctx, podmanSocket); err != nil {
			return err
		}
	}
	info, err := i.Podman.Info(ctx)
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.info = info
	i.mu.Unlock()
	loaded := LoadedImages(i.Journal.Records())
	for _, c := range quadlet.Images(i.Components) {
		image, ok := i.Source.Manifest().Image(c)
		if !ok || loaded[image.ID] {
			continue
		}
		found, err := i.Podman.Image(ctx, image.ID)
		if err != nil {
			return err
		}
		if found != nil {
			if err := i.Podman.RemoveImage(ctx, image.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// restPodman stops Podman's service if it was not running before.
func (i *Install) restPodman(ctx context.Context) error {
	r := Resource{Kind: PodmanSocket, Name: podmanSocket}
	if !slices.Contains(Inventory(i.Journal.Records()), r) {
		return nil
	}
	if err := i.Systemd.Stop(ctx, podmanSocket); err != nil {
		return err
	}
	return i.Journal.Append(Record{Event: Removed, Resource: &r})
}

const databaseComponent = "postgresql"

func (i *Install) databaseImage(ctx context.Context) error { return i.load(ctx, databaseComponent) }

func (i *Install) images(ctx context.Context) error {
	var components []string
	for _, c := range quadlet.Images(i.Components) {
		if c != databaseComponent {
			components = append(components, c)
		}
	}
	return i.load(ctx, components...)
}

// load loads images at the same time and records them once they are on disk.
func (i *Install) load(ctx context.Context, components ...string) error {
	loaded := LoadedImages(i.Journal.Records())
	var ids []string
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range components {
		image, ok := i.Source.Manifest().Image(c)
		if !ok {
			return fmt.Errorf("the bundle has no image of %s", c)
		}
		if loaded[image.ID] {
			found, err := i.Podman.Image(ctx, image.ID)
			if err != nil {
				return err
			}
			if found != nil {
				continue
			}
		}
		if err := i.Journal.Creating(Resource{Kind: Image, Name: image.ID}); err != nil {
			return err
		}
		ids = append(ids, image.ID)
		group.Go(func() error { return i.loadOne(ctx, c, image) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if len(ids) == 0 {
		return nil
	}
	if err := i.Host.Sync(i.info.GraphRoot); err != nil {
		return err
	}
	for _, id := range ids {
		if err := i.Journal.Append(Record{Event: Loaded, Image: id}); err != nil {
			return err
		}
	}
	return nil
}

func (i *Install) loadOne(ctx context.Context, component string, image bundle.Image) error {
	tar, err := i.Source.ImageTar(component)
	if err != nil {
		return err
	}
	defer tar.Close()
	var r io.Reader = tar
	if i.Progress != nil {
		r = io.TeeReader(tar, counter(func(n int) { i.Progress(component, n) }))
	}
	if err := i.Podman.Load(ctx, r); err != nil {
		return fmt.Errorf("load image of %s: %w", component, err)
	}
	found, err := i.Podman.Image(ctx, image.ID)
	if err != nil {
		return err
	}
	if found == nil {
		return fmt.Errorf("load image of %s: Podman took it, but has no image with the ID %s", component, image.ID)
	}
	if len(found.Digests) > 0 && !slices.Contains(found.Digests, image.Digest) {
		return fmt.Errorf("load image of %s: its digest is %s, the bundle's is %s", component, strings.Join(found.Digests, ", "), image.Digest)
	}
	return nil
}

type counter func(int)

func (c counter) Write(p []byte) (int, error) { c(len(p)); return len(p), nil }
