package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containers/podman/v5/pkg/bindings"
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

// request asks Podman's API, libpod/endpoint with values in its %s, and decodes its JSON answer into result.
//
// The bindings' typed calls are not used: their packages bring Podman's own storage and build code, which doubled the size of quayctl.
// An answer of 4xx or 5xx is an *errorhandling.ErrorModel.
func (p *Podman) request(ctx context.Context, method, endpoint string, query url.Values, body io.Reader, result any, values ...string) error {
	p.once.Do(func() {
		p.conn, p.err = bindings.NewConnection(context.WithoutCancel(ctx), "unix://"+p.socket)
	})
	if p.err != nil {
		return fmt.Errorf("reach Podman at %s: %w", p.socket, p.err)
	}
	client, err := bindings.GetClient(p.conn)
	if err != nil {
		return err
	}
	header := http.Header{}
	if body != nil {
		header.Set("Content-Type", "application/x-tar")
	}
	resp, err := client.DoRequest(ctx, body, method, endpoint, query, header, values...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return resp.Process(result)
}

// Info asks Podman about itself.
func (p *Podman) Info(ctx context.Context) (appliance.PodmanInfo, error) {
	var info struct {
		Version struct{ Version string }
		Store   struct{ GraphRoot string }
		Host    struct {
			CgroupControllers []string
			Security          struct{ SELinuxEnabled bool }
		}
	}
	if err := p.request(ctx, http.MethodGet, "/info", nil, nil, &info); err != nil {
		return appliance.PodmanInfo{}, fmt.Errorf("ask Podman about the machine: %w", err)
	}
	return appliance.PodmanInfo{
		Version: info.Version.Version, GraphRoot: info.Store.GraphRoot,
		Controllers: info.Host.CgroupControllers, SELinux: info.Host.Security.SELinuxEnabled,
	}, nil
}

// Image looks for an image.
func (p *Podman) Image(ctx context.Context, id string) (*appliance.PodmanImage, error) {
	id = strings.TrimPrefix(id, "sha256:")
	var i struct {
		ID                    string `json:"Id"`
		RepoTags, RepoDigests []string
	}
	err := p.request(ctx, http.MethodGet, "/images/%s/json", nil, nil, &i, id)
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
	var report struct{ Names []string }
	return p.request(ctx, http.MethodPost, "/images/load", nil, archive, &report)
}

// RemoveImage removes an image by force, which also removes what a power cut left half of.
func (p *Podman) RemoveImage(ctx context.Context, id string) error {
	id = strings.TrimPrefix(id, "sha256:")
	var report struct{ Errors []string }
	err := p.request(ctx, http.MethodDelete, "/images/remove", url.Values{"images": {id}, "force": {"true"}, "ignore": {"true"}}, nil, &report)
	if err == nil && len(report.Errors) > 0 {
		err = errors.New(strings.Join(report.Errors, "; "))
	}
	if err != nil && !notFound(err) {
		return fmt.Errorf("remove image %.12s: %w", id, err)
	}
	return nil
}

func notFound(err error) bool {
	var e *errorhandling.ErrorModel
	return errors.As(err, &e) && e.ResponseCode == http.StatusNotFound
}
