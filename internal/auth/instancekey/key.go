// Package instancekey keeps the key with which this installation signs its registry tokens: two files that only the
// daemons read, and a row of the legacy service-key tables that lets every server on the same database verify them.
package instancekey

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/renameio/v2"

	"github.com/quayctl/quayctl/internal/pyjson"
)

// Key is the instance key.
type Key struct {
	id      string
	private *rsa.PrivateKey
}

// KeyID is the key's id: its RFC 7638 thumbprint, unless the file says something else.
func (k *Key) KeyID() string { return k.id }

// PrivateKey signs.
func (k *Key) PrivateKey() *rsa.PrivateKey { return k.private }

// Load reads the key (PKCS#1 PEM) and its id from their files. A missing file gives fs.ErrNotExist.
func Load(pemPath, kidPath string) (*Key, error) {
	text, err := os.ReadFile(pemPath)
	if err != nil {
		return nil, fmt.Errorf("read instance key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "RSA PRIVATE KEY" {
		return nil, fmt.Errorf("read instance key: %s holds no RSA private key in PEM (PKCS#1); remove it to have a new key made", pemPath)
	}
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read instance key %s: %w; remove it to have a new key made", pemPath, err)
	}
	kid, err := os.ReadFile(kidPath)
	if err != nil {
		return nil, fmt.Errorf("read instance key id: %w", err)
	}
	id := string(bytes.TrimSpace(kid))
	if id == "" {
		return nil, fmt.Errorf("read instance key id: %s is empty; remove it and %s to have a new key made", kidPath, pemPath)
	}
	return &Key{id: id, private: private}, nil
}

// generate makes a key.
func generate() (*Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("generate instance key: %w", err)
	}
	jwk := jose.JSONWebKey{Key: &private.PublicKey}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("generate instance key: %w", err)
	}
	return &Key{id: base64.RawURLEncoding.EncodeToString(thumbprint), private: private}, nil
}

// save writes both files, readable by their owner only, each whole and durable or not at all. The id comes last: with
// a key and no id the key is made anew.
func (k *Key) save(pemPath, kidPath string) error {
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k.private)})
	if err := os.Remove(kidPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write instance key: %w", err)
	}
	if err := renameio.WriteFile(pemPath, text, 0o600, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write instance key %s: %w; make its directory writable for this daemon", pemPath, err)
	}
	if err := renameio.WriteFile(kidPath, []byte(k.id), 0o600, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write instance key id %s: %w", kidPath, err)
	}
	return nil
}

// publicJWK is the row's JSON: the members the legacy server writes, in its order.
func (k *Key) publicJWK() (string, error) {
	text, err := pyjson.Spaced(struct {
		N   string `json:"n"`
		E   string `json:"e"`
		Kty string `json:"kty"`
		Kid string `json:"kid"`
	}{
		N:   base64.RawURLEncoding.EncodeToString(k.private.N.Bytes()),
		E:   base64.RawURLEncoding.EncodeToString(bigEndian(k.private.E)),
		Kty: "RSA", Kid: k.id,
	})
	return string(text), err
}

func bigEndian(n int) []byte {
	var b []byte
	for ; n > 0; n >>= 8 {
		b = append([]byte{byte(n)}, b...)
	}
	return b
}

// parseJWK reads a row's public key.
func parseJWK(text string) (*rsa.PublicKey, error) {
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON([]byte(strings.TrimSpace(text))); err != nil {
		return nil, err
	}
	key, ok := jwk.Key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("not an RSA key")
	}
	return key, nil
}
