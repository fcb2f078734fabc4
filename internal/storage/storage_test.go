package storage_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quayctl/quayctl/internal/storage"
	"github.com/quayctl/quayctl/internal/storage/storagetest"
)

func openLocal(t *testing.T) (*storage.Local, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "storage")
	l, err := storage.OpenLocal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, dir
}

func TestLocal(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Driver {
		l, _ := openLocal(t)
		return l
	})
}

// The keys of the legacy server (contract, vectors/uploads-and-keys.json).
func TestKeys(t *testing.T) {
	for digest, want := range map[string]string{
		storage.EmptyLayer:              "sha256/a3/a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",
		"sha512:ABCDEF0123":             "sha512/AB/ABCDEF0123",
		"md5:0":                         "md5/00/0",
		"tarsum.v1+sha256:e3b0c44298fc": "tarsum/v1/sha256/e3/e3b0c44298fc",
		"a++b..c:12":                    "a/b/c/12/12",
		"sha256:ABCDEF":                 "sha256/AB/ABCDEF",
		"sha256+b64:00ff":               "sha256/b64/00/00ff",
		"md5:f":                         "md5/0f/f",
		"+sha256:abcd":                  "sha256/ab/abcd",
	} {
		if got, err := storage.BlobKey(digest); err != nil || got != want {
			t.Errorf("BlobKey(%s) = %s, %v, want %s", digest, got, err, want)
		}
	}
	for _, bad := range []string{"", "sha256:", "sha256", "sha256:xyz", ":abc", "sha256:abc:def", "sha256:abc ", " sha256:abc", "a b:12", "sha256:abc\n", "sha256:../../etc/passwd"} {
		if d, err := storage.ParseDigest(bad); err == nil {
			t.Errorf("ParseDigest(%q) = %v, want an error", bad, d)
		}
	}
	if d, err := storage.ParseDigest("SHA256:ABC"); err != nil || d.Algorithm != "SHA256" || d.Hex != "ABC" || d.String() != "SHA256:ABC" {
		t.Errorf("ParseDigest(SHA256:ABC) = %#v, %v", d, err)
	}
	if key, err := storage.ObjectKey(false, "", "some-uuid"); err != nil || key != "sharedimages/some-uuid/layer" {
		t.Errorf("ObjectKey of a row before content addressing = %s, %v", key, err)
	}
	if key, err := storage.ObjectKey(true, "sha256:abcd", "some-uuid"); err != nil || key != "sha256/ab/abcd" {
		t.Errorf("ObjectKey = %s, %v", key, err)
	}
}

func TestEmptyLayer(t *testing.T) {
	sum := sha256.Sum256(storage.EmptyLayerContent())
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != storage.EmptyLayer {
		t.Errorf("the empty layer's digest is %s, want %s", got, storage.EmptyLayer)
	}
}

func open(t *testing.T, preference []string, names ...string) *storage.Set {
	t.Helper()
	c := storage.Config{Preference: preference}
	for _, n := range names {
		c.Locations = append(c.Locations, storage.Location{Name: n, Driver: "LocalStorage", Parameters: map[string]any{"storage_path": t.TempDir()}})
	}
	s, err := storage.Open(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestChoose(t *testing.T) {
	s := open(t, []string{"b", "a"}, "a", "b", "c", "d")
	for _, tt := range []struct{ placements, want string }{
		{"a", "a"}, {"a b", "b"}, {"b c", "b"}, {"d", "d"}, {"d a gone", "a"}, {"gone d", "d"},
	} {
		if got, _, err := s.Choose(strings.Fields(tt.placements)); err != nil || got != tt.want {
			t.Errorf("Choose(%s) = %s, %v, want %s", tt.placements, got, err, tt.want)
		}
	}
	seen := map[string]bool{}
	for range 200 {
		name, d, err := s.Choose([]string{"c", "d", "gone"})
		if err != nil {
			t.Fatal(err)
		}
		if want, err := s.Driver(name); err != nil || want != d {
			t.Fatalf("Choose gave %s with another location's driver (%v)", name, err)
		}
		seen[name] = true
	}
	if len(seen) != 2 {
		t.Errorf("without a preferred placement always %v was chosen", seen)
	}
	for _, placements := range [][]string{nil, {"gone"}} {
		if _, _, err := s.Choose(placements); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("Choose(%v) = %v, want ErrNotExist", placements, err)
		}
	}
	if name, _ := s.Preferred(); name != "b" {
		t.Errorf("Preferred = %s, want b", name)
	}
	if name, _ := open(t, nil, "z", "y").Preferred(); name != "z" {
		t.Errorf("Preferred without a preference = %s, want the first configured, z", name)
	}
	if err := s.Validate(t.Context(), true); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	local := func(name string) storage.Location {
		return storage.Location{Name: name, Driver: "LocalStorage", Parameters: map[string]any{"storage_path": t.TempDir()}}
	}
	for name, tt := range map[string]struct {
		config storage.Config
		want   string
	}{
		"nothing":        {storage.Config{}, "set DISTRIBUTED_STORAGE_CONFIG"},
		"unknown driver": {storage.Config{Locations: []storage.Location{{Name: "x", Driver: "FloppyStorage"}}}, `location "x" (DISTRIBUTED_STORAGE_CONFIG): driver "FloppyStorage"`},
		"no path":        {storage.Config{Locations: []storage.Location{{Name: "x", Driver: "LocalStorage"}}}, "storage_path"},
		"unknown preference": {
			storage.Config{Locations: []storage.Location{local("x")}, Preference: []string{"y"}}, `"y" of DISTRIBUTED_STORAGE_PREFERENCE`,
		},
		"second fails": {storage.Config{Locations: []storage.Location{local("x"), {Name: "y", Driver: "LocalStorage"}}}, `location "y"`},
	} {
		if _, err := storage.Open(tt.config, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open = %v, want an error with %q", name, err, tt.want)
		}
	}
}

func TestLocalFiles(t *testing.T) {
	l, dir := openLocal(t)
	name, state, err := l.StartUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if string(state) != "{}" {
		t.Errorf("state = %s, want {}", state)
	}
	upload := filepath.Join(dir, "uploads", name)
	if info, err := os.Stat(upload); err != nil || info.Size() != 0 {
		t.Errorf("a new upload is not an empty file: %v, %v", info, err)
	}
	if _, _, err := l.Append(t.Context(), name, 0, strings.NewReader("abc"), state); err != nil {
		t.Fatal(err)
	}
	key := storagetest.Key([]byte("abc"))
	if err := l.Complete(t.Context(), name, key, 3, state); err != nil {
		t.Fatal(err)
	}
	rel, ok := l.LocalPath(key)
	if got, err := os.ReadFile(filepath.Join(dir, rel)); !ok || err != nil || string(got) != "abc" {
		t.Errorf("LocalPath = %s, %v; it holds %q, %v", rel, ok, got, err)
	}
	if _, err := os.Stat(upload); !os.IsNotExist(err) {
		t.Errorf("the upload's file is still there: %v", err)
	}
	if _, ok := l.LocalPath("../x"); ok {
		t.Error("LocalPath leaves the storage path")
	}
}

// A directory that vanishes below a running server is made again.
func TestLocalDirectoryRemoved(t *testing.T) {
	l, dir := openLocal(t)
	c := []byte("content")
	for range 2 {
		if err := l.Put(t.Context(), storagetest.Key(c), bytes.NewReader(c), storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "sha256")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLocalSymlinkOutside(t *testing.T) {
	l, dir := openLocal(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if r, err := l.Open(t.Context(), "link", 0, -1); err == nil {
		_ = r.Close()
		t.Error("a link out of the storage path was followed")
	}
}

type fullDisk struct{}

func (fullDisk) Read([]byte) (int, error) { return 0, unix.ENOSPC }

// Only a write can fill the disk; the same errno from a client's body must not be mistaken for it.
func TestReadErrorIsNotAFullDisk(t *testing.T) {
	l, _ := openLocal(t)
	name, state, err := l.StartUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = l.Append(t.Context(), name, 0, fullDisk{}, state)
	var full *storage.NoSpaceError
	if err == nil || errors.As(err, &full) {
		t.Errorf("Append = %v, want the reader's error as it is", err)
	}
}

// A disk that is full fails the write and says so; what was stored before stays, and the upload goes on once there is room.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("this machine lets nobody mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l, err := storage.OpenLocal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // end of test
	c := storagetest.Content(600 << 10)
	if err := l.Put(t.Context(), "ballast", io.LimitReader(zeros{}, 512<<10), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	name, state, err := l.StartUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const first = 100 << 10
	if _, _, err := l.Append(t.Context(), name, 0, bytes.NewReader(c[:first]), state); err != nil {
		t.Fatal(err)
	}
	n, _, err := l.Append(t.Context(), name, first, bytes.NewReader(c[first:]), state)
	var full *storage.NoSpaceError
	if n != 0 || !errors.As(err, &full) || full.Place != dir || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Append = %d, %v; want NoSpaceError of %s", n, err, dir)
	}
	if err := l.Remove(t.Context(), "ballast"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Append(t.Context(), name, first, bytes.NewReader(c[first:]), state); err != nil {
		t.Fatal(err)
	}
	if err := l.Complete(t.Context(), name, storagetest.Key(c), int64(len(c)), state); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, storagetest.Key(c))); err != nil || !bytes.Equal(got, c) {
		t.Errorf("the object has %d bytes (%v), want %d", len(got), err, len(c))
	}
}

// What a server sends from a local object goes the way of sendfile: the writer is handed the file.
func TestOpenIsSendable(t *testing.T) {
	l, _ := openLocal(t)
	c := storagetest.Content(1 << 20)
	if err := l.Put(t.Context(), "k", bytes.NewReader(c), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := l.Open(t.Context(), "k", 5, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	w := &recorder{}
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if limited, ok := w.source.(*io.LimitedReader); !ok {
		t.Errorf("the writer was handed %T, want *io.LimitedReader", w.source)
	} else if _, ok := limited.R.(*os.File); !ok {
		t.Errorf("the writer was handed a limited %T, want *os.File", limited.R)
	}
}

type recorder struct{ source io.Reader }

func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }

func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	r.source = src
	return 0, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func BenchmarkDownload(b *testing.B) {
	dir := b.TempDir()
	l, err := storage.OpenLocal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // end of benchmark
	const size = 256 << 20
	if err := l.Put(b.Context(), "k", io.LimitReader(zeros{}, size), storage.PutOptions{}); err != nil {
		b.Fatal(err)
	}
	serve := func(b *testing.B, h http.HandlerFunc) {
		s := httptest.NewServer(h)
		defer s.Close()
		c := http.Client{Transport: &http.Transport{ReadBufferSize: 1 << 20}}
		buf := make([]byte, 1<<20)
		b.SetBytes(size)
		for b.Loop() {
			resp, err := c.Get(s.URL)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf); err != nil || n != size {
				b.Fatal(n, err)
			}
			_ = resp.Body.Close()
		}
	}
	b.Run("driver", func(b *testing.B) {
		serve(b, func(w http.ResponseWriter, r *http.Request) {
			o, err := l.Open(r.Context(), "k", 0, -1)
			if err != nil {
				b.Error(err)
				return
			}
			defer o.Close() //nolint:errcheck // read only
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.Itoa(size))
			_, _ = io.Copy(w, o)
		})
	})
	b.Run("ServeContent", func(b *testing.B) {
		serve(b, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeFile(w, r, filepath.Join(dir, "k"))
		})
	})
}

// dirty is how many pages of a file are not on the disk yet.
func dirty(t *testing.T, name string) uint64 {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &s, 0); err != nil {
		t.Skipf("this kernel does not tell what is on the disk: %v", err)
	}
	return s.Dirty + s.Writeback
}

// A row of the database says how much of an upload there is; after a power cut it must not say more than the disk has.
func TestChunksAreDurable(t *testing.T) {
	l, dir := openLocal(t)
	probe := filepath.Join(dir, "probe")
	if err := os.WriteFile(probe, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if dirty(t, probe) == 0 {
		t.Skip("this file system does not tell what is on the disk")
	}
	name, state, err := l.StartUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Append(t.Context(), name, 0, strings.NewReader(strings.Repeat("x", 1<<20)), state); err != nil {
		t.Fatal(err)
	}
	if n := dirty(t, filepath.Join(dir, storage.UploadPrefix+name)); n != 0 {
		t.Errorf("%d pages of an acknowledged chunk are not on the disk", n)
	}
}

// While one process appends, another neither appends to the same upload nor makes it an object.
func TestOneProcessWritesToAnUpload(t *testing.T) {
	l, dir := openLocal(t)
	other, err := storage.OpenLocal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	name, state, err := l.StartUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	body, feed := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, _, err := l.Append(t.Context(), name, 0, body, state)
		ended <- err
	}()
	if _, err := feed.Write([]byte("first")); err != nil { // from here on the file is open
		t.Fatal(err)
	}
	if _, _, err := other.Append(t.Context(), name, 0, strings.NewReader("other"), state); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("second Append = %v, want ErrConflict", err)
	}
	if err := other.Complete(t.Context(), name, storagetest.Key([]byte("first")), 5, state); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("Complete beside Append = %v, want ErrConflict", err)
	}
	if err := errors.Join(feed.Close(), <-ended); err != nil {
		t.Fatal(err)
	}
	if err := other.Complete(t.Context(), name, storagetest.Key([]byte("first")), 5, state); err != nil {
		t.Errorf("Complete after Append = %v", err)
	}
}
