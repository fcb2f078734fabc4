package storage

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Keys are relative to a location's storage path and the same in every driver (contract, behaviour.md §1.1).
const (
	// UploadPrefix holds what is not yet a blob.
	UploadPrefix = "uploads/"
	// ProbeKey is what Validate writes; it is overwritten by every validation and never removed.
	ProbeKey = "_verify"
	// EmptyLayer is the digest of the shared empty layer: readable in every repository that asks for it,
	// without a link, and never removed from object storage.
	EmptyLayer = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"

	probeContent = "testing 123"

	// ProbeEvery is how often Validate is worth repeating: it writes and waits for the disk.
	ProbeEvery = 10 * time.Second
)

// EmptyLayerContent is the shared empty layer: 1024 zero bytes, gzipped by the first Docker that made one.
func EmptyLayerContent() []byte {
	return []byte("\x1f\x8b\x08\x00\x00\x09\x6e\x88\x00\xff\x62\x18\x05\xa3\x60\x14\x8c\x58\x00\x08" +
		"\x00\x00\xff\xff\x2e\xaf\xb5\xef\x00\x04\x00\x00")
}

var digestPattern = regexp.MustCompile(`\A([A-Za-z0-9_+.-]+):([A-Fa-f0-9]+)\z`)

// Digest is a content address of the form ALGORITHM:HEX. Neither part is checked against the other: a
// sha256 of four digits is a digest too, only no content has it.
type Digest struct {
	Algorithm string // as written, e.g. sha256 or tarsum.v1+sha256
	Hex       string // as written, case preserved
}

// ParseDigest reads a digest; anything but ALGORITHM:HEX in full is an error.
func ParseDigest(text string) (Digest, error) {
	m := digestPattern.FindStringSubmatch(text)
	if m == nil {
		return Digest{}, fmt.Errorf("parse digest %q: not of the form algorithm:hexadecimal", text)
	}
	return Digest{Algorithm: m[1], Hex: m[2]}, nil
}

// String is the digest as it was written.
func (d Digest) String() string { return d.Algorithm + ":" + d.Hex }

// Key is where a blob of that digest lies: sha256/ab/abcdef…. Dots and pluses of the algorithm become
// slashes, so that tarsum.v1+sha256 gives tarsum/v1/sha256/….
func (d Digest) Key() string {
	algorithm := strings.FieldsFunc(d.Algorithm, func(r rune) bool { return r == '.' || r == '+' })
	prefix := d.Hex
	if len(prefix) < 2 {
		prefix = "00"[len(prefix):] + prefix
	}
	return strings.Join(append(algorithm, prefix[:2], d.Hex), "/")
}

// BlobKey is the key of the blob that a digest names.
func BlobKey(digest string) (string, error) {
	d, err := ParseDigest(digest)
	if err != nil {
		return "", err
	}
	return d.Key(), nil
}

// ObjectKey is where the object of an imagestorage row lies: by content when casPath is set, else (rows
// older than content addressing) by the row's uuid.
func ObjectKey(casPath bool, checksum, uuid string) (string, error) {
	if !casPath {
		return "sharedimages/" + uuid + "/layer", nil
	}
	return BlobKey(checksum)
}
