package v2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/push"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/registry/upload"
	"github.com/quayctl/quayctl/internal/storage"
)

// uploads are the handlers of uploads.
type uploads struct {
	*upload.Uploads
	quotas *push.Pusher
}

// BlobRoutes are the routes of blobs and uploads. The locks are those under which blobs are collected.
func BlobRoutes(d Deps, l locks.Locker) []Route {
	u := &uploads{
		Uploads: &upload.Uploads{
			DB: d.DB, Storage: d.Storage, Locks: l, Clock: d.Clock, Log: d.Log,
			MaxSize: d.Config.MaximumLayerSize.Bytes(),
			LinkFor: time.Duration(d.Config.PushTempTagExpirationSec) * time.Second,
		},
		quotas: &push.Pusher{DB: d.DB, Storage: d.Storage, Clock: d.Clock, Settings: pushSettings(d.Config)},
	}
	return append(readBlobRoutes(),
		Route{Name: "v2.start_blob_upload", Method: http.MethodPost, Shape: ShapeUploads, Need: auth.Write, Scope: "pull,push", Handle: u.start},
		Route{Name: "v2.fetch_existing_upload", Method: http.MethodGet, Shape: ShapeUpload, Need: auth.Write, Scope: "pull,push", Handle: u.status},
		Route{Name: "v2.upload_chunk", Method: http.MethodPatch, Shape: ShapeUpload, Need: auth.Write, Scope: "pull,push", Handle: u.patch},
		Route{Name: "v2.monolithic_upload_or_last_chunk", Method: http.MethodPut, Shape: ShapeUpload, Need: auth.Write, Scope: "pull,push",
			EvenWhenPushesDisabled: true, Handle: u.put},
		Route{Name: "v2.cancel_upload", Method: http.MethodDelete, Shape: ShapeUpload, Need: auth.Write, Scope: "pull,push", Handle: u.cancel},
	)
}

// start serves POST: it mounts a blob, takes a whole one, or begins an upload.
func (u *uploads) start(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	repo, err := q.MustRepository(ctx)
	if err != nil {
		return err
	}
	if over, err := u.quotas.OverQuota(ctx, pushTarget(repo), false); err != nil {
		return err
	} else if over {
		return regerr.QuotaExceeded()
	}
	query := r.URL.Query()
	if digest := query.Get("mount"); digest != "" {
		mounted, err := u.mount(ctx, h, q, repo.ID, digest, query.Get("from"))
		if err != nil {
			return err
		}
		if mounted {
			created(h, w, q, digest)
			return nil
		}
	}
	up, err := u.Start(ctx, repo.ID)
	if err != nil {
		return u.explain(h, w, r, q, up, err)
	}
	if !query.Has("digest") {
		accepted(h, w, q, up, "bytes=0--1")
		return nil
	}
	return u.finish(h, w, r, q, up.UUID, query.Get("digest"))
}

// mount shows a blob of another repository in this one. It is not done, and an upload begins instead, unless the
// request names a repository that it may read and that shows the blob.
func (u *uploads) mount(ctx context.Context, h *Handler, q *Request, repositoryID int64, digest, from string) (bool, error) {
	namespace, name, ok := strings.Cut(from, "/")
	if !ok {
		return false, nil
	}
	if ok, err := q.CanRead(ctx, namespace, name); err != nil || !ok {
		return false, err
	}
	if _, err := storage.ParseDigest(digest); err != nil {
		return false, nil //nolint:nilerr // no blob has that digest
	}
	b, ok, err := h.findBlob(ctx, namespace, name, digest)
	if err != nil || !ok {
		return false, err
	}
	err = u.Link(ctx, b.id, repositoryID)
	if errors.Is(err, upload.ErrRepositoryGone) { // or the blob: its last link went this moment
		return false, nil
	}
	return err == nil, err
}

// status serves GET and HEAD of an upload.
func (u *uploads) status(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	if _, err := q.MustRepository(r.Context()); err != nil {
		return err
	}
	up, err := u.Find(r.Context(), q.UploadID)
	if err != nil {
		return u.explain(h, w, r, q, up, err)
	}
	header := w.Header()
	header.Set("Docker-Upload-UUID", up.UUID)
	header.Set("Range", "bytes=0-"+strconv.FormatInt(up.Received, 10)) // one too many, as ever
	header.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// patch takes a chunk.
func (u *uploads) patch(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	repo, err := q.MustRepository(ctx)
	if err != nil {
		return err
	}
	if _, err := u.Find(ctx, q.UploadID); err != nil {
		return u.explain(h, w, r, q, upload.Upload{}, err)
	}
	if err := u.checkQuota(ctx, repo, q.UploadID); err != nil {
		return u.explain(h, w, r, q, upload.Upload{}, err)
	}
	c, err := chunk(r)
	if err != nil {
		return err
	}
	begin := h.Clock.Now()
	up, err := u.Append(ctx, q.UploadID, c)
	if err != nil {
		return u.explain(h, w, r, q, up, err)
	}
	h.chunkTook(begin)
	accepted(h, w, q, up, "0-"+strconv.FormatInt(up.Received-1, 10))
	return nil
}

// put takes the last chunk, which may be all or nothing of the blob.
func (u *uploads) put(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	query := r.URL.Query()
	if !query.Has("digest") {
		return regerr.BlobUploadInvalid().WithDetail(map[string]any{"reason": "Missing digest arg on monolithic upload"})
	}
	repo, err := q.MustRepository(r.Context())
	if err != nil {
		return err
	}
	if err := u.checkQuota(r.Context(), repo, q.UploadID); err != nil {
		return u.explain(h, w, r, q, upload.Upload{}, err)
	}
	return u.finish(h, w, r, q, q.UploadID, query.Get("digest"))
}

// checkQuota ends an upload to a repository whose namespace may take no more.
func (u *uploads) checkQuota(ctx context.Context, repo directory.Repository, id string) error {
	over, err := u.quotas.OverQuota(ctx, pushTarget(repo), true)
	if err != nil || !over {
		return err
	}
	if err := u.Cancel(ctx, id); err != nil {
		return err
	}
	return regerr.QuotaExceeded()
}

// finish makes an upload a blob, or ends it.
func (u *uploads) finish(h *Handler, w http.ResponseWriter, r *http.Request, q *Request, id, digest string) error {
	ctx := r.Context()
	c, err := chunk(r)
	if err != nil {
		if cancelErr := u.Cancel(ctx, id); errors.Is(cancelErr, upload.ErrUnknown) {
			err = cancelErr
		}
		return u.explain(h, w, r, q, upload.Upload{}, err)
	}
	begin := h.Clock.Now()
	up, err := u.Finish(ctx, id, c, digest)
	if err != nil {
		return u.explain(h, w, r, q, up, err)
	}
	h.chunkTook(begin)
	h.Metrics.PushedBytes(up.Received)
	created(h, w, q, digest)
	return nil
}

// cancel ends an upload.
func (u *uploads) cancel(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	if _, err := q.MustRepository(r.Context()); err != nil {
		return err
	}
	if err := u.Cancel(r.Context(), q.UploadID); err != nil {
		return u.explain(h, w, r, q, upload.Upload{}, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) chunkTook(begin time.Time) {
	location, _ := h.Storage.Preferred()
	h.Metrics.ChunkUpload(location, h.Clock.Now().Sub(begin))
}

// describeUpload says where an upload goes on and what it has. The forms of Range differ from route to route.
func describeUpload(h *Handler, w http.ResponseWriter, q *Request, up upload.Upload, received string) {
	header := w.Header()
	header.Set("Docker-Upload-UUID", up.UUID)
	header.Set("Location", h.URL("/v2/"+q.Name()+"/blobs/uploads/"+up.UUID)) // no query: there are clients that would drop it
	header.Set("Range", received)
}

// accepted answers 202.
func accepted(h *Handler, w http.ResponseWriter, q *Request, up upload.Upload, received string) {
	describeUpload(h, w, q, up, received)
	empty(w, http.StatusAccepted)
}

// created answers 201, with the digest as it was sent.
func created(h *Handler, w http.ResponseWriter, q *Request, digest string) {
	header := w.Header()
	header.Set("Docker-Content-Digest", digest)
	header.Set("Location", h.URL("/v2/"+q.Name()+"/blobs/"+digest))
	empty(w, http.StatusCreated)
}

func empty(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}

var contentRange = regexp.MustCompile(`\A([0-9]{1,18})-([0-9]{1,18})\z`)

// chunk is what a request's body adds. Only START-END without a unit is known as Content-Range.
func chunk(r *http.Request) (upload.Chunk, error) {
	values := r.Header.Values("Content-Range")
	if len(values) == 0 {
		return upload.Chunk{Length: r.ContentLength, Body: r.Body}, nil
	}
	m := contentRange.FindStringSubmatch(values[0])
	if m == nil {
		return upload.Chunk{}, regerr.InvalidRequest("Invalid range header")
	}
	start, err1 := strconv.ParseInt(m[1], 10, 64)
	end, err2 := strconv.ParseInt(m[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil || end < start {
		return upload.Chunk{}, regerr.InvalidRequest("Invalid range header")
	}
	return upload.Chunk{Offset: start, Length: end - start + 1, Body: r.Body}, nil
}

// explain turns what package upload says into the contract's errors, and answers itself where the answer is none of them:
// a gap is 416 without a body, but with where to go on. Failures of storage are the generic one, as they
// were; their cause is logged here, because the answer is no 5xx.
func (u *uploads) explain(h *Handler, w http.ResponseWriter, r *http.Request, q *Request, up upload.Upload, err error) error {
	var (
		gap      *upload.RangeError
		large    *upload.TooLargeError
		body     *upload.BodyError
		full     *storage.NoSpaceError
		answered *regerr.Error
	)
	switch {
	case errors.As(err, &answered):
		return err
	case errors.Is(err, upload.ErrUnknown):
		return regerr.BlobUploadUnknown()
	case errors.Is(err, upload.ErrRepositoryGone):
		return regerr.NameUnknown()
	case errors.As(err, &gap):
		describeUpload(h, w, q, up, "0-"+strconv.FormatInt(gap.Received, 10))
		empty(w, http.StatusRequestedRangeNotSatisfiable)
		return nil
	case errors.As(err, &large):
		return regerr.SizeInvalid().WithMessage("Uploaded blob is larger than allowed by this registry").
			WithDetail(map[string]any{"reason": fmt.Sprintf("%d is greater than maximum allowed size %d", large.Size, large.Limit),
				"uploaded": large.Size, "max_allowed": large.Limit})
	case errors.Is(err, upload.ErrDigest), errors.As(err, &body):
		return regerr.BlobUploadInvalid().WithCause(err)
	case metadata.IsUnavailable(err):
		return regerr.Unavailable(err)
	}
	q.Log.ErrorContext(r.Context(), "upload failed", "upload", up.UUID, "repository", q.Name(), "error", err)
	if errors.As(err, &full) {
		return regerr.BlobUploadInvalid().WithDetail(map[string]any{"reason": "the registry's storage is full"}).WithCause(err)
	}
	return regerr.BlobUploadInvalid().WithCause(err)
}
