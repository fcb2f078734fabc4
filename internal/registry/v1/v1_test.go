package v1_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/telemetry"
	v1 "github.com/quayctl/quayctl/internal/registry/v1"
	"github.com/quayctl/quayctl/internal/storage"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// server serves /v1/ on the recorded accounts and an empty storage.
type server struct {
	*testing.T
	pg  *pgtest.DB
	url string
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{T: t, pg: pgtest.Populated(t)}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "storage"), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse(fmt.Appendf(nil, `{SETUP_COMPLETE: true, TESTING: false, SERVER_HOSTNAME: localhost, PREFERRED_URL_SCHEME: http, DB_URI: "%s",
SECRET_KEY: '50813906178520318649027154739263840195728364051928374650192837465019283746501',
DATABASE_SECRET_KEY: '72610394857261039485726103948572610394857261039485726103948572610394857261039'}`, s.pg.DSN))
	if err != nil {
		t.Fatal(err)
	}
	log, now := slog.New(slog.DiscardHandler), clock.Real{}
	db, err := metadata.Open(t.Context(), metadata.Options{WriterDSN: s.pg.DSN, AppName: "test", Clock: now, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	objects, err := storage.Open(storage.Config{Preference: []string{"local_us"}, Locations: []storage.Location{
		{Name: "local_us", Driver: "LocalStorage", Parameters: map[string]any{"storage_path": filepath.Join(dir, "storage")}}}}, log)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := telemetry.New(prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := auth.NewCredentials(db, now, cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	locker := locks.NewPostgres(db.Writer(), now, log)
	t.Cleanup(locker.Close)
	h, err := v1.New(v1.Deps{DB: db, Storage: objects, Locks: locker, Clock: now, Config: cfg, ConfigDir: dir, Log: log, Metrics: metrics,
		ActionLog: actionlog.New(db, now, cfg, log), Directory: &directory.Directory{DB: db, Clock: now}, Credentials: credentials,
		Permissions: &auth.Permissions{DB: db, Config: cfg}})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(h)
	t.Cleanup(front.Close)
	s.url = front.URL
	return s
}

// client keeps cookies and the latest token, as clients of version 1 do.
type client struct {
	*server
	http           *http.Client
	user, password string
	token          string
}

func (s *server) client(user string) *client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	return &client{server: s, http: &http.Client{Jar: jar}, user: user, password: "password"}
}

func (c *client) ask(method, path, body string, headers ...string) (int, string) {
	c.Helper()
	r, err := http.NewRequestWithContext(c.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	switch {
	case c.token != "":
		r.Header.Set("Authorization", "Token "+c.token)
	case c.user != "":
		r.SetBasicAuth(c.user, c.password)
	}
	r.Header.Set("X-Docker-Token", "true")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	if token := resp.Header.Get("X-Docker-Token"); token != "" {
		c.token = token
	}
	return resp.StatusCode, string(got)
}

func (c *client) must(status int, method, path, body string, headers ...string) string {
	c.Helper()
	got, text := c.ask(method, path, body, headers...)
	if got != status {
		c.Fatalf("%s %s: %d %s, want %d", method, path, got, text, status)
	}
	return text
}

func id(c byte) string { return strings.Repeat(string(c), 64) }

// push pushes two layers under a tag and returns the newer one.
func (c *client) push(repo, tag string) string {
	c.Helper()
	c.must(201, "PUT", "/v1/repositories/"+repo+"/", "[]")
	top := ""
	for _, one := range []struct{ id, parent string }{{id('a'), ""}, {id('b'), id('a')}} {
		image := map[string]string{"id": one.id, "created": "2024-01-02T03:04:05Z"}
		if one.parent != "" {
			image["parent"] = one.parent
		}
		text, err := json.Marshal(image)
		if err != nil {
			c.Fatal(err)
		}
		top = "layer " + one.id
		sum := sha256.Sum256([]byte(string(text) + "\n" + top))
		c.must(200, "PUT", "/v1/images/"+one.id+"/json", string(text))
		c.must(200, "PUT", "/v1/images/"+one.id+"/layer", top)
		c.must(200, "PUT", "/v1/images/"+one.id+"/checksum", "", "X-Docker-Checksum-Payload", "sha256:"+hex.EncodeToString(sum[:]))
	}
	c.must(200, "PUT", "/v1/repositories/"+repo+"/tags/"+tag, `"`+id('b')+`"`)
	c.must(204, "PUT", "/v1/repositories/"+repo+"/images", "[]")
	return top
}

func TestPushAndPull(t *testing.T) {
	s := start(t)
	pushed := s.client("devtable").push("devtable/old", "latest")

	c := s.client("devtable")
	c.must(200, "GET", "/v1/repositories/devtable/old/images", "")
	tags := map[string]string{}
	if err := json.Unmarshal([]byte(c.must(200, "GET", "/v1/repositories/devtable/old/tags", "")), &tags); err != nil || len(tags) != 1 {
		t.Fatalf("%v, %v", tags, err)
	}
	image := tags["latest"]
	var chain []string
	if err := json.Unmarshal([]byte(c.must(200, "GET", "/v1/images/"+image+"/ancestry", "")), &chain); err != nil || len(chain) != 2 || chain[0] != image {
		t.Fatalf("%v, %v", chain, err)
	}
	var told struct{ ID, Parent string }
	if err := json.Unmarshal([]byte(c.must(200, "GET", "/v1/images/"+image+"/json", "")), &told); err != nil || told.ID != image || told.Parent != chain[1] {
		t.Fatalf("%+v, %v", told, err)
	}
	if got := c.must(200, "GET", "/v1/images/"+image+"/layer", ""); got != pushed {
		t.Errorf("layer is %q, want %q", got, pushed)
	}
	c.must(304, "GET", "/v1/images/"+image+"/layer", "", "If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")
	c.must(404, "GET", "/v1/images/"+id('a')+"/layer", "")

	// A tag outside of a push, and its end.
	c.must(200, "PUT", "/v1/repositories/devtable/old/tags/copy", `"`+image+`"`)
	c.must(200, "DELETE", "/v1/repositories/devtable/old/tags/latest", "")
	c.must(404, "DELETE", "/v1/repositories/devtable/old/tags/latest", "")
	if got := c.must(200, "GET", "/v1/repositories/devtable/old/tags", ""); strings.Contains(got, "latest") || !strings.Contains(got, "copy") {
		t.Errorf("tags are %s", got)
	}
}

func TestOffload(t *testing.T) {
	s := start(t)
	s.client("devtable").push("devtable/old", "latest")
	c := s.client("devtable")
	c.must(200, "GET", "/v1/repositories/devtable/old/images", "")
	image := strings.Trim(c.must(200, "GET", "/v1/repositories/devtable/old/tags/latest", ""), `"`)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/images/"+image+"/layer", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Token "+c.token)
	r.Header.Set("X-Quay-Offload", "1")
	resp, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if path := resp.Header.Get("X-Quay-Offload-Path"); len(body) != 0 || !strings.HasPrefix(path, "local_us/sha256/") {
		t.Errorf("%d bytes, path %q", len(body), path)
	}
}

// The legacy server answers with images of any repository to whoever may read one.
func TestImagesOfOtherRepositoriesStayHidden(t *testing.T) {
	s := start(t)
	s.client("devtable").push("devtable/secret", "latest")
	owner := s.client("devtable")
	image := strings.Trim(owner.must(200, "GET", "/v1/repositories/devtable/secret/tags/latest", ""), `"`)

	stranger := s.client("freshuser")
	stranger.must(403, "GET", "/v1/repositories/devtable/secret/images", "")
	stranger.must(200, "GET", "/v1/repositories/public/publicrepo/images", "")
	for _, what := range []string{"json", "ancestry", "layer"} {
		stranger.must(404, "GET", "/v1/images/"+image+"/"+what, "")
	}
	stranger.must(403, "PUT", "/v1/repositories/public/publicrepo/tags/x", `"`+image+`"`)
}

// A grant lives for a day; the account behind it may end sooner.
func TestGrantOfDisabledUser(t *testing.T) {
	s := start(t)
	c := s.client("devtable")
	c.push("devtable/old", "latest")
	c.must(200, "GET", "/v1/repositories/devtable/old/tags", "")
	s.pg.Exec(`UPDATE "user" SET enabled = false WHERE username = 'devtable'`)
	c.must(403, "GET", "/v1/repositories/devtable/old/tags", "")
	c.must(403, "PUT", "/v1/repositories/devtable/old/tags/x", `"`+id('b')+`"`)
}

func TestForgedGrant(t *testing.T) {
	s := start(t)
	c := s.client("devtable")
	c.must(200, "GET", "/v1/repositories/devtable/simple/images", "")
	good := c.token
	for _, token := range []string{good[:len(good)-1], "sigv2=", "sigv2=..", strings.Replace(good, "sigv2=", "sigv2=.", 1), strings.TrimPrefix(good, "sigv2=")} {
		c.token = token
		c.must(403, "GET", "/v1/repositories/devtable/simple/tags", "")
	}
}

func TestChangePassword(t *testing.T) {
	s := start(t)
	c := s.client("freshuser")
	c.must(200, "PUT", "/v1/users/freshuser/", `{"password": "another-password"}`, "Content-Type", "application/json")
	c.must(404, "GET", "/v1/users/", "")
	c.password = "another-password"
	s.pg.Exec(`UPDATE "user" SET invalid_login_attempts = 0 WHERE username = 'freshuser'`)
	if got := c.must(200, "GET", "/v1/users/", ""); !strings.Contains(got, `"freshuser"`) {
		t.Error(got)
	}
}

func TestNotificationAtTheEndOfAPush(t *testing.T) {
	s := start(t)
	c := s.client("devtable")
	c.push("devtable/old", "one")
	s.pg.Exec(`INSERT INTO repositorynotification (uuid, repository_id, event_id, method_id, title, config_json, event_config_json, number_of_failures)
		SELECT '11111111-2222-3333-4444-555555555555', r.id, e.id, m.id, 't', '{}', '{}', 0 FROM repository r, externalnotificationevent e, externalnotificationmethod m
		WHERE r.name = 'old' AND e.name = 'repo_push' AND m.name = 'webhook'`)
	c.push("devtable/old", "two")
	var name, body string
	if err := s.pg.Conn().QueryRow(t.Context(), `SELECT queue_name, body FROM queueitem WHERE queue_name LIKE '%repo_push%'`).Scan(&name, &body); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, "notification/devtable/old/repo_push/") || !strings.Contains(body, `"updated_tags": ["two"]`) ||
		!strings.Contains(body, `"entity_name": "devtable"`) {
		t.Errorf("%s: %s", name, body)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	s := start(t)
	c := s.client("devtable")
	c.must(201, "PUT", "/v1/repositories/devtable/old/", "[]")
	c.must(413, "PUT", "/v1/images/"+id('a')+"/json", string(bytes.Repeat([]byte(" "), 2<<20)))
}
