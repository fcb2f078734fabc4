package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/renameio/v2"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	recipes "github.com/quayctl/quayctl/bundle"
)

// CreateOptions says what to make a bundle from.
type CreateOptions struct {
	Version string    // of the product
	Commit  string    // of the source; empty when unknown
	Arch    string    // GOARCH: amd64 or arm64
	Created time.Time // goes into the manifest and the images; whole seconds
	// Source is the root of the Go module; what Binaries does not name is built from it.
	Source string
	// Binaries are programs that are built already: quayctl or the component of an image, to the path of a static binary.
	Binaries map[string]string
	Profiles fs.FS // its YAML files become profiles/; nil for none
	SignKey  *ecdsa.PrivateKey
	Output   string // path of the tar to write, replaced atomically
	// CacheDir keeps downloaded packages and packed layers.
	CacheDir string
	Log      *slog.Logger // may be nil
}

var versionPattern = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

func (o *CreateOptions) check() error {
	var errs []error
	if !versionPattern.MatchString(o.Version) {
		errs = append(errs, fmt.Errorf("version %q is no semantic version such as 1.2.3", o.Version))
	}
	if !slices.Contains([]string{"amd64", "arm64"}, o.Arch) {
		errs = append(errs, fmt.Errorf("architecture %q is not supported: amd64 or arm64", o.Arch))
	}
	if o.SignKey == nil {
		errs = append(errs, errors.New("no key to sign with"))
	}
	if o.Created.IsZero() {
		errs = append(errs, errors.New("no time of creation"))
	}
	return errors.Join(errs...)
}

// FileName is what a bundle is called.
func FileName(version, arch string) string {
	return fmt.Sprintf("%s-%s-linux-%s.tar", Product, version, arch)
}

// member is a member of the bundle with its content.
type member struct {
	Member
	data []byte
}

func newMember(name string, data []byte, executable bool) member {
	sum := sha256.Sum256(data)
	return member{Member{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Executable: executable}, data}
}

// Create builds everything that goes into a bundle and writes it, signed, to o.Output. The same options, source, Go and
// Debian packages give the same bytes.
func Create(ctx context.Context, o CreateOptions) (*Manifest, error) {
	recipe, err := recipes.Load()
	if err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	return create(ctx, o, recipe)
}

func create(ctx context.Context, o CreateOptions, recipe *recipes.Recipe) (*Manifest, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Created = o.Created.UTC().Truncate(time.Second)
	m := &Manifest{
		Schema: SchemaVersion, Product: Product, Version: o.Version, OS: "linux", Arch: o.Arch, Created: o.Created, Commit: o.Commit,
		Requires:     Requirements{Podman: recipe.Podman},
		Database:     Database(recipe.Database),
		UpgradesFrom: append([]string{}, recipe.UpgradesFrom...),
		Packages:     []Package{},
	}
	programs, err := collectPrograms(ctx, o, recipe)
	if err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	if m.Tools, err = buildTools(ctx, programs[BinaryName], recipe); err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	bill := newSBOM(o, recipe)
	if err := bill.addProgram("", programs[BinaryName]); err != nil {
		return nil, fmt.Errorf("create bundle: describe quayctl: %w", err)
	}

	layout := newLayout()
	for _, r := range recipe.Images {
		in := imageInput{recipe: r, common: recipe, version: o.Version, commit: o.Commit, arch: o.Arch, created: o.Created, program: programs[r.Component]}
		if o.CacheDir != "" {
			in.cache = layerCache(filepath.Join(o.CacheDir, "layers"))
		}
		if r.Debian != nil {
			o.Log.Info("collect Debian packages", "image", r.Component)
			file, err := fetchDebian(ctx, r.Debian, o.Arch, filepath.Join(o.CacheDir, "debian"), logWriter{o.Log})
			if err != nil {
				return nil, fmt.Errorf("create bundle: image %s: %w", r.Component, err)
			}
			if in.debian, err = selectDebian(r.Debian, file); err != nil {
				return nil, fmt.Errorf("create bundle: image %s: %w", r.Component, err)
			}
			for _, p := range in.debian.packages {
				m.Packages = append(m.Packages, Package{Component: r.Component, Name: p.name, Version: p.version, Arch: p.arch, SHA256: p.sha256})
			}
		}
		o.Log.Info("assemble image", "image", r.Component)
		img, err := assemble(in)
		if err != nil {
			return nil, fmt.Errorf("create bundle: %w", err)
		}
		described, err := layout.add(r.Component, img)
		if err != nil {
			return nil, fmt.Errorf("create bundle: image %s: %w", r.Component, err)
		}
		m.Images = append(m.Images, described)
		if err := bill.addImage(described, in); err != nil {
			return nil, fmt.Errorf("create bundle: describe image %s: %w", r.Component, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("create bundle: %w", err)
		}
	}

	sbom, err := bill.encode()
	if err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	members := []member{newMember(SBOMName, sbom, false)}
	if o.Profiles != nil {
		profiles, err := profileMembers(o.Profiles)
		if err != nil {
			return nil, fmt.Errorf("create bundle: %w", err)
		}
		members = append(members, profiles...)
	}
	images, err := layout.members()
	if err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	members = append(members, images...)
	members = append(members, newMember(BinaryName, programs[BinaryName], true))
	for _, e := range members {
		m.Members = append(m.Members, e.Member)
	}
	manifest, err := m.encode()
	if err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	signature, err := sign(o.SignKey, manifest)
	if err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	// First what all else is checked against.
	members = append([]member{newMember(ManifestName, manifest, false), newMember(SignatureName, signature, false)}, members...)
	if err := writeBundle(o.Output, members, o.Created); err != nil {
		return nil, fmt.Errorf("create bundle: %w", err)
	}
	return m, nil
}

// collectPrograms gives the binaries of quayctl and of all images by component.
func collectPrograms(ctx context.Context, o CreateOptions, recipe *recipes.Recipe) (map[string][]byte, error) {
	packages := map[string]string{BinaryName: "./cmd/quayctl"}
	for _, r := range recipe.Images {
		packages[r.Component] = r.Package
	}
	for name := range o.Binaries {
		if packages[name] == "" {
			return nil, fmt.Errorf("binary %s is not part of a bundle: %s", name, strings.Join(slices.Sorted(maps.Keys(packages)), ", "))
		}
	}
	tmp, err := os.MkdirTemp("", "quay-bundle-")
	if err != nil {
		return nil, fmt.Errorf("make build directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	key, err := linkerKey(&o.SignKey.PublicKey)
	if err != nil {
		return nil, err
	}
	programs := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		file := o.Binaries[name]
		if file == "" {
			if o.Source == "" {
				return nil, fmt.Errorf("no binary and no source for %s", name)
			}
			o.Log.Info("build", "program", name)
			file = filepath.Join(tmp, name)
			linked := ""
			if name == BinaryName {
				linked = key
			}
			if err := goBuild(ctx, o.Source, packages[name], o.Arch, o.Version, o.Commit, linked, file); err != nil {
				return nil, err
			}
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read program %s: %w", name, err)
		}
		if err := checkProgram(b, o.Arch); err != nil {
			return nil, fmt.Errorf("program %s (%s): %w", name, file, err)
		}
		programs[name] = b
	}
	return programs, nil
}

func profileMembers(profiles fs.FS) ([]member, error) {
	var out []member
	err := fs.WalkDir(profiles, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".yaml" {
			return err
		}
		b, err := fs.ReadFile(profiles, name)
		if err != nil {
			return err
		}
		out = append(out, newMember(path.Join(ProfilesDir, name), b, false))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read profiles: %w", err)
	}
	return out, nil
}

// layout collects an OCI image layout.
type layoutBuilder struct {
	index imagespec.Index
	blobs map[string][]byte // by hexadecimal SHA-256
}

func newLayout() *layoutBuilder {
	l := &layoutBuilder{blobs: map[string][]byte{}}
	l.index.SchemaVersion = 2
	l.index.MediaType = imagespec.MediaTypeImageIndex
	return l
}

// add puts an image into the layout; blobs that are there already are shared.
func (l *layoutBuilder) add(component string, img *assembled) (Image, error) {
	out := Image{Component: component, Name: img.name, DiskSize: img.diskSize}
	manifest, err := img.RawManifest()
	if err != nil {
		return out, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return out, err
	}
	layers, err := img.Layers()
	if err != nil {
		return out, err
	}
	put := func(b []byte) v1.Hash {
		h := sha(b)
		l.blobs[h.Hex] = b
		out.Size += int64(len(b))
		return h
	}
	for _, layer := range layers {
		rc, err := layer.Compressed()
		if err != nil {
			return out, err
		}
		b, err := io.ReadAll(rc)
		if err != nil {
			return out, err
		}
		put(b)
	}
	out.ID = put(config).String()
	digest := put(manifest)
	out.Digest = digest.String()
	cfg, err := img.ConfigFile()
	if err != nil {
		return out, err
	}
	l.index.Manifests = append(l.index.Manifests, descriptor(out, int64(len(manifest)), cfg))
	return out, nil
}

func descriptor(i Image, size int64, cfg *v1.ConfigFile) imagespec.Descriptor {
	d := imagespec.Descriptor{
		MediaType: string(types.OCIManifestSchema1), Size: size,
		Annotations: map[string]string{imagespec.AnnotationRefName: i.Name},
		Platform:    &imagespec.Platform{OS: cfg.OS, Architecture: cfg.Architecture, Variant: cfg.Variant},
	}
	d.Digest = digestOf(i.Digest)
	return d
}

func (l *layoutBuilder) members() ([]member, error) {
	index, err := json.Marshal(l.index)
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	out := []member{
		newMember(LayoutDir+"/"+imagespec.ImageLayoutFile, []byte(layoutFile), false),
		newMember(LayoutDir+"/"+imagespec.ImageIndexFile, index, false),
	}
	for _, h := range slices.Sorted(maps.Keys(l.blobs)) {
		out = append(out, newMember(blobName(h), l.blobs[h], false))
	}
	return out, nil
}

const layoutFile = `{"imageLayoutVersion":"` + imagespec.ImageLayoutVersion + `"}`

func blobName(hex string) string { return LayoutDir + "/blobs/sha256/" + hex }

// writeBundle writes the tar: no directory around the members, because it is unpacked into one of the user's choice.
func writeBundle(file string, members []member, mtime time.Time) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	f, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	defer func() { _ = f.Cleanup() }()
	tw := tar.NewWriter(f)
	for _, e := range members {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.Name, Size: e.Size, Mode: 0o644, ModTime: mtime, Format: tar.FormatUSTAR}
		if e.Executable {
			h.Mode = 0o755
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", e.Name, err)
		}
		if _, err := tw.Write(e.data); err != nil {
			return fmt.Errorf("write %s: %w", e.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// buildTools tells what made the bundle: the compiler of quayctl, the packer of the layers, the collector of packages.
func buildTools(ctx context.Context, program []byte, recipe *recipes.Recipe) ([]Tool, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("read build information of quayctl: %w", err)
	}
	tools := []Tool{{"go", strings.TrimPrefix(info.GoVersion, "go")}, {"github.com/klauspost/compress", packerVersion()}}
	if slices.ContainsFunc(recipe.Images, func(i recipes.Image) bool { return i.Debian != nil }) {
		out, err := exec.CommandContext(ctx, "mmdebstrap", "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("ask mmdebstrap for its version: %w: install it with apt-get install mmdebstrap", err)
		}
		tools = append(tools, Tool{"mmdebstrap", strings.TrimPrefix(strings.TrimSpace(string(out)), "mmdebstrap ")})
	}
	return tools, nil
}

// logWriter makes log records of what a program prints.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		w.log.Debug(strings.TrimSpace(line))
	}
	return len(p), nil
}
