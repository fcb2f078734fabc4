package contract

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestUpstream(t *testing.T) {
	body := `{"a":1}`
	u := &upstream{answers: map[string]Response{
		"GET /v2/":           {Status: 200, Body: &body, Headers: map[string]line{"X-Test": "yes"}},
		"GET /v2/a/secret?x": {Status: 200, RequireAuthorization: "Bearer t", Otherwise: &Response{Status: 401}},
	}}
	server := httptest.NewServer(u)
	defer server.Close()
	ask := func(method, path, authorization string) (status int, text, header string, err error) {
		request, err := http.NewRequest(method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if authorization != "" {
			request.Header.Set("Authorization", authorization)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			return 0, "", "", err
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		return response.StatusCode, string(got), response.Header.Get("X-Test") + response.Header.Get("Content-Length"), err
	}
	for _, tt := range []struct {
		method, path, authorization string
		status                      int
		text, header                string
	}{
		{"GET", "/v2/", "", 200, body, "yes7"},
		{"HEAD", "/v2/", "", 200, "", "yes7"},
		{"GET", "/v2/a/secret?x", "", 401, "", "0"},
		{"GET", "/v2/a/secret?x", "Bearer t", 200, "", "0"},
		{"GET", "/v2/unknown", "", 404, "", "0"},
		{"POST", "/v2/", "", 404, "", "0"},
	} {
		status, text, header, err := ask(tt.method, tt.path, tt.authorization)
		if err != nil || status != tt.status || text != tt.text || header != tt.header {
			t.Errorf("%s %s: %d %q %q %v", tt.method, tt.path, status, text, header, err)
		}
	}
	r := &replay{upstream: u}
	want := []map[string]any{
		{"method": "GET", "path": "/v2/", "status": 200}, {"method": "HEAD", "path": "/v2/", "status": 200},
		{"method": "GET", "path": "/v2/a/secret?x", "status": 401},
		{"method": "GET", "path": "/v2/a/secret?x", "status": 200, "authorization": "Bearer t"},
		{"method": "GET", "path": "/v2/unknown", "status": 404}, {"method": "POST", "path": "/v2/", "status": 404},
	}
	asked := u.asked
	if r.compareUpstream(1, want); len(r.found) > 0 {
		t.Errorf("differs: %v", r.found)
	}
	// Each change of what was recorded is caught.
	for i, change := range [][]map[string]any{want[:5], append(want, want[0]), {want[0], want[1], want[2], want[2], want[4], want[5]}} {
		u.asked, r.found = asked, nil
		if r.compareUpstream(1, change); len(r.found) != 1 {
			t.Errorf("change %d: %v", i, r.found)
		}
	}
	if err := r.steer(Step{UpstreamSet: map[string]Response{"GET /v2/": {Status: 503}}}); err != nil {
		t.Fatal(err)
	}
	if status, _, _, _ := ask("GET", "/v2/", ""); status != 503 {
		t.Errorf("after a change: %d", status)
	}
	if err := r.steer(Step{UpstreamDown: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := ask("GET", "/v2/", ""); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("down: %v", err)
	}
	if err := (&replay{}).steer(Step{UpstreamDown: true}); err == nil {
		t.Error("a scenario without upstream can take it down")
	}
}
