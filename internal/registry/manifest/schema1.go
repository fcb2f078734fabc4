package manifest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/quayctl/quayctl/internal/registry/manifest/jsondoc"
)

// Schema1 is what a schema 1 manifest says beside its layers.
type Schema1 struct {
	Namespace    string // empty when the name has one segment
	Repository   string
	Tag          string
	Architecture string
	// Payload is the document without its signatures.
	Payload []byte

	labels *jsondoc.Object
	images []schema1Image // base first
}

type schema1Image struct{ id, parent string }

// CheckParents refuses a chain of images in which one names a parent that is not below it.
func (s *Schema1) CheckParents() error {
	below := map[string]bool{}
	for _, image := range s.images {
		if image.parent != "" && !below[image.parent] {
			return refuse("Unknown parent image %s", image.parent)
		}
		below[image.id] = true
	}
	return nil
}

func fillSchema1(m *Manifest, document *jsondoc.Object) error {
	m.Layers = []Layer{}
	s := &Schema1{Payload: m.Bytes}
	m.Schema1 = s
	m.MediaType = DockerSchema1
	if signatures, ok := document.Get("signatures"); ok {
		m.MediaType = DockerSchema1Signed
		payload, err := verifySignatures(m.Bytes, signatures.([]any))
		if err != nil {
			return err
		}
		m.Digest, s.Payload = Digest(payload), payload
	}
	get := func(name string) string {
		v, _ := document.Get(name)
		text, _ := v.(string)
		return text
	}
	s.Tag, s.Architecture = get("tag"), get("architecture")
	s.Repository = get("name")
	if namespace, name, nested := strings.Cut(s.Repository, "/"); nested {
		s.Namespace, s.Repository = namespace, name
	}
	layers, _ := document.Get("fsLayers")
	history, _ := document.Get("history")
	count := min(len(layers.([]any)), len(history.([]any)))
	for i := count - 1; i >= 0; i-- { // the document lists the newest first
		blobSum, _ := layers.([]any)[i].(*jsondoc.Object).Get("blobSum")
		compatibility, _ := history.([]any)[i].(*jsondoc.Object).Get("v1Compatibility")
		if !digestText.MatchString(blobSum.(string)) {
			return refuse("could not parse manifest digest: %s", blobSum)
		}
		value, err := jsondoc.Parse(compatibility.(string))
		v1, ok := value.(*jsondoc.Object)
		if err != nil || !ok {
			return refuse("could not parse metadata: %s", compatibility)
		}
		id, hasID := v1.Get("id")
		idText, isText := id.(string)
		if !hasID || !isText {
			return refuse("invalid v1Compatibility: no id")
		}
		parent, _ := v1.Get("parent")
		parentText, _ := parent.(string)
		size, _ := v1.Get("Size")
		sizeNumber, _ := size.(jsondoc.Number)
		bytes, _ := sizeNumber.Int64()
		s.images = append(s.images, schema1Image{id: idText, parent: parentText})
		m.Layers = append(m.Layers, Layer{Descriptor: Descriptor{Digest: blobSum.(string), Size: bytes}})
		if i == 0 {
			s.labels = objectUnder(objectUnder(v1, "config"), "Labels")
		}
	}
	return nil
}

// errBadSignature has no text, because the legacy server's has none.
var errBadSignature = &Error{}

// verifySignatures checks every JSON web signature of a signed document (libtrust's form: the
// signature block stands inside the document) and returns the payload that all of them sign.
func verifySignatures(document []byte, signatures []any) ([]byte, error) {
	var payload []byte
	if len(signatures) == 0 {
		return nil, errBadSignature
	}
	for _, item := range signatures {
		signature := item.(*jsondoc.Object)
		protected, _ := signature.Get("protected")
		protectedJSON, err := base64.RawURLEncoding.DecodeString(protected.(string))
		if err != nil {
			return nil, errBadSignature
		}
		var cut struct {
			FormatLength int
			FormatTail   string
		}
		if json.Unmarshal(protectedJSON, &cut) != nil || cut.FormatLength < 0 || cut.FormatLength > len(document) {
			return nil, errBadSignature
		}
		tail, err := base64.RawURLEncoding.DecodeString(cut.FormatTail)
		if err != nil {
			return nil, errBadSignature
		}
		signed := append(append([]byte{}, document[:cut.FormatLength]...), tail...)
		if payload != nil && string(payload) != string(signed) {
			return nil, errBadSignature
		}
		payload = signed
		if !verifySignature(signature, protected.(string), payload) {
			return nil, errBadSignature
		}
	}
	return payload, nil
}

func verifySignature(signature *jsondoc.Object, protected string, payload []byte) bool {
	encoded, _ := signature.Get("signature")
	sig, err := base64.RawURLEncoding.DecodeString(encoded.(string))
	jwk := objectUnder(objectUnder(signature, "header"), "jwk")
	if err != nil || jwk == nil {
		return false
	}
	plain := map[string]string{}
	for _, key := range jwk.Keys() {
		if v, ok := jwk.Get(key); ok && key != "kid" {
			plain[key], _ = v.(string)
		}
	}
	keyJSON, err := json.Marshal(plain)
	if err != nil {
		return false
	}
	var key jose.JSONWebKey
	if key.UnmarshalJSON(keyJSON) != nil {
		return false
	}
	sum := sha256.Sum256([]byte(protected + "." + base64.RawURLEncoding.EncodeToString(payload)))
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig) == nil
	case *ecdsa.PublicKey:
		half := len(sig) / 2
		return len(sig) == 64 && ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:]))
	}
	return false
}
