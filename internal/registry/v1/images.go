package v1

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/manifest/jsondoc"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/registry/upload"
	"github.com/quayctl/quayctl/internal/storage"
)

// What the edge and registryd say to each other about blobs that the edge can send itself, see ARCHITECTURE.md.
const (
	offloadHeader     = "X-Quay-Offload"
	offloadPathHeader = "X-Quay-Offload-Path"
)

// statusNotWritten is what clients of version 1 know as a failure of storage.
const statusNotWritten = 520

// cacheFor is how long what has an image id may be cached: it never changes.
const cacheFor = 31536000 * time.Second

// image is a layer of a manifest as version 1 sees it.
type image struct {
	row   sqlc.ManifestOfRepositoryRow // its manifest
	index int                          // from the newest layer
	doc   document
}

func (i *image) layer() layer { return i.doc.layers[i.index] }

// find finds an image in a repository; nil when there is none. The legacy server finds those of any repository, which
// tells strangers what private ones hold.
func (q *request) findImage(repo *directory.Repository, id string) (*image, error) {
	manifestID, index, ok := q.h.resolveImageID(id)
	if !ok {
		return nil, nil
	}
	return q.imageOf(repo, manifestID, index)
}

func (q *request) imageOf(repo *directory.Repository, manifestID int64, index int) (*image, error) {
	row, err := q.h.DB.Read(q.ctx()).ManifestOfRepository(q.ctx(), sqlc.ManifestOfRepositoryParams{ID: manifestID, RepositoryID: repo.ID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up manifest %d: %w", manifestID, err)
	}
	doc, err := q.schema1(repo, row.MediaType, row.ManifestBytes)
	if err != nil || doc == nil || index >= len(doc.layers) {
		return nil, err
	}
	return &image{row: row, index: index, doc: *doc}, nil
}

// schema1 is a stored manifest as schema 1, of a list its child for linux/amd64; nil when it cannot be that.
func (q *request) schema1(repo *directory.Repository, mediaType, text string) (*document, error) {
	parsed, err := manifest.Parse(mediaType, []byte(text))
	if err != nil {
		return nil, fmt.Errorf("parse stored manifest: %w", err)
	}
	if parsed.IsList() {
		child, ok := parsed.LinuxAMD64()
		if !ok {
			return nil, nil
		}
		rows, err := q.h.DB.Read(q.ctx()).ManifestsOfDigests(q.ctx(), sqlc.ManifestsOfDigestsParams{RepositoryID: repo.ID, Digests: []string{child.Digest}})
		if err != nil {
			return nil, fmt.Errorf("look up child %s: %w", child.Digest, err)
		}
		if len(rows) == 0 {
			return nil, nil
		}
		if parsed, err = manifest.Parse(rows[0].MediaType, []byte(rows[0].ManifestBytes)); err != nil {
			return nil, fmt.Errorf("parse stored manifest %s: %w", child.Digest, err)
		}
	}
	var payload []byte
	switch {
	case parsed.Schema1 != nil:
		payload = parsed.Schema1.Payload
	case parsed.ConvertibleToSchema1():
		config, err := q.h.push.Config(q.ctx(), repo.ID, parsed.Config.Digest)
		if err != nil {
			return nil, err
		}
		var ok bool
		if payload, ok = parsed.AsSchema1(config, repo.Namespace+"/"+repo.Name, "latest"); !ok {
			return nil, nil
		}
	default:
		return nil, nil
	}
	doc, err := parseDocument(payload)
	if err != nil {
		return nil, err
	}
	return &doc, nil
}

// blob is a blob that a repository shows.
type blob struct {
	key, uuid  string
	size       int64 // negative when its row does not say
	placements []string
}

// findBlob finds a blob; nil when the repository does not show it.
func (q *request) findBlob(repo *directory.Repository, digest string) (*blob, error) {
	db := q.h.DB.Read(q.ctx())
	var row sqlc.BlobOfDigestRow
	var err error
	if digest == storage.EmptyLayer {
		row, err = db.BlobOfDigest(q.ctx(), &digest)
	} else {
		var r sqlc.BlobOfRepositoryRow
		r, err = db.BlobOfRepository(q.ctx(), sqlc.BlobOfRepositoryParams{Namespace: repo.Namespace, Repository: repo.Name, Digest: &digest})
		row = sqlc.BlobOfDigestRow(r)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up blob %s: %w", digest, err)
	}
	key, err := storage.ObjectKey(row.CasPath, digest, row.UUID)
	if err != nil {
		return nil, err
	}
	b := &blob{key: key, uuid: row.UUID, size: -1, placements: row.Placements}
	if row.ImageSize != nil {
		b.size = *row.ImageSize
	}
	return b, nil
}

// cached sets the headers of what never changes. done tells that the client has it already.
func (q *request) cached() (done bool) {
	header := q.w.Header()
	header.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(cacheFor.Seconds())))
	header.Set("Expires", q.h.Clock.Now().Add(cacheFor).UTC().Format(http.TimeFormat))
	if q.r.Header.Get("If-Modified-Since") != "" {
		q.w.WriteHeader(http.StatusNotModified)
		return true
	}
	header.Set("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
	return false
}

// readImage runs the checks of the routes that read an image, and finds it; a nil repository means that all is answered. missing is
// the answer when there is no such image.
func (q *request) readImage(missing error) (*directory.Repository, *image, error) {
	if err := q.checks(q.authenticate, q.fromSession, q.namespaceEnabled); err != nil {
		return nil, nil, err
	}
	if q.r.Header.Get("If-Modified-Since") != "" {
		q.cached()
		return nil, nil, nil
	}
	if err := q.anonymousAllowed(); err != nil {
		return nil, nil, err
	}
	row, ok, err := q.readable()
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, abort(http.StatusForbidden, "")
	}
	if row == nil {
		return nil, nil, abort(http.StatusNotFound, "")
	}
	found, err := q.findImage(row, q.image)
	if err == nil && found == nil {
		err = missing
	}
	return row, found, err
}

func (q *request) imageUnknown() error {
	return &regerr.Abort{Status: http.StatusNotFound, Message: "Image " + q.image + " not found"}
}

// imageJSON tells about an image what its maker said, under the ids of ours.
func (q *request) imageJSON() error {
	row, found, err := q.readImage(regerr.NotFound)
	if err != nil || row == nil {
		return err
	}
	value, err := jsondoc.Parse(found.layer().v1)
	object, ok := value.(*jsondoc.Object)
	if err != nil || !ok {
		return regerr.NotFound
	}
	object.Set("id", q.image)
	if found.index < len(found.doc.layers)-1 {
		parent, err := q.h.imageID(found.row.ID, found.index+1)
		if err != nil {
			return err
		}
		object.Set("parent", parent)
	}
	b, err := q.findBlob(row, found.layer().digest)
	if err != nil {
		return err
	}
	q.cached()
	if b != nil && b.size >= 0 {
		q.w.Header().Set("X-Docker-Size", strconv.FormatInt(b.size, 10))
	}
	return q.text(http.StatusOK, jsondoc.Dump(object))
}

// ancestry lists an image and all below it.
func (q *request) ancestry() error {
	row, found, err := q.readImage(q.imageUnknown())
	if err != nil || row == nil {
		return err
	}
	ids := []string{}
	for i := found.index; i < len(found.doc.layers); i++ {
		id, err := q.h.imageID(found.row.ID, i)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	body, err := pyjson.Spaced(ids)
	if err != nil {
		return err
	}
	q.cached()
	return q.text(http.StatusOK, string(body))
}

// headLayer tells that an image is there, and not how large it is.
func (q *request) headLayer() error {
	row, found, err := q.readImage(q.imageUnknown())
	if err != nil || row == nil {
		return err
	}
	b, err := q.findBlob(row, found.layer().digest)
	if err != nil {
		return err
	}
	if b == nil && found.layer().digest != storage.EmptyLayer {
		return q.imageUnknown()
	}
	if b != nil {
		_, driver, err := q.h.Storage.Choose(b.placements)
		if err != nil {
			return err
		}
		if driver.ResumableDownloads() {
			q.w.Header().Set("Accept-Ranges", "bytes")
		}
	}
	q.cached()
	return q.text(http.StatusOK, "")
}

// emptyLayer is the layer of images that changed no file. It belongs to every repository, whether or not anybody has pushed it.
const emptyLayer = "\x1f\x8b\x08\x00\x00\x09\x6e\x88\x00\xff\x62\x18\x05\xa3\x60\x14\x8c\x58\x00\x08\x00\x00\xff\xff\x2e\xaf\xb5\xef\x00\x04\x00\x00"

// layer sends the bytes of an image's layer.
func (q *request) layer() error {
	row, found, err := q.readImage(q.imageUnknown())
	if err != nil || row == nil {
		return err
	}
	digest := found.layer().digest
	b, err := q.findBlob(row, digest)
	if err != nil {
		return err
	}
	if b == nil {
		if digest != storage.EmptyLayer {
			return q.imageUnknown()
		}
		q.cached()
		return q.text(http.StatusOK, emptyLayer)
	}
	location, driver, err := q.h.Storage.Choose(b.placements)
	if err != nil {
		return fmt.Errorf("blob %s: %w", digest, err)
	}
	if b.size < 0 {
		info, err := driver.Stat(q.ctx(), b.key)
		if err != nil {
			return fmt.Errorf("blob %s in location %q: %w", digest, location, err)
		}
		b.size = info.Size
	}
	address, _ := netip.ParseAddr(actionlog.ClientIP(q.r)) // the zero address means that it is unknown
	target, err := driver.DirectURL(q.ctx(), b.key, storage.URLOptions{ClientIP: address, Namespace: row.Namespace, Repo: row.Name,
		Username: q.who.Username}.WithDefaults())
	if err != nil {
		return fmt.Errorf("make URL of blob %s in location %q: %w", digest, location, err)
	}
	q.h.Metrics.V1PulledBytes(b.size)
	header := q.w.Header()
	if target != "" {
		header.Set("Location", target)
		return q.text(http.StatusFound, `<!doctype html><title>Found</title><a href="`+html.EscapeString(target)+`">Found</a>`)
	}
	if path, local := driver.LocalPath(b.key); local && q.r.Header.Get(offloadHeader) == "1" {
		q.cached()
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set(offloadPathHeader, location+"/"+path)
		q.w.WriteHeader(http.StatusOK)
		return nil
	}
	object, err := driver.Open(q.ctx(), b.key, 0, -1)
	if err != nil {
		return fmt.Errorf("read blob %s: %w", digest, err)
	}
	defer object.Close() //nolint:errcheck // only read
	q.cached()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", strconv.FormatInt(b.size, 10))
	q.w.WriteHeader(http.StatusOK)
	sent, err := io.Copy(q.w.ResponseWriter, object)
	if err == nil && sent != b.size {
		err = fmt.Errorf("object %s is short: %d of %d bytes", b.key, sent, b.size)
	}
	if err != nil {
		return fmt.Errorf("send blob %s: %w", digest, err)
	}
	return nil
}

// changeImage runs the checks of the routes that push an image.
func (q *request) changeImage() (*directory.Repository, error) {
	err := q.checks(q.authenticate, q.fromSession, q.pushEnabled, q.namespaceEnabled, q.stateAllows, q.anonymousAllowed, q.writable)
	if err != nil {
		return nil, err
	}
	ok, err := q.may(auth.Write)
	if err != nil {
		return nil, err
	}
	row, err := q.images()
	if err == nil && (!ok || row == nil) {
		err = abort(http.StatusForbidden, "")
	}
	return row, err
}

// putImageJSON begins an image: what its maker says about it.
func (q *request) putImageJSON() error {
	if _, err := q.changeImage(); err != nil {
		return err
	}
	b := q.builder()
	if b == nil {
		return abort(http.StatusBadRequest, "")
	}
	body, err := io.ReadAll(http.MaxBytesReader(q.w, q.r.Body, maxDocument))
	if err != nil {
		return bodyError(err)
	}
	refuse := func(format string, args ...any) error {
		return &regerr.Abort{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
	}
	var object *jsondoc.Object
	if utf8.Valid(body) && !slices.Contains(body, 0) {
		value, err := jsondoc.Parse(string(body))
		if err == nil {
			object, _ = value.(*jsondoc.Object)
		}
	}
	if object == nil || len(object.Keys()) == 0 {
		return refuse("Invalid JSON for image: %s\nJSON: %s", q.image, reprBytes(body))
	}
	id, ok := object.Get("id")
	if !ok {
		return refuse("Missing key `id` in JSON for image: %s", q.image)
	}
	if id != q.image {
		return refuse("JSON data contains invalid id for image: %s", q.image)
	}
	below, ok := parent(object)
	if _, known := b.images[below]; !ok || below != "" && !known {
		return refuse("Image %s has invalid metadata", q.image)
	}
	b.images[q.image] = string(body)
	if err := q.saveBuilder(b); err != nil {
		return err
	}
	return q.text(http.StatusOK, "true")
}

// reprBytes words bytes the way the legacy server's message does.
func reprBytes(data []byte) string {
	quote := byte('\'')
	if slices.Contains(data, '\'') && !slices.Contains(data, '"') {
		quote = '"'
	}
	var b strings.Builder
	b.WriteString("b" + string(quote))
	for _, c := range data {
		switch {
		case c == '\\' || c == quote:
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < 0x20 || c >= 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte(quote)
	return b.String()
}

// putLayer takes the bytes of an image that putImageJSON has begun.
func (q *request) putLayer() error {
	row, err := q.changeImage()
	if err != nil {
		return err
	}
	b := q.builder()
	if b == nil {
		return abort(http.StatusBadRequest, "")
	}
	v1, ok := b.images[q.image]
	if !ok {
		return abort(http.StatusNotFound, "")
	}
	digest, checksum, err := q.store(row, v1)
	if err != nil {
		if metadata.IsUnavailable(err) || q.r.Context().Err() != nil {
			return err
		}
		return errors.Join(&regerr.Abort{Status: statusNotWritten, Message: "Image " + q.image + " could not be written. Please try again."}, err)
	}
	b.checksums[q.image] = []string{checksum}
	b.blobs[q.image] = digest
	if q.h.Config.Features.StorageReplication {
		stored, err := q.findBlob(row, digest)
		if err != nil {
			return err
		}
		if stored != nil {
			if err := q.h.push.Replicate(q.ctx(), target(row), stored.uuid); err != nil {
				return err
			}
		}
	}
	if err := q.saveBuilder(b); err != nil {
		return err
	}
	return q.text(http.StatusOK, "true")
}

// store makes the body a blob. checksum is version 1's: SHA-256 of the image's JSON, a line feed, and the layer.
func (q *request) store(row *directory.Repository, v1 string) (digest, checksum string, err error) {
	ctx := q.ctx()
	up, err := q.h.uploads.Start(ctx, row.ID)
	if err != nil {
		return "", "", err
	}
	content, simple := sha256.New(), sha256.New()
	_, _ = io.WriteString(simple, v1+"\n")
	begin := q.h.Clock.Now()
	id := up.UUID
	up, err = q.h.uploads.Append(ctx, id, upload.Chunk{Length: q.r.ContentLength, Body: io.TeeReader(q.r.Body, io.MultiWriter(content, simple))})
	if err != nil {
		return "", "", errors.Join(err, q.h.uploads.Cancel(ctx, id))
	}
	digest = "sha256:" + hex.EncodeToString(content.Sum(nil))
	if _, err := q.h.uploads.Finish(ctx, id, upload.Chunk{}, digest); err != nil {
		return "", "", err
	}
	location, _ := q.h.Storage.Preferred()
	q.h.Metrics.ChunkUpload(location, q.h.Clock.Now().Sub(begin))
	q.h.Metrics.PushedBytes(up.Received)
	return digest, "sha256:" + hex.EncodeToString(simple.Sum(nil)), nil
}

// putChecksum compares the checksum of a layer. Clients that send the old kind, of the files in the layer, are believed: the
// legacy server never compared it either.
func (q *request) putChecksum() error {
	if _, err := q.changeImage(); err != nil {
		return err
	}
	old, given := q.r.Header.Get("X-Docker-Checksum"), q.r.Header.Get("X-Docker-Checksum-Payload")
	if given == "" {
		given = old
	}
	if given == "" {
		return &regerr.Abort{Status: http.StatusBadRequest, Message: "Missing checksum for image " + q.image}
	}
	b := q.builder()
	if b == nil {
		return abort(http.StatusBadRequest, "")
	}
	if _, ok := b.images[q.image]; !ok {
		return abort(http.StatusNotFound, "")
	}
	switch {
	case old != "":
		b.checksums[q.image] = append(b.checksums[q.image], given)
		if err := q.saveBuilder(b); err != nil {
			return err
		}
	case !slices.Contains(b.checksums[q.image], given):
		return &regerr.Abort{Status: http.StatusBadRequest, Message: "Checksum mismatch for image: " + q.image}
	}
	return q.text(http.StatusOK, "true")
}

// decodeText reads a JSON text; ok is false when body is anything else.
func decodeText(body []byte) (value string, ok bool) {
	var p *string
	if json.Unmarshal(body, &p) != nil || p == nil {
		return "", false
	}
	return *p, true
}
