// Package cleanup holds the small jobs that remove what was left lying: abandoned uploads, items of the queue that nobody
// works on, application tokens that ended. Each is a runner.Job.
package cleanup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/jobs/runner"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/storage"
)

// Uploads removes uploads that were begun long ago, and what is left in storage of uploads without a record.
type Uploads struct {
	DB      *metadata.DB
	Storage *storage.Set
	Clock   clock.Clock
	Log     *slog.Logger
	Every   time.Duration // BLOBUPLOAD_CLEANUP_FREQUENCY
	Age     time.Duration // BLOBUPLOAD_DELETION_DATE_THRESHOLD
	Folder  bool          // CLEAN_BLOB_UPLOAD_FOLDER
}

// Name implements runner.Job.
func (*Uploads) Name() string { return "blobuploadcleanupworker" }

// Schedule implements runner.Job.
func (u *Uploads) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "_cleanup_uploads", Every: u.Every, Lock: "BLOB_CLEANUP", LockTTL: 20 * time.Minute}
}

// Run implements runner.Job.
func (u *Uploads) Run(ctx context.Context) (p runner.Progress, err error) {
	before := u.Clock.Now().Add(-u.Age)
	for after := int64(0); ; {
		rows, err := u.DB.Write(ctx).AbandonedUploads(ctx, sqlc.AbandonedUploadsParams{Before: before, AfterID: after})
		if err != nil {
			return p, fmt.Errorf("look for abandoned uploads: %w", err)
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			after = row.ID
			if ctx.Err() != nil {
				return p, context.Cause(ctx)
			}
			// The row goes first: nobody can write to the upload any more, and what a crash leaves in storage goes with
			// the folder.
			n, err := u.DB.Write(ctx).DeleteAbandonedUpload(ctx, sqlc.DeleteAbandonedUploadParams{ID: row.ID, ByteCount: row.ByteCount, ChunkCount: row.ChunkCount})
			if err != nil {
				return p, fmt.Errorf("delete abandoned upload %s: %w", row.UUID, err)
			}
			if n == 0 {
				continue // somebody wrote to it just now
			}
			p.Done++
			if err := u.cancel(context.WithoutCancel(ctx), row); err != nil {
				u.Log.WarnContext(ctx, "what an abandoned upload stored could not be removed", "upload", row.UUID, "location", row.Location, "error", err)
			}
		}
	}
	if !u.Folder {
		return p, nil
	}
	location, driver := u.Storage.Preferred()
	n, err := driver.CleanUploads(ctx, before)
	p.Done += n
	if err != nil {
		return p, fmt.Errorf("clean the upload folder of location %s: %w", location, err)
	}
	return p, nil
}

func (u *Uploads) cancel(ctx context.Context, row sqlc.AbandonedUploadsRow) error {
	driver, err := u.Storage.Driver(row.Location)
	if err != nil {
		return err
	}
	state := storage.State("{}")
	if row.StorageMetadata != nil && json.Valid([]byte(*row.StorageMetadata)) {
		state = storage.State(*row.StorageMetadata)
	}
	if err := driver.Cancel(ctx, row.UUID, state); !errors.Is(err, storage.ErrNotExist) {
		return err
	}
	return nil
}

// Queue removes items whose last claim ended a day ago: nobody has come for them since. Fewer than 50 are left alone, as
// in the legacy server.
type Queue struct {
	DB    *metadata.DB
	Clock clock.Clock
	Every time.Duration // QUEUE_CLEANUP_FREQUENCY
}

const fewItems = 50

// Name implements runner.Job.
func (*Queue) Name() string { return "queuecleanupworker" }

// Schedule implements runner.Job.
func (q *Queue) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "_cleanup_queue", Every: q.Every}
}

// Run implements runner.Job.
func (q *Queue) Run(ctx context.Context) (p runner.Progress, err error) {
	before := q.Clock.Now().Add(-24 * time.Hour)
	for ctx.Err() == nil {
		ids, err := q.DB.Write(ctx).AbandonedQueueItems(ctx, before)
		if err != nil {
			return p, fmt.Errorf("look for abandoned queue items: %w", err)
		}
		if len(ids) < fewItems {
			return p, nil
		}
		n, err := q.DB.Write(ctx).DeleteAbandonedQueueItems(ctx, sqlc.DeleteAbandonedQueueItemsParams{Ids: ids, Before: before})
		if err != nil {
			return p, fmt.Errorf("delete abandoned queue items: %w", err)
		}
		p.Done += int(n)
	}
	return p, context.Cause(ctx)
}

// AppTokens removes application tokens that ended some time ago.
type AppTokens struct {
	DB    *metadata.DB
	Clock clock.Clock
	Keep  time.Duration // EXPIRED_APP_SPECIFIC_TOKEN_GC
}

// Name implements runner.Job.
func (*AppTokens) Name() string { return "expiredappspecifictokenworker" }

// Schedule implements runner.Job.
func (*AppTokens) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "_gc_expired_tokens", Every: time.Hour}
}

// Run implements runner.Job.
func (a *AppTokens) Run(ctx context.Context) (runner.Progress, error) {
	n, err := a.DB.Write(ctx).DeleteExpiredAppTokens(ctx, a.Clock.Now().Add(-a.Keep))
	if err != nil {
		return runner.Progress{}, fmt.Errorf("delete expired application tokens: %w", err)
	}
	return runner.Progress{Done: int(n)}, nil
}
