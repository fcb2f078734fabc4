package bundle

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	recipes "github.com/quayctl/quayctl/bundle"
)

// The parts of SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/) that are needed here, in its JSON form.
type spdxDocument struct {
	ID            string             `json:"SPDXID"`
	Version       string             `json:"spdxVersion"`
	DataLicense   string             `json:"dataLicense"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	CreationInfo  spdxCreation       `json:"creationInfo"`
	Describes     []string           `json:"documentDescribes"`
	Packages      []*spdxPackage     `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
	Licenses      []spdxLicense      `json:"hasExtractedLicensingInfos,omitempty"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Version       string         `json:"versionInfo,omitempty"`
	Supplier      string         `json:"supplier,omitempty"`
	Download      string         `json:"downloadLocation"`
	Homepage      string         `json:"homepage,omitempty"`
	FilesAnalyzed bool           `json:"filesAnalyzed"`
	Checksums     []spdxChecksum `json:"checksums,omitempty"`
	Source        string         `json:"sourceInfo,omitempty"`
	Concluded     string         `json:"licenseConcluded"`
	Declared      string         `json:"licenseDeclared"`
	Copyright     string         `json:"copyrightText"`
	Purpose       string         `json:"primaryPackagePurpose,omitempty"`
	Refs          []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	Of   string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

type spdxLicense struct {
	ID   string `json:"licenseId"`
	Name string `json:"name"`
	Text string `json:"extractedText"`
}

const (
	noAssertion = "NOASSERTION"
	documentID  = "SPDXRef-DOCUMENT"
	productID   = "SPDXRef-appliance"
)

// sbom collects what a bundle contains: the appliance, its programs and images, the Go modules linked into the
// programs, and the Debian packages the images have files of.
type sbom struct {
	doc      spdxDocument
	licenses string // of our own code
	seen     map[string]*spdxPackage
	extracts map[string]spdxLicense
}

func newSBOM(o CreateOptions, r *recipes.Recipe) *sbom {
	s := &sbom{licenses: r.Licenses, seen: map[string]*spdxPackage{}, extracts: map[string]spdxLicense{}}
	s.doc = spdxDocument{
		ID: documentID, Version: "SPDX-2.3", DataLicense: "CC0-1.0", Name: strings.TrimSuffix(FileName(o.Version, o.Arch), ".tar"),
		Namespace:    fmt.Sprintf("%s/spdx/%s-%s-%d", r.Source, o.Version, o.Arch, o.Created.Unix()),
		CreationInfo: spdxCreation{Created: o.Created.UTC().Format(time.RFC3339), Creators: []string{"Tool: quayctl-" + o.Version}},
		Describes:    []string{productID},
	}
	s.put(&spdxPackage{ID: productID, Name: Product, Version: o.Version, Download: r.Source, Concluded: noAssertion, Declared: r.Licenses, Copyright: noAssertion, Purpose: "INSTALL"})
	s.relate(documentID, "DESCRIBES", productID)
	return s
}

func (s *sbom) put(p *spdxPackage) {
	if s.seen[p.ID] == nil {
		s.seen[p.ID] = p
		s.doc.Packages = append(s.doc.Packages, p)
	}
}

func (s *sbom) relate(of, kind, to string) {
	r := spdxRelationship{of, kind, to}
	if !slices.Contains(s.doc.Relationships, r) {
		s.doc.Relationships = append(s.doc.Relationships, r)
	}
}

// addImage adds an image, its program and its Debian packages.
func (s *sbom) addImage(i Image, in imageInput) error {
	id := spdxID("image", i.Component)
	s.put(&spdxPackage{
		ID: id, Name: i.Name, Version: in.version, Download: noAssertion, Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion, Purpose: "CONTAINER",
		Checksums: []spdxChecksum{{"SHA256", strings.TrimPrefix(i.Digest, "sha256:")}},
		Refs:      []spdxRef{{"PACKAGE-MANAGER", "purl", fmt.Sprintf("pkg:oci/%s@%s?arch=%s", i.Component, strings.Replace(i.Digest, ":", "%3A", 1), in.arch)}},
	})
	s.relate(productID, "CONTAINS", id)
	if err := s.addProgram(i.Component, in.program); err != nil {
		return err
	}
	if in.debian == nil {
		return nil
	}
	for _, p := range in.debian.packages {
		license := s.debianLicense(p)
		pkg := &spdxPackage{
			ID: spdxID("deb", p.name, p.arch), Name: p.name, Version: p.version, Supplier: supplier(p.maintainer), Download: noAssertion, Homepage: p.homepage,
			Checksums: []spdxChecksum{{"SHA256", p.sha256}}, Source: "built from source package " + p.source,
			Concluded: noAssertion, Declared: license, Copyright: noAssertion, Purpose: "LIBRARY",
			Refs: []spdxRef{{"PACKAGE-MANAGER", "purl", fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=%s", purl(p.name), purl(p.version), p.arch, in.recipe.Debian.Suite)}},
		}
		s.put(pkg)
		s.relate(id, "CONTAINS", pkg.ID)
	}
	return nil
}

// addProgram adds a Go program with the modules linked into it: to the image of a component, or to the appliance itself.
func (s *sbom) addProgram(component string, program []byte) error {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("read build information: %w", err)
	}
	of, name := productID, BinaryName
	if component != "" {
		of, name = spdxID("image", component), component
	}
	sum := sha256.Sum256(program)
	id := spdxID("program", name)
	s.put(&spdxPackage{
		ID: id, Name: name, Version: s.doc.Packages[0].Version, Download: noAssertion, Concluded: noAssertion, Declared: s.licenses, Copyright: noAssertion, Purpose: "APPLICATION",
		Checksums: []spdxChecksum{{"SHA256", hex.EncodeToString(sum[:])}}, Source: "Go package " + info.Path,
	})
	s.relate(of, "CONTAINS", id)
	goID := spdxID("go", "std", info.GoVersion)
	s.put(&spdxPackage{
		ID: goID, Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go"), Download: noAssertion, Concluded: noAssertion, Declared: "BSD-3-Clause", Copyright: noAssertion, Purpose: "LIBRARY",
		Refs: []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}},
	})
	s.relate(id, "STATIC_LINK", goID)
	for _, d := range info.Deps {
		s.addModule(id, d)
	}
	return nil
}

func (s *sbom) addModule(program string, d *debug.Module) {
	if d.Replace != nil {
		d = d.Replace
	}
	id := spdxID("go", d.Path, d.Version)
	s.put(&spdxPackage{
		ID: id, Name: d.Path, Version: d.Version, Download: noAssertion, Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion, Purpose: "LIBRARY",
		Source: "module checksum " + d.Sum,
		Refs:   []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + d.Path + "@" + purl(d.Version)}},
	})
	s.relate(program, "STATIC_LINK", id)
}

func (s *sbom) encode() ([]byte, error) {
	for _, l := range s.extracts {
		s.doc.Licenses = append(s.doc.Licenses, l)
	}
	slices.SortFunc(s.doc.Licenses, func(a, b spdxLicense) int { return strings.Compare(a.ID, b.ID) })
	slices.SortStableFunc(s.doc.Packages[1:], func(a, b *spdxPackage) int { return strings.Compare(a.ID, b.ID) })
	b, err := json.MarshalIndent(s.doc, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode bill of materials: %w", err)
	}
	return append(b, '\n'), nil
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func spdxID(parts ...string) string {
	return "SPDXRef-" + strings.Trim(notInID.ReplaceAllString(strings.Join(parts, "-"), "-"), "-")
}

// purl escapes what a package URL does not carry as it is.
func purl(s string) string {
	return strings.NewReplacer("%", "%25", "+", "%2B", ":", "%3A", "~", "~").Replace(s)
}

func supplier(maintainer string) string {
	if maintainer == "" {
		return noAssertion
	}
	name, mail, ok := strings.Cut(maintainer, " <")
	if !ok {
		return "Organization: " + name
	}
	return fmt.Sprintf("Organization: %s (%s)", name, strings.TrimSuffix(mail, ">"))
}
