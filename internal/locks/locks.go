// Package locks gives names to one holder at a time, across goroutines and processes.
//
// It is how a push and a garbage collector keep out of each other's way (BLOB_DELETE_<digest>) and how one of
// several workers does a periodic job. The names are those of the legacy server (contract, behaviour.md §6).
package locks

import (
	"context"
	"errors"
	"time"
)

// BlobDelete is the name of the lock under which the object of a digest may be given its first row, or be removed
// after its last.
func BlobDelete(digest string) string { return "BLOB_DELETE_" + digest }

// ErrHeld is what Try returns (wrapped) when somebody else has the lock.
var ErrHeld = errors.New("lock is held by another")

// ErrLost is what Lease.Check returns (wrapped) when the lock may have gone to somebody else.
var ErrLost = errors.New("lock was lost")

// Locker gives locks. Implementations are safe for concurrent use.
//
// A lock ends with its release, after ttl, or when the process that holds it dies or loses its connection,
// whatever comes first. Locks are not reentrant.
type Locker interface {
	// Acquire waits for a lock until ctx ends.
	Acquire(ctx context.Context, name string, ttl time.Duration) (Lease, error)
	// Try takes a lock that is free, and fails with ErrHeld when it is not.
	Try(ctx context.Context, name string, ttl time.Duration) (Lease, error)
}

// Lease is a lock that is held.
type Lease interface {
	// Check asks whether the lock is still held: ErrLost when not.
	Check(ctx context.Context) error
	// Release ends it. It may be called more than once.
	Release()
}
