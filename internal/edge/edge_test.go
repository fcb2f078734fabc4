package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/service"
)

func TestMain(m *testing.M) {
	if code, done := runProcess(); done { // processes_test.go
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// logBuffer collects the edge's log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// front is an edge that serves on a real TCP port, before a real upstream on a unix socket.
type front struct {
	edge *Edge
	addr string
	log  *logBuffer
	stop func()
}

// startFront runs an edge until the test ends; change may adapt options and daemon.
func startFront(t testing.TB, upstream http.Handler, change func(*Options, *service.Daemon)) *front {
	t.Helper()
	f := &front{log: &logBuffer{}}
	o := Options{
		Log: slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Clock: clock.Real{},
		Metrics: prometheus.NewRegistry(), Registryd: service.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "registryd.sock")},
		LargestBlob: 8 << 20, AccessLog: true,
	}
	d := &service.Daemon{}
	if change != nil {
		change(&o, d)
	}
	if upstream != nil {
		startDaemon(t, &service.Daemon{Name: "registryd", Log: o.Log, Handler: upstream, Listen: []string{o.Registryd.String()}})
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	own := e.Daemon()
	own.HeaderLimit, own.IdleLimit, own.Admin = d.HeaderLimit, d.IdleLimit, d.Admin
	own.Listen = []string{"tcp:127.0.0.1:0"}
	f.edge = e
	addr, stop := startDaemon(t, own)
	f.addr, f.stop = addr.String(), stop
	return f
}

// startDaemon runs d until the test ends.
func startDaemon(t testing.TB, d *service.Daemon) (net.Addr, func()) {
	t.Helper()
	ready, ended := make(chan net.Addr, 1), make(chan error, 1)
	d.OnReady = func(listen []net.Addr, _ net.Addr) { ready <- listen[0] }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- d.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", d.Name, err)
			}
		})
	}
	t.Cleanup(stop)
	select {
	case a := <-ready:
		return a, stop
	case err := <-ended:
		t.Fatalf("%s did not start: %v", d.Name, err)
	}
	return nil, nil
}

// newClient is a client without a memory of earlier connections; h2 makes it speak HTTP/2 over TLS.
func newClient(t testing.TB, roots *x509.CertPool, h2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true, ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "quay.example"}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// makePair writes a self-signed pair for quay.example and returns a pool that trusts it.
func makePair(t testing.TB, dir string, serial int64) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "quay.example"}, DNSNames: []string{"quay.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"ssl.cert": {Type: "CERTIFICATE", Bytes: der}, "ssl.key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return pool
}

func do(t *testing.T, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return res, string(body)
}

func request(t testing.TB, method, url string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// echo tells what reached the upstream.
type echo struct {
	Method, URI, Host string
	Header            http.Header
	Body              string
}

func echoUpstream(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Quay-Offload-Secret", "internal")
	w.Header().Set("X-Request-Id", "from upstream")
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if r.URL.Query().Has("status") {
		var status int
		fmt.Sscan(r.URL.Query().Get("status"), &status)
		w.WriteHeader(status)
	}
	json.NewEncoder(w).Encode(echo{r.Method, r.RequestURI, r.Host, r.Header, string(body)})
}

func TestRoutesAndHeaders(t *testing.T) {
	f := startFront(t, http.HandlerFunc(echoUpstream), nil)
	c := newClient(t, nil, false)
	const notFound = `{"error":"Not Found","message":"%s is no route of this registry; images are under /v2/, health is /health/instance"}` + "\n"
	for _, g := range []struct {
		method, path string
		status       int
		route        route
		upstream     bool
		body         string // "" is not compared
		headers      map[string]string
	}{
		{"GET", "/v2/", 200, routePing2, true, "", map[string]string{"X-Frame-Options": "DENY", "Strict-Transport-Security": "", "Docker-Distribution-Api-Version": "registry/2.0"}},
		{"GET", "/v2", 200, routePing2, true, "", nil},
		{"GET", "/v2/auth?service=x&scope=repository%3Aa/b%3Apull", 200, routeToken, true, "", nil},
		{"GET", "/v2/_catalog?n=1", 200, routeCatalog, true, "", nil},
		{"GET", "/v2/a/b/tags/list", 200, routeTags, true, "", nil},
		{"GET", "/v2/a/b/referrers/sha256:00", 200, routeReferrers, true, "", nil},
		{"GET", "/v2/a/b/c/manifests/latest", 200, routeManifest, true, "", nil},
		{"GET", "/v2/a/blobs/b/manifests/latest", 200, routeManifest, true, "", nil},
		{"HEAD", "/v2/a/b/blobs/sha256:00", 200, routeBlob, true, "", nil},
		{"POST", "/v2/a/b/blobs/uploads/", 200, routeUpload, true, "", nil},
		{"POST", "/v2/a/b/blobs/uploads?status=202", 202, routeUpload, true, "", map[string]string{"X-Frame-Options": ""}},
		{"PATCH", "/v2/a/b/blobs/uploads/1234", 200, routeUpload, true, "", nil},
		{"DELETE", "/v2/a/b/manifests/x?status=404", 404, routeManifest, true, "", map[string]string{"X-Frame-Options": ""}},
		{"GET", "/v2/a%2Fb/c/..//tags/list?a=%zz&b", 200, routeTags, true, "", nil},
		{"GET", "/v1/repositories/a/b/images", 200, routeV1, true, "", nil},
		{"PUT", "/v1/users/", 200, routeV1, true, "", nil},
		{"GET", "/v1/_ping", 200, routePing1, false, "true", map[string]string{"X-Docker-Registry-Version": "0.6.0", "X-Docker-Registry-Standalone": "0", "X-Frame-Options": "DENY"}},
		{"HEAD", "/v1/_ping", 200, routePing1, false, "", nil},
		{"GET", "/_internal_ping", 200, routeInternalPing, false, "true", map[string]string{"Content-Type": "text/html; charset=utf-8"}},
		{"GET", "/health", 503, routeHealth, false, "", nil},
		{"GET", "/v2x/", 404, routeOther, false, fmt.Sprintf(notFound, "/v2x/"), map[string]string{"Content-Type": "application/json"}},
		{"GET", "/api/v1/repository", 404, routeOther, false, fmt.Sprintf(notFound, "/api/v1/repository"), nil},
		{"GET", "/", 404, routeOther, false, fmt.Sprintf(notFound, "/"), nil},
		{"GET", "//v2/", 404, routeOther, false, fmt.Sprintf(notFound, "//v2/"), nil},
		{"GET", "/metrics", 404, routeOther, false, fmt.Sprintf(notFound, "/metrics"), nil},
		{"GET", "/readyz", 404, routeOther, false, fmt.Sprintf(notFound, "/readyz"), nil},
	} {
		t.Run(g.method+g.path, func(t *testing.T) {
			r := request(t, g.method, "http://"+f.addr, nil, "X-Request-Id", "id-1")
			r.URL.Opaque = "//" + f.addr + g.path // sent as it stands
			res, body := do(t, c, r)
			if res.StatusCode != g.status {
				t.Errorf("status %d, want %d", res.StatusCode, g.status)
			}
			if got := classify(r.URL.EscapedPath()); strings.ContainsRune(g.path, '%') == false && classify(strings.Split(g.path, "?")[0]) != g.route {
				t.Errorf("route %s, want %s", got, g.route)
			}
			if id := res.Header.Values("X-Request-Id"); len(id) != 1 || id[0] != "id-1" {
				t.Errorf("request id %q", id)
			}
			if got := res.Header.Get("X-Quay-Offload-Secret"); got != "" {
				t.Errorf("an internal header left the appliance: %q", got)
			}
			for name, want := range g.headers {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if g.body != "" && body != g.body {
				t.Errorf("body %q, want %q", body, g.body)
			}
			if g.upstream && g.method != "HEAD" {
				var e echo
				if err := json.Unmarshal([]byte(body), &e); err != nil {
					t.Fatalf("not from the upstream: %s", body)
				}
				if e.URI != g.path || e.Method != g.method || e.Host != f.addr {
					t.Errorf("upstream got %s %s for %s, want %s %s", e.Method, e.URI, e.Host, g.method, g.path)
				}
			}
		})
	}
	res, _ := do(t, c, request(t, "GET", "http://"+f.addr+"/v1/_ping", nil))
	if diff := cmp.Diff([]string{"application/octet-stream", "text/plain"}, res.Header.Values("Content-Type")); diff != "" {
		t.Errorf("/v1/_ping: %s", diff)
	}
	if id := res.Header.Get("X-Request-Id"); len(id) != 32 {
		t.Errorf("generated request id %q", id)
	}
}

func TestForwardedHeaders(t *testing.T) {
	f := startFront(t, http.HandlerFunc(echoUpstream), nil)
	c := newClient(t, nil, false)
	_, body := do(t, c, request(t, "GET", "http://"+f.addr+"/v2/", nil,
		"X-Forwarded-For", "192.0.2.1", "X-Forwarded-For", "192.0.2.2, 192.0.2.3", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil",
		"Forwarded", "for=evil", "X-Quay-Offload", "1", "X-Quay-Offload-Path", "default/x", "X-Quay-Offload-Anything", "y",
		"X-Request-Id", "bad id\u00e4", "Authorization", "Basic abc", "Keep-Alive", "x", "Te", "trailers"))
	var e echo
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"X-Forwarded-For": "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "",
		"Forwarded": "", "X-Quay-Offload": "", "X-Quay-Offload-Path": "", "X-Quay-Offload-Anything": "",
		"Authorization": "Basic abc", "Keep-Alive": "", "Te": "trailers",
	}
	for name, value := range want {
		if got := strings.Join(e.Header.Values(name), ","); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if id := e.Header.Get("X-Request-Id"); len(id) != 32 {
		t.Errorf("a harmful request id was passed on: %q", id)
	}

	dir := t.TempDir()
	roots := makePair(t, dir, 1)
	f = startFront(t, http.HandlerFunc(echoUpstream), func(o *Options, _ *service.Daemon) { o.TLSDir = dir })
	for _, h2 := range []bool{false, true} {
		res, body := do(t, newClient(t, roots, h2), request(t, "GET", "https://"+f.addr+"/v2/", nil, "X-Forwarded-Proto", "http"))
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Fatal(err)
		}
		if e.Header.Get("X-Forwarded-Proto") != "https" || res.Header.Get("Strict-Transport-Security") != "max-age=63072000; preload" || (res.ProtoMajor == 2) != h2 {
			t.Errorf("over TLS (HTTP/2 %v): %v %v %s", h2, e.Header, res.Header, res.Proto)
		}
	}
}

func TestAccessLogHidesSecrets(t *testing.T) {
	f := startFront(t, http.HandlerFunc(echoUpstream), nil)
	do(t, newClient(t, nil, false), request(t, "GET", "http://"+f.addr+"/v2/auth?scope=s&password=hunter2&token=hunter2", nil,
		"Authorization", "Bearer hunter2", "Cookie", "c=hunter2"))
	f.stop()
	text := f.log.String()
	if strings.Contains(text, "hunter2") || !strings.Contains(text, `"query":"scope=s&password=***&token=***"`) || !strings.Contains(text, `"route":"token"`) {
		t.Errorf("log:\n%s", text)
	}
}

// TestStreaming: both directions move before the other end is done, and trailers arrive.
func TestStreaming(t *testing.T) {
	first, sent := make(chan string), make(chan struct{})
	f := startFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			line, _ := bufio.NewReader(r.Body).ReadString('\n')
			first <- line
			return
		}
		w.Header().Set("Trailer", "X-Digest")
		io.WriteString(w, "one\n")
		w.(http.Flusher).Flush()
		<-sent
		io.WriteString(w, "two\n")
		w.Header().Set("X-Digest", "sha256:00")
	}), nil)
	c := newClient(t, nil, false)

	pr, pw := io.Pipe()
	done := make(chan error, 1)
	req := request(t, "PATCH", "http://"+f.addr+"/v2/a/b/blobs/uploads/1", pr)
	go func() {
		res, err := c.Do(req)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	io.WriteString(pw, "hello\n")
	if got := <-first; got != "hello\n" {
		t.Errorf("upstream read %q while the body was open", got)
	}
	pw.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}

	res, err := c.Do(request(t, "GET", "http://"+f.addr+"/v2/a/b/tags/list", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	if line, err := in.ReadString('\n'); line != "one\n" {
		t.Errorf("client read %q, %v", line, err)
	}
	close(sent)
	if rest, _ := io.ReadAll(in); string(rest) != "two\n" || res.Trailer.Get("X-Digest") != "sha256:00" {
		t.Errorf("rest %q, trailers %v", rest, res.Trailer)
	}
}

// TestExpectContinue: a refused upload costs its client no body.
func TestExpectContinue(t *testing.T) {
	f := startFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}), nil)
	for _, header := range []string{"", "Authorization: x\r\n"} {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "PUT /v2/a/b/blobs/uploads/1 HTTP/1.1\r\nHost: h\r\n%sContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", header)
		in := textproto.NewReader(bufio.NewReader(conn))
		line, err := in.ReadLine()
		if header == "" {
			if line != "HTTP/1.1 401 Unauthorized" {
				t.Errorf("refused upload: %q %v", line, err)
			}
		} else {
			if line != "HTTP/1.1 100 Continue" {
				t.Errorf("accepted upload: %q %v", line, err)
			}
			in.ReadMIMEHeader()
			io.WriteString(conn, "12345")
			if line, err := in.ReadLine(); line != "HTTP/1.1 200 OK" {
				t.Errorf("accepted upload: %q %v", line, err)
			}
		}
		conn.Close()
	}
}

// TestAbortsPropagate: an upload whose client goes away ends at the upstream, and an answer that the
// upstream breaks off is broken off for the client.
func TestAbortsPropagate(t *testing.T) {
	started, ended := make(chan struct{}), make(chan error, 1)
	f := startFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			b := make([]byte, 1)
			io.ReadFull(r.Body, b)
			close(started)
			_, err := io.Copy(io.Discard, r.Body)
			ended <- err
			return
		}
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "ten bytes.")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}), nil)
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "PATCH /v2/a/b/blobs/uploads/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n1234567890")
	<-started
	conn.Close()
	if err := <-ended; err == nil {
		t.Error("the upstream saw a complete body")
	}

	res, err := newClient(t, nil, false).Do(request(t, "GET", "http://"+f.addr+"/v2/a/b/tags/list", nil))
	if err != nil {
		return // broken off before the header was sent
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a truncated answer looks whole: %q", got)
	}
}

func TestBodyLimits(t *testing.T) {
	f := startFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, n)
	}), nil)
	c := newClient(t, nil, false)
	for _, g := range []struct {
		method, path  string
		size          int64
		chunked       bool
		status        int
		code, message string
	}{
		{"PUT", "/v2/a/b/manifests/x", 1 << 20, false, 200, "", ""},
		{"PUT", "/v2/a/b/manifests/x", 1<<20 + 1, false, 413, "MANIFEST_INVALID", "larger than the 1048576 bytes"},
		{"PUT", "/v2/a/b/manifests/x", 1<<20 + 1, true, 413, "MANIFEST_INVALID", "larger than the 1048576 bytes"},
		{"PATCH", "/v2/a/b/blobs/uploads/1", 8 << 20, false, 200, "", ""},
		{"PATCH", "/v2/a/b/blobs/uploads/1", 8 << 20, true, 200, "", ""},
		{"PATCH", "/v2/a/b/blobs/uploads/1", 8<<20 + 1, false, 413, "SIZE_INVALID", "MAXIMUM_LAYER_SIZE"},
		{"PATCH", "/v2/a/b/blobs/uploads/1", 8<<20 + 1, true, 413, "SIZE_INVALID", "MAXIMUM_LAYER_SIZE"},
		{"PUT", "/v1/images/x/layer", 8<<20 + 1, true, 413, "", "larger than the 8388608 bytes"},
		{"POST", "/v2/auth", 2 << 20, false, 413, "SIZE_INVALID", "1048576"},
	} {
		var body io.Reader = io.LimitReader(zeros{}, g.size)
		r := request(t, g.method, "http://"+f.addr+g.path, body)
		if !g.chunked {
			r.ContentLength = g.size
		}
		res, text := do(t, c, r)
		if res.StatusCode != g.status || !strings.Contains(text, g.message) || !strings.Contains(text, g.code) {
			t.Errorf("%s %s with %d bytes: %d %s", g.method, g.path, g.size, res.StatusCode, text)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestWaitsForRegistryd: requests of every kind wait while registryd is away, and no longer than the limit.
func TestWaitsForRegistryd(t *testing.T) {
	var socket service.Addr
	f := startFront(t, nil, func(o *Options, _ *service.Daemon) { socket = o.Registryd })
	c := newClient(t, nil, false)
	var wg sync.WaitGroup
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		wg.Go(func() {
			res, body := do(t, c, request(t, method, "http://"+f.addr+"/v2/a/b/manifests/x", strings.NewReader("body")))
			if res.StatusCode != 200 || !strings.Contains(body, `"Body":"body"`) {
				t.Errorf("%s: %d %s", method, res.StatusCode, body)
			}
		})
	}
	for { // until each request has failed to reach registryd at least once
		var m = testCounter(t, f.edge)
		if m >= 4 {
			break
		}
	}
	_, stop := startDaemon(t, &service.Daemon{Name: "registryd", Log: slog.New(slog.DiscardHandler), Handler: http.HandlerFunc(echoUpstream), Listen: []string{socket.String()}})
	wg.Wait()
	stop()

	f.edge.dialLimit = 50 * time.Millisecond
	res, body := do(t, c, request(t, "GET", "http://"+f.addr+"/v2/", nil, "X-Request-Id", "abc"))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(body, `"code":"UNAVAILABLE"`) ||
		!strings.Contains(body, "registryd does not answer at unix:") || !strings.Contains(body, "quayctl logs registryd") || !strings.Contains(body, `"request_id":"abc"`) {
		t.Errorf("registryd away: %d %s", res.StatusCode, body)
	}
}

// testCounter reads the number of failed dials.
func testCounter(t *testing.T, e *Edge) float64 {
	t.Helper()
	families, err := e.o.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "quay_edge_registryd_dial_failures_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
}

func TestBrokenUpstream(t *testing.T) {
	f := startFront(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), nil)
	c := newClient(t, nil, false)
	for path, want := range map[string]string{"/v2/a/b/manifests/x": `{"errors":[{"code":"UNAVAILABLE"`, "/v1/users": `{"error":"registryd broke off`} {
		res, body := do(t, c, request(t, "POST", "http://"+f.addr+path, strings.NewReader("x")))
		if res.StatusCode != 502 || !strings.HasPrefix(body, want) {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
}

// offloadUpstream authorises objects as registryd does.
func offloadUpstream(object *atomic.Pointer[string], content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Content-Digest", "sha256:00")
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", `"sha256:00"`)
		w.Header().Set("Accept-Ranges", "bytes")
		if r.Header.Get("X-Quay-Offload") == "1" && r.Method == http.MethodGet {
			w.Header().Set("X-Quay-Offload-Path", *object.Load())
			w.WriteHeader(http.StatusOK)
			return
		}
		w.Header().Set("X-Sent-By", "registryd")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

// TestOffload compares answers with those of http.ServeContent, over each protocol.
func TestOffload(t *testing.T) {
	content := make([]byte, 300_000)
	for i := range content {
		content[i] = byte(i * 7)
	}
	storage, tlsDir := t.TempDir(), t.TempDir()
	key := "sha256/ab/abcdef"
	if err := os.MkdirAll(filepath.Join(storage, "default/sha256/ab"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(storage, "default", key)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(storage, "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(storage, "default/sha256/ab/link")); err != nil {
		t.Fatal(err)
	}
	roots := makePair(t, tlsDir, 1)
	var object atomic.Pointer[string]
	good := "default/" + key
	object.Store(&good)
	plain := startFront(t, offloadUpstream(&object, content), func(o *Options, _ *service.Daemon) { o.StorageRoot = storage })
	secure := startFront(t, offloadUpstream(&object, content), func(o *Options, _ *service.Daemon) {
		o.Storage, o.TLSDir = map[string]string{"default": filepath.Join(storage, "default")}, tlsDir
	})
	reference, _ := startDaemon(t, &service.Daemon{Name: "reference", Log: slog.New(slog.DiscardHandler), Listen: []string{"tcp:127.0.0.1:0"},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("X-Quay-Offload")
			offloadUpstream(&object, content)(w, r)
		})})
	fronts := []struct {
		name, url string
		client    *http.Client
		front     *front
	}{
		{"plain", "http://" + plain.addr, newClient(t, nil, false), plain},
		{"tls", "https://" + secure.addr, newClient(t, roots, false), secure},
		{"h2", "https://" + secure.addr, newClient(t, roots, true), secure},
	}
	seen := []string{"Content-Length", "Content-Range", "Content-Type", "Accept-Ranges", "Etag", "Docker-Content-Digest"}
	multipart := func(s string) string { // the boundary is random
		if _, boundary, ok := strings.Cut(s, "boundary="); ok {
			return strings.ReplaceAll(s, boundary, "B")
		}
		return s
	}
	for _, headers := range [][]string{
		nil,
		{"Range", "bytes=0-0"}, {"Range", "bytes=0-99"}, {"Range", "bytes=100-"}, {"Range", "bytes=-100"}, {"Range", "bytes=299999-400000"},
		{"Range", "bytes=-400000"}, {"Range", "bytes= 5-6 "},
		{"Range", "bytes=0-9", "If-Range", `"sha256:00"`}, {"Range", "bytes=0-9", "If-Range", `"other"`},
		{"If-None-Match", `"sha256:00"`}, {"If-None-Match", `"other"`}, {"If-Match", `"other"`},
	} {
		want, wantBody := do(t, newClient(t, nil, false), request(t, "GET", "http://"+reference.String()+"/v2/a/b/blobs/sha256:00", nil, headers...))
		for _, f := range fronts {
			got, body := do(t, f.client, request(t, "GET", f.url+"/v2/a/b/blobs/sha256:00", nil, headers...))
			if got.StatusCode != want.StatusCode || got.Header.Get("X-Sent-By") != "" {
				t.Errorf("%s %v: status %d, want %d (sent by %q)", f.name, headers, got.StatusCode, want.StatusCode, got.Header.Get("X-Sent-By"))
			}
			if _, b, ok := strings.Cut(want.Header.Get("Content-Type"), "boundary="); ok {
				wantBody = strings.ReplaceAll(wantBody, b, "B")
			}
			if _, b, ok := strings.Cut(got.Header.Get("Content-Type"), "boundary="); ok {
				body = strings.ReplaceAll(body, b, "B")
			}
			if body != wantBody {
				t.Errorf("%s %v: %d bytes differ from the %d wanted", f.name, headers, len(body), len(wantBody))
			}
			for _, name := range seen {
				if g, w := multipart(got.Header.Get(name)), multipart(want.Header.Get(name)); g != w {
					t.Errorf("%s %v: %s is %q, want %q", f.name, headers, name, g, w)
				}
			}
			if got.Header.Get("X-Quay-Offload-Path") != "" {
				t.Errorf("%s: the path left the appliance", f.name)
			}
		}
	}
	for _, text := range []string{"bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-9,20-29", "bytes=-", "bytes=1", "bytes=-1-2", "bytes=+1-2"} {
		for _, f := range fronts { // what is no single range is no range
			res, body := do(t, f.client, request(t, "GET", f.url+"/v2/a/b/blobs/sha256:00", nil, "Range", text))
			if res.StatusCode != 200 || body != string(content) || res.Header.Get("X-Sent-By") != "" {
				t.Errorf("%s %s: %d, %d bytes, sent by %q", f.name, text, res.StatusCode, len(body), res.Header.Get("X-Sent-By"))
			}
		}
	}
	for _, text := range []string{"bytes=300000-", "bytes=-0", "bytes=400000-500000"} {
		for _, f := range fronts { // the refusal is registryd's own
			res, _ := do(t, f.client, request(t, "GET", f.url+"/v2/a/b/blobs/sha256:00", nil, "Range", text))
			if res.StatusCode == 200 || res.Header.Get("X-Sent-By") != "registryd" && res.StatusCode != 416 {
				t.Errorf("%s %s: %d, sent by %q", f.name, text, res.StatusCode, res.Header.Get("X-Sent-By"))
			}
		}
	}
	for _, bad := range []string{"default/gone", "default/../secret", "../secret", "/etc/passwd", "default/sha256/ab/link", "default/sha256/ab",
		"other/x", "default", "default/", "default//" + key, "./secret", "../" + filepath.Base(storage) + "/secret"} {
		object.Store(&bad)
		for _, f := range fronts {
			res, body := do(t, f.client, request(t, "GET", f.url+"/v2/a/b/blobs/sha256:00", nil))
			if res.StatusCode != 200 || res.Header.Get("X-Sent-By") != "registryd" || body != string(content) {
				t.Errorf("%s with object %q: %d by %q, %d bytes", f.name, bad, res.StatusCode, res.Header.Get("X-Sent-By"), len(body))
			}
		}
	}
	object.Store(&good)
	res, body := do(t, fronts[0].client, request(t, "HEAD", fronts[0].url+"/v2/a/b/blobs/sha256:00", nil))
	if res.ContentLength != int64(len(content)) || body != "" {
		t.Errorf("HEAD: %d bytes announced, %d sent", res.ContentLength, len(body))
	}
}

// TestOffloadWithoutTag: without an ETag of registryd conditions do not apply, and ranges are not announced
// unless registryd does.
func TestOffloadWithoutTag(t *testing.T) {
	storage := t.TempDir()
	if err := os.WriteFile(filepath.Join(storage, "blob"), []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := startFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Quay-Offload-Path", "default/blob")
	}), func(o *Options, _ *service.Daemon) { o.Storage = map[string]string{"default": storage} })
	c := newClient(t, nil, false)
	for _, g := range []struct {
		headers      []string
		status       int
		body, ranges string
	}{
		{nil, 200, "0123456789", ""},
		{[]string{"If-Match", `"x"`}, 200, "0123456789", ""},
		{[]string{"If-None-Match", "*"}, 200, "0123456789", ""},
		{[]string{"Range", "bytes=2-3"}, 206, "23", "bytes"},
		{[]string{"Range", "bytes=2-3", "If-Range", `"x"`}, 200, "0123456789", ""},
	} {
		res, body := do(t, c, request(t, "GET", "http://"+f.addr+"/v2/a/b/blobs/sha256:00", nil, g.headers...))
		if res.StatusCode != g.status || body != g.body || res.Header.Get("Accept-Ranges") != g.ranges || res.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%v: %d %q %v", g.headers, res.StatusCode, body, res.Header)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	for _, g := range []struct {
		given []string
		keep  bool
	}{
		{[]string{"abc-1.2_3:/+=@"}, true}, {nil, false}, {[]string{""}, false}, {[]string{"a b"}, false}, {[]string{"a\x00"}, false},
		{[]string{"ä"}, false}, {[]string{"a", "b"}, false}, {[]string{strings.Repeat("a", 128)}, true}, {[]string{strings.Repeat("a", 129)}, false},
	} {
		if got := requestID(g.given); g.keep != (len(g.given) == 1 && got == g.given[0]) || !validID(got) {
			t.Errorf("%q became %q", g.given, got)
		}
	}
}

// TestHotReload replaces the pair while clients make handshakes.
func TestHotReload(t *testing.T) {
	dir := t.TempDir()
	makePair(t, dir, 1)
	f := startFront(t, http.HandlerFunc(echoUpstream), func(o *Options, d *service.Daemon) { o.TLSDir = dir })
	p := f.edge.pairs
	serial := func() (int64, uint16, error) {
		c, err := tls.Dial("tcp", f.addr, &tls.Config{InsecureSkipVerify: true, ServerName: "quay.example"})
		if err != nil {
			return 0, 0, err
		}
		defer c.Close()
		s := c.ConnectionState()
		return s.PeerCertificates[0].SerialNumber.Int64(), s.Version, nil
	}
	if n, version, err := serial(); n != 1 || version != tls.VersionTLS13 || err != nil {
		t.Fatalf("serial %d, version %x, %v", n, version, err)
	}
	stop := make(chan struct{})
	var shakes atomic.Int64
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := serial(); err != nil {
					t.Errorf("handshake: %v", err)
					return
				}
				shakes.Add(1)
			}
		})
	}
	for n := int64(2); n <= 6; n++ {
		makePair(t, dir, n)
		p.refresh()
		if got, _, err := serial(); got != n || err != nil {
			t.Errorf("serial %d, want %d (%v)", got, n, err)
		}
		// A certificate without its key must change nothing.
		cert, err := os.ReadFile(p.certFile)
		if err != nil {
			t.Fatal(err)
		}
		makePair(t, dir, 100+n)
		if err := os.WriteFile(p.certFile, append(cert, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		p.refresh()
		p.refresh()
		if got, _, err := serial(); got != n || err != nil {
			t.Errorf("after a broken pair: serial %d, want %d (%v)", got, n, err)
		}
		var warning service.Warning
		if err := p.check(t.Context()); !errors.As(err, &warning) || !strings.Contains(err.Error(), "last good certificate stays in use") {
			t.Errorf("check: %v", err)
		}
	}
	makePair(t, dir, 7)
	p.refresh()
	if err := p.check(t.Context()); err != nil {
		t.Errorf("check of a good pair: %v", err)
	}
	close(stop)
	load.Wait()
	if n := strings.Count(f.log.String(), "last good one stays"); n != 5 {
		t.Errorf("%d lines about five broken pairs", n)
	}
	t.Logf("%d handshakes", shakes.Load())
}

// TestReloadIsNoticed: the watch finds the new pair by itself.
func TestReloadIsNoticed(t *testing.T) {
	dir := t.TempDir()
	makePair(t, dir, 1)
	fake := clock.NewFake(time.Now())
	p := newPairs(dir, slog.New(slog.DiscardHandler), fake, newMetrics(prometheus.NewRegistry()))
	if err := p.load(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.watch(ctx) }()
	awaitSleeper(t, fake)
	makePair(t, dir, 2)
	fake.Advance(reloadPeriod)
	awaitSleeper(t, fake)
	if n := p.current.Load().Leaf.SerialNumber.Int64(); n != 2 {
		t.Errorf("serial %d", n)
	}
	fake.Advance(2 * time.Hour)
	awaitSleeper(t, fake)
	if err := p.check(ctx); err == nil || !strings.Contains(err.Error(), "certificate expired at") {
		t.Errorf("check of an expired certificate: %v", err)
	}
	cancel()
	<-done
}

func awaitSleeper(t *testing.T, f *clock.Fake) {
	t.Helper()
	if err := f.AwaitSleepers(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
}

func TestTLSRefusesOldProtocols(t *testing.T) {
	dir := t.TempDir()
	makePair(t, dir, 1)
	f := startFront(t, http.HandlerFunc(echoUpstream), func(o *Options, d *service.Daemon) { o.TLSDir = dir })
	for _, g := range []struct {
		name string
		c    *tls.Config
		ok   bool
	}{
		{"TLS 1.1", &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, false},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.2 with ChaCha20", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}}, false},
		{"TLS 1.2 with CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
		{"X25519 alone", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, false},
		{"P-256", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, true},
	} {
		g.c.InsecureSkipVerify = true
		c, err := tls.Dial("tcp", f.addr, g.c)
		if (err == nil) != g.ok {
			t.Errorf("%s: %v", g.name, err)
		}
		if err == nil {
			c.Close()
		}
	}
	if _, err := New(Options{Log: slog.New(slog.DiscardHandler), Clock: clock.Real{}, Metrics: prometheus.NewRegistry(), TLSDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "ssl.cert") {
		t.Errorf("an edge without a certificate: %v", err)
	}
}

// TestSlowClients: whoever does not finish a header or a handshake is cut; a slow body is not.
func TestSlowClients(t *testing.T) {
	dir := t.TempDir()
	makePair(t, dir, 1)
	limits := func(d *service.Daemon) { d.HeaderLimit, d.IdleLimit = 200*time.Millisecond, 200*time.Millisecond }
	plain := startFront(t, http.HandlerFunc(echoUpstream), func(o *Options, d *service.Daemon) { limits(d) })
	secure := startFront(t, http.HandlerFunc(echoUpstream), func(o *Options, d *service.Daemon) { o.TLSDir = dir; limits(d) })
	for name, g := range map[string]struct{ addr, send string }{
		"nothing sent":   {plain.addr, ""},
		"half a header":  {plain.addr, "GET /v2/ HTTP/1.1\r\nHost: h\r\nX-A: "},
		"idle":           {plain.addr, "GET /v1/_ping HTTP/1.1\r\nHost: h\r\n\r\n"},
		"no handshake":   {secure.addr, ""},
		"half handshake": {secure.addr, "\x16\x03\x01\x02\x00\x01"},
	} {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, g.send)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection was kept", name)
		}
		conn.Close()
	}
	conn, err := net.Dial("tcp", plain.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "PATCH /v2/a/b/blobs/uploads/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n")
	for i := range 3 {
		time.Sleep(150 * time.Millisecond) // slowness is what is tested
		fmt.Fprintf(conn, "%02d", i)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("slow body: %v", err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); !strings.Contains(string(body), `"Body":"000102"`) {
		t.Errorf("slow body: %s", body)
	}
}

// TestKeepsConnections: requests that may be repeated share connections to registryd.
func TestKeepsConnections(t *testing.T) {
	var conns sync.Map
	f := startFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conns.Store(r.Context().Value(http.LocalAddrContextKey), true)
		echoUpstream(w, r)
	}), nil)
	c := newClient(t, nil, false)
	reused := 0
	for range 10 {
		r := request(t, "GET", "http://"+f.addr+"/v2/", nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if i.Reused {
				reused++
			}
		}}))
		do(t, c, r)
	}
	if reused != 9 {
		t.Errorf("the edge kept its client's connection for %d of 9 requests", reused)
	}
}
