// Package v1 is the protocol that clients spoke before the distribution protocol, under /v1/: users, repositories, images one
// layer at a time, tags, search. Pushed images become signed schema 1 manifests, and whatever manifest there is can be pulled as
// images, so that both protocols see the same repositories. The rules are the legacy server's, as recorded in the contract.
//
// A client authenticates with Basic or with a signed grant that an earlier answer gave it. The routes of images name no
// repository; it stands in the session cookie, where also the state of a push lives.
package v1

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/speps/go-hashids/v2"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/itsdangerous"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/push"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/registry/telemetry"
	"github.com/quayctl/quayctl/internal/registry/upload"
	v2 "github.com/quayctl/quayctl/internal/registry/v2"
	"github.com/quayctl/quayctl/internal/storage"
)

// Deps are what the handlers work with. All are needed, and all outlive the Handler.
type Deps struct {
	DB          *metadata.DB
	Storage     *storage.Set
	Locks       locks.Locker // those under which blobs are collected
	Clock       clock.Clock
	Config      *config.Config
	ConfigDir   string // may hold docker_v2.pem
	Log         *slog.Logger
	Metrics     *telemetry.Metrics
	ActionLog   *actionlog.Writer
	Directory   *directory.Directory
	Credentials *auth.Credentials
	Permissions *auth.Permissions
}

// Handler serves /v1/.
type Handler struct {
	Deps
	serializer *itsdangerous.Serializer
	cookie     cookieSettings
	ids        *hashids.HashID
	signer     *signer
	uploads    *upload.Uploads
	push       *push.Pusher
	retag      *push.Pusher // keeps an unnamed manifest only as long as a retagging takes
}

// New makes a Handler.
func New(d Deps) (*Handler, error) {
	h := &Handler{Deps: d, signer: newSigner(d.ConfigDir, d.Clock)}
	secret := d.Config.SecretKey.Reveal()
	if secret == "" { // sessions and grants then end with the process
		random := make([]byte, 32)
		_, _ = rand.Read(random) // never fails
		secret = hex.EncodeToString(random)
	}
	h.serializer = itsdangerous.New(secret)
	var err error
	if h.cookie, err = readCookieSettings(d.Config); err != nil {
		return nil, err
	}
	if h.ids, err = newImageIDs(d.Config.PageTokenKey.Reveal()); err != nil {
		return nil, err
	}
	h.uploads = &upload.Uploads{
		DB: d.DB, Storage: d.Storage, Locks: d.Locks, Clock: d.Clock, Log: d.Log,
		MaxSize: d.Config.MaximumLayerSize.Bytes(),
		LinkFor: time.Duration(d.Config.PushTempTagExpirationSec) * time.Second,
	}
	c := d.Config
	settings := push.Settings{
		TemporaryTag:           time.Duration(c.PushTempTagExpirationSec) * time.Second,
		ImmutableTags:          c.Features.ImmutableTags,
		ImmutableTagsCanExpire: c.Features.ImmutableTagsCanExpire,
		SparseIndex:            c.Features.SparseIndex,
		Replication:            c.Features.StorageReplication,
		ReplicationQueue:       c.ReplicationQueueName,
		Quota:                  c.Features.QuotaManagement, // is counted, but never refuses: VerifyQuota is off
		InvalidateQuota:        c.QuotaInvalidateTotals,
		ResetChildExpiration:   c.ResetChildManifestExpiry,
		NotificationQueue:      c.NotificationQueueName,
		ServerHostname:         c.ServerHostname,
		URLScheme:              c.PreferredURLScheme,
		Silent:                 true,
	}
	h.push = &push.Pusher{DB: d.DB, Storage: d.Storage, Clock: d.Clock, Settings: settings}
	// The tag push that follows asks for 300 seconds from then on.
	settings.TemporaryTag = 310 * time.Second
	h.retag = &push.Pusher{DB: d.DB, Storage: d.Storage, Clock: d.Clock, Settings: settings}
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := h.Clock.Now()
	surface := &regerr.Surface{}
	r = r.WithContext(regerr.WithSurface(r.Context(), surface))
	q := &request{h: h, r: r, who: &auth.Principal{}}
	q.session = &session{h: h, r: r}
	q.w = &answer{ResponseWriter: w, session: q.session}
	name := ""
	route, err := h.find(q, surface)
	switch {
	case err != nil:
	case r.Method == http.MethodOptions:
		q.w.Header().Set("Allow", strings.Join(surface.Allow, ", "))
		text(q.w, http.StatusOK, "")
	default:
		name = "v1." + route.name
		surface.Identity = func() string {
			if q.who.Performer == nil {
				return ""
			}
			return q.who.Performer.Description
		}
		err = route.handle(q)
	}
	if err != nil {
		h.fail(q, err)
	}
	h.Metrics.Request(r.Method, name, q.namespace, q.w.Status(), h.Clock.Now().Sub(begin))
}

// fail answers with err, or cuts the connection when the answer has begun.
func (h *Handler) fail(q *request, err error) {
	status := regerr.Status(err)
	if metadata.IsUnavailable(err) {
		err = regerr.Unavailable(err)
	}
	if (status >= http.StatusInternalServerError && status != http.StatusNotImplemented) && q.r.Context().Err() == nil {
		h.Log.ErrorContext(q.r.Context(), "request failed", "method", q.r.Method, "path", q.r.URL.Path, "status", status, "error", err)
	}
	if q.w.status != 0 {
		panic(http.ErrAbortHandler) // the only way to tell a client that the body it is reading is not whole
	}
	regerr.Write(q.w, q.r, err)
}

// route is one method on one form of path.
type route struct {
	name, method string
	handle       func(*request) error
}

var (
	pingRoutes         = []route{{"ping", http.MethodGet, (*request).ping}}
	internalPingRoutes = []route{{"internal_ping", http.MethodGet, (*request).internalPing}}
	usersRoutes        = []route{{"create_user", http.MethodPost, (*request).signIn}, {"get_user", http.MethodGet, (*request).user}}
	userRoutes         = []route{{"update_user", http.MethodPut, (*request).changeUser}}
	searchRoutes       = []route{{"get_search", http.MethodGet, (*request).search}}
	repositoryRoutes   = []route{{"create_repository", http.MethodPut, (*request).beginPush}}
	authRoutes         = []route{{"put_repository_auth", http.MethodPut, (*request).repositoryAuth}}
	imagesRoutes       = []route{{"get_repository_images", http.MethodGet, (*request).beginPull},
		{"update_images", http.MethodPut, (*request).endPush}, {"delete_repository_images", http.MethodDelete, (*request).deleteImages}}
	tagsRoutes = []route{{"get_tags", http.MethodGet, (*request).tags}}
	tagRoutes  = []route{{"get_tag", http.MethodGet, (*request).tag}, {"put_tag", http.MethodPut, (*request).putTag},
		{"delete_tag", http.MethodDelete, (*request).deleteTag}}
	imageRoutes = map[string][]route{
		"layer": {{"head_image_layer", http.MethodHead, (*request).headLayer}, {"get_image_layer", http.MethodGet, (*request).layer},
			{"put_image_layer", http.MethodPut, (*request).putLayer}},
		"json":     {{"get_image_json", http.MethodGet, (*request).imageJSON}, {"put_image_json", http.MethodPut, (*request).putImageJSON}},
		"ancestry": {{"get_image_ancestry", http.MethodGet, (*request).ancestry}},
		"checksum": {{"put_image_checksum", http.MethodPut, (*request).putChecksum}},
	}
)

// find finds the route of a request and fills q with what its path says. For OPTIONS it finds only what is allowed.
func (h *Handler) find(q *request, surface *regerr.Surface) (*route, error) {
	path := q.r.URL.Path
	routes, slash := h.routes(q, path)
	if routes == nil {
		if strings.Contains(path, "//") {
			merged := v2.MergeSlashes(q.r.URL.EscapedPath())
			if decoded, err := url.PathUnescape(merged); err == nil {
				if routes, _ := h.routes(q, decoded); routes != nil {
					return nil, v2.RedirectTo(h.Config, q.r, merged)
				}
			}
		}
		return nil, regerr.NotFound
	}
	surface.Allow = []string{http.MethodOptions}
	for _, one := range routes {
		surface.Allow = append(surface.Allow, one.method)
		if one.method == http.MethodGet {
			surface.Allow = append(surface.Allow, http.MethodHead)
		}
	}
	slices.Sort(surface.Allow)
	surface.Allow = slices.Compact(surface.Allow)
	if q.r.Method == http.MethodOptions {
		return nil, nil
	}
	for i := range routes {
		if m := routes[i].method; m == q.r.Method || m == http.MethodGet && q.r.Method == http.MethodHead {
			if slash {
				return nil, v2.RedirectTo(h.Config, q.r, q.r.URL.EscapedPath()+"/")
			}
			return &routes[i], nil
		}
	}
	return nil, regerr.MethodNotAllowed
}

// routes are the routes of a path, none when it is no path of ours; slash tells that its final slash is missing.
func (h *Handler) routes(q *request, path string) (routes []route, slash bool) {
	rest, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return nil, false
	}
	switch rest {
	case "_ping":
		return pingRoutes, false
	case "_internal_ping":
		return internalPingRoutes, false
	case "users", "users/":
		return usersRoutes, false
	case "search":
		return searchRoutes, false
	}
	family, rest, _ := strings.Cut(rest, "/")
	switch family {
	case "users":
		name, final := strings.CutSuffix(rest, "/")
		if name == "" || strings.Contains(name, "/") {
			return nil, false
		}
		q.username = name
		return userRoutes, !final
	case "images":
		id, what, _ := strings.Cut(rest, "/")
		if id == "" {
			return nil, false
		}
		q.image = id
		return imageRoutes[what], false
	case "repositories":
		return h.repositoryRoutes(q, rest)
	}
	return nil, false
}

func (h *Handler) repositoryRoutes(q *request, rest string) ([]route, bool) {
	if head, tag, ok := cutLast(rest); ok && tag != "" {
		if name, found := strings.CutSuffix(head, "/tags"); found && h.named(q, name) {
			q.tagName = tag
			return tagRoutes, false
		}
	}
	for suffix, routes := range map[string][]route{"/images": imagesRoutes, "/auth": authRoutes, "/tags": tagsRoutes} {
		if name, found := strings.CutSuffix(rest, suffix); found && h.named(q, name) {
			return routes, false
		}
	}
	name, final := strings.CutSuffix(rest, "/")
	for _, word := range []string{"auth", "tags", "images"} { // the end of such names is taken for a resource
		if strings.HasSuffix(name, word) {
			return nil, false
		}
	}
	if !h.named(q, name) {
		return nil, false
	}
	return repositoryRoutes, !final
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// abort is an error in the form that most routes of /v1 answer with; an empty message is the status's default.
func abort(status int, format string, args ...any) error {
	return &regerr.Abort{Status: status, Message: fmt.Sprintf(format, args...)}
}

// bodyError is a request's body that could not be read.
func bodyError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return abort(http.StatusRequestEntityTooLarge, "The body is larger than the allowed %d bytes", large.Limit)
	}
	return errors.Join(&regerr.Page{Status: http.StatusBadRequest}, err)
}
