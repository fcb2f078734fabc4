package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/quayctl/quayctl/"

// forbidden says which rooms a room must never reach, directly or through others. A prefix matches whole path elements.
var forbidden = []struct{ room, mustNotReach, why string }{
	{"internal/quayctl", "internal/registry internal/edge internal/api internal/jobs", "the installer drives the daemons' images, it contains no daemon"},
	{"cmd/quayctl", "internal/registry internal/edge internal/api internal/jobs", "the installer drives the daemons' images, it contains no daemon"},
	{"internal/appliance", "internal/quayctl internal/host", "the installer's domain knows neither the CLI nor Podman; it declares the interfaces it needs"},
	{"internal/registry", "internal/edge internal/api internal/jobs internal/quayctl internal/appliance internal/host internal/bundle", "daemons do not import each other"},
	{"internal/edge", "internal/registry internal/api internal/jobs internal/quayctl internal/appliance internal/host internal/metadata internal/bundle", "what faces the internet carries no SQL and no other daemon"},
	{"internal/jobs", "internal/registry internal/edge internal/api internal/quayctl internal/appliance internal/host internal/bundle", "daemons do not import each other"},
	{"internal/metadata", "internal/registry internal/edge internal/jobs internal/auth internal/storage internal/service internal/quayctl", "imports point downwards"},
	{"internal/storage", "internal/registry internal/edge internal/jobs internal/auth internal/metadata internal/quayctl", "imports point downwards"},
	{"internal/auth", "internal/registry internal/edge internal/jobs internal/quayctl", "imports point downwards"},
	{"internal/service", "internal/registry internal/edge internal/jobs internal/auth internal/metadata internal/storage internal/quayctl", "imports point downwards"},
	{"internal/config", "internal/registry internal/edge internal/jobs internal/auth internal/metadata internal/storage internal/service internal/quayctl", "imports point downwards"},
	{"internal/quadlet", "internal/quayctl internal/host internal/appliance", "imports point downwards"},
	{"internal/bundle", "internal/quayctl internal/host internal/appliance", "imports point downwards"},
	{"internal/clock", "internal", "everything stands on it"},
}

// foreign says which modules must stay out of which room.
var foreign = []struct{ room, module, why string }{
	{"cmd/edge", "github.com/jackc/pgx", "the exposed process has no database driver"},
	{"cmd/edge", "github.com/containers/podman", "the installer's libraries stay with the installer"},
	{"cmd/registryd", "github.com/containers/podman", "the installer's libraries stay with the installer"},
	{"cmd/workers", "github.com/containers/podman", "the installer's libraries stay with the installer"},
	{"internal/appliance", "github.com/containers/podman", "the domain is free of Podman"},
	{"internal/appliance", "github.com/spf13/cobra", "the domain is free of the CLI"},
	{"internal/quadlet", "github.com/containers/podman", "units are data"},
}

// TestImports holds every package to the layering that ARCHITECTURE.md promises.
func TestImports(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Deps", "./...", "../cmd/...")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, errs.String())
	}
	type pkg struct {
		ImportPath string
		Deps       []string
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		path, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			continue
		}
		for _, f := range forbidden {
			if !within(path, f.room) {
				continue
			}
			seen[f.room] = true
			for _, dep := range p.Deps {
				dep, ours := strings.CutPrefix(dep, module)
				for _, bad := range strings.Fields(f.mustNotReach) {
					if ours && within(dep, bad) && !within(dep, f.room) {
						t.Errorf("%s reaches %s: %s", path, dep, f.why)
					}
				}
			}
		}
		for _, f := range foreign {
			if !within(path, f.room) {
				continue
			}
			for _, dep := range p.Deps {
				if within(dep, f.module) {
					t.Errorf("%s reaches %s: %s", path, dep, f.why)
				}
			}
		}
	}
	if !seen["internal/clock"] {
		t.Error("go list found none of the rooms: the test would pass on nothing")
	}
}

func within(path, room string) bool { return path == room || strings.HasPrefix(path, room+"/") }
