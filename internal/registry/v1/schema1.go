package v1

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/registry/manifest/jsondoc"
)

// keyFile is the key of schema 1 manifests in the configuration directory.
const keyFile = "docker_v2.pem"

// layer is a layer of a schema 1 manifest with what version 1 says about it.
type layer struct {
	digest string
	v1     string // JSON, as its client wrote it
}

// document is an unsigned schema 1 manifest, its newest layer first.
type document struct {
	name, tag, architecture string
	layers                  []layer
}

func (d document) object() *jsondoc.Object {
	history, blobs := []any{}, []any{}
	for _, l := range d.layers {
		history = append(history, jsondoc.NewObject("v1Compatibility", l.v1))
		blobs = append(blobs, jsondoc.NewObject("blobSum", l.digest))
	}
	return jsondoc.NewObject("tag", d.tag, "name", d.name, "architecture", d.architecture, "schemaVersion", int64(1),
		"history", history, "fsLayers", blobs)
}

// indented is a document's text with the three spaces that its signature counts on.
func indented(o *jsondoc.Object) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(jsondoc.Dump(o)), "", "   "); err != nil {
		return nil, fmt.Errorf("write schema 1 manifest: %w", err)
	}
	return b.Bytes(), nil
}

// parseDocument reads a schema 1 manifest that package manifest has approved.
func parseDocument(payload []byte) (document, error) {
	value, err := jsondoc.Parse(string(payload))
	o, isObject := value.(*jsondoc.Object)
	if err != nil || !isObject {
		return document{}, fmt.Errorf("read schema 1 manifest: %w", errors.Join(err, errors.New("no object")))
	}
	member := func(o *jsondoc.Object, name string) any { v, _ := o.Get(name); return v }
	d := document{architecture: "amd64"}
	d.name, _ = member(o, "name").(string)
	d.tag, _ = member(o, "tag").(string)
	if a, ok := member(o, "architecture").(string); ok {
		d.architecture = a
	}
	history, _ := member(o, "history").([]any)
	blobs, _ := member(o, "fsLayers").([]any)
	for i := range min(len(history), len(blobs)) {
		entry, ok1 := history[i].(*jsondoc.Object)
		blob, ok2 := blobs[i].(*jsondoc.Object)
		if !ok1 || !ok2 {
			return document{}, errors.New("read schema 1 manifest: a layer is no object")
		}
		var l layer
		l.v1, _ = member(entry, "v1Compatibility").(string)
		l.digest, _ = member(blob, "blobSum").(string)
		d.layers = append(d.layers, l)
	}
	return d, nil
}

// signer signs schema 1 manifests, with the key in the configuration directory or, without one, a key that lives as long as
// the process.
type signer struct {
	clock clock.Clock
	key   func() (*rsa.PrivateKey, error) // read or made when it is first needed
}

func newSigner(configDir string, c clock.Clock) *signer {
	return &signer{clock: c, key: sync.OnceValues(func() (*rsa.PrivateKey, error) { return signingKey(configDir) })}
}

func signingKey(configDir string) (*rsa.PrivateKey, error) {
	path := filepath.Join(configDir, keyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key that signs schema 1 manifests: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read the key that signs schema 1 manifests: %s is no PEM; remove it to sign with a new key", path)
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("read the key that signs schema 1 manifests: %s is no RSA key in PKCS #1 or #8; remove it to sign with a new key", path)
	}
	return key, nil
}

var raw = base64.RawURLEncoding

// sign is the text of a signed manifest: the document with a JSON web signature of itself inside, RS256, in the form that
// libtrust gave it.
func (s *signer) sign(d document) ([]byte, error) {
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	o := d.object()
	payload, err := indented(o)
	if err != nil {
		return nil, err
	}
	cut := bytes.LastIndex(payload, []byte("\n}"))
	protected := raw.EncodeToString([]byte(jsondoc.Dump(jsondoc.NewObject(
		"formatTail", raw.EncodeToString(payload[cut:]),
		"formatLength", int64(cut),
		"time", s.clock.Now().UTC().Format("2006-01-02T15:04:05Z")))))
	sum := sha256.Sum256([]byte(protected + "." + raw.EncodeToString(payload)))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign schema 1 manifest: %w", err)
	}
	id, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	jwk := jsondoc.NewObject("n", raw.EncodeToString(key.N.Bytes()), "e", raw.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		"kid", id, "kty", "RSA")
	o.Set("signatures", []any{jsondoc.NewObject(
		"header", jsondoc.NewObject("jwk", jwk, "alg", "RS256"),
		"signature", raw.EncodeToString(signature),
		"protected", protected)})
	return indented(o)
}

// keyID names a public key the way libtrust does: the first 240 bits of the SHA-256 of its DER form, in base32, in twelve
// groups of four.
func keyID(key *rsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("name key: %w", err)
	}
	sum := sha256.Sum256(der)
	text := base32.StdEncoding.EncodeToString(sum[:30])
	groups := make([]string, 0, 12)
	for ; text != ""; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, ":"), nil
}
