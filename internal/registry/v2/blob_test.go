package v2_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/storage"
)

const uploadsPath = "/v2/devtable/shared/blobs/uploads/"

func blobPath(text string) string { return "/v2/devtable/shared/blobs/" + digestOf(text) }

// push stores a blob by one request.
func (r *registry) push(text string) {
	r.t.Helper()
	r.want(r.do(http.MethodPost, uploadsPath+"?digest="+digestOf(text), text), http.StatusCreated)
}

func (r *registry) wantHeaders(got reply, want map[string]string) {
	r.t.Helper()
	for name, value := range want {
		if have := got.header.Get(name); have != value {
			r.t.Errorf("%s: %q, want %q", name, have, value)
		}
	}
}

// begin starts an upload and gives its path.
func (r *registry) begin() string {
	r.t.Helper()
	got := r.do(http.MethodPost, uploadsPath, "")
	r.want(got, http.StatusAccepted)
	id := got.header.Get("Docker-Upload-UUID")
	r.wantHeaders(got, map[string]string{"Range": "bytes=0--1", "Location": r.config.PreferredURLScheme + "://quay.example" + uploadsPath + id})
	return uploadsPath + id
}

func TestBlobRanges(t *testing.T) {
	r := openRegistry(t, nil)
	content := strings.Repeat("0123456789", 10)
	r.push(content)
	for _, tt := range []struct {
		header, body, contentRange string
		status                     int
	}{
		{"", content, "", 200},
		{"Range: bytes=0-9", content[:10], "bytes 0-9/100", 206},
		{"Range: bytes=95-", content[95:], "bytes 95-99/100", 206},
		{"Range: bytes=95-2000", content[95:], "bytes 95-99/100", 206},
		{"Range: bytes=-5", content[95:], "bytes 95-99/100", 206},
		{"Range: bytes=-500", content, "bytes 0-99/100", 206},
		{"Range: bytes=0-99", content, "bytes 0-99/100", 206},
		{"Range: bytes=0-0", "0", "bytes 0-0/100", 206},
		{"Range: bytes=0-99999999999999999999999", content, "bytes 0-99/100", 206},
		{"Range: bytes=100-", "", "bytes */100", 416},
		{"Range: bytes=-0", "", "bytes */100", 416},
		{"Range: bytes=abc", content, "", 200},
		{"Range: bytes=9-1", content, "", 200},
		{"Range: bytes=+1-2", content, "", 200},
		{"Range: bytes=0-1,5-6", content, "", 200},
		{"Range: items=0-1", content, "", 200},
	} {
		var headers []string
		if tt.header != "" {
			headers = append(headers, tt.header)
		}
		got := r.do(http.MethodGet, blobPath(content), "", headers...)
		if got.status != tt.status || tt.status != 416 && got.body != tt.body || got.header.Get("Content-Range") != tt.contentRange {
			t.Errorf("%s: %d %q, Content-Range %q", tt.header, got.status, got.body, got.header.Get("Content-Range"))
		}
		if announced := got.header.Get("Accept-Ranges") == "bytes"; announced != (tt.status != 200) {
			t.Errorf("%s: Accept-Ranges %q", tt.header, got.header.Get("Accept-Ranges"))
		}
		if head := r.do(http.MethodHead, blobPath(content), "", headers...); head.status != 200 || head.header.Get("Content-Length") != "100" {
			t.Errorf("HEAD, %s: %d, %s bytes", tt.header, head.status, head.header.Get("Content-Length"))
		}
	}
	if got := r.do(http.MethodGet, blobPath(content), "", "Range: bytes=0-1", `If-Range: "x"`); got.status != 200 || got.body != content {
		t.Errorf("If-Range: %d %q, want the whole", got.status, got.body)
	}
}

func TestBlobOffload(t *testing.T) {
	r := openRegistry(t, nil)
	const content = "sent by the edge"
	r.push(content)
	got := r.do(http.MethodGet, blobPath(content), "", "X-Quay-Offload: 1", "Range: bytes=0-1")
	r.want(got, http.StatusOK)
	key, err := storage.BlobKey(digestOf(content))
	if err != nil {
		t.Fatal(err)
	}
	r.wantHeaders(got, map[string]string{
		"X-Quay-Offload-Path": "local_us/" + key, "Docker-Content-Digest": digestOf(content),
		"Content-Type": "application/octet-stream", "Cache-Control": "max-age=31536000",
	})
	if got.body != "" {
		t.Errorf("body %q, want none", got.body)
	}
	for _, plain := range []reply{
		r.do(http.MethodGet, blobPath(content), ""),
		r.do(http.MethodHead, blobPath(content), "", "X-Quay-Offload: 1"),
		r.do(http.MethodGet, blobPath("no such blob"), "", "X-Quay-Offload: 1"),
	} {
		r.wantHeaders(plain, map[string]string{"X-Quay-Offload-Path": ""})
	}
}

// What the legacy server made of this on local storage was an object of 60 bytes under the digest of 100.
func TestChunksWithoutRange(t *testing.T) {
	r := openRegistry(t, nil)
	content := strings.Repeat("0123456789", 10)
	path := r.begin()
	got := r.do(http.MethodPatch, path, content[:40])
	r.want(got, http.StatusAccepted)
	r.wantHeaders(got, map[string]string{"Range": "0-39"})
	got = r.do(http.MethodPatch, path, content[40:60])
	r.want(got, http.StatusAccepted)
	r.wantHeaders(got, map[string]string{"Range": "0-59"})
	got = r.do(http.MethodGet, path, "")
	r.want(got, http.StatusNoContent)
	r.wantHeaders(got, map[string]string{"Range": "bytes=0-60"})
	got = r.do(http.MethodPut, path+"?digest="+digestOf(content), content[60:])
	r.want(got, http.StatusCreated)
	if got := r.do(http.MethodGet, blobPath(content), ""); got.body != content {
		t.Errorf("%d bytes come back, want the 100 that were pushed", len(got.body))
	}
}

func TestUploadGap(t *testing.T) {
	r := openRegistry(t, nil)
	path := r.begin()
	r.want(r.do(http.MethodPatch, path, "0123456789", "Content-Range: 0-9"), http.StatusAccepted)
	for _, method := range []string{http.MethodPatch, http.MethodPut} {
		got := r.do(method, path+"?digest="+digestOf("x"), "x", "Content-Range: 11-11")
		r.want(got, http.StatusRequestedRangeNotSatisfiable)
		r.wantHeaders(got, map[string]string{"Range": "0-10", "Docker-Upload-UUID": strings.TrimPrefix(path, uploadsPath),
			"Location": r.config.PreferredURLScheme + "://quay.example" + path, "Content-Length": "0"})
	}
	r.want(r.do(http.MethodGet, path, ""), http.StatusNotFound) // PUT ends it
}

func TestUploadRefusals(t *testing.T) {
	r := openRegistry(t, func(c *config.Config) { c.MaximumLayerSize, _ = config.ParseSize("1M") })
	large := strings.Repeat("x", 1_000_001)
	got := r.do(http.MethodPost, uploadsPath+"?digest="+digestOf(large), large)
	r.want(got, http.StatusRequestEntityTooLarge)
	if !strings.Contains(got.body, "SIZE_INVALID") || !strings.Contains(got.body, `"max_allowed":1000000`) {
		t.Error(got.body)
	}
	path := r.begin()
	got = r.do(http.MethodPut, path, "x")
	r.want(got, http.StatusBadRequest)
	if !strings.Contains(got.body, "Missing digest arg on monolithic upload") {
		t.Error(got.body)
	}
	r.want(r.do(http.MethodGet, path, ""), http.StatusNoContent) // still there
	r.want(r.do(http.MethodPatch, path, "x", "Content-Range: bytes 0-0/1"), http.StatusBadRequest)
	r.want(r.do(http.MethodGet, path, ""), http.StatusNoContent)
	r.want(r.do(http.MethodPut, path+"?digest="+digestOf("x"), "x", "Content-Range: 5-4"), http.StatusBadRequest)
	r.want(r.do(http.MethodGet, path, ""), http.StatusNotFound)
	r.want(r.do(http.MethodDelete, "/v2/devtable/shared/blobs/anything", ""), http.StatusMethodNotAllowed)
	if n := r.conn("SELECT count(*) FROM blobupload WHERE repository_id = 10"); n != "0" {
		t.Errorf("%s uploads are left", n)
	}
}

// The row is there, the object is not: no answer that a client could take for the blob.
func TestLostObject(t *testing.T) {
	r := openRegistry(t, nil)
	// The recorded dataset has rows of blobs, but no objects.
	digest := r.conn("SELECT s.content_checksum FROM imagestorage s JOIN manifestblob m ON m.blob_id = s.id WHERE m.repository_id = 10 LIMIT 1")
	r.want(r.do(http.MethodHead, "/v2/devtable/shared/blobs/"+digest, ""), http.StatusOK)
	r.want(r.do(http.MethodGet, "/v2/devtable/shared/blobs/"+digest, ""), http.StatusInternalServerError)
}

func TestParallelPushes(t *testing.T) {
	r := openRegistry(t, nil)
	content := strings.Repeat("the same layer ", 20_000)
	var wg sync.WaitGroup
	replies := make([]reply, 8)
	for i := range replies {
		wg.Go(func() { replies[i] = r.do(http.MethodPost, uploadsPath+"?digest="+digestOf(content), content) })
	}
	wg.Wait()
	for _, got := range replies {
		r.want(got, http.StatusCreated)
	}
	for query, want := range map[string]int{
		"SELECT count(*) FROM imagestorage WHERE content_checksum = $1":                                                               1,
		"SELECT count(*) FROM uploadedblob u JOIN imagestorage s ON s.id = u.blob_id WHERE s.content_checksum = $1":                   8,
		"SELECT count(*) FROM imagestorageplacement p JOIN imagestorage s ON s.id = p.storage_id WHERE s.content_checksum = $1":       1,
		"SELECT count(*) FROM imagestorage s WHERE content_checksum = $1 AND image_size = " + strconv.Itoa(len(content)) + "::bigint": 1,
	} {
		if n := r.conn(query, digestOf(content)); n != strconv.Itoa(want) {
			t.Errorf("%s: %s, want %d", query, n, want)
		}
	}
	if got := r.do(http.MethodGet, blobPath(content), ""); got.body != content {
		t.Errorf("%d bytes come back, want %d", len(got.body), len(content))
	}
}

// A namespace that is over its quota takes no upload, and those that have begun end.
func TestUploadsOverQuota(t *testing.T) {
	r := openRegistry(t, func(c *config.Config) { c.Features.QuotaManagement, c.DefaultSystemRejectQuota = true, 15 })
	used := func(bytes int) {
		t.Helper()
		r.exec(`INSERT INTO quotanamespacesize (namespace_user_id, size_bytes, backfill_start_ms, backfill_complete)
			SELECT id, $1, 0, TRUE FROM "user" WHERE username = 'devtable' ON CONFLICT (namespace_user_id) DO UPDATE SET size_bytes = $1`, bytes)
	}
	used(10)
	patched, put := r.begin(), r.begin()
	r.want(r.do(http.MethodPatch, put, "12345"), http.StatusAccepted)
	// 10 bytes in use and 5 in flight.
	r.want(r.do(http.MethodPatch, patched, "6"), http.StatusForbidden)
	r.want(r.do(http.MethodPatch, patched, "6"), http.StatusNotFound)
	r.want(r.do(http.MethodPut, put+"?digest="+digestOf("12345"), ""), http.StatusForbidden)
	r.want(r.do(http.MethodGet, put, ""), http.StatusNotFound)
	// What is in flight does not keep others from beginning, what is stored does.
	r.want(r.do(http.MethodDelete, r.begin(), ""), http.StatusNoContent)
	used(15)
	got := r.do(http.MethodPost, uploadsPath, "")
	r.want(got, http.StatusForbidden)
	if !strings.Contains(got.body, `"code":"DENIED"`) {
		t.Errorf("refused with %s", got.body)
	}
	const told = `SELECT string_agg(n.metadata_json, '') FROM notification n JOIN notificationkind k ON k.id = n.kind_id WHERE k.name = 'quota_error'`
	if text := r.conn(told); text != `{"namespace": "devtable", "severity": "Reject"}` {
		t.Errorf("told the namespace %s", text)
	}
}
