// Package v2 is the distribution protocol under /v2/: a table of routes, the pipeline that every request runs
// through before its handler, and the handlers, one file per family. The rules are the legacy server's, as recorded
// in the contract; what differs from them says so where it is done.
package v2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/registryjwt"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/registry/telemetry"
	"github.com/quayctl/quayctl/internal/storage"
)

// Deps are what the handlers work with. All are needed, and all outlive the Handler.
type Deps struct {
	DB        *metadata.DB
	Storage   *storage.Set
	Clock     clock.Clock
	Config    *config.Config
	Log       *slog.Logger
	Metrics   *telemetry.Metrics
	ActionLog *actionlog.Writer
	// Tokens verifies bearer tokens.
	Tokens *registryjwt.Verifier
	// Directory looks up repositories and accounts.
	Directory *directory.Directory
	// PullThrough fills organizations that cache another registry; nil where there are none.
	PullThrough PullThrough
}

// PullThrough sees that a repository of an organization that caches another registry has what is about to be read, and makes the
// repository where it is missing. For other organizations it does nothing, and proxied is false. Its errors are answered as they are.
type PullThrough interface {
	Tag(ctx context.Context, namespace, repository, tag string, who *auth.Performer) (proxied bool, err error)
	Manifest(ctx context.Context, namespace, repository, digest string, who *auth.Performer) (proxied bool, err error)
	Blob(ctx context.Context, namespace, repository, digest string) error
}

// Route is one method on one shape of path.
type Route struct {
	// Name is the endpoint in metrics and logs, as the legacy server calls it, e.g. "v2.fetch_manifest_by_tagname".
	Name string
	// Method that is served; GET serves HEAD too.
	Method string
	Shape  Shape
	// Need is what the token must grant. Read is also given by a public repository. None asks for no repository
	// permission; a bad token is refused all the same.
	Need auth.Need
	// Scope are the actions a challenge asks for: "pull", or "pull,push"; empty for none.
	Scope string
	// EvenWhenPushesDisabled exempts a write route from cfg DISABLE_PUSHES.
	EvenWhenPushesDisabled bool
	// FailureKind is the action log's kind for refused requests, e.g. "pull_repo_failed", and AuditFailures tells whether
	// the configuration asks for them. Both are empty for everything but manifests: requests for blobs are not audited.
	FailureKind   string
	AuditFailures func(*config.Config) bool
	// Gate, if set, runs before the token is looked at (media types of manifests).
	Gate func(h *Handler, r *http.Request, q *Request) error
	// Handle answers, or returns an error of package regerr (or any other: 500). It must not write before
	// returning an error.
	Handle func(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error
}

// Handler serves /v2/ except /v2/auth.
type Handler struct {
	Deps
	routes  map[Shape][]Route
	allowed map[Shape][]string
}

// New makes a Handler of the routes; each family of handlers has a function that lists its own.
func New(d Deps, families ...[]Route) (*Handler, error) {
	h := &Handler{Deps: d, routes: map[Shape][]Route{}, allowed: map[Shape][]string{}}
	for _, route := range slices.Concat(families...) {
		for _, other := range h.routes[route.Shape] {
			if other.Method == route.Method {
				return nil, fmt.Errorf("add route %s: %s serves %s on this path already", route.Name, other.Name, route.Method)
			}
		}
		h.routes[route.Shape] = append(h.routes[route.Shape], route)
	}
	for shape, routes := range h.routes {
		h.allowed[shape] = allowed(routes)
	}
	return h, nil
}

func allowed(routes []Route) []string {
	methods := []string{http.MethodOptions}
	for _, r := range routes {
		methods = append(methods, r.Method)
		if r.Method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return slices.Compact(methods)
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := h.Clock.Now()
	aw := &answer{ResponseWriter: w}
	surface := &regerr.Surface{Challenge: h.challenge("")}
	r = r.WithContext(regerr.WithSurface(r.Context(), surface))
	q := &Request{h: h, Log: h.Log}
	route, err := h.route(r, q, surface)
	if err == nil && r.Method == http.MethodOptions {
		aw.Header().Set("Allow", strings.Join(surface.Allow, ", "))
		aw.Header().Set("Content-Type", "text/html; charset=utf-8")
		aw.WriteHeader(http.StatusOK)
	} else if err == nil {
		err = h.serve(aw, r, q, route, surface)
	}
	if err != nil {
		h.fail(aw, r, q, err)
	}
	name, namespace := "", ""
	if route != nil {
		name, namespace = route.Name, q.Namespace
	}
	h.Metrics.Request(r.Method, name, namespace, aw.Status(), h.Clock.Now().Sub(begin))
}

// route finds the route of a request and fills q with what its path says.
func (h *Handler) route(r *http.Request, q *Request, surface *regerr.Surface) (*Route, error) {
	path := r.URL.Path
	if path == "/v2" {
		return nil, RedirectTo(h.Config, r, "/v2/")
	}
	if strings.Contains(path, "//") {
		merged := MergeSlashes(r.URL.EscapedPath())
		if decoded, err := url.PathUnescape(merged); err == nil {
			if _, ok := parsePath(decoded); ok {
				return nil, RedirectTo(h.Config, r, merged)
			}
		}
		return nil, regerr.NotFound
	}
	p, ok := parsePath(path)
	if !ok {
		return nil, regerr.NotFound
	}
	library := ""
	if h.Config.Features.LibrarySupport {
		library = h.Config.LibraryNamespace
	} else if p.repo != "" && !strings.Contains(p.repo, "/") {
		return nil, regerr.NotFound
	}
	if p.repo != "" {
		q.Namespace, q.Repo = SplitName(p.repo, library)
	}
	q.Reference, q.Digest, q.UploadID = p.reference, p.digest, p.uploadID

	shapes := []Shape{p.shape}
	if p.shape == ShapeBlob {
		shapes = append(shapes, ShapeBlobAny)
	}
	var routes []Route
	for _, shape := range shapes {
		routes = append(routes, h.routes[shape]...)
		surface.Allow = append(surface.Allow, h.allowed[shape]...)
	}
	if len(routes) == 0 {
		return nil, regerr.NotFound
	}
	slices.Sort(surface.Allow)
	surface.Allow = slices.Compact(surface.Allow)
	if r.Method == http.MethodOptions {
		return nil, nil
	}
	for i := range routes {
		if m := routes[i].Method; m == r.Method || m == http.MethodGet && r.Method == http.MethodHead {
			return &routes[i], nil
		}
	}
	if p.noSlash && r.Method == http.MethodPost {
		return nil, RedirectTo(h.Config, r, r.URL.EscapedPath()+"/")
	}
	return nil, regerr.MethodNotAllowed
}

// RedirectTo is to another path of the same server the client asked, with its query.
func RedirectTo(c *config.Config, r *http.Request, escapedPath string) error {
	target := c.PreferredURLScheme + "://" + r.Host + escapedPath
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	return &regerr.Redirect{URL: target}
}

// MergeSlashes makes one slash of several in a row.
func MergeSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// serve runs the pipeline in its contractual order: account recovery, gate, bearer token, permission, restricted users,
// read-only, pushes disabled; then the handler.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, q *Request, route *Route, surface *regerr.Surface) error {
	if h.Config.AccountRecoveryMode && route.Shape != ShapePing {
		return &regerr.Abort{Status: http.StatusMethodNotAllowed, Message: "Quay running for account recoveries only."}
	}
	if route.Scope != "" {
		surface.Challenge = h.challenge("repository:" + q.Name() + ":" + route.Scope)
	}
	if route.Gate != nil {
		if err := route.Gate(h, r, q); err != nil {
			return err
		}
	}
	if err := h.authenticate(r, q, surface); err != nil {
		return err
	}
	if err := h.permit(r, q, route); err != nil {
		if regerr.Status(err) == http.StatusUnauthorized {
			err = errors.Join(err, h.auditRefusal(r, q, route, err))
		}
		return err
	}
	if route.Need >= auth.Write && r.Method != http.MethodGet {
		if h.Config.RegistryState == "readonly" {
			return regerr.ReadOnly()
		}
		if h.Config.DisablePushes && !route.EvenWhenPushesDisabled {
			return regerr.PushesDisabled()
		}
	}
	return route.Handle(h, w, r, q)
}

// fail answers with err, or cuts the connection when the answer has begun.
func (h *Handler) fail(w *answer, r *http.Request, q *Request, err error) {
	if status := regerr.Status(err); status >= http.StatusInternalServerError && r.Context().Err() == nil {
		q.Log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	}
	if w.status != 0 {
		panic(http.ErrAbortHandler) // the only way to tell a client that the body it is reading is not whole
	}
	regerr.Write(w, r, err)
}

// challenge is the value of WWW-Authenticate; scope may be empty.
func (h *Handler) challenge(scope string) string {
	return Challenge(h.Config, scope)
}

// Challenge is the value of WWW-Authenticate that sends clients to the token endpoint; scope may be empty.
func Challenge(c *config.Config, scope string) string {
	s := `Bearer realm="` + c.PreferredURLScheme + "://" + c.ServerHostname + `/v2/auth",service="` + c.ServerHostname + `"`
	if scope != "" {
		s += `,scope="` + scope + `"`
	}
	return s
}

// URL is an absolute URL of this registry, as Location headers need it.
func (h *Handler) URL(path string) string {
	return h.Config.PreferredURLScheme + "://" + h.Config.ServerHostname + path
}

// answer remembers the status that went out.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Status that went out; 200 when the handler wrote nothing.
func (a *answer) Status() int {
	if a.status == 0 {
		return http.StatusOK
	}
	return a.status
}
