package push

import (
	"context"
	"fmt"

	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
)

// addQuota counts the new manifest's blobs. Totals of a disabled namespace stand still.
func (w *write) addQuota(ctx context.Context, q *sqlc.Queries) error {
	if !w.p.Settings.Quota || !w.repo.NamespaceEnabled {
		return nil
	}
	err := q.AddQuotaOfManifest(ctx, sqlc.AddQuotaOfManifestParams{RepositoryID: w.repo.ID,
		NamespaceUserID: w.repo.NamespaceID, ManifestID: w.id, BlobIds: w.blobIDs()})
	if err != nil {
		return fmt.Errorf("count quota of manifest %s: %w", w.m.Digest, err)
	}
	return nil
}

// OverQuota tells whether a namespace may take no further blobs: its use reaches a limit that rejects. With inFlight, what
// the repository's unfinished uploads have received counts too. It tells the namespace when it reaches any limit.
func (p *Pusher) OverQuota(ctx context.Context, repo Repository, inFlight bool) (bool, error) {
	if !p.Settings.Quota || !p.Settings.VerifyQuota {
		return false, nil
	}
	q, received := p.DB.Write(ctx), int64(0)
	if inFlight {
		var err error
		if received, err = q.ReceivedBytes(ctx, repo.ID); err != nil {
			return false, fmt.Errorf("sum up uploads to %s/%s: %w", repo.Namespace, repo.Name, err)
		}
	}
	return p.checkQuota(ctx, q, repo, received, true)
}

// overQuota is OverQuota for a push whose manifest counts already.
func (p *Pusher) overQuota(ctx context.Context, q *sqlc.Queries, repo Repository) (bool, error) {
	if !p.Settings.Quota || !p.Settings.VerifyQuota {
		return false, nil
	}
	return p.checkQuota(ctx, q, repo, 0, false)
}

// checkQuota holds the namespace's use and further bytes against its limits. What it tells the namespace about uploads has
// the severity in it, as in the legacy server.
func (p *Pusher) checkQuota(ctx context.Context, q *sqlc.Queries, repo Repository, further int64, uploads bool) (bool, error) {
	rows, err := q.NamespaceQuota(ctx, repo.NamespaceID)
	if err != nil {
		return false, fmt.Errorf("look up quota of %s: %w", repo.Namespace, err)
	}
	severity, highest := "", int64(-1)
	for _, row := range rows {
		limit, percent, kind := p.Settings.SystemRejectBytes, int64(100), "Reject"
		switch {
		case row.LimitBytes == nil && limit <= 0:
			continue
		case row.LimitBytes != nil && row.PercentOfLimit == nil:
			continue // a quota without limits rejects nothing
		case row.LimitBytes != nil:
			limit, percent, kind = *row.LimitBytes, *row.PercentOfLimit, *row.Severity
		}
		// limit*percent does not overflow: limits are far below 2^56 bytes.
		if threshold := limit * percent / 100; row.Used+further >= threshold && (threshold > highest || threshold == highest && kind == "Reject") {
			severity, highest = kind, threshold
		}
	}
	if severity == "" {
		return false, nil
	}
	kind := map[string]string{"Warning": "quota_warning", "Reject": "quota_error"}[severity]
	members := map[string]string{"namespace": repo.Namespace}
	if uploads {
		members["severity"] = severity
	}
	metadata, err := pyjson.Spaced(members)
	if err != nil {
		return false, err
	}
	err = q.NotifyQuota(ctx, sqlc.NotifyQuotaParams{NamespaceUserID: repo.NamespaceID, Kind: kind,
		MetadataJSON: string(metadata), Now: p.Clock.Now()})
	if err != nil {
		return false, fmt.Errorf("notify %s of its quota: %w", repo.Namespace, err)
	}
	return severity == "Reject", nil
}
