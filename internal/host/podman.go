package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/bindings/images"
	"github.com/containers/podman/v5/pkg/bindings/system"
	"github.com/containers/podman/v5/pkg/errorhandling"

	"github.com/quayctl/quayctl/internal/appliance"
)

// Podman speaks to Podman's API at its socket, which systemd serves; the first call connects. It implements appliance.Podman.
type Podman struct {
	socket string
	once   sync.Once
	conn   context.Context
	err    error
}

// NewPodman returns Podman of the machine or of the user whose runtime directory is given.
func NewPodman(rootless bool, runtimeDir string) *Podman {
	if rootless {
		return &Podman{socket: filepath.Join(runtimeDir, "podman/podman.sock")}
	}
	return &Podman{socket: "/run/podman/podman.sock"}
}

// with gives ctx with the connection that the bindings look for in a context.
func (p *Podman) with(ctx context.Context) (context.Context, error) {
	p.once.Do(func() {
		p.conn, p.err = bindings.NewConnection(context.WithoutCancel(ctx), "unix://"+p.socket)
	})
	if p.err != nil {
		return nil, fmt.Errorf("reach Podman at %s: %w", p.socket, p.err)
	}
	return carrier{ctx, p.conn}, nil
}

// carrier takes its values from the connection's context and the rest from the caller's.
type carrier struct {
	context.Context
	values context.Context
}

// Value looks in both.
func (c carrier) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// Info asks Podman about itself.
func (p *Podman) Info(ctx context.Context) (appliance.PodmanInfo, error) {
	ctx, err := p.with(ctx)
	if err != nil {
		return appliance.PodmanInfo{}, err
	}
	info, err := system.Info(ctx, nil)
	if err != nil {
		return appliance.PodmanInfo{}, fmt.Errorf("ask Podman about the machine: %w", err)
	}
	return appliance.PodmanInfo{
		Version: info.Version.Version, GraphRoot: info.Store.GraphRoot,
		Controllers: info.Host.CgroupControllers, SELinux: info.Host.Security.SELinuxEnabled,
	}, nil
}

// Image looks for an image.
func (p *Podman) Image(ctx context.Context, id string) (*appliance.PodmanImage, error) {
	ctx, err := p.with(ctx)
	if err != nil {
		return nil, err
	}
	id = strings.TrimPrefix(id, "sha256:")
	i, err := images.GetImage(ctx, id, nil)
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for image %.12s: %w", id, err)
	}
	if i.ID != id {
		return nil, nil
	}
	image := &appliance.PodmanImage{ID: i.ID, Names: i.RepoTags}
	for _, d := range i.RepoDigests {
		if _, digest, ok := strings.Cut(d, "@"); ok {
			image.Digests = append(image.Digests, digest)
		}
	}
	return image, nil
}

// Load hands an archive to Podman.
func (p *Podman) Load(ctx context.Context, archive io.Reader) error {
	ctx, err := p.with(ctx)
	if err != nil {
		return err
	}
	_, err = images.Load(ctx, archive)
	return err
}

// RemoveImage removes an image by force, which also removes what a power cut left half of.
func (p *Podman) RemoveImage(ctx context.Context, id string) error {
	ctx, err := p.with(ctx)
	if err != nil {
		return err
	}
	id = strings.TrimPrefix(id, "sha256:")
	_, errs := images.Remove(ctx, []string{id}, new(images.RemoveOptions).WithForce(true).WithIgnore(true))
	for _, err := range errs {
		if err != nil && !notFound(err) {
			return fmt.Errorf("remove image %.12s: %w", id, err)
		}
	}
	return nil
}

func notFound(err error) bool {
	var e *errorhandling.ErrorModel
	return errors.As(err, &e) && e.ResponseCode == http.StatusNotFound
}
