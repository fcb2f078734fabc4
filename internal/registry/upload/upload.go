// Package upload turns what clients push into blobs: the state machine behind /v2/<name>/blobs/uploads/ (contract,
// behaviour.md §1.6).
//
// An upload is a row of blobupload and what a storage driver keeps under its uuid. Every step leaves both in a form that
// this server, another process of it or a legacy server can go on from, finish or clean up. A blob becomes visible by one
// statement, after its object is durable.
package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/storage"
)

// What goes wrong with an upload by the client's doing. Every other error is the server's.
var (
	// ErrUnknown is an upload that does not exist (any more).
	ErrUnknown = errors.New("upload is unknown")
	// ErrDigest is a commit whose content has another digest.
	ErrDigest = errors.New("content does not have the digest it is committed as")
	// ErrRepositoryGone is a commit or link into a repository that was deleted meanwhile.
	ErrRepositoryGone = errors.New("repository is gone")
)

// RangeError is a chunk that begins behind what was received.
type RangeError struct{ Received int64 }

// Error implements error.
func (e *RangeError) Error() string {
	return fmt.Sprintf("chunk begins behind the %d bytes received", e.Received)
}

// TooLargeError is a blob beyond the limit.
type TooLargeError struct{ Size, Limit int64 } // bytes; Size may be a lower bound

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d bytes or more are beyond the limit of %d (MAXIMUM_LAYER_SIZE)", e.Size, e.Limit)
}

// BodyError is a request body that broke off. What arrived is kept and counted.
type BodyError struct{ Err error }

// Error implements error.
func (e *BodyError) Error() string { return fmt.Sprintf("body broke off: %v", e.Err) }

// Unwrap returns the cause.
func (e *BodyError) Unwrap() error { return e.Err }

const (
	// commitTime bounds a commit, which goes on when its client has gone.
	commitTime = 10 * time.Minute
	// recordTime bounds what is written to the database after a client has gone.
	recordTime = 30 * time.Second
)

// Uploads is safe for concurrent use. All fields of the first group are needed.
type Uploads struct {
	DB      *metadata.DB
	Storage *storage.Set
	Locks   locks.Locker
	Clock   clock.Clock
	Log     *slog.Logger

	MaxSize int64         // MAXIMUM_LAYER_SIZE in bytes; 0 = no limit
	LinkFor time.Duration // PUSH_TEMP_TAG_EXPIRATION_SEC: how long a link keeps a blob that no manifest names

	busy busy
}

// Upload is the state of an upload.
type Upload struct {
	UUID         string
	RepositoryID int64 // the blob will be this repository's, whatever the request's path says
	Received     int64 // bytes
}

// Chunk is a piece of a blob.
type Chunk struct {
	// Offset is where it begins; 0 means behind what was received, as with legacy on all but local storage.
	Offset int64
	Length int64 // bytes of Body to take; negative = to its end
	Body   io.Reader
}

// Start begins an upload in the preferred location.
func (u *Uploads) Start(ctx context.Context, repositoryID int64) (Upload, error) {
	location, driver := u.Storage.Preferred()
	name, state, err := driver.StartUpload(ctx)
	if err != nil {
		return Upload{}, fmt.Errorf("start upload: %w", err)
	}
	sha, err := NewHash().MarshalText()
	if err != nil {
		return Upload{}, err
	}
	q := u.DB.Write(ctx)
	insert := func() (int64, error) {
		return q.InsertBlobUpload(ctx, sqlc.InsertBlobUploadParams{
			RepositoryID: repositoryID, UUID: name, ShaState: string(sha), StorageMetadata: string(state), Created: u.Clock.Now(), Location: location,
		})
	}
	n, err := insert()
	if err == nil && n == 0 { // a location that is configured for the first time
		if _, err = q.AddStorageLocation(ctx, location); err == nil {
			n, err = insert()
		}
	}
	if err == nil && n == 0 {
		err = fmt.Errorf("storage location %q has no row", location)
	}
	if metadata.IsForeignKeyViolation(err) {
		err = ErrRepositoryGone
	}
	if err != nil {
		return Upload{}, errors.Join(fmt.Errorf("start upload: %w", err), driver.Cancel(context.WithoutCancel(ctx), name, state))
	}
	return Upload{UUID: name, RepositoryID: repositoryID}, nil
}

// Find looks an upload up.
func (u *Uploads) Find(ctx context.Context, id string) (Upload, error) {
	row, err := u.find(ctx, id)
	if err != nil {
		return Upload{}, err
	}
	return row.upload(), nil
}

// Append takes a chunk. On RangeError and TooLargeError the upload is as before; on BodyError what arrived counts.
func (u *Uploads) Append(ctx context.Context, id string, c Chunk) (Upload, error) {
	var result Upload
	err := u.with(ctx, id, func(row *row) error {
		err := u.append(ctx, row, c)
		result = row.upload()
		return err
	})
	return result, err
}

// Finish takes the last chunk, which may be empty or, without a Body, none at all, and makes the upload a blob: durable, and shown in its
// repository. On any error the upload is gone; result is then its state before that.
func (u *Uploads) Finish(ctx context.Context, id string, c Chunk, digest string) (result Upload, err error) {
	err = u.with(ctx, id, func(row *row) error {
		var err error
		if c.Body != nil {
			err = u.append(ctx, row, c)
		}
		if err == nil {
			err = u.commit(ctx, row, digest)
		}
		result = row.upload()
		if err != nil {
			err = errors.Join(err, u.cancel(ctx, row))
		}
		return err
	})
	return result, err
}

// Cancel ends an upload and removes what it has stored.
func (u *Uploads) Cancel(ctx context.Context, id string) error {
	return u.with(ctx, id, func(row *row) error { return u.cancel(ctx, row) })
}

// Link shows a blob in a further repository, for as long as Finish would.
func (u *Uploads) Link(ctx context.Context, blobID, repositoryID int64) error {
	now := u.Clock.Now()
	n, err := u.DB.Write(ctx).LinkBlob(ctx, sqlc.LinkBlobParams{
		BlobID: blobID, RepositoryID: repositoryID, UploadedAt: now, ExpiresAt: now.Add(u.LinkFor),
	})
	if metadata.IsForeignKeyViolation(err) || err == nil && n == 0 {
		return fmt.Errorf("link blob: %w", ErrRepositoryGone)
	}
	if err != nil {
		return fmt.Errorf("link blob: %w", err)
	}
	return nil
}

// row is an upload as the database has it.
type row struct{ sqlc.BlobUploadRow }

func (r *row) upload() Upload {
	return Upload{UUID: r.UUID, RepositoryID: r.RepositoryID, Received: r.ByteCount}
}

func (r *row) state() storage.State {
	if r.StorageMetadata == nil {
		return storage.State("{}")
	}
	return storage.State(*r.StorageMetadata)
}

func (r *row) hash() (*Hash, error) {
	h := NewHash()
	if r.ShaState != nil {
		if err := h.UnmarshalText([]byte(*r.ShaState)); err != nil {
			return nil, fmt.Errorf("upload %s: %w", r.UUID, err)
		}
	}
	if h.Len() != r.ByteCount {
		return nil, fmt.Errorf("upload %s: %d bytes are hashed, %d received", r.UUID, h.Len(), r.ByteCount)
	}
	return h, nil
}

func (u *Uploads) find(ctx context.Context, id string) (*row, error) {
	// Never from a replica: an upload is continued a moment after it was written.
	r, err := u.DB.Read(metadata.ForceWriter(ctx)).BlobUpload(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("upload %q: %w", id, ErrUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("look up upload %s: %w", id, err)
	}
	return &row{r}, nil
}

// with runs do on an upload that nobody else in this process touches meanwhile.
func (u *Uploads) with(ctx context.Context, id string, do func(*row) error) error {
	done, err := u.busy.enter(ctx, id)
	if err != nil {
		return fmt.Errorf("wait for another request on upload %s: %w", id, err)
	}
	defer done()
	r, err := u.find(ctx, id)
	if err != nil {
		return err
	}
	return do(r)
}

func (u *Uploads) append(ctx context.Context, r *row, c Chunk) error {
	if c.Offset > r.ByteCount {
		return &RangeError{Received: r.ByteCount}
	}
	length := c.Length
	if c.Offset > 0 {
		overlap := r.ByteCount - c.Offset
		if length >= 0 {
			if length -= overlap; length <= 0 && overlap > 0 {
				return nil // nothing new
			}
		}
		if n, err := io.CopyN(io.Discard, c.Body, overlap); err != nil {
			if errors.Is(err, io.EOF) {
				return nil // nothing new
			}
			return &BodyError{Err: fmt.Errorf("after %d bytes: %w", n, err)}
		}
	}
	if length >= 0 {
		if u.MaxSize > 0 && r.ByteCount+length > u.MaxSize {
			return &TooLargeError{Size: r.ByteCount + length, Limit: u.MaxSize}
		}
		c.Body = io.LimitReader(c.Body, length)
	} else if u.MaxSize > 0 {
		c.Body = io.LimitReader(c.Body, u.MaxSize-r.ByteCount+1)
	}
	hash, err := r.hash()
	if err != nil {
		return err
	}
	driver, err := u.Storage.Driver(r.Location)
	if err != nil {
		return err
	}

	in := &intake{body: c.Body, hash: hash, measure: r.ChunkCount == 0 && c.Offset == 0}
	n, state, err := driver.Append(ctx, r.UUID, r.ByteCount, in, r.state())
	in.finish()
	if err != nil && (in.err == nil || n != in.n) {
		return fmt.Errorf("append to upload: %w", err)
	}
	if n != in.n {
		return fmt.Errorf("append to upload %s: the driver took %d bytes and stored %d", r.UUID, in.n, n)
	}
	if u.MaxSize > 0 && r.ByteCount+n > u.MaxSize {
		return &TooLargeError{Size: r.ByteCount + n, Limit: u.MaxSize}
	}
	if in.err != nil {
		err = &BodyError{Err: in.err}
	}
	return errors.Join(u.advance(ctx, r, hash, n, state, in), err)
}

// advance records what was appended.
func (u *Uploads) advance(ctx context.Context, r *row, hash *Hash, n int64, state storage.State, in *intake) error {
	sha, err := hash.MarshalText()
	if err != nil {
		return err
	}
	next := *r
	shaText, stateText := string(sha), string(state)
	next.ByteCount += n
	next.ChunkCount++
	next.ShaState, next.StorageMetadata = &shaText, &stateText
	switch {
	case in.sound && r.ChunkCount == 0:
		next.UncompressedByteCount = &in.size
	case n > 0:
		next.UncompressedByteCount = nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	changed, err := u.DB.Write(ctx).AdvanceBlobUpload(ctx, sqlc.AdvanceBlobUploadParams{
		ID: r.ID, WasByteCount: r.ByteCount, WasChunkCount: r.ChunkCount, ByteCount: next.ByteCount, ChunkCount: next.ChunkCount,
		ShaState: next.ShaState, StorageMetadata: next.StorageMetadata, UncompressedByteCount: next.UncompressedByteCount,
	})
	if err != nil {
		return fmt.Errorf("record upload %s: %w", r.UUID, err)
	}
	if changed == 0 {
		return fmt.Errorf("upload %s was changed by another process: %w", r.UUID, ErrUnknown)
	}
	*r = next
	return nil
}

// commit makes the object durable under its key, and then the blob visible. The lock keeps a collector from
// removing the object in between, when no row names it yet.
//
// Only SHA-256 is known: another algorithm would need its own running state beside sha_state, and compare here.
func (u *Uploads) commit(ctx context.Context, r *row, digest string) error {
	hash, err := r.hash()
	if err != nil {
		return err
	}
	if have := hash.Digest(); have != digest {
		return fmt.Errorf("%w: %s, not %q", ErrDigest, have, digest)
	}
	key, err := storage.BlobKey(digest)
	if err != nil {
		return err
	}
	driver, err := u.Storage.Driver(r.Location)
	if err != nil {
		return err
	}
	lease, err := u.Locks.Acquire(ctx, locks.BlobDelete(digest), commitTime)
	if err != nil {
		return fmt.Errorf("commit blob: %w", err)
	}
	defer lease.Release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTime)
	defer cancel()
	if err := driver.Complete(ctx, r.UUID, key, r.ByteCount, r.state()); err != nil {
		return fmt.Errorf("commit blob: %w", err)
	}
	now := u.Clock.Now()
	_, err = u.DB.Write(ctx).CommitBlob(ctx, sqlc.CommitBlobParams{
		RepositoryID: r.RepositoryID, UploadID: r.ID, Digest: &digest, UUID: uuid.NewString(), UploadedAt: now, ExpiresAt: now.Add(u.LinkFor),
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrRepositoryGone
	}
	if err == nil {
		// A collector that took a lost lock over may have found no row yet and removed the object. Then the client pushes
		// again, which brings it back.
		err = lease.Check(ctx)
	}
	if err != nil {
		return fmt.Errorf("commit blob %s: %w", digest, err)
	}
	return nil
}

func (u *Uploads) cancel(ctx context.Context, r *row) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer stop()
	driver, err := u.Storage.Driver(r.Location)
	if err == nil {
		err = driver.Cancel(ctx, r.UUID, r.state())
	}
	if err != nil {
		// The row stays, so that the cleanup of old uploads tries again.
		return fmt.Errorf("cancel upload %s: %w", r.UUID, err)
	}
	if _, err := u.DB.Write(ctx).DeleteBlobUpload(ctx, r.ID); err != nil {
		return fmt.Errorf("cancel upload %s: %w", r.UUID, err)
	}
	return nil
}

// busy lets one request at a time work on an upload. Between processes the row's counts are compared instead.
type busy struct {
	mu      sync.Mutex
	uploads map[string]chan struct{}
}

func (b *busy) enter(ctx context.Context, id string) (done func(), err error) {
	for {
		b.mu.Lock()
		other := b.uploads[id]
		if other == nil {
			if b.uploads == nil {
				b.uploads = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			b.uploads[id] = mine
			b.mu.Unlock()
			return func() {
				b.mu.Lock()
				delete(b.uploads, id)
				b.mu.Unlock()
				close(mine)
			}, nil
		}
		b.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
