package v2_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/instancekey"
	"github.com/quayctl/quayctl/internal/auth/registryjwt"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/registry/telemetry"
	"github.com/quayctl/quayctl/internal/registry/v2"
	"github.com/quayctl/quayctl/internal/storage"
)

// registry is the whole of /v2/ on the recorded dataset, spoken to over HTTP by devtable.
type registry struct {
	t      *testing.T
	url    string
	token  string
	config *config.Config
	conn   func(sql string, args ...any) string // the first column of the first row
	exec   func(sql string, args ...any)
	mint   func(repository, name string) string // a token that calls a repository so
}

func openRegistry(t *testing.T, change func(*config.Config)) *registry {
	t.Helper()
	ctx := context.Background()
	database := pgtest.Populated(t)
	clk, log := clock.Real{}, slog.New(slog.DiscardHandler)
	cfg := config.Default()
	cfg.ServerHostname = "quay.example"
	if change != nil {
		change(cfg)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := metadata.Open(ctx, metadata.Options{WriterDSN: database.DSN, AppName: "v2-test", Clock: clk, Logger: log})
	check(err)
	t.Cleanup(db.Close)
	set, err := storage.Open(storage.Config{Locations: []storage.Location{
		{Name: "local_us", Driver: "LocalStorage", Parameters: map[string]any{"storage_path": t.TempDir()}}}}, log)
	check(err)
	t.Cleanup(func() { _ = set.Close() })
	metrics, err := telemetry.New(prometheus.NewRegistry(), nil)
	check(err)
	dir := t.TempDir()
	keys := &instancekey.Store{DB: db, Clock: clk, Config: cfg, Log: log, PEMPath: dir + "/quay.pem", KIDPath: dir + "/quay.kid"}
	key, err := keys.Ensure(ctx)
	check(err)
	service := cfg.InstanceKeyService
	d := v2.Deps{DB: db, Storage: set, Clock: clk, Config: cfg, Log: log, Metrics: metrics,
		ActionLog: actionlog.New(db, clk, cfg, log), Directory: &directory.Directory{DB: db, Clock: clk},
		Tokens: &registryjwt.Verifier{Keys: &instancekey.Ring{DB: db, Clock: clk, Service: service, Log: log}, Clock: clk,
			Audience: cfg.ServerHostname, Issuer: service, MaxFresh: 2 * time.Hour}}
	families, err := v2.ManifestRoutes(d)
	check(err)
	h, err := v2.New(d, v2.PingRoutes(), families, v2.BlobRoutes(d, locks.NewPostgres(db.Writer(), clk, log)))
	check(err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	r := &registry{t: t, url: server.URL, config: cfg}
	super := database.Super()
	var mu sync.Mutex
	r.conn = func(sql string, args ...any) (text string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		check(super.QueryRow(ctx, "SELECT ("+sql+")::text", args...).Scan(&text))
		return text
	}
	r.exec = func(sql string, args ...any) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		_, err := super.Exec(ctx, sql, args...)
		check(err)
	}
	audience := cfg.ServerHostname
	r.mint = func(repository, name string) string {
		t.Helper()
		token, err := registryjwt.Mint(key, service, &audience, time.Now(), auth.Identity{Kind: auth.User, Username: "devtable",
			Reference: r.conn(`SELECT uuid FROM "user" WHERE username = 'devtable'`)},
			[]registryjwt.Grant{{Repository: repository,
				Access: registryjwt.Access{Type: "repository", Name: name, Actions: []string{"push", "pull"}}}})
		check(err)
		return token
	}
	r.token = r.mint("devtable/shared", "devtable/shared")
	return r
}

type reply struct {
	status int
	header http.Header
	body   string
}

// do sends a request; headers are "Name: value".
func (r *registry) do(method, path, body string, headers ...string) reply {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if value == "" {
			req.Header.Del(name)
		} else {
			req.Header.Add(name, value)
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(text)}
}

func (r *registry) want(got reply, status int) reply {
	r.t.Helper()
	if got.status != status {
		r.t.Fatalf("status %d, want %d: %s", got.status, status, got.body)
	}
	return got
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// blob uploads content to devtable/shared and returns its descriptor.
func (r *registry) blob(mediaType, content string) string {
	r.t.Helper()
	r.want(r.do("POST", "/v2/devtable/shared/blobs/uploads/?digest="+digestOf(content), content), http.StatusCreated)
	return descriptor(mediaType, content)
}

func descriptor(mediaType, content string, more ...string) string {
	return fmt.Sprintf(`{"mediaType":%q,"size":%d,"digest":%q%s}`, mediaType, len(content), digestOf(content), strings.Join(more, ""))
}

// artifact is an OCI manifest with a config of its own; more are further members, each with a comma in front.
func (r *registry) artifact(name string, more ...string) string {
	r.t.Helper()
	return fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[]%s}`, r.blob("application/x.config+json", `{"n":"`+name+`"}`), strings.Join(more, ""))
}

func (r *registry) put(reference, mediaType, text string) reply {
	r.t.Helper()
	return r.want(r.do("PUT", "/v2/devtable/shared/manifests/"+reference, text, "Content-Type: "+mediaType), http.StatusCreated)
}

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestPushAndPull(t *testing.T) {
	r := openRegistry(t, nil)
	one := r.artifact("one")
	got := r.put("v1", manifest.OCIManifest, one)
	if got.body != "OK" || got.header.Get("Docker-Content-Digest") != digestOf(one) ||
		got.header.Get("Location") != "/v2/devtable/shared/manifests/"+digestOf(one) || got.header.Get("OCI-Subject") != "" {
		t.Errorf("put: %+v", got)
	}
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"v1", digestOf(one)} {
			got := r.want(r.do(method, "/v2/devtable/shared/manifests/"+path, "", "Accept: "+manifest.OCIManifest), http.StatusOK)
			if got.header.Get("Content-Type") != manifest.OCIManifest || got.header.Get("Docker-Content-Digest") != digestOf(one) ||
				got.header.Get("Content-Length") != fmt.Sprint(len(one)) || method == "GET" && got.body != one {
				t.Errorf("%s %s: %+v", method, path, got)
			}
		}
	}
	if n := r.conn(`SELECT count(*) FROM logentry3 l JOIN logentrykind k ON k.id = l.kind_id WHERE k.name = 'pull_repo'
		AND l.metadata_json::jsonb->>'mediaType' = $1`, manifest.OCIManifest); n != "4" {
		t.Errorf("%s pulls in the action log, want 4: HEAD counts too", n)
	}
}

func TestNegotiation(t *testing.T) {
	r := openRegistry(t, nil)
	image, other := r.artifact("image"), r.artifact("other")
	r.put(digestOf(image), manifest.OCIManifest, image)
	r.put(digestOf(other), manifest.OCIManifest, other)
	index := func(os string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s,%s]}`, descriptor(manifest.OCIManifest, other, `,"platform":{"os":"linux","architecture":"arm64"}`),
			descriptor(manifest.OCIManifest, image, `,"platform":{"os":"`+os+`","architecture":"amd64"}`))
	}
	r.put("linux", manifest.OCIIndex, index("linux"))
	r.put("windows", manifest.OCIIndex, index("windows"))
	for _, c := range []struct {
		tag, accept string
		status      int
		body        string
	}{
		{"linux", manifest.OCIIndex, 200, index("linux")},
		{"linux", manifest.OCIManifest + "," + manifest.OCIIndex, 200, index("linux")},
		{"linux", manifest.OCIIndex + ";q=0.1 , text/plain", 200, index("linux")},
		{"linux", manifest.OCIManifest, 200, image},
		{"linux", manifest.DockerManifest, 404, ""},
		{"windows", manifest.OCIManifest, 404, ""},
		{"windows", "*/*", 404, ""},
	} {
		got := r.do("GET", "/v2/devtable/shared/manifests/"+c.tag, "", "Accept: "+c.accept)
		if got.status != c.status || c.body != "" && (got.body != c.body || got.header.Get("Docker-Content-Digest") != digestOf(c.body)) {
			t.Errorf("%s as %s: %+v", c.tag, c.accept, got)
		}
	}
}

func TestGateComesBeforeAuthentication(t *testing.T) {
	r := openRegistry(t, nil)
	for _, c := range []struct {
		contentType, authorization string
		status                     int
	}{
		{"text/plain", "Authorization: ", http.StatusUnsupportedMediaType},
		{"text/plain", "Authorization: nonsense", http.StatusUnsupportedMediaType},
		{manifest.OCIManifest, "Authorization: ", http.StatusUnauthorized},
		{manifest.OCIManifest + "; charset=utf-8", "Authorization: ", http.StatusUnsupportedMediaType},
	} {
		headers := []string{"Authorization: ", "Content-Type: " + c.contentType}
		if !strings.HasSuffix(c.authorization, ": ") {
			headers = append(headers, c.authorization)
		}
		if got := r.do("PUT", "/v2/devtable/shared/manifests/t", "{}", headers...); got.status != c.status {
			t.Errorf("%+v: %d %s", c, got.status, got.body)
		}
	}
}

func TestTooLargeManifest(t *testing.T) {
	r := openRegistry(t, nil)
	got := r.do("PUT", "/v2/devtable/shared/manifests/t", strings.Repeat(" ", 4<<20+1), "Content-Type: "+manifest.OCIManifest)
	if got.status != http.StatusRequestEntityTooLarge || !strings.Contains(got.body, "4194304 bytes") {
		t.Errorf("%+v", got)
	}
}

func TestReferrersByColumnAndByTag(t *testing.T) {
	r := openRegistry(t, nil)
	subject := r.artifact("subject")
	r.put("s", manifest.OCIManifest, subject)
	about := `,"subject":` + descriptor(manifest.OCIManifest, subject)
	signature := r.artifact("signature", about, `,"artifactType":"application/x.sig","annotations":{"b":"é","a":"1"}`)
	got := r.put(digestOf(signature), manifest.OCIManifest, signature)
	if got.header.Get("OCI-Subject") != digestOf(subject) {
		t.Errorf("OCI-Subject: %q", got.header.Get("OCI-Subject"))
	}
	// A client that does not know the interface lists its referrers, one of them known already, under a tag.
	old := r.artifact("old")
	r.put(strings.Replace(digestOf(subject), ":", "-", 1), manifest.OCIIndex, fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s,%s]}`,
		descriptor(manifest.OCIManifest, signature, `,"artifactType":"ignored"`),
		func() string {
			r.put("old", manifest.OCIManifest, old)
			return descriptor(manifest.OCIManifest, old, `,"artifactType":"application/x.old","annotations":{"a":"2"}`)
		}()))
	path := "/v2/devtable/shared/referrers/" + digestOf(subject)
	all := r.want(r.do("GET", path, ""), http.StatusOK)
	want := fmt.Sprintf(`{
   "schemaVersion": 2,
   "mediaType": "application/vnd.oci.image.index.v1+json",
   "manifests": [
      {
         "mediaType": "application/vnd.oci.image.manifest.v1+json",
         "digest": "%s",
         "size": %d,
         "artifactType": "application/x.sig",
         "annotations": {
            "b": "\u00e9",
            "a": "1"
         }
      },
      {
         "mediaType": "application/vnd.oci.image.manifest.v1+json",
         "digest": "%s",
         "size": %d,
         "artifactType": "application/x.old",
         "annotations": {
            "a": "2"
         }
      }
   ],
   "annotations": {
      "b": "\u00e9",
      "a": "2"
   }
}`, digestOf(signature), len(signature), digestOf(old), len(old))
	if all.body != want || all.header.Get("Content-Type") != manifest.OCIIndex || all.header.Get("OCI-Filters-Applied") != "" {
		t.Errorf("got %s %v, want %s", all.body, all.header, want)
	}
	for filter, count := range map[string]int{"application/x.old": 1, "application/x.sig": 1, "application/x.config%2Bjson": 0, "": 0} {
		got := r.want(r.do("GET", path+"?artifactType="+filter, ""), http.StatusOK)
		if strings.Count(got.body, `"digest"`) != count || got.header.Get("OCI-Filters-Applied") != "artifactType" {
			t.Errorf("%q: %s", filter, got.body)
		}
	}
	r.want(r.do("GET", "/v2/devtable/shared/referrers/"+digestOf("nothing"), ""), http.StatusBadRequest)
}

func TestPages(t *testing.T) {
	r := openRegistry(t, nil)
	one := r.artifact("one")
	for _, tag := range []string{"b", "a", "C", "a.1"} {
		r.put(tag, manifest.OCIManifest, one)
	}
	link := regexp.MustCompile(`^<(/v2/[^>]+)>; rel="next"$`)
	walk := func(path, member string) (names []string) {
		t.Helper()
		for range 50 {
			got := r.want(r.do("GET", path, ""), http.StatusOK)
			var page map[string]any
			if err := json.Unmarshal([]byte(got.body), &page); err != nil {
				t.Fatal(err)
			}
			for _, name := range page[member].([]any) {
				names = append(names, name.(string))
			}
			next := link.FindStringSubmatch(got.header.Get("Link"))
			if next == nil {
				return names
			}
			path = next[1]
		}
		t.Fatal("the listing does not end")
		return nil
	}
	tags := walk("/v2/devtable/shared/tags/list", "tags")
	if want := []string{"C", "a", "a.1", "b", "latest"}; !slices.Equal(tags, want) {
		t.Errorf("tags %q, want %q", tags, want)
	}
	if paged := walk("/v2/devtable/shared/tags/list?n=2", "tags"); !slices.Equal(paged, tags) {
		t.Errorf("by twos: %q", paged)
	}
	repositories := walk("/v2/_catalog", "repositories")
	if len(repositories) < 10 || !slices.Contains(repositories, "devtable/shared") {
		t.Errorf("repositories %q", repositories)
	}
	if paged := walk("/v2/_catalog?n=3", "repositories"); !slices.Equal(paged, repositories) {
		t.Errorf("by threes: %q, want %q", paged, repositories)
	}
	// The distribution specification continues behind the last name.
	if rest := walk("/v2/_catalog?last="+repositories[3], "repositories"); !slices.Equal(rest, repositories[4:]) {
		t.Errorf("behind %s: %q", repositories[3], rest)
	}
	if all := walk("/v2/_catalog?last=no/such", "repositories"); !slices.Equal(all, repositories) {
		t.Errorf("behind an unknown name: %q", all)
	}
	if got := r.want(r.do("GET", "/v2/_catalog", "", "Authorization: "), http.StatusOK); got.body != `{"repositories":[]}`+"\n" {
		t.Errorf("anonymous: %s", got.body)
	}
}

func TestDelete(t *testing.T) {
	r := openRegistry(t, nil)
	one := r.artifact("one")
	path := "/v2/devtable/shared/manifests/"
	r.put("a", manifest.OCIManifest, one)
	r.put("b", manifest.OCIManifest, one)
	r.want(r.do("DELETE", path+"a", ""), http.StatusAccepted)
	if got := r.want(r.do("GET", path+"a", ""), http.StatusNotFound); !strings.Contains(got.body, "TAG_EXPIRED") {
		t.Errorf("deleted tag: %s", got.body)
	}
	r.want(r.do("GET", path+digestOf(one), ""), http.StatusOK)
	r.want(r.do("DELETE", path+digestOf(one), ""), http.StatusAccepted)
	r.want(r.do("DELETE", path+digestOf(one), ""), http.StatusNotFound)
	if got := r.want(r.do("GET", path+digestOf(one), ""), http.StatusNotFound); !strings.Contains(got.body, "MANIFEST_UNKNOWN") {
		t.Errorf("deleted manifest: %s", got.body)
	}
}

// Many clients push one tag and pull it at once: every answer is a success, and every pull one of the two manifests.
func TestPushesAndPullsInParallel(t *testing.T) {
	r := openRegistry(t, nil)
	bodies := []string{r.artifact("one"), r.artifact("two")}
	r.put("t", manifest.OCIManifest, bodies[0])
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := range 8 {
				put := r.do("PUT", "/v2/devtable/shared/manifests/t", bodies[(i+n)%2], "Content-Type: "+manifest.OCIManifest)
				got := r.do("GET", "/v2/devtable/shared/manifests/t", "", "Accept: "+manifest.OCIManifest)
				if put.status != http.StatusCreated || got.status != http.StatusOK || !slices.Contains(bodies, got.body) {
					t.Errorf("put %d %s, get %d %s", put.status, put.body, got.status, got.body)
				}
			}
		})
	}
	wg.Wait()
	if n := r.conn(`SELECT count(*) FROM tag t JOIN manifest m ON m.id = t.manifest_id WHERE t.name = 't' AND m.digest = ANY($1)
		AND t.lifetime_end_ms IS NULL`, []string{digestOf(bodies[0]), digestOf(bodies[1])}); n != "1" {
		t.Errorf("%s tags are alive, want 1", n)
	}
}

// A scope that begins with the server's name is decided about the repository behind it, so that its token must not open
// one of a namespace with that name.
func TestGrantWithServerName(t *testing.T) {
	r := openRegistry(t, nil)
	r.exec(`WITH n AS (INSERT INTO "user" (uuid, username, email, verified, organization, robot, invoice_email, invalid_login_attempts,
			last_invalid_login, removed_tag_expiration_s, enabled, maximum_queued_builds_count, creation_date)
			SELECT 'u', 'quay.example', 'q@example', verified, TRUE, FALSE, FALSE, 0, last_invalid_login, 0, TRUE, NULL, NULL FROM "user" WHERE username = 'devtable' RETURNING id)
		INSERT INTO repository (namespace_user_id, name, visibility_id, description, badge_token, kind_id, trust_enabled, state)
		SELECT n.id, 'devtable/shared', (SELECT id FROM visibility WHERE name = 'private'), '', 'b', kind_id, FALSE, 0 FROM n, repository WHERE repository.id = 10`)
	r.token = r.mint("devtable/shared", "quay.example/devtable/shared")
	r.want(r.do(http.MethodGet, "/v2/devtable/shared/tags/list", ""), http.StatusOK)
	r.want(r.do(http.MethodGet, "/v2/quay.example/devtable/shared/tags/list", ""), http.StatusUnauthorized)
	r.want(r.do(http.MethodPost, "/v2/quay.example/devtable/shared/blobs/uploads/", ""), http.StatusUnauthorized)
}
