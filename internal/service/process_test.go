package service_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/service"
)

const processVariable = "SERVICE_TEST_PROCESS"

// runProcess makes this test binary a daemon.
func runProcess() (code int, done bool) {
	if os.Getenv(processVariable) == "" {
		return 0, false
	}
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // systemd knows it before the start, a parent does not
	flags := service.NewFlags("testd")
	if code, done := flags.Parse(os.Args[1:], os.Stdout, os.Stderr); done {
		return code, true
	}
	d := &service.Daemon{Name: "testd", Log: flags.Logger(os.Stderr), Listen: flags.Listen, Admin: flags.Admin, DrainLimit: flags.DrainLimit,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/forever" {
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
			hello(w, r)
		})}
	return d.Main(), true
}

// listenNotify makes the socket that systemd would listen on.
func listenNotify(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, path
}

// await returns the first notification that begins with prefix.
func await(t *testing.T, c *net.UnixConn, prefix string) string {
	t.Helper()
	b := make([]byte, 4096)
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("no %s: %v", prefix, err)
		}
		if strings.HasPrefix(string(b[:n]), prefix) {
			return string(b[:n])
		}
	}
}

// TestInheritedSocketsAndSignals: sockets are told apart by name; the second signal cuts the drain short.
func TestInheritedSocketsAndSignals(t *testing.T) {
	notify, path := listenNotify(t)
	cmd := exec.Command(os.Args[0], "--listen", "systemd:web", "--admin", "systemd:private")
	cmd.Env = append(os.Environ(), processVariable+"=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=private:web", "NOTIFY_SOCKET="+path)
	log := &logBuffer{}
	cmd.Stderr = log
	var addrs []net.Addr
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, l.Addr())
		l.Close()
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if got := await(t, notify, "READY=1"); !strings.Contains(got, "STATUS=serving") {
		t.Errorf("notification %q", got)
	}
	if status, body := get(t, client(t, addrs[1]), "/"); status != 200 || body != "hello" {
		t.Errorf("web socket: %d %q", status, body)
	}
	if status, _ := get(t, client(t, addrs[0]), "/readyz"); status != 200 {
		t.Errorf("private socket: %d\n%s", status, log)
	}
	res, err := client(t, addrs[1]).Get("http://daemon/forever")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cmd.Process.Signal(syscall.SIGTERM)
	await(t, notify, "STOPPING=1")
	cmd.Process.Signal(syscall.SIGINT)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != service.ExitFailure {
		t.Errorf("the child left with %v\n%s", err, log)
	}
	if !strings.Contains(log.String(), "requests still ran") {
		t.Errorf("log:\n%s", log)
	}
}

// TestWatchdog: systemd is fed while the daemon is alive, and only then.
func TestWatchdog(t *testing.T) {
	notify, path := listenNotify(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	var dead atomic.Bool
	refused := make(chan struct{}, 1000)
	r := start(t, &service.Daemon{
		Admin: socket(t, "a"),
		Live: []service.Check{{Name: "alive", Run: func(context.Context) error {
			if dead.Load() {
				refused <- struct{}{}
				return errors.New("stuck")
			}
			return nil
		}}},
	})
	await(t, notify, "READY=1")
	await(t, notify, "WATCHDOG=1")
	dead.Store(true)
	<-refused // from here on nothing may arrive
	notify.SetReadDeadline(time.Now())
	for b := make([]byte, 100); ; {
		if _, err := notify.Read(b); err != nil {
			break
		}
	}
	for range 3 {
		<-refused
	}
	notify.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := notify.Read(make([]byte, 100)); err == nil {
		t.Errorf("a daemon that is not alive was fed for (%d bytes)", n)
	}
	if status, body := get(t, client(t, r.admin), "/livez"); status != 503 || !strings.Contains(body, "stuck") {
		t.Errorf("/livez: %d %s", status, body)
	}
	dead.Store(false)
	await(t, notify, "WATCHDOG=1")
	r.stop()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
	await(t, notify, "STOPPING=1")
	if !strings.Contains(r.log.String(), "not alive, the watchdog is not fed") {
		t.Errorf("log:\n%s", r.log)
	}
}

// TestStatusTellsWhatIsMissing: systemctl status shows why a daemon is not ready yet.
func TestStatusTellsWhatIsMissing(t *testing.T) {
	notify, path := listenNotify(t)
	t.Setenv("NOTIFY_SOCKET", path)
	r, _ := launch(t, &service.Daemon{Checks: []service.Check{{Name: "database", Run: func(context.Context) error { return errors.New("no such host") }}}})
	if got := await(t, notify, "STATUS="); got != "STATUS=waiting for database: no such host" {
		t.Errorf("notification %q", got)
	}
	r.stop()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
}

// TestWarnings: a warning is shown and does not make a daemon unready; a panic in a check is its failure.
func TestWarnings(t *testing.T) {
	var broken atomic.Bool
	r := start(t, &service.Daemon{Admin: socket(t, "a"), Checks: []service.Check{
		{Name: "certificate", Run: func(context.Context) error { return service.Warning{Err: errors.New("expires soon")} }},
		{Name: "other", Run: func(context.Context) error {
			if broken.Load() {
				panic("bug")
			}
			return nil
		}},
	}})
	if status, body := get(t, client(t, r.admin), "/readyz"); status != 200 || !strings.Contains(body, `"certificate":{"ok":true,"error":"expires soon"}`) {
		t.Errorf("/readyz: %d %s", status, body)
	}
	broken.Store(true)
	if status, body := get(t, client(t, r.admin), "/readyz"); status != 503 || !strings.Contains(body, "check panicked: bug") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	r.stop()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
}
