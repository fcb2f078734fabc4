package edge

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/service"
)

// The tests here run real processes: this test binary plays the edge and a small registryd.
const processVariable = "EDGE_TEST_PROCESS"

// runProcess is what such a process does.
func runProcess() (code int, done bool) {
	kind := os.Getenv(processVariable)
	if kind == "" {
		return 0, false
	}
	if os.Getenv("LISTEN_FDS") != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // systemd knows it before the start, a parent does not
	}
	if kind == "edge" {
		return Main(os.Args[1:], os.Stdout, os.Stderr), true
	}
	flags := service.NewFlags("registryd")
	if code, done := flags.Parse(os.Args[1:], os.Stdout, os.Stderr); done {
		return code, true
	}
	d := &service.Daemon{Name: "registryd", Log: flags.Logger(os.Stderr), Listen: flags.Listen, Admin: flags.Admin,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%s %d", r.Method, n)
		})}
	return d.Main(), true
}

// process is a running child.
type process struct {
	cmd    *exec.Cmd
	notify *net.UnixConn
	log    *logBuffer
	ended  chan error
}

// startProcess starts a child and returns when it has said READY=1.
func startProcess(t *testing.T, kind string, socket *os.File, args ...string) *process {
	t.Helper()
	p := &process{log: &logBuffer{}, ended: make(chan error, 1)}
	path := filepath.Join(t.TempDir(), "notify")
	var err error
	if p.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.notify.Close() })
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), processVariable+"="+kind, "NOTIFY_SOCKET="+path)
	p.cmd.Stderr = p.log
	if socket != nil {
		p.cmd.ExtraFiles = []*os.File{socket}
		p.cmd.Env = append(p.cmd.Env, "LISTEN_FDS=1")
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill() })
	p.await(t, "READY=1")
	return p
}

// await reads notifications until one holds text.
func (p *process) await(t *testing.T, text string) {
	t.Helper()
	b := make([]byte, 4096)
	p.notify.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := p.notify.Read(b)
		if err != nil {
			t.Fatalf("no %s: %v\n%s", text, err, p.log)
		}
		if strings.Contains(string(b[:n]), text) {
			return
		}
	}
}

// stop ends the child as systemd does and checks that it left cleanly.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.await(t, "STOPPING=1")
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("child: %v\n%s", err, p.log)
		}
	case <-time.After(40 * time.Second):
		t.Fatalf("the child did not end:\n%s", p.log)
	}
}

// traffic sends about 200 requests a second, GET and POST, on kept and on new connections, and counts
// failures. A POST is never repeated by net/http.
type traffic struct {
	served, failed atomic.Int64
	slowest        atomic.Int64
	hundred        chan struct{}
	stop           chan struct{}
	wg             sync.WaitGroup
}

func startTraffic(t *testing.T, url string) *traffic {
	t.Helper()
	tr := &traffic{hundred: make(chan struct{}, 1), stop: make(chan struct{})}
	for i := range 8 {
		tr.wg.Go(func() {
			transport := &http.Transport{DisableKeepAlives: i%2 == 1}
			defer transport.CloseIdleConnections()
			c := &http.Client{Transport: transport, Timeout: 30 * time.Second}
			pace := time.NewTicker(40 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-tr.stop:
					return
				case <-pace.C:
				}
				method, want := http.MethodGet, "GET 0"
				var body io.Reader
				if i%4 >= 2 {
					method, want = http.MethodPost, "POST 10"
					body = io.LimitReader(strings.NewReader("0123456789"), 10)
				}
				began := time.Now()
				r, err := http.NewRequest(method, url, body)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := c.Do(r)
				var got []byte
				if err == nil {
					got, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				if err != nil || string(got) != want {
					tr.failed.Add(1)
					t.Errorf("%s: %q %v", method, got, err)
				}
				for took := int64(time.Since(began)); ; {
					old := tr.slowest.Load()
					if took <= old || tr.slowest.CompareAndSwap(old, took) {
						break
					}
				}
				if tr.served.Add(1)%100 == 0 {
					select {
					case tr.hundred <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	return tr
}

// more waits until about another hundred requests were served.
func (tr *traffic) more(t *testing.T) {
	t.Helper()
	select {
	case <-tr.hundred:
	case <-time.After(30 * time.Second):
		t.Fatal("the traffic came to a stop")
	}
}

func (tr *traffic) end(t *testing.T) {
	t.Helper()
	close(tr.stop)
	tr.wg.Wait()
	t.Logf("%d requests, %d failed, slowest %v", tr.served.Load(), tr.failed.Load(), time.Duration(tr.slowest.Load()).Round(time.Millisecond))
}

// TestSlotSwitch: two edges take turns on one inherited socket, and registryd is restarted behind them;
// no request fails.
func TestSlotSwitch(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File() // systemd's copy, which stays open
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	dir := t.TempDir()
	registrydArgs := []string{"--listen", "unix:" + filepath.Join(dir, "r.sock"), "--admin", "unix:" + filepath.Join(dir, "r-admin.sock")}
	registryd := startProcess(t, "registryd", nil, registrydArgs...)
	edge := func(slot string) *process {
		return startProcess(t, "edge", socket, "--config-dir", dir, "--listen", "systemd", "--registryd", registrydArgs[1],
			"--admin", "unix:"+filepath.Join(dir, "edge-"+slot+"-admin.sock"), "--health", "registryd="+registrydArgs[3])
	}
	slots := []*process{edge("a"), nil}
	tr := startTraffic(t, "http://"+listener.Addr().String()+"/v2/a/b/manifests/x")
	for i := range 4 {
		tr.more(t)
		next := (i + 1) % 2
		slots[next] = edge([]string{"a", "b"}[next])
		slots[i%2].stop(t)
	}
	for range 3 {
		tr.more(t)
		registryd.stop(t)
		registryd = startProcess(t, "registryd", nil, registrydArgs...)
	}
	tr.more(t)
	tr.end(t)
	slots[0].stop(t)
	registryd.stop(t)
}

// TestEdgeRestart: one edge is restarted; requests wait in the inherited socket's queue.
func TestEdgeRestart(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	dir := t.TempDir()
	registryd := startProcess(t, "registryd", nil, "--listen", "unix:"+filepath.Join(dir, "r.sock"))
	edge := func() *process {
		return startProcess(t, "edge", socket, "--config-dir", dir, "--listen", "systemd", "--registryd", "unix:"+filepath.Join(dir, "r.sock"))
	}
	e := edge()
	tr := startTraffic(t, "http://"+listener.Addr().String()+"/v2/a/b/manifests/x")
	for range 4 {
		tr.more(t)
		e.stop(t)
		e = edge()
	}
	tr.more(t)
	tr.end(t)
	e.stop(t)
	registryd.stop(t)
}

// TestCommandLine: mistakes end with 2 and the usage, failures with 1 and their cause.
func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	for _, g := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--registryd", "nowhere"}, 2, "--registryd: address \"nowhere\""},
		{[]string{"--storage", "x"}, 2, "LOCATION=DIRECTORY"},
		{[]string{"--health", "systemd"}, 2, "cannot be asked"},
		{[]string{"--nonsense"}, 2, "Usage: edge"},
		{[]string{"--config-dir", dir, "--tls-dir", dir}, 1, "put ssl.cert and ssl.key there"},
		{[]string{"--config-dir", dir}, 1, "nothing to listen on"},
	} {
		var out, errs strings.Builder
		if code := Main(g.args, &out, &errs); code != g.code || !strings.Contains(errs.String(), g.want) {
			t.Errorf("%v: %d\n%s", g.args, code, errs.String())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte("MAXIMUM_LAYER_SIZE: lots\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	if code := Main([]string{"--config-dir", dir}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "MAXIMUM_LAYER_SIZE (lots)") {
		t.Errorf("bad configuration: %d %s", code, errs.String())
	}
}
