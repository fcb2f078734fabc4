package push

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// Notify queues one notification of these tags for everybody who wants to hear of pushes to the repository. performer is the
// JSON object that notifications carry.
func (p *Pusher) Notify(ctx context.Context, repo Repository, tags []string, performer string) error {
	rules, err := p.DB.Read(ctx).TagRules(ctx, repo.ID)
	if err != nil {
		return fmt.Errorf("look up notifications of %s/%s: %w", repo.Namespace, repo.Name, err)
	}
	items := sqlc.QueueItemsParams{Now: p.Clock.Now()}
	for _, id := range rules.Notifications {
		body, err := p.notification(repo, id, tags, performer)
		if err != nil {
			return err
		}
		items.Names = append(items.Names, p.notificationQueue(repo))
		items.Bodies = append(items.Bodies, body)
		items.StateIds = append(items.StateIds, uuid.NewString())
	}
	if len(items.Names) == 0 {
		return nil
	}
	if err := p.DB.Write(ctx).QueueItems(ctx, items); err != nil {
		return fmt.Errorf("queue notifications of %s/%s: %w", repo.Namespace, repo.Name, err)
	}
	return nil
}

// Replicate queues copies of a blob to the other locations, where that is asked for.
func (p *Pusher) Replicate(ctx context.Context, repo Repository, blobUUID string) error {
	if !p.Settings.Replication {
		return nil
	}
	err := p.DB.Write(ctx).QueueItems(ctx, sqlc.QueueItemsParams{
		Names: []string{p.Settings.ReplicationQueue + "/" + blobUUID + "/"}, Bodies: []string{p.replication(repo, blobUUID)},
		StateIds: []string{uuid.NewString()}, Now: p.Clock.Now(),
	})
	if err != nil {
		return fmt.Errorf("queue replication of blob %s: %w", blobUUID, err)
	}
	return nil
}

func (p *Pusher) replication(repo Repository, blobUUID string) string {
	return fmt.Sprintf(`{"namespace_user_id": %d, "storage_id": "%s"}`, repo.NamespaceID, blobUUID)
}

func (p *Pusher) notificationQueue(repo Repository) string {
	return p.Settings.NotificationQueue + "/" + repo.Namespace + "/" + repo.Name + "/repo_push/"
}
