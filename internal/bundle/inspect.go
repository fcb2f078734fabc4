package bundle

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"path/filepath"
)

// SignatureState says what is known of a bundle's signature.
type SignatureState string

// The states.
const (
	SignatureValid   SignatureState = "valid"
	SignatureInvalid SignatureState = "invalid"
	SignatureUnknown SignatureState = "unknown" // there was no key to verify it with
)

// Inspection is what a bundle says of itself.
type Inspection struct {
	Manifest  *Manifest
	Signature SignatureState
}

// Inspect reads a bundle's manifest without reading the other members. What it tells may only be shown, not acted upon.
func Inspect(path string, keys []*ecdsa.PublicKey) (*Inspection, error) {
	src, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.close() }()
	b := &Bundle{path: path, src: src}
	i := &Inspection{Signature: SignatureInvalid}
	signer, err := b.readManifest(keys)
	if err == nil {
		i.Manifest, err = decodeManifest(b.raw)
	}
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.Bundle = path
		}
		return nil, err
	}
	switch {
	case signer != nil:
		i.Signature = SignatureValid
	case len(keys) == 0:
		i.Signature = SignatureUnknown
	}
	return i, nil
}

// DefaultPath gives the bundle that is meant when none is named: the directory that quayctl itself lies in.
// executable is os.Executable.
func DefaultPath(executable func() (string, error)) (string, error) {
	exe, err := executable()
	if err != nil {
		return "", fmt.Errorf("find the bundle beside quayctl: %w", err)
	}
	exe, err = filepath.EvalSymlinks(exe)
	if err != nil {
		return "", fmt.Errorf("find the bundle beside quayctl: %w", err)
	}
	return filepath.Dir(exe), nil
}
