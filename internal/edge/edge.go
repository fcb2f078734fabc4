package edge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/service"
)

// smallBody is the largest body of requests that carry neither a blob nor a version 1 layer: nginx's
// default, which the legacy server has for manifests.
const smallBody = 1 << 20

// Options say what an edge stands in front of.
type Options struct {
	Log     *slog.Logger
	Clock   clock.Clock
	Metrics *prometheus.Registry

	// Registryd is where /v2 and /v1 go.
	Registryd service.Addr
	// Storage maps local storage locations to directories; StorageRoot holds the directories of all
	// other locations, each under its location's name. Empty: registryd sends every blob itself.
	Storage     map[string]string
	StorageRoot string
	// Components are asked for /health.
	Components []Component
	// TLSDir holds ssl.cert and ssl.key; empty is plain HTTP.
	TLSDir string
	// LargestBlob is the largest body of an upload in bytes.
	LargestBlob int64
	// TrustForwardedProto: something in front ends TLS, its X-Forwarded-Proto counts.
	TrustForwardedProto bool
	// AccessLog writes a line for each request.
	AccessLog bool
}

// Edge is the front door.
type Edge struct {
	o       Options
	metrics *metrics
	pairs   *pairs // nil without TLS
	storage *storage
	health  *health
	proxy   *httputil.ReverseProxy
	// pooled keeps connections to registryd, for requests that net/http repeats when registryd closed
	// the connection at that moment; fresh dials for each of the others.
	pooled, fresh *http.Transport
	// dialLimit is how long a request waits for registryd.
	dialLimit time.Duration
}

// New makes an edge. It fails when TLS is wanted and there is no usable certificate.
func New(o Options) (*Edge, error) {
	e := &Edge{o: o, dialLimit: dialLimit, metrics: newMetrics(o.Metrics), storage: newStorage(o.Storage, o.StorageRoot)}
	if o.TLSDir != "" {
		e.pairs = newPairs(o.TLSDir, o.Log, o.Clock, e.metrics)
		if err := e.pairs.load(); err != nil {
			return nil, err
		}
	}
	e.health = newHealth(o.Components, e.storage, o.Clock)
	transport := func() *http.Transport {
		return &http.Transport{
			DialContext:           e.dial,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   256,
			IdleConnTimeout:       60 * time.Second, // below registryd's limit: the edge closes first
			ExpectContinueTimeout: 30 * time.Second,
			WriteBufferSize:       32 << 10,
		}
	}
	e.pooled, e.fresh = transport(), transport()
	e.fresh.DisableKeepAlives = true
	e.proxy = &httputil.ReverseProxy{
		Rewrite:        e.rewrite,
		Transport:      roundTripper(e.roundTrip),
		ModifyResponse: e.modify,
		ErrorHandler:   e.fail,
		BufferPool:     newBuffers(32 << 10),
		ErrorLog:       slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return e, nil
}

// Daemon returns the edge as a daemon; the caller adds where it listens.
func (e *Edge) Daemon() *service.Daemon {
	d := &service.Daemon{
		Name: "edge", Log: e.o.Log, Clock: e.o.Clock, Metrics: e.o.Metrics, Handler: e,
		Checks:  []service.Check{{Name: "storage", Run: e.storage.check}},
		OnDrain: []func(context.Context) error{e.close},
	}
	if e.pairs != nil {
		d.TLS = e.pairs.config()
		d.Checks = append(d.Checks, service.Check{Name: "certificate", Run: e.pairs.check})
		d.Background = append(d.Background, e.pairs.watch)
	}
	return d
}

// close lets go of connections and directories.
func (e *Edge) close(context.Context) error {
	e.pooled.CloseIdleConnections()
	e.fresh.CloseIdleConnections()
	e.health.close()
	return e.storage.close()
}

// exchange is one request on its way through the edge.
type exchange struct {
	id    string
	route route
	in    *http.Request
	out   *response
	began time.Time
	// noOffload: registryd shall send the bytes itself.
	noOffload bool
	// object and header are what registryd answered when it left the bytes to the edge.
	object string
	header http.Header
	// note is why the edge itself answered with an error.
	note string
	// whole: the handler returned; otherwise it panicked to break the connection off.
	whole bool
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// ServeHTTP answers one request.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{id: requestID(r.Header.Values(headerRequestID)), route: classify(r.URL.Path), began: e.o.Clock.Now()}
	x.out = &response{ResponseWriter: w, tls: r.TLS != nil, kernel: r.TLS == nil && r.ProtoMajor == 1}
	x.in = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	w.Header().Set(headerRequestID, x.id)
	defer e.finish(x)
	e.answer(x)
	x.whole = true
}

// answer sends the request where it belongs.
func (e *Edge) answer(x *exchange) {
	switch x.route {
	case routeHealth:
		e.health.serve(x.out, x.in)
	case routePing1:
		servePing1(x.out, x.in)
	case routeInternalPing:
		serveTrue(x.out, x.in, "text/html; charset=utf-8")
	case routeOther:
		x.note = "no such route"
		writeError(x.out, http.StatusNotFound, map[string]any{"error": "Not Found",
			"message": fmt.Sprintf("%s is no route of this registry; images are under /v2/, health is /health/instance", x.in.URL.Path)})
	default:
		e.forward(x)
	}
}

// finish counts and logs the request, also when its connection was aborted.
func (e *Edge) finish(x *exchange) {
	took := e.o.Clock.Now().Sub(x.began)
	status := x.out.status
	if status == 0 {
		status = http.StatusOK
		if !x.whole {
			status = statusGone
		}
	}
	e.metrics.observe(x.route, status, took, x.out.sent)
	if e.o.AccessLog {
		attrs := []slog.Attr{
			slog.String("id", x.id), slog.String("client", x.in.RemoteAddr), slog.String("method", x.in.Method),
			slog.String("host", x.in.Host), slog.String("path", x.in.URL.Path), slog.String("query", publicQuery(x.in.URL.RawQuery)),
			slog.String("protocol", x.in.Proto), slog.String("agent", x.in.UserAgent()), slog.String("route", string(x.route)),
			slog.Int("status", status), slog.Int64("bytes", x.out.sent), slog.Float64("seconds", took.Seconds()),
			slog.Bool("offload", x.object != ""),
		}
		if x.note != "" {
			attrs = append(attrs, slog.String("error", x.note))
		}
		if !x.whole {
			attrs = append(attrs, slog.Bool("aborted", true))
		}
		level := slog.LevelInfo
		if x.route == routeHealth && status == http.StatusOK {
			level = slog.LevelDebug
		}
		e.o.Log.LogAttrs(x.in.Context(), level, "request", attrs...)
	}
}

// publicParameters are the query parameters that hold no secret.
var publicParameters = map[string]bool{
	"digest": true, "mount": true, "from": true, "n": true, "last": true, "scope": true, "service": true,
	"account": true, "artifactType": true, "next_page": true, "client_id": true, "offline_token": true, "q": true,
}

// publicQuery is the query as a log may show it.
func publicQuery(raw string) string {
	if raw == "" {
		return ""
	}
	parts := strings.Split(raw, "&")
	for i, p := range parts {
		k, _, ok := strings.Cut(p, "=")
		if name, err := url.QueryUnescape(k); ok && (err != nil || !publicParameters[name]) {
			parts[i] = k + "=***"
		}
	}
	return strings.Join(parts, "&")
}

const headerRequestID = "X-Request-Id"

// requestID returns the client's id when it sent exactly one that is harmless in logs, else a new one.
func requestID(given []string) string {
	if len(given) == 1 && validID(given[0]) {
		return given[0]
	}
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func validID(s string) bool {
	if len(s) == 0 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune("-_.:/+=@", rune(c)) {
			return false
		}
	}
	return true
}

// route is a family of requests, as metrics and logs name it.
type route string

const (
	routePing2        route = "v2"
	routeToken        route = "token"
	routeCatalog      route = "catalog"
	routeUpload       route = "upload"
	routeBlob         route = "blob"
	routeManifest     route = "manifest"
	routeTags         route = "tags"
	routeReferrers    route = "referrers"
	routeV1           route = "v1"
	routePing1        route = "v1-ping"
	routeHealth       route = "health"
	routeInternalPing route = "ping"
	routeOther        route = "other"
)

// classify tells a path's family. The last marker counts, because a repository may be called
// "a/blobs/b".
func classify(path string) route {
	switch path {
	case "/health", "/health/instance", "/health/endtoend", "/health/warning", "/status":
		return routeHealth
	case "/v1/_ping":
		return routePing1
	case "/_internal_ping":
		return routeInternalPing
	case "/v1":
		return routeV1
	case "/v2/auth":
		return routeToken
	case "/v2/_catalog":
		return routeCatalog
	}
	if strings.HasPrefix(path, "/v1/") {
		return routeV1
	}
	rest, ok := strings.CutPrefix(path, "/v2")
	if !ok || rest != "" && rest[0] != '/' {
		return routeOther
	}
	family, at := routePing2, -1
	for _, m := range []struct {
		text   string
		family route
	}{{"/blobs/", routeBlob}, {"/manifests/", routeManifest}, {"/tags/", routeTags}, {"/referrers/", routeReferrers}} {
		if i := strings.LastIndex(rest, m.text); i > at {
			family, at = m.family, i
		}
	}
	if family == routeBlob && strings.HasPrefix(rest[at:]+"/", "/blobs/uploads/") {
		return routeUpload
	}
	return family
}

// writeError answers in JSON.
func writeError(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, http.StatusText(status), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	w.Write(append(text, '\n')) //nolint:errcheck // the client went away
}

// writeRegistryError answers in the shape of the OCI distribution specification.
func writeRegistryError(w http.ResponseWriter, status int, code, message string, detail any) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	writeError(w, status, map[string]any{"errors": []map[string]any{{"code": code, "message": message, "detail": detail}}})
}

// serveTrue answers "true", as the legacy server's pings do.
func serveTrue(w http.ResponseWriter, r *http.Request, contentType ...string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		methodNotAllowed(w)
		return
	}
	w.Header()["Content-Type"] = contentType
	w.Header().Set("Content-Length", "4")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		w.Write([]byte("true")) //nolint:errcheck // the client went away
	}
}

// servePing1 answers /v1/_ping as the legacy nginx does, with both of its Content-Type lines.
func servePing1(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Docker-Registry-Version", "0.6.0")
	w.Header().Set("X-Docker-Registry-Standalone", "0")
	serveTrue(w, r, "application/octet-stream", "text/plain")
}

// methodNotAllowed answers as the legacy web process does.
func methodNotAllowed(w http.ResponseWriter) {
	const page = "<!doctype html>\n<html lang=en>\n<title>405 Method Not Allowed</title>\n<h1>Method Not Allowed</h1>\n" +
		"<p>The method is not allowed for the requested URL.</p>\n"
	w.Header().Set("Allow", "GET, HEAD, OPTIONS")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(page)))
	w.WriteHeader(http.StatusMethodNotAllowed)
	w.Write([]byte(page)) //nolint:errcheck // the client went away
}

// clientAddress is the address that X-Forwarded-For tells; a unix socket's peer has none.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}
