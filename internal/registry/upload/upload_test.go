package upload

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	stdgzip "compress/gzip"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/storage"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// repository is devtable/shared of the recorded dataset.
const repository = 10

// world is uploads on a real database and real files.
type world struct {
	*Uploads
	pg  *pgtest.DB
	dir string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{pg: pgtest.Populated(t), dir: t.TempDir()}
	w.Uploads = w.process(t)
	return w
}

// process is another process on the same database and files.
func (w *world) process(t testing.TB) *Uploads {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	db, err := metadata.Open(t.Context(), metadata.Options{WriterDSN: w.pg.DSN, AppName: "quay-test", Clock: clock.Real{}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	set, err := storage.Open(storage.Config{Locations: []storage.Location{
		{Name: "local_us", Driver: "LocalStorage", Parameters: map[string]any{"storage_path": w.dir}},
	}}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	l := locks.NewPostgres(db.Writer(), clock.Real{}, log)
	t.Cleanup(l.Close)
	return &Uploads{DB: db, Storage: set, Locks: l, Clock: clock.Real{}, Log: log, LinkFor: time.Hour}
}

func (w *world) count(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	if err := w.DB.Writer().QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) begin(t testing.TB, u *Uploads) string {
	t.Helper()
	up, err := u.Start(t.Context(), repository)
	if err != nil {
		t.Fatal(err)
	}
	return up.UUID
}

func (w *world) wantBlob(t testing.TB, content []byte) {
	t.Helper()
	key, err := storage.BlobKey(digestOf(content))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(w.dir, key))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("object of %s: %d bytes, %v; want the %d that were pushed", digestOf(content), len(got), err, len(content))
	}
	if n := w.count(t, "SELECT count(*) FROM imagestorage s JOIN imagestorageplacement p ON p.storage_id = s.id WHERE content_checksum = $1 AND image_size = $2", digestOf(content), len(content)); n != 1 {
		t.Errorf("%d rows name the blob, want 1", n)
	}
}

func (w *world) wantNothing(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.dir, "uploads"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left in uploads/: %v, %v", entries, err)
	}
	if n := w.count(t, "SELECT count(*) FROM blobupload WHERE repository_id = 10"); n != 0 {
		t.Errorf("%d uploads are left in the database", n)
	}
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func whole(content []byte) Chunk { return Chunk{Length: -1, Body: bytes.NewReader(content)} }

func from(offset int, content []byte) Chunk {
	return Chunk{Offset: int64(offset), Length: int64(len(content)), Body: bytes.NewReader(content)}
}

func none() Chunk { return whole(nil) }

func TestChunks(t *testing.T) {
	w := newWorld(t)
	c := noise(1 << 20)
	half := len(c) / 2
	for name, chunks := range map[string][]Chunk{
		"one":                      {whole(c)},
		"two with ranges":          {from(0, c[:half]), from(half, c[half:])},
		"two without ranges":       {whole(c[:half]), whole(c[half:])},
		"overlapping":              {from(0, c[:half]), from(half-1000, c[half-1000:])},
		"repeated":                 {from(0, c[:half]), from(10, c[10:half]), from(half, c[half:])},
		"longer range than body":   {{Length: 1 << 40, Body: bytes.NewReader(c)}},
		"longer body than range":   {{Length: int64(half), Body: bytes.NewReader(c)}, from(half, c[half:])},
		"a byte at a time":         {{Length: -1, Body: iotest.OneByteReader(bytes.NewReader(c[:5000]))}, whole(c[5000:])},
		"nothing in between":       {whole(c[:half]), none(), none(), whole(c[half:])},
		"data together with EOF":   {{Length: -1, Body: iotest.DataErrReader(bytes.NewReader(c))}},
		"another process in turns": {whole(c[:100]), whole(c[100:200]), whole(c[200:])},
	} {
		t.Run(name, func(t *testing.T) {
			other := w.process(t)
			id := w.begin(t, w.Uploads)
			for i, chunk := range chunks {
				u := w.Uploads
				if i%2 == 1 {
					u = other
				}
				if _, err := u.Append(t.Context(), id, chunk); err != nil {
					t.Fatal(err)
				}
			}
			up, err := other.Finish(t.Context(), id, none(), digestOf(c))
			if err != nil || up.Received != int64(len(c)) {
				t.Fatalf("Finish = %+v, %v", up, err)
			}
			w.wantBlob(t, c)
			w.wantNothing(t)
		})
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	c := noise(1000)
	var gap *RangeError
	id := w.begin(t, w.Uploads)
	if _, err := w.Append(t.Context(), id, whole(c[:100])); err != nil {
		t.Fatal(err)
	}
	if up, err := w.Append(t.Context(), id, from(101, c[101:])); !errors.As(err, &gap) || gap.Received != 100 || up.Received != 100 {
		t.Errorf("a gap: %+v, %v", up, err)
	}
	if _, err := w.Finish(t.Context(), id, from(100, c[100:]), digestOf(c[1:])); !errors.Is(err, ErrDigest) {
		t.Errorf("wrong digest: %v", err)
	}
	w.wantNothing(t)
	for name, err := range map[string]error{
		"Find":   func() error { _, err := w.Find(t.Context(), id); return err }(),
		"Append": func() error { _, err := w.Append(t.Context(), id, none()); return err }(),
		"Finish": func() error { _, err := w.Finish(t.Context(), id, none(), digestOf(c)); return err }(),
		"Cancel": w.Cancel(t.Context(), id),
	} {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("%s of an ended upload = %v, want ErrUnknown", name, err)
		}
	}
	if n := w.count(t, "SELECT count(*) FROM imagestorage WHERE content_checksum = $1", digestOf(c)); n != 0 {
		t.Error("a refused blob has a row")
	}

	id = w.begin(t, w.Uploads)
	w.pg.Exec("UPDATE repository SET state = 3 WHERE id = 10")
	if _, err := w.Finish(t.Context(), id, whole(c), digestOf(c)); !errors.Is(err, ErrRepositoryGone) {
		t.Errorf("commit into a deleted repository = %v, want ErrRepositoryGone", err)
	}
	if _, err := w.Start(t.Context(), 1<<30); !errors.Is(err, ErrRepositoryGone) {
		t.Errorf("start in a repository that never was = %v, want ErrRepositoryGone", err)
	}
	w.wantNothing(t)
}

func TestTooLarge(t *testing.T) {
	w := newWorld(t)
	w.MaxSize = 50
	c := noise(51)
	var large *TooLargeError
	for name, chunk := range map[string]Chunk{"known": from(0, c), "unknown": whole(c)} {
		id := w.begin(t, w.Uploads)
		if _, err := w.Append(t.Context(), id, whole(c[:10])); err != nil {
			t.Fatal(err)
		}
		if up, err := w.Append(t.Context(), id, chunk); !errors.As(err, &large) || up.Received != 10 {
			t.Errorf("%s length: %+v, %v; want TooLargeError and 10 bytes kept", name, up, err)
		}
		if _, err := w.Finish(t.Context(), id, whole(c[10:50]), digestOf(c[:50])); err != nil {
			t.Errorf("%s length: the allowed rest: %v", name, err)
		}
		w.wantBlob(t, c[:50])
	}
}

// A client that vanishes in the middle of a body finds what it had sent, and goes on from there.
func TestBrokenBody(t *testing.T) {
	w := newWorld(t)
	c := noise(3 << 20)
	for _, sent := range []int{0, 1, 40_000, 2<<20 + 3} {
		id := w.begin(t, w.Uploads)
		ctx, cancel := context.WithCancel(t.Context())
		body := io.MultiReader(bytes.NewReader(c[:sent]), readerFunc(func([]byte) (int, error) {
			cancel()
			return 0, io.ErrUnexpectedEOF
		}))
		var broken *BodyError
		if _, err := w.Append(ctx, id, Chunk{Length: int64(len(c)), Body: body}); !errors.As(err, &broken) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("Append = %v, want BodyError", err)
		}
		up, err := w.Find(t.Context(), id)
		if err != nil || up.Received != int64(sent) {
			t.Fatalf("after %d bytes: %+v, %v", sent, up, err)
		}
		if _, err := w.Finish(t.Context(), id, from(sent, c[sent:]), digestOf(c)); err != nil {
			t.Fatal(err)
		}
		w.wantBlob(t, c)
	}
	id := w.begin(t, w.Uploads)
	if _, err := w.Finish(t.Context(), id, Chunk{Length: -1, Body: iotest.ErrReader(io.ErrUnexpectedEOF)}, digestOf(nil)); err == nil {
		t.Error("a commit whose body broke off succeeds")
	}
	w.wantNothing(t)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestUncompressedSize(t *testing.T) {
	w := newWorld(t)
	content := bytes.Repeat([]byte("compressible "), 100_000)
	z := compressed(t, content, func(w io.Writer) (io.WriteCloser, error) { return stdgzip.NewWriter(w), nil })
	size := int64(len(content))
	for name, tt := range map[string]struct {
		content []byte
		chunks  []int
		want    *int64
	}{
		"gzip":          {z, nil, &size},
		"gzip in two":   {append(bytes.Clone(z), 0), []int{1000}, nil},
		"not gzip":      {noise(100_000), nil, nil},
		"nothing":       {nil, nil, new(int64)},
		"empty at last": {append(bytes.Clone(z), 1), []int{len(z) + 1}, &size},
	} {
		id := w.begin(t, w.Uploads)
		rest := tt.content
		for _, n := range tt.chunks {
			if _, err := w.Append(t.Context(), id, whole(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if _, err := w.Finish(t.Context(), id, whole(rest), digestOf(tt.content)); err != nil {
			t.Fatal(err)
		}
		var got *int64
		if err := w.DB.Writer().QueryRow(t.Context(), "SELECT uncompressed_size FROM imagestorage WHERE content_checksum = $1", digestOf(tt.content)).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: uncompressed_size = %v, want %v", name, show(got), show(tt.want))
		}
	}
}

func show(n *int64) any {
	if n == nil {
		return nil
	}
	return *n
}

// Eight clients push one blob at once, by two processes: each gets its link, and there is one row and one object.
func TestSameBlobAtOnce(t *testing.T) {
	w := newWorld(t)
	processes := []*Uploads{w.Uploads, w.process(t)}
	c := noise(300_000)
	var wg sync.WaitGroup
	for i := range 8 {
		u := processes[i%len(processes)]
		wg.Go(func() {
			ctx := context.WithoutCancel(t.Context())
			up, err := u.Start(ctx, repository)
			if err == nil {
				_, err = u.Finish(ctx, up.UUID, whole(c), digestOf(c))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.wantBlob(t, c)
	w.wantNothing(t)
	if n := w.count(t, "SELECT count(*) FROM uploadedblob u JOIN imagestorage s ON s.id = u.blob_id WHERE s.content_checksum = $1 AND u.repository_id = 10 AND u.expires_at = u.uploaded_at + interval '1 hour'", digestOf(c)); n != 8 {
		t.Errorf("%d links, want 8", n)
	}
}

// Two requests on one upload at the same time are one after the other.
func TestSameUploadAtOnce(t *testing.T) {
	w := newWorld(t)
	c := bytes.Repeat([]byte("x"), 100_000)
	id := w.begin(t, w.Uploads)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := w.Append(context.WithoutCancel(t.Context()), id, whole(c)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all := bytes.Repeat(c, 8)
	if _, err := w.Finish(t.Context(), id, none(), digestOf(all)); err != nil {
		t.Fatal(err)
	}
	w.wantBlob(t, all)
}

// A collector that finds a digest without rows and removes its object, while clients push that very blob: no
// acknowledged blob is without its object.
func TestAgainstCollector(t *testing.T) {
	w := newWorld(t)
	c := noise(5000)
	digest := digestOf(c)
	key, err := storage.BlobKey(digest)
	if err != nil {
		t.Fatal(err)
	}
	_, driver := w.Storage.Preferred()
	collector := w.process(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ctx := context.WithoutCancel(t.Context())
		for {
			select {
			case <-stop:
				return
			default:
			}
			db := collector.DB.Writer()
			_, err := db.Exec(ctx, `WITH b AS (SELECT id FROM imagestorage s WHERE content_checksum = $1
				AND NOT EXISTS (SELECT 1 FROM uploadedblob WHERE blob_id = s.id) FOR UPDATE),
				p AS (DELETE FROM imagestorageplacement USING b WHERE storage_id = b.id) DELETE FROM imagestorage USING b WHERE imagestorage.id = b.id`, digest)
			if err != nil && !metadata.IsForeignKeyViolation(err) && !metadata.IsConflict(err) {
				t.Error(err)
			}
			lease, err := collector.Locks.Acquire(ctx, locks.BlobDelete(digest), time.Minute)
			if err != nil {
				t.Error(err)
				return
			}
			var n int
			if err := db.QueryRow(ctx, "SELECT count(*) FROM imagestorage WHERE content_checksum = $1", digest).Scan(&n); err != nil {
				t.Error(err)
			} else if n == 0 {
				if err := driver.Remove(ctx, key); err != nil {
					t.Error(err)
				}
			}
			lease.Release()
		}
	})
	for range 25 {
		id := w.begin(t, w.Uploads)
		if _, err := w.Finish(t.Context(), id, whole(c), digest); err != nil {
			t.Fatal(err)
		}
		w.wantBlob(t, c)
		if _, err := w.DB.Writer().Exec(t.Context(), "DELETE FROM uploadedblob u USING imagestorage s WHERE s.id = u.blob_id AND s.content_checksum = $1", digest); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// lossy are locks that are lost as soon as they are held.
type lossy struct {
	locks.Locker
	pg *pgtest.DB
}

func (l lossy) Acquire(ctx context.Context, name string, ttl time.Duration) (locks.Lease, error) {
	lease, err := l.Locker.Acquire(ctx, name, ttl)
	l.pg.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%-locks'")
	return lease, err
}

// A commit is not acknowledged when a collector may have taken its lock over.
func TestLostLock(t *testing.T) {
	w := newWorld(t)
	held := w.Locks
	w.Locks = lossy{held, w.pg}
	c := noise(5000)
	if _, err := w.Finish(t.Context(), w.begin(t, w.Uploads), whole(c), digestOf(c)); !errors.Is(err, locks.ErrLost) {
		t.Errorf("Finish = %v, want ErrLost", err)
	}
	w.wantNothing(t)
	key, err := storage.BlobKey(digestOf(c))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.dir, key)); err != nil { // as that collector does
		t.Fatal(err)
	}
	w.Locks = held
	if _, err := w.Finish(t.Context(), w.begin(t, w.Uploads), whole(c), digestOf(c)); err != nil {
		t.Fatal(err)
	}
	w.wantBlob(t, c)
}

func TestLink(t *testing.T) {
	w := newWorld(t)
	c := noise(100)
	id := w.begin(t, w.Uploads)
	if _, err := w.Finish(t.Context(), id, whole(c), digestOf(c)); err != nil {
		t.Fatal(err)
	}
	blob := int64(w.count(t, "SELECT id FROM imagestorage WHERE content_checksum = $1", digestOf(c)))
	if err := w.Link(t.Context(), blob, 2); err != nil {
		t.Fatal(err)
	}
	if n := w.count(t, "SELECT count(*) FROM uploadedblob WHERE blob_id = $1 AND repository_id = 2", blob); n != 1 {
		t.Errorf("%d links, want 1", n)
	}
	for name, err := range map[string]error{"a blob": w.Link(t.Context(), 1<<30, 2), "a repository": w.Link(t.Context(), blob, 1<<30)} {
		if !errors.Is(err, ErrRepositoryGone) {
			t.Errorf("link of %s that never was = %v, want ErrRepositoryGone", name, err)
		}
	}
}

// The object is lost between chunks, as after a restore: the upload ends, nothing becomes visible.
func TestStorageLostBytes(t *testing.T) {
	w := newWorld(t)
	c := noise(1000)
	id := w.begin(t, w.Uploads)
	if _, err := w.Append(t.Context(), id, whole(c)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(w.dir, "uploads", id), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(t.Context(), id, whole(c)); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("Append = %v, want ErrConflict", err)
	}
	if _, err := w.Finish(t.Context(), id, none(), digestOf(c)); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("Finish = %v, want ErrConflict", err)
	}
	w.wantNothing(t)
	if n := w.count(t, "SELECT count(*) FROM imagestorage WHERE content_checksum = $1", digestOf(c)); n != 0 {
		t.Error("a blob without its bytes has a row")
	}
}

func TestCorruptState(t *testing.T) {
	w := newWorld(t)
	id := w.begin(t, w.Uploads)
	w.pg.Exec("UPDATE blobupload SET sha_state = 'AAAA' WHERE uuid = '" + id + "'")
	if _, err := w.Append(t.Context(), id, whole([]byte("x"))); err == nil || !strings.Contains(err.Error(), id) {
		t.Errorf("Append = %v, want an error that names the upload", err)
	}
	if err := w.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.wantNothing(t)
}
