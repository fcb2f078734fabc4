package v1

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/push"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// tagName is the rule of tags that version 1 holds pushes to.
var tagName = regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\z`)

// readTags runs the checks of the routes that read tags.
func (q *request) readTags() (*directory.Repository, error) {
	if err := q.checks(q.authenticate, q.anonymousAllowed); err != nil {
		return nil, err
	}
	row, ok, err := q.readable()
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, &regerr.Page{Status: http.StatusForbidden}
	case row == nil:
		return nil, regerr.NotFound
	}
	return row, nil
}

// tags maps all tags to image ids, also those of manifests that have no images.
func (q *request) tags() error {
	row, err := q.readTags()
	if err != nil {
		return err
	}
	rows, err := q.h.DB.Read(q.ctx()).AliveTags(q.ctx(), sqlc.AliveTagsParams{RepositoryID: row.ID, NowMs: q.h.Clock.Now().UnixMilli()})
	if err != nil {
		return fmt.Errorf("list tags: %w", err)
	}
	ids := make(map[string]string, len(rows))
	for _, tag := range rows {
		if ids[tag.Name], err = q.h.imageID(tag.ManifestID, 0); err != nil {
			return err
		}
	}
	return q.json(ids)
}

// tag is the id of a tag's newest image.
func (q *request) tag() error {
	row, err := q.readTags()
	if err != nil {
		return err
	}
	m, err := q.h.DB.Read(q.ctx()).ManifestByTag(q.ctx(), sqlc.ManifestByTagParams{RepositoryID: row.ID, Name: q.tagName,
		NowMs: q.h.Clock.Now().UnixMilli()})
	if errors.Is(err, pgx.ErrNoRows) {
		return regerr.NotFound
	}
	if err != nil {
		return fmt.Errorf("look up tag %s: %w", q.tagName, err)
	}
	doc, err := q.schema1(row, m.MediaType, m.ManifestBytes)
	if err != nil {
		return err
	}
	if doc == nil || len(doc.layers) == 0 {
		return regerr.NotFound
	}
	id, err := q.h.imageID(m.ID, 0)
	if err != nil {
		return err
	}
	send(q.w, http.StatusOK, "application/json", `"`+id+`"`)
	return nil
}

// changeTag runs the checks of the routes that change tags.
func (q *request) changeTag() (*directory.Repository, error) {
	if err := q.checks(q.authenticate, q.anonymousAllowed, q.stateAllows, q.pushEnabled, q.writable); err != nil {
		return nil, err
	}
	ok, err := q.may(auth.Write)
	if err != nil {
		return nil, err
	}
	row, err := q.images()
	if err == nil && (!ok || row == nil) {
		err = &regerr.Page{Status: http.StatusForbidden}
	}
	return row, err
}

// putTag tags an image: one of the push that the session is in, which thereby becomes a manifest, or else one that is there.
func (q *request) putTag() error {
	row, err := q.changeTag()
	if err != nil {
		return err
	}
	if !tagName.MatchString(q.tagName) {
		return &regerr.Page{Status: http.StatusBadRequest,
			Text: `Invalid tag: must match [A-Za-z0-9_.-], NOT start with "." or "-", and can contain 1-128 characters`}
	}
	body, err := io.ReadAll(http.MaxBytesReader(q.w, q.r.Body, maxDocument))
	if err != nil {
		return bodyError(err)
	}
	id, ok := decodeText(body)
	if !ok {
		return &regerr.Page{Status: http.StatusBadRequest}
	}
	if b := q.builder(); b != nil {
		if _, ok := b.images[id]; ok {
			return q.commit(row, b, id)
		}
	}
	found, err := q.findImage(row, id)
	if err != nil {
		return err
	}
	if found == nil {
		return &regerr.Page{Status: http.StatusBadRequest}
	}
	return q.retarget(row, found)
}

// commit makes an image of a push, with all below it, the manifest of the tag.
func (q *request) commit(row *directory.Repository, b *builder, id string) error {
	layers, ok := b.layers(id)
	if !ok {
		return &regerr.Page{Status: http.StatusBadRequest}
	}
	m, err := q.signed1(document{name: row.Namespace + "/" + row.Name, tag: q.tagName, architecture: "amd64", layers: layers})
	if err == nil {
		err = q.move(row, m)
	}
	var immutable *push.ImmutableError
	if refused := new(manifest.Error); errors.As(err, &refused) || errors.As(err, &immutable) {
		return errors.Join(&regerr.Page{Status: http.StatusBadRequest}, err)
	}
	if err != nil {
		return err
	}
	b.tags[q.tagName] = 0
	if err := q.saveBuilder(b); err != nil {
		return err
	}
	return q.text(http.StatusOK, "Created")
}

// signed1 is the signed manifest of a document.
func (q *request) signed1(d document) (*manifest.Manifest, error) {
	text, err := q.h.signer.sign(d)
	if err != nil {
		return nil, err
	}
	return manifest.Parse(manifest.DockerSchema1Signed, text)
}

// retarget points the tag at the manifest of an image that is there. A schema 1 manifest names its tag, so that another tag
// needs another manifest.
func (q *request) retarget(row *directory.Repository, found *image) error {
	m, err := manifest.Parse(found.row.MediaType, []byte(found.row.ManifestBytes))
	if err != nil {
		return fmt.Errorf("parse stored manifest %s: %w", found.row.Digest, err)
	}
	if m.Schema1 != nil && m.Schema1.Tag != q.tagName {
		d := found.doc
		d.tag = q.tagName
		if m, err = q.signed1(d); err != nil {
			return err
		}
		if err := q.h.retag.Untagged(q.ctx(), target(row), m); err != nil {
			return refused(err)
		}
	}
	if err := q.move(row, m); err != nil {
		var immutable *push.ImmutableError
		if errors.As(err, &immutable) {
			return &regerr.Page{Status: http.StatusConflict, Text: "Tag '" + q.tagName + "' is immutable and cannot be overwritten"}
		}
		return refused(err)
	}
	return q.text(http.StatusOK, "Created")
}

// refused is what package push says of a manifest, without its words.
func refused(err error) error {
	if reason := new(manifest.Error); errors.As(err, &reason) {
		return errors.Join(&regerr.Page{Status: http.StatusBadRequest}, err)
	}
	return err
}

// move points the tag at a manifest.
func (q *request) move(row *directory.Repository, m *manifest.Manifest) error {
	performer, err := q.performer()
	if err != nil {
		return err
	}
	result, err := q.h.push.Tag(q.ctx(), target(row), q.tagName, m, performer)
	if err != nil || !result.MadeImmutableByPolicy {
		return err
	}
	// The legacy server writes this one without repository, performer and address.
	return q.h.ActionLog.Log(q.ctx(), actionlog.Entry{Kind: "tag_made_immutable_by_policy", Namespace: row.Namespace,
		AccountID: &row.NamespaceUserID, Metadata: map[string]any{"tag": q.tagName, "immutable": true, "namespace": row.Namespace, "repo": nil}})
}

// deleteTag ends a tag.
func (q *request) deleteTag() error {
	row, err := q.changeTag()
	if err != nil {
		return err
	}
	err = q.h.push.DeleteTag(q.ctx(), target(row), q.tagName)
	var immutable *push.ImmutableError
	switch {
	case errors.Is(err, push.ErrNotFound):
		return regerr.NotFound
	case errors.As(err, &immutable):
		return &regerr.Page{Status: http.StatusConflict, Text: "Tag '" + q.tagName + "' is immutable and cannot be deleted"}
	case err != nil:
		return err
	}
	if err := q.log("delete_tag", row, map[string]any{"tag": q.tagName}); err != nil {
		return err
	}
	return q.text(http.StatusOK, "Deleted")
}
