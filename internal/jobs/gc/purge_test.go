package gc_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/jobs/gc"
)

// TestNameIsTakenAgain purges a namespace whose name somebody else has taken meanwhile: their robots stay.
func TestNameIsTakenAgain(t *testing.T) {
	r := open(t, gc.Settings{})
	marked := r.clock.Now()
	account := func(name string, robot bool, made *time.Time) {
		t.Helper()
		r.exec(`INSERT INTO "user" (uuid, username, email, verified, organization, robot, invoice_email, invalid_login_attempts,
			last_invalid_login, removed_tag_expiration_s, enabled, creation_date)
			VALUES (gen_random_uuid()::text, $1, gen_random_uuid()::text, TRUE, FALSE, $2, FALSE, 0, now(), 0, TRUE, $3)`, name, robot, made)
	}
	before, after := marked.Add(-time.Hour), marked.Add(time.Hour)
	account("owner+old", true, &before)
	account("owner+undated", true, nil)
	r.exec(`UPDATE "user" SET username = gen_random_uuid()::text, email = gen_random_uuid()::text, enabled = FALSE WHERE id = $1`, r.owner)
	marker := r.one(`INSERT INTO deletednamespace (namespace_id, marked, original_username, original_email)
		VALUES ($1, $2, 'owner', 'owner@example.org') RETURNING id`, r.owner, marked)
	account("owner", false, &after)
	account("owner+new", true, &after)

	body := fmt.Sprintf(`{"marker_id": %d, "original_username": "owner"}`, marker)
	if err := r.workers[0].PurgeDeletedNamespace(t.Context(), body); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"owner": 1, "owner+new": 1, "owner+undated": 1, "owner+old": 0} {
		if n := r.one(`SELECT count(*) FROM "user" WHERE username = $1`, name); n != want {
			t.Errorf("%d accounts called %s, want %d", n, name, want)
		}
	}
	if n := r.one(`SELECT (SELECT count(*) FROM "user" WHERE id = $1) + (SELECT count(*) FROM deletednamespace)`, r.owner); n != 0 {
		t.Errorf("%d rows of the purged namespace are left", n)
	}
}
