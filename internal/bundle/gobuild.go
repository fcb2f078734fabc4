package bundle

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// buildTags leave out of the Podman client what needs C libraries.
const buildTags = "remote,containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper"

// goBuild builds the Go package pkg of the module in source into the file out, so that the same source gives the
// same bytes anywhere: no paths, no repository state, no C.
func goBuild(ctx context.Context, source, pkg, arch, version, commit, key, out string) error {
	// quayctl and the daemons keep the version in different places; a name that a program does not have is ignored.
	flags := []string{"-s", "-w", "-X main.version=" + version, "-X main.commit=" + commit, "-X github.com/quayctl/quayctl/internal/service.version=" + version}
	if key != "" {
		flags = append(flags, "-X github.com/quayctl/quayctl/internal/bundle.publicKey="+key)
	}
	abs, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags="+buildTags, "-ldflags="+strings.Join(flags, " "), "-o", abs, pkg)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOFIPS140=v1.0.0", "GOFLAGS=", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s for linux/%s: %w\n%s", pkg, arch, err, lastLines(stderr.String(), 20))
	}
	return nil
}
