package push_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/push"
	"github.com/quayctl/quayctl/internal/storage"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// registry is a database with the recorded dataset, an empty storage and a clock that stands still.
type registry struct {
	t     *testing.T
	conn  *pgx.Conn
	clock *clock.Fake
	set   *storage.Set
	push  *push.Pusher
	repo  push.Repository // devtable/shared
	blobs int
}

func open(t *testing.T, settings push.Settings) *registry {
	t.Helper()
	ctx := context.Background()
	database := pgtest.Populated(t)
	clk := clock.NewFake(time.Now().UTC().Truncate(time.Millisecond))
	log := slog.New(slog.DiscardHandler)
	db, err := metadata.Open(ctx, metadata.Options{WriterDSN: database.DSN, AppName: "push-test", Clock: clk, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	set, err := storage.Open(storage.Config{
		Locations:  []storage.Location{{Name: "local_us", Driver: "LocalStorage", Parameters: map[string]any{"storage_path": t.TempDir()}}},
		Preference: []string{"local_us"}}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	if settings.TemporaryTag == 0 {
		settings.TemporaryTag = time.Hour
	}
	settings.NotificationQueue, settings.ReplicationQueue = "notification", "imagestoragereplication"
	settings.ServerHostname, settings.URLScheme = "quay.example", "https"
	r := &registry{t: t, conn: database.Conn(), clock: clk, set: set,
		push: &push.Pusher{DB: db, Storage: set, Clock: clk, Settings: settings}}
	r.repo = r.repository("devtable", "shared")
	return r
}

func (r *registry) repository(namespace, name string) push.Repository {
	r.t.Helper()
	repo := push.Repository{Namespace: namespace, Name: name}
	err := r.conn.QueryRow(context.Background(), `SELECT r.id, u.id, u.enabled FROM repository r JOIN "user" u ON u.id = r.namespace_user_id
		WHERE u.username = $1 AND r.name = $2`, namespace, name).Scan(&repo.ID, &repo.NamespaceID, &repo.NamespaceEnabled)
	if err != nil {
		r.t.Fatal(err)
	}
	return repo
}

// blob stores content as uploaded to the repository and returns its digest.
func (r *registry) blob(content string) string {
	r.t.Helper()
	ctx := context.Background()
	digest := manifest.Digest([]byte(content))
	key, err := storage.BlobKey(digest)
	if err != nil {
		r.t.Fatal(err)
	}
	_, driver := r.set.Preferred()
	if err := driver.Put(ctx, key, bytes.NewReader([]byte(content)), storage.PutOptions{}); err != nil {
		r.t.Fatal(err)
	}
	_, err = r.conn.Exec(ctx, `WITH s AS (INSERT INTO imagestorage (uuid, image_size, cas_path, content_checksum)
			VALUES (gen_random_uuid()::text, $1, TRUE, $2) RETURNING id),
		p AS (INSERT INTO imagestorageplacement (storage_id, location_id) SELECT s.id, l.id FROM s, imagestoragelocation l WHERE l.name = 'local_us')
		INSERT INTO uploadedblob (repository_id, blob_id, uploaded_at, expires_at) SELECT $3, s.id, now(), now() FROM s`,
		len(content), digest, r.repo.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return digest
}

// image makes a Docker image of one layer whose config has the labels (JSON members).
func (r *registry) image(labels string) *manifest.Manifest {
	r.t.Helper()
	r.blobs++
	layer := fmt.Sprintf("layer %d", r.blobs)
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","n":%d,"config":{"Labels":{%s}},"history":[],"rootfs":{}}`, r.blobs, labels)
	return r.parse(manifest.DockerManifest, fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","size":%d,"digest":"%s"},`+
		`"layers":[{"mediaType":"%s","size":%d,"digest":"%s"}]}`, manifest.DockerManifest, manifest.DockerConfig, len(config), r.blob(config),
		manifest.DockerLayer, len(layer), r.blob(layer)))
}

func (r *registry) parse(mediaType, text string) *manifest.Manifest {
	r.t.Helper()
	m, err := manifest.Parse(mediaType, []byte(text))
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *registry) tag(name string, m *manifest.Manifest) {
	r.t.Helper()
	if _, err := r.push.Tag(context.Background(), r.repo, name, m, "{}"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *registry) untagged(m *manifest.Manifest) {
	r.t.Helper()
	if err := r.push.Untagged(context.Background(), r.repo, m); err != nil {
		r.t.Fatal(err)
	}
}

// rows are the results of a query, one text for each row, its columns joined by spaces.
func (r *registry) rows(query string, args ...any) []string {
	r.t.Helper()
	rows, err := r.conn.Query(context.Background(), query, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	texts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		return strings.TrimSuffix(fmt.Sprintln(values...), "\n"), err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return texts
}

func (r *registry) expect(want []string, query string, args ...any) {
	r.t.Helper()
	if got := r.rows(query, args...); !slices.Equal(got, want) {
		r.t.Errorf("%s:\n got %q\nwant %q", query, got, want)
	}
}

func (r *registry) alive(name string) []string {
	return r.rows(`SELECT m.digest FROM tag t JOIN manifest m ON m.id = t.manifest_id WHERE t.repository_id = $1 AND t.name = $2
		AND NOT t.hidden AND (t.lifetime_end_ms IS NULL OR t.lifetime_end_ms > $3)`, r.repo.ID, name, r.clock.Now().UnixMilli())
}

func TestLockIsTheLegacyServers(t *testing.T) {
	// The first eight bytes, big-endian and signed, of SHA-256("retarget_tag:10").
	if got, want := push.TagLock(10), int64(3783837716140199381); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestRowsOfAnImage(t *testing.T) {
	r := open(t, push.Settings{InvalidateQuota: true})
	m := r.image(`"a":"b","":"dropped","j":"{\"x\":1}","k":"{no"`)
	r.tag("t1", m)
	r.expect([]string{m.Digest + " " + manifest.DockerManifest + " true " + manifest.DockerConfig + " 7 <nil> true <nil> true"},
		`SELECT m.digest, mt.name, m.manifest_bytes = $1, m.config_media_type, m.layers_compressed_size, m.subject, m.subject_backfilled,
		m.artifact_type, m.artifact_type_backfilled FROM manifest m JOIN mediatype mt ON mt.id = m.media_type_id WHERE m.digest = $2`,
		string(m.Bytes), m.Digest)
	r.expect([]string{"2"}, `SELECT count(*) FROM manifestblob b JOIN manifest m ON m.id = b.manifest_id WHERE m.digest = $1`, m.Digest)
	r.expect([]string{"a b text/plain manifest", `j {"x":1} application/json manifest`, "k {no text/plain manifest"},
		`SELECT l.key, l.value, t.name, s.name FROM manifestlabel ml JOIN label l ON l.id = ml.label_id JOIN mediatype t ON t.id = l.media_type_id
		JOIN labelsourcetype s ON s.id = l.source_type_id JOIN manifest m ON m.id = ml.manifest_id WHERE m.digest = $1 ORDER BY l.id`, m.Digest)
	r.expect([]string{"0 {}  4 {}"}, `SELECT s.index_status, s.error_json, s.indexer_hash, s.indexer_version, s.metadata_json
		FROM manifestsecuritystatus s JOIN manifest m ON m.id = s.manifest_id WHERE m.digest = $1`, m.Digest)
	r.expect([]string{fmt.Sprintf("t1 %d <nil> false false false tag", r.clock.Now().UnixMilli())},
		`SELECT t.name, t.lifetime_start_ms, t.lifetime_end_ms, t.hidden, t.reversion, t.immutable, k.name FROM tag t
		JOIN manifest m ON m.id = t.manifest_id JOIN tagkind k ON k.id = t.tag_kind_id WHERE m.digest = $1`, m.Digest)
	// With quotas off a push resets the totals, which are counted anew when they are switched on.
	r.expect([]string{"0 <nil> false"}, `SELECT size_bytes, backfill_start_ms, backfill_complete FROM quotarepositorysize WHERE repository_id = $1`, r.repo.ID)
	r.expect([]string{"0 <nil> false"}, `SELECT size_bytes, backfill_start_ms, backfill_complete FROM quotanamespacesize WHERE namespace_user_id = $1`, r.repo.NamespaceID)
}

func TestSecondTagNeedsNoSecondManifest(t *testing.T) {
	r := open(t, push.Settings{})
	m := r.image("")
	r.tag("t1", m)
	r.tag("t2", m)
	r.expect([]string{"t1", "t2"}, `SELECT t.name FROM tag t JOIN manifest m ON m.id = t.manifest_id WHERE m.digest = $1 ORDER BY t.id`, m.Digest)
	// Nothing alive keeps it any more: a push keeps it for five minutes, whatever happens to the new tag.
	r.clock.Advance(time.Second)
	for _, name := range []string{"t1", "t2"} {
		if err := r.push.DeleteTag(context.Background(), r.repo, name); err != nil {
			t.Fatal(err)
		}
	}
	r.tag("t3", m)
	r.expect([]string{"$temp true 300000", "t3 false <nil>"}, `SELECT left(t.name, 5), t.hidden, t.lifetime_end_ms - t.lifetime_start_ms
		FROM tag t JOIN manifest m ON m.id = t.manifest_id WHERE m.digest = $1 AND t.lifetime_start_ms = $2 ORDER BY t.name`, m.Digest, r.clock.Now().UnixMilli())
}

func TestByDigest(t *testing.T) {
	r := open(t, push.Settings{})
	m := r.image(`"quay.expires-after":"2d"`)
	r.untagged(m)
	r.expect([]string{"$temp true 3600000"}, `SELECT left(t.name, 5), t.hidden, t.lifetime_end_ms - t.lifetime_start_ms
		FROM tag t JOIN manifest m ON m.id = t.manifest_id WHERE m.digest = $1`, m.Digest)
	r.untagged(m) // the tag ends exactly when the new one would
	r.clock.Advance(time.Millisecond)
	r.untagged(m)
	r.expect([]string{"2"}, `SELECT count(*) FROM tag t JOIN manifest m ON m.id = t.manifest_id WHERE m.digest = $1`, m.Digest)

	referrer := r.parse(manifest.OCIManifest, fmt.Sprintf(`{"schemaVersion":2,"artifactType":"a/b","config":{"mediaType":"application/vnd.oci.empty.v1+json",`+
		`"size":2,"digest":"%s"},"layers":[],"subject":{"mediaType":"x/y","size":1,"digest":"%s"},"annotations":{"n":"v"}}`, r.blob("{}"), m.Digest))
	r.untagged(referrer)
	r.expect([]string{"true <nil> " + m.Digest + " a/b"}, `SELECT t.hidden, t.lifetime_end_ms, m.subject, m.artifact_type
		FROM tag t JOIN manifest m ON m.id = t.manifest_id WHERE m.digest = $1`, referrer.Digest)
}

func TestMissingContent(t *testing.T) {
	r := open(t, push.Settings{})
	m := r.image("")
	config := m.Config
	list := func(digest string, size int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"%s","size":%d,"digest":"%s"}]}`, manifest.DockerManifest, size, digest)
	}
	r.tag("t", m)
	unknown := manifest.Digest([]byte("nowhere"))
	for want, text := range map[string][2]string{
		"Unknown blob `" + unknown + "`": {manifest.OCIManifest, fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"a/b","size":2,"digest":"%s"},"layers":[]}`, unknown)},
		fmt.Sprintf("Size of config does not match that retrieved: %d vs 1", config.Size): {manifest.DockerManifest, strings.Replace(string(m.Bytes),
			fmt.Sprintf(`"size":%d`, config.Size), `"size":1`, 1)},
		"Could not find child manifest with digest `" + unknown + "`":                        {manifest.OCIIndex, list(unknown, 1)},
		fmt.Sprintf("Size of manifest does not match that retrieved: %d vs 1", len(m.Bytes)): {manifest.OCIIndex, list(m.Digest, 1)},
	} {
		_, err := r.push.Tag(context.Background(), r.repo, "t", r.parse(text[0], text[1]), "{}")
		var refused *manifest.Error
		if !errors.As(err, &refused) || refused.Reason != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	r.push.Settings.SparseIndex = true
	r.tag("sparse", r.parse(manifest.OCIIndex, list(unknown, 1)))
}

func TestListTakesTheLabelsItsChildrenShare(t *testing.T) {
	r := open(t, push.Settings{ResetChildExpiration: true})
	a, b := r.image(`"quay.expires-after":"2h","x":"1"`), r.image(`"quay.expires-after":"2h","x":"2"`)
	r.untagged(a)
	r.untagged(b)
	entry := func(m *manifest.Manifest) string {
		return fmt.Sprintf(`{"mediaType":"%s","size":%d,"digest":"%s"}`, m.MediaType, len(m.Bytes), m.Digest)
	}
	list := r.parse(manifest.OCIIndex, fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s,%s,%s]}`, entry(a), entry(b), entry(a)))
	r.tag("l", list)
	r.expect([]string{"7200000"}, `SELECT lifetime_end_ms - lifetime_start_ms FROM tag WHERE repository_id = $1 AND name = 'l'`, r.repo.ID)
	r.expect([]string{"2"}, `SELECT count(*) FROM manifestchild c JOIN manifest m ON m.id = c.manifest_id WHERE m.digest = $1`, list.Digest)
	names, err := r.push.DeleteManifest(context.Background(), r.repo, list.Digest)
	if err != nil || !slices.Equal(names, []string{"l"}) {
		t.Fatal(names, err)
	}
	r.expect([]string{"2"}, `SELECT count(*) FROM tag WHERE repository_id = $1 AND hidden AND lifetime_end_ms = $2`, r.repo.ID, r.clock.Now().UnixMilli())
	if _, err := r.push.DeleteManifest(context.Background(), r.repo, list.Digest); !errors.Is(err, push.ErrNotFound) {
		t.Errorf("second deletion: %v", err)
	}
}

func TestExpiration(t *testing.T) {
	r := open(t, push.Settings{ImmutableTags: true})
	for value, want := range map[string]string{"30s": "30000", "1m": "60000", "3h": "10800000", "4d": "345600000", "1w": "604800000", "1y": "31536000000",
		"1 d": "86400000", "2D": "<nil>", "5": "<nil>", "": "<nil>", "soon": "<nil>", "1.5h": "<nil>", "2w3d": "<nil>", "99999999999999999y": "<nil>"} {
		r.clock.Advance(time.Millisecond)
		r.tag("t", r.image(fmt.Sprintf(`"quay.expires-after":"%s"`, value)))
		r.expect([]string{want}, `SELECT lifetime_end_ms - lifetime_start_ms FROM tag WHERE repository_id = $1 AND name = 't' ORDER BY id DESC LIMIT 1`, r.repo.ID)
	}
	r.tag("i", r.image(`"quay.expires-after":"1h","quay.immutable":"TRUE"`))
	r.expect([]string{"<nil> true"}, `SELECT lifetime_end_ms, immutable FROM tag WHERE repository_id = $1 AND name = 'i'`, r.repo.ID)
	r.push.Settings.ImmutableTagsCanExpire = true
	r.tag("j", r.image(`"quay.expires-after":"1h","quay.immutable":"true"`))
	r.expect([]string{"3600000 true"}, `SELECT lifetime_end_ms - lifetime_start_ms, immutable FROM tag WHERE repository_id = $1 AND name = 'j'`, r.repo.ID)
}

func TestImmutableTagsStay(t *testing.T) {
	r := open(t, push.Settings{ImmutableTags: true})
	ctx := context.Background()
	if _, err := r.conn.Exec(ctx, `INSERT INTO repositoryimmutabilitypolicy (uuid, repository_id, namespace_id, policy)
		VALUES ('u', $1, $2, '{"tag_pattern": "v.*", "tag_pattern_matches": true}')`, r.repo.ID, r.repo.NamespaceID); err != nil {
		t.Fatal(err)
	}
	first, second := r.image(""), r.image("")
	result, err := r.push.Tag(ctx, r.repo, "v1", first, "{}")
	if err != nil || !result.MadeImmutableByPolicy {
		t.Fatal(result, err)
	}
	var immutable *push.ImmutableError
	if _, err := r.push.Tag(ctx, r.repo, "v1", second, "{}"); !errors.As(err, &immutable) || immutable.Error() != "tag 'v1' is immutable" {
		t.Errorf("overwritten: %v", err)
	}
	r.expect([]string{"1"}, `SELECT count(*) FROM manifest WHERE repository_id = $1 AND digest = $2`, r.repo.ID, second.Digest) // it stays, as recorded
	if err := r.push.DeleteTag(ctx, r.repo, "v1"); !errors.As(err, &immutable) {
		t.Errorf("deleted: %v", err)
	}
	if _, err := r.push.DeleteManifest(ctx, r.repo, first.Digest); !errors.As(err, &immutable) {
		t.Errorf("deleted by digest: %v", err)
	}
	r.tag("other", second)
	r.expect([]string{"false"}, `SELECT immutable FROM tag WHERE repository_id = $1 AND name = 'other'`, r.repo.ID)
	r.push.Settings.ImmutableTags = false
	r.tag("v1", second)
}

func TestCosignSiblingsGoWithTheirImage(t *testing.T) {
	r := open(t, push.Settings{})
	signed, signature, next := r.image(""), r.image(""), r.image("")
	name := strings.Replace(signed.Digest, ":", "-", 1) + ".sig"
	r.tag("a", signed)
	r.tag("b", signed)
	r.tag(name, signature)
	r.clock.Advance(time.Second)
	r.tag("a", next)
	if len(r.alive(name)) != 1 {
		t.Error("the signature is gone although another tag names its image")
	}
	if err := r.push.DeleteTag(context.Background(), r.repo, "b"); err != nil {
		t.Fatal(err)
	}
	if len(r.alive(name)) != 0 {
		t.Error("the signature outlives its image")
	}
}

// One name that is pushed and deleted over and over within one millisecond: ends stay distinct, no push fails.
func TestSameMillisecond(t *testing.T) {
	r := open(t, push.Settings{})
	a, b := r.image(""), r.image("")
	for i := range 20 {
		r.tag("t", []*manifest.Manifest{a, b}[i%2])
		if i%5 == 4 {
			if err := r.push.DeleteTag(context.Background(), r.repo, "t"); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.expect([]string{"20 20 0"}, `SELECT count(*), count(DISTINCT lifetime_end_ms), count(*) FILTER (WHERE lifetime_end_ms > $2)
		FROM tag WHERE repository_id = $1 AND name = 't'`, r.repo.ID, r.clock.Now().UnixMilli())
}

func TestConcurrentPushes(t *testing.T) {
	r := open(t, push.Settings{Quota: true, VerifyQuota: true})
	images := []*manifest.Manifest{r.image(`"a":"b"`), r.image("")}
	const workers, rounds = 8, 6
	errs := make(chan error, workers*rounds*2)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				m := images[(w+i)%2]
				_, err := r.push.Tag(context.Background(), r.repo, "t", m, "{}")
				errs <- err
				errs <- r.push.Untagged(context.Background(), r.repo, m)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	r.expect([]string{"1"}, `SELECT count(*) FROM tag WHERE repository_id = $1 AND name = 't' AND lifetime_end_ms IS NULL`, r.repo.ID)
	r.expect([]string{fmt.Sprint(workers * rounds)}, `SELECT count(*) FROM tag WHERE repository_id = $1 AND name = 't'`, r.repo.ID)
	r.expect([]string{"2 4 1"}, `SELECT (SELECT count(*) FROM manifest WHERE repository_id = $1 AND digest = ANY($2)),
		(SELECT count(*) FROM manifestblob b JOIN manifest m ON m.id = b.manifest_id WHERE m.repository_id = $1 AND m.digest = ANY($2)),
		(SELECT count(*) FROM manifestlabel l JOIN manifest m ON m.id = l.manifest_id WHERE m.repository_id = $1 AND m.digest = ANY($2))`,
		r.repo.ID, []string{images[0].Digest, images[1].Digest})
}

func TestQuota(t *testing.T) {
	r := open(t, push.Settings{Quota: true, VerifyQuota: true})
	ctx := context.Background()
	size := func() (int64, int64) {
		var repository, namespace int64
		err := r.conn.QueryRow(ctx, `SELECT (SELECT size_bytes FROM quotarepositorysize WHERE repository_id = $1),
			(SELECT size_bytes FROM quotanamespacesize WHERE namespace_user_id = $2)`, r.repo.ID, r.repo.NamespaceID).Scan(&repository, &namespace)
		if err != nil {
			t.Fatal(err)
		}
		return repository, namespace
	}
	repository, namespace := size()
	m := r.image("")
	r.tag("t", m)
	added := m.Config.Size + m.Layers[0].Size
	if a, b := size(); a != repository+added || b != namespace+added {
		t.Errorf("sizes %d %d, want %d more than %d %d", a, b, added, repository, namespace)
	}
	r.tag("t2", m)
	if a, _ := size(); a != repository+added {
		t.Error("the same blobs were counted twice")
	}
	if _, err := r.conn.Exec(ctx, `WITH q AS (INSERT INTO userorganizationquota (namespace_id, limit_bytes) VALUES ($1, 10)
		ON CONFLICT (namespace_id) DO UPDATE SET limit_bytes = 10 RETURNING id)
		INSERT INTO quotalimits (quota_id, quota_type_id, percent_of_limit) SELECT q.id, t.id, 100 FROM q, quotatype t WHERE t.name = 'Reject'`,
		r.repo.NamespaceID); err != nil {
		t.Fatal(err)
	}
	rejected := r.image("")
	for range 2 {
		if _, err := r.push.Tag(ctx, r.repo, "t3", rejected, "{}"); !errors.Is(err, push.ErrQuotaExceeded) {
			t.Fatal(err)
		}
	}
	r.expect([]string{"0", "300000"}, `SELECT CASE t.lifetime_end_ms WHEN 0 THEN 0 ELSE t.lifetime_end_ms - t.lifetime_start_ms END FROM tag t
		JOIN manifest m ON m.id = t.manifest_id WHERE m.digest = $1 AND t.hidden ORDER BY t.id`, rejected.Digest)
	r.expect([]string{`{"namespace": "devtable"}`}, `SELECT n.metadata_json FROM notification n JOIN notificationkind k ON k.id = n.kind_id
		WHERE k.name = 'quota_error' AND n.target_id = $1 AND n.created >= $2`, r.repo.NamespaceID, r.clock.Now().Add(-time.Second))
	if len(r.alive("t3")) != 0 {
		t.Error("a rejected push moved its tag")
	}
}

func TestQueuedWork(t *testing.T) {
	r := open(t, push.Settings{Replication: true})
	r.repo = r.repository("devtable", "simple") // it has a notification for repo_push
	m := r.image("")
	performer := `{"entity_id": 1, "entity_name": "devtable"}`
	if _, err := r.push.Tag(context.Background(), r.repo, "t1", m, performer); err != nil {
		t.Fatal(err)
	}
	notification := r.rows(`SELECT n.uuid FROM repositorynotification n JOIN externalnotificationevent e ON e.id = n.event_id
		WHERE n.repository_id = $1 AND e.name = 'repo_push'`, r.repo.ID)
	blob := func(digest string) string {
		return r.rows(`SELECT uuid FROM imagestorage WHERE content_checksum = $1`, digest)[0]
	}
	layer, config := blob(m.Layers[0].Digest), blob(m.Config.Digest)
	replicate := func(uuid string) string {
		return "imagestoragereplication/" + uuid + `/ {"namespace_user_id": 1, "storage_id": "` + uuid + `"} true 5 <nil>`
	}
	r.expect([]string{replicate(layer), replicate(config), "notification/devtable/simple/repo_push/ " +
		`{"notification_uuid": "` + notification[0] + `", "event_data": {"repository": "devtable/simple", "namespace": "devtable", "name": "simple", ` +
		`"docker_url": "quay.example/devtable/simple", "homepage": "https://quay.example/repository/devtable/simple", "updated_tags": ["t1"]}, ` +
		`"performer_data": ` + performer + `} true 5 <nil>`},
		`SELECT queue_name, body, available, retries_remaining, processing_expires FROM queueitem WHERE available_after >= $1 AND state_id <> '' ORDER BY id`,
		r.clock.Now().Add(-time.Millisecond))
}
