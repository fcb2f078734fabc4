package edge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quayctl/quayctl/internal/service"
)

// storage is the local storage the edge may read. No path leads out of its directories (os.Root).
type storage struct {
	dirs map[string]string
	root string

	mu   sync.RWMutex
	open map[string]*os.Root
}

func newStorage(dirs map[string]string, root string) *storage {
	return &storage{dirs: dirs, root: root, open: map[string]*os.Root{}}
}

// any tells whether there is anything to read.
func (s *storage) any() bool { return len(s.dirs) > 0 || s.root != "" }

// location returns the open directory of a location. A directory that is missing now may appear later.
func (s *storage) location(name string) (*os.Root, error) {
	s.mu.RLock()
	r := s.open[name]
	s.mu.RUnlock()
	if r != nil {
		return r, nil
	}
	dir, ok := s.dirs[name]
	if !ok {
		if s.root == "" || name == "" || name == "." || name == ".." || strings.ContainsAny(name, `/\`) {
			return nil, fmt.Errorf("storage location %q was not given to the edge", name)
		}
		dir = path.Join(s.root, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.open[name]; r != nil {
		return r, nil
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s.open[name] = r
	return r, nil
}

// file opens the object "LOCATION/KEY"; it must be a regular file inside its location.
func (s *storage) file(object string) (*os.File, error) {
	name, key, ok := strings.Cut(object, "/")
	if !ok || key == "" || key != path.Clean(key) || path.IsAbs(key) || key == ".." || strings.HasPrefix(key, "../") {
		return nil, fmt.Errorf("object %q is not LOCATION/KEY", object)
	}
	root, err := s.location(name)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(key)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("object %q is not a regular file", object)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// places are the directories that were named, sorted.
func (s *storage) places() []string {
	dirs := slices.Collect(maps.Values(s.dirs))
	if s.root != "" {
		dirs = append(dirs, s.root)
	}
	slices.Sort(dirs)
	return dirs
}

// check warns about directories that cannot be read: blobs then pass through registryd, slower.
func (s *storage) check(context.Context) error {
	for _, dir := range s.places() {
		r, err := os.OpenRoot(dir)
		if err != nil {
			return service.Warning{Err: fmt.Errorf("storage directory cannot be read, registryd sends its blobs instead: %w; check the mount and its owner", err)}
		}
		r.Close()
	}
	return nil
}

// free is the smallest free share (0 to 1) of the file systems below the directories.
func (s *storage) free() (float64, error) {
	least := 1.0
	for _, dir := range s.places() {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		for ; errors.Is(err, unix.ENOENT) && dir != path.Dir(dir); err = unix.Statfs(dir, &st) {
			dir = path.Dir(dir) // not made yet: where it will be made
		}
		if err != nil {
			return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		if st.Blocks > 0 {
			least = min(least, float64(st.Bavail)/float64(st.Blocks))
		}
	}
	return least, nil
}

func (s *storage) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, r := range s.open {
		errs = append(errs, r.Close())
	}
	clear(s.open)
	return errors.Join(errs...)
}

// sendObject sends the file that registryd named. When it cannot be opened (collected meanwhile, not
// mounted here), or the range asked for lies behind its end, registryd is asked again and answers by itself.
func (e *Edge) sendObject(x *exchange) {
	f, err := e.storage.file(x.object)
	if err != nil {
		e.metrics.offloadMisses.Inc()
		e.o.Log.Warn("object cannot be sent from storage, registryd is asked instead", "id", x.id, "error", err)
		e.askAgain(x)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		e.metrics.offloadMisses.Inc()
		e.askAgain(x)
		return
	}
	tagged := x.header.Get("Etag") != ""
	in := x.in.WithContext(x.in.Context())
	in.Header = x.in.Header.Clone()
	if !tagged { // nothing to compare with: conditions do not apply
		for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
			in.Header.Del(name)
		}
	}
	if text := in.Header.Get("Range"); text != "" {
		first, ok := rangeStart(text, info.Size())
		switch {
		case !ok, !tagged && in.Header.Get("If-Range") != "":
			in.Header.Del("Range")
		case first >= info.Size():
			e.askAgain(x)
			return
		}
	}
	header := x.out.Header()
	for name, values := range x.header {
		header[name] = values
	}
	header.Del("Content-Length") // of the empty body
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/octet-stream") // never sniffed
	}
	x.out.hideRanges = x.header.Get("Accept-Ranges") == ""
	http.ServeContent(x.out, in, "", time.Time{}, f)
	e.metrics.offloadBytes.Add(float64(x.out.sent))
}

// askAgain lets registryd send the bytes or its error.
func (e *Edge) askAgain(x *exchange) {
	x.noOffload, x.object, x.header = true, "", nil
	e.proxy.ServeHTTP(x.out, x.in)
}

// rangeStart is where a single range of bytes begins in size bytes. Not ok: the header is malformed or
// names several ranges; like registryd the edge then sends everything, as RFC 9110 allows.
func rangeStart(text string, size int64) (first int64, ok bool) {
	spec, ok := strings.CutPrefix(text, "bytes=")
	if !ok {
		return 0, false
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return 0, false
	}
	start, startErr := strconv.ParseUint(from, 10, 62)
	end, endErr := strconv.ParseUint(to, 10, 62)
	switch {
	case from == "" && endErr == nil:
		if end == 0 {
			return size, true // no byte at all
		}
		return max(0, size-int64(end)), true
	case from == "" || startErr != nil || to != "" && (endErr != nil || end < start):
		return 0, false
	}
	return int64(start), true
}
