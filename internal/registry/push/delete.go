package push

import (
	"context"
	"fmt"

	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// DeleteTag ends a tag. It returns ErrNotFound when no such tag is alive.
func (p *Pusher) DeleteTag(ctx context.Context, repo Repository, name string) error {
	return p.delete(ctx, repo, "tag "+name, func(ctx context.Context, q *sqlc.Queries, now int64) ([]ended, error) {
		rows, err := q.TagsOfName(ctx, sqlc.TagsOfNameParams{RepositoryID: repo.ID, Name: name, SinceMs: now})
		tags := make([]ended, 0, len(rows))
		for _, row := range rows {
			tags = append(tags, ended{row.ID, name, row.ManifestID, row.Digest, row.Immutable})
		}
		return tags, err
	})
}

// DeleteManifest ends every alive visible tag of a manifest and returns their names. It returns ErrNotFound when there is none.
func (p *Pusher) DeleteManifest(ctx context.Context, repo Repository, digest string) ([]string, error) {
	var names []string
	err := p.delete(ctx, repo, "manifest "+digest, func(ctx context.Context, q *sqlc.Queries, now int64) ([]ended, error) {
		rows, err := q.TagsOfManifest(ctx, sqlc.TagsOfManifestParams{RepositoryID: repo.ID, Digest: digest, NowMs: now})
		tags := make([]ended, 0, len(rows))
		names = names[:0]
		for _, row := range rows {
			tags = append(tags, ended{row.ID, row.Name, row.ManifestID, row.Digest, row.Immutable})
			names = append(names, row.Name)
		}
		return tags, err
	})
	return names, err
}

type ended struct {
	id         int64
	name       string
	manifestID *int64
	digest     string
	immutable  bool
}

func (p *Pusher) delete(ctx context.Context, repo Repository, what string,
	find func(ctx context.Context, q *sqlc.Queries, now int64) ([]ended, error)) error {
	err := p.locked(ctx, repo, func(ctx context.Context, q *sqlc.Queries) error {
		now := p.now()
		tags, err := find(ctx, q, now)
		if err != nil {
			return err
		}
		if len(tags) == 0 {
			return ErrNotFound
		}
		var ids, manifests []int64
		var names []string
		for _, tag := range tags {
			if tag.immutable && p.Settings.ImmutableTags {
				return &ImmutableError{Tag: tag.name}
			}
			ids, names = append(ids, tag.id), append(names, tag.name)
			if tag.manifestID != nil {
				manifests = append(manifests, *tag.manifestID)
			}
		}
		if err := p.endTags(ctx, q, ids, now); err != nil {
			return err
		}
		if err := q.DeletePullStatistics(ctx, sqlc.DeletePullStatisticsParams{RepositoryID: repo.ID, Names: names}); err != nil {
			return fmt.Errorf("delete pull statistics: %w", err)
		}
		for _, tag := range tags {
			if tag.manifestID == nil || cosignTag.MatchString(tag.name) {
				continue
			}
			if err := p.endSiblings(ctx, q, repo.ID, *tag.manifestID, tag.digest, now); err != nil {
				return err
			}
		}
		if !p.Settings.ResetChildExpiration {
			return nil
		}
		temporary, err := q.TemporaryTagsOfChildren(ctx, sqlc.TemporaryTagsOfChildrenParams{RepositoryID: repo.ID,
			ManifestIds: manifests, NowMs: now})
		if err != nil {
			return fmt.Errorf("look up children: %w", err)
		}
		return p.endTags(ctx, q, temporary, now)
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", what, err)
	}
	return nil
}
