package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/renameio/v2"
)

// layerCache is a directory of packed layers; empty for none.
type layerCache string

// get gives the layer packed from content with that digest, and packs it if it is not there.
func (c layerCache) get(content v1.Hash, pack func() ([]byte, error)) ([]byte, error) {
	if c == "" {
		return pack()
	}
	// Another version of the packer may pack differently, and the digest of an image must not depend on the cache.
	name := filepath.Join(string(c), fmt.Sprintf("layer-%s-%s.zst", packerVersion(), content.Hex))
	if b, err := os.ReadFile(name); err == nil {
		return b, nil
	}
	b, err := pack()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(string(c), 0o755); err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	if err := renameio.WriteFile(name, b, 0o644); err != nil {
		return nil, fmt.Errorf("write cache: %w", err)
	}
	return b, nil
}

func packerVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/klauspost/compress" {
				return d.Version
			}
		}
	}
	return "unknown"
}
