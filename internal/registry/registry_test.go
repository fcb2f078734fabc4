package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/registry"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// server is a registryd on the recorded accounts, an empty storage and a free port.
type server struct {
	*testing.T
	pg    *pgtest.DB
	host  string
	admin string
	log   *bytes.Buffer
	stop  func() error
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{T: t, pg: pgtest.Populated(t), log: &bytes.Buffer{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.host = l.Addr().String() // tokens name it, so that it must be known before the start
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{"stack", "storage"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(`{SETUP_COMPLETE: true, TESTING: false, SERVER_HOSTNAME: "%s", PREFERRED_URL_SCHEME: http, AUTHENTICATION_TYPE: Database, DB_URI: "%s",
SECRET_KEY: '50813906178520318649027154739263840195728364051928374650192837465019283746501',
DATABASE_SECRET_KEY: '72610394857261039485726103948572610394857261039485726103948572610394857261039',
DISTRIBUTED_STORAGE_CONFIG: {local_us: [LocalStorage, {storage_path: "%s"}]}, DISTRIBUTED_STORAGE_PREFERENCE: [local_us]}`,
		s.host, s.pg.DSN, filepath.Join(dir, "storage"))
	cfg, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := registry.Compose(t.Context(), registry.Options{Config: cfg, ConfigDir: filepath.Join(dir, "stack"), Clock: clock.Real{},
		Log: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	daemon.Listen, daemon.Admin = []string{"tcp:" + s.host}, "tcp:127.0.0.1:0"
	ready := make(chan struct{})
	daemon.OnReady = func(_ []net.Addr, admin net.Addr) { s.admin = admin.String(); close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(ctx) }()
	s.stop = func() error { cancel(); err := <-ended; ended <- nil; return err }
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("registryd ended: %v\n%s", err, s.log)
	case <-time.After(2 * time.Minute):
		t.Fatal("registryd is not ready")
	}
	return s
}

func (s *server) ref(text string) name.Reference {
	s.Helper()
	ref, err := name.ParseReference(s.host+"/"+text, name.Insecure)
	if err != nil {
		s.Fatal(err)
	}
	return ref
}

func as(user, password string) remote.Option {
	return remote.WithAuth(&authn.Basic{Username: user, Password: password})
}

const robotToken = "ZVJ0ZNP5U9TJD8D8ZZW576T53CLXJIJXFEVEH5SY2C20ZZQVWINVUYPUIV78S3D5" // devtable+dtrobot in the dataset

// TestImagesComeAndGo pushes to a new repository and uses it as different people do.
func TestImagesComeAndGo(t *testing.T) {
	s := start(t)
	image, err := random.Image(3000, 3)
	if err != nil {
		t.Fatal(err)
	}
	devtable := as("devtable", "password")
	ref := s.ref("devtable/deep/new/app:v1")
	if err := remote.Write(ref, image, devtable); err != nil {
		t.Fatalf("push: %v\n%s", err, s.log)
	}
	want, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	pull := func(option remote.Option) error {
		got, err := remote.Image(ref, option)
		if err != nil {
			return err
		}
		digest, err := got.Digest()
		if err != nil {
			return err
		}
		if digest != want {
			return fmt.Errorf("digest %s, want %s", digest, want)
		}
		layers, err := got.Layers()
		if err != nil {
			return err
		}
		for _, layer := range layers {
			if err := drain(layer); err != nil {
				return err
			}
		}
		return nil
	}
	if err := pull(devtable); err != nil {
		t.Errorf("pull: %v", err)
	}
	for who, option := range map[string]remote.Option{
		"a stranger": as("freshuser", "password"), "nobody": remote.WithAuth(authn.Anonymous),
		"a robot without a permission": as("devtable+dtrobot", robotToken), "a wrong password": as("public", "wrong"),
	} {
		if pull(option) == nil {
			t.Errorf("%s pulled a private image", who)
		}
	}
	s.pg.Exec(`insert into repositorypermission (user_id, repository_id, role_id)
		select u.id, r.id, o.id from "user" u, repository r, role o where u.username = 'devtable+dtrobot' and r.name = 'deep/new/app' and o.name = 'read'`)
	if err := pull(as("devtable+dtrobot", robotToken)); err != nil {
		t.Errorf("a robot with a permission: %v", err)
	}
	if err := remote.Write(s.ref("devtable/deep/new/app:v2"), image, as("devtable+dtrobot", robotToken)); err == nil {
		t.Error("a robot with read permission pushed")
	}
	s.pg.Exec(`update repository set visibility_id = (select id from visibility where name = 'public') where name = 'deep/new/app'`)
	if err := pull(remote.WithAuth(authn.Anonymous)); err != nil {
		t.Errorf("anonymous pull of a public image: %v", err)
	}

	tags, err := remote.List(ref.Context(), devtable)
	if err != nil || !slices.Equal(tags, []string{"v1"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	registry, err := name.NewRegistry(s.host, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	repos, err := remote.Catalog(t.Context(), registry, devtable)
	if err != nil || !slices.Contains(repos, "devtable/deep/new/app") {
		t.Errorf("catalogue %v, %v", repos, err)
	}
	if err := remote.Delete(ref.Context().Digest(want.String()), devtable); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := pull(devtable); err == nil {
		t.Error("a deleted image was pulled by its tag")
	}

	if err := s.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	var pushes, pulls int
	if err := s.pg.Conn().QueryRow(t.Context(), `select count(*) filter (where k.name = 'push_repo'), count(*) filter (where k.name = 'pull_repo')
		from logentry3 l join logentrykind k on k.id = l.kind_id join repository r on r.id = l.repository_id where r.name = 'deep/new/app'`).
		Scan(&pushes, &pulls); err != nil || pushes != 1 || pulls < 3 {
		t.Errorf("%d pushes and %d pulls are logged, %v", pushes, pulls, err)
	}
}

func drain(layer v1.Layer) error {
	blob, err := layer.Compressed()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, blob)
	if closeErr := blob.Close(); err == nil {
		err = closeErr
	}
	return err
}

// TestAdmin looks at what only the appliance sees.
func TestAdmin(t *testing.T) {
	s := start(t)
	get := func(url string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}
	if code, _ := get("http://" + s.host + "/v2/"); code != 401 {
		t.Errorf("ping without a token: %d", code)
	}
	if code, body := get("http://" + s.host + "/anything/else"); code != 404 || !strings.Contains(body, "<title>404 Not Found</title>") {
		t.Errorf("unknown path: %d %s", code, body)
	}
	if code, body := get("http://" + s.admin + "/readyz"); code != 200 || !strings.Contains(body, `"instance_key":{"ok":true`) {
		t.Errorf("readyz: %d %s", code, body)
	}
	_, body := get("http://" + s.admin + "/metrics")
	for _, want := range []string{
		`quay_request_duration_seconds_count{method="GET",namespace_name="",route="v2.v2_support_enabled",status="401"} 1`,
		"quay_db_pooled_connections_in_use ", "quay_registry_image_pushed_bytes_total ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, 0, "Usage: registryd"},
		{[]string{"--nonsense"}, 2, "nonsense"},
		{[]string{"--config-dir", "/nonexistent"}, 1, "/nonexistent"},
	} {
		var out bytes.Buffer
		if code := registry.Main(c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: %d %s", c.args, code, out.String())
		}
	}
}

// lines are a log that announces each of its lines.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// TestDrainLimitOfCommandLine stops a registryd that still waits for its database.
func TestDrainLimitOfCommandLine(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(`{SETUP_COMPLETE: true, SERVER_HOSTNAME: quay.example, PREFERRED_URL_SCHEME: https, AUTHENTICATION_TYPE: Database,
BUILDLOGS_REDIS: {host: localhost}, USER_EVENTS_REDIS: {host: localhost}, DEFAULT_TAG_EXPIRATION: 2w, TAG_EXPIRATION_OPTIONS: [2w], DB_URI: "postgresql://quay@/quay?host=%[1]s",
SECRET_KEY: '50813906178520318649027154739263840195728364051928374650192837465019283746501',
DATABASE_SECRET_KEY: '72610394857261039485726103948572610394857261039485726103948572610394857261039',
DISTRIBUTED_STORAGE_CONFIG: {local_us: [LocalStorage, {storage_path: "%[1]s/storage"}]}, DISTRIBUTED_STORAGE_PREFERENCE: [local_us]}`, dir)
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := make(lines, 100)
	ended := make(chan int, 1)
	go func() {
		ended <- registry.Main([]string{"--config-dir", dir, "--listen", "unix:" + dir + "/s", "--drain-limit", "7s"}, io.Discard, log)
		close(log)
	}()
	await := func(part string) {
		t.Helper()
		last := ""
		for last = range log {
			if strings.Contains(last, part) {
				return
			}
		}
		t.Fatalf("ended with %d before it said %q; last %s", <-ended, part, last)
	}
	await("not ready")
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(`"limit":"7s"`)
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}
