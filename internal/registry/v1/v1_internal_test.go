package v1

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/registry/manifest"
)

func vectors(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../../../test/contract/vectors/" + name)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestImageIDs(t *testing.T) {
	var v struct {
		IDs []struct {
			Salt     string `json:"salt"`
			Manifest int64  `json:"manifest_id"`
			Index    int    `json:"layer_index"`
			ID       string `json:"id"`
		} `json:"v1_image_ids"`
	}
	vectors(t, "uploads-and-keys.json", &v)
	if len(v.IDs) == 0 {
		t.Fatal("no vectors")
	}
	for _, one := range v.IDs {
		ids, err := newImageIDs(one.Salt)
		if err != nil {
			t.Fatal(err)
		}
		h := &Handler{ids: ids}
		if id, err := h.imageID(one.Manifest, one.Index); err != nil || id != one.ID {
			t.Errorf("%d, %d: %s, %v, want %s", one.Manifest, one.Index, id, err, one.ID)
		}
		if m, i, ok := h.resolveImageID(one.ID); !ok || m != one.Manifest || i != one.Index {
			t.Errorf("%s: %d, %d, %v, want %d, %d", one.ID, m, i, ok, one.Manifest, one.Index)
		}
		for _, bad := range []string{"", one.ID[1:], strings.Repeat("a1", 32), strings.ToUpper(one.ID), strings.Repeat("g", 64)} {
			if m, i, ok := h.resolveImageID(bad); ok {
				t.Errorf("%q is taken for %d, %d", bad, m, i)
			}
		}
	}
}

type schema1Vector struct {
	Name         string `json:"name"`
	Bytes        string `json:"bytes"`
	Signed       bool   `json:"signed"`
	Namespace    string `json:"namespace"`
	Repository   string `json:"repo_name"`
	Tag          string `json:"tag"`
	Architecture string `json:"architecture"`
	Payload      string `json:"payload"`
	Headers      []struct {
		JWK struct{ N, E, Kid string } `json:"jwk"`
	} `json:"signature_headers"`
}

func TestSchema1Documents(t *testing.T) {
	var v struct {
		Schema1 []schema1Vector `json:"schema1"`
	}
	vectors(t, "manifests.json", &v)
	if len(v.Schema1) == 0 {
		t.Fatal("no vectors")
	}
	s := newSigner(t.TempDir(), clock.NewFake(time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC)))
	for _, one := range v.Schema1 {
		if !one.Signed {
			one.Payload = one.Bytes
		}
		d, err := parseDocument([]byte(one.Payload))
		if err != nil {
			t.Fatalf("%s: %v", one.Name, err)
		}
		if d.tag != one.Tag || d.architecture != one.Architecture || !strings.HasSuffix(d.name, one.Repository) {
			t.Errorf("%s: %+v", one.Name, d)
		}
		again, err := indented(d.object())
		if err != nil || string(again) != one.Payload {
			t.Errorf("%s: became\n%s\n%v, want\n%s", one.Name, again, err, one.Payload)
		}
		signed, err := s.sign(d)
		if err != nil {
			t.Fatal(err)
		}
		m, err := manifest.Parse(manifest.DockerSchema1Signed, signed) // verifies
		if err != nil {
			t.Fatalf("%s: our signature: %v\n%s", one.Name, err, signed)
		}
		if m.MediaType != manifest.DockerSchema1Signed || m.Digest != manifest.Digest([]byte(one.Payload)) {
			t.Errorf("%s: %s, %s", one.Name, m.MediaType, m.Digest)
		}
		if !one.Signed || strings.ContainsFunc(one.Bytes, func(r rune) bool { return r > 127 }) {
			continue // not a text that the legacy server writes for /v1
		}
		// All but the signature itself, the key and the time is as the legacy server writes it.
		if got, want := blank(t, string(signed)), blank(t, one.Bytes); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: signed as\n%v, want\n%v", one.Name, got, want)
		}
		n, err := base64.RawURLEncoding.DecodeString(one.Headers[0].JWK.N)
		if err != nil {
			t.Fatal(err)
		}
		id, err := keyID(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537})
		if err != nil || id != one.Headers[0].JWK.Kid {
			t.Errorf("key is named %s, %v, want %s", id, err, one.Headers[0].JWK.Kid)
		}
	}
}

// blank is the text of a signed manifest, line by line, without what differs with every key.
func blank(t *testing.T, text string) []string {
	t.Helper()
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		for _, name := range []string{"n", "kid", "signature", "protected"} {
			if before, _, found := strings.Cut(line, `"`+name+`": "`); found && strings.TrimSpace(before) == "" {
				lines[i] = before + name
			}
		}
	}
	return lines
}

func TestSigningKeyFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newSigner(dir, clock.Real{}).sign(document{}); err == nil || !strings.Contains(err.Error(), keyFile) {
		t.Errorf("%v, want an error that names the file", err)
	}
}

func TestBuilderState(t *testing.T) {
	b := newBuilder()
	b.tags["latest"] = 7
	b.images["b"], b.images["a"] = `{"id": "b", "parent": "a"}`, `{"id": "a"}`
	b.blobs["a"], b.blobs["b"] = "sha256:aa", "sha256:bb"
	b.checksums["a"] = []string{"sha256:cc"}
	text, err := b.text()
	if err != nil {
		t.Fatal(err)
	}
	if got := parseBuilder(text); !reflect.DeepEqual(got, b) {
		t.Errorf("%s became %+v", text, got)
	}
	layers, ok := b.layers("b")
	if !ok || len(layers) != 2 || layers[0].digest != "sha256:bb" || layers[1].digest != "sha256:aa" {
		t.Errorf("%v, %v", layers, ok)
	}
	b.images["a"] = `{"id": "a", "parent": "b"}`
	if layers, ok := b.layers("b"); ok {
		t.Errorf("an image below itself: %v", layers)
	}
	for _, bad := range []string{"", "null", "[]", "{}", `["x", {}, {}, {}]`, `["x", {}, {}, {}, null]`, `["x", {}, {}, {}, {}, {}]`, `[1, {}, {}, {}, {}]`} {
		if b := parseBuilder(bad); b != nil {
			t.Errorf("%s: %+v", bad, b)
		}
	}
	// As the legacy server writes it, with the rows of its tags.
	if b := parseBuilder(`["x", {"t": 12}, {"i": "{}"}, {"i": "sha256:aa"}, {"i": ["sha256:bb"]}]`); b == nil || b.tags["t"] != 12 {
		t.Errorf("%+v", b)
	}
}

func TestReprBytes(t *testing.T) {
	for in, want := range map[string]string{"{}": `b'{}'`, "it's": `b"it's"`, `'"`: `b'\'"'`, "\x00\xff\n\\": `b'\x00\xff\n\\'`} {
		if got := reprBytes([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// bare is a Handler without a database.
func bare(t testing.TB) *Handler {
	t.Helper()
	cfg, err := config.Parse([]byte("{SETUP_COMPLETE: true, SERVER_HOSTNAME: localhost, SECRET_KEY: x, PREFERRED_URL_SCHEME: http}"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Deps{Config: cfg, Clock: clock.NewFake(time.Unix(1700000000, 0)), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestRoutes(t *testing.T) {
	h := bare(t)
	for path, want := range map[string]string{
		"/v1/_ping": "ping", "/v1/users": "create_user", "/v1/users/": "create_user", "/v1/users/x/": "update_user", "/v1/users/x": "update_user/",
		"/v1/users/x/y/": "", "/v1/search": "get_search", "/v1/search/": "", "/v1/": "", "/v1/nothing": "",
		"/v1/images/i/json": "get_image_json", "/v1/images/i/layer": "head_image_layer", "/v1/images/i/other": "", "/v1/images//json": "",
		"/v1/repositories/a/b/": "create_repository", "/v1/repositories/a/b": "create_repository/", "/v1/repositories/a/": "create_repository",
		"/v1/repositories/a/b/images": "get_repository_images", "/v1/repositories/a/b/auth": "put_repository_auth",
		"/v1/repositories/a/b/tags": "get_tags", "/v1/repositories/a/b/tags/t": "get_tag", "/v1/repositories/a/b/tags/": "",
		"/v1/repositories/a/sharedtags/": "", "/v1/repositories//": "", "/v1/repositories/": "",
	} {
		q := &request{h: h, r: httptest.NewRequest(http.MethodGet, "/", nil)}
		routes, slash := h.routes(q, path)
		got := ""
		if len(routes) > 0 {
			got = routes[0].name
		}
		if slash {
			got += "/"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestSessionCookie(t *testing.T) {
	h := bare(t)
	r := httptest.NewRequest(http.MethodGet, "/v1/x", nil)
	first := &session{h: h, r: r}
	header := http.Header{}
	first.header(header)
	if len(header) != 0 {
		t.Errorf("a session that nobody asked for: %v", header)
	}
	if err := first.set(sessionNamespace, "ns"); err != nil {
		t.Fatal(err)
	}
	if err := first.set(sessionRepository, "r<&>é"); err != nil {
		t.Fatal(err)
	}
	header.Set("Vary", "Origin")
	first.header(header)
	if header.Get("Vary") != "Origin, Cookie" || !strings.HasSuffix(header.Get("Set-Cookie"), "; HttpOnly; Path=/; SameSite=Lax") {
		t.Errorf("%v", header)
	}
	r.Header.Set("Cookie", strings.SplitN(header.Get("Set-Cookie"), ";", 2)[0])
	second := &session{h: h, r: r}
	if namespace, name, ok := second.repository(); !ok || namespace != "ns" || name != "r<&>é" {
		t.Errorf("%s, %s, %v", namespace, name, ok)
	}
	header = http.Header{}
	second.header(header)
	if header.Get("Vary") != "Cookie" || header.Get("Set-Cookie") != "" {
		t.Errorf("a session that was only read: %v", header)
	}
	r.Header.Set("Cookie", h.cookie.name+"=forged.AAAA.AAAA")
	if _, _, ok := (&session{h: h, r: r}).repository(); ok {
		t.Error("a forged session was believed")
	}
}

func FuzzBuilder(f *testing.F) {
	f.Add(`["x", {"t": 12}, {"i": "{\"parent\": \"j\"}"}, {"i": "sha256:aa"}, {"i": ["sha256:bb"]}]`, "i")
	f.Add(`["x", {}, {"i": "{\"parent\": \"i\"}"}, {"i": ""}, {}]`, "i")
	f.Fuzz(func(t *testing.T, text, id string) {
		b := parseBuilder(text)
		if b == nil {
			return
		}
		if layers, ok := b.layers(id); ok && len(layers) > len(b.images) {
			t.Fatalf("%d layers of %d images", len(layers), len(b.images))
		}
		again, err := b.text()
		if err != nil {
			t.Fatal(err)
		}
		if parseBuilder(again) == nil {
			t.Fatalf("%s became %s", text, again)
		}
	})
}

func FuzzRoutes(f *testing.F) {
	for _, path := range []string{"/v1/repositories/a/b/tags/t", "/v1/images/i/json", "/v1/users/x/", "/v1/repositories//x/tags", "/v1/repositories/é/../tags"} {
		f.Add(path)
	}
	h := bare(f)
	f.Fuzz(func(t *testing.T, path string) {
		q := &request{h: h, r: httptest.NewRequest(http.MethodGet, "/", nil)}
		routes, _ := h.routes(q, path)
		if routes != nil && strings.Contains(q.namespace, "/") {
			t.Fatalf("%q: namespace %q", path, q.namespace)
		}
	})
}
