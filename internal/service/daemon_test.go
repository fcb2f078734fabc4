package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/service"
)

func TestMain(m *testing.M) {
	if code, done := runProcess(); done { // process_test.go
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// logBuffer collects a daemon's log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a daemon that was started by start.
type running struct {
	listen []net.Addr
	admin  net.Addr
	stop   context.CancelFunc
	ended  chan error
	log    *logBuffer
}

// wait returns Run's error.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatalf("the daemon did not end:\n%s", r.log)
		return nil
	}
}

// launch runs d without waiting for readiness.
func launch(t *testing.T, d *service.Daemon) (*running, <-chan struct{}) {
	t.Helper()
	r := &running{ended: make(chan error, 1), log: &logBuffer{}}
	ready := make(chan struct{})
	d.Name = "testd"
	d.Log = slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d.OnReady = func(listen []net.Addr, admin net.Addr) {
		r.listen, r.admin = listen, admin
		close(ready)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() { r.ended <- d.Run(ctx) }()
	return r, ready
}

// start runs d and waits until it is ready.
func start(t *testing.T, d *service.Daemon) *running {
	t.Helper()
	r, ready := launch(t, d)
	select {
	case <-ready:
	case err := <-r.ended:
		t.Fatalf("the daemon ended before it was ready: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatalf("the daemon did not become ready:\n%s", r.log)
	}
	return r
}

// client talks to addr, which may be a unix socket, whatever the URL's host is.
func client(t *testing.T, addr net.Addr) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, addr.Network(), addr.String())
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, c *http.Client, path string) (int, string) {
	t.Helper()
	resp, err := c.Get("http://daemon" + path)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return resp.StatusCode, string(body)
}

func socket(t *testing.T, name string) string {
	t.Helper()
	return "unix:" + filepath.Join(t.TempDir(), name)
}

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

func TestAdminSurface(t *testing.T) {
	var broken atomic.Pointer[error]
	d := &service.Daemon{
		Version: "1.2.3",
		Handler: http.HandlerFunc(hello),
		Listen:  []string{"tcp:127.0.0.1:0", socket(t, "public.sock")},
		Admin:   socket(t, "admin.sock"),
		Checks: []service.Check{
			{Name: "disk", Run: func(context.Context) error { return nil }},
			{Name: "database", Run: func(context.Context) error {
				if err := broken.Load(); err != nil {
					return *err
				}
				return nil
			}},
		},
	}
	r := start(t, d)
	if len(r.listen) != 2 {
		t.Fatalf("listens on %v, want two addresses", r.listen)
	}
	for _, a := range r.listen {
		if status, body := get(t, client(t, a), "/"); status != 200 || body != "hello" {
			t.Errorf("%s answered %d %q", a, status, body)
		}
	}
	admin := client(t, r.admin)
	if status, body := get(t, admin, "/readyz"); status != 200 ||
		strings.TrimSpace(body) != `{"status":"ok","checks":{"database":{"ok":true,"error":""},"disk":{"ok":true,"error":""}}}` {
		t.Errorf("/readyz: %d %s", status, body)
	}
	failure := errors.New("connect: refused; start quay-postgresql")
	broken.Store(&failure)
	if status, body := get(t, admin, "/readyz"); status != 503 ||
		!strings.Contains(body, `"status":"failing"`) || !strings.Contains(body, `"database":{"ok":false,"error":"connect: refused; start quay-postgresql"}`) {
		t.Errorf("/readyz with a broken check: %d %s", status, body)
	}
	if status, body := get(t, admin, "/livez"); status != 200 {
		t.Errorf("/livez: %d %s, a check that is not ready must not kill", status, body)
	}
	_, body := get(t, admin, "/version")
	var v service.Version
	if err := json.Unmarshal([]byte(body), &v); err != nil || v.Name != "testd" || v.Version != "1.2.3" {
		t.Errorf("/version: %s (%v)", body, err)
	}
	_, metrics := get(t, admin, "/metrics")
	for _, want := range []string{"go_goroutines", "process_resident_memory_bytes", `quay_build_info{daemon="testd",`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if status, _ := get(t, client(t, r.listen[0]), "/metrics"); status != 200 {
		t.Errorf("the public handler was not asked for /metrics: %d", status)
	}
	r.stop()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
}

func TestReadyOnlyWhenChecksPass(t *testing.T) {
	var asked atomic.Int32
	path := socket(t, "public.sock")
	enough := make(chan struct{})
	d := &service.Daemon{
		Handler: http.HandlerFunc(hello),
		Listen:  []string{path},
		Admin:   "tcp:127.0.0.1:0",
		Checks: []service.Check{{Name: "database", Run: func(context.Context) error {
			if asked.Add(1) < 3 {
				if _, err := os.Stat(strings.TrimPrefix(path, "unix:")); err == nil {
					t.Error("the public socket exists before the checks have passed")
				}
				return errors.New("starting up")
			}
			close(enough)
			return nil
		}}},
	}
	r := start(t, d)
	<-enough
	if !strings.Contains(r.log.String(), `"check":"database","error":"starting up"`) {
		t.Errorf("the failing check was not told:\n%s", r.log)
	}
	r.stop()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
}

func TestExpensiveChecksAreNotRepeatedAtOnce(t *testing.T) {
	c := clock.NewFake(time.Unix(1700000000, 0))
	var runs int
	failure := errors.New("disk is full")
	check := service.Check{Name: "storage", Run: func(context.Context) error { runs++; return failure }}.Every(10*time.Second, c)
	ask := func(wantRuns int, want error) {
		t.Helper()
		if err := check.Run(t.Context()); !errors.Is(err, want) || runs != wantRuns {
			t.Errorf("%v after %d runs, want %v after %d", err, runs, want, wantRuns)
		}
	}
	ask(1, failure)
	ask(2, failure) // a failure ends as soon as its cause does
	failure = nil
	ask(3, nil)
	failure = errors.New("disk is gone")
	c.Advance(9 * time.Second)
	ask(3, nil)
	c.Advance(time.Second)
	ask(4, failure)
}

func TestStopWhileNotReady(t *testing.T) {
	asked := make(chan struct{}, 1000)
	d := &service.Daemon{Checks: []service.Check{{Name: "never", Run: func(context.Context) error {
		asked <- struct{}{}
		return errors.New("no")
	}}}}
	r, _ := launch(t, d)
	<-asked
	r.stop()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
}

func TestOrderOfTheEnd(t *testing.T) {
	var mu sync.Mutex
	var order []string
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, s)
	}
	inHandler, goOn := make(chan struct{}), make(chan struct{})
	d := &service.Daemon{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(inHandler)
			<-goOn
			note("request")
			hello(w, r)
		}),
		Listen: []string{socket(t, "s")},
		Admin:  socket(t, "a"),
		Background: []func(context.Context) error{func(ctx context.Context) error {
			<-ctx.Done()
			note("background")
			return ctx.Err()
		}},
		OnDrain: []func(context.Context) error{
			func(context.Context) error { note("flush 1"); return errors.New("flush 1 failed") },
			func(context.Context) error { note("flush 2"); return nil },
		},
	}
	r := start(t, d)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if status, _ := get(t, client(t, r.listen[0]), "/"); status != 200 {
			t.Errorf("the request in flight got %d", status)
		}
	}()
	<-inHandler
	r.stop()
	admin := client(t, r.admin)
	for { // the drain waits for the request, so /readyz can be asked until it has noticed
		if _, body := get(t, admin, "/readyz"); strings.Contains(body, `"status":"draining"`) {
			break
		}
	}
	close(goOn)
	<-answered
	err := r.wait(t)
	if err == nil || err.Error() != "flush 1 failed" {
		t.Errorf("Run returned %v", err)
	}
	if got := strings.Join(order, ", "); got != "request, background, flush 1, flush 2" {
		t.Errorf("order: %s", got)
	}
}

func TestBackgroundErrorStopsTheDaemon(t *testing.T) {
	cause := errors.New("lost the lease")
	d := &service.Daemon{Background: []func(context.Context) error{
		func(context.Context) error { return nil }, // ending early is no reason to stop
		func(context.Context) error { return cause },
	}}
	r, _ := launch(t, d)
	if err := r.wait(t); !errors.Is(err, cause) {
		t.Errorf("Run returned %v", err)
	}
}

func TestDrainLimitCutsRequests(t *testing.T) {
	in := make(chan struct{})
	d := &service.Daemon{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(in)
			<-r.Context().Done()
		}),
		Listen:     []string{socket(t, "s")},
		DrainLimit: service.DrainGrace * 2,
	}
	r := start(t, d)
	failed := make(chan error, 1)
	c := client(t, r.listen[0])
	go func() {
		resp, err := c.Get("http://daemon/")
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-in
	r.stop()
	if err := r.wait(t); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run returned %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
}

func TestBadAddresses(t *testing.T) {
	for _, c := range []struct {
		d    *service.Daemon
		want string
	}{
		{&service.Daemon{Handler: http.HandlerFunc(hello)}, "nothing to listen on: give --listen"},
		{&service.Daemon{Handler: http.HandlerFunc(hello), Listen: []string{"/x"}}, `address "/x" is neither unix:PATH`},
		{&service.Daemon{Handler: http.HandlerFunc(hello), Listen: []string{"systemd"}}, "no socket was inherited"},
		{&service.Daemon{Handler: http.HandlerFunc(hello), Listen: []string{"systemd:x"}}, `no inherited socket is called "x"`},
		{&service.Daemon{Handler: http.HandlerFunc(hello), Listen: []string{"unix:/nonexistent/x"}}, "/nonexistent/x"},
		{&service.Daemon{Admin: "tcp:nohost"}, "missing port"},
	} {
		r, _ := launch(t, c.d)
		if err := r.wait(t); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %q: Run returned %v, want %q", c.d.Listen, c.d.Admin, err, c.want)
		}
	}
}

func TestUnixSocketFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()

	r := start(t, &service.Daemon{Handler: http.HandlerFunc(hello), Listen: []string{"unix:" + path}})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Fatalf("socket: %v %v", info, err)
	}
	second, _ := launch(t, &service.Daemon{Handler: http.HandlerFunc(hello), Listen: []string{"unix:" + path}})
	if err := second.wait(t); err == nil || !strings.Contains(err.Error(), "another process answers there") {
		t.Errorf("a second daemon on the socket: %v", err)
	}
	r.stop()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}

	r = start(t, &service.Daemon{Handler: http.HandlerFunc(hello), Listen: []string{"unix:" + path}})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the file of somebody else was removed: %v", err)
	}
}

// TestDrainUnderLoad restarts a daemon behind a unix socket while keep-alive and new connections, GET and
// POST, go on. A dial that fails is tried again, as the edge does; nothing else may go wrong.
func TestDrainUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	begin := func() *running {
		return start(t, &service.Daemon{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n, err := io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, n, err)
			}),
			Listen: []string{"unix:" + path},
		})
	}
	r := begin()
	var served, dials atomic.Int64
	milestones := make(chan struct{}, 1)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for i := range 8 {
		load.Go(func() {
			tr := &http.Transport{
				DisableKeepAlives: i%2 == 1,
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					for {
						var d net.Dialer
						c, err := d.DialContext(ctx, "unix", path)
						if err == nil {
							return c, nil
						}
						dials.Add(1)
						select {
						case <-ctx.Done():
							return nil, ctx.Err()
						case <-time.After(5 * time.Millisecond):
						}
					}
				},
			}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr, Timeout: 20 * time.Second}
			for {
				select {
				case <-stop:
					return
				default:
				}
				// A POST with an opaque body is never repeated by net/http, so each failure is seen.
				resp, err := c.Post("http://daemon/", "text/plain", io.LimitReader(strings.NewReader("0123456789"), 10))
				if err != nil {
					t.Errorf("request: %v", err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != "10<nil>" && string(body) != "10 <nil>" {
					t.Errorf("answer %q, %v", body, err)
					return
				}
				if served.Add(1)%1000 == 0 {
					select {
					case milestones <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	for range 3 {
		select {
		case <-milestones:
		case <-time.After(30 * time.Second):
			t.Fatal("the load came to a stop")
		}
		r.stop()
		if err := r.wait(t); err != nil {
			t.Error(err)
		}
		r = begin()
	}
	close(stop)
	load.Wait()
	r.stop()
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
	t.Logf("%d requests, %d dials failed and were repeated", served.Load(), dials.Load())
}

func TestFlags(t *testing.T) {
	t.Setenv("QUAYCONF", "/q")
	f := service.NewFlags("testd")
	extra := f.Set.String("tls-dir", "", "`directory` with ssl.cert and ssl.key")
	var out, errs bytes.Buffer
	if code, done := f.Parse([]string{"--listen", "unix:/s", "--listen=tcp:[::1]:1", "--admin", "unix:/a", "--log-level", "debug", "--tls-dir", "/t"}, &out, &errs); done {
		t.Fatalf("done with %d: %s", code, errs.String())
	}
	if f.ConfigDir != "/q/stack" || len(f.Listen) != 2 || f.Admin != "unix:/a" || f.LogLevel != slog.LevelDebug || *extra != "/t" {
		t.Errorf("parsed %+v, %s", f, *extra)
	}
	for _, c := range []struct {
		args        []string
		code        int
		stdout, err string
	}{
		{[]string{"--help"}, 0, "Usage: testd [flags]", ""},
		{[]string{"-h"}, 0, "--tls-dir DIRECTORY", ""},
		{[]string{"--version"}, 0, "testd ", ""},
		{[]string{"--nonsense"}, 2, "", "flag provided but not defined: -nonsense"},
		{[]string{"--listen", "here"}, 2, "", `address "here" is neither`},
		{[]string{"--log-level", "loud"}, 2, "", "loud"},
		{[]string{"serve"}, 2, "", `unexpected argument "serve"`},
	} {
		f := service.NewFlags("testd")
		f.Set.String("tls-dir", "", "`directory` with ssl.cert and ssl.key")
		var out, errs bytes.Buffer
		code, done := f.Parse(c.args, &out, &errs)
		if !done || code != c.code || !strings.Contains(out.String(), c.stdout) || !strings.Contains(errs.String(), c.err) {
			t.Errorf("%v: %d %v\nstdout %s\nstderr %s", c.args, code, done, out.String(), errs.String())
		}
		if c.code == 2 && (out.Len() > 0 || !strings.Contains(errs.String(), "Usage: testd")) {
			t.Errorf("%v: the usage belongs on stderr: %s", c.args, errs.String())
		}
	}
}
