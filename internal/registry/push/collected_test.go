package push_test

import (
	"context"
	"errors"
	"testing"

	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/push"
)

// TestBlobCollectedMeanwhile lets a push find its blobs, takes one away before it writes, and wants the refusal that a missing
// blob always gets, not a failure of the database.
func TestBlobCollectedMeanwhile(t *testing.T) {
	ctx := context.Background()
	r := open(t, push.Settings{})
	m := r.image("")
	// The push looks its blobs up, then waits for the lock of the repository's tags.
	tx, err := r.conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", push.TagLock(r.repo.ID)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := r.push.Tag(ctx, r.repo, "late", m, "{}")
		done <- err
	}()
	for waiting := false; !waiting; {
		if err := tx.QueryRow(ctx, `select exists (select 1 from pg_locks l join pg_database d on d.oid = l.database
			where d.datname = current_database() and l.locktype = 'advisory' and not l.granted)`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	digest := m.Config.Digest
	for _, sql := range []string{
		"delete from uploadedblob where blob_id in (select id from imagestorage where content_checksum = $1)",
		"delete from imagestorageplacement where storage_id in (select id from imagestorage where content_checksum = $1)",
		"delete from imagestorage where content_checksum = $1",
	} {
		if _, err := tx.Exec(ctx, sql, digest); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	var refused *manifest.Error
	if err := <-done; !errors.As(err, &refused) || refused.Reason != "Unknown blob `"+digest+"`" {
		t.Errorf("got %v, want the refusal of an unknown blob", err)
	}
	if alive := r.alive("late"); len(alive) > 0 {
		t.Errorf("tag late points at %s", alive)
	}
}
