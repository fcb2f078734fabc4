package v2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/registryjwt"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// Request is what the pipeline knows of a request when its handler runs.
type Request struct {
	Namespace string // namespace name; "library" stands for names without one
	Repo      string // repository name, slashes included
	Reference string // ShapeManifest: tag or digest; ShapeBlobAny: whatever stood there
	Digest    string // ShapeManifest by digest, ShapeBlob, ShapeReferrers; not checked beyond its form
	UploadID  string // ShapeUpload
	// Access is what the bearer token says.
	Access Access
	Log    *slog.Logger

	h         *Handler
	looked    bool
	row       *directory.Repository
	performed bool
	performer *auth.Performer
}

// Access is what a request's bearer token says: who and what. The database is not consulted again until it expires.
type Access struct {
	// HasContext tells that a valid token was sent, be it an anonymous one.
	HasContext bool
	Identity   auth.Identity
	grants     map[string]auth.Need
}

// Grants tells whether the token gives need on namespace/repo.
func (a Access) Grants(namespace, repo string, need auth.Need) bool {
	return a.grants[namespace+"/"+repo] >= need
}

// Name is namespace/repository.
func (q *Request) Name() string { return q.Namespace + "/" + q.Repo }

// Repository is the request's repository, looked up once. ok is false when there is none (any more).
func (q *Request) Repository(ctx context.Context) (repo directory.Repository, ok bool, err error) {
	if !q.looked {
		q.row, err = q.h.Directory.Repository(ctx, q.Namespace, q.Repo)
		if err != nil {
			return repo, false, err
		}
		q.looked = true
	}
	if q.row == nil {
		return repo, false, nil
	}
	return *q.row, true, nil
}

// MustRepository is Repository, or NAME_UNKNOWN.
func (q *Request) MustRepository(ctx context.Context) (directory.Repository, error) {
	repo, ok, err := q.Repository(ctx)
	if err == nil && !ok {
		err = regerr.NameUnknown()
	}
	return repo, err
}

// Performer is the account behind the token, looked up once; nil for anonymous requests and for accounts that are gone
// (their tokens still work until they expire).
func (q *Request) Performer(ctx context.Context) (*auth.Performer, error) {
	if !q.performed {
		p, err := q.h.Directory.Performer(ctx, q.Access.Identity)
		if err != nil {
			return nil, err
		}
		q.performer, q.performed = p, true
	}
	return q.performer, nil
}

// CanRead tells whether the request may read another repository: a grant in the same token, or a public repository.
func (q *Request) CanRead(ctx context.Context, namespace, repo string) (bool, error) {
	if q.Access.Grants(namespace, repo, auth.Read) {
		return true, nil
	}
	if !q.h.Config.Features.AnonymousAccess {
		return false, nil
	}
	row, err := q.h.Directory.Repository(ctx, namespace, repo)
	return row != nil && row.Public, err
}

// Event is an action log entry about the request's repository by its performer, with the members that every registry
// event has. A nil performer and a missing repository are fine.
func (q *Request) Event(r *http.Request, kind string, metadata map[string]any) (actionlog.Entry, error) {
	ctx := r.Context()
	e := actionlog.Entry{Kind: kind, Namespace: q.Namespace, IP: actionlog.ClientIP(r), Metadata: map[string]any{
		"repo": q.Repo, "namespace": q.Namespace, "user-agent": r.UserAgent(),
	}}
	if resolved := actionlog.ResolveIP(e.IP); resolved != nil {
		e.Metadata["resolved_ip"] = resolved
	}
	repo, ok, err := q.Repository(ctx)
	if err != nil {
		return e, err
	}
	if ok {
		e.RepositoryID, e.AccountID = &repo.ID, &repo.NamespaceUserID
	}
	p, err := q.Performer(ctx)
	if err != nil {
		return e, err
	}
	if p != nil {
		e.PerformerID = p.UserID
		for k, v := range p.Metadata {
			e.Metadata[k] = v
		}
	}
	for k, v := range metadata {
		e.Metadata[k] = v
	}
	return e, nil
}

// LogEvent writes an action log entry about the request: Event and Log in one.
func (h *Handler) LogEvent(r *http.Request, q *Request, kind string, metadata map[string]any) error {
	e, err := q.Event(r, kind, metadata)
	if err != nil {
		return fmt.Errorf("log %s: %w", kind, err)
	}
	return h.ActionLog.Log(r.Context(), e)
}

// authenticate reads the bearer token. No Authorization header means an anonymous request; a bad one is refused.
func (h *Handler) authenticate(r *http.Request, q *Request, surface *regerr.Surface) error {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil
	}
	token, err := h.Tokens.Verify(r.Context(), header)
	var bad *registryjwt.InvalidError
	switch {
	case errors.As(err, &bad):
		h.Metrics.BearerToken(false)
		return &regerr.Abort{Status: http.StatusUnauthorized, Message: bad.Message}
	case err != nil:
		return err
	}
	h.Metrics.BearerToken(true)
	q.Access = Access{HasContext: true, Identity: token.Identity, grants: map[string]auth.Need{}}
	library := ""
	if h.Config.Features.LibrarySupport {
		library = h.Config.LibraryNamespace
	}
	for _, a := range token.Access {
		// A scope may begin with the server's name, and its token says it as it was asked. What was decided about is
		// the repository behind it, never one of a namespace that is called like the server.
		namespace, repo := SplitName(strings.TrimPrefix(a.Name, h.Config.ServerHostname+"/"), library)
		key := namespace + "/" + repo
		q.Access.grants[key] = max(q.Access.grants[key], auth.NeedOfActions(a.Actions))
	}
	surface.Identity = func() string {
		p, err := q.Performer(context.WithoutCancel(r.Context()))
		if err != nil || p == nil {
			return ""
		}
		return p.Description
	}
	return nil
}

// permit checks the route's need. Public repositories and restricted users are the only reasons to ask the database.
func (h *Handler) permit(r *http.Request, q *Request, route *Route) error {
	if route.Need == auth.None {
		return nil
	}
	if !q.Access.Grants(q.Namespace, q.Repo, route.Need) {
		if route.Need != auth.Read {
			return regerr.Unauthorized()
		}
		repo, ok, err := q.Repository(r.Context())
		switch {
		case err != nil:
			return err
		case !ok || !repo.Public:
			return regerr.Unauthorized()
		case repo.Kind != directory.KindImage:
			return regerr.WrongKind(repo.Kind)
		case !h.Config.Features.AnonymousAccess:
			return regerr.Unauthorized()
		}
		return nil
	}
	if route.Need >= auth.Write && q.Access.Identity.Username == q.Namespace && auth.Restricted(h.Config, q.Namespace) {
		return regerr.Unauthorized().WithDetail("Disallowed for restricted users.")
	}
	return nil
}

// auditRefusal logs a refused request where the configuration asks for it.
func (h *Handler) auditRefusal(r *http.Request, q *Request, route *Route, refusal error) error {
	if route.FailureKind == "" || route.AuditFailures == nil || !route.AuditFailures(h.Config) {
		return nil
	}
	e, err := q.Event(r, route.FailureKind, nil)
	if err != nil {
		return fmt.Errorf("log %s: %w", route.FailureKind, err)
	}
	message := refusal.Error()
	var shown *regerr.Error
	if errors.As(refusal, &shown) {
		message = shown.Message
	}
	if e.RepositoryID == nil {
		message = "Repository does not exist"
		account, err := h.DB.Read(r.Context()).AccountByName(r.Context(), q.Namespace)
		switch {
		case err == nil:
			e.AccountID = &account.ID
		case !errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("log %s: %w", route.FailureKind, err)
		}
	}
	e.Metadata = map[string]any{"namespace": q.Namespace, "repo": q.Repo, "message": message}
	if q.Digest != "" {
		e.Metadata["manifest_digest"] = q.Digest
	} else if q.Reference != "" {
		e.Metadata["tag"] = q.Reference
	}
	return h.ActionLog.Log(r.Context(), e)
}
