package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/manifest/jsondoc"
)

// cosignTag is the name under which cosign keeps what belongs to another manifest.
var cosignTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}\.(sig|att|sbom)$`)

// siblings are cosign's tag names of a manifest.
func siblings(digest string) []string {
	base := strings.Replace(digest, ":", "-", 1)
	return []string{base + ".sig", base + ".att", base + ".sbom"}
}

// moveTag points the tag at the stored manifest. The lock on the repository's tags is held.
func (w *write) moveTag(ctx context.Context, q *sqlc.Queries, name, performer string) (Result, error) {
	now := w.p.now()
	rows, err := q.TagsOfName(ctx, sqlc.TagsOfNameParams{RepositoryID: w.repo.ID, Name: name, SinceMs: now})
	if err != nil {
		return Result{}, fmt.Errorf("look up tag %s: %w", name, err)
	}
	var old []int64
	var replaced []sqlc.TagsOfNameRow
	for _, row := range rows {
		if w.p.Settings.ImmutableTags && row.Immutable {
			return Result{}, &ImmutableError{Tag: name}
		}
		// Another server's clock may be ahead of this one; time never runs backwards within one name.
		now = max(now, row.LifetimeStartMs)
		if row.LifetimeEndMs == nil || *row.LifetimeEndMs > now {
			old = append(old, row.ID)
			replaced = append(replaced, row)
		}
	}
	rules, err := q.TagRules(ctx, w.repo.ID)
	if err != nil {
		return Result{}, fmt.Errorf("look up rules of tag %s: %w", name, err)
	}
	labels, err := w.actionLabels(ctx, q)
	if err != nil {
		return Result{}, err
	}
	var result Result
	immutable := false
	if w.p.Settings.ImmutableTags {
		immutable = strings.EqualFold(labels["quay.immutable"], "true")
		if !immutable && madeImmutable(name, slices.Concat(rules.NamespacePolicies, rules.RepositoryPolicies)) {
			immutable, result.MadeImmutableByPolicy = true, true
		}
	}
	var end *int64
	if value, ok := labels["quay.expires-after"]; ok && (!immutable || w.p.Settings.ImmutableTagsCanExpire) {
		if ms, ok := expiresAfter(value); ok {
			end = pointer(now + ms)
		}
	}
	if err := w.p.endTags(ctx, q, old, now); err != nil {
		return Result{}, err
	}
	for _, row := range replaced {
		if row.ManifestID != nil && row.Digest != w.m.Digest && !cosignTag.MatchString(name) {
			if err := w.p.endSiblings(ctx, q, w.repo.ID, *row.ManifestID, row.Digest, now); err != nil {
				return Result{}, err
			}
		}
	}
	_, err = q.InsertTag(ctx, sqlc.InsertTagParams{RepositoryID: w.repo.ID, ManifestID: w.id, Name: name,
		StartMs: now, EndMs: end, Immutable: immutable})
	if err != nil {
		return Result{}, fmt.Errorf("insert tag %s: %w", name, err)
	}
	return result, w.queue(ctx, q, name, performer, rules.Notifications)
}

// actionLabels are the labels that steer the tag: the manifest's own, for a list those that all its children share.
func (w *write) actionLabels(ctx context.Context, q *sqlc.Queries) (map[string]string, error) {
	labels := map[string]string{}
	if w.brandNew && !w.m.IsList() {
		for _, label := range w.labels {
			labels[label.Key] = label.Value
		}
		return labels, nil
	}
	ids := []int64{w.id}
	if w.m.IsList() {
		ids = w.children
	}
	if len(ids) == 0 {
		return labels, nil
	}
	rows, err := q.ActionLabels(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look up labels of manifest %s: %w", w.m.Digest, err)
	}
	of := map[manifest.Label]map[int64]bool{}
	for _, row := range rows {
		label := manifest.Label{Key: row.Key, Value: row.Value}
		if of[label] == nil {
			of[label] = map[int64]bool{}
		}
		of[label][row.ManifestID] = true
	}
	for label, manifests := range of {
		if len(manifests) == len(ids) {
			labels[label.Key] = label.Value
		}
	}
	return labels, nil
}

func (p *Pusher) endTags(ctx context.Context, q *sqlc.Queries, ids []int64, now int64) error {
	if len(ids) == 0 {
		return nil
	}
	// A tag that ended in the same millisecond is stepped aside for; nobody ends one name 256 times in a quarter second.
	if err := q.EndTags(ctx, sqlc.EndTagsParams{Ids: ids, NowMs: now, FirstMs: now - 255}); err != nil {
		return fmt.Errorf("end tags %v: %w", ids, err)
	}
	return nil
}

// endSiblings ends cosign's tags of a manifest that no normal tag names any more.
func (p *Pusher) endSiblings(ctx context.Context, q *sqlc.Queries, repositoryID, manifestID int64, digest string, now int64) error {
	ids, err := q.SiblingTags(ctx, sqlc.SiblingTagsParams{RepositoryID: repositoryID, ManifestID: &manifestID,
		Names: siblings(digest), NowMs: now})
	if err != nil {
		return fmt.Errorf("look up signatures of %s: %w", digest, err)
	}
	return p.endTags(ctx, q, ids, now)
}

// durations of quay.expires-after in milliseconds.
var durations = map[byte]int64{'s': 1000, 'm': 60_000, 'h': 3_600_000, 'd': 86_400_000, 'w': 7 * 86_400_000, 'y': 365 * 86_400_000}

// expiresAfter reads "<integer><unit>"; anything else is no expiration.
func expiresAfter(value string) (milliseconds int64, ok bool) {
	if value == "" {
		return 0, false
	}
	unit, known := durations[value[len(value)-1]]
	n, err := strconv.ParseInt(strings.TrimSpace(value[:len(value)-1]), 10, 64)
	const century = 100 * 365 * 86_400_000
	if !known || err != nil || n > century/unit || n < -century/unit {
		return 0, false
	}
	return n * unit, true
}

// madeImmutable tells whether one of the policies covers the tag. A policy that cannot be read covers nothing.
func madeImmutable(tag string, policies []string) bool {
	for _, text := range policies {
		policy := struct {
			Pattern string `json:"tag_pattern"`
			Matches *bool  `json:"tag_pattern_matches"`
		}{}
		if json.Unmarshal([]byte(text), &policy) != nil {
			continue
		}
		pattern, err := regexp.Compile(`^(?:` + policy.Pattern + `)`)
		if err == nil && pattern.MatchString(tag) == (policy.Matches == nil || *policy.Matches) {
			return true
		}
	}
	return false
}

// queue adds what others are to do after a tag push: notifications, and copies of the blobs.
func (w *write) queue(ctx context.Context, q *sqlc.Queries, tag, performer string, notifications []string) error {
	if w.p.Settings.Silent {
		return nil
	}
	items := sqlc.QueueItemsParams{Now: w.p.Clock.Now()}
	add := func(name, body string) {
		items.Names = append(items.Names, name)
		items.Bodies = append(items.Bodies, body)
		items.StateIds = append(items.StateIds, uuid.NewString())
	}
	if w.p.Settings.Replication {
		for _, digest := range w.m.LocalBlobs() {
			for _, blob := range w.blobs {
				if blob.Digest == digest {
					add(w.p.Settings.ReplicationQueue+"/"+blob.UUID+"/", w.p.replication(w.repo, blob.UUID))
				}
			}
		}
	}
	for _, id := range notifications {
		body, err := w.p.notification(w.repo, id, []string{tag}, performer)
		if err != nil {
			return err
		}
		add(w.p.notificationQueue(w.repo), body)
	}
	if len(items.Names) == 0 {
		return nil
	}
	if err := q.QueueItems(ctx, items); err != nil {
		return fmt.Errorf("queue work for tag %s: %w", tag, err)
	}
	return nil
}

func (p *Pusher) notification(repo Repository, id string, tags []string, performer string) (string, error) {
	name := repo.Namespace + "/" + repo.Name
	body, err := pyjson.Spaced(struct {
		UUID  string `json:"notification_uuid"`
		Event struct {
			Repository  string   `json:"repository"`
			Namespace   string   `json:"namespace"`
			Name        string   `json:"name"`
			DockerURL   string   `json:"docker_url"`
			Homepage    string   `json:"homepage"`
			UpdatedTags []string `json:"updated_tags"`
		} `json:"event_data"`
		Performer json.RawMessage `json:"performer_data"`
	}{UUID: id, Event: struct {
		Repository  string   `json:"repository"`
		Namespace   string   `json:"namespace"`
		Name        string   `json:"name"`
		DockerURL   string   `json:"docker_url"`
		Homepage    string   `json:"homepage"`
		UpdatedTags []string `json:"updated_tags"`
	}{name, repo.Namespace, repo.Name, p.Settings.ServerHostname + "/" + name,
		p.Settings.URLScheme + "://" + p.Settings.ServerHostname + "/repository/" + name, tags},
		Performer: json.RawMessage(performer)})
	if err != nil {
		return "", fmt.Errorf("word notification: %w", err)
	}
	return string(body), nil
}

func validJSON(text string) bool {
	_, err := jsondoc.Parse(text)
	var syntax *jsondoc.SyntaxError
	return !errors.As(err, &syntax)
}
