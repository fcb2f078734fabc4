package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/service"
)

// component is a daemon with an admin socket whose checks can be broken.
type component struct {
	addr   service.Addr
	broken atomic.Pointer[map[string]string]
	asked  atomic.Int32
}

func (c *component) set(broken map[string]string) { c.broken.Store(&broken) }

func startComponent(t *testing.T, name string, checks ...string) *component {
	t.Helper()
	c := &component{addr: service.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), name+"-admin.sock")}}
	c.set(nil)
	d := &service.Daemon{Name: name, Log: slog.New(slog.DiscardHandler), Admin: c.addr.String(),
		Handler: http.NotFoundHandler(), Listen: []string{"unix:" + filepath.Join(t.TempDir(), "s")}}
	for _, check := range checks {
		d.Checks = append(d.Checks, service.Check{Name: check, Run: func(context.Context) error {
			c.asked.Add(1)
			if why := (*c.broken.Load())[check]; why != "" {
				return errors.New(why)
			}
			return nil
		}})
	}
	startDaemon(t, d)
	return c
}

func TestHealth(t *testing.T) {
	registryd := startComponent(t, "registryd", "database", "storage", "instance_key", "migrations")
	workers := startComponent(t, "workers", "database")
	fake := clock.NewFake(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC))
	gone := Component{Name: "absent", Addr: service.Addr{Network: "unix", Address: "/nonexistent"}}
	start := func(more ...Component) *front {
		return startFront(t, nil, func(o *Options, _ *service.Daemon) {
			o.Clock, o.StorageRoot = fake, t.TempDir()
			o.Components = append([]Component{{"registryd", registryd.addr}, {"workers", workers.addr}}, more...)
		})
	}
	f, lame := start(), start(gone)
	c := newClient(t, nil, false)
	const healthy = `{"data":{"services":{"auth":true,"database":true,"disk_space":true,"registry_gunicorn":true,"service_key":true,"web_gunicorn":true}},"status_code":200}` + "\n"
	const endtoend = `{"data":{"services":{"auth":true,"database":true,"redis":true,"storage":true}},"status_code":200}` + "\n"
	for _, g := range []struct {
		name              string
		front             *front
		registryd, worker map[string]string
		path              string
		want              string
	}{
		{"healthy", f, nil, nil, "/health/instance", healthy},
		{"healthy", f, nil, nil, "/health", healthy},
		{"healthy", f, nil, nil, "/health/endtoend", endtoend},
		{"healthy", f, nil, nil, "/status", endtoend},
		{"healthy", f, nil, nil, "/health/warning", `{"data":{"services":{"disk_space_warning":true}},"status_code":200}` + "\n"},
		{"no database", f, map[string]string{"database": "down"}, nil, "/health/instance",
			`{"data":{"services":{"auth":false,"database":false,"disk_space":true,"registry_gunicorn":true,"service_key":true,"web_gunicorn":true}},"status_code":503}` + "\n"},
		{"no storage", f, map[string]string{"storage": "full"}, nil, "/health/instance", healthy},
		{"no storage", f, map[string]string{"storage": "full"}, nil, "/status",
			`{"data":{"services":{"auth":true,"database":true,"redis":true,"storage":false}},"status_code":503}` + "\n"},
		{"other check", f, map[string]string{"migrations": "old"}, nil, "/health/instance",
			`{"data":{"services":{"auth":true,"database":true,"disk_space":true,"registry_gunicorn":false,"service_key":true,"web_gunicorn":true}},"status_code":503}` + "\n"},
		{"no key", f, map[string]string{"instance_key": "expired"}, nil, "/health/instance",
			`{"data":{"services":{"auth":true,"database":true,"disk_space":true,"registry_gunicorn":true,"service_key":false,"web_gunicorn":true}},"status_code":503}` + "\n"},
		{"workers", f, nil, map[string]string{"database": "down"}, "/health/instance",
			`{"data":{"services":{"auth":true,"database":true,"disk_space":true,"registry_gunicorn":true,"service_key":true,"web_gunicorn":false}},"status_code":503}` + "\n"},
		{"component away", lame, nil, nil, "/health/instance",
			`{"data":{"services":{"auth":true,"database":true,"disk_space":true,"registry_gunicorn":true,"service_key":true,"web_gunicorn":false}},"status_code":503}` + "\n"},
	} {
		registryd.set(g.registryd)
		workers.set(g.worker)
		fake.Advance(healthAge)
		res, body := do(t, c, request(t, "GET", "http://"+g.front.addr+g.path, nil))
		if body != g.want {
			t.Errorf("%s, %s:\n got %s want %s", g.name, g.path, body, g.want)
		}
		if !strings.Contains(g.want, `"status_code":`+http.StatusText(0)+res.Status[:3]) {
			t.Errorf("%s, %s: status %s", g.name, g.path, res.Status)
		}
		for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-cache, no-store, must-revalidate", "Vary": "Cookie"} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", g.path, name, got)
			}
		}
	}
	registryd.set(nil)
	workers.set(nil)
	fake.Advance(healthAge)

	res, body := do(t, c, request(t, "HEAD", "http://"+f.addr+"/health/instance", nil))
	if res.StatusCode != 200 || body != "" || res.Header.Get("Cache-Control") == "" {
		t.Errorf("HEAD: %d %q", res.StatusCode, body)
	}
	before := registryd.asked.Load()
	for range 20 { // all within the second that answers are reused for
		do(t, c, request(t, "GET", "http://"+f.addr+"/health/instance", nil))
	}
	if got := registryd.asked.Load(); got != before {
		t.Errorf("registryd's checks ran %d times within a second", got-before)
	}
	res, body = do(t, c, request(t, "POST", "http://"+f.addr+"/health/endtoend", nil))
	if res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD, OPTIONS" || !strings.HasPrefix(body, "<!doctype html>\n<html lang=en>\n<title>405 Method Not Allowed</title>\n") {
		t.Errorf("POST: %d %v %s", res.StatusCode, res.Header, body)
	}
	res, _ = do(t, c, request(t, "GET", "http://"+f.addr+"/health/nosuch", nil))
	if res.StatusCode != 404 {
		t.Errorf("unknown health route: %d", res.StatusCode)
	}
}

// TestHealthIsBounded: a component that accepts and says nothing costs two seconds at most.
func TestHealthIsBounded(t *testing.T) {
	silent := filepath.Join(t.TempDir(), "silent.sock")
	release := make(chan struct{})
	startDaemon(t, &service.Daemon{Name: "silent", Log: slog.New(slog.DiscardHandler), Listen: []string{"unix:" + silent},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release; io.WriteString(w, "late") })})
	t.Cleanup(func() { close(release) })
	f := startFront(t, nil, func(o *Options, _ *service.Daemon) {
		o.Components = []Component{{"registryd", service.Addr{Network: "unix", Address: silent}}}
	})
	began := time.Now()
	res, body := do(t, newClient(t, nil, false), request(t, "GET", "http://"+f.addr+"/health/instance", nil))
	if took := time.Since(began); res.StatusCode != 503 || !strings.Contains(body, `"registry_gunicorn":false`) || took > 2*healthLimit {
		t.Errorf("%d after %v: %s", res.StatusCode, took, body)
	}
}

func TestParseComponent(t *testing.T) {
	for text, want := range map[string]string{
		"unix:/run/quay/registryd-admin.sock": "registryd unix:/run/quay/registryd-admin.sock",
		"registryd=tcp:127.0.0.1:1":           "registryd tcp:127.0.0.1:1",
		"tcp:127.0.0.1:1":                     "127.0.0.1:1 tcp:127.0.0.1:1",
	} {
		if c, err := parseComponent(text); err != nil || c.Name+" "+c.Addr.String() != want {
			t.Errorf("%s: %v %v", text, c, err)
		}
	}
	for _, text := range []string{"x", "a=b", "systemd"} {
		if c, err := parseComponent(text); err == nil {
			t.Errorf("%s was read as %v", text, c)
		}
	}
}
