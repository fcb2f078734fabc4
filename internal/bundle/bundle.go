// Package bundle makes, verifies and reads the appliance's offline bundle: one tar file, or the directory it was
// unpacked into, with quayctl, the images in one OCI layout, the profiles, a bill of materials and a signed manifest that
// tells the SHA-256 of all of them.
//
// Open trusts nothing before it has verified everything: first the signature of the manifest, then each member.
package bundle

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest bounds, in bytes, what is read before a signature has been verified.
const maxManifest = 16 << 20

// OpenOptions says how to open a bundle.
type OpenOptions struct {
	// Keys are the public keys of which one must have signed the bundle.
	Keys []*ecdsa.PublicKey
	// Arch, as GOARCH, is the architecture the bundle must be for; empty for any.
	Arch string
	// Progress is told how many bytes of how many have been verified; may be nil.
	Progress func(done, total int64)
}

// Bundle is a bundle that has been verified.
type Bundle struct {
	path     string
	src      source
	manifest *Manifest
	raw      []byte
	images   map[string]imageParts // by component
}

// imageParts are the blobs of an image.
type imageParts struct {
	descriptor imagespec.Descriptor
	blobs      []string // member names: manifest, config, layers
}

// Open verifies a bundle: the signature over its manifest, its architecture, that exactly the members are there that
// the manifest lists, the SHA-256 of each, and that the images in the layout are those the manifest names. Every violation
// is an *Error. The caller closes the bundle.
func Open(ctx context.Context, path string, o OpenOptions) (*Bundle, error) {
	src, err := openSource(path)
	if err != nil {
		return nil, err
	}
	b := &Bundle{path: path, src: src}
	if err := b.open(ctx, o); err != nil {
		_ = src.close()
		var e *Error
		if errors.As(err, &e) {
			e.Bundle = path
		}
		return nil, err
	}
	return b, nil
}

func (b *Bundle) open(ctx context.Context, o OpenOptions) error {
	signer, err := b.readManifest(o.Keys)
	if err != nil {
		return err
	}
	if signer == nil {
		if len(o.Keys) == 0 {
			return &Error{Kind: NoKey}
		}
		return &Error{Kind: BadSignature, Member: ManifestName}
	}
	if b.manifest, err = decodeManifest(b.raw); err != nil {
		return err
	}
	if o.Arch != "" && b.manifest.Arch != o.Arch {
		return &Error{Kind: WrongArch, Found: b.manifest.Arch, Expected: o.Arch}
	}
	if err := b.checkNames(); err != nil {
		return err
	}
	if err := b.checkMembers(ctx, o.Progress); err != nil {
		return err
	}
	return b.checkImages()
}

// readManifest reads the manifest's bytes and tells which key signed them; nil if none of keys did.
func (b *Bundle) readManifest(keys []*ecdsa.PublicKey) (*ecdsa.PublicKey, error) {
	var err error
	if b.raw, err = b.readSmall(ManifestName); err != nil {
		return nil, err
	}
	signature, err := b.readSmall(SignatureName)
	if errors.Is(err, Missing) {
		return nil, &Error{Kind: Unsigned, Expected: "a member " + SignatureName}
	}
	if err != nil {
		return nil, err
	}
	return verify(keys, b.raw, signature), nil
}

func (b *Bundle) readSmall(name string) ([]byte, error) {
	r, size, err := b.src.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Kind: Missing, Member: name}
	}
	if err != nil {
		return nil, &Error{Kind: Unreadable, Member: name, Err: err}
	}
	defer r.Close()
	if size > maxManifest {
		return nil, &Error{Kind: Malformed, Member: name, Found: fmt.Sprintf("%d bytes", size), Expected: fmt.Sprintf("at most %d", maxManifest)}
	}
	data, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return nil, &Error{Kind: Unreadable, Member: name, Err: pathless(err)}
	}
	return data, nil
}

func (b *Bundle) checkNames() error {
	have := b.src.names()
	for _, m := range b.manifest.Members {
		if !slices.Contains(have, m.Name) {
			return &Error{Kind: Missing, Member: m.Name}
		}
	}
	for _, name := range have {
		if _, ok := b.manifest.Member(name); !ok && name != ManifestName && name != SignatureName {
			return &Error{Kind: Unexpected, Member: name}
		}
	}
	return nil
}

func (b *Bundle) checkMembers(ctx context.Context, progress func(done, total int64)) error {
	var done, total int64
	for _, m := range b.manifest.Members {
		total += m.Size
	}
	buf := make([]byte, 1<<20)
	for _, m := range b.manifest.Members {
		r, err := b.openMember(m)
		if err != nil {
			return err
		}
		for {
			n, err := r.Read(buf)
			done += int64(n)
			if progress != nil && n > 0 {
				progress(done, total)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				r.Close()
				return err
			}
		}
		r.Close()
	}
	return nil
}

// openMember opens a member whose reader ends with an *Error instead of io.EOF if it does not have the content
// that the manifest says, so that nothing that changes after verification goes unnoticed either.
func (b *Bundle) openMember(m Member) (io.ReadCloser, error) {
	r, size, err := b.src.open(m.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Bundle: b.path, Kind: Missing, Member: m.Name}
	}
	if err != nil {
		return nil, &Error{Bundle: b.path, Kind: Unreadable, Member: m.Name, Err: err}
	}
	if size != m.Size {
		r.Close()
		return nil, &Error{Bundle: b.path, Kind: Altered, Member: m.Name, Found: fmt.Sprintf("%d bytes", size), Expected: fmt.Sprint(m.Size)}
	}
	return &checkedReader{r: r, hash: sha256.New(), member: m, bundle: b.path}, nil
}

type checkedReader struct {
	r      io.ReadCloser
	hash   hash.Hash
	read   int64
	member Member
	bundle string
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.hash.Write(p[:n])
	c.read += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		if sum := hex.EncodeToString(c.hash.Sum(nil)); c.read != c.member.Size || sum != c.member.SHA256 {
			return n, &Error{Bundle: c.bundle, Kind: Altered, Member: c.member.Name, Found: "sha256 " + sum, Expected: c.member.SHA256}
		}
	case err != nil:
		err = &Error{Bundle: c.bundle, Kind: Unreadable, Member: c.member.Name, Err: pathless(err)}
	}
	return n, err
}

func (c *checkedReader) Close() error { return c.r.Close() }

// checkImages compares the layout with the manifest's list of images.
func (b *Bundle) checkImages() error {
	var index imagespec.Index
	if err := b.readJSON(LayoutDir+"/"+imagespec.ImageIndexFile, &index); err != nil {
		return err
	}
	b.images = map[string]imageParts{}
	for _, i := range b.manifest.Images {
		at := slices.IndexFunc(index.Manifests, func(d imagespec.Descriptor) bool {
			return d.Annotations[imagespec.AnnotationRefName] == i.Name && d.Digest.String() == i.Digest
		})
		if at < 0 {
			return &Error{Kind: Malformed, Member: LayoutDir + "/" + imagespec.ImageIndexFile, Found: "no image " + i.Name, Expected: i.Digest}
		}
		parts := imageParts{descriptor: index.Manifests[at], blobs: []string{blobName(parts(i.Digest))}}
		var m imagespec.Manifest
		if err := b.readJSON(parts.blobs[0], &m); err != nil {
			return err
		}
		if m.Config.Digest.String() != i.ID {
			return &Error{Kind: Malformed, Member: parts.blobs[0], Found: "configuration " + m.Config.Digest.String(), Expected: i.ID}
		}
		for _, d := range append([]imagespec.Descriptor{m.Config}, m.Layers...) {
			name := blobName(d.Digest.Encoded())
			if e, ok := b.manifest.Member(name); !ok || e.Size != d.Size || d.Digest.Algorithm() != digest.SHA256 {
				return &Error{Kind: Missing, Member: name, Expected: "a blob of image " + i.Name}
			}
			if !slices.Contains(parts.blobs, name) {
				parts.blobs = append(parts.blobs, name)
			}
		}
		var cfg imagespec.Image
		if err := b.readJSON(parts.blobs[1], &cfg); err != nil {
			return err
		}
		if cfg.Architecture != b.manifest.Arch {
			return &Error{Kind: WrongArch, Member: parts.blobs[1], Found: cfg.Architecture, Expected: b.manifest.Arch}
		}
		b.images[i.Component] = parts
	}
	return nil
}

func parts(d string) string { return strings.TrimPrefix(d, "sha256:") }

func digestOf(s string) digest.Digest { return digest.Digest(s) }

func (b *Bundle) readJSON(name string, v any) error {
	data, err := b.ReadMember(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return &Error{Bundle: b.path, Kind: Malformed, Member: name, Err: err}
	}
	return nil
}

// Close releases the files.
func (b *Bundle) Close() error { return b.src.close() }

// Path is the path that was opened.
func (b *Bundle) Path() string { return b.path }

// Manifest tells what the bundle is and holds. The caller does not change it.
func (b *Bundle) Manifest() *Manifest { return b.manifest }

// RawManifest gives the signed bytes of manifest.json, to be kept with an installation.
func (b *Bundle) RawManifest() []byte { return slices.Clone(b.raw) }

// Images gives the images in the order they are listed.
func (b *Bundle) Images() []Image { return b.manifest.Images }

// LayoutPath gives the path of the OCI layout, for `podman pull oci:PATH:NAME`, and false if the bundle is a tar file.
func (b *Bundle) LayoutPath() (string, bool) {
	if _, ok := b.src.(*dirSource); !ok {
		return "", false
	}
	return filepath.Join(b.path, LayoutDir), true
}

// ReadMember reads a member and checks it once more.
func (b *Bundle) ReadMember(name string) ([]byte, error) {
	m, ok := b.manifest.Member(name)
	if !ok {
		return nil, &Error{Bundle: b.path, Kind: Missing, Member: name}
	}
	r, err := b.openMember(m)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// ExtractBinary writes quayctl to w. If it returns an error, what was written must not be used.
func (b *Bundle) ExtractBinary(w io.Writer) error {
	m, ok := b.manifest.Member(BinaryName)
	if !ok {
		return &Error{Bundle: b.path, Kind: Missing, Member: BinaryName}
	}
	r, err := b.openMember(m)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("extract quayctl: %w", err)
	}
	return nil
}

// Profiles gives the names of the profiles in the bundle, without directory and ".yaml".
func (b *Bundle) Profiles() []string {
	var names []string
	for _, m := range b.manifest.Members {
		if n, ok := strings.CutPrefix(m.Name, ProfilesDir+"/"); ok && strings.HasSuffix(n, ".yaml") {
			names = append(names, strings.TrimSuffix(n, ".yaml"))
		}
	}
	return names
}
