package jobs_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/jobs"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// installation is the recorded dataset with a directory of objects and a configuration.
type installation struct {
	t    *testing.T
	conn *pgx.Conn
	dsn  string
	dir  string
}

func install(t *testing.T) *installation {
	t.Helper()
	database := pgtest.Populated(t)
	i := &installation{t: t, conn: database.Conn(), dsn: database.DSN, dir: t.TempDir()}
	i.configure("")
	return i
}

// configure writes the configuration, with further settings.
func (i *installation) configure(more string) {
	i.t.Helper()
	text := fmt.Sprintf(`
SERVER_HOSTNAME: quay.example
SETUP_COMPLETE: true
PREFERRED_URL_SCHEME: https
AUTHENTICATION_TYPE: Database
BUILDLOGS_REDIS: {host: localhost}
USER_EVENTS_REDIS: {host: localhost}
DEFAULT_TAG_EXPIRATION: 2w
TAG_EXPIRATION_OPTIONS: [0s, 1d, 1w, 2w, 4w]
TESTING: false
SECRET_KEY: "11111111111111111111"
DATABASE_SECRET_KEY: "22222222222222222222"
DB_URI: %q
DISTRIBUTED_STORAGE_CONFIG: {local_us: [LocalStorage, {storage_path: %q}]}
DISTRIBUTED_STORAGE_PREFERENCE: [local_us]
DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS: [local_us]
FEATURE_QUOTA_MANAGEMENT: true
%s
`, i.dsn, filepath.Join(i.dir, "storage"), more)
	if err := os.WriteFile(filepath.Join(i.dir, "config.yaml"), []byte(text), 0o600); err != nil {
		i.t.Fatal(err)
	}
}

// once runs `workers once` and returns its exit code and what it said.
func (i *installation) once(worker string) (int, string) {
	var out bytes.Buffer
	code := jobs.Main([]string{"once", "--config-dir", i.dir, worker}, &out, &out)
	return code, out.String()
}

func (i *installation) exec(sql string) {
	i.t.Helper()
	if _, err := i.conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		i.t.Fatalf("%s: %v", sql, err)
	}
}

func (i *installation) count(query string) (n int64) {
	i.t.Helper()
	if err := i.conn.QueryRow(context.Background(), query).Scan(&n); err != nil {
		i.t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (i *installation) expect(counts map[string]int64) {
	i.t.Helper()
	for query, want := range counts {
		if got := i.count(query); got != want {
			i.t.Errorf("%s: %d, not %d", query, got, want)
		}
	}
}

func TestOnceUnknown(t *testing.T) {
	i := install(t)
	code, out := i.once("nosuchworker")
	if code != 2 || !strings.Contains(out, `"nosuchworker"`) || !strings.Contains(out, "gcworker, ") || !strings.Contains(out, "repositorygcworker") {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out := i.once("--nosuchflag"); code != 2 {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestGates(t *testing.T) {
	i := install(t)
	every := []string{"blobuploadcleanupworker", "expiredappspecifictokenworker", "gcworker", "linkgcworker", "namespacegcworker", "orphangcworker",
		"queuecleanupworker", "quotaregistrysizeworker", "quotatotalworker", "repositorygcworker"}
	collectors := []string{"gcworker", "linkgcworker", "namespacegcworker", "orphangcworker", "repositorygcworker"}
	for setting, idle := range map[string][]string{
		"REGISTRY_STATE: readonly":                     every,
		"ACCOUNT_RECOVERY_MODE: true":                  every,
		"DISABLE_PUSHES: true":                         collectors,
		"FEATURE_GARBAGE_COLLECTION: false":            {"gcworker", "linkgcworker", "orphangcworker"},
		"FEATURE_REPOSITORY_GARBAGE_COLLECTION: false": {"repositorygcworker"},
		"FEATURE_NAMESPACE_GARBAGE_COLLECTION: false":  {"namespacegcworker"},
		"FEATURE_APP_SPECIFIC_TOKENS: false":           {"expiredappspecifictokenworker"},
		"QUOTA_BACKFILL: false":                        {"quotatotalworker"},
		"EXPIRED_APP_SPECIFIC_TOKEN_GC: null":          {"expiredappspecifictokenworker"},
	} {
		i.configure(setting)
		for _, worker := range every {
			code, out := i.once(worker)
			if code != 0 || strings.Contains(out, "worker is idle") != slices.Contains(idle, worker) {
				t.Errorf("%s: %s: exit %d, %s", setting, worker, code, out)
			}
		}
	}
}

// TestRepositoryPurge purges devtable/shared as the recording gc/repo-delete-and-gc does.
func TestRepositoryPurge(t *testing.T) {
	i := install(t)
	before := i.count(`SELECT count(*) FROM repository`)
	i.exec(`
UPDATE repository SET name = gen_random_uuid()::text, state = 3 WHERE id = 10;
INSERT INTO deletedrepository (id, repository_id, marked, original_name, queue_id) VALUES (1000, 10, now(), 'shared', '1000');
INSERT INTO blobupload (repository_id, uuid, byte_count, location_id) VALUES (10, 'left', 0, 10);
INSERT INTO star (user_id, repository_id, created) VALUES (5, 10, now());
INSERT INTO tagpullstatistics (repository_id, tag_name, tag_pull_count, last_tag_pull_date, current_manifest_digest) VALUES (10, 'gone', 1, now(), 'sha256:00');
INSERT INTO queueitem (id, queue_name, body, available_after, available, retries_remaining, state_id)
  VALUES (1000, 'repositorygc/devtable/10/', '{"marker_id": 1000, "original_name": "shared"}', '2020-01-01', TRUE, 5, 'a')`)
	if code, out := i.once("repositorygcworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{
		`SELECT count(*) FROM repository`:                                                      before - 1,
		`SELECT count(*) FROM repository WHERE id = 10`:                                        0,
		`SELECT count(*) FROM deletedrepository`:                                               0,
		`SELECT count(*) FROM queueitem WHERE id = 1000`:                                       0,
		`SELECT count(*) FROM imagestorage WHERE id BETWEEN 93 AND 97`:                         0,
		`SELECT count(*) FROM manifest WHERE id = 29`:                                          0,
		`SELECT size_bytes FROM quotanamespacesize WHERE namespace_user_id = 1`:                2885,
		`SELECT count(*) FROM quotarepositorysize WHERE repository_id = 10`:                    0,
		`SELECT count(*) FROM repositorypermission WHERE repository_id = 10`:                   0,
		`SELECT count(*) FROM blobupload WHERE uuid = 'left'`:                                  0,
		`SELECT count(*) FROM tagpullstatistics`:                                               0,
		`SELECT count(*) FROM manifestblob WHERE blob_id NOT IN (SELECT id FROM imagestorage)`: 0,
	})
}

// TestRepositoryPurgeRefuses leaves a repository alone that is not marked for deletion, whatever an item says.
func TestRepositoryPurgeRefuses(t *testing.T) {
	i := install(t)
	i.exec(`
INSERT INTO deletedrepository (id, repository_id, marked, original_name) VALUES (1000, 10, now(), 'shared');
INSERT INTO queueitem (id, queue_name, body, available_after, available, retries_remaining, state_id)
  VALUES (1000, 'repositorygc/devtable/10/', '{"marker_id": 1000, "original_name": "shared"}', '2020-01-01', TRUE, 5, 'a')`)
	if code, out := i.once("repositorygcworker"); code != 1 || !strings.Contains(out, "not marked for deletion") {
		t.Errorf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{
		`SELECT count(*) FROM repository WHERE id = 10`:                                 1,
		`SELECT count(*) FROM tag WHERE repository_id = 10 AND lifetime_end_ms IS NULL`: 1,
		`SELECT retries_remaining FROM queueitem WHERE id = 1000`:                       4,
	})
}

// TestNamespacePurge purges an organization with everything it has, and nothing of others.
func TestNamespacePurge(t *testing.T) {
	i := install(t)
	users := i.count(`SELECT count(*) FROM "user"`)
	robots := i.count(`SELECT count(*) FROM "user" WHERE username LIKE 'buynlarge+%'`)
	others := i.count(`SELECT count(*) FROM repository WHERE namespace_user_id <> 15`)
	approvals := i.count(`SELECT count(*) FROM servicekeyapproval`)
	i.exec(`
UPDATE "user" SET username = gen_random_uuid()::text, email = gen_random_uuid()::text, enabled = FALSE WHERE id = 15;
INSERT INTO deletednamespace (id, namespace_id, marked, original_username, original_email, queue_id) VALUES (1000, 15, now(), 'buynlarge', 'x', '1000');
INSERT INTO queueitem (id, queue_name, body, available_after, available, retries_remaining, state_id)
  VALUES (1000, 'namespacegc/15/', '{"marker_id": 1000, "original_username": "buynlarge"}', '2020-01-01', TRUE, 5, 'a')`)
	if code, out := i.once("namespacegcworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if robots == 0 {
		t.Error("the dataset has no robots")
	}
	i.expect(map[string]int64{
		`SELECT count(*) FROM "user"`:                                           users - 1 - robots,
		`SELECT count(*) FROM "user" WHERE id = 15`:                             0,
		`SELECT count(*) FROM repository`:                                       others,
		`SELECT count(*) FROM team WHERE organization_id = 15`:                  0,
		`SELECT count(*) FROM oauthapplication WHERE organization_id = 15`:      0,
		`SELECT count(*) FROM permissionprototype WHERE org_id = 15`:            0,
		`SELECT count(*) FROM namespaceautoprunepolicy WHERE namespace_id = 15`: 0,
		`SELECT count(*) FROM deletednamespace`:                                 0,
		`SELECT count(*) FROM queueitem WHERE id = 1000`:                        0,
		`SELECT count(*) FROM servicekeyapproval`:                               approvals,
	})
	if code, out := i.once("namespacegcworker"); code != 0 {
		t.Errorf("with nothing to do: exit %d: %s", code, out)
	}
}

func TestUploadCleanup(t *testing.T) {
	i := install(t)
	uploads := filepath.Join(i.dir, "storage", "uploads")
	if err := os.MkdirAll(uploads, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"old", "fresh"} {
		if err := os.WriteFile(filepath.Join(uploads, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i.exec(`
DELETE FROM blobupload;
INSERT INTO blobupload (repository_id, uuid, byte_count, location_id, storage_metadata, created) VALUES
  (10, 'old', 1, 10, '{}', now() AT TIME ZONE 'utc' - interval '3 days'), (10, 'gone', 1, 10, NULL, now() AT TIME ZONE 'utc' - interval '3 days'),
  (10, 'fresh', 1, 10, '{}', now() AT TIME ZONE 'utc')`)
	if code, out := i.once("blobuploadcleanupworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{`SELECT count(*) FROM blobupload`: 1, `SELECT count(*) FROM blobupload WHERE uuid = 'fresh'`: 1})
	left, err := os.ReadDir(uploads)
	if err != nil || len(left) != 1 || left[0].Name() != "fresh" {
		t.Errorf("left in storage: %v, %v", left, err)
	}
}

func TestQueueCleanup(t *testing.T) {
	i := install(t)
	before := i.count(`SELECT count(*) FROM queueitem`)
	fill := func(n int) {
		i.exec(fmt.Sprintf(`INSERT INTO queueitem (queue_name, body, available_after, available, processing_expires, retries_remaining, state_id)
SELECT 'old/x/', '{}', '2020-01-01', TRUE, '2020-01-01', 0, gen_random_uuid()::text FROM generate_series(1, %d)`, n))
	}
	fill(49)
	if code, out := i.once("queuecleanupworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{`SELECT count(*) FROM queueitem`: before + 49})
	fill(1000)
	if code, out := i.once("queuecleanupworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{`SELECT count(*) FROM queueitem`: before + 49})
}

// TestExpiredLinks collects a blob that was uploaded and never named by a manifest.
func TestExpiredLinks(t *testing.T) {
	i := install(t)
	i.exec(`
DELETE FROM uploadedblob;
INSERT INTO imagestorage (id, uuid, image_size, cas_path, content_checksum) VALUES (5000, 'u', 1, TRUE, 'sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881');
INSERT INTO imagestorageplacement (storage_id, location_id) VALUES (5000, 10);
INSERT INTO uploadedblob (repository_id, blob_id, uploaded_at, expires_at) VALUES (10, 5000, '2020-01-01', '2020-01-01')`)
	object := filepath.Join(i.dir, "storage", "sha256", "2d", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")
	if err := os.MkdirAll(filepath.Dir(object), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(object, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := i.once("gcworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{`SELECT count(*) FROM imagestorage WHERE id = 5000`: 1}) // as in the legacy server
	if code, out := i.once("linkgcworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{`SELECT count(*) FROM imagestorage WHERE id = 5000`: 0, `SELECT count(*) FROM uploadedblob`: 0})
	if _, err := os.Stat(object); !os.IsNotExist(err) {
		t.Errorf("the object is there: %v", err)
	}
}

func TestQuotaTotals(t *testing.T) {
	i := install(t)
	want := i.count(`SELECT sum(size_bytes) FROM quotanamespacesize`)
	i.exec(`
DELETE FROM quotanamespacesize WHERE namespace_user_id = 1;
UPDATE quotanamespacesize SET size_bytes = 0, backfill_start_ms = NULL, backfill_complete = FALSE WHERE namespace_user_id = 5;
DELETE FROM quotarepositorysize WHERE repository_id = 10;
UPDATE quotanamespacesize SET size_bytes = size_bytes + 1 WHERE namespace_user_id = 15`) // counted already: stays as it is
	if code, out := i.once("quotatotalworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{
		`SELECT sum(size_bytes) FROM quotanamespacesize`:                                                                                                 want + 1,
		`SELECT size_bytes FROM quotarepositorysize WHERE repository_id = 10`:                                                                            115,
		`SELECT count(*) FROM quotanamespacesize WHERE NOT backfill_complete`:                                                                            0,
		`SELECT count(*) FROM "user" u WHERE enabled AND NOT robot AND NOT EXISTS (SELECT 1 FROM quotanamespacesize q WHERE q.namespace_user_id = u.id)`: 0,
	})
}

func TestRegistryTotal(t *testing.T) {
	i := install(t)
	i.exec(`DELETE FROM quotaregistrysize; INSERT INTO quotaregistrysize (size_bytes, running, queued) VALUES (7, FALSE, FALSE)`)
	if code, out := i.once("quotaregistrysizeworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{`SELECT size_bytes FROM quotaregistrysize`: 7})
	i.exec(`UPDATE quotaregistrysize SET queued = TRUE`)
	if code, out := i.once("quotaregistrysizeworker"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	i.expect(map[string]int64{
		`SELECT size_bytes FROM quotaregistrysize`:                                                     i.count(`SELECT sum(image_size) FROM imagestorage`),
		`SELECT count(*) FROM quotaregistrysize WHERE NOT running AND NOT queued AND completed_ms > 0`: 1,
	})
}

// TestDaemon starts the daemon until it is ready and stops it.
func TestDaemon(t *testing.T) {
	i := install(t)
	cfg, err := config.Load(i.dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := jobs.Compose(t.Context(), jobs.Options{Config: cfg, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	daemon := w.Daemon()
	ready := false
	daemon.OnReady = func([]net.Addr, net.Addr) { ready = true; stop() }
	if err := daemon.Run(ctx); err != nil || !ready {
		t.Errorf("ready: %v, error: %v", ready, err)
	}
}
