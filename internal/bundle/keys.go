package bundle

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// publicKey is the key that releases are signed with: PKIX DER in base64, set by the linker
// (-X github.com/quayctl/quayctl/internal/bundle.publicKey=…). Builds without one verify with --key only.
var publicKey string

// CompiledKey gives the public key this binary was built with, nil if with none.
func CompiledKey() (*ecdsa.PublicKey, error) {
	if publicKey == "" {
		return nil, nil
	}
	der, err := base64.StdEncoding.DecodeString(publicKey)
	if err != nil {
		return nil, fmt.Errorf("decode compiled-in public key: %w", err)
	}
	return parsePublicDER(der)
}

// ReadPublicKey reads an ECDSA P-256 public key from a PEM file ("PUBLIC KEY"), as cosign and openssl write it.
func ReadPublicKey(path string) (*ecdsa.PublicKey, error) {
	der, err := readPEM(path, "PUBLIC KEY")
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	k, err := parsePublicDER(der)
	if err != nil {
		return nil, fmt.Errorf("read public key %s: %w", path, err)
	}
	return k, nil
}

// ReadPrivateKey reads an ECDSA P-256 private key from a PEM file ("PRIVATE KEY", PKCS #8, not encrypted).
func ReadPrivateKey(path string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read signing key %s: %w", path, err)
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read signing key %s: not an ECDSA key on P-256", path)
	}
	return ec, nil
}

// EncodePublicKey gives the PEM form of a public key.
func EncodePublicKey(k *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// linkerKey is the form publicKey takes.
func linkerKey(k *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM block in it", path)
	}
	if block.Type != kind {
		return nil, fmt.Errorf("%s: a PEM block %q, expected %q", path, block.Type, kind)
	}
	return block.Bytes, nil
}

func parsePublicDER(der []byte) (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	ec, ok := k.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA key on P-256")
	}
	return ec, nil
}

// sign gives the signature file over data: base64 of the DER signature of its SHA-256, with a line end,
// which is what cosign sign-blob writes and verify-blob reads. The nonce is derived from key and data
// (RFC 6979), so that the same bundle has the same signature.
func sign(k *ecdsa.PrivateKey, data []byte) ([]byte, error) {
	sum := sha256.Sum256(data)
	sig, err := k.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign manifest: %w", err)
	}
	return []byte(base64.StdEncoding.EncodeToString(sig) + "\n"), nil
}

// verify tells which of the keys signed data; nil if none did.
func verify(keys []*ecdsa.PublicKey, data, signature []byte) *ecdsa.PublicKey {
	// Strictly one encoding: a byte that does not count could be changed unnoticed.
	text, ok := strings.CutSuffix(string(signature), "\n")
	if !ok {
		return nil
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil
	}
	sum := sha256.Sum256(data)
	for _, k := range keys {
		if ecdsa.VerifyASN1(k, sum[:], sig) {
			return k
		}
	}
	return nil
}
