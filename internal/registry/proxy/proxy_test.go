package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/storage"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// registry is an upstream of the tests.
type registry struct {
	*httptest.Server
	mu      sync.Mutex
	content map[string]string                                        // path below /v2/up/app/ to what lies there
	before  func(w http.ResponseWriter, r *http.Request) (done bool) // may answer instead
	asked   map[string]int                                           // "METHOD path"
}

func (u *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.asked[r.Method+" "+r.URL.Path]++
	content, ok := u.content[strings.TrimPrefix(r.URL.Path, "/v2/up/app/")]
	before := u.before
	u.mu.Unlock()
	switch {
	case before != nil && before(w, r):
	case r.URL.Path == "/v2/":
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", manifest.DockerManifest)
			w.Header().Set("Docker-Content-Digest", manifest.Digest([]byte(content)))
		}
		_, _ = io.WriteString(w, content)
	}
}

func (u *registry) count(request string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked[request]
}

func (u *registry) do(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
}

// image puts an image of one layer under a tag and gives its digest and the layer's.
func (u *registry) image(tag, layer string) (digest, blob string) {
	settings := `{"architecture":"amd64","os":"linux","layer":"` + manifest.Digest([]byte(layer)) + `"}`
	blob = manifest.Digest([]byte(layer))
	text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","size":%d,"digest":"%s"},"layers":[{"mediaType":"%s","size":%d,"digest":"%s"}]}`,
		manifest.DockerManifest, manifest.DockerConfig, len(settings), manifest.Digest([]byte(settings)), manifest.DockerLayer, len(layer), blob)
	digest = manifest.Digest([]byte(text))
	u.do(func() {
		u.content["manifests/"+tag], u.content["manifests/"+digest] = text, text
		u.content["blobs/"+blob], u.content["blobs/"+manifest.Digest([]byte(settings))] = layer, settings
	})
	return digest, blob
}

// world is proxyorg of the recorded dataset with an upstream of ours, on a clock that stands still.
type world struct {
	*Cache
	t        *testing.T
	pg       *pgtest.DB
	clock    *clock.Fake
	upstream *registry
	who      *auth.Performer
}

func newWorld(t *testing.T, change func(*config.Config)) *world {
	t.Helper()
	u := &registry{content: map[string]string{}, asked: map[string]int{}}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	w := &world{t: t, pg: pgtest.Populated(t), clock: clock.NewFake(time.Now().UTC().Truncate(time.Millisecond)), upstream: u,
		who: auth.UserPerformer(1, "devtable")}
	address := strings.Replace(strings.TrimPrefix(u.URL, "http://"), "127.0.0.1", "localhost", 1)
	w.pg.Exec(`UPDATE proxycacheconfig SET upstream_registry = '` + address + `', insecure = TRUE WHERE organization_id = 22`)
	cfg := config.Default()
	cfg.Features.ProxyCache, cfg.SSRFAllowedHosts = true, []string{"localhost"}
	if change != nil {
		change(cfg)
	}
	log := slog.New(slog.DiscardHandler)
	db, err := metadata.Open(t.Context(), metadata.Options{WriterDSN: w.pg.DSN, AppName: "quay-test", Clock: w.clock, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	set, err := storage.Open(storage.Config{Locations: []storage.Location{
		{Name: "local_us", Driver: "LocalStorage", Parameters: map[string]any{"storage_path": t.TempDir()}}}}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	l := locks.NewPostgres(db.Writer(), clock.Real{}, log)
	t.Cleanup(l.Close)
	w.Cache, err = New(Deps{DB: db, Storage: set, Locks: l, Clock: w.clock, Config: cfg, Log: log,
		Directory: &directory.Directory{DB: db, Clock: w.clock}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Cache.client.CloseIdleConnections)
	return w
}

func (w *world) tag(name string) {
	w.t.Helper()
	if _, err := w.Tag(w.t.Context(), "proxyorg", "up/app", name, w.who); err != nil {
		w.t.Fatalf("tag %s: %v", name, err)
	}
}

func (w *world) blob(ctx context.Context, digest string) error {
	return w.Blob(ctx, "proxyorg", "up/app", digest)
}

func (w *world) count(query string, args ...any) (n int) {
	w.t.Helper()
	if err := w.DB.Writer().QueryRow(w.t.Context(), "SELECT count(*) FROM "+query, args...).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) alive(tag, digest string) int {
	w.t.Helper()
	return w.count(`tag t JOIN manifest m ON m.id = t.manifest_id WHERE t.name = $1 AND m.digest LIKE $2 AND t.lifetime_end_ms > $3`,
		tag, digest, w.clock.Now().UnixMilli())
}

// refused wants an answer to the client.
func refused(t *testing.T, err error, status int, text string) {
	t.Helper()
	var shown *regerr.Error
	if !errors.As(err, &shown) || shown.Status != status || !strings.Contains(shown.Message, text) {
		t.Errorf("%v, want %d with %q", err, status, text)
	}
}

func TestOtherNamespaces(t *testing.T) {
	w := newWorld(t, nil)
	proxied, err := w.Tag(t.Context(), "devtable", "simple", "latest", w.who)
	if proxied || err != nil {
		t.Errorf("%v, %v", proxied, err)
	}
	if err := w.Blob(t.Context(), "devtable", "simple", "sha256:"+strings.Repeat("a", 64)); err != nil {
		t.Error(err)
	}
	if len(w.upstream.asked) > 0 {
		t.Errorf("asked %v", w.upstream.asked)
	}
}

func TestConcurrentPullsOfATag(t *testing.T) {
	w := newWorld(t, nil)
	digest, _ := w.upstream.image("latest", "layer")
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if _, err := w.Tag(metadata.Track(t.Context()), "proxyorg", "up/app", "latest", w.who); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := w.alive("latest", digest); n != 1 {
		t.Errorf("%d tags", n)
	}
	if n := w.count(`manifestblob b JOIN manifest m ON m.id = b.manifest_id WHERE m.digest = $1`, digest); n != 2 {
		t.Errorf("%d blobs are named", n)
	}
	if n := w.count(`queueitem WHERE queue_name LIKE 'proxycacheblob/proxyorg/%'`); n != 1 {
		t.Errorf("%d downloads are queued", n)
	}
}

func TestConcurrentPullsOfABlobDownloadItOnce(t *testing.T) {
	w := newWorld(t, nil)
	_, blob := w.upstream.image("latest", "layer")
	w.tag("latest")
	arrived, release := make(chan struct{}), make(chan struct{})
	w.upstream.do(func() {
		w.upstream.before = func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, blob) {
				close(arrived) // a second download would panic here
				<-release
			}
			return false
		}
	})
	// The one who began it goes away; the others get the blob nevertheless.
	impatient, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- w.blob(impatient, blob) }()
	<-arrived
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := w.blob(metadata.Track(t.Context()), blob); err != nil {
				t.Error(err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := w.upstream.count("GET /v2/up/app/blobs/" + blob); n != 1 {
		t.Errorf("%d downloads", n)
	}
	if n := w.count(`imagestorageplacement p JOIN imagestorage s ON s.id = p.storage_id WHERE s.content_checksum = $1`, blob); n != 1 {
		t.Errorf("%d placements", n)
	}
}

func TestChangedTagMoves(t *testing.T) {
	w := newWorld(t, nil)
	first, _ := w.upstream.image("latest", "one")
	w.tag("latest")
	w.clock.Advance(time.Minute)
	second, _ := w.upstream.image("latest", "two")
	w.tag("latest")
	if w.alive("latest", first) != 0 || w.alive("latest", second) != 1 {
		t.Errorf("alive: first %d, second %d", w.alive("latest", first), w.alive("latest", second))
	}
	// The first is still there to be had by its digest, but not under the name.
	w.clock.Advance(time.Minute)
	if _, err := w.Manifest(t.Context(), "proxyorg", "up/app", first, w.who); err != nil {
		t.Fatal(err)
	}
	if w.alive("latest", "%") != 1 || w.alive("latest", second) != 1 {
		t.Error("a pull by digest has revived a tag")
	}
	if n := w.count(`tag t JOIN manifest m ON m.id = t.manifest_id WHERE t.hidden AND m.digest = $1`, first); n != 1 {
		t.Errorf("%d hidden tags", n)
	}
	// And back: its row is the newest of those that named it.
	w.clock.Advance(time.Minute)
	w.upstream.image("latest", "one")
	w.tag("latest")
	if w.alive("latest", "%") != 1 || w.alive("latest", first) != 1 {
		t.Error("the tag did not move back")
	}
}

func TestStaleness(t *testing.T) {
	w := newWorld(t, nil)
	digest, blob := w.upstream.image("latest", "layer")
	w.tag("latest")
	status := 0
	w.upstream.do(func() {
		w.upstream.before = func(rw http.ResponseWriter, _ *http.Request) bool {
			if status != 0 {
				rw.WriteHeader(status)
			}
			return status != 0
		}
	})
	pull := func() error {
		_, err := w.Tag(t.Context(), "proxyorg", "up/app", "latest", w.who)
		return err
	}
	status = http.StatusBadGateway
	if err := pull(); err != nil {
		t.Errorf("fresh, upstream fails: %v", err)
	}
	refused(t, w.blob(t.Context(), blob), http.StatusBadRequest, "(502)")
	status = http.StatusForbidden
	refused(t, pull(), http.StatusNotFound, "(403)")
	w.clock.Advance(25 * time.Hour)
	status = http.StatusBadGateway
	refused(t, pull(), http.StatusNotFound, "(502)")
	status = 0
	w.tag("latest")
	if w.alive("latest", digest) != 1 {
		t.Error("the tag was not revived")
	}
	w.upstream.Close()
	if err := pull(); err != nil {
		t.Errorf("fresh, upstream is gone: %v", err)
	}
	_, err := w.Tag(t.Context(), "proxyorg", "up/app", "other", w.who)
	refused(t, err, http.StatusNotFound, "does not answer")
	_, err = w.Tag(t.Context(), "proxyorg", "up/other", "latest", w.who)
	refused(t, err, http.StatusNotFound, "repository not found")
}

func TestTokensAreRemembered(t *testing.T) {
	w := newWorld(t, nil)
	w.upstream.image("latest", "layer")
	valid, issued := "", 0
	w.upstream.do(func() {
		w.upstream.before = func(rw http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/token":
				issued++
				valid = fmt.Sprintf("t%d", issued)
				fmt.Fprintf(rw, `{"access_token": %q, "expires_in": 300}`, valid)
			case r.Header.Get("Authorization") != "Bearer "+valid:
				rw.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="a \"b\""`)
				rw.WriteHeader(http.StatusUnauthorized)
			default:
				return false
			}
			return true
		}
	})
	for _, step := range []struct {
		later time.Duration
		want  int
	}{{0, 1}, {289 * time.Second, 1}, {2 * time.Second, 2}} {
		w.clock.Advance(step.later)
		w.tag("latest")
		if issued != step.want {
			t.Errorf("%d tokens were fetched, want %d", issued, step.want)
		}
	}
	valid = "revoked" // a remembered token that is refused is replaced
	w.tag("latest")
	if issued != 3 {
		t.Errorf("%d tokens were fetched", issued)
	}
}

func TestQuota(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Features.QuotaManagement = true })
	digests := map[string]string{}
	for i, tag := range []string{"a", "b", "c", "d"} {
		digests[tag], _ = w.upstream.image(tag, strings.Repeat(tag, 1000))
		if i == 0 {
			w.pg.Exec(`INSERT INTO userorganizationquota (namespace_id, limit_bytes) VALUES (22, 3500)`)
		}
		w.tag(tag)
		w.clock.Advance(time.Minute)
	}
	// Each has 1,000 bytes and a config of about 100: three fit, and the one that ends first had to go.
	for tag, want := range map[string]int{"a": 0, "b": 1, "c": 1, "d": 1} {
		if got := w.alive(tag, digests[tag]); got != want {
			t.Errorf("tag %s: %d alive, want %d", tag, got, want)
		}
	}
	if n := w.count(`tag t JOIN repository r ON r.id = t.repository_id JOIN "user" u ON u.id = r.namespace_user_id
		WHERE t.name = 'a' AND t.lifetime_end_ms < $1 - 1000 * u.removed_tag_expiration_s::bigint`, w.clock.Now().UnixMilli()); n != 1 {
		t.Error("the time machine still keeps what made room")
	}
	w.upstream.image("huge", strings.Repeat("x", 4000))
	_, err := w.Tag(t.Context(), "proxyorg", "up/app", "huge", w.who)
	refused(t, err, http.StatusForbidden, "Quota")
	if w.alive("b", "%") != 1 {
		t.Error("a refused image has made room")
	}
}

func TestBadUpstreams(t *testing.T) {
	w := newWorld(t, nil)
	digest, blob := w.upstream.image("latest", "layer")
	w.tag("latest")
	_, redirected := w.upstream.image("redirected", "elsewhere")
	w.tag("redirected")
	big := "sha256:" + strings.Repeat("b", 64)
	w.upstream.do(func() {
		w.upstream.content["manifests/large"] = `{"a":"` + strings.Repeat("a", maxManifest) + `"}`
		w.upstream.content["manifests/"+big] = w.upstream.content["manifests/"+digest]
		w.upstream.before = func(rw http.ResponseWriter, r *http.Request) bool {
			switch {
			case strings.HasSuffix(r.URL.Path, blob):
				rw.Header().Set("Content-Length", "5")
				_, _ = io.WriteString(rw, "la")
				rw.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			case strings.HasSuffix(r.URL.Path, redirected): // to the same server by an address that is not allowed
				http.Redirect(rw, r, w.upstream.URL+"/v2/up/app/blobs/x", http.StatusTemporaryRedirect)
			default:
				return false
			}
			return true
		}
	})
	_, err := w.Tag(t.Context(), "proxyorg", "up/app", "large", w.who)
	refused(t, err, http.StatusNotFound, "larger than")
	_, err = w.Manifest(t.Context(), "proxyorg", "up/app", big, w.who)
	refused(t, err, http.StatusNotFound, "manifest digest mismatch")
	refused(t, w.blob(t.Context(), blob), http.StatusBadRequest, "broke off")
	refused(t, w.blob(t.Context(), redirected), http.StatusBadRequest, "address of the upstream registry is not allowed")
	if n := w.upstream.count("GET /v2/up/app/blobs/x"); n != 0 {
		t.Error("the redirect was followed")
	}
	if n := w.count(`imagestorageplacement p JOIN imagestorage s ON s.id = p.storage_id WHERE s.content_checksum = ANY($1)`,
		[]string{blob, redirected}); n != 0 {
		t.Errorf("%d bad blobs are stored", n)
	}
}

func TestParseChallenge(t *testing.T) {
	for header, want := range map[string][]string{
		`Bearer realm="https://auth.example/token",service="up"`:         {"bearer", "https://auth.example/token", "up"},
		`bearer  Realm="https://a/?x=1,2" , service=up, error="invalid"`: {"bearer", "https://a/?x=1,2", "up"},
		`Bearer realm="a \"quoted\" one",service=""`:                     {"bearer", `a "quoted" one`, ""},
		`Basic realm="up"`:          {"basic", "up", ""},
		`Basic`:                     {"basic", "", ""},
		``:                          {"", "", ""},
		`Bearer realm="unfinished`:  {"bearer", "unfinished", ""},
		`Bearer realm="unfinished\`: {"bearer", `unfinished\`, ""},
		`Bearer =,=,"`:              {"bearer", "", ""},
	} {
		scheme, parameters := parseChallenge(header)
		if got := []string{scheme, parameters["realm"], parameters["service"]}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

func FuzzParseChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="up\"",scope=x`)
	f.Fuzz(func(_ *testing.T, header string) { parseChallenge(header) })
}

func TestLocate(t *testing.T) {
	for _, tt := range []struct {
		registry string
		insecure bool
		want     string
	}{
		{"quay.io", false, "https://quay.io up/app"},
		{"docker.io", false, "https://registry-1.docker.io up/app"},
		{"docker.io/library", false, "https://registry-1.docker.io library/up/app"},
		{"quay.io/a/b/", false, "https://quay.io a/b/up/app"},
		{"localhost:5000", true, "http://localhost:5000 up/app"},
	} {
		base, name := locate(tt.registry, "up/app", tt.insecure)
		if got := base + " " + name; got != tt.want {
			t.Errorf("%s: %s, want %s", tt.registry, got, tt.want)
		}
	}
}
