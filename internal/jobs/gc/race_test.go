package gc_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/jobs/gc"
	"github.com/quayctl/quayctl/internal/jobs/queue"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/push"
	"github.com/quayctl/quayctl/internal/registry/upload"
	"github.com/quayctl/quayctl/internal/storage"
)

var raceOperations = flag.Int("race-operations", 3000, "operations of TestPushesAndCollectionsRace")

func TestMain(m *testing.M) { pgtest.Main(m) }

// registry is a database, a directory of objects, and the code of two registryds and two workers on them. Time stands
// still unless it is moved; locks keep real time.
type registry struct {
	t       *testing.T
	sql     *pgxpool.Pool
	dir     string
	clock   *clock.Fake
	servers []server
	workers []worker
	owner   int64 // the namespace
}

type server struct {
	push    *push.Pusher
	uploads *upload.Uploads
}

type worker struct {
	*gc.Collector
	repositories, namespaces *queue.Worker
}

func open(t *testing.T, settings gc.Settings) *registry {
	t.Helper()
	ctx := context.Background()
	database := pgtest.New(t)
	log := slog.New(slog.DiscardHandler)
	r := &registry{t: t, dir: t.TempDir(), clock: clock.NewFake(time.Now().UTC().Truncate(time.Second))}
	var err error
	if r.sql, err = pgxpool.New(ctx, database.DSN); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.sql.Close)
	process := func(name string) (*metadata.DB, *storage.Set, locks.Locker) {
		db, err := metadata.Open(ctx, metadata.Options{WriterDSN: database.DSN, AppName: name, Clock: r.clock, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		set, err := storage.Open(storage.Config{Locations: []storage.Location{{Name: "default", Driver: "LocalStorage",
			Parameters: map[string]any{"storage_path": r.dir}}}, Preference: []string{"default"}}, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = set.Close() })
		locker := locks.NewPostgres(db.Writer(), clock.Real{}, log)
		t.Cleanup(locker.Close)
		return db, set, locker
	}
	for range 2 {
		db, set, locker := process("registryd")
		r.servers = append(r.servers, server{
			push: &push.Pusher{DB: db, Storage: set, Clock: r.clock, Settings: push.Settings{TemporaryTag: time.Minute, Quota: settings.Quota,
				NotificationQueue: "notification", ReplicationQueue: "imagestoragereplication", ServerHostname: "quay.example", URLScheme: "https"}},
			uploads: &upload.Uploads{DB: db, Storage: set, Locks: locker, Clock: r.clock, Log: log, LinkFor: time.Minute},
		})
	}
	for range 2 {
		db, set, locker := process("workers")
		reg := prometheus.NewRegistry()
		metrics, err := gc.NewMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		queues, err := queue.NewMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		c := &gc.Collector{DB: db, Storage: set, Locks: locker, Clock: r.clock, Log: log, Metrics: metrics, Settings: settings}
		w := worker{Collector: c}
		w.repositories = &queue.Worker{Queue: &queue.Queue{Name: "repositorygc", DB: db, Clock: r.clock, Metrics: queues},
			Worker: "repositorygcworker", Poll: time.Minute, Process: c.PurgeDeletedRepository}
		w.namespaces = &queue.Worker{Queue: &queue.Queue{Name: "namespacegc", DB: db, Clock: r.clock, Metrics: queues},
			Worker: "namespacegcworker", Poll: time.Minute, Process: c.PurgeDeletedNamespace}
		r.workers = append(r.workers, w)
	}
	r.owner = r.one(`INSERT INTO "user" (uuid, username, email, verified, organization, robot, invoice_email, invalid_login_attempts,
		last_invalid_login, removed_tag_expiration_s, enabled, creation_date)
		VALUES (gen_random_uuid()::text, 'owner', 'owner@example.org', TRUE, FALSE, FALSE, FALSE, 0, now(), 0, TRUE, now()) RETURNING id`)
	r.exec(`INSERT INTO imagestoragelocation (name) VALUES ('default') ON CONFLICT DO NOTHING`)
	return r
}

func (r *registry) one(query string, args ...any) (n int64) {
	r.t.Helper()
	if err := r.sql.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		r.t.Errorf("%s: %v", query, err)
	}
	return n
}

func (r *registry) exec(query string, args ...any) {
	r.t.Helper()
	if _, err := r.sql.Exec(context.Background(), query, args...); err != nil {
		r.t.Errorf("%s: %v", query, err)
	}
}

func (r *registry) repository(name string) push.Repository {
	id := r.one(`INSERT INTO repository (namespace_user_id, name, visibility_id, kind_id, badge_token, trust_enabled, state)
		VALUES ($1, $2, 1, 1, 'x', FALSE, 0) RETURNING id`, r.owner, name)
	r.exec(`INSERT INTO repositorysearchscore (repository_id, score) VALUES ($1, 0)`, id)
	return push.Repository{ID: id, NamespaceID: r.owner, Namespace: "owner", Name: name, NamespaceEnabled: true}
}

// deleteRepository marks a repository for deletion as the API does.
func (r *registry) deleteRepository(id int64) {
	ctx := context.Background()
	err := pgx.BeginFunc(ctx, r.sql, func(tx pgx.Tx) error {
		var marker int64
		_, err := tx.Exec(ctx, `UPDATE repository SET state = 3, name = gen_random_uuid()::text WHERE id = $1`, id)
		if err == nil {
			err = tx.QueryRow(ctx, `INSERT INTO deletedrepository (repository_id, marked, original_name) VALUES ($1, now(), 'x') RETURNING id`, id).Scan(&marker)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `INSERT INTO queueitem (queue_name, body, available_after, available, retries_remaining, state_id)
				VALUES ($1, $2, $3, TRUE, 5, gen_random_uuid()::text)`, fmt.Sprintf("repositorygc/owner/%d/", id),
				fmt.Sprintf(`{"marker_id": %d, "original_name": "x"}`, marker), r.clock.Now().Add(-time.Hour))
		}
		return err
	})
	if err != nil {
		r.t.Errorf("delete repository %d: %v", id, err)
	}
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// upload pushes a blob.
func (s server) upload(ctx context.Context, repo push.Repository, content string) error {
	up, err := s.uploads.Start(ctx, repo.ID)
	if err == nil {
		_, err = s.uploads.Finish(ctx, up.UUID, upload.Chunk{Length: int64(len(content)), Body: strings.NewReader(content)}, digestOf(content))
	}
	return err
}

func image(config, layer string) *manifest.Manifest {
	m, err := manifest.Parse(manifest.DockerManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","size":%d,"digest":"%s"},`+
		`"layers":[{"mediaType":"%s","size":%d,"digest":"%s"}]}`, manifest.DockerManifest, manifest.DockerConfig, len(config), digestOf(config),
		manifest.DockerLayer, len(layer), digestOf(layer)))
	if err != nil {
		panic(err)
	}
	return m
}

func list(child *manifest.Manifest, n int) *manifest.Manifest {
	m, err := manifest.Parse(manifest.DockerList, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","manifests":[{"mediaType":"%s","size":%d,"digest":"%s",`+
		`"platform":{"architecture":"amd64","os":"linux","variant":"v%d"}}]}`, manifest.DockerList, child.MediaType, len(child.Bytes), child.Digest, n))
	if err != nil {
		panic(err)
	}
	return m
}

// Few contents and few repositories, so that everybody is in everybody's way.
const (
	configs = 4
	layers  = 4
)

func randomImage(rng *rand.Rand) (config, layer string) {
	config = fmt.Sprintf(`{"architecture":"amd64","os":"linux","n":%d,"config":{"Labels":{"a":"%d"}},"history":[],"rootfs":{}}`, rng.IntN(configs), rng.IntN(2))
	return config, fmt.Sprintf("layer %d", rng.IntN(layers))
}

// lost tells that a push lost against a collection or a deletion: its client is refused and pushes again.
func lost(err error) bool {
	var refused *manifest.Error
	return errors.As(err, &refused) || errors.Is(err, upload.ErrRepositoryGone) || errors.Is(err, push.ErrNotFound) ||
		metadata.IsForeignKeyViolation(err) || errors.Is(err, storage.ErrNotExist)
}

// TestPushesAndCollectionsRace lets clients push, tag, mount, list, delete and delete repositories at random through the
// registry's own code while two collectors run, and then holds every row against every object.
func TestPushesAndCollectionsRace(t *testing.T) {
	r := open(t, gc.Settings{Quota: true})
	ctx := t.Context()
	var shared []push.Repository
	for i := range 3 {
		shared = append(shared, r.repository(fmt.Sprintf("shared%d", i)))
	}
	const clients = 4
	operations := int64(*raceOperations)
	var next, pushed, refused, collected atomic.Int64
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)

	stop, cancel := context.WithCancel(ctx)
	var collecting sync.WaitGroup
	for i, w := range r.workers {
		collecting.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
			tags, links, orphans := &gc.Tags{Collector: w.Collector}, &gc.Links{Collector: w.Collector}, &gc.Orphans{Collector: w.Collector}
			for stop.Err() == nil {
				r.clock.Advance(time.Duration(rng.IntN(20)) * time.Second)
				for _, job := range []interface {
					Name() string
				}{tags, links, w.repositories, orphans} {
					p, err := run(stop, job)
					if err != nil && stop.Err() == nil && !errors.Is(err, locks.ErrHeld) && !errors.Is(err, queue.ErrLost) {
						t.Errorf("%s: %v", job.Name(), err)
					}
					collected.Add(int64(p))
				}
			}
		})
	}
	var pushing sync.WaitGroup
	tagsOf := make([]map[tag]string, clients)
	for i := range clients {
		pushing.Go(func() {
			c := &client{registry: r, server: r.servers[i%2], rng: rand.New(rand.NewPCG(seed, uint64(i))), id: i,
				shared: shared, tags: map[tag]string{}}
			for n := next.Add(1); n <= operations && !t.Failed(); n = next.Add(1) {
				switch err := c.operate(ctx); {
				case err == nil:
					pushed.Add(1)
				case lost(err):
					refused.Add(1)
				default:
					t.Errorf("client %d: %v", i, err)
				}
			}
			tagsOf[i] = c.tags
		})
	}
	pushing.Wait()
	cancel()
	collecting.Wait()
	t.Logf("%d operations done, %d refused, %d things collected", pushed.Load(), refused.Load(), collected.Load())

	for _, tags := range tagsOf {
		for at, digest := range tags {
			n := r.one(`SELECT count(*) FROM tag t JOIN manifest m ON m.id = t.manifest_id
				WHERE t.repository_id = $1 AND t.name = $2 AND m.digest = $3 AND t.lifetime_end_ms IS NULL`, at.repository, at.name, digest)
			if n != 1 {
				t.Errorf("tag %s of repository %d names %s no more", at.name, at.repository, digest)
			}
		}
	}
	r.collectEverything(ctx)
	r.check()
	r.exec(`UPDATE tag SET lifetime_end_ms = id`)
	r.clock.Advance(time.Hour)
	r.collectEverything(ctx)
	r.check()
	if n := r.one(`SELECT (SELECT count(*) FROM imagestorage) + (SELECT count(*) FROM manifest) + (SELECT count(*) FROM label)`); n != 0 {
		t.Errorf("%d rows are left of everything deleted", n)
	}
	if left := r.objects(); len(left) > 0 {
		t.Errorf("objects are left of everything deleted: %v", left)
	}
	if n := r.one(`SELECT count(*) FROM quotarepositorysize WHERE size_bytes <> 0`); n != 0 {
		t.Logf("%d repositories have a total other than 0: concurrent pushes count one blob twice or not at all, as in the legacy server", n)
	}
}

// run runs one round of a job and tells how much it did.
func run(ctx context.Context, job any) (int, error) {
	switch job := job.(type) {
	case *gc.Tags:
		p, err := job.Run(ctx)
		return p.Done, err
	case *gc.Links:
		p, err := job.Run(ctx)
		return p.Done, err
	case *gc.Orphans:
		p, err := job.Run(ctx)
		return p.Done, err
	case *queue.Worker:
		p, err := job.Run(ctx)
		return p.Done, err
	}
	panic(fmt.Sprintf("%T", job))
}

type tag struct {
	repository int64
	name       string
}

// client is one user with tags of their own in shared repositories, and repositories of their own.
type client struct {
	*registry
	server server
	rng    *rand.Rand
	id     int
	shared []push.Repository
	own    *push.Repository
	count  int
	tags   map[tag]string // what they must name
}

func (c *client) operate(ctx context.Context) error {
	c.count++
	repo := c.shared[c.rng.IntN(len(c.shared))]
	if c.own != nil && c.rng.IntN(4) == 0 {
		repo = *c.own
	}
	name := fmt.Sprintf("c%d-%d", c.id, c.rng.IntN(3))
	switch n := c.rng.IntN(100); {
	case n < 45: // push an image
		config, layer := randomImage(c.rng)
		for _, content := range []string{config, layer} {
			if err := c.server.upload(ctx, repo, content); err != nil {
				return err
			}
		}
		return c.tag(ctx, repo, name, image(config, layer))
	case n < 55: // push an image whose blobs may be there
		config, layer := randomImage(c.rng)
		return c.tag(ctx, repo, name, image(config, layer))
	case n < 65: // mount a blob from another repository and push
		return c.mount(ctx, repo, name)
	case n < 75: // push a list
		config, layer := randomImage(c.rng)
		child := image(config, layer)
		for _, content := range []string{config, layer} {
			if err := c.server.upload(ctx, repo, content); err != nil {
				return err
			}
		}
		if err := c.server.push.Untagged(ctx, repo, child); err != nil {
			return err
		}
		return c.tag(ctx, repo, name, list(child, c.rng.IntN(2)))
	case n < 95: // delete a tag
		err := c.server.push.DeleteTag(ctx, repo, name)
		if err == nil || errors.Is(err, push.ErrNotFound) {
			if _, was := c.tags[tag{repo.ID, name}]; was && err != nil {
				return fmt.Errorf("tag %s of repository %d has vanished", name, repo.ID)
			}
			delete(c.tags, tag{repo.ID, name})
		}
		return err
	case n < 98: // begin an upload and leave it
		_, err := c.server.uploads.Start(ctx, repo.ID)
		return err
	case c.own == nil:
		own := c.repository(fmt.Sprintf("own%d-%d", c.id, c.count))
		c.own = &own
		return nil
	default:
		c.deleteRepository(c.own.ID)
		for at := range c.tags {
			if at.repository == c.own.ID {
				delete(c.tags, at)
			}
		}
		c.own = nil
		return nil
	}
}

// tag pushes a manifest, and looks whether what the answer promises is there.
func (c *client) tag(ctx context.Context, repo push.Repository, name string, m *manifest.Manifest) error {
	_, err := c.server.push.Tag(ctx, repo, name, m, "{}")
	if err != nil {
		return err
	}
	c.tags[tag{repo.ID, name}] = m.Digest
	for _, digest := range m.LocalBlobs() {
		if err := c.readable(digest); err != nil {
			c.t.Errorf("%s was pushed as %s, but: %v", m.Digest, name, err)
		}
	}
	return nil
}

func (c *client) mount(ctx context.Context, repo push.Repository, name string) error {
	config, layer := randomImage(c.rng)
	for _, content := range []string{config, layer} {
		var blob int64
		err := c.sql.QueryRow(ctx, `SELECT s.id FROM imagestorage s WHERE s.content_checksum = $1 AND (EXISTS (SELECT 1 FROM uploadedblob u WHERE u.blob_id = s.id)
			OR EXISTS (SELECT 1 FROM manifestblob b WHERE b.blob_id = s.id)) LIMIT 1`, digestOf(content)).Scan(&blob)
		if errors.Is(err, pgx.ErrNoRows) {
			err = c.server.upload(ctx, repo, content)
		} else if err == nil {
			err = c.server.uploads.Link(ctx, blob, repo.ID)
		}
		if err != nil {
			return err
		}
	}
	return c.tag(ctx, repo, name, image(config, layer))
}

func (r *registry) path(digest string) string {
	key, err := storage.BlobKey(digest)
	if err != nil {
		panic(err)
	}
	return filepath.Join(r.dir, filepath.FromSlash(key))
}

func (r *registry) readable(digest string) error {
	content, err := os.ReadFile(r.path(digest))
	if err == nil && digestOf(string(content)) != digest {
		err = fmt.Errorf("object %s has other content", digest)
	}
	return err
}

// collectEverything runs the jobs until there is nothing left to do.
func (r *registry) collectEverything(ctx context.Context) {
	r.t.Helper()
	r.clock.Advance(time.Hour)
	w := r.workers[0]
	orphans := &gc.Orphans{Collector: w.Collector}
	for idle := 0; idle < 2; {
		total := 0
		for _, job := range []any{&gc.Tags{Collector: w.Collector}, &gc.Links{Collector: w.Collector}, w.repositories, orphans} {
			n, err := run(ctx, job)
			if err != nil {
				r.t.Errorf("collect the rest: %v", err)
				return
			}
			total += n
		}
		if idle++; total > 0 {
			idle = 0
		}
		r.clock.Advance(10 * time.Minute)
	}
}

// objects are the files of blobs.
func (r *registry) objects() []string {
	var found []string
	err := filepath.WalkDir(filepath.Join(r.dir, "sha256"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, "sha256:"+filepath.Base(path))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
	return found
}

// check holds rows and objects against each other.
func (r *registry) check() {
	r.t.Helper()
	ctx := context.Background()
	rows, err := r.sql.Query(ctx, `SELECT s.content_checksum FROM imagestorage s JOIN imagestorageplacement p ON p.storage_id = s.id`)
	if err != nil {
		r.t.Fatal(err)
	}
	digests, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.t.Fatal(err)
	}
	stored := map[string]bool{}
	for _, digest := range digests {
		stored[digest] = true
		if err := r.readable(digest); err != nil {
			r.t.Errorf("missing blob: %v", err)
		}
	}
	for _, digest := range r.objects() {
		if !stored[digest] {
			r.t.Errorf("leaked object %s", digest)
		}
	}
	for what, query := range map[string]string{
		"blobs that nothing links":  `SELECT count(*) FROM imagestorage s WHERE NOT EXISTS (SELECT 1 FROM manifestblob b WHERE b.blob_id = s.id)`,
		"blobs without a placement": `SELECT count(*) FROM imagestorage s WHERE NOT EXISTS (SELECT 1 FROM imagestorageplacement p WHERE p.storage_id = s.id)`,
		"digests with several rows": `SELECT count(*) FROM (SELECT 1 FROM imagestorage GROUP BY content_checksum HAVING count(*) > 1) d`,
		"manifests that nothing needs": `SELECT count(*) FROM manifest m WHERE NOT EXISTS (SELECT 1 FROM tag t WHERE t.manifest_id = m.id)
			AND NOT EXISTS (SELECT 1 FROM manifestchild c WHERE c.child_manifest_id = m.id)`,
		"labels without a manifest": `SELECT count(*) FROM label l WHERE NOT EXISTS (SELECT 1 FROM manifestlabel m WHERE m.label_id = l.id)`,
		"links to blobs":            `SELECT count(*) FROM uploadedblob`,
		"deleted repositories":      `SELECT count(*) FROM repository WHERE state = 3`,
		"queue items":               `SELECT count(*) FROM queueitem`,
	} {
		if n := r.one(query); n != 0 {
			r.t.Errorf("%d %s", n, what)
		}
	}
}
