// Package storage keeps objects: blobs under keys that follow from their digest, and uploads on their way
// to become blobs.
//
// A location is a named place (a directory, a bucket); Set knows all of them and which one to read and to
// write. Driver is the seam: one implementation per kind of place, all of them proven by storagetest.
// Keys, upload state and configuration are those of the legacy server, so that both can work on the same
// places and rows at the same time.
package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"time"
)

// ErrNotExist is what every driver returns (wrapped) for an object or an upload that is not there.
var ErrNotExist = fs.ErrNotExist

// ErrConflict is what Append and Complete return (wrapped) when the place does not hold what the caller's
// record of the upload says: bytes are missing. The upload cannot be saved; the client must begin again.
var ErrConflict = errors.New("stored upload does not match its record")

// NoSpaceError tells that a place is full. It unwraps to the cause.
type NoSpaceError struct {
	Place string // what is full, for people: a directory, a bucket
	Free  uint64 // bytes that are free there, as far as known
	Err   error
}

// Error implements error.
func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("no space left in %s (%d bytes free): free some or enlarge the disk: %v", e.Place, e.Free, e.Err)
}

// Unwrap returns the cause.
func (e *NoSpaceError) Unwrap() error { return e.Err }

// Info describes an object.
type Info struct {
	Size     int64
	Modified time.Time
}

// State is what a driver must remember of an upload between calls: the JSON text of blobupload's column
// storage_metadata. Its shape belongs to the driver and is the legacy one (contract, behaviour.md §1.5); other code
// stores it and hands it back unread.
type State = json.RawMessage

// Driver stores objects in one place.
//
// For every method: keys are relative, slash-separated and already free of "..", and a driver refuses any
// that would leave its storage path. Missing objects give ErrNotExist. Errors are final: a driver does its
// own retries. Any method may be called by many goroutines and many processes at once; the one rule that
// callers keep is that no two calls for the same upload overlap.
type Driver interface {
	// Stat tells the size of an object.
	Stat(ctx context.Context, key string) (Info, error)

	// Open reads length bytes of an object from offset; a negative length means up to its end. An offset at
	// or beyond the end gives an empty reader, as do ranges beyond it the part that exists. The reader may
	// implement io.WriterTo. The caller closes it.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// Put stores all of r under key, replacing what is there. The object appears whole and durable or, on
	// any error, not at all.
	Put(ctx context.Context, key string, r io.Reader, o PutOptions) error

	// Copy gives another place an object of this one under the same key; like Put, whole or not at all.
	Copy(ctx context.Context, key string, to Driver) error

	// Remove removes an object; it is no error when there is none.
	Remove(ctx context.Context, key string) error

	// StartUpload begins an upload. The name is new and unique; it becomes the upload's uuid.
	StartUpload(ctx context.Context) (name string, state State, err error)

	// Append adds to an upload that has offset bytes so far; bytes beyond offset left over by an
	// interrupted call are dropped. It reads r to its end. It returns how many bytes of r it took and the
	// state to remember; with an error from r, those are valid too and the upload goes on from there, with
	// any other error the upload is as before the call. ErrConflict: fewer than offset bytes are there, or another
	// process writes. What it says it took is durable, as the caller's record of it is.
	Append(ctx context.Context, name string, offset int64, r io.Reader, state State) (written int64, next State, err error)

	// Complete makes an upload of size bytes the object key. When it returns nil the object is durable and
	// the upload is gone; an equally large object that is there already is kept. When it fails the object is as it
	// was before and Cancel may clear up. ErrConflict: the upload does not hold exactly size bytes.
	Complete(ctx context.Context, name, key string, size int64, state State) error

	// Cancel removes what an upload has stored. It is no error when there is nothing.
	Cancel(ctx context.Context, name string, state State) error

	// CleanUploads removes what uploads have left below UploadPrefix and nobody has written to since before,
	// and tells how many objects that were. It serves uploads whose record is lost; the others are cancelled.
	CleanUploads(ctx context.Context, before time.Time) (removed int, err error)

	// DirectURL is an address from which a client can get the object without us, or "" when this place has
	// none to give and the object must be proxied.
	DirectURL(ctx context.Context, key string, o URLOptions) (string, error)

	// LocalPath tells the object's file below the location's own directory, for a front that can send the
	// file itself; ok is false when objects are not files of this machine.
	LocalPath(key string) (path string, ok bool)

	// ResumableDownloads tells whether blobs of this place are announced with Accept-Ranges, also where the
	// answer is a redirect.
	ResumableDownloads() bool

	// Validate proves that the place can be written, by writing ProbeKey.
	Validate(ctx context.Context) error

	// Close frees what the driver holds. No call may follow it.
	Close() error
}

// PutOptions describe an object to those who get it by DirectURL. The zero value says nothing.
type PutOptions struct {
	ContentType     string
	ContentEncoding string
}

// URLOptions are what a direct URL may depend on.
type URLOptions struct {
	Method    string        // http.MethodGet when empty
	Expires   time.Duration // how long it must work; 600 s when zero, as for blob pulls
	ClientIP  netip.Addr    // who asks; the zero Addr when unknown
	Namespace string        // whose blob it is
	Repo      string        // and in which repository
	Username  string        // who asks, "" for anonymous
	// CDNSpecific is set for the namespaces that must always be served by the CDN.
	CDNSpecific bool
}

// WithDefaults fills in what is documented as default.
func (o URLOptions) WithDefaults() URLOptions {
	if o.Method == "" {
		o.Method = http.MethodGet
	}
	if o.Expires == 0 {
		o.Expires = 600 * time.Second
	}
	return o
}
