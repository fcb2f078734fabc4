package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

const (
	// copyBuffer is the size of the pooled buffers through which bodies without a buffer of their own go.
	copyBuffer = 256 << 10
	// writebackEvery is after how many bytes the kernel is asked to begin writing, so that the sync at the
	// end of a large upload finds most of the work done.
	writebackEvery = 8 << 20
)

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// Local keeps objects as files below one directory: driver LocalStorage. An upload is the file
// uploads/UUID, its state is {}.
//
// Paths cannot leave the directory, not even through symbolic links in it.
type Local struct {
	dir  string
	root *os.Root
	log  *slog.Logger
	// durable holds the directories whose own entry is known to be on the disk.
	durable sync.Map
}

// OpenLocal opens a directory as a storage location and makes it when it is missing.
func OpenLocal(dir string, log *slog.Logger) (*Local, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make storage_path (it must be writable by uid %d): %w", os.Getuid(), err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open storage_path: %w", err)
	}
	return &Local{dir: dir, root: root, log: log}, nil
}

// Stat implements Driver.
func (l *Local) Stat(_ context.Context, key string) (Info, error) {
	info, err := l.root.Stat(key)
	if err != nil {
		return Info{}, fmt.Errorf("stat object: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Info{}, fmt.Errorf("stat object %s: not a file: %w", key, ErrNotExist)
	}
	return Info{Size: info.Size(), Modified: info.ModTime()}, nil
}

// Open implements Driver. Copying from the reader to a connection does not bring the bytes into the process.
func (l *Local) Open(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	f, err := l.root.Open(key)
	if err != nil {
		return nil, fmt.Errorf("open object: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("not a file: %w", ErrNotExist)
	}
	if err == nil && offset > 0 {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open object %s: %w", key, err), f.Close())
	}
	left := max(info.Size()-offset, 0)
	if length >= 0 {
		left = min(left, length)
	}
	return &fileRange{LimitedReader: io.LimitedReader{R: f, N: left}, file: f}, nil
}

// fileRange is a part of a file.
type fileRange struct {
	io.LimitedReader
	file *os.File
}

// WriteTo implements io.WriterTo: it shows the writer a plain limited file, which connections know how to send.
func (r *fileRange) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, &r.LimitedReader) }

func (r *fileRange) Close() error { return r.file.Close() }

// Put implements Driver.
func (l *Local) Put(ctx context.Context, key string, r io.Reader, _ PutOptions) (err error) {
	name, state, err := l.StartUpload(ctx)
	if err != nil {
		return err
	}
	n, err := l.write(name, 0, r, false) // complete makes it durable
	if err == nil {
		err = l.complete(name, key, n, true)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("put object %s: %w", key, err), l.Cancel(ctx, name, state))
	}
	return nil
}

// Copy implements Driver.
func (l *Local) Copy(ctx context.Context, key string, to Driver) error {
	r, err := l.Open(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	return errors.Join(to.Put(ctx, key, r, PutOptions{}), r.Close())
}

// Remove implements Driver.
func (l *Local) Remove(_ context.Context, key string) error {
	if err := l.root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove object: %w", err)
	}
	return nil
}

// StartUpload implements Driver.
func (l *Local) StartUpload(context.Context) (string, State, error) {
	name := uuid.NewString()
	create := func() error {
		f, err := l.root.OpenFile(UploadPrefix+name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	}
	err := create()
	if errors.Is(err, fs.ErrNotExist) {
		if err = l.makeDir(path.Clean(UploadPrefix)); err == nil {
			err = create()
		}
	}
	if err != nil {
		return "", nil, fmt.Errorf("start upload: %w", l.explain(err))
	}
	return name, State("{}"), nil
}

// Append implements Driver.
func (l *Local) Append(_ context.Context, name string, offset int64, r io.Reader, state State) (int64, State, error) {
	n, err := l.write(name, offset, r, true)
	return n, state, err
}

// write appends, and syncs what it has appended if asked to.
func (l *Local) write(name string, offset int64, r io.Reader, durable bool) (int64, error) {
	f, size, err := l.openUpload(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // written bytes are checked and synced
	if size < offset {
		return 0, fmt.Errorf("append to upload %s at %d: only %d bytes are stored: %w", name, offset, size, ErrConflict)
	}
	if size > offset {
		if err := f.Truncate(offset); err != nil {
			return 0, fmt.Errorf("append to upload %s: drop bytes after %d: %w", name, offset, err)
		}
	}
	w := &appender{file: f, at: offset, flushed: offset}
	_, err = io.Copy(w, r)
	if durable && w.err == nil && w.at > offset {
		// Without it a power cut can leave a file of the right size with zeros in it, and the hash goes on from the record.
		w.err = f.Sync()
	}
	if w.err != nil {
		failed := fmt.Errorf("append to upload %s: %w", name, l.explain(w.err))
		return 0, errors.Join(failed, f.Truncate(offset))
	}
	if err != nil {
		err = fmt.Errorf("append to upload %s: read body: %w", name, err)
	}
	return w.at - offset, err
}

// appender writes behind a position and keeps the kernel writing. It tells its own errors from the reader's.
type appender struct {
	file        *os.File
	at, flushed int64
	err         error
}

func (w *appender) Write(p []byte) (int, error) {
	n, err := w.file.WriteAt(p, w.at)
	w.at += int64(n)
	w.err = err
	if w.at-w.flushed >= writebackEvery {
		// Best effort: only Complete's sync counts.
		_ = unix.SyncFileRange(int(w.file.Fd()), w.flushed, w.at-w.flushed, unix.SYNC_FILE_RANGE_WRITE)
		w.flushed = w.at
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom with a pooled buffer.
func (w *appender) ReadFrom(r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *buf)
}

// Complete implements Driver.
func (l *Local) Complete(_ context.Context, name, key string, size int64, _ State) error {
	if err := l.complete(name, key, size, false); err != nil {
		return fmt.Errorf("complete upload %s as %s: %w", name, key, err)
	}
	return nil
}

func (l *Local) complete(name, key string, size int64, replace bool) error {
	f, have, err := l.openUpload(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only synced, not written
	if have != size {
		return fmt.Errorf("%d bytes are stored, %d were received: %w", have, size, ErrConflict)
	}
	if !replace {
		kept, err := l.keepExisting(key, size)
		if err != nil {
			return err
		}
		if kept {
			return l.Remove(context.Background(), UploadPrefix+name)
		}
	}
	// The order is what makes it safe: first the bytes, then the name, then the directory that holds the name.
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", l.explain(err))
	}
	dir := path.Dir(key)
	rename := func() error {
		if err := l.makeDir(dir); err != nil {
			return err
		}
		return l.root.Rename(UploadPrefix+name, key)
	}
	err = rename()
	if errors.Is(err, fs.ErrNotExist) { // somebody removed a directory that we knew
		l.durable.Clear()
		err = rename()
	}
	if err != nil {
		return l.explain(err)
	}
	return l.syncDir(dir)
}

// keepExisting tells whether an object of that size is there, and if so makes sure that it stays: another
// process may have named it a moment ago and not yet synced, and a legacy server never syncs.
func (l *Local) keepExisting(key string, size int64) (bool, error) {
	f, err := l.root.Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // only synced
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() != size {
		l.log.Warn("replacing a damaged object", "key", key, "bytes", info.Size(), "expected", size)
		return false, nil
	}
	if err := f.Sync(); err != nil {
		return false, fmt.Errorf("sync existing object: %w", err)
	}
	dir := path.Dir(key)
	if err := l.makeDir(dir); err != nil {
		return false, err
	}
	return true, l.syncDir(dir)
}

// openUpload opens the file of an upload and locks it until it is closed: a process that is being replaced and its successor
// may both be asked to write to it.
func (l *Local) openUpload(name string) (*os.File, int64, error) {
	f, err := l.root.OpenFile(UploadPrefix+name, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("open upload: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, 0, errors.Join(fmt.Errorf("another process works on upload %s: %w", name, ErrConflict), f.Close())
	} // a file system without locks has to do without
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("stat upload: %w", err), f.Close())
	}
	return f, info.Size(), nil
}

// makeDir makes a directory below the root and its parents, each durable before the next.
func (l *Local) makeDir(dir string) error {
	if _, ok := l.durable.Load(dir); ok || dir == "." {
		return nil
	}
	parent := path.Dir(dir)
	if err := l.makeDir(parent); err != nil {
		return err
	}
	if err := l.root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := l.syncDir(parent); err != nil {
		return err
	}
	l.durable.Store(dir, true)
	return nil
}

func (l *Local) syncDir(dir string) error {
	d, err := l.root.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, l.explain(err))
	}
	return nil
}

// Cancel implements Driver.
func (l *Local) Cancel(ctx context.Context, name string, _ State) error {
	return l.Remove(ctx, UploadPrefix+name)
}

// CleanUploads implements Driver.
func (l *Local) CleanUploads(ctx context.Context, before time.Time) (int, error) {
	d, err := l.root.Open(path.Clean(UploadPrefix))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("clean uploads: %w", err)
	}
	defer d.Close() //nolint:errcheck // only read
	removed := 0
	for {
		entries, err := d.ReadDir(256)
		if errors.Is(err, io.EOF) {
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("clean uploads: %w", err)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return removed, err
			}
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() || !info.ModTime().Before(before) {
				continue // an entry that vanished meanwhile was finished or cancelled
			}
			if err := l.Remove(ctx, UploadPrefix+e.Name()); err != nil {
				return removed, fmt.Errorf("clean uploads: %w", err)
			}
			removed++
		}
	}
}

// DirectURL implements Driver: files have none.
func (l *Local) DirectURL(context.Context, string, URLOptions) (string, error) { return "", nil }

// LocalPath implements Driver.
func (l *Local) LocalPath(key string) (string, bool) {
	p := filepath.FromSlash(key)
	return p, filepath.IsLocal(p)
}

// ResumableDownloads implements Driver: as in legacy, only places behind a redirect announce them by themselves.
func (l *Local) ResumableDownloads() bool { return false }

// Validate implements Driver.
func (l *Local) Validate(ctx context.Context) error {
	if err := l.Put(ctx, ProbeKey, strings.NewReader(probeContent), PutOptions{}); err != nil {
		return fmt.Errorf("write probe to %s: %w", l.dir, err)
	}
	return nil
}

// Close implements Driver.
func (l *Local) Close() error { return l.root.Close() }

// explain turns a full disk into a NoSpaceError and leaves other errors as they are.
func (l *Local) explain(err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	full := &NoSpaceError{Place: l.dir, Err: err}
	var st unix.Statfs_t
	if unix.Statfs(l.dir, &st) == nil {
		full.Free = st.Bavail * uint64(st.Bsize) //nolint:gosec // a block size is positive
	}
	return full
}
