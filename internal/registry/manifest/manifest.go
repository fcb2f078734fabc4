// Package manifest reads the documents that clients push: Docker schema 1 and 2, manifest lists, OCI
// image manifests, artifacts and indexes. It accepts and refuses exactly what the legacy server does,
// in its words (recorded in the contract, vectors/manifests.json), and it touches neither database nor
// storage: whatever a format needs beyond the document (the image config) is handed in.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"unicode/utf8"

	"github.com/quayctl/quayctl/internal/registry/manifest/jsondoc"
)

// Media types of manifests, configs and layers that have a meaning here.
const (
	DockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	DockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	DockerManifest      = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList          = "application/vnd.docker.distribution.manifest.list.v2+json"
	OCIManifest         = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex            = "application/vnd.oci.image.index.v1+json"

	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	OCIConfig          = "application/vnd.oci.image.config.v1+json"
)

// MediaTypes are the manifest media types that can be pushed, in no meaningful order.
func MediaTypes() []string {
	return []string{DockerSchema1, DockerSchema1Signed, DockerManifest, DockerList, OCIManifest, OCIIndex}
}

// Error is a document that is refused. Its text is what the client reads.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

func refuse(format string, args ...any) error { return &Error{Reason: fmt.Sprintf(format, args...)} }

// Descriptor points at content.
type Descriptor struct {
	MediaType string
	Digest    string
	Size      int64 // bytes
}

// Layer is one layer of an image, or one file of an artifact.
type Layer struct {
	Descriptor
	// Remote says that the bytes lie elsewhere, at one of URLs, and need not be in the repository.
	Remote bool
	URLs   []string
}

// Child is one entry of a list or index.
type Child struct {
	Descriptor
	OS, Architecture string // empty when the entry names no platform
	ArtifactType     string
	Annotations      []Label // none when one of them is no string
}

// Label is one label or annotation.
type Label struct{ Key, Value string }

// Manifest is a parsed document and what can be said about it from its bytes alone.
type Manifest struct {
	Bytes     []byte // as pushed; nobody may change them
	MediaType string // what the document is, which for schema 1 may differ from what the client said
	// Digest is sha256:<hex> of Bytes, for signed schema 1 of the signed payload.
	Digest       string
	Config       *Descriptor // nil for lists and schema 1
	Layers       []Layer     // base layer first; nil for lists
	Children     []Child     // of lists and indexes, in their order
	Subject      *Descriptor // nil when there is none, and always for Docker's formats
	ArtifactType string      // the document's own member, never derived from the config
	// Schema1 is what only schema 1 has; nil for every other format.
	Schema1 *Schema1

	annotations *jsondoc.Object
	list        bool
}

// IsList says whether the document points at other manifests instead of layers.
func (m *Manifest) IsList() bool { return m.list }

// LayersCompressedSize is the sum of the layers' sizes in bytes; ok is false for lists, which have none.
func (m *Manifest) LayersCompressedSize() (size int64, ok bool) {
	for _, layer := range m.Layers {
		size += layer.Size
	}
	return size, !m.list
}

// LocalBlobs are the digests that must lie in the repository, layers first, then the config;
// a digest occurs as often as the document names it.
func (m *Manifest) LocalBlobs() []string {
	digests := make([]string, 0, len(m.Layers)+1)
	for _, layer := range m.Layers {
		if !layer.Remote {
			digests = append(digests, layer.Digest)
		}
	}
	if m.Config != nil {
		digests = append(digests, m.Config.Digest)
	}
	return digests
}

// LinuxAMD64 is the first child for linux/amd64, which clients that cannot read a list get instead of it.
func (m *Manifest) LinuxAMD64() (Child, bool) {
	for _, child := range m.Children {
		if child.OS == "linux" && child.Architecture == "amd64" {
			return child, true
		}
	}
	return Child{}, false
}

// NeedsConfig says whether Labels wants the bytes of the config.
func (m *Manifest) NeedsConfig() bool {
	return m.MediaType == DockerManifest || m.MediaType == OCIManifest && m.Config.MediaType == OCIConfig
}

// Annotations are the document's own annotations in their order. A value that is no string is refused.
func (m *Manifest) Annotations() ([]Label, error) {
	return labels(nil, m.annotations)
}

// Labels are what becomes label rows, in the order of the rows: the config's labels, overlaid with
// the annotations of OCI manifests. Lists have none of their own. config is the content of the config
// blob when NeedsConfig, and is checked against the descriptor; otherwise it is ignored.
func (m *Manifest) Labels(config []byte) ([]Label, error) {
	switch {
	case m.list:
		return nil, nil
	case m.Schema1 != nil:
		return labels(nil, m.Schema1.labels)
	case !m.NeedsConfig():
		return m.Annotations()
	}
	if int64(len(config)) != m.Config.Size {
		return nil, refuse("Size of config does not match that retrieved: %d vs %d", len(config), m.Config.Size)
	}
	document, err := parseJSON(config, "config")
	if err != nil {
		return nil, err
	}
	if m.MediaType == DockerManifest {
		if v := imageConfigSchema.violation(document); v != "" {
			return nil, refuse("config data does not match schema: %s", v)
		}
	}
	found, err := labels(nil, objectUnder(objectUnder(document, "config"), "Labels"))
	if err != nil || m.MediaType == DockerManifest {
		return found, err
	}
	return labels(found, m.annotations)
}

// objectUnder is the object under name in value, or nil when there is no such object.
func objectUnder(value any, name string) *jsondoc.Object {
	object, _ := value.(*jsondoc.Object)
	if object == nil {
		return nil
	}
	v, _ := object.Get(name)
	inner, _ := v.(*jsondoc.Object)
	return inner
}

// labels overlays base with the members of object, keeping the place of keys that base has.
func labels(base []Label, object *jsondoc.Object) ([]Label, error) {
	if object == nil {
		return base, nil
	}
	place := make(map[string]int, len(base))
	for i, label := range base {
		place[label.Key] = i
	}
	for _, key := range object.Keys() {
		value, _ := object.Get(key)
		s, ok := value.(string)
		if !ok {
			return nil, refuse("value of label `%s` is not a string", key)
		}
		if i, known := place[key]; known {
			base[i].Value = s
		} else {
			base = append(base, Label{Key: key, Value: s})
		}
	}
	return base, nil
}

// Parse reads a document that was pushed as mediaType, one of MediaTypes. The error is an *Error.
func Parse(mediaType string, bytes []byte) (*Manifest, error) {
	m := &Manifest{Bytes: bytes, MediaType: mediaType, Digest: Digest(bytes)}
	read, known := map[string]struct {
		schema *schema
		fill   func(*Manifest, *jsondoc.Object) error
	}{
		DockerSchema1:       {&schema1Schema, fillSchema1},
		DockerSchema1Signed: {&schema1Schema, fillSchema1},
		DockerManifest:      {&dockerManifestSchema, fillImage},
		DockerList:          {&dockerListSchema, fillList},
		OCIManifest:         {&ociManifestSchema, fillImage},
		OCIIndex:            {&ociIndexSchema, fillList},
	}[mediaType]
	if !known {
		return nil, refuse("Unknown or unsupported manifest media type `%s`", mediaType)
	}
	document, err := parseJSON(bytes, "manifest")
	if err != nil {
		return nil, err
	}
	if v := read.schema.violation(document); v != "" {
		return nil, refuse("manifest data does not match schema: %s", v)
	}
	if err := read.fill(m, document.(*jsondoc.Object)); err != nil {
		return nil, err
	}
	return m, nil
}

// Digest is sha256:<hex> of content.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func parseJSON(content []byte, what string) (any, error) {
	// The legacy server fails on such bytes with a 500; they are the client's fault.
	if !utf8.Valid(content) {
		return nil, refuse("malformed %s data: not valid UTF-8", what)
	}
	for _, b := range content {
		if b == 0 { // no text column can hold it
			return nil, refuse("malformed %s data: contains a null character", what)
		}
	}
	document, err := jsondoc.Parse(string(content))
	if err != nil {
		return nil, refuse("malformed %s data: %v", what, err)
	}
	return document, nil
}

func fillImage(m *Manifest, document *jsondoc.Object) error {
	m.annotations = objectUnder(document, "annotations")
	if m.MediaType == OCIManifest {
		fillReferrer(m, document)
	}
	config, err := readDescriptor(objectUnder(document, "config"))
	if err != nil {
		return refuse("invalid config size")
	}
	m.Config = &config
	m.Layers = []Layer{}
	layers, _ := document.Get("layers")
	for _, item := range layers.([]any) {
		layer, err := readLayer(m.MediaType, item.(*jsondoc.Object))
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, layer)
	}
	return nil
}

// nonDistributable are the OCI layer types whose bytes stay at their origin.
var nonDistributable = regexp.MustCompile(`^application/vnd\.oci\.image\.layer\.nondistributable\.v1\.tar(\+gzip|\+zstd)?$`)

// digestText is the form of a digest in documents; its length is not checked, as in the legacy server.
var digestText = regexp.MustCompile(`^[A-Za-z0-9_+.-]+:[A-Fa-f0-9]+$`)

func readLayer(manifestType string, object *jsondoc.Object) (Layer, error) {
	d, err := readDescriptor(object)
	if err != nil || d.Size < 0 {
		return Layer{}, refuse("invalid layer size")
	}
	if !digestText.MatchString(d.Digest) {
		return Layer{}, refuse("could not parse manifest digest: %s", d.Digest)
	}
	layer := Layer{Descriptor: d}
	if manifestType == DockerManifest {
		layer.Remote = d.MediaType == DockerForeignLayer
	} else {
		layer.Remote = nonDistributable.MatchString(d.MediaType)
	}
	if layer.Remote {
		urls, _ := object.Get("urls")
		list, _ := urls.([]any)
		if len(list) == 0 {
			return Layer{}, refuse("missing `urls` for remote layer")
		}
		for _, url := range list {
			layer.URLs = append(layer.URLs, url.(string))
		}
	}
	return layer, nil
}

func fillList(m *Manifest, document *jsondoc.Object) error {
	m.list = true
	m.annotations = objectUnder(document, "annotations")
	if m.MediaType == OCIIndex {
		fillReferrer(m, document)
	}
	manifests, _ := document.Get("manifests")
	for _, item := range manifests.([]any) {
		object := item.(*jsondoc.Object)
		d, err := readDescriptor(object)
		if err != nil {
			return refuse("invalid manifest size")
		}
		child := Child{Descriptor: d}
		if p := objectUnder(object, "platform"); p != nil {
			os, _ := p.Get("os")
			architecture, _ := p.Get("architecture")
			child.OS, child.Architecture = os.(string), architecture.(string)
		}
		if m.MediaType == OCIIndex {
			artifactType, _ := object.Get("artifactType")
			child.ArtifactType, _ = artifactType.(string)
			child.Annotations, _ = labels(nil, objectUnder(object, "annotations"))
		}
		m.Children = append(m.Children, child)
	}
	return nil
}

func fillReferrer(m *Manifest, document *jsondoc.Object) {
	if artifactType, ok := document.Get("artifactType"); ok {
		m.ArtifactType = artifactType.(string)
	}
	if subject := objectUnder(document, "subject"); subject != nil {
		if d, err := readDescriptor(subject); err == nil {
			m.Subject = &d
		}
	}
}

// readDescriptor reads an object that the schema has approved. The error says that the size is no
// integer, which the schema does not see.
func readDescriptor(object *jsondoc.Object) (Descriptor, error) {
	mediaType, _ := object.Get("mediaType")
	digest, _ := object.Get("digest")
	sizeValue, _ := object.Get("size")
	size, ok := sizeValue.(jsondoc.Number).Int64()
	if !ok {
		return Descriptor{}, refuse("size %s is not an integer", sizeValue)
	}
	return Descriptor{MediaType: mediaType.(string), Digest: digest.(string), Size: size}, nil
}
