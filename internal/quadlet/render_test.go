package quadlet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofrs/flock"
	"github.com/google/go-cmp/cmp"

	"github.com/quayctl/quayctl/profiles"
	"github.com/quayctl/quayctl/quadlets"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// hosts are the machines that units are rendered for in these tests.
var hosts = []struct {
	name        string
	rootless    bool
	podman      Version
	controllers []string
	dataDir     string
	generators  []string // Podman versions whose real generators take these units
}{
	{"root-podman-4.9", false, Version{4, 9, 4}, []string{"cpu", "memory", "pids"}, "/var/lib/quay", []string{"v4.9.5"}},
	{"root-podman-5.4", false, Version{5, 4, 2}, []string{"cpu", "memory", "pids"}, "/var/lib/quay", []string{"v5.8.0"}},
	{"root-podman-5.4-no-controllers", false, Version{5, 4, 2}, nil, "/var/lib/quay", []string{"v5.8.0"}},
	{"root-podman-4.9-selinux", false, Version{4, 9, 4}, []string{"cpu", "memory", "pids"}, "/var/lib/quay", []string{"v4.9.5", "v5.8.0"}},
	{"rootless-podman-4.9", true, Version{4, 9, 4}, nil, "/home/quay/.local/share/quay", []string{"v4.9.5", "v5.8.0"}},
	{"rootless-podman-5.4", true, Version{5, 4, 2}, []string{"memory", "pids"}, "/home/quay/.local/share/quay", []string{"v5.8.0"}},
}

func registryOnly(t *testing.T) []*Component {
	t.Helper()
	b, err := fs.ReadFile(profiles.Files, "registry-only.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseProfile("registry-only.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	p.Limits = map[string]Limits{"postgresql": {Pids: 512, Memory: "512m"}}
	components, err := Components(quadlets.Files, p)
	if err != nil {
		t.Fatal(err)
	}
	return components
}

func input(t *testing.T, host int) Input {
	h := hosts[host]
	in := Input{
		Components: registryOnly(t), Images: map[string]string{}, DataDir: h.dataDir, Rootless: h.rootless,
		Listen: []string{"8443"}, Podman: h.podman, Controllers: h.controllers,
		SELinux: strings.HasSuffix(h.name, "-selinux"),
	}
	for i, image := range Images(in.Components) {
		in.Images[image] = "sha256:" + strings.Repeat(fmt.Sprint(i+1), 64)
	}
	return in
}

// TestGolden compares the rendered units with testdata; -update rewrites it.
func TestGolden(t *testing.T) {
	for i, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			units, err := Render(input(t, i))
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join("testdata", h.name)
			if *update {
				if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), WriteUnits(dir, units)); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := ReadUnits(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(golden) != len(units) {
				t.Errorf("%d units, golden are %d", len(units), len(golden))
			}
			for _, u := range units {
				b, err := os.ReadFile(filepath.Join(dir, u.Name))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(b), u.String()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", u.Name, diff)
				}
				again, err := Parse(u.Name, u.String())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(u, again); diff != "" {
					t.Errorf("%s read back:\n%s", u.Name, diff)
				}
			}
		})
	}
}

// TestGenerators has the units taken by Podman's own generators and by systemd.
func TestGenerators(t *testing.T) {
	for i, h := range hosts {
		for _, version := range h.generators {
			t.Run(h.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				units, err := Render(input(t, i))
				if err != nil {
					t.Fatal(err)
				}
				dir := t.TempDir()
				if err := WriteUnits(dir, units); err != nil {
					t.Fatal(err)
				}
				generator := Generator(t, version)
				services, err := Generate(t.Context(), generator, dir, h.rootless)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range services {
					run, _ := s.Get("Service", "ExecStart")
					for _, want := range []string{"--read-only", "--cap-drop", "--network none", "--pull never", "--log-driver "} {
						if !strings.Contains(strings.ReplaceAll(run, "=", " "), want) {
							t.Errorf("%s: no %s in %s", s.Name, want, run)
						}
					}
					if stop, _ := s.Get("Container", "StopTimeout"); stop == "" && !strings.Contains(run, "--stop-timeout") {
						t.Errorf("%s: no stop timeout in %s", s.Name, run)
					}
					if after := strings.Join(s.GetAll("Unit", "After"), " "); version != "v4.9.5" && h.podman.AtLeast(5, 3) && strings.Contains(after, "network") {
						t.Errorf("%s waits for a network: After=%s", s.Name, after)
					}
				}
				for _, u := range units {
					if !u.IsQuadlet() {
						services = append(services, u)
					}
				}
				if _, err := exec.LookPath("systemd-analyze"); err != nil {
					t.Fatal("systemd-analyze is not installed: apt-get install systemd")
				}
				if err := verifyWithPodman(t, services, h.rootless); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// verifyWithPodman gives systemd-analyze a podman to find where the machine has none.
func verifyWithPodman(t *testing.T, services []*Unit, rootless bool) error {
	if _, err := exec.LookPath("/usr/bin/podman"); err != nil {
		truth, err := exec.LookPath("true")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range services {
			for _, section := range s.Sections {
				for i, e := range section.Entries {
					section.Entries[i].Value = strings.ReplaceAll(e.Value, "/usr/bin/podman ", truth+" ")
				}
			}
		}
	}
	return Verify(t.Context(), filepath.Join(t.TempDir(), "verify"), services, rootless)
}

// TestGenerateFindsMistakes shows that the validation sees what it is there for.
func TestGenerateFindsMistakes(t *testing.T) {
	units, err := Render(input(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	units[1].Section("Container").Add("NoSuchKey", "x")
	dir := t.TempDir()
	if err := WriteUnits(dir, units); err != nil {
		t.Fatal(err)
	}
	_, err = Generate(t.Context(), Generator(t, "v4.9.5"), dir, false)
	var invalid *ValidationError
	if !errors.As(err, &invalid) || !strings.Contains(invalid.Output, "NoSuchKey") {
		t.Errorf("error = %v", err)
	}
}

func TestRenderRefuses(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"relative data directory":       func(in *Input) { in.DataDir = "quay" },
		"data directory with a blank":   func(in *Input) { in.DataDir = "/var/my quay" },
		"data directory with %":         func(in *Input) { in.DataDir = "/var/%h" },
		"image missing":                 func(in *Input) { delete(in.Images, "edge") },
		"no address":                    func(in *Input) { in.Listen = nil },
		"unknown slot":                  func(in *Input) { in.Slot = "c" },
		"address with a line break":     func(in *Input) { in.Listen = []string{"8443\nService=x"} },
		"image given by tag, no digest": func(in *Input) { in.Images["edge"] = "localhost/quay/edge:1" },
	} {
		t.Run(name, func(t *testing.T) {
			in := input(t, 0)
			change(&in)
			if _, err := Render(in); err == nil {
				t.Error("was taken")
			}
		})
	}
}

func TestProfiles(t *testing.T) {
	b, err := fs.ReadFile(profiles.Files, "full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	full, err := ParseProfile("full.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	var unknown *UnknownComponentError
	if _, err := Components(quadlets.Files, full); !errors.As(err, &unknown) {
		t.Errorf("components of full: %v", err)
	}
	for _, text := range []string{
		"", "name: x\n", "name: x\ncomponents: [edge, edge]\n", "name: x\ncomponents: [edge]\nlimits: {edge: {memory: lots}}\n",
		"name: x\ncomponents: [edge]\nlimits: {other: {pids: 1}}\n", "name: x\ncomponents: [edge]\nsurprise: 1\n", "name: X/Y\ncomponents: [edge]\n",
	} {
		if _, err := ParseProfile("x", []byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	alone, err := ParseProfile("x", []byte("name: x\ncomponents: [registryd]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Components(quadlets.Files, alone); err == nil || !strings.Contains(err.Error(), "needs migrate") {
		t.Errorf("a component without what it needs: %v", err)
	}
}

func TestVersion(t *testing.T) {
	for s, want := range map[string]Version{"5.4.2": {5, 4, 2}, "4.9.4-rhel": {4, 9, 4}, "v5.8.0": {5, 8, 0}, "5.0": {5, 0, 0}} {
		if got, err := ParseVersion(s); err != nil || got != want {
			t.Errorf("%s = %v, %v", s, got, err)
		}
	}
	if _, err := ParseVersion("unknown"); err == nil {
		t.Error("no error for a version that is none")
	}
	if (Version{4, 9, 9}).AtLeast(5, 0) || !(Version{5, 0, 0}).AtLeast(4, 9) || !(Version{4, 9, 0}).AtLeast(4, 9) {
		t.Error("AtLeast")
	}
}

// Generator gives Podman's real quadlet generator of a version, built from its source in the module proxy and kept in the cache.
func Generator(t *testing.T, version string) string {
	t.Helper()
	cache := os.Getenv("QUAY_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(base, "quay-appliance")
	}
	dir := filepath.Join(cache, "quadlet")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "quadlet-"+version)
	lock := flock.New(bin + ".lock")
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	// A module of its own: the appliance's own requirements must not choose the versions.
	src := t.TempDir()
	major, _, _ := strings.Cut(version, ".")
	pkg := "github.com/containers/podman/" + major + "/cmd/quadlet"
	if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte("module generator\n\ngo 1.22\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"get", pkg + "@" + version}, {"build", "-o", bin + ".part", pkg}} {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "go", args...)
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -tags=remote,containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper", "CGO_ENABLED=0", "GOFIPS140=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if err := os.Rename(bin+".part", bin); err != nil {
		t.Fatal(err)
	}
	return bin
}
