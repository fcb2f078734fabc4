package v2

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/storage"
)

// What the edge and registryd say to each other about blobs that the edge can send itself, see ARCHITECTURE.md.
const (
	offloadHeader     = "X-Quay-Offload"
	offloadPathHeader = "X-Quay-Offload-Path"
)

// The lifetimes that HEAD and GET announce differ, and have for years; clients compare.
const (
	cacheHead = "max-age=31436000"
	cacheGet  = "max-age=31536000"
)

// readBlobRoutes are the routes that read blobs, and the one that refuses to delete them.
func readBlobRoutes() []Route {
	return []Route{
		{Name: "v2.download_blob", Method: http.MethodGet, Shape: ShapeBlob, Need: auth.Read, Scope: "pull", Handle: (*Handler).getBlob},
		// Whatever stands in the path: blobs go when nothing names them any more.
		{Name: "v2.delete_digest", Method: http.MethodDelete, Shape: ShapeBlobAny, Need: auth.Write, Scope: "pull,push", Handle: (*Handler).deleteBlob},
	}
}

// blob is a blob that a repository shows.
type blob struct {
	id         int64
	key        string
	size       int64 // negative when its row does not say
	placements []string
}

// findBlob finds a blob in a repository; ok is false when the repository does not show it.
func (h *Handler) findBlob(ctx context.Context, namespace, repo, digest string) (b blob, ok bool, err error) {
	q := h.DB.Read(ctx)
	var row sqlc.BlobOfDigestRow
	if digest == storage.EmptyLayer {
		row, err = q.BlobOfDigest(ctx, &digest)
	} else {
		var r sqlc.BlobOfRepositoryRow
		r, err = q.BlobOfRepository(ctx, sqlc.BlobOfRepositoryParams{Namespace: namespace, Repository: repo, Digest: &digest})
		row = sqlc.BlobOfDigestRow(r)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return b, false, nil
	}
	if err != nil {
		return b, false, fmt.Errorf("look up blob %s of %s/%s: %w", digest, namespace, repo, err)
	}
	key, err := storage.ObjectKey(row.CasPath, digest, row.UUID)
	if err != nil {
		return b, false, err
	}
	b = blob{id: row.ID, key: key, size: -1, placements: row.Placements}
	if row.ImageSize != nil {
		b.size = *row.ImageSize
	}
	return b, true, nil
}

// getBlob serves GET and HEAD of a blob.
//
// Unlike the legacy server it honours ranges also where it sends the bytes itself. Accept-Ranges goes with answers to
// such requests; without one the answer is the recorded one.
func (h *Handler) getBlob(w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	if h.PullThrough != nil {
		if err := h.PullThrough.Blob(ctx, q.Namespace, q.Repo, q.Digest); err != nil {
			return err
		}
	}
	b, ok, err := h.findBlob(ctx, q.Namespace, q.Repo, q.Digest)
	if err != nil {
		return err
	}
	if !ok {
		return regerr.BlobUnknown()
	}
	location, driver, err := h.Storage.Choose(b.placements)
	if err != nil {
		return regerr.Internal(fmt.Errorf("blob %s of %s: %w", q.Digest, q.Name(), err))
	}
	if b.size < 0 {
		info, err := driver.Stat(ctx, b.key)
		if err != nil {
			return regerr.Internal(fmt.Errorf("blob %s of %s in location %q: %w", q.Digest, q.Name(), location, err))
		}
		b.size = info.Size
	}
	header := w.Header()
	if r.Method == http.MethodHead {
		h.describe(header, q, driver.ResumableDownloads(), cacheHead)
		header.Set("Content-Type", "application/octet-stream")
		header.Set("Content-Length", strconv.FormatInt(b.size, 10))
		w.WriteHeader(http.StatusOK)
		return nil
	}

	url, err := driver.DirectURL(ctx, b.key, storage.URLOptions{
		ClientIP: clientIP(r), Namespace: q.Namespace, Repo: q.Repo, Username: q.Access.Identity.Username,
	}.WithDefaults())
	if err != nil {
		return regerr.Internal(fmt.Errorf("make URL of blob %s in location %q: %w", q.Digest, location, err))
	}
	if url != "" {
		h.describe(header, q, driver.ResumableDownloads(), cacheGet)
		header.Set("Location", url)
		header.Set("Content-Type", "text/html; charset=utf-8")
		h.Metrics.PulledBytes(b.size)
		w.WriteHeader(http.StatusFound)
		_, _ = io.WriteString(w, `<!doctype html><title>Found</title><a href="`+html.EscapeString(url)+`">Found</a>`)
		return nil
	}

	if path, local := driver.LocalPath(b.key); local && r.Header.Get(offloadHeader) == "1" {
		h.describe(header, q, driver.ResumableDownloads(), cacheGet)
		header.Set("Content-Type", "application/octet-stream")
		header.Set(offloadPathHeader, location+"/"+path)
		h.Metrics.PulledBytes(b.size)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return h.sendBlob(w, r, q, driver, b)
}

// describe sets the headers that every answer about a blob has.
func (h *Handler) describe(header http.Header, q *Request, ranges bool, cache string) {
	header.Set("Docker-Content-Digest", q.Digest)
	header.Set("Cache-Control", cache)
	if ranges {
		header.Set("Accept-Ranges", "bytes")
	}
}

// sendBlob sends a blob, or the part of it that the request asks for, from storage.
func (h *Handler) sendBlob(w http.ResponseWriter, r *http.Request, q *Request, driver storage.Driver, b blob) error {
	part, err := parseRange(r.Header, b.size)
	if err != nil {
		return regerr.InvalidRequest("Invalid range header").WithStatus(http.StatusRequestedRangeNotSatisfiable).
			WithHeader("Accept-Ranges", "bytes").WithHeader("Content-Range", "bytes */"+strconv.FormatInt(b.size, 10)).WithCause(err)
	}
	object, err := driver.Open(r.Context(), b.key, part.offset, part.length)
	if err != nil {
		return regerr.Internal(fmt.Errorf("read blob %s of %s: %w", q.Digest, q.Name(), err))
	}
	defer object.Close() //nolint:errcheck // only read
	header := w.Header()
	h.describe(header, q, part.partial || driver.ResumableDownloads(), cacheGet)
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Length", strconv.FormatInt(part.length, 10))
	status := http.StatusOK
	if part.partial {
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.offset, part.offset+part.length-1, b.size))
		status = http.StatusPartialContent
	}
	h.Metrics.PulledBytes(part.length)
	w.WriteHeader(status)
	sent, err := io.Copy(innermost(w), object)
	if err == nil && sent != part.length {
		err = fmt.Errorf("object %s is short: %d of %d bytes", b.key, sent, part.length)
		q.Log.ErrorContext(r.Context(), "blob is damaged", "digest", q.Digest, "error", err)
	}
	if err != nil {
		return fmt.Errorf("send blob %s: %w", q.Digest, err)
	}
	return nil
}

// innermost finds the server's own writer below those that only watch, because only it can send a file without
// reading it. The header must have been written.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = inner.Unwrap()
	}
}

// byteRange is the part of a blob that is asked for.
type byteRange struct {
	offset, length int64
	partial        bool
}

// parseRange reads the Range header against a size. A header that makes no sense, several ranges, and any with If-Range (blobs
// have no validators) mean the whole; an error means that nothing of the blob lies in the range.
func parseRange(header http.Header, size int64) (byteRange, error) {
	whole := byteRange{length: size}
	spec, ok := strings.CutPrefix(header.Get("Range"), "bytes=")
	if !ok || header.Get("If-Range") != "" {
		return whole, nil
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return whole, nil
	}
	if from == "" {
		last, ok := parsePosition(to)
		switch {
		case !ok:
			return whole, nil
		case last == 0 || size == 0:
			return whole, errors.New("range is empty")
		}
		last = min(last, size)
		return byteRange{offset: size - last, length: last, partial: true}, nil
	}
	first, ok := parsePosition(from)
	if !ok {
		return whole, nil
	}
	last := size - 1
	if to != "" {
		end, ok := parsePosition(to)
		if !ok || end < first {
			return whole, nil
		}
		last = min(last, end)
	}
	if first >= size {
		return whole, errors.New("range begins behind the end")
	}
	return byteRange{offset: first, length: last - first + 1, partial: true}, nil
}

// parsePosition reads digits and nothing else; what does not fit is as large as can be.
func parsePosition(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		n = 1<<63 - 1
	}
	return n, true
}

// clientIP is who asks, the zero Addr when that is unknown.
func clientIP(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddr(actionlog.ClientIP(r))
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

// deleteBlob refuses.
func (h *Handler) deleteBlob(http.ResponseWriter, *http.Request, *Request) error {
	return regerr.Unsupported()
}
