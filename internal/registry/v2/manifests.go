package v2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/pagetoken"
	"github.com/quayctl/quayctl/internal/registry/push"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// maxManifest is the largest manifest that is read, in bytes: what the distribution specification asks for at least.
const maxManifest = 4 << 20

// manifests are the handlers of manifests, tags, referrers and the catalogue.
type manifests struct {
	push  *push.Pusher
	pages *pagetoken.Codec
	// ociNamespaces may push OCI manifests although FEATURE_GENERAL_OCI_SUPPORT is off; schema1Namespaces only schema 1.
	ociNamespaces, schema1Namespaces []string
}

// ManifestRoutes are the routes of manifests, tags, referrers and the catalogue.
func ManifestRoutes(d Deps) ([]Route, error) {
	pages, err := pagetoken.New(d.Config.PageTokenKey.Reveal(), d.Clock)
	if err != nil {
		return nil, err
	}
	m := &manifests{pages: pages, push: &push.Pusher{DB: d.DB, Storage: d.Storage, Clock: d.Clock, Settings: pushSettings(d.Config)}}
	for key, list := range map[string]*[]string{"OCI_NAMESPACE_WHITELIST": &m.ociNamespaces, "V22_NAMESPACE_BLACKLIST": &m.schema1Namespaces} {
		if value, ok := d.Config.Other[key]; ok {
			if err := value.Decode(list); err != nil {
				return nil, fmt.Errorf("read %s: %w", key, err)
			}
		}
	}
	auditPull := func(c *config.Config) bool { return c.AuditPullFailures }
	auditPush := func(c *config.Config) bool { return c.AuditPushFailures }
	auditDelete := func(c *config.Config) bool { return c.AuditDeleteFailures }
	return []Route{
		{Name: "v2.fetch_manifest", Method: http.MethodGet, Shape: ShapeManifest, Need: auth.Read, Scope: "pull",
			FailureKind: "pull_repo_failed", AuditFailures: auditPull, Handle: m.get},
		{Name: "v2.write_manifest", Method: http.MethodPut, Shape: ShapeManifest, Need: auth.Write, Scope: "pull,push",
			FailureKind: "push_repo_failed", AuditFailures: auditPush, Gate: m.gate, Handle: m.put},
		{Name: "v2.delete_manifest", Method: http.MethodDelete, Shape: ShapeManifest, Need: auth.Write, Scope: "pull,push",
			FailureKind: "delete_tag_failed", AuditFailures: auditDelete, Handle: m.delete},
		{Name: "v2.list_all_tags", Method: http.MethodGet, Shape: ShapeTags, Need: auth.Read, Scope: "pull", Handle: m.tags},
		{Name: "v2.list_manifest_referrers", Method: http.MethodGet, Shape: ShapeReferrers, Need: auth.Read, Scope: "pull", Handle: m.referrers},
		{Name: "v2.catalog_search", Method: http.MethodGet, Shape: ShapeCatalog, Need: auth.None, Handle: m.catalog},
	}, nil
}

func pushSettings(c *config.Config) push.Settings {
	return push.Settings{
		TemporaryTag:           time.Duration(c.PushTempTagExpirationSec) * time.Second,
		ImmutableTags:          c.Features.ImmutableTags,
		ImmutableTagsCanExpire: c.Features.ImmutableTagsCanExpire,
		SparseIndex:            c.Features.SparseIndex,
		Replication:            c.Features.StorageReplication,
		ReplicationQueue:       c.ReplicationQueueName,
		Quota:                  c.Features.QuotaManagement,
		VerifyQuota:            c.Features.VerifyQuota,
		InvalidateQuota:        c.QuotaInvalidateTotals,
		SystemRejectBytes:      c.DefaultSystemRejectQuota,
		ResetChildExpiration:   c.ResetChildManifestExpiry,
		NotificationQueue:      c.NotificationQueueName,
		ServerHostname:         c.ServerHostname,
		URLScheme:              c.PreferredURLScheme,
	}
}

// pushTarget is the repository of a request as package push wants it.
func pushTarget(repo directory.Repository) push.Repository {
	return push.Repository{ID: repo.ID, NamespaceID: repo.NamespaceUserID, Namespace: repo.Namespace, Name: repo.Name,
		NamespaceEnabled: repo.NamespaceEnabled}
}

// document is a manifest as it goes out.
type document struct{ digest, mediaType, bytes string }

// get serves a manifest by tag, converted to what the client accepts, or by digest as it is.
func (m *manifests) get(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) (err error) {
	reference := "tag"
	if q.Digest != "" {
		reference = "manifest"
	}
	defer func() { h.Metrics.Pull(reference, statusOf(err, http.StatusOK)) }()
	proxied, err := m.pullThrough(h, r.Context(), q)
	if err != nil {
		return err
	}
	repo, err := q.MustRepository(r.Context())
	if err != nil {
		return err
	}
	var d document
	event := map[string]any{}
	if q.Digest != "" {
		d, err = m.byDigest(h, r.Context(), repo.ID, q.Digest)
		event["manifest_digest"] = q.Digest
	} else {
		d, err = m.byTag(h, r, q, repo.ID, proxied)
		event["tag"] = q.Reference
	}
	if err != nil {
		return err
	}
	event["mediaType"] = d.mediaType
	if err := h.LogEvent(r, q, "pull_repo", event); err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", d.mediaType)
	header.Set("Docker-Content-Digest", d.digest)
	return answerBody(w, r, http.StatusOK, d.bytes)
}

// pullThrough lets what the request is about be fetched where another registry is cached.
func (m *manifests) pullThrough(h *Handler, ctx context.Context, q *Request) (proxied bool, err error) {
	if h.PullThrough == nil {
		return false, nil
	}
	who, err := q.Performer(ctx)
	if err != nil {
		return false, err
	}
	if q.Digest != "" {
		return h.PullThrough.Manifest(ctx, q.Namespace, q.Repo, q.Digest, who)
	}
	return h.PullThrough.Tag(ctx, q.Namespace, q.Repo, q.Reference, who)
}

func (m *manifests) byDigest(h *Handler, ctx context.Context, repositoryID int64, digest string) (document, error) {
	row, err := h.DB.Read(ctx).ManifestByDigest(ctx, sqlc.ManifestByDigestParams{RepositoryID: repositoryID, Digest: digest,
		NowMs: h.Clock.Now().UnixMilli()})
	if errors.Is(err, pgx.ErrNoRows) {
		return document{}, regerr.ManifestUnknown()
	}
	if err != nil {
		return document{}, fmt.Errorf("look up manifest %s: %w", digest, err)
	}
	return document{row.Digest, row.MediaType, row.ManifestBytes}, nil
}

func (m *manifests) byTag(h *Handler, r *http.Request, q *Request, repositoryID int64, proxied bool) (document, error) {
	ctx, tag, now := r.Context(), q.Reference, h.Clock.Now().UnixMilli()
	row, err := h.DB.Read(ctx).ManifestByTag(ctx, sqlc.ManifestByTagParams{RepositoryID: repositoryID, Name: tag, NowMs: now})
	if errors.Is(err, pgx.ErrNoRows) {
		ended, err := h.DB.Read(ctx).TagHasEnded(ctx, sqlc.TagHasEndedParams{RepositoryID: repositoryID, Name: tag, NowMs: now})
		switch {
		case err != nil:
			return document{}, fmt.Errorf("look up ended tag %s: %w", tag, err)
		case ended:
			return document{}, regerr.TagExpired(tag)
		}
		return document{}, regerr.ManifestUnknown()
	}
	if err != nil {
		return document{}, fmt.Errorf("look up tag %s: %w", tag, err)
	}
	return m.negotiate(h, r, q, repositoryID, document{row.Digest, row.MediaType, row.ManifestBytes}, proxied)
}

// negotiate gives the client what it accepts: the document as it is, of a list its child for linux/amd64, or, whatever
// it says that it accepts, schema 1. What is proxied goes as it is or not at all: its parts need not be here.
func (m *manifests) negotiate(h *Handler, r *http.Request, q *Request, repositoryID int64, d document, proxied bool) (document, error) {
	ctx, accepts := r.Context(), acceptTypes(r)
	fits := func(d document) bool {
		return slices.Contains(accepts, d.mediaType) || d.mediaType == manifest.DockerSchema1 || d.mediaType == manifest.DockerSchema1Signed
	}
	if d.mediaType == manifest.DockerSchema1Signed && !slices.Contains(accepts, d.mediaType) && slices.Contains(accepts, manifest.DockerSchema1) {
		return unsigned(d)
	}
	if fits(d) {
		return d, nil
	}
	if proxied {
		return document{}, regerr.ManifestUnknown().WithMessage("manifest is not acceptable by the client")
	}
	parsed, err := manifest.Parse(d.mediaType, []byte(d.bytes))
	if err != nil {
		return document{}, fmt.Errorf("parse stored manifest %s: %w", d.digest, err)
	}
	if parsed.IsList() {
		child, ok := parsed.LinuxAMD64()
		if !ok {
			return document{}, regerr.ManifestUnknown()
		}
		rows, err := h.DB.Read(ctx).ManifestsOfDigests(ctx, sqlc.ManifestsOfDigestsParams{RepositoryID: repositoryID, Digests: []string{child.Digest}})
		if err != nil {
			return document{}, fmt.Errorf("look up child %s: %w", child.Digest, err)
		}
		if len(rows) == 0 {
			return document{}, regerr.ManifestUnknown()
		}
		if d = (document{rows[0].Digest, rows[0].MediaType, rows[0].ManifestBytes}); fits(d) {
			return d, nil
		}
		if parsed, err = manifest.Parse(d.mediaType, []byte(d.bytes)); err != nil {
			return document{}, fmt.Errorf("parse stored manifest %s: %w", d.digest, err)
		}
	}
	return m.schema1(h, ctx, q, repositoryID, parsed)
}

// unsigned is a signed schema 1 document for clients that accept only the other kind. Its digest is the same.
func unsigned(d document) (document, error) {
	parsed, err := manifest.Parse(d.mediaType, []byte(d.bytes))
	if err != nil {
		return document{}, fmt.Errorf("parse stored manifest %s: %w", d.digest, err)
	}
	return document{parsed.Digest, manifest.DockerSchema1, string(parsed.Schema1.Payload)}, nil
}

// schema1 converts an image for clients that accept nothing newer.
func (m *manifests) schema1(h *Handler, ctx context.Context, q *Request, repositoryID int64, image *manifest.Manifest) (document, error) {
	if !image.ConvertibleToSchema1() {
		return document{}, regerr.ManifestUnknown()
	}
	config, err := m.push.Config(ctx, repositoryID, image.Config.Digest)
	if err != nil {
		return document{}, err
	}
	name := q.Name()
	if h.Config.Features.LibrarySupport && q.Namespace == h.Config.LibraryNamespace {
		name = q.Repo
	}
	text, ok := image.AsSchema1(config, name, q.Reference)
	if !ok {
		return document{}, regerr.ManifestUnknown()
	}
	return document{manifest.Digest(text), manifest.DockerSchema1, string(text)}, nil
}

// acceptTypes are the media types of the Accept headers, without their parameters.
func acceptTypes(r *http.Request) []string {
	var types []string
	for _, header := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(header, ",") {
			t, _, _ := strings.Cut(item, ";")
			if t = strings.TrimSpace(t); t != "" {
				types = append(types, t)
			}
		}
	}
	return types
}

// gate refuses media types of manifests that this namespace may not push, before anything is known about the client.
func (m *manifests) gate(h *Handler, r *http.Request, q *Request) error {
	refused := regerr.ManifestInvalid().WithStatus(http.StatusUnsupportedMediaType).WithReason("manifest schema version not supported")
	mediaType := r.Header.Get("Content-Type")
	if mediaType == "" || mediaType == "application/json" {
		mediaType = manifest.DockerSchema1
	}
	if !slices.Contains(manifest.MediaTypes(), mediaType) {
		return refused
	}
	oci := mediaType == manifest.OCIManifest || mediaType == manifest.OCIIndex
	if oci && !h.Config.Features.GeneralOCISupport && !slices.Contains(m.ociNamespaces, q.Namespace) {
		return refused
	}
	if slices.Contains(m.schema1Namespaces, q.Namespace) {
		schema1 := []string{manifest.DockerSchema1, manifest.DockerSchema1Signed}
		accepts := acceptTypes(r)
		excluded := len(accepts) > 0 && !slices.ContainsFunc(accepts, func(t string) bool { return slices.Contains(schema1, t) })
		if !slices.Contains(schema1, mediaType) || excluded {
			return refused
		}
	}
	return nil
}

// put stores a manifest and, by tag, moves the tag.
func (m *manifests) put(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) (err error) {
	mediaType := r.Header.Get("Content-Type")
	if mediaType == "" || mediaType == "application/json" {
		mediaType = manifest.DockerSchema1
	}
	defer func() { h.Metrics.Push(statusOf(err, http.StatusCreated), mediaType) }()
	ctx := r.Context()
	repo, err := q.MustRepository(ctx)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return regerr.ManifestInvalid().WithStatus(http.StatusRequestEntityTooLarge).
			WithReason("manifest is larger than the allowed %d bytes", maxManifest)
	}
	if err != nil {
		return regerr.InvalidRequest("the manifest could not be read").WithCause(err)
	}
	parsed, err := manifest.Parse(mediaType, body)
	if err != nil {
		return regerr.ManifestInvalid().WithReason("failed to parse manifest: %s", err.Error()).WithCause(err)
	}
	mediaType = parsed.MediaType
	tag := q.Reference
	switch {
	case q.Digest != "" && q.Digest != parsed.Digest:
		return regerr.ManifestInvalid().WithReason("manifest digest mismatch")
	case parsed.Schema1 != nil:
		if q.Digest != "" {
			tag = parsed.Schema1.Tag // schema 1 names its tag itself
		}
		if err := checkSchema1(h.Config, repo, tag, parsed); err != nil {
			return err
		}
	case q.Digest != "":
		tag = ""
	}
	if err := m.store(h, r, q, repo, tag, parsed); err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Docker-Content-Digest", parsed.Digest)
	header.Set("Location", "/v2/"+q.Name()+"/manifests/"+parsed.Digest)
	if parsed.Subject != nil && h.Config.Features.ReferrersAPI {
		// The legacy server does not say so; OCI clients that read it spare themselves the referrers tag.
		header.Set("OCI-Subject", parsed.Subject.Digest)
	}
	return answerBody(w, r, http.StatusCreated, "OK")
}

// checkSchema1 holds what a schema 1 manifest says about itself against where it is pushed.
func checkSchema1(c *config.Config, repo directory.Repository, tag string, m *manifest.Manifest) error {
	s := m.Schema1
	namespace := s.Namespace
	if namespace == "" && c.Features.LibrarySupport {
		namespace = c.LibraryNamespace
	}
	switch {
	case namespace != repo.Namespace:
		return regerr.NameInvalid().WithMessage("namespace name does not match manifest").
			WithReason("namespace name `%s` does not match `%s` in manifest", repo.Namespace, s.Namespace)
	case s.Repository != repo.Name:
		return regerr.NameInvalid().WithMessage("repository name does not match manifest").
			WithReason("repository name `%s` does not match `%s` in manifest", repo.Name, s.Repository)
	case len(m.Layers) == 0:
		return regerr.ManifestInvalid().WithReason("manifest does not reference any layers")
	case s.Tag != tag:
		return regerr.ManifestInvalid()
	}
	return nil
}

// store writes the manifest; without a tag it is kept for a while only, and nobody is told.
func (m *manifests) store(h *Handler, r *http.Request, q *Request, repo directory.Repository, tag string, parsed *manifest.Manifest) error {
	ctx := r.Context()
	if tag == "" {
		err := m.push.Untagged(ctx, pushTarget(repo), parsed)
		var refused *manifest.Error
		if errors.As(err, &refused) {
			return regerr.ManifestInvalid().WithCause(err) // pushes by digest are refused without a reason
		}
		return err
	}
	performer, err := q.Performer(ctx)
	if err != nil {
		return err
	}
	data, err := performerData(performer)
	if err != nil {
		return err
	}
	result, err := m.push.Tag(ctx, pushTarget(repo), tag, parsed, data)
	if err != nil {
		return refusal(err)
	}
	if result.MadeImmutableByPolicy {
		// The legacy server writes this one without its repository, performer and address.
		err := h.ActionLog.Log(ctx, actionlog.Entry{Kind: "tag_made_immutable_by_policy", Namespace: repo.Namespace,
			AccountID: &repo.NamespaceUserID, Metadata: map[string]any{"tag": tag, "immutable": true, "namespace": repo.Namespace, "repo": nil}})
		if err != nil {
			return err
		}
	}
	return h.LogEvent(r, q, "push_repo", map[string]any{"tag": tag, "mediaType": parsed.MediaType})
}

// refusal turns an error of package push into the answer.
func refusal(err error) error {
	var invalid *manifest.Error
	var immutable *push.ImmutableError
	switch {
	case errors.As(err, &invalid):
		return regerr.ManifestInvalid().WithReason("%s", invalid.Reason).WithCause(err)
	case errors.As(err, &immutable):
		return regerr.TagImmutable(immutable.Tag).WithCause(err)
	case errors.Is(err, push.ErrQuotaExceeded):
		return regerr.QuotaExceeded()
	case errors.Is(err, push.ErrNotFound):
		return regerr.ManifestUnknown()
	}
	return err
}

// performerData is the pusher as notifications name it.
func performerData(p *auth.Performer) (string, error) {
	if p == nil || p.UserID == nil {
		return "{}", nil
	}
	data, err := pyjson.Spaced(struct {
		ID            int64  `json:"entity_id"`
		Name          string `json:"entity_name"`
		TokenID       any    `json:"oauth_token_id,omitempty"`
		ApplicationID any    `json:"oauth_token_application_id,omitempty"`
		Application   any    `json:"oauth_token_application,omitempty"`
	}{*p.UserID, p.Username, p.Metadata["oauth_token_id"], p.Metadata["oauth_token_application_id"], p.Metadata["oauth_token_application"]})
	return string(data), err
}

// delete ends a tag, or every tag of a manifest.
func (m *manifests) delete(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	repo, err := q.MustRepository(ctx)
	if err != nil {
		return err
	}
	names := []string{q.Reference}
	if q.Digest != "" {
		names, err = m.push.DeleteManifest(ctx, pushTarget(repo), q.Digest)
	} else {
		err = m.push.DeleteTag(ctx, pushTarget(repo), q.Reference)
	}
	if err != nil {
		return refusal(err)
	}
	for _, name := range names {
		if err := h.LogEvent(r, q, "delete_tag", map[string]any{"tag": name, "digest": q.Reference}); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	return answerBody(w, r, http.StatusAccepted, "")
}

// statusOf is the status of an answer: that of its error, or of success.
func statusOf(err error, success int) int {
	if err != nil {
		return regerr.Status(err)
	}
	return success
}

// answerBody sends a whole answer whose headers are set. A client that went away is no error.
func answerBody(w http.ResponseWriter, r *http.Request, status int, body string) error {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, body)
	}
	return nil
}

// answerJSON sends v the way the legacy server spells JSON.
func answerJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := pyjson.Compact(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return answerBody(w, r, http.StatusOK, string(body)+"\n")
}
