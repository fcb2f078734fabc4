package token_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/instancekey"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/telemetry"
	"github.com/quayctl/quayctl/internal/registry/token"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const contract = "../../../test/contract"

type fixture struct {
	*testing.T
	pg    *pgtest.DB
	clock *clock.Fake
	cfg   *config.Config
	http  http.Handler
}

// newFixture serves the endpoint on the recorded dataset, with the recorded configuration and what edit changes in it.
func newFixture(t *testing.T, edit func(*config.Config)) *fixture {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(contract, "dataset", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	filled := os.Expand(string(text), func(name string) string {
		switch {
		case name == "SERVER_HOSTNAME":
			return "localhost:18000"
		case strings.HasSuffix(name, "_PORT"):
			return "1"
		}
		return "unused"
	})
	cfg, err := config.Parse([]byte(filled))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Features.SuperusersFullAccess = false
	cfg.SuperUsers = config.Texts{"admin"}
	if edit != nil {
		edit(cfg)
	}
	f := &fixture{T: t, pg: pgtest.Populated(t), cfg: cfg, clock: clock.NewFake(time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC))}
	log := slog.New(slog.DiscardHandler)
	db, err := metadata.Open(t.Context(), metadata.Options{WriterDSN: f.pg.DSN, AppName: "test", Clock: f.clock, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	metrics, err := telemetry.New(prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := auth.NewCredentials(db, f.clock, cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(contract, "dataset", "keys")
	key, err := instancekey.Load(filepath.Join(keys, "instance-key.pem"), filepath.Join(keys, "instance-key.kid"))
	if err != nil {
		t.Fatal(err)
	}
	f.http = token.New(token.Deps{
		DB: db, Clock: f.clock, Config: cfg, Log: log, Metrics: metrics, ActionLog: actionlog.New(db, f.clock, cfg, log),
		Directory: &directory.Directory{DB: db, Clock: f.clock}, Credentials: credentials,
		Permissions: &auth.Permissions{DB: db, Config: cfg}, Key: key, Challenge: "Bearer x",
	})
	return f
}

func basic(user, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))
}

func (f *fixture) ask(authorization string, scopes ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/v2/auth?"+url.Values{"service": {"localhost:18000"}, "scope": scopes}.Encode(), nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	f.http.ServeHTTP(w, r)
	return w
}

// actions asks for one scope as a user with the dataset's password and returns what the token grants.
func (f *fixture) actions(user, scope string) []string {
	f.Helper()
	w := f.ask(basic(user, "password"), scope)
	if w.Code != http.StatusOK {
		f.Fatalf("%s asks %s: %d %s", user, scope, w.Code, w.Body)
	}
	access := f.access(w)
	if len(access) != 1 {
		f.Fatalf("%s asks %s: %v", user, scope, access)
	}
	return access[0]
}

func (f *fixture) access(w *httptest.ResponseRecorder) (actions [][]string) {
	f.Helper()
	var body struct{ Token string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		f.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(body.Token, ".")[1])
	if err != nil {
		f.Fatal(err)
	}
	var claims struct {
		Access []struct{ Actions []string }
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		f.Fatal(err)
	}
	for _, a := range claims.Access {
		actions = append(actions, a.Actions)
	}
	return actions
}

func (f *fixture) count(sql string, args ...any) (n int) {
	f.Helper()
	if err := f.pg.Conn().QueryRow(f.Context(), sql, args...).Scan(&n); err != nil {
		f.Fatal(err)
	}
	return n
}

// TestSuperset is about the scopes that the legacy server refuses and clients need.
func TestSuperset(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		user, scope string
		want        []string
	}{
		{"devtable", "repository:devtable/simple:delete", []string{"push"}},
		{"devtable", "repository:devtable/simple:pull,push,delete", []string{"push", "pull"}},
		{"reader", "repository:devtable/shared:delete", []string{}},
		{"devtable", "repository:devtable/readonly:delete", []string{}},
		{"devtable", "repository:devtable/nosuch:delete", []string{}},
	} {
		if got := f.actions(c.user, c.scope); !slices.Equal(got, c.want) {
			t.Errorf("%s asks %s: %v, want %v", c.user, c.scope, got, c.want)
		}
	}
	if n := f.count("select count(*) from repository where name = 'nosuch'"); n != 0 {
		t.Error("delete made a repository")
	}
	if w := f.ask(basic("devtable", "password"), "registry:catalog:*"); w.Code != 200 || len(f.access(w)) != 0 {
		t.Errorf("catalogue: %d %s", w.Code, w.Body)
	}
}

func TestLockout(t *testing.T) {
	f := newFixture(t, nil)
	right, wrong := basic("freshuser", "password"), basic("freshuser", "wrong")
	if w := f.ask(wrong, ""); w.Code != 401 {
		t.Fatalf("wrong password: %d %s", w.Code, w.Body)
	}
	if w := f.ask(right, ""); w.Code != 429 || w.Header().Get("Retry-After") != "0" {
		t.Errorf("right password at once: %d %v", w.Code, w.Header())
	}
	f.clock.Advance(500 * time.Millisecond)
	if w := f.ask(wrong, ""); w.Code != 401 {
		t.Errorf("wrong password after the wait: %d", w.Code)
	}
	f.clock.Advance(1400 * time.Millisecond)
	if w := f.ask(right, ""); w.Code != 429 {
		t.Errorf("right password before the second wait is over: %d", w.Code)
	}
	f.clock.Advance(100 * time.Millisecond)
	if w := f.ask(right, ""); w.Code != 200 {
		t.Errorf("right password after the second wait: %d %s", w.Code, w.Body)
	}
	if n := f.count(`select invalid_login_attempts from "user" where username = 'freshuser'`); n != 0 {
		t.Errorf("%d failed sign-ins are left", n)
	}
	// A password in memory does not get around the lock.
	f.pg.Exec(`update "user" set invalid_login_attempts = 62, last_invalid_login = '2026-11-23 16:00:00' where username = 'freshuser'`)
	if w := f.ask(right, ""); w.Code != 429 {
		t.Errorf("locked account with a known password: %d", w.Code)
	}
}

// TestPasswordInMemory changes a password behind the endpoint's back.
func TestPasswordInMemory(t *testing.T) {
	f := newFixture(t, nil)
	right := basic("freshuser", "password")
	for range 3 {
		if w := f.ask(right, ""); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	f.pg.Exec(`update "user" set password_hash = (select password_hash from "user" where username = 'freshuser') || '' where username = 'freshuser'`)
	if w := f.ask(right, ""); w.Code != 200 {
		t.Errorf("same hash: %d", w.Code)
	}
	f.pg.Exec(`update "user" set password_hash = '$2b$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq' where username = 'freshuser'`)
	if w := f.ask(right, ""); w.Code != 401 {
		t.Errorf("old password after a change: %d", w.Code)
	}
	f.pg.Exec(`update "user" set invalid_login_attempts = 0, password_hash = null where username = 'freshuser'`)
	if w := f.ask(right, ""); w.Code != 401 {
		t.Errorf("no password: %d", w.Code)
	}
	f.pg.Exec(`update "user" set invalid_login_attempts = 0, password_hash = 'garbage' where username = 'freshuser'`)
	if w := f.ask(right, ""); w.Code != 401 {
		t.Errorf("broken hash: %d", w.Code)
	}
}

func TestEncryptedPassword(t *testing.T) {
	f := newFixture(t, func(c *config.Config) { c.Features.RequireEncryptedBasicAuth = true })
	// vectors/encryption.json, with the dataset's SECRET_KEY
	if w := f.ask(basic("devtable", "AQIDBAUGBwgJCgsMDQ4PEKJVHsFr2Llzt2gcK6bVgTe7G9bpuWmEAEPyyuavGe6y"), ""); w.Code != 200 {
		t.Errorf("encrypted: %d %s", w.Code, w.Body)
	}
	if w := f.ask(basic("devtable", "password"), ""); w.Code != 401 || !strings.Contains(w.Body.String(), "unencrypted passwords is disabled") {
		t.Errorf("plain: %d %s", w.Code, w.Body)
	}
}

// TestSimultaneousCreation is a race that the legacy server loses: every pusher must be able to push.
func TestSimultaneousCreation(t *testing.T) {
	f := newFixture(t, nil)
	const pushers = 8
	answers := make([]*httptest.ResponseRecorder, pushers)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			answers[i] = f.ask(basic("freshuser", "password"), "repository:freshuser/race:pull,push")
		})
	}
	wg.Wait()
	for _, w := range answers {
		if got := f.access(w); w.Code != 200 || !slices.Equal(got[0], []string{"push", "pull"}) {
			t.Errorf("%d %v", w.Code, got)
		}
	}
	for table, want := range map[string]int{"repositoryactioncount": 1, "repositorysearchscore": 1, "repositorypermission": 1} {
		sql := fmt.Sprintf(`select count(*) from %s x join repository r on r.id = x.repository_id where r.name = 'race'`, table)
		if n := f.count(sql); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
}

// TestPrototypes follows an organization's default permissions to a new repository.
func TestPrototypes(t *testing.T) {
	f := newFixture(t, nil)
	if got := f.actions("devtable", "repository:buynlarge/made:push"); !slices.Equal(got, []string{"push"}) {
		t.Fatal(got)
	}
	rows, err := f.pg.Conn().Query(t.Context(), `select coalesce(u.username, '@' || t.name) || '=' || o.name from repositorypermission p
		join repository r on r.id = p.repository_id join role o on o.id = p.role_id
		left join "user" u on u.id = p.user_id left join team t on t.id = p.team_id where r.name = 'made' order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		got = append(got, text)
	}
	if want := []string{"@readers=read", "devtable=admin", "public=read"}; !slices.Equal(got, want) {
		t.Errorf("permissions %v, want %v", got, want)
	}
}

func TestMethodsAndForms(t *testing.T) {
	f := newFixture(t, nil)
	for method, want := range map[string]int{"POST": 405, "OPTIONS": 200, "HEAD": 401, "GET": 401} {
		w := httptest.NewRecorder()
		f.http.ServeHTTP(w, httptest.NewRequest(method, "/v2/auth", nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", method, w.Code, want)
		}
		if method == "HEAD" && w.Body.Len() != 0 {
			t.Errorf("HEAD has a body: %s", w.Body)
		}
		if method == "POST" && w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("Allow: %v", w.Header())
		}
	}
	w := f.ask(basic("devtable", "password"))
	if w.Code != 200 || w.Header().Get("Cache-Control") != "no-cache, no-store, must-revalidate" || !strings.HasSuffix(w.Body.String(), "\"}\n") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if n := f.count(`select count(*) from logentry3 l join logentrykind k on k.id = l.kind_id where k.name = 'login_success'
		and l.metadata_json = '{"kind": "user", "type": "v2auth", "useragent": ""}'`); n != 1 {
		t.Errorf("%d sign-ins are logged", n)
	}
}
