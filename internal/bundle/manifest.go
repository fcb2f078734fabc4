package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// SchemaVersion is the version of the manifest's shape that this code writes and the newest that it reads.
const SchemaVersion = 1

// Product is the manifest's "product".
const Product = "quay-appliance"

// The members every bundle has at its top.
const (
	ManifestName  = "manifest.json"
	SignatureName = "manifest.json.sig"
	SBOMName      = "sbom.spdx.json"
	BinaryName    = "quayctl"
	ProfilesDir   = "profiles"
	LayoutDir     = "oci"
)

// Manifest is manifest.json: what the bundle is, what it needs and, by their SHA-256, all its other
// members but the signature, which is over this file.
type Manifest struct {
	Schema       int          `json:"schema"`
	Product      string       `json:"product"`
	Version      string       `json:"version"`
	OS           string       `json:"os"`
	Arch         string       `json:"arch"`    // as GOARCH
	Created      time.Time    `json:"created"` // of the source, so that the same source gives the same bundle
	Commit       string       `json:"commit,omitempty"`
	Requires     Requirements `json:"requires"`
	Database     Database     `json:"database"`
	UpgradesFrom []string     `json:"upgrades_from"`
	Images       []Image      `json:"images"`
	Members      []Member     `json:"members"` // in the order of the tar
	Packages     []Package    `json:"packages"`
	Tools        []Tool       `json:"tools"` // that the bundle was built with
}

// Requirements is what the machine must have.
type Requirements struct {
	Podman string `json:"podman"` // oldest version
}

// Database is what the release makes of the database.
type Database struct {
	PostgreSQL int    `json:"postgresql"` // major version in the bundle
	Oldest     string `json:"oldest"`     // alembic revision of the oldest schema that is taken over
	Newest     string `json:"newest"`     // alembic revision after migration
}

// Image is one image of the OCI layout.
type Image struct {
	Component string `json:"component"` // registryd, edge, workers, postgresql
	Name      string `json:"name"`      // localhost/quay/registryd:1.0.0
	Digest    string `json:"digest"`    // of its manifest, sha256:…
	ID        string `json:"id"`        // of its configuration, sha256:…, what Podman calls the image's ID
	Size      int64  `json:"size"`      // bytes of its blobs in the bundle
	DiskSize  int64  `json:"disk_size"` // bytes when unpacked
}

// Member is one file of the bundle.
type Member struct {
	Name       string `json:"name"` // slashes, relative
	Size       int64  `json:"size"`
	SHA256     string `json:"sha256"` // 64 hexadecimal digits
	Executable bool   `json:"executable,omitempty"`
}

// Package is a Debian package that an image has files of.
type Package struct {
	Component string `json:"component"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	Arch      string `json:"arch"`
	SHA256    string `json:"sha256"` // of the .deb
}

// Tool is a program that the bundle was built with.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Image gives the image of a component.
func (m *Manifest) Image(component string) (Image, bool) {
	for _, i := range m.Images {
		if i.Component == component {
			return i, true
		}
	}
	return Image{}, false
}

// Member gives a member by its name.
func (m *Manifest) Member(name string) (Member, bool) {
	for _, e := range m.Members {
		if e.Name == name {
			return e, true
		}
	}
	return Member{}, false
}

// encode gives the bytes that are signed.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b.Bytes(), nil
}

// decodeManifest reads and checks a manifest whose signature has been verified or will be told of.
func decodeManifest(b []byte) (*Manifest, error) {
	// Only the version first: another version may have another shape.
	var head struct {
		Schema  int    `json:"schema"`
		Product string `json:"product"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, &Error{Kind: Malformed, Member: ManifestName, Err: err}
	}
	if head.Product != Product {
		return nil, &Error{Kind: Malformed, Member: ManifestName, Found: fmt.Sprintf("product %q", head.Product), Expected: fmt.Sprintf("product %q", Product)}
	}
	if head.Schema < 1 || head.Schema > SchemaVersion {
		return nil, &Error{Kind: UnknownSchema, Member: ManifestName, Found: fmt.Sprint(head.Schema), Expected: fmt.Sprintf("1 to %d", SchemaVersion)}
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, &Error{Kind: Malformed, Member: ManifestName, Err: err}
	}
	if !versionPattern.MatchString(m.Version) { // it becomes the name of a directory
		return nil, &Error{Kind: Malformed, Member: ManifestName, Found: fmt.Sprintf("version %q", m.Version), Expected: "a semantic version"}
	}
	seen := map[string]bool{ManifestName: true, SignatureName: true}
	for _, e := range m.Members {
		if !allowedName(e.Name) || seen[e.Name] {
			return nil, &Error{Kind: Malformed, Member: ManifestName, Found: fmt.Sprintf("member name %q", e.Name), Expected: "each member once, by a relative path"}
		}
		if len(e.SHA256) != 64 || strings.Trim(e.SHA256, "0123456789abcdef") != "" || e.Size < 0 {
			return nil, &Error{Kind: Malformed, Member: ManifestName, Found: fmt.Sprintf("size %d, sha256 %q of %s", e.Size, e.SHA256, e.Name), Expected: "a size and 64 hexadecimal digits"}
		}
		seen[e.Name] = true
	}
	for _, name := range []string{BinaryName, SBOMName, LayoutDir + "/index.json", LayoutDir + "/oci-layout"} {
		if !seen[name] {
			return nil, &Error{Kind: Malformed, Member: ManifestName, Found: "no member " + name, Expected: "a member " + name}
		}
	}
	return m, nil
}

// allowedName tells whether a bundle may have a member of that name.
func allowedName(name string) bool {
	if !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00\n") {
		return false
	}
	return name == BinaryName || name == SBOMName || strings.HasPrefix(name, ProfilesDir+"/") || strings.HasPrefix(name, LayoutDir+"/")
}
