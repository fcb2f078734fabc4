package edge

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/service"
)

// BenchmarkOffload downloads a 64 MiB blob through the edge and from a bare http.ServeContent server, and
// reports the edge's share of the bare server's speed ("of-bare", 1 is equal).
func BenchmarkOffload(b *testing.B) {
	const size = 64 << 20
	storage, tlsDir := b.TempDir(), b.TempDir()
	file := filepath.Join(storage, "default", "blob")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file, make([]byte, size), 0o644); err != nil {
		b.Fatal(err)
	}
	roots := makePair(b, tlsDir, 1)
	var object atomic.Pointer[string]
	name := "default/blob"
	object.Store(&name)
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(file)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	})
	for _, secure := range []bool{false, true} {
		name, scheme := "plain", "http://"
		var t *tls.Config
		if secure {
			name, scheme = "tls", "https://"
			pair, err := tls.LoadX509KeyPair(filepath.Join(tlsDir, "ssl.cert"), filepath.Join(tlsDir, "ssl.key"))
			if err != nil {
				b.Fatal(err)
			}
			t = &tls.Config{Certificates: []tls.Certificate{pair}}
		}
		b.Run(name, func(b *testing.B) {
			f := startFront(b, offloadUpstream(&object, nil), func(o *Options, _ *service.Daemon) {
				o.StorageRoot = storage
				if secure {
					o.TLSDir = tlsDir
				}
			})
			addr, _ := startDaemon(b, &service.Daemon{Name: "bare", Log: slog.New(slog.DiscardHandler), Handler: bare, Listen: []string{"tcp:127.0.0.1:0"}, TLS: t})
			c := newClient(b, roots, false)
			fetch := func(host string) time.Duration {
				began := time.Now()
				res, err := c.Get(scheme + host + "/v2/a/b/blobs/sha256:00")
				if err != nil {
					b.Fatal(err)
				}
				defer res.Body.Close()
				if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
					b.Fatalf("%d bytes, %v", n, err)
				}
				return time.Since(began)
			}
			fetch(f.addr)
			fetch(addr.String())
			var ours, theirs time.Duration
			b.SetBytes(size)
			for b.Loop() { // in turns, so that both see the same machine
				ours += fetch(f.addr)
				b.StopTimer()
				theirs += fetch(addr.String())
				b.StartTimer()
			}
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-bare")
		})
	}
}

// BenchmarkForward is one small answer of registryd through the edge over a kept connection.
func BenchmarkForward(b *testing.B) {
	f := startFront(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		io.WriteString(w, `{"schemaVersion":2}`)
	}), func(o *Options, _ *service.Daemon) { o.AccessLog = false })
	c := newClient(b, nil, false)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			res, err := c.Get("http://" + f.addr + "/v2/a/b/manifests/latest")
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	})
}
