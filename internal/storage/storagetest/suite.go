// Package storagetest is what every storage driver must pass.
package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/quayctl/quayctl/internal/storage"
)

// Run runs the suite. open makes a driver on an empty place of its own, which it clears up after the test.
func Run(t *testing.T, open func(t *testing.T) storage.Driver) {
	tests := []struct {
		name string
		run  func(*testing.T, storage.Driver)
	}{
		{"put and read", testPutAndRead},
		{"put replaces", testPutReplaces},
		{"put fails as a whole", testPutFailsWhole},
		{"ranges", testRanges},
		{"missing", testMissing},
		{"keys stay inside", testKeysStayInside},
		{"upload assembly", testUploadAssembly},
		{"empty upload", testEmptyUpload},
		{"large upload", testLargeUpload},
		{"interrupted append resumes", testInterruptedAppend},
		{"leftover bytes are dropped", testLeftoverBytes},
		{"append behind the end", testAppendBehindEnd},
		{"complete checks the size", testCompleteChecksSize},
		{"complete keeps an existing object", testCompleteKeepsExisting},
		{"complete replaces a damaged object", testCompleteReplacesDamaged},
		{"concurrent completes", testConcurrentCompletes},
		{"cancel", testCancel},
		{"clean uploads", testCleanUploads},
		{"copy", func(t *testing.T, d storage.Driver) { testCopy(t, d, open(t)) }},
		{"validate", testValidate},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

// Content is n bytes that no compression and no period can hide mistakes in, the same for the same n.
func Content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1, byte(n), byte(n >> 8)}).Read(b)
	return b
}

// Key is the key of a blob with that content.
func Key(content []byte) string {
	sum := sha256.Sum256(content)
	return storage.Digest{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}.Key()
}

func read(t *testing.T, d storage.Driver, key string, offset, length int64) []byte {
	t.Helper()
	r, err := d.Open(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("Open(%s, %d, %d): %v", key, offset, length, err)
	}
	defer r.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	return b
}

func wantObject(t *testing.T, d storage.Driver, key string, content []byte) {
	t.Helper()
	info, err := d.Stat(t.Context(), key)
	if err != nil {
		t.Fatalf("Stat(%s): %v", key, err)
	}
	if info.Size != int64(len(content)) {
		t.Errorf("Stat(%s).Size = %d, want %d", key, info.Size, len(content))
	}
	if got := read(t, d, key, 0, -1); !bytes.Equal(got, content) {
		t.Errorf("%s holds %d bytes that differ from the %d expected", key, len(got), len(content))
	}
}

func wantMissing(t *testing.T, d storage.Driver, key string) {
	t.Helper()
	if _, err := d.Stat(t.Context(), key); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("Stat(%s) = %v, want ErrNotExist", key, err)
	}
}

func put(t *testing.T, d storage.Driver, key string, content []byte) {
	t.Helper()
	if err := d.Put(t.Context(), key, bytes.NewReader(content), storage.PutOptions{}); err != nil {
		t.Fatalf("Put(%s): %v", key, err)
	}
}

// upload is an upload as a caller sees it: the driver's state goes through JSON text between calls.
type upload struct {
	d      storage.Driver
	name   string
	offset int64
	state  storage.State
}

func start(t *testing.T, d storage.Driver) *upload {
	t.Helper()
	name, state, err := d.StartUpload(t.Context())
	if err != nil {
		t.Fatalf("StartUpload: %v", err)
	}
	u := &upload{d: d, name: name}
	u.remember(t, state)
	return u
}

func (u *upload) remember(t *testing.T, state storage.State) {
	t.Helper()
	if !json.Valid(state) {
		t.Fatalf("state is not JSON: %q", state)
	}
	u.state = storage.State(string(state))
}

func (u *upload) append(t *testing.T, content []byte) {
	t.Helper()
	n, state, err := u.d.Append(t.Context(), u.name, u.offset, bytes.NewReader(content), u.state)
	if err != nil {
		t.Fatalf("Append(%d bytes at %d): %v", len(content), u.offset, err)
	}
	if n != int64(len(content)) {
		t.Fatalf("Append took %d of %d bytes", n, len(content))
	}
	u.offset += n
	u.remember(t, state)
}

func (u *upload) complete(t *testing.T, key string) {
	t.Helper()
	if err := u.d.Complete(t.Context(), u.name, key, u.offset, u.state); err != nil {
		t.Fatalf("Complete(%s): %v", key, err)
	}
}

func testPutAndRead(t *testing.T, d storage.Driver) {
	for _, n := range []int{0, 1, 4096, 1<<20 + 1} {
		c := Content(n)
		put(t, d, Key(c), c)
		wantObject(t, d, Key(c), c)
	}
	if err := d.Remove(t.Context(), Key(Content(1))); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, d, Key(Content(1)))
}

func testPutReplaces(t *testing.T, d storage.Driver) {
	put(t, d, "some/key", []byte("first, and longer"))
	put(t, d, "some/key", []byte("second"))
	wantObject(t, d, "some/key", []byte("second"))
	put(t, d, "some/key", []byte("third!"))
	wantObject(t, d, "some/key", []byte("third!"))
}

func testPutFailsWhole(t *testing.T, d storage.Driver) {
	broken := errors.New("broken source")
	err := d.Put(t.Context(), "some/key", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), storage.PutOptions{})
	if !errors.Is(err, broken) {
		t.Errorf("Put = %v, want the source's error", err)
	}
	wantMissing(t, d, "some/key")
}

func testRanges(t *testing.T, d storage.Driver) {
	c := Content(1000)
	put(t, d, Key(c), c)
	for _, tt := range []struct{ offset, length, from, to int64 }{
		{0, -1, 0, 1000},
		{0, 0, 0, 0},
		{0, 1, 0, 1},
		{10, 20, 10, 30},
		{999, 1, 999, 1000},
		{999, 100, 999, 1000},
		{500, -1, 500, 1000},
		{1000, -1, 0, 0},
		{1000, 1, 0, 0},
		{5000, 10, 0, 0},
	} {
		if got := read(t, d, Key(c), tt.offset, tt.length); !bytes.Equal(got, c[tt.from:tt.to]) {
			t.Errorf("Open(%d, %d) gave %d bytes, want those from %d to %d", tt.offset, tt.length, len(got), tt.from, tt.to)
		}
	}
	// The way a server copies must give the same.
	r, err := d.Open(t.Context(), Key(c), 100, 50)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	var b bytes.Buffer
	if _, err := io.Copy(&b, r); err != nil || !bytes.Equal(b.Bytes(), c[100:150]) {
		t.Errorf("io.Copy gave %d bytes, %v", b.Len(), err)
	}
}

func testMissing(t *testing.T, d storage.Driver) {
	key := Key([]byte("never written"))
	wantMissing(t, d, key)
	if _, err := d.Open(t.Context(), key, 0, -1); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("Open = %v, want ErrNotExist", err)
	}
	if err := d.Remove(t.Context(), key); err != nil {
		t.Errorf("Remove = %v, want nil", err)
	}
	put(t, d, "dir/file", []byte("x"))
	wantMissing(t, d, "dir")
}

func testKeysStayInside(t *testing.T, d storage.Driver) {
	for _, key := range []string{"../outside", "a/../../outside"} {
		if err := d.Put(t.Context(), key, strings.NewReader("x"), storage.PutOptions{}); err == nil {
			t.Errorf("Put(%s) succeeded", key)
		}
		if r, err := d.Open(t.Context(), key, 0, -1); err == nil {
			t.Errorf("Open(%s) succeeded", key)
			_ = r.Close()
		}
	}
}

func testUploadAssembly(t *testing.T, d storage.Driver) {
	c := Content(300_000)
	u := start(t, d)
	for _, cut := range [][2]int{{0, 1}, {1, 100_000}, {100_000, 100_000}, {100_000, 299_999}, {299_999, 300_000}} {
		u.append(t, c[cut[0]:cut[1]])
		wantMissing(t, d, Key(c))
	}
	u.complete(t, Key(c))
	wantObject(t, d, Key(c), c)
	if v := start(t, d); v.name == u.name {
		t.Errorf("two uploads are named %s", u.name)
	}
}

func testEmptyUpload(t *testing.T, d storage.Driver) {
	u := start(t, d)
	u.append(t, nil)
	u.complete(t, Key(nil))
	wantObject(t, d, Key(nil), nil)
}

func testLargeUpload(t *testing.T, d storage.Driver) {
	c := Content(20<<20 + 7)
	u := start(t, d)
	u.append(t, c[:12<<20])
	u.append(t, c[12<<20:])
	u.complete(t, Key(c))
	wantObject(t, d, Key(c), c)
}

func testInterruptedAppend(t *testing.T, d storage.Driver) {
	c := Content(200_000)
	u := start(t, d)
	u.append(t, c[:50_000])
	gone := errors.New("client is gone")
	n, state, err := d.Append(t.Context(), u.name, u.offset, io.MultiReader(bytes.NewReader(c[50_000:120_000]), iotest.ErrReader(gone)), u.state)
	if !errors.Is(err, gone) {
		t.Fatalf("Append = %v, want the reader's error", err)
	}
	if n < 0 || n > 70_000 {
		t.Fatalf("Append took %d of 70000 bytes", n)
	}
	u.offset += n
	u.remember(t, state)
	u.append(t, c[u.offset:])
	u.complete(t, Key(c))
	wantObject(t, d, Key(c), c)
}

// A process that dies after bytes have reached the place, but before they are in its record.
func testLeftoverBytes(t *testing.T, d storage.Driver) {
	c := Content(1000)
	u := start(t, d)
	u.append(t, c[:400])
	if _, _, err := d.Append(t.Context(), u.name, u.offset, bytes.NewReader(Content(900)), u.state); err != nil {
		t.Fatal(err)
	}
	u.append(t, c[400:])
	u.complete(t, Key(c))
	wantObject(t, d, Key(c), c)
}

func testAppendBehindEnd(t *testing.T, d storage.Driver) {
	u := start(t, d)
	u.append(t, Content(10))
	_, _, err := d.Append(t.Context(), u.name, 11, strings.NewReader("x"), u.state)
	if !errors.Is(err, storage.ErrConflict) {
		t.Errorf("Append behind the end = %v, want ErrConflict", err)
	}
}

func testCompleteChecksSize(t *testing.T, d storage.Driver) {
	c := Content(10)
	u := start(t, d)
	u.append(t, c)
	for _, size := range []int64{9, 11, 0} {
		if err := d.Complete(t.Context(), u.name, Key(c), size, u.state); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("Complete with size %d = %v, want ErrConflict", size, err)
		}
		wantMissing(t, d, Key(c))
	}
	u.complete(t, Key(c))
	wantObject(t, d, Key(c), c)
}

func testCompleteKeepsExisting(t *testing.T, d storage.Driver) {
	c := Content(5000)
	put(t, d, Key(c), c)
	before, err := d.Stat(t.Context(), Key(c))
	if err != nil {
		t.Fatal(err)
	}
	u := start(t, d)
	u.append(t, c)
	u.complete(t, Key(c))
	wantObject(t, d, Key(c), c)
	if after, err := d.Stat(t.Context(), Key(c)); err != nil || !after.Modified.Equal(before.Modified) {
		t.Errorf("the object was replaced: modified %v, then %v (%v)", before.Modified, after.Modified, err)
	}
	if err := d.Complete(t.Context(), u.name, Key(c), u.offset, u.state); err == nil {
		t.Error("the upload is still there after Complete")
	}
}

func testCompleteReplacesDamaged(t *testing.T, d storage.Driver) {
	c := Content(5000)
	put(t, d, Key(c), c[:100])
	u := start(t, d)
	u.append(t, c)
	u.complete(t, Key(c))
	wantObject(t, d, Key(c), c)
}

func testConcurrentCompletes(t *testing.T, d storage.Driver) {
	c := Content(70_000)
	const n = 8
	uploads := make([]*upload, n)
	for i := range uploads {
		uploads[i] = start(t, d)
		uploads[i].append(t, c)
	}
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i, u := range uploads {
		wg.Go(func() { errs[i] = d.Complete(context.WithoutCancel(t.Context()), u.name, Key(c), u.offset, u.state) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	wantObject(t, d, Key(c), c)
}

func testCancel(t *testing.T, d storage.Driver) {
	c := Content(100)
	u := start(t, d)
	u.append(t, c)
	for range 2 {
		if err := d.Cancel(t.Context(), u.name, u.state); err != nil {
			t.Fatalf("Cancel: %v", err)
		}
	}
	if err := d.Complete(t.Context(), u.name, Key(c), u.offset, u.state); err == nil {
		t.Error("a cancelled upload can be completed")
	}
	wantMissing(t, d, Key(c))
	if err := d.Cancel(t.Context(), start(t, d).name, storage.State("{}")); err != nil {
		t.Errorf("Cancel of an empty upload: %v", err)
	}
}

func testCleanUploads(t *testing.T, d storage.Driver) {
	blob := Content(10)
	put(t, d, Key(blob), blob)
	const n = 3
	for i := range n {
		start(t, d).append(t, fmt.Appendf(nil, "upload %d", i))
	}
	if removed, err := d.CleanUploads(t.Context(), time.Now().Add(-time.Hour)); err != nil || removed != 0 {
		t.Errorf("CleanUploads of an hour ago removed %d, %v; want none", removed, err)
	}
	if removed, err := d.CleanUploads(t.Context(), time.Now().Add(time.Hour)); err != nil || removed != n {
		t.Errorf("CleanUploads removed %d, %v; want %d", removed, err, n)
	}
	wantObject(t, d, Key(blob), blob)
}

func testCopy(t *testing.T, d, to storage.Driver) {
	c := Content(12345)
	put(t, d, Key(c), c)
	if err := d.Copy(t.Context(), Key(c), to); err != nil {
		t.Fatal(err)
	}
	wantObject(t, to, Key(c), c)
	wantObject(t, d, Key(c), c)
	if err := d.Copy(t.Context(), "no/such", to); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("Copy of a missing object = %v, want ErrNotExist", err)
	}
}

func testValidate(t *testing.T, d storage.Driver) {
	for range 2 {
		if err := d.Validate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantObject(t, d, storage.ProbeKey, []byte("testing 123"))
}
