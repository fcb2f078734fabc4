package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// soon is how long before the end of a certificate people want to know.
const soon = 30 * 24 * time.Hour

func checkClock(_ context.Context, h *Host, t *Target) finding {
	if t.Built.IsZero() {
		return skip("nothing to compare with")
	}
	now := h.Clock.Now()
	needed := "after " + stamp(t.Built)
	if now.Before(t.Built) {
		return bad(stamp(now), needed, "the clock is wrong: this bundle had not been built then", "set the clock: sudo timedatectl set-ntp true, or sudo timedatectl set-time 'YYYY-MM-DD hh:mm:ss'")
	}
	return good(stamp(now), needed)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// certificates reads the PEM chain of the target, leaf first.
func certificates(t *Target) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := t.Certificate; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	if chain == nil {
		return nil, errors.New("it holds no PEM certificate")
	}
	return chain, nil
}

func checkCertificate(_ context.Context, _ *Host, t *Target) finding {
	if t.Certificate == nil && t.Key == nil {
		return skip("quayctl makes its own")
	}
	const needed = "a PEM certificate, leaf first"
	chain, err := certificates(t)
	if err != nil {
		return bad("unreadable", needed, fmt.Sprintf("certificate %s: %v", t.CertificateFile, err), "give a PEM file with --ssl-cert")
	}
	return good(chain[0].Subject.String(), needed)
}

// leaf is for checks that need the check "certificate", which has parsed the chain.
func leaf(t *Target) *x509.Certificate {
	chain, err := certificates(t)
	if err != nil {
		return &x509.Certificate{}
	}
	return chain[0]
}

func checkCertificateKey(_ context.Context, _ *Host, t *Target) finding {
	const needed = "the private key of the certificate"
	if _, err := tls.X509KeyPair(t.Certificate, t.Key); err != nil {
		return bad("another key", needed, fmt.Sprintf("certificate %s and key %s do not match: %v", t.CertificateFile, t.KeyFile, err),
			"give the key that the certificate was requested with (--ssl-key), not encrypted, the leaf first in --ssl-cert")
	}
	return good("matches", needed)
}

func checkCertificateChain(_ context.Context, _ *Host, t *Target) finding {
	const needed = "each certificate signed by the next"
	chain, err := certificates(t)
	if err != nil {
		return bad("unreadable", needed, err.Error(), "")
	}
	if chain[0].IsCA && len(chain) > 1 {
		return bad("a CA first", needed, fmt.Sprintf("certificate %s begins with the CA %s", t.CertificateFile, chain[0].Subject), "put the server's own certificate first, then its issuer, and so on")
	}
	for i := range len(chain) - 1 {
		if err := chain[i].CheckSignatureFrom(chain[i+1]); err != nil {
			return bad(fmt.Sprintf("number %d is not signed by number %d", i+1, i+2), needed,
				fmt.Sprintf("certificate %s: %s is not signed by %s, which follows it", t.CertificateFile, chain[i].Subject, chain[i+1].Subject),
				"put the server's own certificate first, then its issuer, and so on")
		}
	}
	return good(fmt.Sprintf("%d in order", len(chain)), needed)
}

func checkCertificateValidity(_ context.Context, h *Host, t *Target) finding {
	c, now := leaf(t), h.Clock.Now()
	measured := fmt.Sprintf("valid %s to %s", stamp(c.NotBefore), stamp(c.NotAfter))
	needed := "valid at " + stamp(now)
	switch {
	case now.Before(c.NotBefore):
		return bad(measured, needed, fmt.Sprintf("certificate %s is not valid before %s: the clock is wrong, or the certificate is for later", t.CertificateFile, stamp(c.NotBefore)), "set the clock: sudo timedatectl set-ntp true")
	case now.After(c.NotAfter):
		return bad(measured, needed, fmt.Sprintf("certificate %s expired on %s", t.CertificateFile, stamp(c.NotAfter)), "give a renewed certificate with --ssl-cert and --ssl-key, or none, and quayctl makes one")
	}
	return good(measured, needed)
}

func checkCertificateSoon(_ context.Context, h *Host, t *Target) finding {
	c, now := leaf(t), h.Clock.Now()
	left := c.NotAfter.Sub(now)
	measured, needed := fmt.Sprintf("%d days left", int(left.Hours()/24)), fmt.Sprintf("%d days", int(soon.Hours()/24))
	if left < soon {
		return bad(measured, needed, fmt.Sprintf("certificate %s expires soon, on %s", t.CertificateFile, stamp(c.NotAfter)), "renew it")
	}
	return good(measured, needed)
}

func checkCertificateHostname(_ context.Context, _ *Host, t *Target) finding {
	c := leaf(t)
	var names []string
	names = append(names, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	measured := "no name"
	if names != nil {
		measured = fmt.Sprint(names)
	}
	needed := t.Hostname
	if err := c.VerifyHostname(t.Hostname); err != nil {
		return bad(measured, needed, fmt.Sprintf("certificate %s does not cover %s: it is for %s", t.CertificateFile, t.Hostname, measured),
			"request a certificate with that name as subject alternative name, or give a name it covers with --hostname")
	}
	return good(measured, needed)
}
