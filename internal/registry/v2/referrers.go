package v2

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// referrer is one entry of the index of referrers. Its fields are in the order of the legacy server.
type referrer struct {
	MediaType    string          `json:"mediaType"`
	Digest       string          `json:"digest"`
	Size         int64           `json:"size"`
	ArtifactType string          `json:"artifactType,omitempty"`
	Annotations  json.RawMessage `json:"annotations,omitempty"`

	labels []manifest.Label
}

// referrers lists the manifests whose subject is the given one, and those that clients without this interface have
// listed under the subject's referrers tag.
func (m *manifests) referrers(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	if !h.Config.Features.ReferrersAPI {
		return &regerr.Abort{Status: http.StatusNotFound}
	}
	ctx := r.Context()
	if _, err := m.pullThrough(h, ctx, q); err != nil {
		return err
	}
	repo, err := q.MustRepository(ctx)
	if err != nil {
		return err
	}
	if _, err := m.byDigest(h, ctx, repo.ID, q.Digest); err != nil {
		if regerr.Status(err) == http.StatusNotFound {
			return regerr.ManifestInvalid().WithDetail("") // recorded: 400 with an empty text
		}
		return err
	}
	rows, err := h.DB.Read(ctx).Referrers(ctx, sqlc.ReferrersParams{RepositoryID: repo.ID, Subject: q.Digest})
	if err != nil {
		return fmt.Errorf("list referrers: %w", err)
	}
	var entries []referrer
	known := map[string]bool{}
	for _, row := range rows {
		entry := referrer{MediaType: row.MediaType, Digest: row.Digest, Size: int64(len(row.ManifestBytes))}
		if parsed, err := manifest.Parse(row.MediaType, []byte(row.ManifestBytes)); err == nil {
			entry.ArtifactType = parsed.ArtifactType
			entry.labels, _ = parsed.Annotations() // stored before annotations had to be texts: shown without them
		}
		entries = append(entries, entry)
		known[entry.Digest] = true
	}
	tagged, err := m.taggedReferrers(h, r, repo.ID, q.Digest)
	if err != nil {
		return err
	}
	for _, entry := range tagged {
		if !known[entry.Digest] {
			entries = append(entries, entry)
			known[entry.Digest] = true
		}
	}
	header := w.Header()
	if query := r.URL.Query(); query.Has("artifactType") {
		header.Set("OCI-Filters-Applied", "artifactType")
		matching := entries[:0]
		for _, entry := range entries {
			if entry.ArtifactType == query.Get("artifactType") && entry.ArtifactType != "" {
				matching = append(matching, entry)
			}
		}
		entries = matching
	}
	body, err := referrersIndex(entries)
	if err != nil {
		return err
	}
	header.Set("Content-Type", manifest.OCIIndex)
	return answerBody(w, r, http.StatusOK, body)
}

// taggedReferrers are the entries of the index under the tag <algorithm>-<hex>.
func (m *manifests) taggedReferrers(h *Handler, r *http.Request, repositoryID int64, subject string) ([]referrer, error) {
	ctx := r.Context()
	row, err := h.DB.Read(ctx).ManifestByTag(ctx, sqlc.ManifestByTagParams{RepositoryID: repositoryID,
		Name: strings.Replace(subject, ":", "-", 1), NowMs: h.Clock.Now().UnixMilli()})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up referrers tag: %w", err)
	}
	index, err := manifest.Parse(manifest.OCIIndex, []byte(row.ManifestBytes))
	if err != nil || row.MediaType != manifest.OCIIndex {
		return nil, nil //nolint:nilerr // something else under that name lists no referrers
	}
	var entries []referrer
	for _, child := range index.Children {
		entries = append(entries, referrer{MediaType: child.MediaType, Digest: child.Digest, Size: child.Size,
			ArtifactType: child.ArtifactType, labels: child.Annotations})
	}
	return entries, nil
}

// referrersIndex spells the index as the legacy server does, with every referrer's annotations merged at its end.
func referrersIndex(entries []referrer) (string, error) {
	index := struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     []referrer      `json:"manifests"`
		Annotations   json.RawMessage `json:"annotations,omitempty"`
	}{2, manifest.OCIIndex, []referrer{}, nil}
	var merged []manifest.Label
	place := map[string]int{}
	for _, entry := range entries {
		var err error
		if entry.Annotations, err = orderedObject(entry.labels); err != nil {
			return "", err
		}
		index.Manifests = append(index.Manifests, entry)
		for _, label := range entry.labels {
			if i, ok := place[label.Key]; ok {
				merged[i].Value = label.Value
			} else {
				place[label.Key] = len(merged)
				merged = append(merged, label)
			}
		}
	}
	var err error
	if index.Annotations, err = orderedObject(merged); err != nil {
		return "", err
	}
	return indented(index)
}
