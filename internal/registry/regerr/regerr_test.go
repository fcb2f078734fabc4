package regerr_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quayctl/quayctl/internal/registry/regerr"
)

func write(method string, err error, s *regerr.Surface) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/v2/", nil)
	if s != nil {
		r = r.WithContext(regerr.WithSurface(r.Context(), s))
	}
	w := httptest.NewRecorder()
	regerr.Write(w, r, err)
	return w
}

// TestBytes compares whole answers with recorded ones.
func TestBytes(t *testing.T) {
	surface := &regerr.Surface{Allow: []string{"GET", "HEAD", "OPTIONS"}, Challenge: `Bearer realm="r"`}
	known := &regerr.Surface{Allow: surface.Allow, Identity: func() string { return "user devtable" }}
	for name, c := range map[string]struct {
		err     error
		surface *regerr.Surface
		status  int
		kind    string
		body    string
		header  map[string]string
	}{
		"shape A": {regerr.Unauthorized(), surface, 401, "application/json",
			`{"errors":[{"code":"UNAUTHORIZED","detail":{},"message":"access to the requested resource is not authorized"}]}` + "\n",
			map[string]string{"WWW-Authenticate": `Bearer realm="r"`, "Docker-Distribution-API-Version": "registry/2.0", "Access-Control-Allow-Origin": ""}},
		"wrapped, detail": {fmt.Errorf("put: %w", regerr.ManifestInvalid().WithStatus(415).WithReason("manifest schema version not supported")), nil, 415, "application/json",
			`{"errors":[{"code":"MANIFEST_INVALID","detail":{"message":"manifest schema version not supported"},"message":"manifest invalid"}]}` + "\n", nil},
		"extra member": {regerr.ReadOnly(), nil, 405, "application/json",
			`{"errors":[{"code":"DENIED","detail":{},"is_readonly":true,"message":"System is currently read-only. Pulls will succeed but all write operations are currently suspended."}]}` + "\n", nil},
		"shape B": {&regerr.Abort{Status: 401, Message: "Not enough segments"}, surface, 401, "text/html; charset=utf-8",
			`{"error": "Not enough segments"}`,
			map[string]string{"WWW-Authenticate": `Bearer realm="r"`, "Vary": "Origin", "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS"}},
		"shape B with identity": {&regerr.Abort{Status: 404}, known, 404, "text/html; charset=utf-8", `{"error": "Not Found (authorized: user devtable)"}`, nil},
		"lockout": {&regerr.TooManyLogins{RetryAfterSeconds: 7}, surface, 429, "text/html; charset=utf-8",
			"Too many login attempts. \nPlease reset your Quay password and try again.", map[string]string{"Retry-After": "7"}},
		"model": {&regerr.Model{Message: "no <such> é"}, nil, 400, "application/json", `{"message":"no <such> \u00e9"}` + "\n", nil},
		"not found": {regerr.NotFound, nil, 404, "text/html; charset=utf-8",
			"<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.</p>\n", nil},
		"bare":     {&regerr.Bare{Status: 416, Header: http.Header{"Range": {"0-40"}}}, nil, 416, "text/html; charset=utf-8", "", map[string]string{"Range": "0-40"}},
		"unknown":  {errors.New("secret"), nil, 500, "application/json", `{"errors":[{"code":"UNKNOWN","detail":{},"message":"internal server error"}]}` + "\n", nil},
		"no JSON":  {regerr.BlobUnknown().WithDetail(func() {}), nil, 404, "application/json", `{"errors":[{"code":"BLOB_UNKNOWN","detail":{},"message":"blob unknown to registry"}]}` + "\n", nil},
		"redirect": {&regerr.Redirect{URL: "http://h/?a&b"}, nil, 308, "text/html; charset=utf-8", "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n<p>You should be redirected automatically to the target URL: <a href=\"http://h/?a&amp;b\">http://h/?a&amp;b</a>. If not, click the link.\n", map[string]string{"Location": "http://h/?a&b"}},
	} {
		w := write("GET", c.err, c.surface)
		if w.Code != c.status || w.Header().Get("Content-Type") != c.kind || w.Body.String() != c.body || regerr.Status(c.err) != c.status {
			t.Errorf("%s: %d %s\n got %q\nwant %q", name, w.Code, w.Header().Get("Content-Type"), w.Body.String(), c.body)
		}
		if w.Header().Get("Content-Length") != fmt.Sprint(len(c.body)) {
			t.Errorf("%s: Content-Length %s for %d bytes", name, w.Header().Get("Content-Length"), len(c.body))
		}
		for k, v := range c.header {
			if w.Header().Get(k) != v {
				t.Errorf("%s: %s is %q, want %q", name, k, w.Header().Get(k), v)
			}
		}
		if head := write("HEAD", c.err, c.surface); head.Body.Len() != 0 {
			t.Errorf("%s: HEAD has a body", name)
		}
	}
}

// TestCausesStayInside makes sure that what the log needs is not told to clients.
func TestCausesStayInside(t *testing.T) {
	cause := errors.New("password=hunter2")
	for _, err := range []*regerr.Error{regerr.Internal(cause), regerr.Unavailable(cause), regerr.BlobUploadInvalid().WithCause(cause)} {
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v lost its cause", err)
		}
		if w := write("GET", err, nil); strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("the client reads %s", w.Body)
		}
	}
	if shared := regerr.Unauthorized(); shared.WithDetail("x").Detail != "x" || shared.Detail != nil {
		t.Error("With changes its receiver")
	}
}
