package host

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/quayctl/quayctl/internal/appliance"
)

// FrontDoor is the registry as clients see it. It implements appliance.FrontDoor.
type FrontDoor struct{}

// proofLimit bounds a proof.
const proofLimit = 60 * time.Second

// transport reaches the registry on this machine and verifies it under its name with the roots, and the machine's own besides.
func transport(p appliance.Proof) (*http.Transport, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(p.Roots) {
		return nil, errors.New("there is no certificate to verify with")
	}
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		// The name need not resolve here to reach the registry: it is this machine.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			var errs []error
			for _, host := range []string{"127.0.0.1", "::1"} {
				c, err := d.DialContext(ctx, network, net.JoinHostPort(host, strconv.Itoa(p.Port)))
				if err == nil {
					return c, nil
				}
				errs = append(errs, err)
			}
			return nil, errors.Join(errs...)
		},
		ForceAttemptHTTP2: true,
	}, nil
}

// Prove pushes and pulls.
func (FrontDoor) Prove(ctx context.Context, p appliance.Proof) error {
	ctx, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	t, err := transport(p)
	if err != nil {
		return err
	}
	defer t.CloseIdleConnections()
	// Here the port is always written: a reference without one and without a dot would not be a host.
	server := net.JoinHostPort(p.Hostname, strconv.Itoa(p.Port))
	if p.Password == "" {
		return answers(ctx, t, server)
	}
	ref, err := name.NewTag(server+"/"+p.Repository+":probe", name.StrictValidation)
	if err != nil {
		return fmt.Errorf("name of the probe: %w", err)
	}
	content := make([]byte, 4096)
	if _, err := rand.Read(content); err != nil {
		return err
	}
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		static.NewLayer(content, types.OCIUncompressedLayer))
	if err != nil {
		return fmt.Errorf("make probe image: %w", err)
	}
	digest, err := image.Digest()
	if err != nil {
		return fmt.Errorf("make probe image: %w", err)
	}
	options := []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(t), remote.WithRetryStatusCodes(),
		remote.WithAuth(&authn.Basic{Username: p.User, Password: p.Password}), remote.WithUserAgent("quayctl"),
	}
	if err := remote.Write(ref, image, options...); err != nil {
		return fmt.Errorf("push to %s: %w", ref, err)
	}
	back, err := remote.Image(ref, options...)
	if err != nil {
		return fmt.Errorf("pull from %s: %w", ref, err)
	}
	return same(ref, back, digest)
}

// same reads the image and all its layers, whose digests the library verifies.
func same(ref name.Tag, image v1.Image, digest v1.Hash) error {
	got, err := image.Digest()
	if err != nil {
		return fmt.Errorf("pull from %s: %w", ref, err)
	}
	if got != digest {
		return fmt.Errorf("pull from %s: it is %s, pushed was %s", ref, got, digest)
	}
	layers, err := image.Layers()
	if err != nil {
		return fmt.Errorf("pull from %s: %w", ref, err)
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			return fmt.Errorf("pull layer from %s: %w", ref, err)
		}
		_, err = io.Copy(io.Discard, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("pull layer from %s: %w", ref, err)
		}
	}
	return nil
}

// answers asks for /v2/ without credentials.
func answers(ctx context.Context, t *http.Transport, server string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return fmt.Errorf("ask the front door: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the front door: GET /v2/ answers %s", resp.Status)
	}
	return nil
}
