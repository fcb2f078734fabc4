package appliance

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"time"
)

const (
	caLifetime = 20 * 365 * 24 * time.Hour
	// The longest that every common client accepts of a certificate from a private CA.
	leafLifetime = 825 * 24 * time.Hour
	// A leaf with less than this left is made anew when an installation is run again.
	leafRenewal = 30 * 24 * time.Hour
)

// authority is the installation's own CA.
type authority struct {
	cert *x509.Certificate
	pem  []byte
	key  crypto.Signer
}

// newAuthority makes a CA. name tells users whose it is.
func newAuthority(name string, now time.Time) (*authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Quay CA of " + name, Organization: []string{"Quay appliance"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA: %w", err)
	}
	return &authority{cert, encodeCert(der), key}, keyPEM, nil
}

func loadAuthority(certPEM, keyPEM []byte) (*authority, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key cannot sign")
	}
	return &authority{pair.Leaf, certPEM, key}, nil
}

// issue makes the certificate of the front door for the names, which are DNS names and IP addresses. The
// chain ends with the CA.
func (a *authority) issue(names []string, now time.Time) (chain, key []byte, err error) {
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Quay appliance"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(leafLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	if len(names[0]) <= 64 { // the limit of a common name
		template.Subject.CommonName = names[0]
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, leafKey.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate: %w", err)
	}
	if key, err = encodeKey(leafKey); err != nil {
		return nil, nil, err
	}
	return append(encodeCert(der), a.pem...), key, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Certificates decodes all certificates of a PEM file, the leaf first.
func Certificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("read certificate: there is none in the file")
	}
	return all, nil
}

// ensureCertificate makes the CA and the leaf, or takes the given pair. What is there already and good stays: the CA always.
func ensureCertificate(l Layout, names []string, given *KeyPair, now time.Time) (ownCA bool, err error) {
	if given != nil {
		if err := writeFile(l.CertKey(), given.Key, 0o600); err != nil {
			return false, err
		}
		return false, writeFile(l.Cert(), given.Certificate, 0o644)
	}
	oldChain, err := os.ReadFile(l.Cert())
	haveLeaf := err == nil
	caCert, caErr := os.ReadFile(l.CACert())
	caKey, keyErr := os.ReadFile(l.CAKey())
	var ca *authority
	switch {
	case caErr == nil && keyErr == nil:
		if ca, err = loadAuthority(caCert, caKey); err != nil {
			return false, fmt.Errorf("read own CA %s: %w; restore both files, or remove both to have a new CA made that clients must trust anew", l.CACert(), err)
		}
	case errors.Is(keyErr, os.ErrNotExist):
		// The key is written first: a CA certificate without it was left by somebody else. Without either a pair
		// that was given to an earlier installation may be there.
		if caErr == nil {
			return false, fmt.Errorf("own CA: %s is there without %s; restore the key, or remove the certificate to have a new CA made", l.CACert(), l.CAKey())
		}
		if haveLeaf && pairGood(l, oldChain, nil, names[0], now) {
			return false, nil
		}
		fallthrough
	case errors.Is(caErr, os.ErrNotExist):
		var key []byte
		if ca, key, err = newAuthority(names[0], now); err != nil {
			return false, err
		}
		if err := writeFile(l.CAKey(), key, 0o600); err != nil {
			return false, err
		}
		if err := writeFile(l.CACert(), ca.pem, 0o644); err != nil {
			return false, err
		}
	default:
		return false, fmt.Errorf("read own CA: %w", errors.Join(caErr, keyErr))
	}
	if haveLeaf && pairGood(l, oldChain, ca.cert, names[0], now) {
		return true, nil
	}
	chain, key, err := ca.issue(names, now)
	if err != nil {
		return false, err
	}
	// Two files cannot be replaced at once: after an interruption between them the pair does not match, and is made anew.
	if err := writeFile(l.CertKey(), key, 0o600); err != nil {
		return false, err
	}
	return true, writeFile(l.Cert(), chain, 0o644)
}

// pairGood tells whether the pair that is there can go on serving name; ca is who must have signed it, if anyone.
func pairGood(l Layout, chain []byte, ca *x509.Certificate, name string, now time.Time) bool {
	key, err := os.ReadFile(l.CertKey())
	if err != nil {
		return false
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil || pair.Leaf.VerifyHostname(name) != nil || now.Add(leafRenewal).After(pair.Leaf.NotAfter) {
		return false
	}
	return ca == nil || pair.Leaf.CheckSignatureFrom(ca) == nil && bytes.Equal(pair.Leaf.RawIssuer, ca.RawSubject)
}

// certificateNames are the names of the own certificate: the one clients use first, then this machine's others, without repetition.
func certificateNames(hostname string, others []string) []string {
	var names []string
	for _, n := range append([]string{hostname}, others...) {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}
