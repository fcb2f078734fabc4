package gc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/jobs/gc"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/upload"
	"github.com/quayctl/quayctl/internal/storage"
)

// halting is a location that stops behind Complete and before Remove until it is told to go on.
type halting struct {
	storage.Driver
	completed, removing func() // nil for no stop
}

func (h *halting) Complete(ctx context.Context, name, key string, size int64, state storage.State) error {
	err := h.Driver.Complete(ctx, name, key, size, state)
	if h.completed != nil {
		h.completed()
	}
	return err
}

func (h *halting) Remove(ctx context.Context, key string) error {
	if h.removing != nil {
		h.removing()
	}
	return h.Driver.Remove(ctx, key)
}

// watching is a Locker that tells what is asked of it, and whether somebody else had it then.
type watching struct {
	locks.Locker
	asked func(name string, held bool)
}

func (w *watching) Acquire(ctx context.Context, name string, ttl time.Duration) (locks.Lease, error) {
	lease, err := w.Try(ctx, name, ttl)
	if err == nil {
		lease.Release()
	}
	w.asked(name, errors.Is(err, locks.ErrHeld))
	return w.Locker.Acquire(ctx, name, ttl)
}

func (r *registry) halt(t *testing.T, h *halting) *storage.Set {
	t.Helper()
	driver, err := r.workers[0].Storage.Driver("default")
	if err != nil {
		t.Fatal(err)
	}
	h.Driver = driver
	set, err := storage.NewSet(map[string]storage.Driver{"default": h}, []string{"default"})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// garbage is a repository with one blob whose link is over.
func garbage(t *testing.T, content string) (*registry, int64) {
	t.Helper()
	r := open(t, gc.Settings{})
	repo := r.repository("shared")
	if err := r.servers[0].upload(t.Context(), repo, content); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(time.Hour)
	return r, repo.ID
}

// present tells that the blob is linked, and its object there.
func (r *registry) present(t *testing.T, content string) {
	t.Helper()
	if err := r.readable(digestOf(content)); err != nil {
		t.Error(err)
	}
	if n := r.one(`SELECT count(*) FROM imagestorage s JOIN uploadedblob u ON u.blob_id = s.id JOIN imagestorageplacement p ON p.storage_id = s.id
		WHERE s.content_checksum = $1`, digestOf(content)); n != 1 {
		t.Errorf("%d links to the blob", n)
	}
}

// TestCollectionDuringCommit collects a blob while a push has placed its object anew and not yet linked it.
func TestCollectionDuringCommit(t *testing.T) {
	const content = "pushed again"
	r, repo := garbage(t, content)
	placed, linkNow := make(chan struct{}), make(chan struct{})
	s := r.servers[1]
	s.uploads.Storage = r.halt(t, &halting{completed: func() { close(placed); <-linkNow }})
	shared, err := s.uploads.Start(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := s.uploads.Finish(t.Context(), shared.UUID, chunk(content), digestOf(content)); err != nil {
			t.Error(err)
		}
	})
	<-placed
	c := r.workers[0].Collector
	c.Locks = &watching{Locker: c.Locks, asked: func(name string, held bool) {
		if name != locks.BlobDelete(digestOf(content)) || !held {
			t.Errorf("the collector asks for %s, which the push has not", name)
		}
		close(linkNow)
	}}
	both.Go(func() {
		if _, err := c.Repository(t.Context(), repo); err != nil {
			t.Error(err)
		}
	})
	both.Wait()
	r.present(t, content)
}

// TestCommitDuringCollection pushes a blob again while a collector has deleted its row and not yet its object.
func TestCommitDuringCollection(t *testing.T) {
	const content = "removed right now"
	r, repo := garbage(t, content)
	removing, removeNow := make(chan struct{}), make(chan struct{})
	c := r.workers[0].Collector
	c.Storage = r.halt(t, &halting{removing: func() { close(removing); <-removeNow }})
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := c.Repository(t.Context(), repo); err != nil {
			t.Error(err)
		}
	})
	<-removing
	s := r.servers[0]
	s.uploads.Locks = &watching{Locker: s.uploads.Locks, asked: func(name string, held bool) {
		if name != locks.BlobDelete(digestOf(content)) || !held {
			t.Errorf("the push asks for %s, which the collector has not", name)
		}
		close(removeNow)
	}}
	up, err := s.uploads.Start(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.uploads.Finish(t.Context(), up.UUID, chunk(content), digestOf(content)); err != nil {
		t.Error(err)
	}
	both.Wait()
	r.present(t, content)
}

// TestStopFinishesTheBatch stops a collection in the middle: what it has begun it brings to an end.
func TestStopFinishesTheBatch(t *testing.T) {
	const content = "the last one"
	r, repo := garbage(t, content)
	c := r.workers[0].Collector
	ctx, stop := context.WithCancel(t.Context())
	c.Storage = r.halt(t, &halting{removing: stop})
	if _, err := c.Repository(ctx, repo); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if left := r.objects(); len(left) != 0 {
		t.Errorf("objects are left: %v", left)
	}
	if n := r.one(`SELECT (SELECT count(*) FROM imagestorage) + (SELECT count(*) FROM uploadedblob)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// TestOrphans collects what a collector left that died: a manifest without a tag (only in the second round that sees it)
// and a blob without a link.
func TestOrphans(t *testing.T) {
	r := open(t, gc.Settings{})
	repo := r.repository("shared")
	config, layer := `{"architecture":"amd64","os":"linux","history":[],"rootfs":{}}`, "layer"
	for _, content := range []string{config, layer, "alone"} {
		if err := r.servers[0].upload(t.Context(), repo, content); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.servers[0].push.Tag(t.Context(), repo, "t", image(config, layer), "{}"); err != nil {
		t.Fatal(err)
	}
	r.exec(`DELETE FROM uploadedblob`)
	r.exec(`DELETE FROM tag`)
	orphans := &gc.Orphans{Collector: r.workers[0].Collector}
	for round, want := range []int64{1, 0} {
		if _, err := orphans.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := r.one(`SELECT count(*) FROM manifest`); n != want {
			t.Errorf("round %d: %d manifests", round+1, n)
		}
		if n := r.one(`SELECT count(*) FROM imagestorage`); n != 2*want {
			t.Errorf("round %d: %d blobs", round+1, n)
		}
	}
	if left := r.objects(); len(left) != 0 {
		t.Errorf("objects are left: %v", left)
	}
}

// TestReferrerKeepsSubject keeps a manifest for its referrer, and lets both go when the referrer goes.
func TestReferrerKeepsSubject(t *testing.T) {
	r := open(t, gc.Settings{})
	repo := r.repository("shared")
	ctx := t.Context()
	config, layer := `{"architecture":"amd64","os":"linux","history":[],"rootfs":{}}`, "layer"
	for _, content := range []string{config, layer, "{}"} {
		if err := r.servers[0].upload(ctx, repo, content); err != nil {
			t.Fatal(err)
		}
	}
	subject := image(config, layer)
	if _, err := r.servers[0].push.Tag(ctx, repo, "t", subject, "{}"); err != nil {
		t.Fatal(err)
	}
	if err := r.servers[0].push.Untagged(ctx, repo, referrer(subject)); err != nil {
		t.Fatal(err)
	}
	if err := r.servers[0].push.DeleteTag(ctx, repo, "t"); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(time.Hour)
	c := r.workers[0].Collector
	if _, err := c.Repository(ctx, repo.ID); err != nil {
		t.Fatal(err)
	}
	if n := r.one(`SELECT count(*) FROM manifest`); n != 2 {
		t.Errorf("%d manifests are kept, not the referrer and its subject", n)
	}
	r.exec(`UPDATE tag SET lifetime_end_ms = 1 WHERE hidden`)
	if _, err := c.Repository(ctx, repo.ID); err != nil {
		t.Fatal(err)
	}
	if n := r.one(`SELECT (SELECT count(*) FROM manifest) + (SELECT count(*) FROM imagestorage)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func chunk(content string) upload.Chunk {
	return upload.Chunk{Length: int64(len(content)), Body: strings.NewReader(content)}
}

func referrer(subject *manifest.Manifest) *manifest.Manifest {
	const oci = "application/vnd.oci.image.manifest.v1+json"
	m, err := manifest.Parse(oci, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","artifactType":"application/x",`+
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"%s"},"layers":[{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"%[2]s"}],`+
		`"subject":{"mediaType":"%s","size":%d,"digest":"%s"}}`, oci, digestOf("{}"), subject.MediaType, len(subject.Bytes), subject.Digest))
	if err != nil {
		panic(err)
	}
	return m
}
