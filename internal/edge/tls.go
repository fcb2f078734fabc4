package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/service"
)

// reloadPeriod is how often the pair is looked at: two stat calls.
const reloadPeriod = time.Second

// pairs holds the certificate in use and replaces it when its files change.
type pairs struct {
	certFile, keyFile string
	log               *slog.Logger
	clock             clock.Clock
	metrics           *metrics
	current           atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	loaded  stamp  // what the files looked like when the pair in use was read
	suspect *stamp // files that could not be used when they were looked at last
	broken  error  // why the files on disk cannot be used, nil when they are in use
}

// stamp tells whether a pair of files was changed.
type stamp [2]struct {
	modified time.Time
	size     int64
}

func newPairs(dir string, log *slog.Logger, c clock.Clock, m *metrics) *pairs {
	return &pairs{certFile: filepath.Join(dir, "ssl.cert"), keyFile: filepath.Join(dir, "ssl.key"), log: log, clock: c, metrics: m}
}

func (p *pairs) stamp() (s stamp, err error) {
	for i, name := range []string{p.certFile, p.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i].modified, s[i].size = info.ModTime(), info.Size()
	}
	return s, nil
}

// load reads the pair and puts it to use. On an error the pair in use stays.
func (p *pairs) load() error {
	before, err := p.stamp()
	if err != nil {
		return fmt.Errorf("read certificate: %w; put ssl.cert and ssl.key there or leave --tls-dir out", err)
	}
	certificate, err := os.ReadFile(p.certFile)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	key, err := os.ReadFile(p.keyFile)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	after, err := p.stamp()
	if err != nil || before != after {
		return errors.New("certificate or key changed while they were read")
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("use %s with %s: %w; replace both files with a certificate and its key", p.certFile, p.keyFile, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return fmt.Errorf("parse %s: %w", p.certFile, err)
		}
	}
	old := p.current.Swap(&pair)
	p.mu.Lock()
	p.loaded, p.suspect, p.broken = after, nil, nil
	p.mu.Unlock()
	p.metrics.certificateEnd.Set(float64(pair.Leaf.NotAfter.Unix()))
	p.metrics.certificateBroken.Set(0)
	p.metrics.reloads.WithLabelValues("ok").Inc()
	if old == nil || !bytes.Equal(old.Certificate[0], pair.Certificate[0]) {
		p.log.Info("certificate in use", "subject", pair.Leaf.Subject.String(), "names", pair.Leaf.DNSNames,
			"serial", pair.Leaf.SerialNumber.String(), "not_after", pair.Leaf.NotAfter)
	}
	return nil
}

// refresh loads the pair if its files are not those in use. What cannot be used counts as broken when it
// is found unchanged a second time: at the first the files may just be being replaced, one after the other.
func (p *pairs) refresh() {
	now, err := p.stamp()
	p.mu.Lock()
	same, before := err == nil && now == p.loaded, p.broken
	if same {
		p.broken = nil // the old pair was put back
	}
	p.mu.Unlock()
	if same {
		if before != nil {
			p.metrics.certificateBroken.Set(0)
		}
		return
	}
	if err = p.load(); err == nil {
		return
	}
	p.mu.Lock()
	again := p.suspect != nil && *p.suspect == now
	p.suspect = &now
	if again {
		p.broken = err
	}
	p.mu.Unlock()
	if !again {
		return
	}
	p.metrics.certificateBroken.Set(1)
	if before == nil || before.Error() != err.Error() {
		p.metrics.reloads.WithLabelValues("failed").Inc()
		p.log.Error("new certificate cannot be used, the last good one stays", "error", err)
	}
}

// watch looks at the files until ctx ends.
func (p *pairs) watch(ctx context.Context) error {
	for p.clock.Sleep(ctx, reloadPeriod) == nil {
		p.refresh()
	}
	return nil
}

// check warns about files that cannot be used and a certificate out of its time: clients are still
// answered, so the edge is ready.
func (p *pairs) check(context.Context) error {
	p.mu.Lock()
	broken := p.broken
	p.mu.Unlock()
	leaf, now := p.current.Load().Leaf, p.clock.Now()
	switch {
	case broken != nil:
		return service.Warning{Err: fmt.Errorf("the last good certificate stays in use: %w", broken)}
	case now.After(leaf.NotAfter):
		return service.Warning{Err: fmt.Errorf("certificate expired at %s; replace %s and %s", leaf.NotAfter.Format(time.RFC3339), p.certFile, p.keyFile)}
	case now.Before(leaf.NotBefore):
		return service.Warning{Err: fmt.Errorf("certificate is valid only from %s; check this machine's clock", leaf.NotBefore.Format(time.RFC3339))}
	}
	return nil
}

// config is TLS 1.2 and 1.3 with what FIPS 140-3 approves.
func (p *pairs) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		MaxVersion: tls.VersionTLS13,
		CipherSuites: []uint16{ // of TLS 1.2; those of 1.3 are not configurable
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		},
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		NextProtos:       []string{"h2", "http/1.1"},
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.current.Load(), nil },
	}
}
